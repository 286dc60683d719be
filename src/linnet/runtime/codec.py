"""The codec as a user meets it: audio to packets and back, at once or as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from linnet.bits import MISSING, Codes, Layout, Redundancy, StateError, keep_layers, pack_redundant
from linnet.bundle import Bundle, BundleError, load
from linnet.runtime.audio import AudioError, Resampler, Samples, check_rate, to_mono
from linnet.runtime.gaps import GapFade
from linnet.runtime.graph import Graph, GraphStream
from linnet.runtime.recovery import RecoveryBuffer
from linnet.runtime.state import State, check_identity, identity, taken, waiting_codes

# Frames in one call of a graph: more make no call faster, and an hour needs no more memory than this.
BLOCK_FRAMES = 256
PLAIN = Redundancy()


class Codec:
    """A model, loaded. `codec.encode` and `codec.decode` work on whole signals, `codec.encoder()` and `.decoder()` stream."""

    def __init__(self, bundle: Bundle, threads: int = 1):
        self.card = bundle.card
        self.layout = bundle.card.layout
        self.coder = bundle.coder
        self.models = bundle.models  # what reads its files
        self.encoder_graph = Graph(bundle.encoder, threads)
        self.decoder_graph = Graph(bundle.decoder, threads)

    @classmethod
    def open(cls, model: str | Path, threads: int = 1) -> Codec:
        """Load a shipped model by name or a bundle by path."""
        return cls(load(model), threads)

    def layers(self, kbps: float | None, redundancy: Redundancy = PLAIN) -> int:
        """The number of layers that fits in `kbps` with the copies of `redundancy`, all of them for None."""
        return self.layout.n_layers if kbps is None else redundancy.layout(self.layout).layers_for_kbps(kbps)

    def encode(
        self, samples: npt.ArrayLike, sample_rate: int, kbps: float | None = None, redundancy: Redundancy = PLAIN
    ) -> list[bytes]:
        """Samples `[n]` or `[n, channels]` -> one packet a frame, of at most `kbps` with its copies.

        Raises AudioError for empty or non-finite audio.
        """
        n_layers = self.layers(kbps, redundancy)
        codes = self.encode_codes(samples, sample_rate)
        return pack_redundant(codes, codes[:0], self.layout, n_layers, redundancy)

    def decode(
        self, packets: Sequence[bytes | None], sample_rate: int | None = None, redundancy: Redundancy = PLAIN
    ) -> Samples:
        """Packets (None: lost) -> float32 `[samples]`, at the model's rate or the one asked for, without the delay."""
        buffer = RecoveryBuffer(self.layout, redundancy)
        return self.decode_codes(np.concatenate([buffer.push(packets), buffer.flush()]), sample_rate)

    def encode_codes(self, samples: npt.ArrayLike, sample_rate: int, kbps: float | None = None) -> Codes:
        """Samples -> int64 `[frames, n_codes]`, -1 in layers beyond `kbps`; frames cover the signal and the delay."""
        mono = to_mono(samples)
        if len(mono) == 0:
            raise AudioError("there is no audio to encode: it has no samples")
        stream = CodeEncoder(self, sample_rate)
        step = BLOCK_FRAMES * self.card.hop
        blocks = [stream.push(mono[start : start + step]) for start in range(0, len(mono), step)]
        return keep_layers(np.concatenate([*blocks, stream.flush()]), self.layout, self.layers(kbps))

    def decode_codes(self, codes: npt.ArrayLike, sample_rate: int | None = None) -> Samples:
        """Codes `[frames, n_codes]` -> float32 `[samples]` without the delay."""
        array = np.asarray(codes, np.int64)
        stream = CodeDecoder(self, sample_rate, skip_delay=True)
        blocks = [stream.push(array[start : start + BLOCK_FRAMES]) for start in range(0, len(array), BLOCK_FRAMES)]
        return np.concatenate([*blocks, stream.flush()])

    def encoder(
        self, sample_rate: int | None = None, kbps: float | None = None, redundancy: Redundancy = PLAIN
    ) -> PacketEncoder:
        """A stream of samples at `sample_rate` (the model's by default) into packets of at most `kbps` with their copies."""
        return PacketEncoder(self, sample_rate or self.card.sample_rate, kbps, redundancy)

    def decoder(self, sample_rate: int | None = None, redundancy: Redundancy = PLAIN) -> PacketDecoder:
        """A stream of packets into samples at `sample_rate` (the model's by default), late by the model's delay and by
        the frames that the receiver waits for copies."""
        return PacketDecoder(self, sample_rate, redundancy)

    def samples_at(self, count: int, source: int, target: int) -> int:
        """How many samples `count` of rate `source` are at rate `target`."""
        return round(Fraction(count * target, source))


class CodeEncoder:
    """Samples in chunks of any size -> codes of the frames that they complete."""

    def __init__(self, codec: Codec, sample_rate: int):
        self.codec = codec
        self.resampler = Resampler(sample_rate, codec.card.sample_rate)
        self.reset()

    def reset(self) -> None:
        """Back to silence."""
        self.graph = self.codec.encoder_graph.stream()
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
        self.graph = _restored(self.codec.encoder_graph, state, np.zeros(self.codec.card.hop, np.float32))
        self.pending = pending

    def push(self, samples: npt.ArrayLike) -> Codes:
        """The next samples `[n]` or `[n, channels]` -> int64 `[frames, n_codes]`, perhaps of no frames."""
        return self._frames(self.resampler(to_mono(samples)))

    def flush(self) -> Codes:
        """The end: what is left, and silence enough for the decoder to give out everything. Then the stream starts anew."""
        tail = self.resampler(np.zeros(0, np.float32), last=True)
        hop, delay = self.codec.card.hop, self.codec.card.delay
        rest = len(self.pending) + len(tail) + delay
        codes = self._frames(np.concatenate([tail, np.zeros(delay + -rest % hop, np.float32)]))
        self.reset()
        return codes

    def _frames(self, samples: Samples) -> Codes:
        hop = self.codec.card.hop
        joined = np.concatenate([self.pending, samples]) if len(self.pending) else samples
        whole = len(joined) // hop * hop
        self.pending = joined[whole:]
        if whole == 0:
            return _no_codes(self.codec.layout)
        step = BLOCK_FRAMES * hop
        return _joined([self.graph(joined[start : min(start + step, whole)]) for start in range(0, whole, step)])


class CodeDecoder:
    """Codes of consecutive frames -> samples, faded to comfort noise in long gaps.

    `skip_delay` drops the first samples, which lie before the signal.
    """

    def __init__(self, codec: Codec, sample_rate: int | None = None, *, skip_delay: bool = False):
        self.codec = codec
        self.resampler = Resampler(codec.card.sample_rate, check_rate(sample_rate or codec.card.sample_rate))
        self.gaps = GapFade(codec.card.hop, codec.card.sample_rate)
        self.skip_delay = skip_delay
        self.reset()

    def reset(self) -> None:
        """Back to silence."""
        self.graph = self.codec.decoder_graph.stream()
        self.gaps.reset()
        self.resampler.reset()
        self.to_skip = self.codec.card.delay if self.skip_delay else 0

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
        self.graph = _restored(self.codec.decoder_graph, state, np.array([[0], [MISSING]]).repeat(self.codec.layout.n_codes, 1))
        self.gaps, self.to_skip = gaps, to_skip

    def push(self, codes: Codes) -> Samples:
        """int64 `[frames, n_codes]`, -1 for what did not arrive -> float32 `[samples]`."""
        blocks = [self.graph(codes[start : start + BLOCK_FRAMES]) for start in range(0, len(codes), BLOCK_FRAMES)]
        samples = _joined(blocks) if blocks else np.zeros(0, np.float32)
        samples = self.gaps(samples, (codes == MISSING).all(axis=1))
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

    def __init__(self, codec: Codec, sample_rate: int, kbps: float | None, redundancy: Redundancy = PLAIN):
        self.codec, self.stream, self.redundancy = codec, CodeEncoder(codec, sample_rate), redundancy
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
        return self._packets(self.stream.push(samples))

    def flush(self) -> list[bytes]:
        """The last packets; the encoder is then as new."""
        packets = self._packets(self.stream.flush())
        self._sent = _no_codes(self.codec.layout)
        return packets

    def reset(self) -> None:
        """Back to silence."""
        self.stream.reset()
        self._sent = _no_codes(self.codec.layout)

    def _packets(self, codes: Codes) -> list[bytes]:
        packets = pack_redundant(codes, self._sent, self.codec.layout, self.n_layers, self.redundancy)
        if depth := self.redundancy.depth:
            self._sent = np.concatenate([self._sent, codes])[-depth:]
        return packets


class PacketDecoder:
    """A live decoder: `push` packets, take samples."""

    def __init__(self, codec: Codec, sample_rate: int | None, redundancy: Redundancy = PLAIN):
        self.codec, self.stream = codec, CodeDecoder(codec, sample_rate)
        self.buffer = RecoveryBuffer(codec.layout, redundancy)

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
        several = [packets] if packets is None or isinstance(packets, bytes) else list(packets)
        return self.stream.push(self.buffer.push(several))

    def late(self, packet: bytes, behind: int) -> bool:
        """A packet whose turn was `behind` packets before the last one; whether it came in time to be used."""
        return self.buffer.late(packet, behind)

    def flush(self) -> Samples:
        """What waited for copies and what the resampler still holds; the decoder is then as new."""
        return np.concatenate([self.stream.push(self.buffer.flush()), self.stream.flush()])

    def reset(self) -> None:
        """Back to silence."""
        self.stream.reset()
        self.buffer.reset()


def _joined(blocks: list[npt.NDArray]) -> npt.NDArray:
    """One block is itself: next to a frame's graph, every call of numpy counts."""
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _restored(graph: Graph, state: State, trial: npt.NDArray) -> GraphStream:
    """A stream that goes on from a saved state.

    Raises:
        StateError: if the state is another graph's, or the graph does not run from it on `trial`.
    """
    stream = graph.stream()
    stream.restore(state)
    try:
        stream(trial)  # an index beyond its table shows when it is used
    except BundleError as error:
        raise StateError("a saved state from which the model does not run: it was damaged") from error
    stream.restore(state)
    return stream


def _no_codes(layout: Layout) -> Codes:
    return np.zeros((0, layout.n_codes), np.int64)
