"""The parts of a `.lnt` file, to the bit: header, blocks, trailer. docs/bitstream.md is the specification.

    header (14 bytes) | block | block | ... | last block, shorter | trailer (11 bytes)

In version 1 a block is 256 frames of a fixed size and a CRC, so its place follows from its number and frames can be found
without an index; in version 2, `linnet.bits.coded`, it says how long it is. The lengths stand in a trailer because whoever
writes into a pipe does not know them earlier, and can never go back.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass

from linnet.bits.errors import CorruptFileError, LayoutError, VersionError, WriteError
from linnet.bits.packet import Layout

MAGIC = b"LNT"
PLAIN, CODED = 1, 2
"""Versions of the file: frames of a fixed size, and entropy-coded blocks."""
BLOCK_FRAMES = 256  # a multiple of 8, so that a whole block has no filling bits; 3.07 s of the default model
CRC_BYTES = 2
HEADER_BYTES = 14
TRAILER_BYTES = 11
CUT_TRAILER = b"\xff" * TRAILER_BYTES
"""In the trailer's place when the source itself was cut: never valid, for no file has 2**32 - 1 frames."""

MIN_SAMPLE_RATE = 8_000
MAX_SAMPLE_RATE = 192_000
MODEL_ID_BYTES = 4
_MAX_FRAMES = 2**32 - 2
_MAX_SAMPLES = 2**40 - 1
_UNSURE_BITS = 8 * (CRC_BYTES + TRAILER_BYTES)
"""At the end of a cut file, so many bits may belong to a CRC and a trailer, and are not taken for codes."""


@dataclass(frozen=True)
class Header:
    """What a file says before its first frame.

    Args:
        model_id: the first four bytes of the model's identity.
        sample_rate: of the sound that was encoded, in Hz, 8000 to 192000; not the codec's own.
        n_layers: layers in every frame.
        version: PLAIN or CODED.

    Raises:
        WriteError: if one of these is out of range.
    """

    model_id: bytes
    sample_rate: int
    n_layers: int
    version: int = PLAIN

    def __post_init__(self) -> None:
        if len(self.model_id) != MODEL_ID_BYTES:
            raise WriteError(f"a model identity of {len(self.model_id)} bytes: give the first {MODEL_ID_BYTES}")
        if not MIN_SAMPLE_RATE <= self.sample_rate <= MAX_SAMPLE_RATE:
            raise WriteError(
                f"a sample rate of {self.sample_rate} Hz: resample to {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz first"
            )
        if not 1 <= self.n_layers <= 255:
            raise WriteError(f"{self.n_layers} layers: a file carries 1 to 255")
        if self.version not in (PLAIN, CODED):
            raise WriteError(f"version {self.version}: choose {PLAIN} or {CODED}")

    def to_bytes(self) -> bytes:
        """The header's 14 bytes."""
        fields = MAGIC + bytes([self.version]) + self.model_id + self.sample_rate.to_bytes(3) + bytes([self.n_layers])
        return fields + crc16(fields, 0xFFFF)

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """The header in the first bytes of a file.

        Raises:
            CorruptFileError: if this is no `.lnt` file, or its header is cut or damaged.
            VersionError: if a newer Linnet wrote it.
        """
        if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
            raise CorruptFileError("this is not a .lnt file: give one that 'linnet encode' has written")
        if len(data) > len(MAGIC) and data[len(MAGIC)] not in (PLAIN, CODED):
            raise VersionError(
                f"a .lnt file of version {data[len(MAGIC)]}, and this Linnet reads {PLAIN} and {CODED}: update it"
            )
        if len(data) < HEADER_BYTES:
            raise CorruptFileError("the file is cut inside its header and holds no sound: fetch it again")
        fields, checksum = data[: HEADER_BYTES - CRC_BYTES], data[HEADER_BYTES - CRC_BYTES : HEADER_BYTES]
        if crc16(fields, 0xFFFF) != checksum:
            raise CorruptFileError("the file's header is damaged: fetch it again")
        try:
            return cls(fields[4:8], int.from_bytes(fields[8:11]), fields[11], fields[3])
        except WriteError as error:  # a valid checksum over values that no writer writes
            raise CorruptFileError(f"the file's header is wrong: {error}") from error


@dataclass(frozen=True)
class End:
    """What is known once the end of a file has been seen.

    Args:
        frames: that can be read.
        samples: of the sound, one channel, at the header's sample rate; None if the file was cut.
        checked_blocks: so many blocks have a CRC to check; what follows them, in a cut file, has none.
    """

    frames: int
    samples: int | None
    checked_blocks: int

    @property
    def truncated(self) -> bool:
        """Whether the file was cut, or its trailer damaged."""
        return self.samples is None


@dataclass(frozen=True)
class Geometry:
    """Where everything lies in a plain file, and how much any file can hold. Offsets count from the end of the header.

    Raises:
        LayoutError: if the file has more layers than the model.
    """

    header: Header
    layout: Layout

    def __post_init__(self) -> None:
        if self.header.n_layers > self.layout.n_layers:
            raise LayoutError(f"the model has {self.layout.n_layers} layers, not {self.header.n_layers}: ask for fewer")

    @property
    def frame_bits(self) -> int:
        """Bits of a frame."""
        return self.layout.frame_bits(self.header.n_layers)

    @property
    def block_bytes(self) -> int:
        """Bytes of a whole block with its CRC."""
        return self.payload_bytes(BLOCK_FRAMES) + CRC_BYTES

    def payload_bytes(self, frames: int) -> int:
        """Bytes of a block of `frames` frames, without its CRC."""
        return -(-frames * self.frame_bits // 8)

    def body_bytes(self, frames: int) -> int:
        """Bytes of all blocks of a file of `frames` frames."""
        blocks, rest = divmod(frames, BLOCK_FRAMES)
        return blocks * self.block_bytes + (self.payload_bytes(rest) + CRC_BYTES if rest else 0)

    def file_bytes(self, frames: int) -> int:
        """Bytes of a plain file of `frames` frames."""
        return HEADER_BYTES + self.body_bytes(frames) + TRAILER_BYTES

    def samples(self, frames: int) -> int:
        """Samples that `frames` frames last, one channel, at the header's sample rate; rounded down."""
        return frames * self.layout.hop * self.header.sample_rate // self.layout.sample_rate

    def trailer(self, frames: int, samples: int) -> bytes:
        """The trailer's 11 bytes.

        Raises:
            WriteError: if the sound is longer than its frames, or than a trailer can say.
        """
        if not 0 <= frames <= _MAX_FRAMES or samples > _MAX_SAMPLES:
            raise WriteError(f"{frames} frames and {samples} samples do not fit in one file: split the sound")
        if not self._samples_fit(frames, samples):
            raise WriteError(f"{samples} samples in {frames} frames: write all frames of the sound before closing")
        fields = frames.to_bytes(4) + samples.to_bytes(5)
        return fields + crc16(fields, 0xFFFF)

    def read_trailer(self, tail: bytes) -> End | None:
        """What a trailer says, or None if these bytes are none."""
        frames, samples = int.from_bytes(tail[:4]), int.from_bytes(tail[4:9])
        if len(tail) != TRAILER_BYTES or tail[9:] != crc16(tail[:9], 0xFFFF) or not self._samples_fit(frames, samples):
            return None
        return End(frames, samples, -(-frames // BLOCK_FRAMES))

    def end(self, length: int, tail: bytes) -> End:
        """What a plain file holds, from the number of bytes after the header and the last (up to) 11 of them."""
        trailer = self.read_trailer(tail)
        if trailer and self.body_bytes(trailer.frames) + TRAILER_BYTES == length:
            return trailer
        # Cut. A block is sure to be a whole one only if more follows it than a trailer could be.
        blocks = max(0, length - TRAILER_BYTES) // self.block_bytes
        filling = 7 if self.frame_bits < 8 else 0  # smaller frames could be read out of the filling of the last byte
        rest = 8 * (length - blocks * self.block_bytes) - _UNSURE_BITS - filling
        return End(blocks * BLOCK_FRAMES + max(0, rest // self.frame_bits), None, blocks)

    def _samples_fit(self, frames: int, samples: int) -> bool:
        """Whether the frames can hold the sound. One frame is granted, for the rounding of whoever resampled."""
        return 0 <= samples <= self.samples(frames + 1)


def damage(index: int, frames: int) -> CorruptFileError:
    """The error for a damaged block."""
    first = index * BLOCK_FRAMES
    return CorruptFileError(f"frames {first} to {first + frames - 1} are damaged: fetch the file again, or decode --conceal")


def block_crc(payload: bytes, index: int) -> bytes:
    """The CRC of block `index`. It starts from the index, so that a missing or moved block shows, and never from zero,
    so that a hole of zeros shows as well."""
    return crc16(payload, 1 + index % 0xFFFF)


def crc16(data: bytes, initial: int) -> bytes:
    """CRC-16 of polynomial x^16 + x^12 + x^5 + 1, most significant bit first, not reflected, not inverted."""
    return binascii.crc_hqx(data, initial).to_bytes(CRC_BYTES)
