"""A loop back: what comes in is encoded, loses packets, is decoded and goes out again, with a meter."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from linnet.bits import Redundancy
from linnet.live.devices import Sink, Source
from linnet.runtime.codec import Codec
from linnet.runtime.loss import LossModel


@dataclass
class Meter:
    """What a loop back measures.

    Args:
        delay_ms: from the air to the air: the codec's latency, the wait for copies, and what the devices say of
            themselves.
        frame_ms: how long a frame sounds.
    """

    delay_ms: float
    frame_ms: float
    frames: int = 0
    lost: int = 0
    spent_s: float = 0.0

    def __str__(self) -> str:
        per_frame = 1000 * self.spent_s / max(1, self.frames)
        return (
            f"delay {self.delay_ms:.0f} ms, {per_frame:.2f} ms a frame of {self.frame_ms:g}, "
            f"load {100 * per_frame / self.frame_ms:.1f} %, {100 * self.lost / max(1, self.frames):.1f} % lost"
        )


def loop_back(
    codec: Codec, source: Source, sink: Sink, kbps: float | None, redundancy: Redundancy, losses: LossModel,
    stop: Callable[[], bool], tell: Callable[[Meter], None], background: float = 1.0,
) -> Meter:  # fmt: skip
    """Send a source through encoder, network and decoder to a sink, to its end or until asked to stop.

    Args:
        codec: of the model.
        source, sink: from where and to where; what a device's clock does not pace runs as fast as it can.
        kbps: with the copies; None for all layers.
        redundancy: the copies.
        losses: which packets the network loses.
        stop: asked at every frame.
        tell: called at every frame.
        background: how much of it is heard, from 0 to 1.

    Raises:
        BundleError: if the model does not code the background apart, which is to be turned down.
        LayoutError: if not even the first layer and its copies fit in `kbps`.
    """
    frame_s = codec.card.hop / codec.card.sample_rate
    devices_s = source.latency_s + sink.latency_s
    meter = Meter(codec.card.latency_ms + 1000 * (redundancy.depth * frame_s + devices_s), 1000 * frame_s)
    encoder = codec.encoder(source.sample_rate, kbps, redundancy)
    decoder = codec.decoder(sink.sample_rate, redundancy)
    decoder.background = background

    def carry(packets: list[bytes]) -> list[bytes | None]:
        lost = losses.draw(len(packets))
        meter.frames += len(packets)
        meter.lost += int(lost.sum())
        return [None if gone else packet for gone, packet in zip(lost, packets, strict=True)]

    hop = max(1, round(source.sample_rate * frame_s))
    while not stop() and len(samples := source.read(hop)):
        start = time.perf_counter()
        heard = decoder.push(carry(encoder.push(samples)))
        meter.spent_s += time.perf_counter() - start
        sink.write(heard)
        tell(meter)
    sink.write(decoder.push(carry(encoder.flush())))
    sink.write(decoder.flush())
    return meter
