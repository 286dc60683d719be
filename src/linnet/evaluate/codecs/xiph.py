"""Opus (RFC 6716) and Speex by the tools of Xiph."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from linnet.evaluate.codecs.base import Codec, CodecError, Coded, call, missing_tools, tool_identity
from linnet.evaluate.metrics import Samples, to_int16

if TYPE_CHECKING:
    from linnet.evaluate.network import Network

_HEADER_PACKETS = 2  # the codec's header and the comments
_OPUS_FRAME_S = 0.020
_SPEEX_PAGE_S = 6  # a page of Ogg has 255 segments at most, hence 5.1 s of frames
# RFC 6716, table 2: the first five bits of a packet; celt has no medium band
_OPUS_BANDWIDTHS = (*[4000] * 4, *[6000] * 4, *[8000] * 4, *[12000] * 2, *[20000] * 2)
_OPUS_BANDWIDTHS += (*[4000] * 4, *[8000] * 4, *[12000] * 4, *[20000] * 4)
# Bits of a frame of 20 ms (the Speex manual, tables 9.1 and 10.3) and the quality that chooses the mode
_SPEEX_NARROW = {43: 0, 79: 1, 119: 2, 160: 3, 220: 5, 300: 7, 364: 9, 492: 10}
_SPEEX_WIDE = {79: 0, 115: 1, 155: 2, 196: 3, 256: 4, 336: 5, 412: 6, 476: 7, 556: 8, 684: 9, 844: 10}


@dataclass(frozen=True)
class Opus(Codec):
    """Opus in opus-tools, complexity 10, frames of 20 ms. Its default variable rate undershoots what is asked for.

    At low rates it is narrowband by its own choice; the bandwidth is read from the packets. The tools trim the delay.
    """

    name: str = "opus"
    hard_cbr: bool = False
    least_kbps = 6.0
    usual_kbps = (6.0, 12.0)

    def available(self) -> str | None:
        """See `Codec.available`."""
        return missing_tools("opusenc", "opusdec", package="opus-tools")

    def identity(self) -> str:
        """See `Codec.identity`."""
        return f"{self.hard_cbr} {tool_identity('opusenc', 'opusdec')}"

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`."""
        with TemporaryDirectory(prefix="linnet-") as folder:
            wav, opus, decoded = (str(Path(folder, name)) for name in ("in.wav", "coded.opus", "out.wav"))
            soundfile.write(wav, to_int16(samples), self.sample_rate, subtype="PCM_16")
            rate = ("--bitrate", f"{kbps:g}", "--hard-cbr" if self.hard_cbr else "--vbr")
            call("opusenc", "--quiet", *rate, "--framesize", "20", "--comp", "10", wav, opus)
            call("opusdec", "--quiet", "--rate", str(self.sample_rate), opus, decoded)
            packets = list(_ogg_packets(Path(opus).read_bytes()))[_HEADER_PACKETS:]
            audio = soundfile.read(decoded, dtype="float64", always_2d=True)[0][:, 0]
        bandwidth = min(opus_bandwidth(packets), self.sample_rate // 2)
        return Coded(audio, 8 * sum(map(len, packets)), _OPUS_FRAME_S * len(packets), bandwidth)

    def over(self, network: Network) -> Codec | None:
        """See `Codec.over`: by libopus, with in-band FEC, at a variable rate."""
        from linnet.evaluate.network import NetworkOpus  # which knows the codecs of this package

        return None if self.hard_cbr else NetworkOpus(network)


def opus_bandwidth(packets: Sequence[bytes]) -> int:
    """Hz at which the audio of most of some packets ends."""
    return Counter(_OPUS_BANDWIDTHS[packet[0] >> 3] for packet in packets if packet).most_common(1)[0][0]


@dataclass(frozen=True)
class Speex(Codec):
    """Speex 1.2 at constant rate and complexity 10, narrowband (8 kHz) or wideband (16 kHz).

    The tools trim the delay, but by up to 14 ms too little if all packets lie on one page of Ogg: the input is padded by
    more than a page. The bits are those of the mode: `speexenc` pads each packet to whole bytes.
    """

    name: str
    sample_rate: int
    usual_kbps = (3.95,)

    @property
    def _modes(self) -> dict[int, int]:
        return _SPEEX_NARROW if self.sample_rate == 8000 else _SPEEX_WIDE

    @property
    def rates(self) -> tuple[float, ...]:  # type: ignore[override]
        """See `Codec.rates`."""
        return tuple(bits / 20 for bits in self._modes)

    @property
    def bandwidth_hz(self) -> int:  # type: ignore[override]
        """See `Codec.bandwidth_hz`."""
        return self.sample_rate // 2

    def available(self) -> str | None:
        """See `Codec.available`."""
        return missing_tools("speexenc", "speexdec", package="speex")

    def identity(self) -> str:
        """See `Codec.identity`."""
        return f"{self.sample_rate} {tool_identity('speexenc', 'speexdec')}"

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`."""
        bits = round(kbps * 20)
        with TemporaryDirectory(prefix="linnet-") as folder:
            wav, coded, decoded = (str(Path(folder, name)) for name in ("in.wav", "coded.spx", "out.wav"))
            padded = np.pad(samples, (0, _SPEEX_PAGE_S * self.sample_rate))
            soundfile.write(wav, to_int16(padded), self.sample_rate, subtype="PCM_16")
            band = "-n" if self.sample_rate == 8000 else "-w"
            call("speexenc", band, "--quality", str(self._modes[bits]), "--comp", "10", wav, coded)
            call("speexdec", "--enh", coded, decoded)
            frames = sum(1 for _ in _ogg_packets(Path(coded).read_bytes())) - _HEADER_PACKETS
            audio = soundfile.read(decoded, dtype="float64", always_2d=True)[0][:, 0]
        return Coded(audio, bits * frames, 0.020 * frames)


def _ogg_packets(data: bytes) -> Iterator[bytes]:
    """The packets of an Ogg stream (RFC 3533, section 6): a lacing value under 255 ends a packet."""
    at, packet = 0, b""
    while at + 27 <= len(data):
        magic, segments = struct.unpack_from("<4s22xB", data, at)
        if magic != b"OggS":
            raise CodecError("the encoder wrote a file that is not Ogg: update opus-tools or speex")
        lacing = data[at + 27 : at + 27 + segments]
        at += 27 + segments
        for value in lacing:
            packet += data[at : at + value]
            at += value
            if value < 255:
                yield packet
                packet = b""
