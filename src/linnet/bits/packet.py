"""Codes to bits and back: the packet of one frame, and the contiguous stream of many.

A frame's bits are its columns in order, each column's most significant bit first, so that fewer layers are a prefix of
more. Nothing is said about the number of layers in a packet but its length. docs/bitstream.md specifies both forms.

In a stream of many frames the bits move in numpy alone: every code becomes a big-endian 32-bit word, `unpackbits` spreads
the words of a frame into a row of bits, and one fixed list of positions picks the bits that are sent. Unpacking runs the
steps backwards. Packets, which mostly come one at a time, are integers of Python's: for one, that takes a fifth of the time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from linnet.bits.errors import CodesError, LayoutError, PacketError

Codes = npt.NDArray[np.int64]

MISSING = -1
"""The code of a column whose layer did not arrive; a frame of nothing else is a lost packet."""

_WORD_BITS = 32
_RATE_TOLERANCE = 1e-9  # "1 kbit/s" must fit a layer whose rate came out as 1.0000000000000002


@dataclass(frozen=True)
class Layout:
    """The columns of a model's codes: how many bits each takes, and with which layer it is sent.

    Args:
        sizes: each column's number of values, a power of two from 2 to 2**32, in order of importance.
        layers: each column's layer: starts at 1, and from column to column stays or grows by one.
        sample_rate: of the codec, in Hz.
        hop: samples a frame, at that rate.

    Raises:
        LayoutError: if one of these does not hold, or if two numbers of layers give packets of the same length in
            bytes (a packet has no header: its length tells its layers).
    """

    sizes: tuple[int, ...]
    layers: tuple[int, ...]
    sample_rate: int
    hop: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.sizes or len(self.sizes) != len(self.layers):
            raise LayoutError(f"{len(self.sizes)} column sizes and {len(self.layers)} layers: give one of each a column")
        for size in self.sizes:
            if not 2 <= size <= 2**_WORD_BITS or size.bit_count() != 1:
                raise LayoutError(f"a column of size {size}: sizes are powers of two from 2 to 2**{_WORD_BITS}")
        if self.layers[0] != 1 or any(b - a not in (0, 1) for a, b in pairwise(self.layers)):
            raise LayoutError(f"layers {self.layers}: count from 1, and stay or grow by one from column to column")
        if self.n_layers > 255:
            raise LayoutError(f"{self.n_layers} layers: a file can carry at most 255")
        if self.sample_rate < 1 or self.hop < 1:
            raise LayoutError(f"sample rate {self.sample_rate} and hop {self.hop} must both be at least 1")
        if len(self.layers_by_bytes) != self.n_layers:
            raise LayoutError(
                "two numbers of layers give packets of as many bytes: give each layer enough bits to make them longer"
            )

    @property
    def n_codes(self) -> int:
        """Columns."""
        return len(self.sizes)

    @property
    def n_layers(self) -> int:
        """Layers, of one column or more each."""
        return self.layers[-1]

    @cached_property
    def column_bits(self) -> tuple[int, ...]:
        """Bits of each column."""
        return tuple(size.bit_length() - 1 for size in self.sizes)

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop

    @cached_property
    def layers_by_bytes(self) -> dict[int, int]:
        """The number of layers of a packet, by its length in bytes."""
        return {self.packet_bytes(n): n for n in range(1, self.n_layers + 1)}

    def columns(self, n_layers: int) -> int:
        """How many columns the first `n_layers` layers hold.

        Raises:
            LayoutError: if the layout has no such number of layers.
        """
        if not 1 <= n_layers <= self.n_layers:
            raise LayoutError(f"{n_layers} layers do not exist in this model: choose from 1 to {self.n_layers}")
        return bisect_right(self.layers, n_layers)

    def frame_bits(self, n_layers: int) -> int:
        """Bits of a frame of `n_layers` layers."""
        return sum(self.column_bits[: self.columns(n_layers)])

    def packet_bytes(self, n_layers: int) -> int:
        """Bytes of the packet of a frame of `n_layers` layers."""
        return _bytes_for(self.frame_bits(n_layers))

    def kbps(self, n_layers: int) -> float:
        """The rate of `n_layers` layers in kbit/s (1 kbit = 1000 bits), without padding or file overhead."""
        return self.frame_bits(n_layers) * self.sample_rate / self.hop / 1000

    def layers_for_kbps(self, kbps: float) -> int:
        """The largest number of layers whose rate is at most `kbps`.

        Raises:
            LayoutError: if not even the first layer fits.
        """
        fitting = [n for n in range(1, self.n_layers + 1) if self.kbps(n) <= kbps * (1 + _RATE_TOLERANCE)]
        if not fitting:
            raise LayoutError(f"{kbps:g} kbit/s is below this model's first layer: ask for at least {self.kbps(1):g}")
        return fitting[-1]


def pack(codes: npt.ArrayLike, layout: Layout, n_layers: int) -> bytes:
    """Frames back to back, without a gap; zero bits fill the last byte.

    Args:
        codes: integers [frames, n_codes]; columns of layers above `n_layers` are not looked at.
        layout: of the columns.
        n_layers: how many layers to keep.

    Raises:
        CodesError: if the codes do not fit the layout.
        LayoutError: if the layout has no such number of layers.
    """
    return np.packbits(_frame_bits(codes, layout, n_layers)).tobytes()


def unpack(data: bytes, frames: int, layout: Layout, n_layers: int) -> Codes:
    """The inverse of `pack`.

    Returns:
        Codes [frames, n_codes], -1 in the columns of layers above `n_layers`. The filling bits are not looked at.

    Raises:
        PacketError: if `data` has not the length of that many frames.
        LayoutError: if the layout has no such number of layers.
    """
    if frames < 0:
        raise PacketError(f"{frames} frames asked for: give 0 or more")
    bits_a_frame = layout.frame_bits(n_layers)
    if len(data) != _bytes_for(frames * bits_a_frame):
        wanted = _bytes_for(frames * bits_a_frame)
        raise PacketError(f"{len(data)} bytes cannot be {frames} frames of {n_layers} layers: those take {wanted}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=frames * bits_a_frame)
    return _codes(bits.reshape(frames, bits_a_frame), layout, n_layers)


def pack_packets(codes: npt.ArrayLike, layout: Layout, n_layers: int) -> list[bytes]:
    """One packet a frame, of `layout.packet_bytes(n_layers)` bytes each; zero bits fill the last byte of each.

    A frame whose sent columns are all -1 is a lost packet, and comes out as b''.

    Raises:
        CodesError: if the codes do not fit the layout.
        LayoutError: if the layout has no such number of layers.
    """
    columns = layout.columns(n_layers)
    sizes, lost = layout.sizes[:columns], [MISSING] * columns
    length = layout.packet_bytes(n_layers)
    filling = 8 * length - layout.frame_bits(n_layers)
    packets = []
    for frame, row in enumerate(_checked_shape(codes, layout)[:, :columns].tolist()):
        packed = 0
        for column, (code, size) in enumerate(zip(row, sizes, strict=True)):
            if not 0 <= code < size and row != lost:
                raise _wrong_code(code, frame, column, layout)
            packed = packed * size + code
        packets.append(b"" if row == lost else (packed << filling).to_bytes(length, "big"))
    return packets


def unpack_packets(packets: Sequence[bytes | None], layout: Layout) -> Codes:
    """The codes of packets in order, each with as many layers as its length says.

    Args:
        packets: one a frame; None or b'' is a lost packet.
        layout: of the columns.

    Returns:
        Codes [frames, n_codes]: -1 where a layer did not arrive, rows of -1 where a packet is lost.

    Raises:
        PacketError: if a packet's length fits no number of layers.
    """
    rows = []
    for packet in packets:
        row = [MISSING] * layout.n_codes
        if packet:
            n_layers = layers_of_packet(packet, layout)
            packed = int.from_bytes(packet, "big") >> (8 * len(packet) - layout.frame_bits(n_layers))
            for column in reversed(range(layout.columns(n_layers))):
                packed, row[column] = divmod(packed, layout.sizes[column])
        rows.append(row)
    return np.array(rows, np.int64).reshape(len(rows), layout.n_codes)


def layers_of_packet(packet: bytes, layout: Layout) -> int:
    """The number of layers in a packet, told by its length.

    Raises:
        PacketError: if its length fits no number of layers.
    """
    lengths = layout.layers_by_bytes
    if len(packet) not in lengths:
        raise PacketError(f"a packet of {len(packet)} bytes: this model's have {', '.join(map(str, lengths))}")
    return lengths[len(packet)]


def thin_packet(packet: bytes | None, layout: Layout, n_layers: int) -> bytes:
    """The packet's first `n_layers` layers. One with no more stays as it is, a lost one stays lost (b'').

    Raises:
        PacketError: if its length fits no number of layers.
        LayoutError: if the layout has no such number of layers.
    """
    bits = layout.frame_bits(n_layers)
    if not packet or layers_of_packet(packet, layout) <= n_layers:
        return packet or b""
    size = _bytes_for(bits)
    filling = 8 * size - bits
    return packet[: size - 1] + bytes([packet[size - 1] >> filling << filling])


def keep_layers(codes: Codes, layout: Layout, n_layers: int) -> Codes:
    """A copy of codes [frames, n_codes] as if only the first `n_layers` layers had arrived: -1 in the others.

    Raises:
        CodesError: if the codes have not the layout's columns.
        LayoutError: if the layout has no such number of layers.
    """
    kept = _checked_shape(codes, layout).astype(np.int64)
    kept[:, layout.columns(n_layers) :] = MISSING
    return kept


def check_codes(codes: npt.ArrayLike, layout: Layout, n_layers: int, *, missing: bool = False) -> npt.NDArray[np.integer]:
    """The first `n_layers` layers of codes [frames, n_codes], after a look at every one; with `missing`, some may be -1.

    Raises:
        CodesError: if the codes do not fit the layout.
        LayoutError: if the layout has no such number of layers.
    """
    kept = _checked_shape(codes, layout)[:, : layout.columns(n_layers)]
    wrong = (kept < (MISSING if missing else 0)) | (kept >= np.array(layout.sizes[: kept.shape[1]], np.int64))
    if wrong.any():
        frame, column = np.argwhere(wrong)[0]
        raise _wrong_code(kept[frame, column], frame, column, layout)
    return kept


def _wrong_code(code: int, frame: int, column: int, layout: Layout) -> CodesError:
    highest = layout.sizes[column] - 1
    return CodesError(f"code {code} in frame {frame}, column {column}: the codes of this column go from 0 to {highest}")


def _bytes_for(bits: int) -> int:
    return -(-bits // 8)


def _positions(layout: Layout, n_layers: int) -> npt.NDArray[np.intp]:
    """Where the bits of a frame stand in the row of its codes' 32-bit words."""
    widths = layout.column_bits[: layout.columns(n_layers)]
    return np.concatenate([np.arange(-width, 0) + _WORD_BITS * (c + 1) for c, width in enumerate(widths)])


def _frame_bits(codes: npt.ArrayLike, layout: Layout, n_layers: int) -> npt.NDArray[np.uint8]:
    """The bits [frames, bits a frame] of codes [frames, n_codes], checked."""
    words = np.ascontiguousarray(check_codes(codes, layout, n_layers), ">u4").view(np.uint8)
    return np.take(np.unpackbits(words, axis=1), _positions(layout, n_layers), axis=1)


def _codes(bits: npt.NDArray[np.uint8], layout: Layout, n_layers: int) -> Codes:
    """The codes [frames, n_codes] of bits [frames, bits a frame]."""
    columns = layout.columns(n_layers)
    spread = np.zeros((len(bits), columns * _WORD_BITS), np.uint8)
    spread[:, _positions(layout, n_layers)] = bits
    codes = np.full((len(bits), layout.n_codes), MISSING, np.int64)
    codes[:, :columns] = np.packbits(spread, axis=1).view(">u4")
    return codes


def _checked_shape(codes: npt.ArrayLike, layout: Layout) -> npt.NDArray[np.integer]:
    array = np.asarray(codes)
    if array.ndim != 2 or array.shape[1] != layout.n_codes:
        raise CodesError(f"codes of shape {list(array.shape)}: this model's are [frames, {layout.n_codes}]")
    if array.dtype.kind not in "iu":
        raise CodesError(f"codes of type {array.dtype}: give integers")
    return array
