"""Adversarial losses: discriminators on complex spectra and on mel spectra, and what the codec learns from them.

Multi-scale STFT discriminators as EnCodec's (Defossez et al., arXiv 2210.13438, section 3.4), which see phase, and the same
stack on log-mel spectra, which see what the ear resolves. Both are smaller than the published ones by default, for a CPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from linnet.lab.losses.reconstruction import LogMel


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of the ensemble: one discriminator for each window, `depth` layers, `channels` in the first and up to four times
    as many in the last. `loss` is "least-squares" (Mao et al., arXiv 1611.04076) or "hinge" (Lim and Ye, arXiv 1705.02894).
    """

    stft_windows: tuple[int, ...] = (256, 1024)
    mel_windows: tuple[int, ...] = (512, 2048)
    channels: int = 8
    depth: int = 4
    loss: str = "least-squares"

    def __post_init__(self) -> None:
        if self.loss not in ("least-squares", "hinge"):
            raise ValueError(f"loss is {self.loss!r}; choose 'least-squares' or 'hinge'")


class ComplexSpectrum(nn.Module):
    """Samples `[batch, n]` to real and imaginary part `[batch, 2, frames, bins]`, compressed to the power 0.3."""

    def __init__(self, window: int):
        super().__init__()
        self.window = window
        self.register_buffer("taper", torch.hann_window(window), persistent=False)
        self.taper: Tensor

    def forward(self, samples: Tensor) -> Tensor:
        spectrum = torch.stft(samples, self.window, self.window // 4, window=self.taper, return_complex=True)
        spectrum = spectrum / self.taper.square().sum().sqrt()
        # Uncompressed, the loudest harmonics would be all that is seen.
        scale = (spectrum.real**2 + spectrum.imag**2 + 1e-6) ** -0.35
        return torch.stack([spectrum.real * scale, spectrum.imag * scale], 1).transpose(2, 3)


class SpectralDiscriminator(nn.Module):
    """Convolutions over a spectrum, halving the frequency axis, widening in time: `[batch, n]` to scores and features."""

    def __init__(self, spectrum: nn.Module, planes: int, config: DiscriminatorConfig):
        super().__init__()
        self.spectrum = spectrum
        widths = [planes, *(config.channels * min(2**layer, 4) for layer in range(config.depth))]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (3, 5), (1, 2), (2**layer, 2), (2**layer, 1)))
            for layer, (before, after) in enumerate(itertools.pairwise(widths))
        )
        self.score = weight_norm(nn.Conv2d(widths[-1], 1, (3, 3), padding=(1, 1)))

    def forward(self, samples: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores `[batch, 1, frames, places]` and the output of every layer."""
        x, features = self.spectrum(samples), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.score(x), features


class Discriminators(nn.Module):
    """The ensemble. Real and decoded audio are brought to the real one's own level first, so that level tells nothing."""

    def __init__(self, config: DiscriminatorConfig, sample_rate: int):
        super().__init__()
        self.config = config
        members = [SpectralDiscriminator(ComplexSpectrum(window), 2, config) for window in config.stft_windows]
        members += [SpectralDiscriminator(LogMel(sample_rate, window, 80), 1, config) for window in config.mel_windows]
        self.members = nn.ModuleList(members)

    def discriminate(self, output: Tensor, target: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The discriminators' own loss on `[batch, n]` each, output detached, and their mean scores for the log."""
        output, target = _levelled(output.detach(), target)
        real, fake = ([member(x)[0].float() for member in self.members] for x in (target, output))
        if self.config.loss == "hinge":
            losses = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
        else:
            losses = [(r - 1).square().mean() + f.square().mean() for r, f in zip(real, fake, strict=True)]
        return torch.stack(losses).mean(), {"score_real": _mean(real), "score_fake": _mean(fake)}

    def judge(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What the codec minimises: `adversarial`, and `feature_matching` relative to the real features' magnitude."""
        output, target = _levelled(output, target)
        adversarial, matching = [], []
        for member in self.members:
            score, features = member(output)
            with torch.no_grad():
                wanted = member(target)[1]
            score = score.float()
            adversarial.append(-score.mean() if self.config.loss == "hinge" else (score - 1).square().mean())
            matching += [_relative_difference(f.float(), w.float()) for f, w in zip(features, wanted, strict=True)]
        return {"adversarial": torch.stack(adversarial).mean(), "feature_matching": torch.stack(matching).mean()}


def _relative_difference(features: Tensor, wanted: Tensor) -> Tensor:
    # Clip by clip, so that the mean over a batch is that over its parts.
    axes = (1, 2, 3)
    return ((features - wanted).abs().mean(axes) / wanted.abs().mean(axes)).mean()


def _levelled(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    level = target.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)
    return output / level, target / level


def _mean(scores: Sequence[Tensor]) -> float:
    return float(torch.stack([score.detach().mean() for score in scores]).mean())
