"""Streams: samples in chunks of any size to codes or packets, and back, each with a state of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from linnet.bits import MISSING, Codes, Layout, Redundancy, StateError, keep_layers, pack_redundant
from linnet.bundle import BACKGROUND_CUT, BundleError
from linnet.runtime.audio import Resampler, Samples, to_mono
from linnet.runtime.gaps import GapFade
from linnet.runtime.graph import BLOCK_FRAMES, GraphStream, joined
from linnet.runtime.recovery import RecoveryBuffer
from linnet.runtime.state import State, check_identity, identity, taken, waiting_codes

if TYPE_CHECKING:
    from linnet.runtime.codec import Codec

PLAIN = Redundancy()


class CodeEncoder:
    """Samples in chunks of any size -> codes of the frames that they complete."""

    def __init__(self, codec: Codec, sample_rate: int, graph: GraphStream | None = None):
        self.codec = codec
        self.graph = graph or codec.encoder_graph.stream()
        self.resampler = Resampler(sample_rate, codec.card.sample_rate)
        self.reset()

    def reset(self) -> None:
        """Back to silence."""
        self.graph.reset()
        self.resampler.reset()
        self.pending = np.zeros(0, np.float32)

    def save(self) -> State:
        """The state: what was pushed and is not yet out. See `PacketEncoder.save`."""
        self.resampler.check_saved()
        return {"pending": self.pending.copy(), **self.graph.save()}

    def restore(self, state: State) -> None:
        """Go on from a saved state. See `PacketEncoder.restore`."""
        self.resampler.check_saved()
        pending = taken(state, "pending", np.float32, 1)
        if len(pending) >= self.codec.card.hop:
            raise StateError(f"a saved state with {len(pending)} samples that wait: they are less than a frame")
        _restore(self.graph, state, np.zeros((1, self.codec.card.hop), np.float32))
        self.pending = pending

    def push(self, samples: npt.ArrayLike) -> Codes:
        """The next samples `[n]` or `[n, channels]` -> int64 `[frames, n_codes]`, perhaps of no frames."""
        return self._codes(self.frames(to_mono(samples)))

    def frames(self, mono: Samples) -> Samples:
        """The next samples `[n]` -> the frames that they complete, `[frames, hop]`, for the graph."""
        return self._frames(self.resampler(mono))

    def flush(self) -> Codes:
        """The end: what is left, and silence enough for the decoder to give out everything. Then the stream starts anew."""
        tail = self.resampler(np.zeros(0, np.float32), last=True)
        hop, delay = self.codec.card.hop, self.codec.card.delay
        rest = len(self.pending) + len(tail) + delay
        codes = self._codes(self._frames(np.concatenate([tail, np.zeros(delay + -rest % hop, np.float32)])))
        self.reset()
        return codes

    def _frames(self, samples: Samples) -> Samples:
        hop = self.codec.card.hop
        all_samples = np.concatenate([self.pending, samples]) if len(self.pending) else samples
        whole = len(all_samples) // hop * hop
        self.pending = all_samples[whole:]
        return all_samples[:whole].reshape(-1, hop)

    def _codes(self, frames: Samples) -> Codes:
        if len(frames) == 0:
            return _no_codes(self.codec.layout)
        return joined([self.graph(frames[start : start + BLOCK_FRAMES]) for start in range(0, len(frames), BLOCK_FRAMES)])


class CodeDecoder:
    """Codes of consecutive frames -> samples, faded to comfort noise in long gaps.

    `skip_delay` drops the first samples, which lie before the signal.
    """

    def __init__(
        self, codec: Codec, sample_rate: int | None = None, graph: GraphStream | None = None, *, skip_delay: bool = False
    ):  # fmt: skip
        self.codec = codec
        self.graph = graph or codec.decoder_graph.stream()
        self.resampler = Resampler(codec.card.sample_rate, codec.card.sample_rate if sample_rate is None else sample_rate)
        self.gaps = GapFade(codec.card.hop, codec.card.sample_rate)
        self.skip_delay = skip_delay
        self.n_layers = codec.layout.n_layers
        self.reset()

    def reset(self) -> None:
        """Back to silence."""
        self.graph.reset()
        self.gaps.reset()
        self.resampler.reset()
        self.to_skip = self.codec.card.delay if self.skip_delay else 0

    @property
    def kbps(self) -> float:
        """The rate of the layers that are heard of those that arrive: all, unless a listener sets it to at most what fits.

        As `background`, it stays through `reset` and `flush`, and is no part of a saved state.

        Raises:
            LayoutError: on setting it so low that not even the first layer fits. It then stays.
        """
        return self.codec.layout.kbps(self.n_layers)

    @kbps.setter
    def kbps(self, kbps: float | None) -> None:
        self.n_layers = self.codec.layers(kbps)

    def kept(self, codes: Codes) -> Codes:
        """Of codes `[frames, n_codes]` those in the layers that are heard, -1 in the others."""
        layout = self.codec.layout
        return codes if self.n_layers == layout.n_layers else keep_layers(codes, layout, self.n_layers)

    @property
    def background(self) -> float:
        """How much of the background is heard, from 0 (none) to 1 (as it was), of a model that codes it apart.

        A listener may set it at any time; it stays through `reset` and `flush`, and is no part of a saved state.

        Raises:
            BundleError: on setting it below 1, if the model does not code the background apart.
            ValueError: on setting it below 0 or above 1.
        """
        return 1 - (self.graph.setting(BACKGROUND_CUT) or 0.0)

    @background.setter
    def background(self, gain: float) -> None:
        if not 0 <= gain <= 1:
            raise ValueError(f"the background's gain is {gain}; choose 0 to 1")
        if self.graph.setting(BACKGROUND_CUT) is not None:
            self.graph.set(BACKGROUND_CUT, 1 - gain)
        elif gain < 1:
            raise BundleError(f"model {self.codec.card.name} does not code the background apart: it cannot be turned down")

    def renew(self) -> None:
        """Go on with the frames of an encoder that begins anew: the network does, the fade does not."""
        self.graph.reset()

    def save(self) -> State:
        """The state: the graph's, the fade's and the delay yet to be skipped. See `PacketDecoder.save`."""
        self.resampler.check_saved()
        return {"to_skip": np.array(self.to_skip), **self.graph.save(), **self.gaps.save()}

    def restore(self, state: State) -> None:
        """Go on from a saved state. See `PacketDecoder.restore`."""
        self.resampler.check_saved()
        to_skip = int(taken(state, "to_skip", np.int64, 0))
        if to_skip < 0:
            raise StateError(f"a saved state that skips {to_skip} samples: it was damaged")
        # New ones, so that a state that is refused in the middle changes nothing.
        gaps = GapFade(self.codec.card.hop, self.codec.card.sample_rate)
        gaps.restore(state)
        _restore(self.graph, state, np.array([[0], [MISSING]]).repeat(self.codec.layout.n_codes, 1))
        self.gaps, self.to_skip = gaps, to_skip

    def push(self, codes: Codes) -> Samples:
        """int64 `[frames, n_codes]`, -1 for what did not arrive -> float32 `[samples]`."""
        codes = self.kept(codes)
        blocks = [self.graph(codes[start : start + BLOCK_FRAMES]) for start in range(0, len(codes), BLOCK_FRAMES)]
        return self.samples(codes, joined(blocks) if blocks else np.zeros((0, self.codec.card.hop), np.float32))

    def samples(self, codes: Codes, frames: Samples) -> Samples:
        """What is heard, `[samples]`, of `frames` `[frames, hop]`, which the graph gave for `codes` `[frames, n_codes]`."""
        samples = self.gaps(frames.reshape(-1), (codes == MISSING).all(axis=1))
        skipped = min(self.to_skip, len(samples))
        self.to_skip -= skipped
        return self.resampler(samples[skipped:])

    def flush(self) -> Samples:
        """What the resampler still holds. Then the stream starts anew."""
        tail = self.resampler(np.zeros(0, np.float32), last=True)
        self.reset()
        return tail


class PacketEncoder:
    """A live encoder: `push` samples, take packets.

    Any number of streams share one loaded `Codec`, each with a state of its own; see docs/rtp.md, "A server".
    """

    def __init__(
        self, codec: Codec, sample_rate: int, kbps: float | None, redundancy: Redundancy = PLAIN,
        graph: GraphStream | None = None,
    ):  # fmt: skip
        self.codec, self.stream, self.redundancy = codec, CodeEncoder(codec, sample_rate, graph), redundancy
        self.kbps = kbps
        self._sent = _no_codes(codec.layout)

    @property
    def kbps(self) -> float:
        """The rate of the packets to come, copies included; set it to at most what fits, or None for all layers.

        Raises:
            LayoutError: if not even the first layer and its copies fit. The rate then stays.
        """
        return self.redundancy.layout(self.codec.layout).kbps(self.n_layers)

    @kbps.setter
    def kbps(self, kbps: float | None) -> None:
        self.n_layers = self.codec.layers(kbps, self.redundancy)

    def save(self) -> State:
        """The state of the stream as named arrays, for `np.savez`; the rate is not a part of it.

        Raises:
            StateError: if the stream resamples: a resampler's state cannot be read.
        """
        return {
            "identity": identity(self.codec.card.model_id, self.redundancy),
            "sent": self._sent.copy(),
            **self.stream.save(),
        }

    def restore(self, state: State) -> None:
        """Go on from the state that another encoder of the same model and copies had when it was saved.

        Raises:
            StateError: if it is another model's, has other copies, or is no encoder's. The stream is then as it was.
        """
        check_identity(state, self.codec.card.model_id, self.redundancy)
        sent = waiting_codes(state, "sent", self.codec.layout, self.redundancy, least=0)
        self.stream.restore(state)
        self._sent = sent

    def push(self, samples: npt.ArrayLike) -> list[bytes]:
        """The next samples, any number of them -> the packets of the frames that they complete."""
        return self.packets(self.stream.push(samples))

    def flush(self) -> list[bytes]:
        """The last packets; the encoder is then as new."""
        packets = self.packets(self.stream.flush())
        self._sent = _no_codes(self.codec.layout)
        return packets

    def reset(self) -> None:
        """Back to silence."""
        self.stream.reset()
        self._sent = _no_codes(self.codec.layout)

    def packets(self, codes: Codes) -> list[bytes]:
        """The packets of the stream's next codes `[frames, n_codes]`."""
        packets = pack_redundant(codes, self._sent, self.codec.layout, self.n_layers, self.redundancy)
        if depth := self.redundancy.depth:
            self._sent = np.concatenate([self._sent, codes])[-depth:]
        return packets


class PacketDecoder:
    """A live decoder: `push` packets, take samples."""

    def __init__(
        self, codec: Codec, sample_rate: int | None, redundancy: Redundancy = PLAIN, graph: GraphStream | None = None
    ):  # fmt: skip
        self.codec, self.stream = codec, CodeDecoder(codec, sample_rate, graph)
        self.buffer = RecoveryBuffer(codec.layout, redundancy)

    @property
    def kbps(self) -> float:
        """As `CodeDecoder.kbps`."""
        return self.stream.kbps

    @kbps.setter
    def kbps(self, kbps: float | None) -> None:
        self.stream.kbps = kbps

    @property
    def background(self) -> float:
        """As `CodeDecoder.background`."""
        return self.stream.background

    @background.setter
    def background(self, gain: float) -> None:
        self.stream.background = gain

    def save(self) -> State:
        """The state of the stream as named arrays, for `np.savez`.

        Raises:
            StateError: if the stream resamples: a resampler's state cannot be read.
        """
        named = identity(self.codec.card.model_id, self.buffer.redundancy)
        return {"identity": named, "held": self.buffer.held.copy(), **self.stream.save()}

    def restore(self, state: State) -> None:
        """Go on from the state that another decoder of the same model and copies had when it was saved.

        Raises:
            StateError: if it is another model's, has other copies, or is no decoder's. The stream is then as it was.
        """
        check_identity(state, self.codec.card.model_id, self.buffer.redundancy)
        held = waiting_codes(state, "held", self.codec.layout, self.buffer.redundancy, least=MISSING)
        self.stream.restore(state)
        self.buffer.held = held

    def push(self, packets: bytes | Iterable[bytes | None] | None) -> Samples:
        """One packet or several, None for one that has not come -> one hop of samples each.

        With redundancy, nothing comes out until as many packets went in as the receiver waits for copies.
        """
        return self.stream.push(self.codes(packets))

    def codes(self, packets: bytes | Iterable[bytes | None] | None) -> Codes:
        """The codes `[frames, n_codes]` of the stream's next packets that need wait no longer."""
        if isinstance(packets, bytearray | memoryview):
            packets = bytes(packets)
        several = [packets] if packets is None or isinstance(packets, bytes) else list(packets)
        return self.buffer.push(several)

    def late(self, packet: bytes, behind: int) -> bool:
        """A packet whose turn was `behind` packets before the last one; whether it came in time to be used."""
        return self.buffer.late(packet, behind)

    def flush(self) -> Samples:
        """What waited for copies and what the resampler still holds; the decoder is then as new, but for `kbps` and
        `background`."""
        return np.concatenate([self.stream.push(self.buffer.flush()), self.stream.flush()])

    def reset(self) -> None:
        """Back to silence."""
        self.stream.reset()
        self.buffer.reset()


def _restore(stream: GraphStream, state: State, trial: npt.NDArray) -> None:
    """Let a stream go on from a saved state.

    Raises:
        StateError: if the state is another graph's, or the graph does not run from it on `trial`. The stream is then as it was.
    """
    tried = stream.graph.stream()
    tried.restore(state)
    try:
        tried(trial)  # an index beyond its table shows when it is used
    except BundleError as error:
        raise StateError("a saved state from which the model does not run: it was damaged") from error
    stream.restore(state)


def _no_codes(layout: Layout) -> Codes:
    return np.zeros((0, layout.n_codes), np.int64)
