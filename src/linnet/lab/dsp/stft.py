"""Short-time Fourier transforms that stream: frames end at the newest sample, and the past is an explicit state.

Frame t of an analysis covers the `window` samples that end with hop t, so nothing looks ahead. Its synthesis completes the
oldest hop of that window: the output lags the input by `window - hop` samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def history_hops(window: int, hop: int) -> int:
    """How many whole earlier hops a window reaches into."""
    return (window - 1) // hop  # no negative numbers, whose quotients a traced graph rounds the other way


def frame(samples: Tensor, window: int, hop: int, past: Tensor) -> tuple[Tensor, Tensor]:
    """Cut a signal into overlapping frames.

    Shape: samples `[batch, frames * hop]`, past `[batch, history_hops * hop]` -> frames `[batch, frames, window]`, past.
    Built from slices and one concatenation, which every exporter and runtime knows.
    """
    back = history_hops(window, hop)
    joined = torch.cat([past, samples], 1)
    hops = joined.unflatten(1, (-1, hop))
    n_frames = samples.shape[1] // hop
    parts = [hops[:, k : k + n_frames] for k in range(back + 1)]
    frames = torch.cat(parts, 2)[:, :, (back + 1) * hop - window :]
    return frames, joined[:, joined.shape[1] - back * hop :]


def overlap_add(frames: Tensor, hop: int, tails: Tensor) -> tuple[Tensor, Tensor]:
    """Add overlapping frames; inverse of `frame` up to the windows.

    Shape: frames `[batch, frames, window]`, tails `[batch, history_hops, window]` (the earlier frames that still overlap)
    -> samples `[batch, frames * hop]`, tails. Output hop t is the first hop of frame t's window.
    """
    # Numbers, not traced shapes, of which an exporter would make constants or divide otherwise.
    window = int(frames.shape[2])
    back = history_hops(window, hop)
    joined = torch.cat([tails, frames], 1)
    padded = nn.functional.pad(joined, (0, (back + 1) * hop - window))
    hops = padded.unflatten(2, (back + 1, hop))
    total = hops[:, back:, 0]
    for k in range(1, back + 1):
        total = total + hops[:, back - k : -k, k]
    return total.flatten(1), joined[:, -back:] if back else tails


class Stft(nn.Module):
    """Streaming transform with a Hann window, zero-padded to a power of two, and its weighted overlap-add inverse."""

    def __init__(self, window: int, hop: int):
        super().__init__()
        self.window, self.hop = window, hop
        self.n_fft = 1 << (window - 1).bit_length()
        self.n_bins = self.n_fft // 2 + 1
        self.back = history_hops(window, hop)
        hann = torch.hann_window(window, periodic=True)
        # The overlapping squares of the window repeat every hop: dividing by them once makes the inverse exact.
        squares = nn.functional.pad(hann**2, (0, (self.back + 1) * hop - window)).view(-1, hop).sum(0)
        self.register_buffer("hann", hann, persistent=False)
        self.register_buffer("synthesis", hann / squares.repeat(self.back + 1)[:window], persistent=False)
        self.hann: Tensor
        self.synthesis: Tensor

    def initial_state(self, batch: int) -> Tensor:
        """Silence before the first sample, for `frames`: `[batch, history]`."""
        return self.hann.new_zeros(batch, self.back * self.hop)

    def initial_tails(self, batch: int) -> Tensor:
        """Nothing yet to overlap with, for `inverse`: `[batch, history_hops, window]`."""
        return self.hann.new_zeros(batch, self.back, self.window)

    def spectrum(self, frames: Tensor) -> Tensor:
        """Windowed DFT: `[..., window]` -> complex `[..., bins]`."""
        return torch.fft.rfft(frames * self.hann, n=self.n_fft)

    def forward(self, samples: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """`[batch, frames * hop]` -> complex `[batch, frames, bins]`, and the new past."""
        frames, past = frame(samples, self.window, self.hop, past)
        return self.spectrum(frames), past

    def inverse(self, spectrum: Tensor, tails: Tensor) -> tuple[Tensor, Tensor]:
        """Complex `[batch, frames, bins]` -> samples `[batch, frames * hop]`, late by `window - hop`, and new tails."""
        frames = torch.fft.irfft(spectrum, n=self.n_fft)[..., : self.window] * self.synthesis
        return overlap_add(frames, self.hop, tails)


def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangular mel filters of unit peak, `[n_fft / 2 + 1, n_mels]` (HTK's scale, 0 Hz to half the sample rate).

    A filter narrower than a bin would be empty at short windows: its triangle is widened to one bin on each side.
    """
    bin_hz = sample_rate / n_fft
    highest = 2595 * math.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, highest, n_mels + 2) / 2595) - 1)
    frequencies = torch.arange(n_fft // 2 + 1).unsqueeze(1) * bin_hz
    low = torch.minimum(edges[:-2], edges[1:-1] - bin_hz)
    high = torch.maximum(edges[2:], edges[1:-1] + bin_hz)
    rising = (frequencies - low) / (edges[1:-1] - low)
    falling = (high - frequencies) / (high - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)
