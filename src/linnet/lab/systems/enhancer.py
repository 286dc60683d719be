"""A suppressor of noise and late reverberation before the encoder: one real gain per time-frequency bin.

Gains on the spectrum that the encoder reads anyway cost no latency but the look-ahead, and gains of one leave a codec that was
trained on clean speech as it was: to clean is then all there is to learn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linnet.lab.nn.blocks import Chain, State


class Enhancer(nn.Module):
    """Complex spectrum `[batch, frames, bins]` to the same with a gain from 0 to 2 on every bin, `lookahead` frames late."""

    def __init__(self, n_bins: int, channels: int, blocks: Chain, lookahead: int):
        super().__init__()
        self.lookahead = lookahead
        self.input = nn.Linear(n_bins, channels)
        self.blocks = blocks
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, n_bins)
        # At first it changes nothing.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def initial_state(self, batch: int) -> tuple[State, ...]:
        past = self.head.weight.new_zeros(batch, self.lookahead, self.head.out_features, dtype=torch.complex64)
        return past, self.blocks.initial_state(batch)

    def forward(self, spectrum: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        past, blocks = state
        x, blocks = self.blocks(self.input(log_energy(spectrum)), blocks)
        gain = 2 * torch.sigmoid(self.head(self.norm(x)).float())
        joined = torch.cat([past, spectrum], 1)
        n_frames = spectrum.shape[1]
        return gain * joined[:, :n_frames], (joined[:, n_frames:], blocks)


def log_energy(spectrum: Tensor) -> Tensor:
    """What networks read of a complex spectrum; of the same shape, around zero for speech at -26 dBFS."""
    energy = spectrum.real**2 + spectrum.imag**2
    # The floor is the power of rounding to 16 bits.
    return (torch.log(energy + 1e-7) + 4.0) / 4.0
