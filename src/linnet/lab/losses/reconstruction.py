"""Reconstruction losses: distances between spectra at several resolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linnet.lab.dsp.stft import mel_filterbank


class LogMel(nn.Module):
    """Samples `[batch, n]` to log10 mel magnitudes `[batch, 1, frames, mels]`, at a quarter window's hop.

    Magnitudes below `floor` count as silence.
    """

    def __init__(self, sample_rate: int, window: int, n_mels: int, floor: float = 1e-4):
        super().__init__()
        self.window, self.floor = window, floor
        self.register_buffer("taper", torch.hann_window(window), persistent=False)
        self.register_buffer("filters", mel_filterbank(sample_rate, window, n_mels), persistent=False)
        self.taper: Tensor
        self.filters: Tensor

    def forward(self, samples: Tensor) -> Tensor:
        spectrum = torch.stft(samples, self.window, self.window // 4, window=self.taper, return_complex=True)
        magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-12) / self.taper.square().sum().sqrt()
        return torch.log10(self.filters.T @ magnitude + self.floor).transpose(1, 2).unsqueeze(1)


class MultiScaleMelLoss(nn.Module):
    """Mean absolute difference of log10 mel magnitudes, averaged over window lengths.

    As DAC (arXiv 2306.06546, section 3.5) and Vocos use it, but relative to each clip's own level, so that a quiet clip
    counts as much as a loud one. `mels` gives the number of bands for each window length.
    """

    def __init__(self, sample_rate: int, mels: dict[int, int] | None = None):
        super().__init__()
        mels = mels or {64: 6, 128: 12, 256: 24, 512: 48, 1024: 80, 2048: 128}
        self.scales = nn.ModuleList(LogMel(sample_rate, window, n_mels) for window, n_mels in mels.items())

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both `[batch, samples]` -> the mean over the batch, a scalar."""
        level = target.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)
        output, target = output / level, target / level
        return torch.stack([(scale(output) - scale(target)).abs().mean() for scale in self.scales]).mean()
