"""Batches: streams that go through the graph together, for a server, as one call reads the weights once for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy.typing as npt

from linnet.bits import Redundancy
from linnet.runtime.audio import Samples, to_mono
from linnet.runtime.streams import PacketDecoder, PacketEncoder

if TYPE_CHECKING:
    from linnet.runtime.codec import Codec


class PacketEncoders:
    """Encoders that share their calls: `push` a chunk of samples for each, take packets from each.

    `encoders[i]` is one of them, a `PacketEncoder`: its `reset`, `flush`, `save`, `restore` and `kbps` are its own. A batch
    belongs in one thread. ValueError for a count below 1.
    """

    def __init__(self, codec: Codec, count: int, sample_rate: int, kbps: float | None, redundancy: Redundancy):
        self._graph = codec.encoder_graph.streams(_checked(count))
        self._streams = [PacketEncoder(codec, sample_rate, kbps, redundancy, self._graph[slot]) for slot in range(count)]

    def __len__(self) -> int:
        return len(self._streams)

    def __getitem__(self, slot: int) -> PacketEncoder:
        return self._streams[slot]

    def push(self, chunks: Sequence[npt.ArrayLike]) -> list[list[bytes]]:
        """Each stream's next samples, a list of arrays or `[streams, n]` -> each stream's packets, as it alone would give them.

        Chunks may differ in length; one of no samples leaves its stream as it was. AudioError before any stream has
        changed if some are no audio, ValueError if there are not as many as streams.
        """
        _check_each(chunks, self._streams)
        mono = [to_mono(chunk) for chunk in chunks]
        frames = [stream.stream.frames(own) for stream, own in zip(self._streams, mono, strict=True)]
        return [stream.packets(codes) for stream, codes in zip(self._streams, self._graph.each(frames), strict=True)]


class PacketDecoders:
    """Decoders that share their calls: `push` packets for each, take samples from each.

    `decoders[i]` is one of them, a `PacketDecoder`: its `reset`, `flush`, `late`, `save`, `restore`, `kbps` and `background`
    are its own. A batch belongs in one thread. ValueError for a count below 1.
    """

    def __init__(self, codec: Codec, count: int, sample_rate: int | None, redundancy: Redundancy):
        self._graph = codec.decoder_graph.streams(_checked(count))
        self._streams = [PacketDecoder(codec, sample_rate, redundancy, self._graph[slot]) for slot in range(count)]

    def __len__(self) -> int:
        return len(self._streams)

    def __getitem__(self, slot: int) -> PacketDecoder:
        return self._streams[slot]

    def push(self, packets: Sequence[bytes | Iterable[bytes | None] | None]) -> list[Samples]:
        """Each stream's next packet or packets, None for one that has not come -> each stream's float32 samples, as it alone
        would give them.

        An empty list leaves its stream as it was. PacketError before any stream has changed if a packet's length fits no number
        of layers, ValueError if there are not as many as streams.
        """
        _check_each(packets, self._streams)
        held = [stream.buffer.held for stream in self._streams]
        try:
            codes = [stream.stream.kept(stream.codes(own)) for stream, own in zip(self._streams, packets, strict=True)]
        except BaseException:
            for stream, before in zip(self._streams, held, strict=True):
                stream.buffer.held = before
            raise
        heard = zip(self._streams, codes, self._graph.each(codes), strict=True)
        return [stream.stream.samples(own, frames) for stream, own, frames in heard]


def _checked(count: int) -> int:
    if count < 1:
        raise ValueError(f"a batch of {count} streams: give 1 or more")
    return count


def _check_each(given: Sequence[object], streams: Sequence[object]) -> None:
    if len(given) != len(streams):
        raise ValueError(f"{len(given)} streams' data for a batch of {len(streams)}: give each stream its own, perhaps empty")
