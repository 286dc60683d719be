"""Intelligibility loss: how much of the speech's modulation survives, as ESTOI hears it.

Jensen and Taal, IEEE/ACM TASLP 24(11), 2016, in differentiable form: short segments of third-octave envelopes are brought to
zero mean and unit length band by band and then frame by frame, and correlated. Level and timbre cost nothing here, blurred
onsets and filled gaps do. The transform works at the codec's own rate, where the standard resamples to 10 kHz.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Segments this far below the clip's loudest do not count (the standard drops silent frames).
_SILENT_DB = 40.0
_BANDS, _LOWEST_HZ = 15, 150.0


class IntelligibilityLoss(nn.Module):
    """One minus the mean spectro-temporal correlation over segments of `frames` frames (of all there are in a shorter clip)."""

    def __init__(self, sample_rate: int, frames: int = 30):
        super().__init__()
        self.frames, self.window = frames, round(0.0256 * sample_rate)
        self.n_fft = 1 << (2 * self.window - 1).bit_length()
        centres = _LOWEST_HZ * 2 ** (torch.arange(_BANDS) / 3)
        frequencies = (torch.arange(self.n_fft // 2 + 1) * sample_rate / self.n_fft).unsqueeze(1)
        inside = (frequencies >= centres * 2 ** (-1 / 6)) & (frequencies < centres * 2 ** (1 / 6))
        self.register_buffer("bands", inside.float(), persistent=False)
        self.register_buffer("taper", torch.hann_window(self.window), persistent=False)
        self.bands: Tensor
        self.taper: Tensor

    def segments(self, samples: Tensor) -> Tensor:
        """Samples `[batch, n]` -> envelopes `[batch, segments, bands, frames]`."""
        spectrum = torch.stft(samples, self.n_fft, self.window // 2, self.window, self.taper, center=False, return_complex=True)
        power = (spectrum.real**2 + spectrum.imag**2).transpose(1, 2) @ self.bands
        envelopes = torch.sqrt(power + 1e-9)
        frames = min(self.frames, envelopes.shape[1])
        return envelopes.unfold(1, frames, max(frames // 5, 1))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both `[batch, samples]` -> the mean over the batch, a scalar."""
        level = target.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)
        heard, wanted = self.segments(output / level), self.segments(target / level)
        power = wanted.square().mean((2, 3))
        counts = (power >= power.amax(1, keepdim=True) * 10 ** (-_SILENT_DB / 10)).float()
        correlation = (_normalised(heard) * _normalised(wanted)).sum((2, 3)) / heard.shape[3]
        return ((1 - correlation) * counts).sum(1).div(counts.sum(1)).mean()


def _normalised(envelopes: Tensor) -> Tensor:
    for axis in (3, 2):
        envelopes = envelopes - envelopes.mean(axis, keepdim=True)
        envelopes = envelopes / torch.sqrt(envelopes.square().sum(axis, keepdim=True) + 1e-6)
    return envelopes
