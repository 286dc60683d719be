import numpy as np
import pytest
import torch

from linnet.lab.dsp.excitation import (
    centre_phases,
    harmonic_frames,
    harmonic_numbers,
    noise_frames,
    phase_increments,
    reference_rotation,
)
from linnet.lab.dsp.pitch import PitchLabels, PitchScale, label_pitch
from linnet.lab.dsp.stft import Stft, mel_filterbank

RATE, HOP, WINDOW = 16000, 192, 480


@pytest.mark.parametrize(("window", "hop"), [(480, 192), (512, 128), (480, 160), (320, 160)])
def test_inverse_stft_returns_the_signal_late_by_the_overlap(window, hop):
    stft = Stft(window, hop)
    samples = torch.randn(2, 20 * hop)
    spectrum, _ = stft(samples, stft.initial_state(2))
    output, _ = stft.inverse(spectrum, stft.initial_tails(2))
    delay = window - hop
    # The first windows reach back before the signal, where there is silence.
    torch.testing.assert_close(output[:, delay:], samples[:, : samples.shape[1] - delay], atol=1e-5, rtol=1e-5)


def test_every_mel_filter_sees_something():
    for window, n_mels in {64: 6, 128: 12, 256: 24, 512: 48, 1024: 80, 2048: 128}.items():
        bank = mel_filterbank(RATE, window, n_mels)
        assert bank.shape == (window // 2 + 1, n_mels)
        assert (bank.sum(0) > 0).all()


def test_harmonic_frames_equal_the_sum_of_cosines():
    increments = phase_increments(torch.tensor([[110.0, 203.7]]), RATE)
    voiced = torch.tensor([[True, True]])
    phases = torch.tensor([[123456789, 3000000000]])
    frames = harmonic_frames(phases, increments, voiced, WINDOW)
    for t in range(2):
        cycles = (phases[0, t] + increments[0, t] * (torch.arange(WINDOW) - WINDOW // 2)).double() / 2**32
        count = 2**31 // int(increments[0, t]) - 1
        direct = sum(torch.cos(2 * torch.pi * k * cycles) for k in range(1, count + 1)) * (2 / count) ** 0.5
        torch.testing.assert_close(frames[0, t].double(), direct, atol=2e-3, rtol=1e-3)


def test_phase_advances_by_the_pitch_between_frames():
    increments = phase_increments(torch.full((1, 5), 100.0), RATE)
    voiced = torch.ones(1, 5, dtype=torch.bool)
    zero = torch.zeros(1, 1, dtype=torch.long)
    phases, _, _ = centre_phases(increments, voiced, HOP, zero, zero)
    steps = torch.diff(phases[0]) % 2**32
    np.testing.assert_allclose(steps.numpy() / 2**32, 100.0 * HOP / RATE % 1, atol=1e-6)


def test_a_steady_voice_has_steady_phases():
    stft, steps = Stft(WINDOW, HOP), torch.full((1, 30), 2)
    frequencies = torch.tensor([80.0, 110.0, 150.0])
    increments = phase_increments(frequencies, RATE)[steps]
    zero = torch.zeros(1, 1, dtype=torch.long)
    phases, _, _ = centre_phases(increments, steps >= 0, HOP, zero, zero)
    numbers = harmonic_numbers(frequencies, 26, RATE / stft.n_fft)
    rotation = reference_rotation(phases, steps, numbers, WINDOW, stft.n_fft)
    # Three harmonics of 150 Hz with phases of their own, the first window's middle at time 0.
    time = (torch.arange(30 * HOP + WINDOW) - WINDOW // 2).double() / RATE
    turns = torch.tensor([0.3, -1.0, 2.0])
    voice = sum(torch.cos(2 * torch.pi * 150 * (k + 1) * time + turns[k]) for k in range(3)).float()
    spectrum = stft.spectrum(voice.unfold(0, WINDOW, HOP)[:30]).unsqueeze(0)[..., :26]
    told = spectrum * rotation.conj()
    told = told * told[:, :1].conj()
    peaks = [5, 10, 14]
    assert told[..., peaks].angle().abs().max() < 0.05
    own = (spectrum * rotation.conj())[0, 0, peaks].angle()
    first = 2 * torch.pi * phases[0, 0].double() / 2**32
    expected = turns.double() - first * torch.arange(1, 4)
    assert torch.cos(own.double() - expected).min() > 0.98


def test_noise_is_white_has_unit_power_and_agrees_where_frames_overlap():
    frames = noise_frames(torch.tensor([[1000]]), 400, WINDOW, HOP)
    torch.testing.assert_close(frames[:, :-1, HOP:], frames[:, 1:, : WINDOW - HOP])
    flat = frames[0, :, :HOP].flatten().double()
    assert abs(float(flat.square().mean()) - 1) < 0.02
    for lag in (1, 2, 7, 192):
        assert abs(float((flat[lag:] * flat[:-lag]).mean())) < 0.02


def test_pitch_labels_stand_where_they_say():
    # A pitch that jumps tells where a label looks.
    time = np.arange(RATE * 2) / RATE
    frequency = np.where(time < 1, 120.0, 240.0)
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    samples = sum(np.sin(k * phase) / k for k in range(1, 8)) * 0.1
    labels = label_pitch(samples, RATE, PitchLabels(HOP, HOP - WINDOW // 2))
    jump = int(np.argmax(labels > 180))
    assert abs(jump * HOP + HOP - WINDOW // 2 - RATE) < 2 * HOP


def test_pitch_scale_rounds_to_the_nearest_step():
    scale = PitchScale()
    frequencies = scale.frequencies()
    assert (scale.quantize(frequencies) == np.arange(scale.n_steps)).all()
    assert scale.quantize(np.array([0.0, 10.0, 5000.0])).tolist() == [-1, 0, scale.n_steps - 1]
