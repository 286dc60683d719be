"""How many frames a core codes in a second, for batches of several sizes: what a server gains from one call for many streams.

    python bench/batch.py MODEL... [--streams 1,4,16,64] [--seconds 2]

A frame of every stream a call, as samples and packets come in real time, on one thread. "alone" is as many encoders or decoders
of their own, called in turn. The sizes take turns within one run, and medians count, so that what else the machine does meets
all alike. "graph" is the graph's calls alone; "packets" is what a caller meets, samples in and packets out, and back. The
ratio is to the first size, of the same row.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median

import click
import numpy as np

import linnet
from linnet.bits import pack_packets
from linnet.runtime.codec import Codec

ROUNDS = 10
WARM_UP = 3
Push = Callable[[Sequence], object]


def pushes(codec: Codec, streams: int) -> dict[str, tuple[Push, Sequence]]:
    """By row, a call for one frame of every stream, and what goes into it."""
    rng = np.random.default_rng(streams)
    layout = codec.layout
    samples = rng.uniform(-0.1, 0.1, (streams, codec.card.hop)).astype(np.float32)
    codes = rng.integers(0, layout.sizes, (streams, layout.n_codes))
    packets = pack_packets(codes, layout, layout.n_layers)
    encoders, decoders = ([start() for _ in range(streams)] for start in (codec.encoder, codec.decoder))

    def alone(streams: Sequence, data: Sequence) -> None:
        for stream, own in zip(streams, data, strict=True):
            stream.push(own)

    return {
        "encoder, graph": (codec.encoder_graph.streams(streams), samples[np.newaxis]),
        "encoder, packets": (codec.encoders(streams).push, samples),
        "encoder, alone": (lambda data: alone(encoders, data), samples),
        "decoder, graph": (codec.decoder_graph.streams(streams), codes[np.newaxis]),
        "decoder, packets": (codec.decoders(streams).push, packets),
        "decoder, alone": (lambda data: alone(decoders, data), packets),
    }


def rates(codec: Codec, sizes: Sequence[int], seconds: float) -> dict[str, list[float]]:
    """By row, frames a second for each size of batch, from this thread's own time."""
    subjects = [pushes(codec, streams) for streams in sizes]
    spent = {row: [[] for _ in sizes] for row in subjects[0]}
    counts = {row: [] for row in spent}
    for row in spent:
        for subject in subjects:
            push, data = subject[row]
            start = time.thread_time()
            for _ in range(WARM_UP):
                push(data)
            counts[row].append(max(1, round(seconds / ROUNDS / (time.thread_time() - start) * WARM_UP)))
    for _ in range(ROUNDS):
        for row, own in spent.items():
            for place, (subject, calls) in enumerate(zip(subjects, counts[row], strict=True)):
                push, data = subject[row]
                start = time.thread_time()
                for _ in range(calls):
                    push(data)
                own[place].append((time.thread_time() - start) / calls)
    return {row: [streams / median(times) for streams, times in zip(sizes, own, strict=True)] for row, own in spent.items()}


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--streams", default="1,4,16,64", show_default=True, help="Sizes of batches; ratios are to the first.")
@click.option("--seconds", default=2.0, show_default=True, help="Spent on each size of each row.")
def main(models: tuple[str, ...], streams: str, seconds: float) -> None:
    """Time batches of MODELS (names or paths of bundles) on one thread."""
    sizes = [int(size) for size in streams.split(",")]
    for model in models:
        click.echo(f"{model + ', frames/s':24}" + "".join(f"{size:>8} streams" for size in sizes))
        for row, found in rates(linnet.load(model), sizes, seconds).items():
            click.echo(f"{row:24}" + "".join(f"{rate:9.0f} ({rate / found[0]:4.2f})" for rate in found))


if __name__ == "__main__":
    main()
