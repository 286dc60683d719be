"""RTP packets (RFC 3550) and the payload that carries Linnet frames in them, as docs/rtp.md specifies it.

A payload is one byte that counts frames, and the packets of that many consecutive frames, all of as many bytes: so its
length tells the length of each, and that tells its layers. Whatever comes from a network is looked at here before anything
believes it; what is wrong with it is an RtpError, and never another exception.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from linnet.bits.errors import RtpError
from linnet.bits.packet import Layout, thin_packet

MAX_FRAMES = 16
"""Frames in one payload at the most: 192 ms of `clear`."""

SEQUENCES = 1 << 16
TIMESTAMPS = 1 << 32

QUIETEST_DB = 127
"""Of comfort noise: below full scale. What is quieter is said to be that."""

_VERSION = 2
_HEADER = struct.Struct(">BBHII")
_PADDING, _EXTENSION, _SOURCES = 0x20, 0x10, 0x0F
_MARKER = 0x80


@dataclass(frozen=True)
class RtpPacket:
    """An RTP packet without what Linnet does not use: contributing sources, extension and padding are skipped in reading.

    Args:
        sequence: counts packets, 16 bits.
        timestamp: of the first frame's first sample, 32 bits, in samples of the model's rate.
        ssrc: the sender's number, 32 bits.
        payload_type: 7 bits; 96 to 127 are those that a session describes.
        marker: the first packet of a talk spurt.
        payload: see `pack_payload`.

    Raises:
        RtpError: if a number does not fit its bits.
    """

    sequence: int
    timestamp: int
    ssrc: int
    payload_type: int
    marker: bool
    payload: bytes

    def __post_init__(self) -> None:
        limits = (("sequence", SEQUENCES), ("timestamp", TIMESTAMPS), ("ssrc", 1 << 32), ("payload_type", 1 << 7))
        for name, limit in limits:
            if not 0 <= getattr(self, name) < limit:
                raise RtpError(f"an RTP {name} of {getattr(self, name)}: it goes from 0 to {limit - 1}")

    def to_bytes(self) -> bytes:
        """The datagram."""
        kind = (_MARKER if self.marker else 0) | self.payload_type
        return _HEADER.pack(_VERSION << 6, kind, self.sequence, self.timestamp, self.ssrc) + self.payload

    @classmethod
    def from_bytes(cls, datagram: bytes) -> Self:
        """Read a datagram.

        Raises:
            RtpError: if it is no RTP packet of version 2, or shorter than it says. RTCP on the same port is read as a
                packet of payload type 64 to 95, which no session describes.
        """
        if len(datagram) < _HEADER.size:
            raise RtpError(f"a datagram of {len(datagram)} bytes is no RTP packet: those have {_HEADER.size} or more")
        first, kind, sequence, timestamp, ssrc = _HEADER.unpack_from(datagram)
        if first >> 6 != _VERSION:
            raise RtpError(f"a datagram of RTP version {first >> 6}: this reads version {_VERSION}")
        start = _HEADER.size + 4 * (first & _SOURCES)
        if first & _EXTENSION:
            # A word of the profile's own and one that counts the words to come.
            words = int.from_bytes(datagram[start + 2 : start + 4]) if len(datagram) >= start + 4 else len(datagram)
            start += 4 + 4 * words
        end = len(datagram)
        if first & _PADDING:
            # The last byte counts the bytes of padding, itself included.
            end = end - datagram[-1] if datagram[-1] else -1
        if not start <= end:
            raise RtpError(f"an RTP packet of {len(datagram)} bytes, less than its header says: it was cut or damaged")
        return cls(sequence, timestamp, ssrc, kind & ~_MARKER, bool(kind & _MARKER), datagram[start:end])


def pack_payload(frames: Sequence[bytes]) -> bytes:
    """The payload of consecutive frames' packets, with or without copies of earlier frames, all of as many layers.

    Raises:
        RtpError: if there are none or more than MAX_FRAMES, if they differ in length, or if one is lost (b'').
    """
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise RtpError(f"{len(frames)} frames in an RTP payload: it carries 1 to {MAX_FRAMES}")
    if not frames[0] or len({len(frame) for frame in frames}) > 1:
        raise RtpError("frames of different or no length in an RTP payload: begin another one where the rate changes")
    return bytes([len(frames)]) + b"".join(frames)


def unpack_payload(payload: bytes) -> list[bytes]:
    """The packets of the frames in a payload, in order, each of as many bytes, at least one.

    Raises:
        RtpError: if the payload does not hold as many frames as it says.
    """
    count = payload[0] if payload else 0
    size, rest = divmod(len(payload) - 1, count) if count else (0, 0)
    if not 1 <= count <= MAX_FRAMES or rest or not size:
        raise RtpError(f"an RTP payload of {len(payload)} bytes that says it holds {count} frames: it is not Linnet's")
    return [payload[1 + size * frame : 1 + size * (frame + 1)] for frame in range(count)]


def pack_noise(level: float) -> bytes:
    """The payload of a comfort-noise packet (RFC 3389): the root mean square of the background, at full scale 1."""
    decibels = -20 * math.log10(level) if level > 0 else QUIETEST_DB
    return bytes([min(QUIETEST_DB, max(0, round(decibels)))])


def unpack_noise(payload: bytes) -> float:
    """The level in a comfort-noise packet. The spectrum that may follow it is not looked at.

    Raises:
        RtpError: if the payload holds none.
    """
    if not payload or payload[0] > QUIETEST_DB:
        raise RtpError(f"comfort noise of {len(payload)} bytes that begins with no level from 0 to {QUIETEST_DB}")
    return 10 ** (-payload[0] / 20)


def thin_payload(payload: bytes, layout: Layout, n_layers: int) -> bytes:
    """The payload with the first `n_layers` layers of its frames; one with no more stays as it is.

    Args:
        payload: as received.
        layout: of the frames' packets: with copies, that of `Redundancy.layout`.
        n_layers: what to keep.

    Raises:
        RtpError: if this is no such payload.
        PacketError: if its frames have a length that fits no number of layers.
        LayoutError: if the layout has no such number of layers.
    """
    return pack_payload([thin_packet(frame, layout, n_layers) for frame in unpack_payload(payload)])
