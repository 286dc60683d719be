"""A suppressor of noise and late reverberation before the encoder: one real gain per time-frequency bin.

Gains on the spectrum that the encoder reads anyway cost no latency but the look-ahead, and gains of one leave a codec that was
trained on clean speech as it was: to clean is then all there is to learn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linnet.lab.nn.blocks import Chain, State

# The power of rounding to 16 bits, in a bin.
FLOOR = 1e-7


class Enhancer(nn.Module):
    """Complex spectrum `[batch, frames, bins]` to the same with a gain on every bin, `lookahead` frames late.

    The gain is the product of what the networks say, each from 0 to 2: that of whole `frames`, then that of the `bands`.
    """

    def __init__(self, n_bins: int, lookahead: int, frames: Frames | None, bands: Bands | None):
        super().__init__()
        self.n_bins, self.lookahead, self.frames, self.bands = n_bins, lookahead, frames, bands

    def initial_state(self, batch: int) -> tuple[State, ...]:
        past = next(self.parameters()).new_zeros(batch, self.lookahead, self.n_bins, dtype=torch.complex64)
        states = (() if network is None else network.initial_state(batch) for network in (self.frames, self.bands))
        return past, *states

    def forward(self, spectrum: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        past, frames, bands = state
        heard, joined = log_energy(spectrum), torch.cat([past, spectrum], 1)
        n_frames = spectrum.shape[1]
        passed = joined[:, :n_frames]
        if self.frames is not None:
            gain, frames = self.frames(heard, frames)
            passed = gain * passed
        if self.bands is not None:
            gain, bands = self.bands(heard, log_energy(passed), bands)
            passed = gain * passed
        return passed, (joined[:, n_frames:], frames, bands)


class Frames(nn.Module):
    """A gain from 0 to 2 for every bin, by a network over whole frames: `[batch, frames, bins]` -> the same shape."""

    def __init__(self, n_bins: int, channels: int, blocks: Chain):
        super().__init__()
        self.input = nn.Linear(n_bins, channels)
        self.blocks = blocks
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, n_bins)
        # At first it changes nothing.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def initial_state(self, batch: int) -> State:
        return self.blocks.initial_state(batch)

    def forward(self, heard: Tensor, state: State) -> tuple[Tensor, State]:
        """Of the logarithms of the energies that were heard."""
        x, state = self.blocks(self.input(heard), state)
        return 2 * torch.sigmoid(self.head(self.norm(x)).float()), state


class Bands(nn.Module):
    """A gain from 0 to 2 for every bin, by one network for all bands of `stride` bins: `[batch, frames, bins]` -> the same.

    What noise is in one band it is in another: weights that all bands share learn from less (as GTCRN's, Rong et al., ICASSP
    2024, and before it DPCRN's, arXiv 2107.05429). A band sees half a band more on either side.
    """

    def __init__(self, n_bins: int, channels: int, stride: int, n_blocks: int):
        super().__init__()
        self.n_bins, self.stride = n_bins, stride
        n_bands = -(-n_bins // stride)
        self.input = nn.Conv1d(2, channels, 2 * stride, stride, padding=stride // 2)
        self.place = nn.Parameter(torch.zeros(n_bands, channels))
        self.blocks = Chain(*(BandBlock(channels, n_bands) for _ in range(n_blocks)))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.ConvTranspose1d(channels, 1, 2 * stride, stride, padding=stride // 2)
        # At first it changes nothing.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def initial_state(self, batch: int) -> State:
        return self.blocks.initial_state(batch)

    def forward(self, heard: Tensor, passed: Tensor, state: State) -> tuple[Tensor, State]:
        """Of the logarithms of the energies that were heard and of those that pass so far."""
        spare = len(self.place) * self.stride - self.n_bins
        rows = F.pad(torch.stack([heard, passed], 2).flatten(0, 1), (0, spare))
        x = self.input(rows).transpose(1, 2).unflatten(0, heard.shape[:2]) + self.place
        x, state = self.blocks(x, state)
        logits = self.head(self.norm(x).flatten(0, 1).transpose(1, 2)).unflatten(0, heard.shape[:2])
        return 2 * torch.sigmoid(logits[:, :, 0, : self.n_bins].float()), state


class BandBlock(nn.Module):
    """`[batch, frames, bands, channels]`: a recurrence in every band, a layer across the bands and one across the channels,
    each added to its input."""

    def __init__(self, channels: int, n_bands: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.gru = nn.GRU(channels, channels, batch_first=True)
        self.across_norm = nn.LayerNorm(channels)
        self.across = nn.Linear(n_bands, 2 * n_bands)
        self.across_back = nn.Linear(2 * n_bands, n_bands)
        self.inner_norm = nn.LayerNorm(channels)
        self.inner = nn.Linear(channels, 3 * channels)
        self.inner_back = nn.Linear(3 * channels, channels)

    def initial_state(self, batch: int) -> Tensor:
        return self.norm.weight.new_zeros(batch, self.across.in_features, self.gru.hidden_size)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        batch, n_frames, n_bands, channels = x.shape
        rows = self.norm(x).transpose(1, 2).flatten(0, 1)
        # A CPU takes a third longer for this in bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            y, last = self.gru(rows.float(), state.float().view(1, batch * n_bands, channels))
        x = x + y.view(batch, n_bands, n_frames, channels).transpose(1, 2)
        y = self.across(self.across_norm(x).transpose(2, 3))
        x = x + self.across_back(F.gelu(y)).transpose(2, 3)
        x = x + self.inner_back(F.gelu(self.inner(self.inner_norm(x))))
        return x, last.view(batch, n_bands, channels)


def log_energy(spectrum: Tensor) -> Tensor:
    """What networks read of a complex spectrum; of the same shape, around zero for speech at -26 dBFS."""
    energy = spectrum.real**2 + spectrum.imag**2
    return (torch.log(energy + FLOOR) + 4.0) / 4.0
