"""What the predictive quantizer's two sides share: codebooks, the predictor's memory, and pitch as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from linnet.lab.export.builder import Builder
from linnet.lab.quant.predictive import PredictiveQuantizer
from linnet.lab.systems.codec import Codec


@dataclass(frozen=True)
class Codebook:
    """Entries as both sides know them. `numbers` are the entries over `scale`: small integers where `eight_bit`."""

    numbers: np.ndarray
    scale: float
    eight_bit: bool

    @classmethod
    def of(cls, entries: Tensor, *, eight_bit: bool) -> Codebook:
        """Float `[n, dim]`, rounded to 255 levels between its extremes where `eight_bit`."""
        values = entries.detach().numpy()
        if not eight_bit:
            return cls(values, 1.0, False)
        scale = float(np.abs(values).max()) / 127
        return cls(np.round(values / scale).astype(np.int8), scale, True)

    def units(self, g: Builder, *, lost: bool = False) -> str:
        """Float entries over `scale` `[n, dim]`, and a row of zeros for a `lost` frame."""
        numbers = np.pad(self.numbers, ((0, int(lost)), (0, 0)))
        return g.Cast(numbers, to=TensorProto.FLOAT) if self.eight_bit else g.value(numbers)

    def table(self, g: Builder, *, lost: bool = False) -> str:
        """Float entries `[n, dim]`, and a row of zeros for a `lost` frame."""
        return g.Mul(self.units(g, lost=lost), self.scale) if self.eight_bit else self.units(g, lost=lost)

    def nearest(self, g: Builder, x: str) -> str:
        """The entry nearest to `x` `[..., dim]` -> int32 `[...]`."""
        size = len(self.numbers)
        places = 1 << (size - 1).bit_length()
        highest = 128 * int(np.abs(self.numbers.astype(np.int64)).sum(1).max())
        if not self.eight_bit or 2 * highest * places > 2**31:
            best = g.ArgMax(g.Add(self._scores(g, x), self._offsets(-self.half_powers())), axis=-1, keepdims=0)
            return g.Cast(best, to=TensorProto.INT32)
        # The score above and the entry below in one number: ReduceMax is four times as fast as ArgMax.
        squares = g.Cast(self.numbers, to=TensorProto.INT32)
        powers = g.ReduceSum(g.Mul(squares, squares), np.array([1]), keepdims=0)
        entries = np.arange(size, dtype=np.int32)
        shift = np.array(places, np.int32)
        below = g.Sub(entries, g.Mul(g.Div(powers, np.array(2, np.int32)), shift))
        both = g.Add(g.Mul(self._scores(g, x), shift), below)
        return g.BitwiseAnd(g.ReduceMax(both, np.array([-1]), keepdims=0), np.array(places - 1, np.int32))

    def nearest_of_kind(self, g: Builder, x: str, entry_kind: np.ndarray, kind: str) -> str:
        """The entry nearest to `x` `[streams, dim]` among those of a `kind`, int64 `[streams]` -> `[streams]`."""
        kinds = np.arange(entry_kind.max() + 1)[:, None]
        offsets = self._offsets(np.where(entry_kind == kinds, -self.half_powers(), -1e9))
        return g.ArgMax(g.Add(self._scores(g, x), g.Gather(offsets, kind)), axis=-1, keepdims=0)

    def _scores(self, g: Builder, x: str) -> str:
        """Inner products with all entries, in units of `scale` squared.

        Rounding `x` to the codebook's 255 levels moves it by far less than the distance to the nearest entry, and the products
        become exact integers.
        """
        if not self.eight_bit:
            return g.MatMul(x, g.Transpose(self.numbers))
        middle = np.array(128, np.uint8)
        return g.MatMulInteger(g.QuantizeLinear(x, self.scale, middle), g.Transpose(self.numbers), middle)

    def _offsets(self, offsets: np.ndarray) -> np.ndarray:
        """What to add to each score, in the scores' type and units."""
        if not self.eight_bit:
            return offsets.astype(np.float32)
        return np.round(offsets / self.scale**2).clip(-(2**30)).astype(np.int32)

    def half_powers(self) -> np.ndarray:
        """Half the power of each entry, `[n]`."""
        return 0.5 * np.square(self.numbers.astype(np.float32) * np.float32(self.scale)).sum(-1)


def memory_table(g: Builder, quantizer: PredictiveQuantizer, base: str, *, lost: bool = False) -> str:
    """What each base entry says to the predictor's memory `[n, dim]`, worked out when the graph is loaded.

    The memory's weights stay exact: it runs on its own past for ever, and with 8 bits the decoder's output is 4 dB further off.
    """
    kinds = torch.nn.functional.pad(quantizer.kind.weight, (0, 0, 0, 1))
    which = np.append(quantizer.entry_kind.numpy(), [len(kinds) - 1] * lost)
    return g.Add(base, g.Gather(kinds, g.integers(which)))


@dataclass(frozen=True)
class PitchCoder:
    """The sender's pitch, by `previous * n + wanted`, both 1 + the pitch step (0: unvoiced) and below n."""

    n: int
    sent: np.ndarray  # 1 + the pitch as sent
    kind: np.ndarray  # the class of frame
    first: np.ndarray  # the base index, less the entry

    @property
    def before(self) -> np.ndarray:
        """1 + the pitch step of the frame before."""
        return np.repeat(np.arange(self.n), self.n)

    @classmethod
    def of(cls, quantizer: PredictiveQuantizer) -> PitchCoder:
        n = quantizer.index.n_steps + 1
        previous, wanted = (grid.flatten() for grid in torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij"))
        kind, number, sent = quantizer.code_pitch(wanted - 1, previous - 1)
        first = quantizer.base_index(kind, number, torch.zeros_like(kind))
        return cls(n, (sent + 1).numpy(), kind.numpy(), first.numpy())


@dataclass(frozen=True)
class PitchDecoder:
    """The receiver's pitch, by `previous * n + symbol[base index]`: base indices that do the same to it share a symbol.

    The last base index stands for a lost frame.
    """

    n: int
    symbol: np.ndarray
    pitch: np.ndarray  # 1 + the pitch step

    @property
    def before(self) -> np.ndarray:
        """1 + the pitch step of the frame before."""
        return np.repeat(np.arange(len(self.pitch) // self.n), self.n)

    @classmethod
    def of(cls, quantizer: PredictiveQuantizer) -> PitchDecoder:
        index = torch.tensor([*range(quantizer.index.size), -1])
        previous = torch.arange(quantizer.index.n_steps + 1).unsqueeze(1)
        pitch, symbol = np.unique(quantizer.pitch_frame(index, previous).numpy(), axis=1, return_inverse=True)
        return cls(pitch.shape[1], symbol.reshape(-1), pitch.flatten())


def steady(g: Builder, before: np.ndarray, pitch: np.ndarray, place: str) -> str:
    """1 where a frame is voiced or unvoiced as the one before, else 0, float `[frames, streams, 1]`, from the place in a table
    `[frames, streams]` whose rows are 1 + the pitch step `before`, and 1 + the pitch step."""
    same = ((before > 0) == (pitch > 0)).astype(np.int8)
    return g.Gather(g.Cast(same[:, None], to=TensorProto.FLOAT), place)


def advances(codec: Codec, before: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """How far the source's phase goes from a frame's middle to the next one's, in 2^-32 cycles.

    Half a hop at the pitch `before` and half a hop at this one, or all of it where there was none before; each is 1 + the
    pitch step. An unvoiced frame's phase runs on at the lowest pitch.
    """
    increments = codec.decoder.reference.increments.numpy()
    current = np.concatenate([increments[:1], increments])
    return codec.config.hop // 2 * (current[np.where(before > 0, before, pitch)] + current[pitch])


QUARTER = 1 << 31
"""Of a cycle, in the units of `Angles`."""


@dataclass(frozen=True)
class Angles:
    """Multiples of the source's phase by 1 + pitch step `[1 + steps, n]`, and what is added to them `[n]`, in 2^-33 cycles."""

    multiples: np.ndarray
    offsets: np.ndarray

    def turned(self, by: int) -> Angles:
        """So much further on."""
        return Angles(self.multiples, self.offsets + by)


def reference(codec: Codec, bins: np.ndarray, sign: np.ndarray, middle: int) -> Angles:
    """Those of the lab's `reference_rotation` of some bins, times `sign`; `middle` is the window's, in samples."""
    own: Any = codec.decoder.reference
    sign = 2 * sign.astype(np.int64)
    return Angles(own.numbers.numpy()[:, bins] * sign, -sign * (bins * middle % own.n_fft) * ((1 << 32) // own.n_fft))


def sines(g: Builder, phase: str, pitch: str, angles: Sequence[Angles]) -> tuple[str, ...]:
    """Sines of each of the angles, `[frames, streams, n]`, from the source's phase `[frames, streams, 1]` in 2^-32 cycles and
    1 + the pitch step `[frames, streams]`.

    In doubles: they hold a phase times the number of a harmonic exactly, and what a sine's last bits are, which depends on the
    length of the call, does not reach a float.
    """
    multiples = radians(g, g.integers(np.concatenate([each.multiples for each in angles], 1)))
    offsets = radians(g, np.concatenate([each.offsets for each in angles]))
    angle = g.Add(g.Mul(g.Cast(phase, to=TensorProto.DOUBLE), g.Gather(multiples, pitch)), offsets)
    return g.split(g.Cast(g.Sin(angle), to=TensorProto.FLOAT), [len(each.offsets) for each in angles], axis=2)


def radians(g: Builder, angle: str | np.ndarray) -> str:
    """Integers in 2^-33 cycles as doubles, worked out when the graph is loaded where they are constant."""
    return g.Mul(g.Cast(angle, to=TensorProto.DOUBLE), g.double(np.pi / (1 << 32)))
