"""Writing, reading and thinning `.lnt` files, as streams: no part of this holds more than what was asked for.

Neither the writer nor the reader closes the file it was given. Both ask only for a buffered binary file object, whose
`write` takes and whose `read(n)` gives all that was asked for (or what is left): a file, a pipe, a BytesIO.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import BinaryIO, Literal, Self

import numpy as np
import numpy.typing as npt

from linnet.bits.errors import CorruptFileError, LayoutError, SeekError, WriteError, WrongModelError
from linnet.bits.format import (
    BLOCK_FRAMES,
    CRC_BYTES,
    CUT_TRAILER,
    HEADER_BYTES,
    TRAILER_BYTES,
    End,
    Geometry,
    Header,
    block_crc,
)
from linnet.bits.packet import MISSING, Codes, Layout, check_codes, pack, unpack

OnDamage = Literal["raise", "conceal"]


class Writer:
    """Writes a `.lnt` file. Blocks go out as soon as they are full, the lengths at the end.

    As a context manager it closes itself, but not after an exception: what is then in the file reads as cut.

    Args:
        fileobj: where to write; need not be seekable.
        header: its `n_layers` layers of the codes are written.
        layout: of the model's codes.

    Attributes:
        samples: length of the sound, one channel, at the header's sample rate, in the trailer; set it any time before
            closing. None writes the length of all frames.

    Raises:
        LayoutError: if the header asks for more layers than the layout has.
    """

    def __init__(self, fileobj: BinaryIO, header: Header, layout: Layout) -> None:
        self._geometry = Geometry(header, layout)
        self.header = header
        self.layout = layout
        self.samples: int | None = None
        self._file = fileobj
        self._pending: Codes = np.empty((0, layout.n_codes), np.int64)
        self._blocks = 0
        self._closed = False
        fileobj.write(header.to_bytes())

    @property
    def frames(self) -> int:
        """Frames written so far, those of the block being filled included."""
        return self._blocks * BLOCK_FRAMES + len(self._pending)

    def write(self, codes: npt.ArrayLike) -> None:
        """Append frames.

        Args:
            codes: integers [frames, n_codes]; columns of layers above the header's are not looked at.

        Raises:
            CodesError: if the codes do not fit the layout; a file cannot say that a frame was lost. Nothing of the call
                is then written.
            WriteError: after `close`.
        """
        if self._closed:
            raise WriteError("this file is closed: open another to write more")
        check_codes(codes, self.layout, self.header.n_layers)  # all of them before any of them goes out
        codes = np.concatenate([self._pending, np.asarray(codes, np.int64)])
        whole = len(codes) // BLOCK_FRAMES * BLOCK_FRAMES
        for start in range(0, whole, BLOCK_FRAMES):
            self._write_block(codes[start : start + BLOCK_FRAMES])
        self._pending = codes[whole:].copy()
        if whole:
            self._file.flush()  # somebody may be listening at the other end of the pipe

    def close(self, cut: bool = False) -> None:
        """Write what is left and the trailer; further calls do nothing.

        Args:
            cut: the source was itself cut short, so that this file must read as cut too.

        Raises:
            WriteError: if `samples` is negative, or longer than the frames.
        """
        if self._closed:
            return
        frames = self.frames
        samples = self._geometry.samples(frames) if self.samples is None else self.samples
        end = CUT_TRAILER if cut else self._geometry.trailer(frames, samples)
        if len(self._pending):
            self._write_block(self._pending)
        self._file.write(end)
        self._file.flush()
        self._closed = True

    def _write_block(self, codes: Codes) -> None:
        payload = pack(codes, self.layout, self.header.n_layers)
        self._file.write(payload + block_crc(payload, self._blocks))
        self._blocks += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        if kind is None:
            self.close()


class Reader:
    """Reads a `.lnt` file, from its first frame on. Iterating gives codes [frames, n_codes], a block at a time.

    Args:
        fileobj: placed at the header; what follows up to its end is the file. Seekable or not.
        layouts: of the models at hand, by model identity; the header's picks one.
        on_damage: a block whose CRC is wrong raises CorruptFileError, or becomes rows of -1, as if lost in a network.

    Attributes:
        header: as read.
        layout: of this file's model.
        damaged: numbers of the damaged blocks met so far (block n starts at frame 256 n).

    Raises:
        CorruptFileError: if this is no `.lnt` file, or its header is cut or damaged.
        VersionError: if a newer Linnet wrote it.
        WrongModelError: if its model is not in `layouts`.
        LayoutError: if the file has more layers than its model.
    """

    def __init__(self, fileobj: BinaryIO, layouts: Mapping[bytes, Layout], on_damage: OnDamage = "raise") -> None:
        self.header = read_header(fileobj)
        if self.header.model_id not in layouts:
            raise WrongModelError(f"the file needs model {self.header.model_id.hex()}: name it with --model")
        self.layout = layouts[self.header.model_id]
        self.damaged: set[int] = set()
        self._file = fileobj
        self._on_damage = on_damage
        self._geometry = Geometry(self.header, self.layout)
        self._block = 0
        self._buffer = b""
        self._pending = self._no_codes()
        self._start = fileobj.tell() if fileobj.seekable() else None
        self._end = None if self._start is None else self._find_end(self._start)

    @property
    def frames(self) -> int | None:
        """Frames that can be read; None in a pipe until its end is seen."""
        return self._end.frames if self._end else None

    @property
    def samples(self) -> int | None:
        """Samples of the sound, one channel, at the header's sample rate; None in a pipe until its end is seen, and in
        a file that was cut."""
        return self._end.samples if self._end else None

    @property
    def truncated(self) -> bool:
        """Whether the file was cut (or its trailer damaged); in a pipe known once its end is seen. The frames after the
        last whole block of a cut file, 256 or fewer, could not be checked."""
        return self._end is not None and self._end.truncated

    def read(self, frames: int | None = None) -> Codes:
        """The next `frames` frames, or all that are left.

        Returns:
            Codes [frames, n_codes], fewer rows only at the end; -1 in columns of layers that the file has not.

        Raises:
            CorruptFileError: at a damaged block, unless they are concealed; the frames of this call are then lost.
        """
        frames = sys.maxsize if frames is None else frames
        if frames < 0:
            raise SeekError(f"{frames} frames asked for: give 0 or more, or none for all")
        parts, have = [self._pending], len(self._pending)
        self._pending = self._no_codes()
        while have < frames and (block := self._next_block()) is not None:
            parts.append(block)
            have += len(block)
        codes = np.concatenate(parts)
        self._pending = codes[frames:].copy()
        return codes[:frames]

    def seek(self, frame: int) -> None:
        """Make `frame` the next one that is read; past the end there is nothing to read.

        Raises:
            SeekError: in a pipe, or for a frame before the first.
            CorruptFileError: if the block it lies in is damaged, unless such are concealed.
        """
        if self._start is None:
            raise SeekError("a pipe cannot be seeked: save it as a file first")
        if frame < 0:
            raise SeekError(f"frame {frame}: frames count from 0")
        # Not beyond the end: an offset computed from a wild number may be more than the system can seek to.
        frame = min(frame, self.frames or 0)
        self._block, within = divmod(frame, BLOCK_FRAMES)
        self._file.seek(self._start + self._block * self._geometry.block_bytes)
        self._buffer = b""
        self._pending = self._no_codes()
        self.read(within)

    def __iter__(self) -> Iterator[Codes]:
        if len(self._pending):
            yield self.read(len(self._pending))
        while (block := self._next_block()) is not None:
            yield block

    def _next_block(self) -> Codes | None:
        """The codes of the next block, or None at the end."""
        self._fill()
        index, geometry, end = self._block, self._geometry, self._end
        frames = BLOCK_FRAMES if end is None else min(BLOCK_FRAMES, end.frames - index * BLOCK_FRAMES)
        if frames <= 0:
            return None
        size = geometry.payload_bytes(frames)
        payload, checksum = self._buffer[:size], self._buffer[size : size + CRC_BYTES]
        self._buffer = self._buffer[size + CRC_BYTES :]
        self._block += 1
        checked = end is None or index < end.checked_blocks
        if (checked and checksum != block_crc(payload, index)) or len(payload) < size:
            return self._damage(index, frames)
        return unpack(payload, frames, self.layout, self.header.n_layers)

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
        if len(self._buffer) < wanted and self._end is None:
            length = self._block * self._geometry.block_bytes + len(self._buffer)
            self._end = self._geometry.end(length, self._buffer[-TRAILER_BYTES:])

    def _find_end(self, start: int) -> End:
        """Look at the end of a seekable file, and come back."""
        length = self._file.seek(0, os.SEEK_END) - start
        self._file.seek(start + max(0, length - TRAILER_BYTES))
        tail = self._file.read(TRAILER_BYTES)
        self._file.seek(start)
        return self._geometry.end(length, tail)

    def _damage(self, index: int, frames: int) -> Codes:
        self.damaged.add(index)
        if self._on_damage == "conceal":
            return np.full((frames, self.layout.n_codes), MISSING, np.int64)
        first = index * BLOCK_FRAMES
        raise CorruptFileError(f"frames {first} to {first + frames - 1} are damaged: fetch the file again, or conceal them")

    def _no_codes(self) -> Codes:
        return np.empty((0, self.layout.n_codes), np.int64)


def read_header(fileobj: BinaryIO) -> Header:
    """The header of the file that begins here; leaves `fileobj` behind it.

    Raises:
        CorruptFileError: if this is no `.lnt` file, or its header is cut or damaged.
        VersionError: if a newer Linnet wrote it.
    """
    return Header.from_bytes(fileobj.read(HEADER_BYTES))


def thin(src: BinaryIO, dst: BinaryIO, n_layers: int, layouts: Mapping[bytes, Layout]) -> Reader:
    """Copy a file without its layers above `n_layers`, as a stream and without decoding a sound.

    A cut file gives a cut file.

    Returns:
        The reader at its end: `truncated`, `frames` and `samples` say what was copied.

    Raises:
        LayoutError: if the file has not that many layers.
        CorruptFileError: if a block is damaged; what is in `dst` then reads as cut.
        VersionError, WrongModelError: as the Reader.
    """
    reader = Reader(src, layouts)
    if not 1 <= n_layers <= reader.header.n_layers:
        raise LayoutError(f"{n_layers} layers of a file that has {reader.header.n_layers}: choose no more than it has")
    header = Header(reader.header.model_id, reader.header.sample_rate, n_layers)
    with Writer(dst, header, reader.layout) as writer:
        for codes in reader:
            writer.write(codes)
        writer.samples = reader.samples
        writer.close(cut=reader.truncated)
    return reader
