"""Writing, reading and thinning `.lnt` files, as streams: no part of this holds more than what was asked for.

Neither the writer nor the reader closes the file it was given. Both ask only for a buffered binary file object, whose
`write` takes and whose `read(n)` gives all that was asked for (or what is left): a file, a pipe, a BytesIO.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import BinaryIO, Literal, Self

import numpy as np
import numpy.typing as npt

from linnet.bits.coded import CodedBody, coded_block, thin_coded
from linnet.bits.entropy import EntropyCoder
from linnet.bits.errors import LayoutError, SeekError, WriteError, WrongModelError
from linnet.bits.format import BLOCK_FRAMES, CODED, CUT_TRAILER, HEADER_BYTES, PLAIN, End, Geometry, Header, damage
from linnet.bits.packet import MISSING, Codes, Layout, check_codes
from linnet.bits.plain import PlainBody, plain_block

OnDamage = Literal["raise", "conceal"]
Models = Mapping[bytes, Layout | EntropyCoder]


class Writer:
    """Writes a `.lnt` file. Blocks go out as soon as they are full, the lengths at the end.

    As a context manager it closes itself, but not after an exception: what is then in the file reads as cut.

    Args:
        fileobj: where to write; need not be seekable.
        header: its `n_layers` layers of the codes are written.
        layout: of the model's codes.
        coder: of the same model. The file is entropy-coded if that makes its first block smaller, or if the header says so.

    Attributes:
        header: as written; whether the file is entropy-coded is known from the end of the first block on.
        samples: length of the sound, one channel, at the header's sample rate, in the trailer; set it any time before
            closing. None writes the length of all frames.

    Raises:
        LayoutError: if the header asks for more layers than the layout has.
        WriteError: if the header says that the file is entropy-coded, and there is no coder or it is another model's.
    """

    def __init__(self, fileobj: BinaryIO, header: Header, layout: Layout, coder: EntropyCoder | None = None) -> None:
        if header.version == CODED and (coder is None or coder.model_id != header.model_id):
            raise WriteError("an entropy-coded file needs the coder of its model: give that, or a header of version 1")
        self._geometry = Geometry(header, layout)
        self._coder = coder
        self.header = header
        self.layout = layout
        self.samples: int | None = None
        self._file = fileobj
        self._pending: Codes = np.empty((0, layout.n_codes), np.int64)
        self._frames = 0
        self._blocks = 0
        self._closed = False
        self._begun = coder is None or header.version == CODED
        if self._begun:
            fileobj.write(header.to_bytes())

    @property
    def frames(self) -> int:
        """Frames written so far, those of the block being filled included."""
        return self._frames

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
        self._frames += len(check_codes(codes, self.layout, self.header.n_layers))  # all before any of them goes out
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
        elif not self._begun:
            self._begin(self._pending)
        self._file.write(end)
        self._file.flush()
        self._closed = True

    def _write_block(self, codes: Codes) -> None:
        if not self._begun:
            self._begin(codes)
        coder = self._coder
        if coder is not None and self.header.version == CODED:
            data = coded_block(codes, self._blocks, coder, self.header.n_layers)
        else:
            data = plain_block(codes, self._blocks, self._geometry)
        self._file.write(data)
        self._blocks += 1

    def _begin(self, codes: Codes) -> None:
        """Choose how to write, by the first block, and write the header."""
        if self._coder is not None and len(codes):
            coded = coded_block(codes, 0, self._coder, self.header.n_layers)
            if len(coded) < len(plain_block(codes, 0, self._geometry)):
                self.header = replace(self.header, version=CODED, model_id=self._coder.model_id)
        self._file.write(self.header.to_bytes())
        self._begun = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        if kind is None:
            self.close()


class Reader:
    """Reads a `.lnt` file, from its first frame on. Iterating gives codes [frames, n_codes], a block at a time.

    Args:
        fileobj: placed at the header; what follows up to its end is the file. Seekable or not.
        models: the layouts of the models at hand, by model identity, and the coders of those that have tables; the header's
            picks one.
        on_damage: a block whose CRC is wrong raises CorruptFileError, or becomes rows of -1, as if lost in a network.

    Attributes:
        header: as read.
        layout: of this file's model.
        damaged: numbers of the damaged blocks met so far (block n starts at frame 256 n).

    Raises:
        CorruptFileError: if this is no `.lnt` file, or its header is cut or damaged.
        VersionError: if a newer Linnet wrote it.
        WrongModelError: if its model is not in `models`, or only its layout is and the file needs a coder.
        LayoutError: if the file has more layers than its model.
    """

    def __init__(self, fileobj: BinaryIO, models: Models, on_damage: OnDamage = "raise") -> None:
        self.header = read_header(fileobj)
        model = _model_of(self.header, models)
        self.layout = _layout_of(model)
        self.damaged: set[int] = set()
        self._seekable = fileobj.seekable()
        self._on_damage = on_damage
        geometry = Geometry(self.header, self.layout)
        if self.header.version == PLAIN:
            self._body: PlainBody | CodedBody = PlainBody(fileobj, geometry)
        elif isinstance(model, EntropyCoder):
            self._body = CodedBody(fileobj, geometry, model)
        else:
            raise WrongModelError("the file is entropy-coded, and its model is here without its tables: give those too")
        self._pending = self._no_codes()

    @property
    def frames(self) -> int | None:
        """Frames that can be read; None in a pipe until its end is seen."""
        return self._body.end.frames if self._body.end else None

    @property
    def samples(self) -> int | None:
        """Samples of the sound, one channel, at the header's sample rate; None in a pipe until its end is seen, and in
        a file that was cut."""
        return self._body.end.samples if self._body.end else None

    @property
    def truncated(self) -> bool:
        """Whether the file was cut (or its trailer damaged); in a pipe known once its end is seen. The frames after the
        last whole block of a cut file, 256 or fewer, could not be checked."""
        return self._body.end is not None and self._body.end.truncated

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
        if not self._seekable:
            raise SeekError("a pipe cannot be seeked: save it as a file first")
        if frame < 0:
            raise SeekError(f"frame {frame}: frames count from 0")
        # Not beyond the end: an offset computed from a wild number may be more than the system can seek to.
        frame = min(frame, self.frames or 0)
        block, within = divmod(frame, BLOCK_FRAMES)
        self._body.seek(block)
        self._pending = self._no_codes()
        self.read(within)

    def __iter__(self) -> Iterator[Codes]:
        if len(self._pending):
            yield self.read(len(self._pending))
        while (block := self._next_block()) is not None:
            yield block

    def _next_block(self) -> Codes | None:
        """The codes of the next block, or None at the end."""
        index = self._body.block
        found = self._body.next()
        if found is None:
            return None
        frames, codes = found
        if codes is not None:
            return codes
        self.damaged.add(index)
        if self._on_damage == "conceal":
            return np.full((frames, self.layout.n_codes), MISSING, np.int64)
        raise damage(index, frames)

    def _no_codes(self) -> Codes:
        return np.empty((0, self.layout.n_codes), np.int64)


def read_header(fileobj: BinaryIO) -> Header:
    """The header of the file that begins here; leaves `fileobj` behind it.

    Raises:
        CorruptFileError: if this is no `.lnt` file, or its header is cut or damaged.
        VersionError: if a newer Linnet wrote it.
    """
    return Header.from_bytes(fileobj.read(HEADER_BYTES))


def thin(src: BinaryIO, dst: BinaryIO, n_layers: int, models: Models) -> End:
    """Copy a file without its layers above `n_layers`, as a stream and without decoding a sound; layouts alone are enough.

    A cut file gives a cut file.

    Returns:
        What was copied: frames (of a block that was cut, those whose first layer was whole), samples, whether it was cut.

    Raises:
        LayoutError: if the file has not that many layers.
        CorruptFileError: if a block is damaged; what is in `dst` then reads as cut.
        VersionError, WrongModelError: as the Reader.
    """
    header = read_header(src)
    geometry = Geometry(header, _layout_of(_model_of(header, models)))
    if not 1 <= n_layers <= header.n_layers:
        raise LayoutError(f"{n_layers} layers of a file that has {header.n_layers}: choose no more than it has")
    kept = replace(header, n_layers=n_layers)
    if header.version == CODED:
        return thin_coded(src, dst, kept, geometry)
    body = PlainBody(src, geometry)
    with Writer(dst, kept, geometry.layout) as writer:
        while (found := body.next()) is not None:
            frames, codes = found
            if codes is None:
                raise damage(body.block - 1, frames)
            writer.write(codes)
        assert body.end is not None
        writer.samples = body.end.samples
        writer.close(cut=body.end.truncated)
    return body.end


def _model_of(header: Header, models: Models) -> Layout | EntropyCoder:
    if header.model_id not in models:
        raise WrongModelError(f"the file needs model {header.model_id.hex()}: name it with --model")
    return models[header.model_id]


def _layout_of(model: Layout | EntropyCoder) -> Layout:
    return model.layout if isinstance(model, EntropyCoder) else model
