"""The two ends of a live stream: samples to RTP packets, and RTP packets to samples at the tick of a clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from linnet.bits import MAX_FRAMES, MISSING, Codes, Redundancy, RtpError, RtpPacket, pack_noise, pack_payload
from linnet.bits.rtp import SEQUENCES, TIMESTAMPS
from linnet.bits.sdp import NOISE_TYPE, PAYLOAD_TYPE
from linnet.runtime.activity import ActivityDetector
from linnet.runtime.audio import Resampler, Samples, to_mono
from linnet.runtime.codec import Codec
from linnet.runtime.jitter import JitterBuffer
from linnet.runtime.state import State
from linnet.runtime.streams import PLAIN, CodeDecoder

_QUIET_MEMORY_S = 2.0  # in which there is most likely a pause
_QUIETEST = 0.2  # of that time is pause enough to change its length
_REPEATED = 40  # lost frames that are worth decoding again: after more of them, the decoder has faded out
_HANGOVER_S = 0.2  # sent after the last sound: the ends of words are quiet, and it shows the receiver the background
_NOISE_S = 1.0  # between two packets of comfort noise
_BEFORE = 2  # frames sent before the first sound, at least: it begins faintly, and the receiver fades in as long


class RtpSender:
    """Samples in, datagrams out.

    Args:
        codec: of the model.
        sample_rate: of the samples, in Hz.
        kbps: of the frames with their copies, without the headers of packets; all layers for None.
        redundancy: the copies.
        frames: how many frames go in a packet, 1 to 16; fewer where the rate changes and at an end.
        ssrc: the sender's number; `sequence` and `timestamp`: of the first packet. RFC 3550 wants all three random.
        payload_type, noise_type: of the session's frames, and of its comfort noise.
        discontinuous: in pauses send no frames, but a packet of comfort noise every second. After a pause the encoder begins
            anew, a little before the first sound, and the packet has the marker.

    Raises:
        RtpError: if that many frames fit in no packet.
    """

    def __init__(
        self, codec: Codec, sample_rate: int, kbps: float | None = None, redundancy: Redundancy = PLAIN, *,
        frames: int = 1, ssrc: int = 0, sequence: int = 0, timestamp: int = 0, payload_type: int = PAYLOAD_TYPE,
        noise_type: int = NOISE_TYPE, discontinuous: bool = False,
    ):  # fmt: skip
        if not 1 <= frames <= MAX_FRAMES:
            raise RtpError(f"{frames} frames a packet: give 1 to {MAX_FRAMES}")
        self.encoder = codec.encoder(kbps=kbps, redundancy=redundancy)
        self.frames, self.ssrc, self.payload_type, self.noise_type = frames, ssrc, payload_type, noise_type
        self.discontinuous = discontinuous
        self._resampler = Resampler(sample_rate, codec.card.sample_rate)
        self._hop = codec.card.hop
        self._sequence, self._timestamp = sequence, timestamp
        self._waiting: list[bytes] = []
        self._activity = ActivityDetector(self._hop, codec.card.sample_rate)
        self._hangover = round(_HANGOVER_S * codec.layout.frame_rate)
        self._noise_frames = round(_NOISE_S * codec.layout.frame_rate)
        self._begin()

    @property
    def kbps(self) -> float:
        """The rate of the frames to come, see `PacketEncoder.kbps`."""
        return self.encoder.kbps

    @kbps.setter
    def kbps(self, kbps: float | None) -> None:
        self.encoder.kbps = kbps

    def push(self, samples: npt.ArrayLike) -> list[bytes]:
        """The next samples `[n]` or `[n, channels]`, any number of them -> the datagrams that they complete."""
        return self._heard(self._resampler(to_mono(samples)))

    def flush(self) -> list[bytes]:
        """The last datagrams; the next ones begin a talk spurt."""
        datagrams = self._heard(self._resampler(np.zeros(0, np.float32), last=True))
        if self._quiet <= self._hangover:
            datagrams += self._packed([*self.encoder.push(self._pending), *self.encoder.flush()])
            datagrams += self._close()
        self._timestamp += self._hop * len(self._kept)
        self._resampler.reset()
        self._begin()
        return datagrams

    def _begin(self) -> None:
        """As before the first sample of a stream."""
        self._pending = np.zeros(0, np.float32)  # less than a frame
        self._kept: deque[Samples] = deque(maxlen=max(_BEFORE, self.frames - 1))  # the newest frames of a pause
        self._quiet = 0  # frames since the last sound
        self._marker = True
        self._activity.reset()

    def _heard(self, samples: Samples) -> list[bytes]:
        """The datagrams of samples at the model's rate."""
        if not self.discontinuous:
            return self._packed(self.encoder.push(samples))
        joined = np.concatenate([self._pending, samples])
        whole = len(joined) // self._hop * self._hop
        self._pending = joined[whole:]
        datagrams = []
        for frame in joined[:whole].reshape(-1, self._hop):
            self._quiet = 0 if self._activity(frame) else self._quiet + 1
            pause = self._quiet - self._hangover
            if pause > 0:
                datagrams += self._rest(frame, pause)
            else:
                datagrams += self._packed(self.encoder.push(np.concatenate([*self._kept, frame])))
                self._kept.clear()
        return datagrams

    def _rest(self, frame: Samples, pause: int) -> list[bytes]:
        """The `pause`-th frame of a pause is not sent, but kept for a while, in case the next one sounds."""
        datagrams = []
        if pause == 1:
            datagrams = self._close()
            self.encoder.reset()
            self._marker = True
        if pause % self._noise_frames == 1:
            now = self._timestamp + self._hop * len(self._kept)
            datagrams.append(self._packet(now, self.noise_type, False, pack_noise(self._activity.background)))
        self._timestamp += self._hop * (len(self._kept) == self._kept.maxlen)
        self._kept.append(frame)
        return datagrams

    def _packed(self, frames: Iterable[bytes]) -> list[bytes]:
        datagrams = []
        for frame in frames:
            if self._waiting and len(frame) != len(self._waiting[0]):
                datagrams += self._close()
            self._waiting.append(frame)
            if len(self._waiting) == self.frames:
                datagrams += self._close()
        return datagrams

    def _close(self) -> list[bytes]:
        """The packet of the frames that wait, if any do."""
        if not self._waiting:
            return []
        packet = self._packet(self._timestamp, self.payload_type, self._marker, pack_payload(self._waiting))
        self._timestamp += self._hop * len(self._waiting)
        self._waiting, self._marker = [], False
        return [packet]

    def _packet(self, timestamp: int, payload_type: int, marker: bool, payload: bytes) -> bytes:
        packet = RtpPacket(self._sequence % SEQUENCES, timestamp % TIMESTAMPS, self.ssrc, payload_type, marker, payload)
        self._sequence += 1
        return packet.to_bytes()


class RtpReceiver:
    """Datagrams in, one hop of samples out at each tick, at the model's rate.

    To change the delay, a frame is played twice, or two as one, faded into each other; in the quietest fifth of the last two
    seconds, or anywhere once the delay is above its limit. The decoder meets every frame once, in turn, either way, also when
    a packet was late and the wait was concealed: so late packets leave no trace in what is heard after them.

    Args:
        codec: of the model.
        redundancy, payload_type, noise_type: of the session.
        min_delay_s, max_delay_s: of the jitter buffer.

    Attributes:
        hop, sample_rate: the model's, in samples and Hz.
        jitter: the buffer, with its counts and its delay.
        stretched: frames that were played twice.
        shrunk: frames that were played together with the one after them.
    """

    def __init__(
        self, codec: Codec, redundancy: Redundancy = PLAIN, payload_type: int = PAYLOAD_TYPE, *,
        noise_type: int | None = NOISE_TYPE, min_delay_s: float = 0.04, max_delay_s: float = 1.0,
    ):  # fmt: skip
        self.jitter = JitterBuffer(
            codec.layout, redundancy, payload_type, noise_type=noise_type, min_delay_s=min_delay_s, max_delay_s=max_delay_s
        )  # fmt: skip
        self.decoder = CodeDecoder(codec)
        self.hop, self.sample_rate = codec.card.hop, codec.card.sample_rate
        self._ramp = ((np.arange(self.hop) + 0.5) / self.hop).astype(np.float32)
        self._remembered = max(1, round(_QUIET_MEMORY_S * codec.layout.frame_rate))
        self._lost = np.full((1, codec.layout.n_codes), MISSING, np.int64)
        self.stretched = self.shrunk = 0
        self._restart()

    def _restart(self) -> None:
        """Another sender speaks: nothing of the one before is left."""
        self.decoder.reset()
        self._epoch = self.jitter.epoch
        self._levels: deque[float] = deque(maxlen=self._remembered)  # energies of the last frames
        self._last = np.zeros(self.hop, np.float32)
        self._undisturbed: State | None = None  # the decoder's, when the buffer began to hold its place
        self._after: Samples | None = None  # a hop that is decoded and comes next

    def receive(self, datagram: bytes, now: float) -> None:
        """A datagram that came at `now`, in seconds. Nothing in it raises an error."""
        self.jitter.push(datagram, now)

    def play(self, now: float) -> Samples | None:
        """The next hop, float32 `[hop]`; None until there is something to play."""
        if self._after is not None:
            waiting, self._after = self._after, None
            return waiting
        if (hop := self._decode(now)) is None:
            return None
        adjustment = self.jitter.adjustment()
        if adjustment and (self._is_quiet(hop) or self.jitter.delay_s > self.jitter.max_delay_s):
            if adjustment > 0:
                self.stretched += 1
                # From what would follow the last hop back to what it ended with, so that nothing jumps.
                self._after, hop = hop, self._fade(hop, self._last)
            elif (following := self._decode(now)) is not None:
                self.shrunk += 1
                hop = self._fade(hop, following)
        self._last = hop if self._after is None else self._after
        return hop

    def _decode(self, now: float) -> Samples | None:
        codes = self.jitter.pull(now)
        if self.jitter.epoch != self._epoch:
            self._restart()
        if codes is None:
            if not self._levels:
                return None
            codes = self._lost  # the same stream begins anew: the decoder fills the time
            self._undisturbed = None
        told = self.jitter.background
        if told is not None:
            told *= self.decoder.background  # as loud as the listener wants it
        if self.decoder.gaps.told != told:
            self.decoder.gaps.tell(told)
        hop = self._heard(codes)
        self._levels.append(float(np.dot(hop, hop)))
        return hop

    def _heard(self, codes: Codes) -> Samples:
        """Decode a frame, or conceal one that may be late.

        What is concealed while the buffer holds its place is none of the stream's frames. So when the stream goes on, the
        decoder goes back to where it was, meets what was really lost, and is faded in. In a new talk spurt it
        begins anew, as the encoder did.
        """
        if self.jitter.held:
            self._undisturbed = self._undisturbed or self.decoder.save()
            return self.decoder.push(codes)
        before, self._undisturbed = self._undisturbed, None
        if self.jitter.begins and self._levels:
            concealed = self.decoder.push(self._lost)
            self.decoder.renew()
            return self._fade(concealed, self.decoder.push(codes))
        if before is None or self.jitter.skipped > _REPEATED:
            return self.decoder.push(codes)
        concealed = self.decoder.push(self._lost)
        self.decoder.restore(before)
        self.decoder.push(np.repeat(self._lost, self.jitter.skipped, axis=0))
        return self._fade(concealed, self.decoder.push(codes))

    def _is_quiet(self, hop: Samples) -> bool:
        return float(np.dot(hop, hop)) <= sorted(self._levels)[int(_QUIETEST * (len(self._levels) - 1))]

    def _fade(self, before: Samples, after: Samples) -> Samples:
        return before + self._ramp * (after - before)
