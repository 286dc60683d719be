"""Codecs over a set of files: one row a file, codec and rate, and means whose uncertainty is known.

A file through a codec is the unit of work: files and codecs are the parallel axes, and nothing depends on the number of
processes. What fails becomes a row that says so, because a long run must not die of one file. What lies where it should
not (see `linnet.evaluate.alignment`) keeps its scores in its row and stays out of every mean.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from linnet.bits.errors import LinnetError
from linnet.evaluate.alignment import Alignment, align, shift
from linnet.evaluate.codecs import CodecError, Contestant, Output, through
from linnet.evaluate.metrics import METRICS, RATE, MissingPackageError, Samples
from linnet.evaluate.sets import SetError, read_audio
from linnet.evaluate.statistics import Mean, Paired, bootstrap_mean, paired_test
from linnet.evaluate.store import Record, Store, digest


class MetricError(LinnetError):
    """A metric that nobody knows."""


@dataclass(frozen=True)
class Row:
    """One file through one codec at one rate.

    Args:
        file: path below the set's folder.
        codec: its name; '' if the file could not be read.
        mode: the rate that it was run at, nominal kbit/s.
        kbps: measured for this file, payload only.
        bandwidth_hz: where the codec's audio ends.
        delay_ms: what was compensated.
        alignment: of what is left, as `Alignment`; None if there is no output.
        scores: by metric; nan where a metric has no score.
        fault: why the scores mean nothing, '' if they do mean something.
        notes: what is odd though the scores stand.
        error: what went wrong, '' if nothing.
        key: of the decoded audio in the store.
    """

    file: str
    codec: str = ""
    mode: float = float("nan")
    kbps: float = float("nan")
    bandwidth_hz: int = 0
    delay_ms: float = float("nan")
    alignment: Alignment | None = None
    scores: dict[str, float] = field(default_factory=dict)
    fault: str = ""
    notes: list[str] = field(default_factory=list)
    error: str = ""
    key: str = ""

    @property
    def label(self) -> str:
        """The codec with its rate, as tables call it."""
        return self.codec if np.isnan(self.mode) else f"{self.codec} {self.mode:g}"


@dataclass(frozen=True)
class Summary:
    """One codec at one rate over all files: means of kbit/s and of every metric, and how many files were left out."""

    label: str
    codec: str
    kbps: float
    bandwidth_hz: int
    delay_ms: float
    means: dict[str, Mean]
    faults: int


@dataclass(frozen=True)
class Skipped:
    """A codec that is not installed, and the line that installs it."""

    codec: str
    reason: str


@dataclass(frozen=True)
class Report:
    """Everything that a run found, files and codecs in the order in which they were given."""

    rows: list[Row]
    summaries: list[Summary]
    skipped: list[Skipped]

    @property
    def errors(self) -> list[Row]:
        """The rows of what failed, or lies where it should not."""
        return [row for row in self.rows if row.error or row.fault]

    def pairs(self, metric: str) -> dict[tuple[str, str], Paired]:
        """Every two codecs on the files that both have, by their labels."""
        scores: dict[str, dict[str, float]] = {summary.label: {} for summary in self.summaries}
        for row in self.rows:
            if not row.error and not row.fault:
                scores[row.label][row.file] = row.scores[metric]
        found = {}
        for one, other in combinations(scores, 2):
            both = [file for file in scores[one] if file in scores[other]]
            found[one, other] = paired_test([scores[one][file] for file in both], [scores[other][file] for file in both])
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain values; nan, which JSON has not, becomes None."""
        plain: dict[str, Any] = without_nan(asdict(self))
        return plain


def evaluate(
    contestants: Sequence[Contestant],
    files: Sequence[Path],
    metrics: Sequence[str],
    store: Store,
    jobs: int = 1,
    *,
    root: Path | None = None,
    on_done: Callable[[], object] | None = None,
) -> Report:
    """Every codec over every file, less what the store has already.

    Args:
        contestants: to score; with more than one job they are pickled. One that is not installed is skipped.
        files: audio of any rate and number of channels; channels are averaged, and all is judged at 16 kHz.
        metrics: names in `METRICS`.
        store: where results are looked for and kept.
        jobs: processes; with one, nothing is started.
        root: folder that the rows' file names leave out.
        on_done: called in this process after each file of each codec, `len(files) * len(contestants)` times.

    Raises:
        CodecError: if two codecs have one name.
        MetricError: if a metric is unknown.
        MissingPackageError: if a metric's package is not installed.
    """
    names = [contestant.codec.name for contestant in contestants]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise CodecError(f"two codecs are called {twice[0]!r}: rename the folder of one, or give a command another name")
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise MetricError(f"no metric is called {unknown[0]!r}: choose from {', '.join(METRICS)}")
    versions = {name: METRICS[name].identity() for name in metrics}
    reasons = [(contestant, contestant.codec.available()) for contestant in contestants]
    able = [(contestant, contestant.codec.identity()) for contestant, reason in reasons if reason is None]
    score = partial(_score, versions=versions, store=store, root=root)
    # file by file, so that a process reads a file once for all codecs that come its way
    tasks = [(path, contestant, identity) for path in files for contestant, identity in able]
    rows: list[Row] = []
    for found in _mapped(score, tasks, jobs):
        unreadable = not found[0].codec
        if not (unreadable and rows and rows[-1].file == found[0].file):  # which is told once, not by every codec
            rows += found
        if on_done is not None:
            on_done()
    skipped = [Skipped(contestant.codec.name, reason) for contestant, reason in reasons if reason is not None]
    return Report(rows, summarize(rows, metrics), skipped)


def summarize(rows: Sequence[Row], metrics: Sequence[str]) -> list[Summary]:
    """Means over the files of each codec and rate, in the order of their first rows; failed rows are left out."""
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        if not row.error:
            by_label.setdefault(row.label, []).append(row)
    return [_summary(label, found, metrics) for label, found in by_label.items()]


def _summary(label: str, found: Sequence[Row], metrics: Sequence[str]) -> Summary:
    scored = [row for row in found if not row.fault]
    return Summary(
        label=label,
        codec=found[0].codec,
        kbps=float(np.mean([row.kbps for row in found])),
        bandwidth_hz=max(row.bandwidth_hz for row in found),
        delay_ms=float(np.median([row.delay_ms for row in found])),
        means={name: bootstrap_mean([row.scores[name] for row in scored]) for name in metrics},
        faults=len(found) - len(scored),
    )


_Task = tuple[Path, Contestant, str]


def _mapped(score: Callable[[_Task], list[Row]], tasks: Sequence[_Task], jobs: int) -> Iterator[list[Row]]:
    if jobs <= 1 or len(tasks) <= 1:
        yield from map(score, tasks)
        return
    # Spawned, because a forked ONNX Runtime session has lost its threads and hangs.
    with ProcessPoolExecutor(min(jobs, len(tasks)), multiprocessing.get_context("spawn"), _ignore_interrupt) as pool:
        try:
            yield from pool.map(score, tasks)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ignore_interrupt() -> None:
    """In a process of the pool: it finishes its task, and only the one that asked for it says that it was interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _score(task: _Task, versions: dict[str, str], store: Store, root: Path | None) -> list[Row]:
    path, contestant, identity = task
    name = path.relative_to(root).as_posix() if root is not None else path.as_posix()
    try:
        reference, source = _read(path)
    except (OSError, soundfile.LibsndfileError, SetError) as error:
        return [Row(name, error=f"cannot be read: {error}")]
    codec = contestant.codec
    keys = {kbps: store.key(source, f"{codec.name} {identity}", kbps) for kbps in contestant.rates}
    known = {kbps: store.record(key) for kbps, key in keys.items()}
    missing = [kbps for kbps, record in known.items() if record is None]
    try:
        for kbps, output in zip(missing, through(codec, reference, missing) if missing else (), strict=True):
            known[kbps] = _keep(store, keys[kbps], reference, output)
        return [_row(name, codec.name, kbps, keys[kbps], record, reference, versions, store) for kbps, record in known.items()]
    except MissingPackageError:
        raise  # would fail for every file
    except Exception as error:  # whatever a codec does to one file, the others are still scored
        return [Row(name, codec.name, error=f"{type(error).__name__}: {error}")]


def _keep(store: Store, key: str, reference: Samples, output: Output) -> Record:
    samples, delay_ms = output.samples, output.delay_ms
    if delay_ms is None:
        lag_ms = align(reference, samples[: len(reference)]).lag_ms
        delay_ms = 0.0 if np.isnan(lag_ms) else lag_ms
        samples = shift(samples, delay_ms)[: len(reference)]
    samples = store.save_audio(key, samples)
    record = Record(output.kbps, output.bandwidth_hz, delay_ms, align(reference, samples))
    store.save(key, record)
    return record


def _row(
    name: str,
    codec: str,
    mode: float,
    key: str,
    record: Record | None,
    reference: Samples,
    versions: dict[str, str],
    store: Store,
) -> Row:
    assert record is not None
    missing = [metric for metric, version in versions.items() if version not in record.scores]
    if missing:
        samples = store.audio(key)
        for metric in missing:
            record.scores[versions[metric]] = METRICS[metric].function(reference, samples, RATE)
        store.save(key, record)
    return Row(
        file=name,
        codec=codec,
        mode=mode,
        kbps=record.kbps,
        bandwidth_hz=record.bandwidth_hz,
        delay_ms=record.delay_ms,
        alignment=record.alignment,
        scores={metric: record.scores[version] for metric, version in versions.items()},
        fault=record.alignment.fault(),
        notes=record.alignment.notes(),
        key=key,
    )


@lru_cache(maxsize=1)
def _read(path: Path) -> tuple[npt.NDArray[np.float64], str]:
    """A file's [samples] and their digest; the last one stays, because every codec wants it."""
    samples = read_audio(path)
    return samples, digest(samples)


def without_nan(value: Any) -> Any:
    """A tree of dicts and lists with None for nan."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
