"""Reconstruction losses: distances between spectra at several resolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linnet.lab.dsp.stft import mel_filterbank


class MultiScaleMelLoss(nn.Module):
    """Mean absolute difference of log10 mel magnitudes, averaged over window lengths.

    As DAC (arXiv 2306.06546, section 3.5) and Vocos use it, but relative to each clip's own level, so that a quiet clip
    counts as much as a loud one and what lies `floor` below the clip's level counts as silence.
    """

    def __init__(self, sample_rate: int, mels: dict[int, int] | None = None, floor: float = 1e-4):
        super().__init__()
        self.mels = mels or {64: 6, 128: 12, 256: 24, 512: 48, 1024: 80, 2048: 128}
        self.floor = floor
        for window, n_mels in self.mels.items():
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)
            self.register_buffer(f"mel_{window}", mel_filterbank(sample_rate, window, n_mels), persistent=False)

    def log_mel(self, samples: Tensor, window: int) -> Tensor:
        """`[batch, samples]` -> log10 mel magnitudes `[batch, mels, frames]` at one resolution."""
        taper = getattr(self, f"window_{window}")
        spectrum = torch.stft(samples, window, window // 4, window=taper, center=True, return_complex=True)
        magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-12) / taper.square().sum().sqrt()
        return torch.log10(getattr(self, f"mel_{window}").T @ magnitude + self.floor)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both `[batch, samples]` -> the mean over the batch, a scalar."""
        level = target.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)
        output, target = output / level, target / level
        scales = [(self.log_mel(output, w) - self.log_mel(target, w)).abs().mean() for w in self.mels]
        return torch.stack(scales).mean()
