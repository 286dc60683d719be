"""Codecs over a set of files: one row a file and condition, and means whose uncertainty is known.

Files are the parallel axis: each is read once and goes through every codec in one process. Nothing depends on the number
of processes. What fails becomes a row that says so, because a long run must not die of one file.
"""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from linnet.bits import keep_layers
from linnet.bits.errors import LinnetError
from linnet.evaluate.baselines import Baseline
from linnet.evaluate.metrics import METRICS, RATE, MissingPackageError, Samples, to_rate

SUFFIXES = frozenset({".aif", ".aiff", ".flac", ".mp3", ".ogg", ".opus", ".w64", ".wav"})
_RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)  # percent


class SetError(LinnetError):
    """A set of files that is not there, or empty."""


class MetricError(LinnetError):
    """A metric that nobody knows."""


@dataclass(frozen=True)
class Output:
    """One file through one codec at one rate: decoded [samples] at 16 kHz, aligned with the input, and its kbit/s."""

    codec: str
    samples: npt.NDArray[Any]
    kbps: float


class Contestant(Protocol):
    """Something to score. It is sent to other processes, so it opens what is large only when it runs."""

    @property
    def name(self) -> str:
        """Of the codec, whatever its rate."""

    def outputs(self, samples: Samples) -> Iterable[Output]:
        """[samples] at 16 kHz through the codec, once for each of its rates."""


@dataclass(frozen=True)
class Legacy:
    """A baseline as a contestant: one rate."""

    baseline: Baseline

    @property
    def name(self) -> str:
        """The baseline's."""
        return self.baseline.name

    def outputs(self, samples: Samples) -> Iterator[Output]:
        """See `Contestant.outputs`."""
        decoded, kbps = self.baseline.run(samples)
        yield Output(self.name, decoded, kbps)


@dataclass(frozen=True)
class Bundle:
    """A Linnet model, by name or path, at several rates of which each is a prefix of the same encoding.

    Rates that fall on the same number of layers are scored once.
    """

    model: str
    kbps: tuple[float, ...]

    @property
    def name(self) -> str:
        """The model's, short for a path."""
        return Path(self.model).name

    def rates(self) -> dict[int, float]:
        """The numbers of layers to score, and the kbit/s of each.

        Raises:
            LinnetError: if the model cannot be opened, or a rate is below its first layer.
        """
        layout = opened(self.model).layout
        return {n: layout.kbps(n) for n in sorted({layout.layers_for_kbps(kbps) for kbps in self.kbps})}

    def outputs(self, samples: Samples) -> Iterator[Output]:
        """See `Contestant.outputs`."""
        codec = opened(self.model)
        codes = codec.encode_codes(samples.astype(np.float32), RATE)
        for n_layers, kbps in self.rates().items():
            decoded = np.asarray(codec.decode_codes(keep_layers(codes, codec.layout, n_layers), RATE))[: len(samples)]
            yield Output(f"{self.name} {kbps:g}", np.pad(decoded, (0, len(samples) - len(decoded))), kbps)


@dataclass(frozen=True)
class Row:
    """One file through one codec.

    Args:
        file: path below the set's folder.
        codec: with its rate; '' if the file could not be read.
        kbps: measured for this file.
        scores: by metric; nan where a metric has no score.
        error: what went wrong, '' if nothing.
    """

    file: str
    codec: str = ""
    kbps: float = float("nan")
    scores: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Mean:
    """A mean over files with the 95 % interval of its bootstrap; `files` have a score, `unscored` have nan."""

    value: float
    low: float
    high: float
    files: int
    unscored: int


@dataclass(frozen=True)
class Summary:
    """One codec over all files: mean kbit/s and the mean of every metric."""

    codec: str
    kbps: float
    means: dict[str, Mean]


@dataclass(frozen=True)
class Report:
    """Everything that a run found, files and codecs in the order in which they were given."""

    rows: list[Row]
    summaries: list[Summary]

    @property
    def errors(self) -> list[Row]:
        """The rows of what failed."""
        return [row for row in self.rows if row.error]

    def to_json(self) -> dict[str, Any]:
        """As plain values; nan, which JSON has not, becomes None."""
        plain: dict[str, Any] = _without_nan(asdict(self))
        return plain


def evaluate(
    codecs: Sequence[Contestant],
    files: Sequence[Path],
    metrics: Sequence[str],
    jobs: int = 1,
    *,
    root: Path | None = None,
    on_file: Callable[[], object] | None = None,
) -> Report:
    """Every codec over every file.

    Args:
        codecs: to score; with more than one job they are pickled.
        files: audio of any rate and number of channels; channels are averaged, and all is judged at 16 kHz.
        metrics: names in `METRICS`.
        jobs: processes; with one, nothing is started.
        root: folder that the rows' file names leave out.
        on_file: called in this process after each file.

    Raises:
        MetricError: if a metric is unknown.
        MissingPackageError: if a metric's package is not installed.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise MetricError(f"no metric is called {unknown[0]!r}: choose from {', '.join(METRICS)}")
    score = partial(_score_file, codecs=tuple(codecs), metrics=tuple(metrics), root=root)
    rows: list[Row] = []
    for found in _mapped(score, files, jobs):
        rows += found
        if on_file is not None:
            on_file()
    return Report(rows, summarize(rows, metrics))


def summarize(rows: Sequence[Row], metrics: Sequence[str]) -> list[Summary]:
    """Means over the files of each codec, in the order of their first rows; failed rows are left out."""
    by_codec: dict[str, list[Row]] = {}
    for row in rows:
        if not row.error:
            by_codec.setdefault(row.codec, []).append(row)
    return [
        Summary(
            codec=codec,
            kbps=float(np.mean([row.kbps for row in scored])),
            means={name: bootstrap_mean([row.scores[name] for row in scored]) for name in metrics},
        )
        for codec, scored in by_codec.items()
    ]


def bootstrap_mean(values: Sequence[float]) -> Mean:
    """Mean of what is not nan, with the percentile interval of 2000 resamples of the files (Efron, 1979).

    The resamples come from a fixed seed: the same scores give the same interval.
    """
    every = np.asarray(values, np.float64)
    known = every[~np.isnan(every)]
    if len(known) == 0:
        return Mean(float("nan"), float("nan"), float("nan"), files=0, unscored=len(every))
    drawn = np.random.default_rng(0).integers(len(known), size=(_RESAMPLES, len(known)))
    low, high = np.percentile(known[drawn].mean(axis=1), _INTERVAL)
    return Mean(float(known.mean()), float(low), float(high), files=len(known), unscored=len(every) - len(known))


def find_files(folder: Path, split: str = "test", limit: int | None = None) -> list[Path]:
    """The audio files of a set, sorted.

    Args:
        folder: audio files at any depth; or a corpus with a manifest.csv, whose speech is taken.
        split: of the corpus; a plain folder has none.
        limit: at most so many files, spread evenly over all.

    Raises:
        SetError: if there is none.
    """
    if not folder.is_dir():
        raise SetError(f"{folder} is not a folder: give --set a folder of audio files or a corpus")
    manifest = folder / "manifest.csv"
    if manifest.is_file():
        files = _listed(manifest, split)
    else:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise SetError(f"{folder} holds no audio files: give --set a folder with {', '.join(sorted(SUFFIXES))} files")
    if limit is None or limit >= len(files):
        return files
    return [files[index] for index in np.linspace(0, len(files) - 1, limit).round().astype(int)]


def _listed(manifest: Path, split: str) -> list[Path]:
    with manifest.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        missing = {"path", "kind", "split"} - set(reader.fieldnames or ())
        if missing:
            raise SetError(f"{manifest} has no column {sorted(missing)[0]!r}: a manifest has path, kind and split")
        speech = [entry for entry in reader if entry["kind"] == "speech"]
    files = sorted(manifest.parent / entry["path"] for entry in speech if entry["split"] == split)
    if not files:
        there = ", ".join(sorted({entry["split"] for entry in speech})) or "none at all"
        raise SetError(f"{manifest} has no speech of split {split!r}: it has {there}")
    return files


def _mapped(score: Callable[[Path], list[Row]], files: Sequence[Path], jobs: int) -> Iterator[list[Row]]:
    if jobs <= 1 or len(files) <= 1:
        yield from map(score, files)
        return
    # Spawned, because a forked ONNX Runtime session has lost its threads and hangs.
    with ProcessPoolExecutor(min(jobs, len(files)), multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(score, files)


def _score_file(path: Path, codecs: Sequence[Contestant], metrics: Sequence[str], root: Path | None) -> list[Row]:
    name = path.relative_to(root).as_posix() if root is not None else path.as_posix()
    try:
        reference = _read(path)
    except (OSError, soundfile.LibsndfileError, SetError) as error:
        return [Row(name, error=f"cannot be read: {error}")]
    rows: list[Row] = []
    for codec in codecs:
        try:
            for output in codec.outputs(reference):
                scores = {metric: METRICS[metric].function(reference, output.samples, RATE) for metric in metrics}
                rows.append(Row(name, output.codec, output.kbps, scores))
        except MissingPackageError:
            raise  # would fail for every file
        except Exception as error:  # whatever a codec does to one file, the others are still scored
            rows.append(Row(name, codec.name, error=f"{type(error).__name__}: {error}"))
    return rows


def _read(path: Path) -> npt.NDArray[np.float64]:
    """A file as one channel at 16 kHz, [samples]."""
    samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    if len(samples) == 0:
        raise SetError("it holds no samples")
    if not np.isfinite(samples).all():
        raise SetError("it holds samples that are no numbers")
    return to_rate(samples.mean(axis=1), rate, RATE)


@cache
def opened(model: str) -> Any:
    """The model, opened once a process."""
    import linnet

    return linnet.load(model)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
