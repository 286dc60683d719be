"""How fast a bundle codes, beside the least that this core could take, Opus, Codec 2 and EnCodec's 24 kHz model in shape.

    python bench/speed.py MODEL... [--seconds 10] [--without-encodec]

All on one thread in one run, in turn, and medians of everything, so that what else the machine does meets all alike.
Each runs as a stream (one frame a call, its state carried along) and as a file (in the runtime's blocks of frames). "x
real time" is seconds of audio for each second of work. The floor is the time of a graph's multiply-accumulates at the
core's 8-bit rate, or of reading its weights once, whichever is longer; both rates are measured in this run
(`floor.py`). The rows "packets" are what a caller of the runtime meets: samples in and packets out, and back. Opus runs
at 6 kbit/s and complexity 10, Codec 2 at 1.2 kbit/s, from their own libraries (`c_codecs.py`). The rows "torch" are
EnCodec's shape in eager PyTorch with its weight normalisation computed in every call, as it ships; the rows "onnx" are
the same network with that folded away, in the runtime that runs our bundles. Its weights are random: the time does not
depend on them.
"""

import io
import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import c_codecs
import click
import numpy as np
from floor import Reading, Work, products, work

from linnet.runtime.graph import BLOCK_FRAMES

Array = np.ndarray
Stream = Callable[[Sequence], object]  # runs the next data, and keeps the state
WARM_UP = 10
ROUNDS = 20
STREAM_SECONDS = 2.0
FILE_ROUNDS = 3


@dataclass(frozen=True)
class Subject:
    """One side of one codec, ready to run."""

    name: str
    side: str
    sample_rate: int
    hop: int
    start: Callable[[], Stream]
    data: Callable[[int], Sequence]  # of so many frames
    work: Work | None = None  # of one frame, where we ask for the floor

    @property
    def frame_seconds(self) -> float:
        return self.hop / self.sample_rate


@dataclass(frozen=True)
class Timing:
    """Seconds of work for a frame."""

    subject: Subject
    stream: float
    file: float

    @property
    def name(self) -> str:
        return self.subject.name


@dataclass(frozen=True)
class Machine:
    """This core's rates."""

    macs_per_second: float
    bytes_per_second: float


class Run:
    """A subject's measurements, in turns with the others'."""

    def __init__(self, subject: Subject, seconds: float):
        self.subject = subject
        self.singles = max(1, round(min(seconds, STREAM_SECONDS) / subject.frame_seconds / ROUNDS))
        self.frames = max(1, round(seconds / subject.frame_seconds))
        needed = max(self.frames, WARM_UP + ROUNDS * (1 + self.singles))
        self.data = subject.data(needed)
        self.step = len(self.data) // needed
        self.stream, self.position = subject.start(), 0
        self.spent: list[float] = []
        self.files: list[float] = []
        for _ in range(WARM_UP):
            self._next()

    def _next(self) -> float:
        self.position += self.step
        return timed(self.stream, self.data[self.position - self.step : self.position])

    def singly(self) -> None:
        """A turn of single frames; the first of them finds the caches full of the others' data, and is left out."""
        self._next()
        self.spent += [self._next() for _ in range(self.singles)]

    def file(self) -> None:
        """The whole file."""
        stream, block, end = self.subject.start(), BLOCK_FRAMES * self.step, self.frames * self.step
        self.files.append(sum(timed(stream, self.data[start : min(start + block, end)]) for start in range(0, end, block)))

    def timing(self) -> Timing:
        return Timing(self.subject, median(self.spent), median(self.files) / self.frames)


def measure(subjects: Sequence[Subject], seconds: float) -> tuple[list[Timing], Machine]:
    """Time all sides in turns as streams and as files of `seconds`, and the core's rates between them."""
    runs = [Run(subject, seconds) for subject in subjects]
    small, large = products()
    reading = Reading(sum(subject.work.weight_bytes for subject in subjects if subject.work) or 1 << 22)
    probes: list[list[float]] = []
    for _ in range(ROUNDS):
        for run in runs:
            run.singly()
        for probe in (small, large, reading):
            probe()
            probes.append([timed(probe) for _ in range(WARM_UP)])
    for _ in range(FILE_ROUNDS):
        for run in runs:
            run.file()
    seconds_small, seconds_large, seconds_reading = (median(itertools.chain(*probes[probe::3])) for probe in range(3))
    macs_per_second = (large.macs - small.macs) / (seconds_large - seconds_small)
    return [run.timing() for run in runs], Machine(macs_per_second, reading.bytes / seconds_reading)


def timed(call: Callable, *data: Sequence) -> float:
    """Seconds of this thread, without those in which another process had the core."""
    start = time.thread_time()
    call(*data)
    return time.thread_time() - start


def bundle_subjects(model: str) -> list[Subject]:
    """Both sides of a bundle, by name or path: the graphs, and the runtime's streams around them."""
    from linnet import bundle
    from linnet.bits import pack_packets
    from linnet.runtime.codec import Codec

    opened = bundle.load(model)
    card, codec = opened.card, Codec(opened)
    rng = np.random.default_rng(0)
    sizes = [column.size for column in card.columns]
    makers = {
        "encoder": lambda frames: rng.uniform(-0.1, 0.1, (frames, card.hop)).astype(np.float32),
        "decoder": lambda frames: rng.integers(0, sizes, (frames, len(sizes))),
    }
    subjects = []
    for side, serialized, graph in (
        ("encoder", opened.encoder, codec.encoder_graph),
        ("decoder", opened.decoder, codec.decoder_graph),
    ):
        least = work(serialized, partial(feeds, graph, makers[side]))
        subjects.append(Subject(card.name, side, card.sample_rate, card.hop, graph.stream, makers[side], least))

    def packets(frames: int) -> list[bytes]:
        return pack_packets(makers["decoder"](frames), card.layout, card.layout.n_layers)

    for side, start, make in (
        ("encoder", lambda: codec.encoder().push, lambda frames: makers["encoder"](frames).reshape(-1)),
        ("decoder", lambda: codec.decoder().push, packets),
    ):
        subjects.append(Subject(f"{card.name}, packets", side, card.sample_rate, card.hop, start, make))
    return subjects


def feeds(graph, make: Callable[[int], Array], frames: int) -> dict[str, Array]:
    return dict(zip(graph.inputs, [make(frames)[:, np.newaxis], *graph.stream().save().values()], strict=True))


def c_subjects() -> list[Subject]:
    """Both sides of the codecs in C that are installed here."""
    subjects = []
    for name, package, kind in (("opus", "libopus0", c_codecs.Opus), ("codec2", "libcodec2-dev", c_codecs.Codec2)):
        if (library := c_codecs.library(name)) is None:
            click.echo(f"{kind.name} is left out: lib{name} is not installed (Debian: {package})", err=True)
            continue
        codec = kind(library)

        def frames(count: int, codec=codec) -> Array:
            samples = c_codecs.speechlike(count * codec.hop / codec.sample_rate, codec.sample_rate)
            return samples.reshape(count, codec.hop)

        def packets(count: int, codec=codec, frames=frames) -> list[bytes]:
            return codec.encoder()(frames(count))

        for side, start, data in (("encoder", codec.encoder, frames), ("decoder", codec.decoder, packets)):
            subjects.append(Subject(codec.name, side, codec.sample_rate, codec.hop, start, data))
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
        "encoder": lambda frames: rng.uniform(-0.1, 0.1, (frames, encodec.HOP)).astype(np.float32),
        "decoder": lambda frames: rng.integers(0, encodec.CODEBOOK_SIZE, (frames, encodec.CODEBOOKS)),
    }
    subjects = []
    for side, network in (("encoder", encodec.Encoder().eval()), ("decoder", encodec.Decoder().eval())):
        first, states = firsts[side], [state.numpy() for state in network.initial()]
        folded = export(type(network)().eval().fold(), first(8)[:, np.newaxis], states)
        for runtime, start in (("torch", partial(torch_stream, network, states)), ("onnx", Graph(folded).stream)):
            name = f"EnCodec, {runtime}"
            subjects.append(Subject(name, side, encodec.SAMPLE_RATE, encodec.HOP, start, first))
    return subjects


def torch_stream(network, states: list[Array]) -> Stream:
    import torch

    state = list(map(torch.from_numpy, states))

    def step(data: Array) -> None:
        with torch.inference_mode():
            _, *state[:] = network(torch.from_numpy(data[:, np.newaxis]), *state)

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


def table(timings: list[Timing], machine: Machine) -> str:
    """The timings, both sides of each together, our shares of the floor, and how many times longer the others take."""
    lines = [f"{'':28}{'us a frame':>22}{'x real time':>22}{'floor':>16}"]
    lines.append(f"{'':28}" + f"{'stream':>11}{'file':>11}" * 2 + f"{'us':>8}{'share':>8}")
    for row in timings:
        lines.append(f"{row.name[:19]:20}{row.subject.side:8}" + cells(row.stream, row.file, row.subject.frame_seconds))
        if row.subject.work:
            least = row.subject.work.seconds(machine.macs_per_second, machine.bytes_per_second)
            lines[-1] += f"{least * 1e6:8.1f}{least / row.stream:8.0%}"
    for name in dict.fromkeys(row.name for row in timings):
        sides = [row for row in timings if row.name == name]
        together = cells(sum(row.stream for row in sides), sum(row.file for row in sides), sides[0].subject.frame_seconds)
        lines.append(f"{name[:19]:20}{'both':8}{together}")
    rates = f"{machine.macs_per_second / 1e9:.0f} 8-bit GMAC/s, {machine.bytes_per_second / 1e9:.0f} GB/s"
    return "\n".join([*lines, f"this core: {rates}", *(line for row in timings for line in ratios(row, timings))])


def cells(stream: float, file: float, frame_seconds: float) -> str:
    return f"{stream * 1e6:11.1f}{file * 1e6:11.1f}{frame_seconds / stream:11.1f}{frame_seconds / file:11.1f}"


def ratios(ours: Timing, timings: list[Timing]) -> Iterator[str]:
    """What each other codec's time is of ours, for the same seconds of audio: above 1, ours is the faster one."""
    if not ours.subject.work:
        return
    for theirs in timings:
        if not theirs.subject.work and theirs.subject.side == ours.subject.side:
            scale = ours.subject.frame_seconds / theirs.subject.frame_seconds
            stream, file = scale * theirs.stream / ours.stream, scale * theirs.file / ours.file
            title = f"{theirs.name} / {ours.name}, {ours.subject.side}"
            yield f"{title:36}{stream:8.2f} times as long as a stream, {file:.2f} as a file"


@click.command()
@click.argument("models", nargs=-1)
@click.option("--seconds", default=10.0, show_default=True, help="Length of the file.")
@click.option("--without-encodec", is_flag=True, help="Leave EnCodec's shape out; needs no torch.")
def main(models: tuple[str, ...], seconds: float, without_encodec: bool) -> None:
    """Time MODELS (names or paths of bundles) on one thread."""
    subjects = [subject for model in models for subject in bundle_subjects(model)] + c_subjects()
    if not without_encodec:
        subjects += encodec_subjects()
    click.echo(table(*measure(subjects, seconds)))


if __name__ == "__main__":
    main()
