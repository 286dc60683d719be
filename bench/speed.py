"""How fast a bundle codes, beside EnCodec's 24 kHz model in shape, on one thread in one run.

    python bench/speed.py MODEL... [--seconds 10] [--without-encodec]

Each graph runs as a stream (one frame a call, its state carried along; the median call is given) and as a file (in the
runtime's blocks of frames; the best of three). "x real time" is seconds of audio for each second of work. The rows "torch" are
EnCodec's shape in eager PyTorch with its weight normalisation computed in every call, as it ships; the rows "onnx" are
the same network with that folded away, in the runtime that runs our bundles. Its weights are random: the time
does not depend on them.
"""

import io
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median

import click
import numpy as np

from linnet.runtime.codec import BLOCK_FRAMES

Array = np.ndarray
Stream = Callable[[Array], object]  # runs the next data, and keeps the state
WARM_UP = 10
STREAM_SECONDS = 2.0


@dataclass(frozen=True)
class Subject:
    """One side of one codec, ready to run."""

    name: str
    side: str
    sample_rate: int
    hop: int
    start: Callable[[], Stream]
    data: Callable[[int], Array]  # of so many frames


@dataclass(frozen=True)
class Timing:
    """Seconds of work for a frame."""

    name: str
    side: str
    frame_seconds: float
    stream: float
    file: float


def measure(subject: Subject, seconds: float) -> Timing:
    """Time one side as a stream and as a file of `seconds`."""
    frame_seconds = subject.hop / subject.sample_rate
    frames = max(1, round(seconds / frame_seconds))
    singles = round(min(seconds, STREAM_SECONDS) / frame_seconds)
    stream, frame = subject.start(), subject.data(1)
    single = median([timed(stream, frame) for _ in range(WARM_UP + max(1, singles))][WARM_UP:])
    whole = subject.data(frames)
    step = len(whole) // frames * BLOCK_FRAMES
    blocks = [whole[start : start + step] for start in range(0, len(whole), step)]
    file = min(sum(timed(stream, block) for block in blocks) for stream in (subject.start() for _ in range(3)))
    return Timing(subject.name, subject.side, frame_seconds, single, file / frames)


def timed(stream: Stream, data: Array) -> float:
    start = time.perf_counter()
    stream(data)
    return time.perf_counter() - start


def bundle_subjects(model: str) -> list[Subject]:
    """Both sides of a bundle, by name or path."""
    from linnet import bundle
    from linnet.runtime.graph import Graph

    opened = bundle.load(model)
    card = opened.card
    rng = np.random.default_rng(0)
    sizes = [column.size for column in card.columns]
    makers = {
        "encoder": lambda frames: rng.uniform(-0.1, 0.1, frames * card.hop).astype(np.float32),
        "decoder": lambda frames: rng.integers(0, sizes, (frames, len(sizes))),
    }
    subjects = []
    for side, graph in (("encoder", opened.encoder), ("decoder", opened.decoder)):
        subjects.append(Subject(card.name, side, card.sample_rate, card.hop, Graph(graph).stream, makers[side]))
    return subjects


def encodec_subjects() -> list[Subject]:
    """Both sides of EnCodec's shape, in PyTorch and in ONNX Runtime."""
    import encodec_shape as encodec
    import torch

    from linnet.runtime.graph import Graph

    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    firsts = {
        "encoder": lambda frames: rng.uniform(-0.1, 0.1, frames * encodec.HOP).astype(np.float32),
        "decoder": lambda frames: rng.integers(0, encodec.CODEBOOK_SIZE, (frames, encodec.CODEBOOKS)),
    }
    subjects = []
    for side, network in (("encoder", encodec.Encoder().eval()), ("decoder", encodec.Decoder().eval())):
        first, states = firsts[side], [state.numpy() for state in network.initial()]
        folded = export(type(network)().eval().fold(), first(8), states)
        for runtime, start in (("torch", partial(torch_stream, network, states)), ("onnx", Graph(folded).stream)):
            name = f"EnCodec, {runtime}"
            subjects.append(Subject(name, side, encodec.SAMPLE_RATE, encodec.HOP, start, first))
    return subjects


def torch_stream(network, states: list[Array]) -> Stream:
    import torch

    state = list(map(torch.from_numpy, states))

    def step(data: Array) -> None:
        with torch.inference_mode():
            _, *state[:] = network(torch.from_numpy(data), *state)

    return step


def export(network, first: Array, states: list[Array]) -> bytes:
    """The network as a graph of the bundle's form."""
    import torch

    names = ["first", *(f"state_{index}" for index in range(len(states)))]
    results = ["result", *(f"new_{name}" for name in names[1:])]
    file = io.BytesIO()
    inputs = tuple(map(torch.from_numpy, [first, *states]))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the older exporter is deprecated, and much the quicker to start
        torch.onnx.export(
            network,
            inputs,
            file,
            input_names=names,
            output_names=results,
            dynamic_axes={"first": {0: "time"}, "result": {0: "time"}},
            dynamo=False,
        )
    return file.getvalue()


def table(timings: list[Timing]) -> str:
    """The timings, then how many times faster each bundle's side is than EnCodec's, for the same seconds of audio."""
    lines = [f"{'':28}{'us a frame':>22}{'x real time':>22}", f"{'':28}" + f"{'stream':>11}{'file':>11}" * 2]
    for row in timings:
        cells = f"{row.stream * 1e6:11.0f}{row.file * 1e6:11.0f}"
        speeds = f"{row.frame_seconds / row.stream:11.1f}{row.frame_seconds / row.file:11.1f}"
        lines.append(f"{row.name[:19]:20}{row.side:8}{cells}{speeds}")
    lines += [line for row in timings for line in ratios(row, timings)]
    return "\n".join(lines)


def ratios(ours: Timing, timings: list[Timing]) -> Iterator[str]:
    if ours.name.startswith("EnCodec"):
        return
    for theirs in timings:
        if theirs.name.startswith("EnCodec") and theirs.side == ours.side:
            scale = ours.frame_seconds / theirs.frame_seconds
            stream, file = scale * theirs.stream / ours.stream, scale * theirs.file / ours.file
            title = f"{ours.name} {ours.side} against {theirs.name}"
            yield f"{title}: {stream:.1f} times faster as a stream, {file:.1f} as a file"


@click.command()
@click.argument("models", nargs=-1)
@click.option("--seconds", default=10.0, show_default=True, help="Length of the file.")
@click.option("--without-encodec", is_flag=True, help="Time the bundles alone; needs no torch.")
def main(models: tuple[str, ...], seconds: float, without_encodec: bool) -> None:
    """Time MODELS (names or paths of bundles) on one thread."""
    subjects = [subject for model in models for subject in bundle_subjects(model)]
    if not without_encodec:
        subjects += encodec_subjects()
    click.echo(table([measure(subject, seconds) for subject in subjects]))


if __name__ == "__main__":
    main()
