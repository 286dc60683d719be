"""Blocks over spectra, `[batch, frames, bins, channels]`: nothing mixes frames but the recurrences and the transforms.

They are those of SpecTokenizer (arXiv 2510.21209) and PhoenixCodec (arXiv 2510.21196, section 2), in both directions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linnet.lab.dsp.fourier import RealFourier
from linnet.lab.dsp.stft import frame, history_hops, overlap_add


class Analysis(nn.Module):
    """Samples `[batch, frames * hop]` -> `[batch, frames, bins, 2]`: real and imaginary parts under a Hann window that ends
    with the frame, magnitudes to the power `compression`."""

    def __init__(self, fourier: RealFourier, hop: int, compression: float):
        super().__init__()
        self.fourier, self.hop, self.compression = fourier, hop, compression
        self.window = fourier.rows * fourier.columns
        self.register_buffer("hann", torch.hann_window(self.window), persistent=False)
        self.hann: Tensor

    def initial_state(self, batch: int) -> Tensor:
        return self.hann.new_zeros(batch, history_hops(self.window, self.hop) * self.hop)

    def forward(self, samples: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        frames, past = frame(samples, self.window, self.hop, past)
        spectrum = self.fourier(frames * self.hann)
        # A power below the quietest recordings', so that silence has a gradient.
        power = spectrum.square().sum(-2, keepdim=True) + 1e-6
        return (spectrum * power ** ((self.compression - 1) / 2)).transpose(-1, -2), past


class Synthesis(nn.Module):
    """The inverse of `Analysis`, by weighted overlap-add: the samples come `window - hop` late."""

    def __init__(self, fourier: RealFourier, hop: int, compression: float):
        super().__init__()
        self.fourier, self.hop, self.compression = fourier, hop, compression
        self.window = fourier.rows * fourier.columns
        self.back = history_hops(self.window, hop)
        hann = torch.hann_window(self.window)
        squares = F.pad(hann**2, (0, (self.back + 1) * hop - self.window)).view(-1, hop).sum(0)
        self.register_buffer("taper", hann / squares.repeat(self.back + 1)[: self.window], persistent=False)
        self.taper: Tensor

    def initial_state(self, batch: int) -> Tensor:
        return self.taper.new_zeros(batch, self.back, self.window)

    def forward(self, spectrum: Tensor, tails: Tensor) -> tuple[Tensor, Tensor]:
        spectrum = spectrum.transpose(-1, -2)
        power = spectrum.square().sum(-2, keepdim=True) + 1e-6
        expanded = spectrum * power ** ((1 / self.compression - 1) / 2)
        return overlap_add(self.fourier.inverse(expanded) * self.taper, self.hop, tails)


class ComplexConv(nn.Module):
    """A convolution over bins of complex numbers with complex weights, zeros beyond the ends: a layer
    `[batch, frames, bins, 2 * inputs]` -> `[batch, frames, bins, 2 * outputs]`, all real parts first."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        bound = (2 * inputs * kernel) ** -0.5
        self.real = nn.Parameter(torch.empty(outputs, inputs, kernel).uniform_(-bound, bound))
        self.imaginary = nn.Parameter(torch.empty(outputs, inputs, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(2 * outputs))

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.cat([torch.cat([self.real, -self.imaginary], 1), torch.cat([self.imaginary, self.real], 1)])
        y = F.conv2d(x.permute(0, 3, 1, 2), weight.unsqueeze(2), self.bias, padding=(0, self.real.shape[-1] // 2))
        return y.permute(0, 2, 3, 1)


class BandsDown(nn.Module):
    """A convolution over bins whose kernel is its stride: each `factor` neighbours become one, what is left over at the top is
    dropped. A layer `[..., bins, channels]` -> `[..., bins // factor, outputs]`."""

    def __init__(self, channels: int, outputs: int, factor: int):
        super().__init__()
        self.factor = factor
        self.product = nn.Linear(factor * channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        bands = x.shape[-2] // self.factor
        return self.product(x[..., : bands * self.factor, :].unflatten(-2, (bands, self.factor)).flatten(-2))


class BandsUp(nn.Module):
    """The transpose, each bin to `factor` neighbours: a layer `[..., bins, channels]` -> `[..., bins * factor, outputs]`."""

    def __init__(self, channels: int, outputs: int, factor: int):
        super().__init__()
        self.factor = factor
        self.product = nn.Linear(channels, factor * outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x).unflatten(-1, (self.factor, -1)).flatten(-3, -2)


class BandsGru(nn.Module):
    """A gated recurrent unit over time, the same for every bin and each with a memory of its own.

    Input `[batch, frames, bins, channels]`, normalised over bins and channels of a frame; output alike.
    """

    def __init__(self, bins: int, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm((bins, channels))
        self.gru = nn.GRU(channels, channels, batch_first=True)
        self.bins = bins

    def initial_state(self, batch: int) -> Tensor:
        return self.norm.weight.new_zeros(batch, self.bins, self.gru.hidden_size)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        sequences = torch.tanh(self.norm(x)).transpose(1, 2).flatten(0, 1)
        y, last = self.gru(sequences, state.flatten(0, 1).unsqueeze(0).to(x.dtype))
        return y.unflatten(0, (-1, self.bins)).transpose(1, 2), last.squeeze(0).unflatten(0, (-1, self.bins))
