"""Fourier transforms as two small matrix products with a twiddle between them (Cooley and Tukey, 1965).

ONNX Runtime's DFT takes 12 us for 512 points in a call of one frame and 8 us a frame among many; this takes 4 and 1.

With n = S n1 + n2 and k = k1 + R k2, N = R S points: X[k] = sum_n2 w(S)^(k2 n2) w(N)^(k1 n2) sum_n1 w(R)^(k1 n1) x[n], where
w(M) = exp(-2 pi i / M). Of a real signal only k1 = 0..R/2 is worked out, with all S values of k2: that is every bin
once or, where k > N/2, its mirror image. A spectrum's shape is `[..., rows, 2 S]`, a row for each k1 with its real parts
first. The values of k2 are in the order -S/2..S/2 - 1, so that the lowest bins stand side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from linnet.lab.export.builder import MICROSOFT, Builder, Operand


@dataclass(frozen=True)
class Fourier:
    """The transform of `points` points, a power of two."""

    points: int

    @property
    def columns(self) -> int:
        """S, the values of k2 and n2."""
        return 1 << int(math.log2(self.points)) // 2

    @property
    def rows(self) -> int:
        """R / 2 + 1, the values of k1 that are worked out."""
        return self.points // self.columns // 2 + 1

    @property
    def size(self) -> int:
        """Bins of a spectrum, repeated ones included."""
        return self.rows * self.columns

    @property
    def bins(self) -> np.ndarray:
        """The bin, 0 to points / 2, at each place of a spectrum, `[size]`."""
        k = self._k()
        return np.where(self.mirrored, self.points - k, k)

    @property
    def mirrored(self) -> np.ndarray:
        """Whether a place holds its bin's conjugate, `[size]`."""
        return self._k() > self.points // 2

    def forward(self, g: Builder, x: str, *, constant: bool = False) -> str:
        """Real `[frames, ..., points / S, S]` -> spectra `[frames, several, rows, 2 S]`, a frame's one after the other.

        A `constant` is worked out when the graph is loaded; it is `[1, several, points / S, S]`.
        """
        r = self.points // self.columns
        first = np.exp(-2j * np.pi * np.outer(np.arange(self.rows), np.arange(r)) / r)
        interleaved = np.stack([first.real, first.imag], 1).reshape(-1, r).astype(np.float32)
        parts = g.Reshape(g.MatMul(interleaved, x), np.array([0, -1, self.rows, 2 * self.columns]))
        return g.MatMul(self._twist(g, parts, 1, constant=constant), _as_real(self._kernel()))

    def inverse(self, g: Builder, spectrum: str, rows: int) -> str:
        """Spectra `[frames, several, rows, 2 S]` -> the real signals' first `rows` rows, zeros beyond,
        `[frames, several, rows, S]`."""
        r = self.points // self.columns
        parts = self._twist(g, g.MatMul(spectrum, _as_real(self._kernel().conj().T)), -1)
        # The rows in between stand for their mirror images as well.
        weight = np.where(np.arange(self.rows) % (self.rows - 1) == 0, 1, 2) / self.points
        last = np.exp(2j * np.pi * np.outer(np.arange(rows), np.arange(self.rows)) / r) * weight
        last[r:] = 0
        interleaved = np.stack([last.real, -last.imag], -1).reshape(rows, -1).astype(np.float32)
        return g.MatMul(interleaved, g.Reshape(parts, np.array([0, 0, 2 * self.rows, self.columns])))

    def _twist(self, g: Builder, parts: str, sign: int, *, constant: bool = False) -> str:
        """What is between the two products, `[frames, several, rows, 2 S]`, forth or back: a row is a position of a text.

        ONNX Runtime's own operator takes any number of frames, but is not worked out at loading; ONNX's is.
        """
        angle = -2 * np.pi * np.outer(np.arange(self.rows), np.arange(self.columns)) / self.points
        tables = np.cos(angle).astype(np.float32), (sign * np.sin(angle)).astype(np.float32)
        if constant:
            return g.RotaryEmbedding(parts, *tables, np.arange(self.rows)[None])
        return g.RotaryEmbedding(parts, np.array([0]), *tables, domain=MICROSOFT)

    @property
    def _k2(self) -> np.ndarray:
        return (np.arange(self.columns) + self.columns // 2) % self.columns

    def _kernel(self) -> np.ndarray:
        """What takes n2 to k2, complex `[n2, k2]`."""
        return np.exp(-2j * np.pi * np.outer(np.arange(self.columns), self._k2) / self.columns)

    def _k(self) -> np.ndarray:
        return np.add.outer(np.arange(self.rows), self.points // self.columns * self._k2).flatten()


def rotate(g: Builder, x: str, cosines: Operand, sines: Operand) -> str:
    """Complex numbers, each row's real parts before its imaginary parts, times those of angles: `x` `[frames, rows, 2 n]`,
    cosines and sines `[frames, rows, n]`.

    A rotary embedding does just that, as one operator in place of seven.
    """
    return g.RotaryEmbedding(x, cosines, sines, num_heads=1)


def _as_real(matrix: np.ndarray) -> np.ndarray:
    """A complex matrix that meets a row from the right, real parts first on both sides."""
    return np.block([[matrix.real, matrix.imag], [-matrix.imag, matrix.real]]).astype(np.float32)
