"""A day of sound through one decoder that loses packets: does it leak, drift or stop?

    python bench/soak.py clear --source talk.wav --hours 24 --loss 0.05 [--chunk 256] [--rtp]

Plays a recording's packets round and round, as fast as it goes, and prints the resident memory after the first minute and at
the end, the samples that came out beside those that had to, and the largest sample. `--chunk 1` decodes frame by frame, as a
live stream does; more frames in a call are faster. `--rtp` goes through RTP packets and the jitter buffer instead, at the pace
of a clock that is only counted: the sequence numbers wrap every 13 minutes, the timestamps after the first second.
Exit status 1 if a sample is missing, too many or not finite. Linux only (memory is read from /proc).
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import click
import numpy as np
import soundfile

import linnet
from linnet.bits import RtpPacket, pack_payload
from linnet.runtime.codec import Codec
from linnet.runtime.loss import LossModel, loss_model
from linnet.runtime.session import RtpReceiver

WARM_UP_S = 60.0
Play = Callable[[list[bytes | None]], np.ndarray]


def resident_mib() -> float:
    """Memory of this process in RAM, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def chunks(packets: list[bytes], frames: int, chunk: int, losses: LossModel) -> Iterator[list[bytes | None]]:
    """The packets again and again, `frames` of them in all, None for lost ones."""
    endless = cycle(packets)
    for start in range(0, frames, chunk):
        part = list(islice(endless, min(chunk, frames - start)))
        yield [None if lost else packet for lost, packet in zip(losses.draw(len(part)), part, strict=True)]


def through_rtp(codec: Codec) -> tuple[RtpReceiver, Play]:
    """A receiver, and a function that gives it a frame's packet a tick and takes what it plays."""
    receiver = RtpReceiver(codec)
    hop, frame_s, sent = codec.card.hop, codec.card.hop / codec.card.sample_rate, 0

    def play(frames: list[bytes | None]) -> np.ndarray:
        nonlocal sent
        hops = []
        for frame in frames:
            now = sent * frame_s
            if frame:
                timestamp = (sent * hop - codec.card.sample_rate) % 2**32
                packet = RtpPacket(sent % 2**16, timestamp, 1, 96, sent == 0, pack_payload([frame]))
                receiver.receive(packet.to_bytes(), now)
            heard = receiver.play(now)
            hops.append(np.zeros(hop, np.float32) if heard is None else heard)
            sent += 1
        return np.concatenate(hops)

    return receiver, play


@click.command()
@click.argument("model", default="clear")
@click.option("--source", required=True, type=click.Path(exists=True), help="The recording to be played.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), default=24.0, show_default=True, help="Of sound.")
@click.option("--loss", type=click.FloatRange(0, 1), default=0.05, show_default=True, help="Share of packets lost.")
@click.option("--burst", type=click.FloatRange(min=1), default=3.0, show_default=True, help="Packets lost in a row, mean.")
@click.option("--kbps", type=float, help="The rate [all layers].")
@click.option("--chunk", type=click.IntRange(min=1), default=1, show_default=True, help="Frames a call.")
@click.option("--rtp", is_flag=True, help="Through RTP packets and the jitter buffer.")
def main(
    model: str, source: str, hours: float, loss: float, burst: float, kbps: float | None, chunk: int, rtp: bool
) -> None:  # fmt: skip
    """Soak MODEL's decoder."""
    codec = linnet.load(model)
    samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    packets = codec.encode(samples, rate, kbps)
    frames = max(1, round(hours * 3600 * codec.layout.frame_rate))
    warm_up = min(frames, round(WARM_UP_S * codec.layout.frame_rate))
    if rtp:
        receiver, play = through_rtp(codec)
    else:
        play = codec.decoder().push
    done = count = 0
    peak = most = early = 0.0
    start = shown = time.perf_counter()
    for part in chunks(packets, frames, chunk, loss_model(loss, burst if loss else None)):
        heard = play(part)
        done, count = done + len(part), count + len(heard)
        peak = max(peak, float(np.abs(heard).max()))
        if not np.isfinite(peak):
            raise click.ClickException(f"a sample that is not finite, after {done} frames")
        if not early and done >= warm_up:
            early = resident_mib()
        if time.perf_counter() - shown > 5:
            shown, most = time.perf_counter(), max(most, resident_mib())
            if sys.stderr.isatty():
                click.echo(
                    f"\r{done * codec.card.hop / codec.card.sample_rate / 3600:.2f} h, {most:.1f} MiB", nl=False, err=True
                )
    spent = time.perf_counter() - start
    late = resident_mib()
    expected = frames * codec.card.hop
    seconds = expected / codec.card.sample_rate
    click.echo(
        f"{seconds / 3600:.2f} h of sound in {spent / 60:.1f} min, {seconds / spent:.0f} x real time, {chunk} frames a call"
    )
    click.echo(f"resident memory: {early:.1f} MiB after {warm_up} frames, {late:.1f} at the end, {max(most, late):.1f} at most")
    click.echo(f"samples: {count} of {expected}; largest {peak:.2f}")
    if rtp:
        click.echo(f"{receiver.jitter.counts}, {receiver.stretched} stretched, {receiver.shrunk} shrunk")
    sys.exit(count != expected)


if __name__ == "__main__":
    main()
