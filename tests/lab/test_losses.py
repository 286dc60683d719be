"""Losses: zero where nothing differs, growing with the difference, and finite on silence."""

import pytest
import torch

from linnet.lab.losses.loudness import LoudnessLoss
from linnet.lab.losses.reconstruction import MultiScaleMelLoss

RATE = 16000


@pytest.fixture(params=[LoudnessLoss, MultiScaleMelLoss])
def loss(request: pytest.FixtureRequest) -> torch.nn.Module:
    return request.param(RATE)


def tone(hertz: float, level: float = 0.1) -> torch.Tensor:
    return level * torch.sin(2 * torch.pi * hertz * torch.arange(RATE // 2) / RATE).unsqueeze(0)


def test_equal_signals_cost_nothing(loss: torch.nn.Module) -> None:
    assert loss(tone(500), tone(500)) < 1e-3


def test_more_noise_costs_more(loss: torch.nn.Module) -> None:
    noise = torch.randn(1, RATE // 2, generator=torch.Generator().manual_seed(0))
    costs = [float(loss(tone(500) + level * noise, tone(500))) for level in (0.001, 0.01, 0.1)]
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


def test_hearing_has_a_threshold() -> None:
    loss = LoudnessLoss(RATE)
    # 0 dB SPL at 1 kHz is inaudible and 20 dB above it is not, at a listening level of 79 dB.
    powers = loss.band_powers(tone(1000, 2**0.5 * 10 ** (-85 / 20)))
    assert loss.loudness(powers).max() == 0
    assert loss.loudness(100 * powers).max() > 0
