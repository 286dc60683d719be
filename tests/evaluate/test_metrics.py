"""Metrics against what must hold: identity, scale, planted errors, silence."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from linnet.evaluate.metrics import (
    BAND_EDGES_HZ,
    METRICS,
    MissingPackageError,
    band_levels,
    dnsmos,
    estoi,
    log_mel_distance,
    pesq_wb,
    si_sdr,
)

RATE = 16_000
NEEDS = {name: metric.package for name, metric in METRICS.items() if metric.package}
BEST = {"pesq_wb": 4.644, "pesq_nb": 4.549, "stoi": 1.0, "estoi": 1.0}
BEST |= {"nmr": -80.0, "nmr_audible": 0.0}
BEST |= dict.fromkeys(["log_mel", "lsd_low", "lsd_high", "band_error", "f0_error", "voicing_error"], 0.0)
LOCAL = [name for name in METRICS if name not in NEEDS]


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return soundfile.read(Path(__file__).parents[1] / "data" / "speech.flac")[0]


@pytest.fixture(scope="module")
def noisy(speech: np.ndarray) -> np.ndarray:
    return speech + 0.003 * np.random.default_rng(0).standard_normal(len(speech))


def need(metric: str) -> None:
    if metric in NEEDS:
        pytest.importorskip(NEEDS[metric])
        if lacking := METRICS[metric].lacking():
            pytest.skip(f"{lacking} is not there")


@pytest.mark.parametrize(("name", "best"), list(BEST.items()))
def test_a_signal_equals_itself(speech: np.ndarray, name: str, best: float) -> None:
    need(name)
    assert METRICS[name].function(speech, speech, RATE) == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("name", list(METRICS))
def test_noise_is_worse_than_none(speech: np.ndarray, noisy: np.ndarray, name: str) -> None:
    need(name)
    metric = METRICS[name]
    clean, bad = metric.function(speech, speech, RATE), metric.function(speech, noisy, RATE)
    assert (bad < clean) if metric.higher_is_better else (bad > clean)


@pytest.mark.parametrize("name", ["pesq_wb", "pesq_nb", "stoi", "estoi", "si_sdr"])
def test_level_does_not_matter(speech: np.ndarray, noisy: np.ndarray, name: str) -> None:
    need(name)
    function = METRICS[name].function
    assert function(speech, 0.25 * noisy, RATE) == pytest.approx(function(speech, noisy, RATE), abs=2e-3)


def test_si_sdr_is_the_planted_ratio(speech: np.ndarray) -> None:
    error = np.random.default_rng(1).standard_normal(len(speech))
    centred = speech - speech.mean()
    error -= error.mean()
    error -= centred * (error @ centred) / (centred @ centred)  # orthogonal, so that none of it counts as signal
    error *= 0.1 * np.linalg.norm(centred) / np.linalg.norm(error)
    assert si_sdr(speech, speech + error, RATE) == pytest.approx(20.0, abs=1e-6)


@pytest.mark.parametrize("planted_db", [-6.0, 3.0])
def test_log_mel_distance_is_the_planted_gain(planted_db: float) -> None:
    noise = 0.1 * np.random.default_rng(2).standard_normal(RATE)  # no bin near the floor
    assert log_mel_distance(noise, noise * 10 ** (planted_db / 20), RATE) == pytest.approx(abs(planted_db), abs=1e-6)


@pytest.mark.parametrize("band", range(len(BAND_EDGES_HZ) - 1))
def test_band_levels_find_a_planted_shift(speech: np.ndarray, band: int) -> None:
    spectrum = np.fft.rfft(speech)
    hz = np.fft.rfftfreq(len(speech), 1 / RATE)
    spectrum[(hz >= BAND_EDGES_HZ[band]) & (hz < BAND_EDGES_HZ[band + 1])] *= 10 ** (4.5 / 20)
    found = band_levels(speech, np.fft.irfft(spectrum, len(speech)), RATE)
    wanted = np.zeros(len(BAND_EDGES_HZ) - 1)
    wanted[band] = 4.5
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(("name", "heard", "deaf"), [("lsd_low", 1000, 6000), ("lsd_high", 6000, 1000)])
def test_spectral_distance_hears_its_band_alone(name: str, heard: int, deaf: int) -> None:
    noise = 0.1 * np.random.default_rng(3).standard_normal(RATE)
    spectrum, hz = np.fft.rfft(noise), np.fft.rfftfreq(RATE, 1 / RATE)
    for middle, least, most in ((heard, 1.0, 10.0), (deaf, 0.0, 0.1)):
        raised = spectrum * np.where(np.abs(hz - middle) < 800, 2.0, 1.0)
        assert least <= METRICS[name].function(noise, np.fft.irfft(raised, RATE), RATE) <= most
    assert METRICS[name].function(noise, noise / 2, RATE) == pytest.approx(20 * np.log10(2))


def voice(hz: float, seconds: float = 1.0) -> np.ndarray:
    """A pulse train through one resonance: voiced all along."""
    time = np.arange(int(seconds * RATE)) / RATE
    return sum(0.1 * np.cos(2 * np.pi * hz * n * time) / n for n in range(1, 20))


@pytest.mark.parametrize("cents", [-300.0, 50.0, 1900.0])
def test_pitch_error_is_the_planted_one(cents: float) -> None:
    need("f0_error")
    found = METRICS["f0_error"].function(voice(110), voice(110 * 2 ** (cents / 1200)), RATE)
    assert found == pytest.approx(min(abs(cents), 1200), abs=12)  # the tracker errs at both ends


def test_voicing_error_is_the_planted_share() -> None:
    need("voicing_error")
    wanted = voice(110, 2.0)
    half = wanted.copy()
    half[RATE:] = 0.1 * np.random.default_rng(4).standard_normal(RATE)
    assert METRICS["voicing_error"].function(wanted, half, RATE) == pytest.approx(50, abs=5)


def test_other_rates_are_resampled(speech: np.ndarray, noisy: np.ndarray) -> None:
    pytest.importorskip("pystoi")
    up = [soxr.resample(signal, RATE, 48_000, quality="VHQ") for signal in (speech, noisy)]
    assert estoi(*up, 48_000) == pytest.approx(estoi(speech, noisy, RATE), abs=5e-3)


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize("length", [0, 1, 50, RATE])
def test_silence_has_no_score(name: str, length: int) -> None:
    need(name)
    silence = np.zeros(length)
    assert np.isnan(METRICS[name].function(silence, silence, RATE))


@pytest.mark.parametrize("name", ["si_sdr", "band_error"])
@pytest.mark.parametrize("length", [1, 512])
@pytest.mark.filterwarnings("error")
def test_what_does_not_move_has_no_score(name: str, length: int) -> None:
    constant = np.full(length, 0.25)
    for degraded in (constant, 0 * constant):
        assert np.isnan(METRICS[name].function(constant, degraded, RATE))


@pytest.mark.parametrize("function", [pesq_wb, estoi])
def test_a_clip_too_short_has_no_score(speech: np.ndarray, function: Callable[..., float]) -> None:
    need(function.__name__)
    for length in (1, 50, 1000):
        assert np.isnan(function(speech[8000 : 8000 + length], speech[8000 : 8000 + length], RATE))


@pytest.mark.parametrize("name", LOCAL)
def test_a_codec_that_says_nothing_is_finite_or_nan(speech: np.ndarray, name: str) -> None:
    assert not np.isinf(METRICS[name].function(speech, np.zeros_like(speech), RATE))


@pytest.mark.parametrize("name", LOCAL)
def test_lengths_must_agree(speech: np.ndarray, name: str) -> None:
    with pytest.raises(ValueError, match="one length"):
        METRICS[name].function(speech, speech[:-1], RATE)


def test_packages_are_asked_for_what_they_measure(speech: np.ndarray, noisy: np.ndarray) -> None:
    """The same samples through the reference implementations by hand; narrowband PESQ is theirs at 8 kHz."""
    pesq, pystoi = pytest.importorskip("pesq"), pytest.importorskip("pystoi")
    low = [soxr.resample(samples, RATE, RATE // 2, quality="VHQ") for samples in (speech, noisy)]
    said = {
        "pesq_wb": pesq.pesq(RATE, speech, noisy, "wb"),
        "pesq_nb": pesq.pesq(RATE // 2, *low, "nb"),
        "stoi": pystoi.stoi(speech, noisy, RATE),
        "estoi": pystoi.stoi(speech, noisy, RATE, extended=True),
    }
    assert {name: METRICS[name].function(speech, noisy, RATE) for name in said} == pytest.approx(said, abs=1e-3)


@pytest.mark.parametrize(("seconds", "said"), [(5.02, 3.4177), (2.5, 3.1049)])
def test_dnsmos_is_what_its_package_says(speech: np.ndarray, seconds: float, said: float) -> None:
    """The figures are `speechmos.dnsmos.run(speech, 16000)["ovrl_mos"]` of speechmos 0.0.1.1."""
    need("dnsmos")
    clip = speech[: int(seconds * RATE)]
    assert dnsmos(clip, clip, RATE) == pytest.approx(said, abs=1e-3)


def test_a_missing_package_is_named(speech: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(MissingPackageError, match=r"'pesq': pip install 'linnet\[eval\]'"):
        pesq_wb(speech, speech, RATE)
