"""The blocks of a version 1 file: frames of a fixed size, so that every block's place is known."""

from __future__ import annotations

import os
from typing import BinaryIO

from linnet.bits.format import BLOCK_FRAMES, CRC_BYTES, TRAILER_BYTES, End, Geometry, block_crc
from linnet.bits.packet import Codes, pack, unpack


def plain_block(codes: Codes, index: int, geometry: Geometry) -> bytes:
    """Block `index`, of codes [frames, n_codes]."""
    payload = pack(codes, geometry.layout, geometry.header.n_layers)
    return payload + block_crc(payload, index)


class PlainBody:
    """Reads the blocks, one after the other.

    Attributes:
        block: the number of the next block.
        end: what the file holds; None in a pipe until its end is seen.
    """

    def __init__(self, fileobj: BinaryIO, geometry: Geometry) -> None:
        self.block = 0
        self._file = fileobj
        self._geometry = geometry
        self._buffer = b""
        self._start = fileobj.tell() if fileobj.seekable() else 0
        self.end = self._find_end() if fileobj.seekable() else None

    def seek(self, block: int) -> None:
        """Make `block` the next one, in a seekable file."""
        self.block = block
        self._file.seek(self._start + block * self._geometry.block_bytes)
        self._buffer = b""

    def next(self) -> tuple[int, Codes | None] | None:
        """The frames of the next block and their codes, no codes if they are damaged; None at the end."""
        self._fill()
        index, geometry, end = self.block, self._geometry, self.end
        frames = BLOCK_FRAMES if end is None else min(BLOCK_FRAMES, end.frames - index * BLOCK_FRAMES)
        if frames <= 0:
            return None
        size = geometry.payload_bytes(frames)
        payload, checksum = self._buffer[:size], self._buffer[size : size + CRC_BYTES]
        self._buffer = self._buffer[size + CRC_BYTES :]
        self.block += 1
        checked = end is None or index < end.checked_blocks
        if (checked and checksum != block_crc(payload, index)) or len(payload) < size:
            return frames, None
        return frames, unpack(payload, frames, geometry.layout, geometry.header.n_layers)

    def _fill(self) -> None:
        """Have a block and a byte more than a trailer in the buffer, so that this block is surely not the last one.

        At the end of the file, have what is left and know what it is.
        """
        wanted = self._geometry.block_bytes + TRAILER_BYTES + 1
        while len(self._buffer) < wanted:
            piece = self._file.read(wanted - len(self._buffer))
            if not piece:
                break
            self._buffer += piece
        if len(self._buffer) < wanted and self.end is None:
            length = self.block * self._geometry.block_bytes + len(self._buffer)
            self.end = self._geometry.end(length, self._buffer[-TRAILER_BYTES:])

    def _find_end(self) -> End:
        """Look at the end of a seekable file, and come back."""
        length = self._file.seek(0, os.SEEK_END) - self._start
        self._file.seek(self._start + max(0, length - TRAILER_BYTES))
        tail = self._file.read(TRAILER_BYTES)
        self._file.seek(self._start)
        return self._geometry.end(length, tail)
