"""Live sound over UDP: a sender and a receiver that run until their source ends, or until they are asked to stop."""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from linnet.live.devices import LiveError, Sink, Source
from linnet.runtime.audio import Resampler
from linnet.runtime.session import RtpReceiver, RtpSender

Address = tuple[str, int]
Stop = Callable[[], bool]

_DATAGRAM = 65536  # the longest that there is
_FLOOD = 32  # datagrams that are looked at when it is time to play: some milliseconds of work
_BEHIND_S = 1.0  # how much of a time in which the machine stood still is made up for
_HEADERS = 28  # bytes of IPv4 and UDP


@dataclass
class Sent:
    """What a sender did: packets, their bytes with all headers, and seconds of sound."""

    packets: int = 0
    size: int = 0
    seconds: float = 0.0

    @property
    def kbps(self) -> float:
        """The rate on the wire, in kbit/s."""
        return 8 * self.size / 1000 / self.seconds if self.seconds else 0.0


def parse_address(text: str) -> Address:
    """ "HOST:PORT", "[::1]:PORT" or ":PORT" (all interfaces) -> host and port.

    Raises:
        LiveError: if it is none of these.
    """
    found = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]*)):([0-9]{1,5})", text)
    if not found or not 0 < int(found[3]) < 1 << 16:
        raise LiveError(f"{text!r} is no address: write it like 192.0.2.1:5004, or :5004 for all interfaces")
    return found[1] or found[2], int(found[3])


def open_socket(address: Address, listen: bool) -> tuple[socket.socket, Address]:
    """A UDP socket for an address, bound to it if it is to listen; and the address as the socket wants it.

    Raises:
        LiveError: if the host is not known or the port cannot be had.
    """
    host, port = address
    try:
        flags = socket.AI_PASSIVE if listen else 0
        family, kind, protocol, _, place = socket.getaddrinfo(host or None, port, type=socket.SOCK_DGRAM, flags=flags)[0]
        opened = socket.socket(family, kind, protocol)
        if listen:
            try:
                opened.bind(place)
            except OSError:
                opened.close()
                raise
    except OSError as error:
        raise LiveError(f"{host}:{port} cannot be used ({error.strerror or error})") from error
    return opened, place  # type: ignore[return-value]


def send(sender: RtpSender, source: Source, out: socket.socket, to: Address, hop_s: float, stop: Stop) -> Sent:
    """Send a source's sound in real time, a hop of `hop_s` seconds after the other, to its end.

    Raises:
        OSError: if the network refuses the packets.
    """
    sent, count = Sent(), 0
    hop = max(1, round(source.sample_rate * hop_s))
    start = time.monotonic()
    while not stop() and len(samples := source.read(hop)):
        count += len(samples)
        if not source.paced:
            # A packet goes out when its last sample would have been heard.
            time.sleep(max(0.0, start + count / source.sample_rate - time.monotonic()))
        _send_all(sender.push(samples), out, to, sent)
    _send_all(sender.flush(), out, to, sent)
    sent.seconds = count / source.sample_rate
    return sent


def receive(
    receiver: RtpReceiver, sink: Sink, incoming: socket.socket, stop: Stop, idle_s: float | None, tell: Callable[[], None]
) -> float:
    """Play what comes in real time until asked to stop, or until a stream has stopped for a while.

    Args:
        receiver: of the stream.
        sink: what plays; its clock sets the pace if it has one.
        incoming: a bound socket.
        stop: asked at every hop.
        idle_s: how long to wait for the next packet, in seconds; None for ever, as for the first.
        tell: called at every hop.

    Returns:
        Seconds of sound that were played.
    """
    incoming.setblocking(False)
    resampler = Resampler(receiver.sample_rate, sink.sample_rate)
    silence = np.zeros(receiver.hop, np.float32)
    hop_s = receiver.hop / receiver.sample_rate
    hops, tick = 0, time.monotonic()
    came, known = tick, 0  # when a packet came last, and how many had come then
    while not stop() and (idle_s is None or not known or tick - came < idle_s):
        _collect(receiver, incoming, tick)
        if receiver.jitter.counts.received > known:
            came, known = tick, receiver.jitter.counts.received
        hop = receiver.play(tick)
        # A loudspeaker must be fed from the start, a recording begins with the stream.
        if hop is not None or sink.paced:
            hops += 1
            sink.write(resampler(silence if hop is None else hop))
        tell()
        now = time.monotonic()
        tick = now if sink.paced else max(tick + hop_s, now - _BEHIND_S)
    sink.write(resampler(np.zeros(0, np.float32), last=True))
    return hops * hop_s


def _collect(receiver: RtpReceiver, incoming: socket.socket, until: float) -> None:
    """What comes before a moment; when that is over, what has come already, but of a flood not more than a part."""
    spare = _FLOOD
    while spare:
        left = until - time.monotonic()
        spare -= left <= 0
        if not select.select([incoming], [], [], max(0.0, left))[0]:
            return
        try:
            datagram = incoming.recv(_DATAGRAM)
        except (BlockingIOError, ConnectionError):  # a damaged one that was thrown away, a sender that has gone
            continue
        receiver.receive(datagram, time.monotonic())


def _send_all(datagrams: list[bytes], out: socket.socket, to: Address, sent: Sent) -> None:
    for datagram in datagrams:
        out.sendto(datagram, to)
        sent.packets += 1
        sent.size += len(datagram) + _HEADERS
