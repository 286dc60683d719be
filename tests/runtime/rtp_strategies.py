"""What the tests of the receiving side draw from: streams of packets, networks, and what an attacker may send."""

import numpy as np
from hypothesis import strategies as st

from linnet.bits import Redundancy, RtpPacket, pack_payload, pack_redundant

FRAME_S = 0.012
SSRC = 0xC0DEC0DE


def stream(layout, frames=60, per_packet=1, offsets=(), n_layers=2, sequence=65530, timestamp=2**32 - 5000, ssrc=SSRC, seed=0):
    """Random codes `[frames, n_codes]` and their datagrams; numbers wrap on the way."""
    redundancy = Redundancy(offsets)
    codes = np.random.default_rng(seed).integers(0, 4096, (frames, layout.n_codes))
    packed = pack_redundant(codes, codes[:0], layout, n_layers, redundancy)
    datagrams = []
    for number, start in enumerate(range(0, frames, per_packet)):
        payload = pack_payload(packed[start : start + per_packet])
        place = (sequence + number) % 2**16, (timestamp + start * layout.hop) % 2**32
        datagrams.append(RtpPacket(*place, ssrc, 96, number == 0, payload).to_bytes())
    codes[:, n_layers:] = -1
    return codes, datagrams


def played(buffer, arrivals, end, start=0.0):
    """Push `(time, datagram)` at their times from `start` to `end`, pull at each tick between, and give the frames."""
    waiting = sorted((arrival for arrival in arrivals if start <= arrival[0] < end), key=lambda arrival: -arrival[0])
    frames, tick = [], start
    while tick < end:
        while waiting and waiting[-1][0] <= tick:
            time, datagram = waiting.pop()
            buffer.push(datagram, time)
        frames.append(buffer.pull(tick))
        tick += FRAME_S
    for time, datagram in reversed(waiting):
        buffer.push(datagram, time)
    return frames


@st.composite
def hostile(draw, datagrams):
    """A datagram made of a good one, or of nothing."""
    good = draw(st.sampled_from(datagrams))
    kind = draw(st.sampled_from(["good", "cut", "bits", "noise", "numbers"]))
    if kind == "cut":
        return good[: draw(st.integers(0, len(good)))]
    if kind == "bits":
        damaged = bytearray(good)
        for place in draw(st.lists(st.integers(0, 8 * len(good) - 1), min_size=1, max_size=4)):
            damaged[place // 8] ^= 1 << place % 8
        return bytes(damaged)
    if kind == "noise":
        return draw(st.binary(max_size=40))
    if kind == "numbers":
        packet = RtpPacket.from_bytes(good)
        near = st.integers(-400, 400)
        return RtpPacket(
            (packet.sequence + draw(near)) % 2**16,
            (packet.timestamp + 192 * draw(near) + draw(st.sampled_from([0, 0, 0, 7]))) % 2**32,
            draw(st.sampled_from([SSRC, SSRC, 1, 2])),
            draw(st.sampled_from([96, 96, 96, 0, 72])),
            draw(st.booleans()),
            packet.payload,
        ).to_bytes()
    return good
