"""Planted errors of place, sign, level and identity are found as what they are."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from linnet.evaluate.alignment import UNKNOWN, align, shift

RATE = 16_000


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return soundfile.read(Path(__file__).parents[1] / "data" / "speech.flac")[0]


@pytest.mark.parametrize("lag", [-1600, -7, 0, 3, 7, 400])
def test_a_planted_delay_is_found_to_the_sample(speech: np.ndarray, lag: int) -> None:
    noisy = shift(speech, -1000 * lag / RATE) + 0.003 * np.random.default_rng(0).standard_normal(len(speech))
    found = align(speech, noisy)
    assert found.exact
    assert found.lag_ms * RATE / 1000 == pytest.approx(lag)
    assert found.fault() == ("" if abs(lag) <= 3 else f"shifted by {lag:+d} samples ({1000 * lag / RATE:+.2f} ms)")
    assert found.notes() == []


@pytest.mark.parametrize("lag_ms", [-60, 0, 30])
def test_a_delay_is_found_without_the_waveform(speech: np.ndarray, lag_ms: int) -> None:
    """As in a vocoder: the phase of every bin is drawn anew, frame by frame."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(speech, (512, 512)), 512)[::128]
    spectra = np.abs(np.fft.rfft(frames * np.hanning(512)))
    phases = np.exp(2j * np.pi * np.random.default_rng(0).random(spectra.shape))
    made = np.zeros(128 * (len(spectra) + 3))
    for n, frame in enumerate(np.fft.irfft(spectra * phases) * np.hanning(512)):
        made[128 * n : 128 * n + 512] += frame / 1.5
    found = align(speech, shift(made[512 : 512 + len(speech)], -lag_ms))
    assert not found.exact
    assert found.lag_ms == pytest.approx(lag_ms, abs=3)
    assert bool(found.fault()) == (abs(lag_ms) > 8)


def test_a_flip_is_told_and_no_fault(speech: np.ndarray) -> None:
    found = align(speech, -speech)
    assert found.fault() == ""
    assert found.notes() == ["polarity is flipped"]


def test_a_hum_is_no_evidence() -> None:
    """A vowel with one strong formant correlates with itself at all its half periods: neither lag nor sign can be told."""
    time = np.arange(2 * RATE) / RATE
    swelling = np.sin(2 * np.pi * 3 * time) ** 2 * np.sin(2 * np.pi * 615 * time)
    found = align(swelling, shift(-swelling, 1000 * 13 / RATE))
    assert not found.exact
    assert found.fault() == ""
    assert found.notes() == []


@pytest.mark.parametrize("gain_db", [-6.0, 6.0])
def test_a_level_is_told_and_no_fault(speech: np.ndarray, gain_db: float) -> None:
    found = align(speech, speech * 10 ** (gain_db / 20))
    assert found.gain_db == pytest.approx(gain_db)
    assert found.fault() == ""
    assert found.notes() == [f"level is {gain_db:+.1f} dB off"]


def test_another_recording_is_a_fault(speech: np.ndarray) -> None:
    half = len(speech) // 2
    assert "not the same recording" in align(speech[:half], speech[half : 2 * half]).fault()
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(speech))
    assert "not the same recording" in align(speech, noise).fault()
    assert align(speech, 0 * speech).fault() == "the output is silent"


def test_what_cannot_be_told(speech: np.ndarray) -> None:
    assert align(0 * speech, speech) == align(speech[:100], speech[:100]) == UNKNOWN
    assert UNKNOWN.fault() == ""
    assert UNKNOWN.notes() == ["the original is silent or under 0.5 s: metrics that want more have no score"]


@pytest.mark.parametrize("lag", [-20, 0, 20, 200])
def test_shift(lag: int) -> None:
    moved = shift(np.arange(100.0), 1000 * lag / RATE)
    assert moved.shape == (100,)
    assert moved[50] == (50 + lag if 50 + lag < 100 else 0)
