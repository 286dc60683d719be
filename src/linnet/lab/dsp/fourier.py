"""The Fourier transform of a real signal as two small real matrix products and a twiddle between (Cooley and Tukey, 1965).

For lengths that are no power of two, where ONNX has no fast transform, in a form that every exporter knows. With N = R S,
n = S n1 + n2 and k = k1 + R k2: X[k] = sum_n2 w(S)^(k2 n2) w(N)^(k1 n2) sum_n1 w(R)^(k1 n1) x[n], w(M) = exp(-2 pi i / M).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RealFourier(nn.Module):
    """The transform of `rows * columns` real samples (R and S; `columns` even) to bins 0 to half of it, and back."""

    def __init__(self, rows: int, columns: int):
        super().__init__()
        points = rows * columns
        self.rows, self.columns = rows, columns
        self.n_bins, self.values = points // 2 + 1, columns // 2 + 1  # bins, and values of k2 that hold them
        first, twiddle = _angles(rows, rows, rows), _angles(rows, columns, points)
        second = _angles(columns, self.values, columns)
        # Of a complex number as a row (real, imaginary) times exp(-i angle) as a matrix.
        turn = torch.cat([torch.cat([second.cos(), -second.sin()], 1), torch.cat([second.sin(), second.cos()], 1)])
        weights = torch.full((self.n_bins,), 2 / points)
        weights[[0, -1]] = 1 / points
        for name, value in (
            ("first", torch.cat([first.cos(), -first.sin()])), ("second", turn), ("cosines", twiddle.cos()),
            ("sines", twiddle.sin()), ("weights", weights),
        ):  # fmt: skip
            self.register_buffer(name, value.float(), persistent=False)
        self.first: Tensor
        self.second: Tensor
        self.cosines: Tensor
        self.sines: Tensor
        self.weights: Tensor

    def forward(self, samples: Tensor) -> Tensor:
        """`[..., points]` -> real and imaginary parts `[..., 2, bins]`."""
        parts = _exact(self.first, samples.unflatten(-1, (self.rows, self.columns)))
        real, imaginary = parts.split(self.rows, -2)
        turned = [real * self.cosines + imaginary * self.sines, imaginary * self.cosines - real * self.sines]
        spectrum = _exact(torch.cat(turned, -1), self.second).unflatten(-1, (2, self.values))
        return spectrum.transpose(-3, -2).transpose(-2, -1).flatten(-2)[..., : self.n_bins]

    def inverse(self, spectrum: Tensor) -> Tensor:
        """`[..., 2, bins]` -> `[..., points]`: the transpose of `forward`, as every bin but the outer two stands for a pair."""
        padded = F.pad(spectrum * self.weights, (0, self.values * self.rows - self.n_bins))
        columns = padded.unflatten(-1, (self.values, self.rows)).transpose(-2, -1).transpose(-3, -2)
        parts = _exact(columns.flatten(-2), self.second.T)
        real, imaginary = parts.split(self.columns, -1)
        turned = [real * self.cosines - imaginary * self.sines, real * self.sines + imaginary * self.cosines]
        return _exact(self.first.T, torch.cat(turned, -2)).flatten(-2)


def _exact(first: Tensor, second: Tensor) -> Tensor:
    """Their product in floats, whatever the networks around it compute in."""
    with torch.autocast(first.device.type, enabled=False):
        return first.float() @ second.float()


def _angles(rows: int, columns: int, points: int) -> Tensor:
    """2 pi i j / points at `[i, j]`, in doubles."""
    return 2 * torch.pi * torch.outer(torch.arange(rows), torch.arange(columns)).double() / points
