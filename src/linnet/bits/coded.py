"""The blocks of a version 2 file: entropy-coded, a layer after the other, each decodable without the blocks before it.

    frames - 1 (1 byte) | bytes saved by each layer (1 to 4 bytes each) | layer 1 | layer 2 | ... | CRC

A layer that would not get smaller is packed as in version 1, and saves 0 bytes. So layers can be dropped without tables,
and blocks can be skipped by their heads alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import BinaryIO

import numpy as np

from linnet.bits.entropy import EntropyCoder
from linnet.bits.format import (
    BLOCK_FRAMES,
    CRC_BYTES,
    CUT_TRAILER,
    TRAILER_BYTES,
    End,
    Geometry,
    Header,
    block_crc,
    damage,
)
from linnet.bits.packet import MISSING, Codes, Layout, pack, unpack

_NUMBER_BYTES = 4


@dataclass(frozen=True)
class Head:
    """A block's head: its frames, the bytes of each layer and of the head itself, and whether such a block can be."""

    frames: int
    sizes: tuple[int, ...]
    n_bytes: int
    possible: bool

    @property
    def block_bytes(self) -> int:
        """Bytes of the whole block, its CRC included."""
        return self.n_bytes + sum(self.sizes) + CRC_BYTES

    @classmethod
    def parse(cls, data: bytes, layout: Layout, n_layers: int) -> Head | None:
        """The head in the first bytes of `data`; None if it is cut."""
        place, sizes = 1, []
        for layer in range(1, n_layers + 1):
            saved = 0
            for shift in range(0, 7 * _NUMBER_BYTES, 7):
                if place >= len(data):
                    return None
                saved |= (data[place] & 0x7F) << shift
                place += 1
                if data[place - 1] < 0x80:
                    break
            sizes.append(_packed_bytes(layout, layer, data[0] + 1) - saved)
        frames = data[0] + 1
        fewest = [_fewest_bytes(layout, layer, frames) for layer in range(1, n_layers + 1)]
        return cls(frames, tuple(sizes), place, all(size >= least for size, least in zip(sizes, fewest, strict=True)))


@dataclass(frozen=True)
class RawBlock:
    """A block as it lies in the file: `layers` are still coded, in a cut file the last of them may be cut or missing.

    `damaged` blocks have a wrong CRC or an impossible head. A cut block has no CRC and is not checked.
    """

    head: Head
    layers: tuple[bytes, ...]
    damaged: bool

    def keep(self, n_layers: int, index: int, layout: Layout) -> tuple[bytes, bool]:
        """The block with its first `n_layers` layers alone, and whether all of it is there."""
        sizes, layers = self.head.sizes[:n_layers], self.layers[:n_layers]
        payload = _head_bytes(self.head.frames, sizes, layout) + b"".join(layers)
        whole = sum(map(len, layers)) == sum(sizes)
        return (payload + block_crc(payload, index) if whole else payload), whole


def coded_block(codes: Codes, index: int, coder: EntropyCoder, n_layers: int) -> bytes:
    """Block `index`, of codes [frames, n_codes] that fit the coder's layout."""
    layout, frames, layers = coder.layout, len(codes), []
    for layer in range(1, n_layers + 1):
        packed = pack(codes[:, coder.columns(layer)], _alone(layout, layer), 1)
        coded = coder.encode(codes, layer).ljust(_fewest_bytes(layout, layer, frames), b"\0")
        layers.append(coded if len(coded) < len(packed) else packed)
    payload = _head_bytes(frames, tuple(map(len, layers)), layout) + b"".join(layers)
    return payload + block_crc(payload, index)


class RawBlocks:
    """Reads blocks without decoding them, as a stream.

    Attributes:
        block: the number of the next block.
        frames: in the blocks read so far, less those of a block whose first layer was cut.
        samples: of the sound, one channel, once a valid trailer has been seen; None until then, and in a cut file.
    """

    def __init__(self, fileobj: BinaryIO, geometry: Geometry) -> None:
        self._file = fileobj
        self._geometry = geometry
        self.move(0)

    def move(self, block: int) -> None:
        """Go on as at the beginning of `block`, where the file now is."""
        self.block = block
        self.frames = block * BLOCK_FRAMES
        self.samples: int | None = None
        self._buffer = b""
        self._last = False

    def next(self) -> RawBlock | None:
        """The next block, or None at the end."""
        layout, n_layers = self._geometry.layout, self._geometry.header.n_layers
        self._fill(max(TRAILER_BYTES, 1 + _NUMBER_BYTES * n_layers) + 1)
        head = None
        if len(self._buffer) > TRAILER_BYTES and not self._last:
            head = Head.parse(self._buffer, layout, n_layers)
        if head is None:
            trailer = self._geometry.read_trailer(self._buffer)
            if trailer and trailer.frames == self.frames:
                self.samples = trailer.samples
            return None
        self.block += 1
        if not head.possible:
            self._buffer, self._last = b"", True
            return RawBlock(head, (), damaged=True)
        self._fill(head.block_bytes)
        block, self._buffer = self._buffer[: head.block_bytes], self._buffer[head.block_bytes :]
        ends = list(accumulate(head.sizes, initial=head.n_bytes))
        layers = tuple(block[start:end] for start, end in pairwise(ends))
        whole = len(block) == head.block_bytes
        if whole:
            damaged = block[-CRC_BYTES:] != block_crc(block[:-CRC_BYTES], self.block - 1)
        else:  # cut; but if the file has its end, it is the head that tells of too many bytes
            trailer = self._geometry.read_trailer(block[-TRAILER_BYTES:])
            damaged = trailer is not None and trailer.frames > self.frames
        # Only the last block is shorter; behind a cut one there is nothing.
        self._last = not whole or head.frames < BLOCK_FRAMES
        self.frames += head.frames if len(layers[0]) == head.sizes[0] else 0
        return RawBlock(head, layers, damaged)

    def _fill(self, wanted: int) -> None:
        while len(self._buffer) < wanted and (piece := self._file.read(wanted - len(self._buffer))):
            self._buffer += piece


class CodedBody:
    """Reads and decodes the blocks, one after the other.

    Attributes:
        end: what the file holds; None in a pipe until its end is seen.
    """

    def __init__(self, fileobj: BinaryIO, geometry: Geometry, coder: EntropyCoder) -> None:
        self._file = fileobj
        self._geometry = geometry
        self._coder = coder
        self._raw = RawBlocks(fileobj, geometry)
        self._frames = 0
        self.end: End | None = None
        self._start = fileobj.tell() if fileobj.seekable() else 0
        if fileobj.seekable():
            self._find_end()

    @property
    def block(self) -> int:
        """The number of the next block."""
        return self._raw.block

    def seek(self, block: int) -> None:
        """Make `block` the next one, in a seekable file: from head to head, as blocks differ in length."""
        place = self._start
        for _ in range(block):
            head = self._head_at(place)
            if head is None or not head.possible:
                place = self._file.seek(0, os.SEEK_END)
                break
            place += head.block_bytes
        self._file.seek(place)
        self._raw.move(block)

    def next(self) -> tuple[int, Codes | None] | None:
        """The frames of the next block and their codes, no codes if they are damaged; None at the end."""
        block = self._raw.next()
        if block is not None and block.damaged:
            self._frames += block.head.frames
            return block.head.frames, None
        if block is not None and len(codes := _decode(block, self._coder)):
            self._frames += len(codes)
            return len(codes), codes
        if self.end is None:
            self.end = End(self._frames, self._raw.samples, 0)
        return None

    def _find_end(self) -> None:
        """Go from head to head to the last whole block, read from there to the end, and come back."""
        length = self._file.seek(0, os.SEEK_END)
        place = last = self._start
        blocks, frames = 0, BLOCK_FRAMES
        while length - place > TRAILER_BYTES and frames == BLOCK_FRAMES:
            head = self._head_at(place)
            if head is None or not head.possible or place + head.block_bytes > length:
                break
            place, last, frames = place + head.block_bytes, place, head.frames
            blocks += 1
        self._file.seek(last)
        self._raw.move(max(blocks - 1, 0))
        self._frames = self._raw.frames
        while self.next() is not None:
            pass
        self.seek(0)

    def _head_at(self, place: int) -> Head | None:
        self._file.seek(place)
        n_layers = self._geometry.header.n_layers
        return Head.parse(self._file.read(1 + _NUMBER_BYTES * n_layers), self._geometry.layout, n_layers)


def thin_coded(src: BinaryIO, dst: BinaryIO, header: Header, geometry: Geometry) -> End:
    """Copy the first `header.n_layers` layers of the blocks in `src`, whose file `geometry` describes.

    Raises:
        CorruptFileError: if a block is damaged; what is in `dst` then reads as cut.
    """
    blocks, whole = RawBlocks(src, geometry), True
    dst.write(header.to_bytes())
    while (block := blocks.next()) is not None:
        if block.damaged:
            raise damage(blocks.block - 1, block.head.frames)
        data, whole = block.keep(header.n_layers, blocks.block - 1, geometry.layout)
        dst.write(data)
    if blocks.samples is not None:
        dst.write(geometry.trailer(blocks.frames, blocks.samples))
    elif whole:  # else the copy ends within a block, and reads as cut
        dst.write(CUT_TRAILER)
    dst.flush()
    return End(blocks.frames, blocks.samples, 0)


def _decode(block: RawBlock, coder: EntropyCoder) -> Codes:
    """The codes [frames, n_codes] of a block, as far as it is there: -1 in what did not arrive of upper layers."""
    codes = np.full((block.head.frames, coder.layout.n_codes), MISSING, np.int64)
    for layer, (data, size) in enumerate(zip(block.layers, block.head.sizes, strict=True), start=1):
        arrived = _decode_layer(data, size, codes, layer, coder)
        if arrived < len(codes):
            return codes[:arrived] if layer == 1 else codes
    return codes


def _decode_layer(data: bytes, size: int, codes: Codes, layer: int, coder: EntropyCoder) -> int:
    """Fill in a layer of `size` bytes, of which `data` is there; gives the number of frames that arrived."""
    if size != _packed_bytes(coder.layout, layer, len(codes)):
        if len(data) < size:
            return coder.decode_cut(data, codes, layer)
        coder.decode(data, codes, layer)
        return len(codes)
    alone = _alone(coder.layout, layer)
    arrived = min(len(codes), 8 * len(data) // alone.frame_bits(1))
    codes[:arrived, coder.columns(layer)] = unpack(data.ljust(size, b"\0"), len(codes), alone, 1)[:arrived]
    return arrived


def _head_bytes(frames: int, sizes: tuple[int, ...], layout: Layout) -> bytes:
    """The head of a block whose layers have these sizes."""
    head = bytearray([frames - 1])
    for layer, size in enumerate(sizes, start=1):
        saved = _packed_bytes(layout, layer, frames) - size
        while saved >= 0x80:
            head.append(saved & 0x7F | 0x80)
            saved >>= 7
        head.append(saved)
    return bytes(head)


def _layer_columns(layout: Layout, layer: int) -> slice:
    return slice(layout.columns(layer - 1) if layer > 1 else 0, layout.columns(layer))


def _alone(layout: Layout, layer: int) -> Layout:
    """The layout of one layer's columns."""
    sizes = layout.sizes[_layer_columns(layout, layer)]
    return Layout(sizes, (1,) * len(sizes), layout.sample_rate, layout.hop)


def _packed_bytes(layout: Layout, layer: int, frames: int) -> int:
    """Bytes of a layer that is not entropy-coded."""
    return -(-frames * sum(layout.column_bits[_layer_columns(layout, layer)]) // 8)


def _fewest_bytes(layout: Layout, layer: int, frames: int) -> int:
    """Bytes that a coded layer has at least, a bit for every code: a small file is never hours of sound."""
    return -(-frames * len(layout.sizes[_layer_columns(layout, layer)]) // 8)
