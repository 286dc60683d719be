"""Bits on the wire: packets and the `.lnt` file, as docs/bitstream.md specifies them. Needs numpy only."""

from linnet.bits.container import Reader, Writer, read_header, thin
from linnet.bits.errors import (
    CodesError,
    CorruptFileError,
    LayoutError,
    LinnetError,
    PacketError,
    RtpError,
    SeekError,
    StateError,
    VersionError,
    WriteError,
    WrongModelError,
)
from linnet.bits.format import BLOCK_FRAMES, Header
from linnet.bits.packet import (
    MISSING,
    Codes,
    Layout,
    keep_layers,
    pack,
    pack_packets,
    thin_packet,
    unpack,
    unpack_packets,
)
from linnet.bits.redundancy import Redundancy, pack_redundant, recover, unpack_redundant
from linnet.bits.rtp import MAX_FRAMES, RtpPacket, pack_payload, thin_payload, unpack_payload
from linnet.bits.sdp import Session

__all__ = [
    "BLOCK_FRAMES",
    "MAX_FRAMES",
    "MISSING",
    "Codes",
    "CodesError",
    "CorruptFileError",
    "Header",
    "Layout",
    "LayoutError",
    "LinnetError",
    "PacketError",
    "Reader",
    "Redundancy",
    "RtpError",
    "RtpPacket",
    "SeekError",
    "Session",
    "StateError",
    "VersionError",
    "WriteError",
    "Writer",
    "WrongModelError",
    "keep_layers",
    "pack",
    "pack_packets",
    "pack_payload",
    "pack_redundant",
    "read_header",
    "recover",
    "thin",
    "thin_packet",
    "thin_payload",
    "unpack",
    "unpack_packets",
    "unpack_payload",
    "unpack_redundant",
]
