"""The codec as a user meets it: audio to packets and back, at once or as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from linnet.bits import Codes, keep_layers, pack_packets, unpack_packets
from linnet.bundle import Bundle, load
from linnet.runtime.audio import AudioError, Resampler, Samples, check_rate, to_mono
from linnet.runtime.graph import Graph

# Frames in one call of a graph: more make no call faster, and an hour needs no more memory than this.
BLOCK_FRAMES = 256


class Codec:
    """A model, loaded. `codec.encode` and `codec.decode` work on whole signals, `codec.encoder()` and `.decoder()` stream."""

    def __init__(self, bundle: Bundle, threads: int = 1):
        self.card = bundle.card
        self.layout = bundle.card.layout
        self.encoder_graph = Graph(bundle.encoder, threads)
        self.decoder_graph = Graph(bundle.decoder, threads)

    @classmethod
    def open(cls, model: str | Path, threads: int = 1) -> Codec:
        """Load a shipped model by name or a bundle by path."""
        return cls(load(model), threads)

    def layers(self, kbps: float | None) -> int:
        """The number of layers that fits in `kbps`, all of them for None."""
        return self.layout.n_layers if kbps is None else self.layout.layers_for_kbps(kbps)

    def encode(self, samples: npt.ArrayLike, sample_rate: int, kbps: float | None = None) -> list[bytes]:
        """Samples `[n]` or `[n, channels]` -> one packet a frame. Raises AudioError for empty or non-finite audio."""
        return pack_packets(self.encode_codes(samples, sample_rate, kbps), self.layout, self.layers(kbps))

    def decode(self, packets: Sequence[bytes | None], sample_rate: int | None = None) -> Samples:
        """Packets (None: lost) -> float32 `[samples]`, at the model's rate or the one asked for, without the delay."""
        return self.decode_codes(unpack_packets(packets, self.layout), sample_rate)

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

    def encoder(self, sample_rate: int | None = None, kbps: float | None = None) -> PacketEncoder:
        """A stream of samples at `sample_rate` (the model's by default) into packets."""
        return PacketEncoder(self, sample_rate or self.card.sample_rate, kbps)

    def decoder(self, sample_rate: int | None = None) -> PacketDecoder:
        """A stream of packets into samples at `sample_rate` (the model's by default), late by the model's delay."""
        return PacketDecoder(self, sample_rate)

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
        joined = np.concatenate([self.pending, samples])
        whole = len(joined) // hop * hop
        self.pending = joined[whole:]
        if whole == 0:
            return np.zeros((0, self.codec.layout.n_codes), np.int64)
        step = BLOCK_FRAMES * hop
        return np.concatenate([self.graph(joined[start : min(start + step, whole)]) for start in range(0, whole, step)])


class CodeDecoder:
    """Codes of consecutive frames -> samples; `skip_delay` drops the first, which lie before the signal."""

    def __init__(self, codec: Codec, sample_rate: int | None = None, *, skip_delay: bool = False):
        self.codec = codec
        self.resampler = Resampler(codec.card.sample_rate, check_rate(sample_rate or codec.card.sample_rate))
        self.skip_delay = skip_delay
        self.reset()

    def reset(self) -> None:
        """Back to silence."""
        self.graph = self.codec.decoder_graph.stream()
        self.resampler.reset()
        self.to_skip = self.codec.card.delay if self.skip_delay else 0

    def push(self, codes: Codes) -> Samples:
        """int64 `[frames, n_codes]`, -1 for what did not arrive -> float32 `[samples]`."""
        blocks = [self.graph(codes[start : start + BLOCK_FRAMES]) for start in range(0, len(codes), BLOCK_FRAMES)]
        samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
        skipped = min(self.to_skip, len(samples))
        self.to_skip -= skipped
        return self.resampler(samples[skipped:])

    def flush(self) -> Samples:
        """What the resampler still holds. Then the stream starts anew."""
        tail = self.resampler(np.zeros(0, np.float32), last=True)
        self.reset()
        return tail


class PacketEncoder:
    """A live encoder: `push` samples, take packets."""

    def __init__(self, codec: Codec, sample_rate: int, kbps: float | None):
        self.codec, self.stream, self.n_layers = codec, CodeEncoder(codec, sample_rate), codec.layers(kbps)

    def push(self, samples: npt.ArrayLike) -> list[bytes]:
        """The next samples, any number of them -> the packets of the frames that they complete."""
        return pack_packets(self.stream.push(samples), self.codec.layout, self.n_layers)

    def flush(self) -> list[bytes]:
        """The last packets; the encoder is then as new."""
        return pack_packets(self.stream.flush(), self.codec.layout, self.n_layers)

    def reset(self) -> None:
        """Back to silence."""
        self.stream.reset()


class PacketDecoder:
    """A live decoder: `push` packets, take samples."""

    def __init__(self, codec: Codec, sample_rate: int | None):
        self.codec, self.stream = codec, CodeDecoder(codec, sample_rate)

    def push(self, packets: bytes | Iterable[bytes | None] | None) -> Samples:
        """One packet or several, None for one that was lost -> one hop of samples each."""
        several = [packets] if packets is None or isinstance(packets, bytes) else list(packets)
        return self.stream.push(unpack_packets(several, self.codec.layout))

    def flush(self) -> Samples:
        """What the resampler still holds; the decoder is then as new."""
        return self.stream.flush()

    def reset(self) -> None:
        """Back to silence."""
        self.stream.reset()
