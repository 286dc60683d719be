"""The adaptive jitter buffer: RTP packets go in as they come, the codes of one frame come out at each tick of a clock.

Time is passed in and never read here, so the same packets at the same times give the same frames. It is measured in seconds
of any clock that both `push` and `pull` are told.

How deep. Each packet's transit (its arrival less its timestamp) is compared with the shortest of the last few hundred: what it
takes longer is the delay that playing it in time would need. The target is the delay that suffices for 98 % of them, and for
half of the copies if there are any (docs/loss.md: the two waits are the same time, not their sum). `delay_s` is what the last
frame really waited; `adjustment()` says whether that is a frame too little or too much. The receiver then stretches or shrinks
what it has decoded, preferably in silence, so that the decoder meets every frame once.

What is missing. A frame that is not there in its turn is concealed. If a later one is there, it was lost and its turn is over.
If none is, the network may only be slow: the buffer holds its place, which makes it deeper, and repays from frames that turn
out to be lost.

What is not sent. A packet of comfort noise stands for one frame that is not there, and tells the level of the background: so
the buffer knows that time goes on, and keeps its delay.

What is refused. Packets of other payload types, those that no layout fits, and repeated ones. A packet that lies outside the
window of some seconds, or has another SSRC, is believed when a second one follows it in sequence with none of the running
stream between them (RFC 3550, A.1, does likewise), or when it resumes the stream with a marker: the buffer then starts anew
there. So neither a stray packet nor a flood moves a running stream, and no packet can make the memory grow beyond `window`
frames and the transits.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from linnet.bits import (
    MISSING,
    Codes,
    Layout,
    PacketError,
    Redundancy,
    RtpError,
    RtpPacket,
    unpack_noise,
    unpack_payload,
    unpack_redundant,
)
from linnet.bits.rtp import MAX_FRAMES, SEQUENCES, TIMESTAMPS
from linnet.bits.sdp import NOISE_TYPE, PAYLOAD_TYPE

_REMEMBERED = 256  # packets whose transit and whose number are known
_COVERED = 0.98  # of them are to come in time
_WINDOW = 2.0  # in units of the longest delay: how far ahead of its turn a frame may lie


@dataclass
class Counts:
    """What happened to packets, and to the frames that were played."""

    expected: int = 0  # packets that the sender numbered
    received: int = 0  # of them, each once
    refused: int = 0  # that were none of it
    repeated: int = 0
    late: int = 0  # all of whose frames had been played
    restarts: int = 0  # another SSRC, or a jump in time
    played: int = 0  # frames that came themselves
    recovered: int = 0  # frames of which a copy came
    lost: int = 0  # frames of which nothing came in time
    held: int = 0  # ticks at which nothing was there and nothing later either

    @property
    def missing(self) -> int:
        """Packets that have not come, or not yet. Reordering at the start makes it a little too small."""
        return max(0, self.expected - self.received)


@dataclass(frozen=True)
class _Slot:
    codes: Codes  # [n_codes]
    own: bool  # neither a copy nor comfort noise
    begins: bool  # a talk spurt


@dataclass(frozen=True)
class _Arrival:
    packet: RtpPacket
    codes: Codes  # [frames, n_codes]
    copies: Codes  # [frames, offsets, n_codes]
    time: float
    background: float | None  # its level, of a packet of comfort noise

    def is_followed_by(self, packet: RtpPacket, hop: int) -> bool:
        """Whether `packet` is the next one of the same sender."""
        sequence = (self.packet.sequence + 1) % SEQUENCES
        timestamp = (self.packet.timestamp + hop * len(self.codes)) % TIMESTAMPS
        return (packet.ssrc, packet.sequence, packet.timestamp) == (self.packet.ssrc, sequence, timestamp)


class JitterBuffer:
    """One stream's buffer.

    Args:
        layout: of the codes, without copies.
        redundancy: the copies that packets carry.
        payload_type, noise_type: those of the session's frames and comfort noise; packets of another one are refused.
        min_delay_s: the least that the target falls to; copies may need more.
        max_delay_s: the most that it grows to.

    Attributes:
        counts: what happened so far.
        epoch: counts the streams: when it changes, another sender speaks, and the decoder must begin anew.
        delay_s: how long the frame pulled last had waited, beyond the fastest packet.
        target_s: how long it should.
        jitter_s: the interarrival jitter of RFC 3550, 6.4.1.
        begins: whether the frame of the last pull begins a talk spurt, so that the decoder must begin anew.
        background: root mean square of the sender's background, as its last comfort noise said; None if it sent none.
        held: ticks at which the buffer has held its place since the last frame, that of the last pull included.
        skipped: frames that the buffer left out since it held its place last, because they were lost.

    Raises:
        RtpError: if the delays are not 0 <= min <= max < infinity.
        LayoutError: if packets with these copies would not tell their layers.
    """

    def __init__(
        self, layout: Layout, redundancy: Redundancy, payload_type: int = PAYLOAD_TYPE, *,
        noise_type: int | None = NOISE_TYPE, min_delay_s: float = 0.04, max_delay_s: float = 1.0,
    ):  # fmt: skip
        if not 0 <= min_delay_s <= max_delay_s < float("inf"):
            raise RtpError(f"a delay of {min_delay_s:g} to {max_delay_s:g} s: give the smaller one first, and none below 0")
        redundancy.layout(layout)  # so that what is wrong with it is said now, not at the first packet
        self.layout, self.redundancy, self.payload_type, self.noise_type = layout, redundancy, payload_type, noise_type
        self.frame_s = layout.hop / layout.sample_rate
        # Copies come within as many frames, and a clock that ticks in frames needs one to be in time.
        self.least_s = max(min_delay_s, (redundancy.depth + 1) * self.frame_s if redundancy.depth else 0)
        self.max_delay_s = max(max_delay_s, self.least_s)
        self.window = redundancy.depth + max(2 * MAX_FRAMES, round(_WINDOW * self.max_delay_s / self.frame_s))
        self._lost = np.full((1, layout.n_codes), MISSING, np.int64)
        self.reset()

    def reset(self) -> None:
        """As before the first packet."""
        self.counts, self.epoch = Counts(), 0
        self._begin(None)

    def _begin(self, packet: RtpPacket | None) -> None:
        """A stream, at its first packet, or none: everything about another one is forgotten."""
        self._ssrc = packet.ssrc if packet else None
        self._slots: dict[int, _Slot] = {}
        self._next = 0  # the frame whose turn it is; the stream's first is 0
        self._started = False
        self._resting = self.begins = False
        self.held = self.skipped = 0
        # The leading packet's sequence number, its timestamp, and the number of its first frame: as if the packet before the
        # first one had just come.
        self._highest = (packet.sequence - 1) % SEQUENCES if packet else 0
        self._newest = packet.timestamp if packet else 0
        self._frame = 0
        self._seen = 0  # bit n: the packet n before the leading one came
        self._suspect: _Arrival | None = None  # the last packet that was not the stream's
        self._transits: deque[float] = deque(maxlen=_REMEMBERED)
        self.background: float | None = None
        self._shortest = self.delay_s = self.jitter_s = 0.0
        self.target_s = self.least_s

    def push(self, datagram: bytes, now: float) -> None:
        """A datagram that came at `now`, whatever it is. What cannot be used is counted, and nothing is raised."""
        try:
            arrival = self._arrival(RtpPacket.from_bytes(datagram), now)
        except (RtpError, PacketError):
            self.counts.refused += 1
            return
        if self._ssrc is None and arrival.background is None:
            self._begin(arrival.packet)
        if self._fits(arrival):
            self._admit(arrival)
        elif arrival.background is None:
            self._doubt(arrival)
        else:
            self.counts.refused += 1

    def _arrival(self, packet: RtpPacket, now: float) -> _Arrival:
        """What a packet holds; RtpError or PacketError if it is not of this session."""
        if packet.payload_type == self.noise_type:
            level, payload = unpack_noise(packet.payload), [b""]
        elif packet.payload_type == self.payload_type:
            level, payload = None, unpack_payload(packet.payload)
        else:
            raise RtpError(f"payload type {packet.payload_type}: this session has {self.payload_type}")
        return _Arrival(packet, *unpack_redundant(payload, self.layout, self.redundancy), now, level)

    def pull(self, now: float) -> Codes | None:
        """The frame to be played at `now`.

        Returns:
            int64 `[1, n_codes]`, -1 in layers that did not come and everywhere in a lost frame; None while there is
            nothing to play: before the first packet, and until its delay is over.
        """
        self.begins = False
        if self._ssrc is None:
            return None
        waited = self._waited(now)
        if not self._started and waited < self.target_s:
            return None
        self._started = True
        slot = self._slots.pop(self._next, None)
        while slot is None and self.skipped < self.held and self._slots and waited >= self.target_s:
            # It was concealed when nobody knew yet whether it was lost or late.
            self.skipped += 1
            self.counts.lost += 1
            self._next += 1
            waited = self._waited(now)
            slot = self._slots.pop(self._next, None)
        if slot is None and (not self._slots or waited < self.target_s):
            self.skipped *= self.held > 0
            self.held += 1
            self.counts.held += 1
            return self._lost.copy()
        self.delay_s, self.held = waited, 0
        self._next += 1
        if slot is None:
            self.counts.lost += 1
            return self._lost.copy()
        resting = slot.codes[0] == MISSING
        self.begins, self._resting = slot.begins or (self._resting and not resting), resting
        if slot.own:
            self.counts.played += 1
        elif not resting:
            self.counts.recovered += 1
        return slot.codes[np.newaxis]

    def adjustment(self) -> int:
        """Whether the frame pulled last should be played longer (1), shorter (-1) or as it is (0).

        Between too little and too much lie three frames in which nothing is done.
        """
        if self.held or not self._started:
            return 0
        return int(self.delay_s < self.target_s - self.frame_s) - int(self.delay_s > self.target_s + 2 * self.frame_s)

    def __len__(self) -> int:
        """Frames that wait, at most `window`."""
        return len(self._slots)

    def _waited(self, now: float) -> float:
        """How long the next frame waits if it is played at `now`, beyond the fastest packet."""
        return now - self._shortest - self._next * self.frame_s

    def _number(self, packet: RtpPacket) -> tuple[int, int]:
        """The number of a packet's first frame, and the samples by which it does not lie on a frame."""
        frames, rest = divmod(_signed(packet.timestamp - self._newest, TIMESTAMPS), self.layout.hop)
        return self._frame + frames, rest

    def _fits(self, arrival: _Arrival) -> bool:
        """Whether a packet can be one of the running stream."""
        first, rest = self._number(arrival.packet)
        ahead = _signed(arrival.packet.sequence - self._highest, SEQUENCES)
        place = first - self._next
        return (
            arrival.packet.ssrc == self._ssrc
            and rest == 0
            and -_REMEMBERED < ahead <= self.window
            and -self.window <= place <= self.window - len(arrival.codes)
        )

    def _doubt(self, arrival: _Arrival) -> None:
        """A packet that is none of the running stream: perhaps of one that takes its place."""
        packet, before = arrival.packet, self._suspect
        resumed = packet.marker and packet.ssrc == self._ssrc and packet.sequence == (self._highest + 1) % SEQUENCES
        followed = before is not None and before.is_followed_by(packet, self.layout.hop)
        if not resumed and not followed:
            self.counts.refused += 1
            self._suspect = arrival
            return
        self.counts.restarts += 1
        self.epoch += packet.ssrc != self._ssrc
        self._begin(before.packet if before and followed else packet)
        if before and followed:
            self.counts.refused -= 1
            self._admit(before)
        self._admit(arrival)

    def _admit(self, arrival: _Arrival) -> None:
        """A packet of the running stream."""
        packet = arrival.packet
        first, _ = self._number(packet)
        ahead = _signed(packet.sequence - self._highest, SEQUENCES)
        if ahead <= 0 and self._seen >> -ahead & 1:
            self.counts.repeated += 1
            return
        self._suspect = None
        if ahead > 0:
            self._seen = (self._seen << ahead) & ((1 << _REMEMBERED) - 1)
            self._highest, self._newest, self._frame = packet.sequence, packet.timestamp, first
            self.counts.expected += ahead
        self._seen |= 1 << max(0, -ahead)
        self.counts.received += 1
        if arrival.background is None:
            self._measure(arrival.time - first * self.frame_s)
        else:  # sent when its frame was over, not a packet of frames
            self.background = arrival.background
        if first + len(arrival.codes) <= self._next:
            self.counts.late += 1
            return
        for frame, (codes, copies) in enumerate(zip(arrival.codes, arrival.copies, strict=True), start=first):
            own = arrival.background is None
            self._store(frame, _Slot(codes, own, packet.marker and frame == first))
            for offset, copy in zip(self.redundancy.offsets, copies, strict=True):
                if (copy > 0).any():  # before the first frame of a talk spurt they are zeros
                    self._store(frame - offset, _Slot(copy, False, False))

    def _store(self, frame: int, slot: _Slot) -> None:
        held = self._slots.get(frame)
        if frame >= self._next and (held is None or (slot.own and not held.own)):
            self._slots[frame] = slot

    def _measure(self, transit: float) -> None:
        """Learn from a packet's transit what delay the next ones will need."""
        if self._transits:
            self.jitter_s += (abs(transit - self._transits[-1]) - self.jitter_s) / 16
        self._transits.append(transit)
        ordered = sorted(self._transits)
        self._shortest = ordered[0]
        most, half = (ordered[int(share * (len(ordered) - 1))] - self._shortest for share in (_COVERED, 0.5))
        # A clock that ticks in frames may ask for a frame just before it comes.
        needed = max(most, half + self.redundancy.depth * self.frame_s) + self.frame_s
        self.target_s = min(max(needed, self.least_s), self.max_delay_s)


def _signed(difference: int, modulus: int) -> int:
    """The difference of two numbers that wrap, as the shorter way round."""
    return (difference + modulus // 2) % modulus - modulus // 2
