"""The codec as a user meets it: audio to packets and back, at once or as a stream."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from linnet.bits import Codes, Redundancy, keep_layers, pack_redundant
from linnet.bits.packet import check_codes
from linnet.bundle import Bundle, load
from linnet.runtime.audio import AudioError, Samples, to_mono
from linnet.runtime.batch import PacketDecoders, PacketEncoders
from linnet.runtime.graph import BLOCK_FRAMES, Graph
from linnet.runtime.recovery import RecoveryBuffer
from linnet.runtime.streams import PLAIN, CodeDecoder, CodeEncoder, PacketDecoder, PacketEncoder


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
        self, packets: Sequence[bytes | None], sample_rate: int | None = None, redundancy: Redundancy = PLAIN,
        background: float = 1.0,
    ) -> Samples:  # fmt: skip
        """Packets (None: lost) -> float32 `[samples]`, at the model's rate or the one asked for, without the delay.

        `background`, for a model that codes it apart, is how much of it is heard, from 0 to 1; of another model BundleError.
        """
        buffer = RecoveryBuffer(self.layout, redundancy)
        return self.decode_codes(np.concatenate([buffer.push(packets), buffer.flush()]), sample_rate, background)

    def encode_codes(self, samples: npt.ArrayLike, sample_rate: int, kbps: float | None = None) -> Codes:
        """Samples -> int64 `[frames, n_codes]`, -1 in layers beyond `kbps`; frames cover the signal and the delay."""
        mono = to_mono(samples)
        if len(mono) == 0:
            raise AudioError("there is no audio to encode: it has no samples")
        stream = CodeEncoder(self, sample_rate)
        step = BLOCK_FRAMES * self.card.hop
        blocks = [stream.push(mono[start : start + step]) for start in range(0, len(mono), step)]
        return keep_layers(np.concatenate([*blocks, stream.flush()]), self.layout, self.layers(kbps))

    def decode_codes(self, codes: npt.ArrayLike, sample_rate: int | None = None, background: float = 1.0) -> Samples:
        """Codes `[frames, n_codes]`, -1 where none arrived -> float32 `[samples]` without the delay; `background` as `decode`.

        Raises CodesError for codes that do not fit the model's layout.
        """
        array = check_codes(codes, self.layout, self.layout.n_layers, missing=True).astype(np.int64)
        stream = CodeDecoder(self, sample_rate, skip_delay=True)
        stream.background = background
        blocks = [stream.push(array[start : start + BLOCK_FRAMES]) for start in range(0, len(array), BLOCK_FRAMES)]
        return np.concatenate([*blocks, stream.flush()])

    def encoder(
        self, sample_rate: int | None = None, kbps: float | None = None, redundancy: Redundancy = PLAIN
    ) -> PacketEncoder:
        """A stream of samples at `sample_rate` (the model's by default) into packets of at most `kbps` with their copies."""
        return PacketEncoder(self, self.card.sample_rate if sample_rate is None else sample_rate, kbps, redundancy)

    def decoder(self, sample_rate: int | None = None, redundancy: Redundancy = PLAIN) -> PacketDecoder:
        """A stream of packets into samples at `sample_rate` (the model's by default), late by the model's delay and by
        the frames that the receiver waits for copies."""
        return PacketDecoder(self, sample_rate, redundancy)

    def encoders(
        self, count: int, sample_rate: int | None = None, kbps: float | None = None, redundancy: Redundancy = PLAIN
    ) -> PacketEncoders:
        """So many encoders as `encoder` gives them, which share the graph's calls."""
        rate = self.card.sample_rate if sample_rate is None else sample_rate
        return PacketEncoders(self, count, rate, kbps, redundancy)

    def decoders(self, count: int, sample_rate: int | None = None, redundancy: Redundancy = PLAIN) -> PacketDecoders:
        """So many decoders as `decoder` gives them, which share the graph's calls."""
        return PacketDecoders(self, count, sample_rate, redundancy)

    def samples_at(self, count: int, source: int, target: int) -> int:
        """How many samples `count` of rate `source` are at rate `target`."""
        return round(Fraction(count * target, source))
