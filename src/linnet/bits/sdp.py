"""How a session of Linnet over RTP is described (SDP, RFC 8866), as docs/rtp.md specifies it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self

from linnet.bits.errors import LayoutError, RtpError
from linnet.bits.redundancy import Redundancy
from linnet.bits.rtp import MAX_FRAMES

PAYLOAD_TYPE = 96
"""The first of the payload types that sessions give out."""
NOISE_TYPE = 97
"""That of comfort noise."""

_NAME, _NOISE = "linnet", "CN"


@dataclass(frozen=True)
class Session:
    """What sender and receiver agree on before the first packet.

    Args:
        model_id: of the model, four bytes.
        clock_rate: of the timestamps: the model's sample rate in Hz.
        port: where the receiver listens, 1 to 65535.
        redundancy: the copies that packets carry.
        payload_type: 0 to 127; 96 to 127 are free for such sessions.
        packet_ms: sound in a packet, as a sender intends it, described to the microsecond; a receiver takes any.
        noise_type: payload type of comfort noise, another one; None if the sender sends none.

    Raises:
        RtpError: if one of these does not hold.
    """

    model_id: bytes
    clock_rate: int
    port: int
    redundancy: Redundancy = field(default_factory=Redundancy)
    payload_type: int = PAYLOAD_TYPE
    packet_ms: float | None = None
    noise_type: int | None = None

    def __post_init__(self) -> None:
        if len(self.model_id) != 4 or not 0 < self.clock_rate < 1 << 32:
            raise RtpError(f"a model {self.model_id.hex()!r:.20} at {self.clock_rate} Hz: give four bytes and a rate above 0")
        if not 1 <= self.port < 1 << 16 or not 0 <= self.payload_type < 1 << 7:
            raise RtpError(f"port {self.port}, payload type {self.payload_type}: give 1 to 65535, and 0 to 127")
        if self.noise_type is not None and (self.noise_type == self.payload_type or not 0 <= self.noise_type < 1 << 7):
            raise RtpError(f"comfort noise of payload type {self.noise_type}: give 0 to 127, and not that of the session")

    def describe(self, host: str = "127.0.0.1") -> str:
        """The description, of a session in which packets go to `host`, an IP address."""
        family = "IP6" if ":" in host else "IP4"
        copies = ",".join(map(str, self.redundancy.offsets))
        lines = [
            "v=0",
            f"o=- 0 0 IN {family} {host}",
            "s=Linnet",
            f"c=IN {family} {host}",
            "t=0 0",
            f"m=audio {self.port} RTP/AVP {self.payload_type}" + ("" if self.noise_type is None else f" {self.noise_type}"),
            f"a=rtpmap:{self.payload_type} {_NAME}/{self.clock_rate}",
            f"a=fmtp:{self.payload_type} model={self.model_id.hex()}" + (f";copies={copies}" if copies else ""),
        ]
        if self.noise_type is not None:
            lines.append(f"a=rtpmap:{self.noise_type} {_NOISE}/{self.clock_rate}")
        if self.packet_ms:
            lines.append(f"a=ptime:{round(self.packet_ms, 3):.7g}")
        return "".join(f"{line}\r\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The first session of Linnet in a description, whatever else is in it.

        Raises:
            RtpError: if there is none, or one whose lines contradict this page's.
        """
        port = 0
        mapping: dict[str, int] = {}
        parameters: dict[str, dict[str, str]] = {}
        found: str | None = None
        packet_ms = None
        noises: dict[int, int] = {}
        for line in text.splitlines():
            if media := re.fullmatch(r"m=(\S+) (\d{1,5})(/\d+)? \S+( .*)?", line):
                if found is not None:
                    break
                port, mapping, parameters, packet_ms, noises = int(media[2]), {}, {}, None, {}
            elif mapped := re.fullmatch(rf"a=rtpmap:(\d{{1,3}}) {_NAME}/(\d{{1,10}})(/1)?\s*", line, re.IGNORECASE | re.ASCII):
                mapping[mapped[1]] = int(mapped[2])
                found = found or mapped[1]
            elif noise := re.fullmatch(rf"a=rtpmap:(\d{{1,3}}) {_NOISE}/(\d{{1,10}})(/1)?\s*", line, re.IGNORECASE | re.ASCII):
                noises.setdefault(int(noise[2]), int(noise[1]))
            elif given := re.fullmatch(r"a=fmtp:(\d{1,3}) (.*)", line, re.ASCII):
                pairs = [item.partition("=") for item in given[2].split(";")]
                parameters[given[1]] = {name.strip().lower(): value.strip() for name, _, value in pairs}
            elif timed := re.fullmatch(r"a=ptime:(\d{1,4}(?:\.\d{1,3})?)\s*", line, re.ASCII):
                packet_ms = float(timed[1]) or None
        if found is None:
            raise RtpError(f"the description has no session of {_NAME}: it needs a line like a=rtpmap:96 {_NAME}/16000")
        given_parameters = parameters.get(found, {})
        try:
            model_id = bytes.fromhex(given_parameters.get("model", ""))
            copies = given_parameters.get("copies", "")
            redundancy = Redundancy(tuple(int(offset) for offset in copies.split(",")) if copies else ())
        except (ValueError, LayoutError) as error:
            raise RtpError(
                f"a=fmtp:{found} cannot be understood ({error!s:.100}): it is like model=5a17c0de;copies=5,10"
            ) from error
        rate = mapping[found]
        return cls(model_id, rate, port, redundancy, int(found), packet_ms, noises.get(rate))


def frames_in(packet_ms: float, frame_ms: float) -> int:
    """How many frames of `frame_ms` a packet of at most `packet_ms` holds, at least one.

    Raises:
        RtpError: if they are more than a payload carries.
    """
    frames = max(1, int(packet_ms / frame_ms + 1e-9))
    if frames > MAX_FRAMES:
        raise RtpError(f"{packet_ms:g} ms in a packet: at most {MAX_FRAMES * frame_ms:g} ms fit")
    return frames
