"""Bits on the wire: packets and the `.lnt` file, as docs/bitstream.md specifies them. Needs numpy only."""

from linnet.bits.container import Reader, Writer, read_header, thin
from linnet.bits.entropy import EntropyCoder
from linnet.bits.errors import (
    CodesError,
    CorruptFileError,
    LayoutError,
    LinnetError,
    PacketError,
    RtpError,
    SeekError,
    StateError,
    TablesError,
    VersionError,
    WriteError,
    WrongModelError,
)
from linnet.bits.format import BLOCK_FRAMES, CODED, PLAIN, End, Geometry, Header
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
from linnet.bits.tables import Tables

__all__ = [
    "BLOCK_FRAMES",
    "CODED",
    "MAX_FRAMES",
    "MISSING",
    "PLAIN",
    "Codes",
    "CodesError",
    "CorruptFileError",
    "End",
    "EntropyCoder",
    "Geometry",
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
    "Tables",
    "TablesError",
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
