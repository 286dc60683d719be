"""Losses: zero where nothing differs, growing with the difference, and finite on silence."""

import numpy as np
import pytest
import soundfile
import torch

from linnet.evaluate.metrics import estoi
from linnet.lab.losses.adversarial import DiscriminatorConfig, Discriminators
from linnet.lab.losses.intelligibility import IntelligibilityLoss
from linnet.lab.losses.loudness import LoudnessLoss
from linnet.lab.losses.reconstruction import (
    BalanceLoss,
    CompressedSpectrumLoss,
    L1Loss,
    MultiScaleMelLoss,
    SiSdrLoss,
    WaveformDistance,
)

RATE = 16000


@pytest.fixture(params=[LoudnessLoss, MultiScaleMelLoss, IntelligibilityLoss, BalanceLoss, CompressedSpectrumLoss])
def loss(request: pytest.FixtureRequest) -> torch.nn.Module:
    return request.param(RATE)


def tone(hertz: float, level: float = 0.1) -> torch.Tensor:
    return level * torch.sin(2 * torch.pi * hertz * torch.arange(RATE // 2) / RATE).unsqueeze(0)


def test_equal_signals_cost_nothing(loss: torch.nn.Module) -> None:
    assert loss(tone(500), tone(500)) < 1e-3


def test_more_noise_costs_more(loss: torch.nn.Module) -> None:
    noise = torch.randn(1, RATE // 2, generator=torch.Generator().manual_seed(0))
    # Its level changes four times a second, as speech's does.
    voice = tone(500) * torch.sin(4 * torch.pi * torch.arange(RATE // 2) / RATE) ** 2
    costs = [float(loss(voice + level * noise, voice)) for level in (0.001, 0.01, 0.1)]
    assert costs == sorted(costs)
    assert costs[0] > 0


def test_only_relative_level_counts(loss: torch.nn.Module) -> None:
    loud, soft = loss(tone(700), tone(500)), loss(tone(700, 0.01), tone(500, 0.01))
    torch.testing.assert_close(loud, soft, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("target", [torch.zeros(1, RATE // 2), tone(300)])
def test_gradients_are_finite_from_silence(loss: torch.nn.Module, target: torch.Tensor) -> None:
    output = torch.zeros(1, RATE // 2, requires_grad=True)
    loss(output, target).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_a_masked_difference_is_free_and_a_tone_in_silence_is_not() -> None:
    loss = LoudnessLoss(RATE)
    masked = loss(tone(1000) + tone(1020, 0.003), tone(1000))
    heard = loss(tone(1000) + tone(4000, 0.003), tone(1000))
    assert masked < 0.2 * heard


def test_intelligibility_is_estoi() -> None:
    samples, rate = soundfile.read("tests/data/speech.flac", dtype="float32")
    noise = np.random.default_rng(0).standard_normal(len(samples), np.float32)
    for level in (0.003, 0.03):
        heard = samples + level * noise
        loss = IntelligibilityLoss(rate)(torch.from_numpy(heard)[None], torch.from_numpy(samples)[None])
        assert abs(float(loss) - (1 - estoi(samples, heard, rate))) < 0.02


def test_balance_is_of_bands_over_the_clip() -> None:
    loss = BalanceLoss(RATE)
    voice = tone(500) + tone(3000, 0.03)
    # The order in time does not count; 6 dB in one of the two bands that hear anything does.
    assert loss(voice.flip(1), voice) < 0.05
    assert loss(tone(500) + tone(3000, 0.015), voice) > 0.05


def test_the_waveform_distance_knows_phase_where_it_is_coded() -> None:
    distance = WaveformDistance(RATE, 800)
    shifted = 0.1 * torch.cos(2 * torch.pi * 500 * torch.arange(RATE // 2) / RATE).unsqueeze(0)
    assert distance(tone(500), tone(500)).item() < 1e-6
    assert distance(shifted, tone(500)).item() == pytest.approx(2, abs=0.1)
    assert distance(-tone(500), tone(500)).item() == pytest.approx(4, abs=0.1)
    assert distance(0 * shifted, tone(500)).item() == pytest.approx(1, abs=0.1)
    assert distance(tone(500) - tone(2000), tone(500) + tone(2000)).item() < 0.05


def test_compressed_spectra_count_hiss_less_than_logarithms_do() -> None:
    hiss = 3e-4 * torch.randn(1, RATE // 2, generator=torch.Generator().manual_seed(0))
    compressed, logarithmic = CompressedSpectrumLoss(RATE), MultiScaleMelLoss(RATE)
    of_hiss, of_level = (
        [loss(x, tone(440)) for loss in (compressed, logarithmic)] for x in (tone(440) + hiss, tone(440, 0.05))
    )
    assert of_hiss[0] / of_level[0] < 0.8 * of_hiss[1] / of_level[1]
    # Its complex part knows the phase.
    assert (
        CompressedSpectrumLoss(RATE, complex_share=0.0)(-tone(440), tone(440)) < 1e-6 < 1e-3 < compressed(-tone(440), tone(440))
    )


def test_distortion_is_in_decibels_whatever_the_scale() -> None:
    loss, target = SiSdrLoss(), tone(500)
    # Another whole number of periods is orthogonal.
    for level, decibels in ((0.1, 0), (0.01, 20), (0.1 * 10**0.5, -10)):
        assert loss(3 * (target + tone(700, level)), target).item() == pytest.approx(-decibels, abs=0.1)
    assert loss(-target, target).item() == pytest.approx(-50, abs=1)
    assert loss(tone(700), 0 * target) > loss(tone(700, 0.01), 0 * target) > loss(0 * target, 0 * target) - 1e-6
    silent = torch.zeros_like(target, requires_grad=True)
    loss(silent, target).backward()
    assert silent.grad is not None
    assert torch.isfinite(silent.grad).all()


def test_absolute_differences_are_relative_to_the_target() -> None:
    assert L1Loss()(tone(500), tone(500)).item() == 0
    for level in (0.1, 0.01):
        assert L1Loss()(0 * tone(500), tone(500, level)).item() == pytest.approx(2**1.5 / np.pi, rel=1e-2)


def test_hearing_has_a_threshold() -> None:
    loss = LoudnessLoss(RATE)
    # 0 dB SPL at 1 kHz is inaudible and 20 dB above it is not, at a listening level of 79 dB.
    powers = loss.band_powers(tone(1000, 2**0.5 * 10 ** (-85 / 20)))
    assert loss.loudness(powers).max() == 0
    assert loss.loudness(100 * powers).max() > 0


@pytest.mark.parametrize("kind", ["least-squares", "hinge"])
def test_discriminators_learn_to_tell_noise_from_a_tone(kind: str) -> None:
    torch.manual_seed(0)
    rivals = Discriminators(DiscriminatorConfig((256,), (512,), channels=4, depth=3, loss=kind), RATE)
    optimiser = torch.optim.Adam(rivals.parameters(), 2e-3)
    output, target = 0.03 * torch.randn(2, RATE // 2), tone(500).repeat(2, 1)
    first = {}
    for _ in range(25):
        loss, scores = rivals.discriminate(output, target)
        first = first or scores
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert scores["score_real"] - scores["score_fake"] > 0.5 + first["score_real"] - first["score_fake"]


def test_features_of_equal_audio_match_and_level_is_not_seen() -> None:
    rivals = Discriminators(DiscriminatorConfig(), RATE)
    noise = torch.randn(1, RATE // 2, generator=torch.Generator().manual_seed(0))
    assert rivals.judge(tone(500), tone(500))["feature_matching"] < 1e-6
    near, quiet = rivals.judge(0.1 * noise, tone(500)), rivals.judge(0.01 * noise, tone(500, 0.01))
    torch.testing.assert_close(near, quiet, rtol=1e-3, atol=1e-5)


def test_an_unknown_adversarial_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="least-squares"):
        DiscriminatorConfig(loss="wasserstein")
