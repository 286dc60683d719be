"""Recordings and `.lnt` files, read and written in blocks, so that an hour needs no more memory than a minute."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
import soundfile

from linnet.bits import BLOCK_FRAMES, MISSING, Geometry, Header, Reader, Writer
from linnet.bits.container import OnDamage
from linnet.runtime.audio import AudioError, Samples, to_mono
from linnet.runtime.channel import LossyChannel
from linnet.runtime.codec import Codec
from linnet.runtime.streams import CodeDecoder, CodeEncoder
from linnet.writing import FileError, replacing

PIPE = "-"
_BLOCK_SECONDS = 5
_PIPED = {"AIFF", "AU", "NIST", "OGG", "WAV", "WAVEX"}
"""Formats that libsndfile reads from a pipe as from a file; of others it gives nothing, or something else."""
_LONG = {"CAF", "FLAC", "MP3", "OGG", "RF64", "W64"}
"""Formats whose lengths have more than 32 bits, or that have none."""
_MOST_BYTES = (1 << 32) - (1 << 16)  # of the other formats, with room for what stands beside the samples
Progress = Callable[[Iterable, int | None], Iterable]


class Rejoined(io.RawIOBase):
    """A binary file some of which was read already: that first, then the rest. Not seekable, as a pipe."""

    def __init__(self, head: bytes, rest: BinaryIO):
        self.head, self.rest = head, rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size is None or size < 0:
            head, self.head = self.head, b""
            return head + self.rest.read()
        head, self.head = self.head[:size], self.head[size:]
        return head + (self.rest.read(size - len(head)) if len(head) < size else b"")


@dataclass(frozen=True)
class Encoded:
    """What encoding did: samples and channels read, their rate, frames and layers written, the bytes that these take
    without entropy coding, and whether the recording had been cut short."""

    samples: int
    channels: int
    sample_rate: int
    frames: int
    n_layers: int
    plain_bytes: int
    truncated: bool


@dataclass(frozen=True)
class Decoded:
    """What decoding did: samples written, their rate, layers used, whether the file had been cut short, and how many
    damaged frames were concealed."""

    samples: int
    sample_rate: int
    n_layers: int
    truncated: bool
    concealed: int


def _binary(stream: TextIO | None, name: str) -> BinaryIO:
    """Standard input or output, which a shell may have closed."""
    if stream is None:
        raise FileError(f"{name} is closed: name a file, or leave it open")
    return stream.buffer


@contextmanager
def open_input(path: str) -> Iterator[BinaryIO]:
    """A binary file, or standard input for '-'."""
    if path == PIPE:
        yield _binary(sys.stdin, "standard input")
    else:
        with open(path, "rb") as file:
            yield file


@contextmanager
def open_output(path: str) -> Iterator[BinaryIO]:
    """A binary file that appears, whole, only when the block ends without an error; standard output for '-'."""
    if path == PIPE:
        out = _binary(sys.stdout, "standard output")
        yield out
        out.flush()
        return
    with replacing(path) as partial, open(partial, "wb") as file:
        yield file


@contextmanager
def open_audio(path: str) -> Iterator[soundfile.SoundFile]:
    """A recording for reading, or one on standard input for '-'."""
    if path != PIPE and not Path(path).exists():
        raise FileError(f"{path} does not exist")
    if path != PIPE and Path(path).is_dir():
        raise FileError(f"{path or repr(path)} is a folder; name a recording")
    if path != PIPE and not os.access(path, os.R_OK):
        raise FileError(f"{path} cannot be read: permission denied")
    name = "standard input" if path == PIPE else path
    given = _binary(sys.stdin, name) if path == PIPE else None
    piped = Path(path).is_fifo() if given is None else not given.seekable()
    no_audio, advice = "is not audio that can be read", ""
    if piped:
        no_audio, advice = f"{no_audio} from a pipe", ": name a file, or pipe WAV"
    try:
        # As bytes, since a file's name need not be text.
        file = soundfile.SoundFile(given.fileno() if given else os.fsencode(path), closefd=given is None)
    except soundfile.LibsndfileError as error:
        raise FileError(f"{name} {no_audio} ({error.error_string.rstrip('.')}){advice}") from error
    with file:
        if piped and file.format not in _PIPED:
            raise FileError(f"{name} {no_audio} ({file.format}){advice}")
        yield file


def name_of(audio: soundfile.SoundFile) -> str:
    """A recording as messages call it."""
    return os.fsdecode(audio.name) if isinstance(audio.name, bytes) else "standard input"


def read_mono(audio: soundfile.SoundFile, count: int = -1) -> Samples:
    """The next `count` samples of a recording, or all that are left, its channels mixed: float32 `[samples]`.

    Raises:
        FileError: if the recording is damaged there, or holds samples that cannot be coded.
    """
    name = name_of(audio)
    try:
        # Mixed here, as the last samples may be fewer than the channels.
        return to_mono(audio.read(count, dtype="float32", always_2d=True).mean(axis=1))
    except soundfile.LibsndfileError as error:
        raise FileError(f"{name} is damaged or cut short ({error.error_string.rstrip('.')})") from error
    except AudioError as error:
        raise FileError(f"{name}: {error}") from error


def encode_file(
    codec: Codec, source: str, target: BinaryIO, kbps: float | None, progress: Progress, entropy: bool = True
) -> Encoded:
    """Encode a recording into a `.lnt` file; several channels are mixed to one.

    With `entropy`, the file is entropy-coded if the model has tables and that makes it smaller.
    """
    with open_audio(source) as audio:
        rate, channels = audio.samplerate, audio.channels
        n_layers = codec.layers(kbps)
        stream = CodeEncoder(codec, rate)
        header = Header(codec.card.model_id, rate, n_layers)
        writer = Writer(target, header, codec.layout, codec.coder if entropy else None)
        count = 0
        block = _BLOCK_SECONDS * rate
        expected = -(-audio.frames // block) if 0 < audio.frames < 1 << 40 else None
        for samples in progress(_read_blocks(audio, block), expected):
            writer.write(stream.push(samples))
            count += len(samples)
        if count == 0:
            raise FileError(f"{name_of(audio)} holds no audio")
        writer.write(stream.flush())
        writer.samples = count
        writer.close()
        plain_bytes = Geometry(header, codec.layout).file_bytes(writer.frames)
        return Encoded(count, channels, rate, writer.frames, n_layers, plain_bytes, _cut_short(audio, count))


def _cut_short(audio: soundfile.SoundFile, count: int) -> bool:
    """Whether a recording, of which `count` samples were read, says that it is longer: libsndfile tells it in its log."""
    said = re.search(r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+)(?: \(should be (\d+)\))?", audio.extra_info, re.M)
    # Who writes into a pipe says 2^31 or 2^32 bytes, or a little less, as the length is not yet known.
    if said is None or int(said[1]) & 0x7FFFFFFF >= 0x7FFFF000:
        return False
    # In a pipe it shows only at the end.
    return int(said[2] or said[1]) < int(said[1]) or (not audio.seekable() and count < audio.frames)


def _read_blocks(audio: soundfile.SoundFile, block: int) -> Iterator[Samples]:
    while len(samples := read_mono(audio, block)):
        yield samples


def decode_file(
    codec: Codec, source: BinaryIO, target: str, kbps: float | None, rate: int | None, progress: Progress,
    channel: LossyChannel | None = None, on_damage: OnDamage = "raise", background: float = 1.0,
) -> Decoded:  # fmt: skip
    """Decode a `.lnt` file into a recording whose format follows from the target's ending; a `channel` may lose frames.

    `background` as `Codec.decode` takes it.
    """
    reader = Reader(source, codec.models, on_damage)
    concealed = 0
    rate_out = rate or reader.header.sample_rate
    stream = CodeDecoder(codec, rate_out, skip_delay=True)
    stream.kbps, stream.background = kbps, background

    def outputs() -> Iterator[Samples]:
        nonlocal concealed
        expected = None if reader.frames is None else -(-reader.frames // BLOCK_FRAMES)
        for codes in progress(reader, expected):
            concealed += int((codes == MISSING).all(axis=1).sum())
            yield stream.push(channel.push(codes) if channel else codes)
        if channel:
            yield stream.push(channel.flush())
        yield stream.flush()

    def limit() -> int | None:
        return None if reader.samples is None else codec.samples_at(reader.samples, reader.header.sample_rate, rate_out)

    # The end of the sound is known only at the end of a pipe, and what lies beyond it is at most what a frame and the
    # delay hold: that much is kept back.
    spare = codec.samples_at(codec.card.hop + codec.card.delay, codec.card.sample_rate, rate_out) + 1
    with audio_writer(target, rate_out) as write:
        written = _write_trimmed(outputs(), write, limit, spare)
    return Decoded(written, rate_out, min(stream.n_layers, reader.header.n_layers), reader.truncated, concealed)


def _write_trimmed(
    parts: Iterator[Samples], write: Callable[[Samples], None], limit: Callable[[], int | None], spare: int
) -> int:
    """Write all parts but what exceeds `limit()`, which may be known only after the last; returns the count."""
    held, written = np.zeros(0, np.float32), 0
    for part in parts:
        held = np.concatenate([held, part])
        ready = max(len(held) - spare, 0)
        write(held[:ready])
        written += ready
        held = held[ready:]
    end = limit()
    rest = held if end is None else np.pad(held[: max(end - written, 0)], (0, max(end - written - len(held), 0)))
    write(rest)
    return written + len(rest)


@contextmanager
def audio_writer(target: str, rate: int) -> Iterator[Callable[[Samples], None]]:
    """A function that writes samples to a recording, which appears, whole, when the block ends without an error.

    Its format follows from the ending; '-' is a WAV on standard output.
    """
    if target == PIPE:
        # Lengths of 2^32 - 1 say that nobody knows them yet, as every tool that pipes WAV understands.
        unknown = 0xFFFFFFFF
        header = struct.pack(
            "<4sI4s4sIHHIIHH4sI", b"RIFF", unknown, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", unknown
        )
        out = _binary(sys.stdout, "standard output")
        out.write(header)
        yield lambda samples: _write_pcm(out, samples)
        out.flush()
        return
    ending = Path(target).suffix.lstrip(".").upper()
    kind = {"OGA": "OGG", "OPUS": "OGG", "AIF": "AIFF"}.get(ending, ending)
    # Of a headerless file (.raw) nobody could tell what it holds, and an SD2 is two files.
    if kind not in soundfile.available_formats() or soundfile.default_subtype(kind) is None or kind == "SD2":
        raise FileError(f"{target}: .{ending.lower()} is not a format that can be written; use .wav, .flac, .ogg or .mp3")
    with replacing(target) as partial:
        subtype = "OPUS" if ending == "OPUS" else None
        written = 0
        try:
            with soundfile.SoundFile(os.fsencode(partial), "w", rate, 1, subtype, format=kind) as file:

                def write(samples: Samples) -> None:
                    nonlocal written
                    file.write(np.clip(samples, -1, 1))
                    written += len(samples)
                    if kind not in _LONG and partial.stat().st_size > _MOST_BYTES:
                        raise FileError(f"{target}: .{ending.lower()} cannot hold more than 4 GiB; use .flac, .w64 or .rf64")

                yield write
            # Some formats round the rate, or have but one. A device or a named pipe cannot be read back.
            made = soundfile.info(os.fsencode(partial)) if written and partial.is_file() else None
            if made and (made.samplerate, made.frames) != (rate, written):
                raise FileError(
                    f"{target}: .{ending.lower()} cannot hold {written} samples at {rate} Hz; use .wav, .flac, .ogg or .mp3"
                )
        except soundfile.LibsndfileError as error:
            raise FileError(f"{target} cannot be written at {rate} Hz ({error.error_string.rstrip('.')})") from error


def _write_pcm(file: BinaryIO, samples: Samples) -> None:
    file.write(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    file.flush()
