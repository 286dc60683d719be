"""From samples to features and back, once a frame: what stands here for the strided convolutions of time-domain codecs.

A short-time transform, blocks at the frame rate and the inverse transform (as Vocos, arXiv 2306.00814, and VoCodec, arXiv
2601.13055) cost a hundredth of a time-domain network of the same latency, so that a codec is trained on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linnet.lab.dsp.stft import Stft, frame, overlap_add
from linnet.lab.nn.blocks import Chain, State


class RealStft(nn.Module):
    """`Stft` as products with matrices of real numbers, which can be traced: bins are `[..., 2 * n_bins]`, real parts first."""

    def __init__(self, window: int, hop: int):
        super().__init__()
        self.stft = Stft(window, hop)
        self.n_bins = self.stft.n_bins
        spectrum = self.stft.spectrum(torch.eye(window))
        self.register_buffer("analysis", torch.cat([spectrum.real, spectrum.imag], 1), persistent=False)
        unit = torch.eye(self.n_bins)
        bins = torch.cat([torch.complex(unit, 0 * unit), torch.complex(0 * unit, unit)])
        frames = torch.fft.irfft(bins, n=self.stft.n_fft)[:, :window] * self.stft.synthesis
        self.register_buffer("synthesis", frames, persistent=False)
        self.analysis: Tensor
        self.synthesis: Tensor

    def forward(self, samples: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """`[batch, frames * hop]` -> `[batch, frames, 2 * n_bins]`, and the new past."""
        frames, past = frame(samples, self.stft.window, self.stft.hop, past)
        with torch.autocast(samples.device.type, enabled=False):
            return frames @ self.analysis, past

    def inverse(self, bins: Tensor, tails: Tensor) -> tuple[Tensor, Tensor]:
        """`[batch, frames, 2 * n_bins]` -> samples `[batch, frames * hop]`, late by `window - hop`, and new tails."""
        with torch.autocast(bins.device.type, enabled=False):
            return overlap_add(bins.float() @ self.synthesis, self.stft.hop, tails)


class SpectralEncoder(nn.Module):
    """Samples `[batch, frames * hop]` -> features `[batch, frames, dim]`: a transform, `blocks` of `channels`, a projection."""

    def __init__(self, window: int, hop: int, channels: int, blocks: Chain, dim: int):
        super().__init__()
        self.stft = RealStft(window, hop)
        self.input = nn.Linear(2 * self.stft.n_bins, channels)
        self.blocks = blocks
        self.norm = nn.LayerNorm(channels)
        self.output = nn.Linear(channels, dim)

    def initial_state(self, batch: int) -> tuple[State, ...]:
        return self.stft.stft.initial_state(batch), self.blocks.initial_state(batch)

    def forward(self, samples: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        past, blocks = state
        bins, past = self.stft(samples, past)
        real, imaginary = bins.chunk(2, -1)
        # Magnitudes to the power 0.3, angles kept: uncompressed, the loudest harmonics would be all that is seen.
        scale = (real**2 + imaginary**2 + 1e-6) ** -0.35
        x, blocks = self.blocks(self.input(bins * torch.cat([scale, scale], -1)), blocks)
        return self.output(self.norm(x)), (past, blocks)


class SpectralDecoder(nn.Module):
    """A latent `[batch, frames, dim]` -> samples `[batch, frames * hop]`, late by `window - hop`: a projection, `blocks`, a
    head that gives magnitude and phase of every bin (as Vocos's), the inverse transform."""

    def __init__(self, window: int, hop: int, channels: int, blocks: Chain, dim: int):
        super().__init__()
        self.stft = RealStft(window, hop)
        self.input = nn.Linear(dim, channels)
        self.blocks = blocks
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 2 * self.stft.n_bins)

    def initial_state(self, batch: int) -> tuple[State, ...]:
        return self.blocks.initial_state(batch), self.stft.stft.initial_tails(batch)

    def forward(self, latent: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        blocks, tails = state
        x, blocks = self.blocks(self.input(latent), blocks)
        log_magnitude, phase = self.head(self.norm(x)).float().chunk(2, -1)
        # The clamp keeps an untrained head from overflowing.
        magnitude = torch.exp((log_magnitude - 2.0).clamp(-14.0, 6.0))
        bins = torch.cat([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], -1)
        samples, tails = self.stft.inverse(bins, tails)
        return samples, (blocks, tails)
