"""Codecs over a set of clips: the engine.

A clip through a codec is the unit of work: clips and codecs are the parallel axes, and nothing depends on the number of
processes. What fails becomes a row that says so, because a long run must not die of one file.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import soundfile

from linnet.bits.errors import LinnetError
from linnet.evaluate.alignment import align, shift
from linnet.evaluate.codecs import CodecError, Contestant, Output, through
from linnet.evaluate.conditions.grammar import parse_condition
from linnet.evaluate.metrics import METRICS, RATE, MissingPackageError
from linnet.evaluate.metrics.versa import VersaMetric, score
from linnet.evaluate.report import Report, Row, Skipped, summarize
from linnet.evaluate.sets import Clip, SetError, read_clip
from linnet.evaluate.store import Record, Store, digest

_TOGETHER = 200  # clips in one call of VERSA: what an interrupted run loses


class MetricError(LinnetError):
    """A metric that nobody knows."""


def evaluate(
    contestants: Sequence[Contestant],
    clips: Sequence[Clip],
    metrics: Sequence[str],
    store: Store,
    jobs: int = 1,
    *,
    on_done: Callable[[], object] | None = None,
) -> Report:
    """Every codec over every clip, less what the store has already.

    Args:
        contestants: to score; with more than one job they are pickled. One that is not installed is skipped.
        clips: audio of any rate and number of channels; channels are averaged, and all is judged at 16 kHz.
        metrics: names in `METRICS`.
        store: where results are looked for and kept.
        jobs: processes; with one, nothing is started.
        on_done: called in this process after each clip of each codec that takes part, at most
            `len(clips) * len(contestants)` times.

    Raises:
        CodecError: if two codecs have one name.
        ConditionError: if a clip's condition is none.
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
    together = {name: version for name, version in versions.items() if isinstance(METRICS[name], VersaMetric)}
    able, skipped = _able(contestants, clips)
    singly = {name: version for name, version in versions.items() if name not in together}
    scored = partial(_score, versions=singly, store=store)
    # clip by clip, so that a process reads a clip once for all codecs that come its way
    tasks = [_Task(clip, *one) for clip in clips for one in able[clip.condition, clip.seed]]
    rows: list[Row] = []
    for found in _mapped(scored, tasks, jobs):
        unreadable = not found[0].codec
        if not (unreadable and rows and rows[-1].file == found[0].file):  # which is told once, not by every codec
            rows += found
        if on_done is not None:
            on_done()
    _score_together(rows, {clip.name: clip for clip in clips}, together, store)
    return Report(rows, summarize(rows, metrics), skipped)


class _Able(NamedTuple):
    """A codec as it runs under a condition, its identity there, and how often a clip goes through it."""

    contestant: Contestant
    identity: str
    times: int


class _Task(NamedTuple):
    clip: Clip
    contestant: Contestant
    identity: str
    times: int


def _able(contestants: Sequence[Contestant], clips: Sequence[Clip]) -> tuple[dict[tuple[str, int], list[_Able]], list[Skipped]]:
    """Who takes part under each condition and seed, and who does not and why."""
    able: dict[tuple[str, int], list[_Able]] = {}
    skipped: dict[Skipped, None] = {}
    for place in dict.fromkeys((clip.condition, clip.seed) for clip in clips):
        condition, network = parse_condition(place[0]), parse_condition(place[0]).network(place[1])
        able[place] = []
        for contestant in contestants:
            codec = contestant.codec if network is None else contestant.codec.over(network)
            reason = f"{place[0]}: it takes no packet loss here" if codec is None else codec.available()
            if codec is None or reason is not None:
                skipped[Skipped(contestant.codec.name, reason or "")] = None
                continue
            again = f" {condition.times} times" if condition.times > 1 else ""
            able[place].append(_Able(Contestant(codec, contestant.rates), codec.identity() + again, condition.times))
    return able, list(skipped)


def _mapped(score: Callable[[_Task], list[Row]], tasks: Sequence[_Task], jobs: int) -> Iterator[list[Row]]:
    if jobs <= 1 or len(tasks) <= 1:
        yield from map(score, tasks)
        return
    others = multiprocessing.active_children()
    # Spawned, because a forked ONNX Runtime session has lost its threads and hangs.
    with ProcessPoolExecutor(min(jobs, len(tasks)), multiprocessing.get_context("spawn"), _only_stopped) as pool:
        try:
            with _held_interrupt():
                waiting = deque(pool.submit(_stoppable, score, task) for task in tasks)
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            _stop([process for process in multiprocessing.active_children() if process not in others])
            raise


@contextmanager
def _held_interrupt() -> Iterator[None]:
    """An interruption waits for the end of the block, and does not meet a process of the pool that has only begun."""
    if not hasattr(signal, "pthread_sigmask"):  # not every system has it
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _only_stopped() -> None:
    """In a process of the pool: the one that asked for it is interrupted alone, and stops the others."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, lambda *_: None)  # to ignore it, or to go on holding it, would be handed on to codecs' tools
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _leave(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # the pool sends another, which would end the tidying up
    sys.exit()


def _stoppable(score: Callable[[_Task], list[Row]], task: _Task) -> list[Row]:
    try:
        return score(task)
    except SystemExit:  # the pool would take it for a result and go on
        os._exit(1)


def _stop(processes: Sequence[BaseProcess]) -> None:
    """End processes in about a second, though some may be busy in foreign code that hears of it only later."""
    for process in processes:
        process.terminate()
    end = time.monotonic() + 1
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        process.kill()


def _score(task: _Task, versions: dict[str, str], store: Store) -> list[Row]:
    clip, contestant, identity, times = task
    try:
        sound = _read(clip)
    except (OSError, soundfile.LibsndfileError, SetError) as error:
        return [Row(clip.name, condition=clip.condition, error=f"cannot be read: {error}")]
    codec = contestant.codec
    keys = {kbps: store.key(sound.source, f"{codec.name} {identity}", kbps) for kbps in contestant.rates}
    known = {kbps: store.record(key) for kbps, key in keys.items()}
    missing = [kbps for kbps, record in known.items() if record is None]
    try:
        for kbps, output in zip(missing, through(codec, sound.heard, missing, times) if missing else (), strict=True):
            known[kbps] = _keep(store, keys[kbps], sound, output)
        return [_row(clip, codec.name, kbps, keys[kbps], record, sound, versions, store) for kbps, record in known.items()]
    except MissingPackageError:
        raise  # would fail for every file
    except Exception as error:  # whatever a codec does to one file, the others are still scored
        return [Row(clip.name, codec.name, clip.condition, error=f"{type(error).__name__}: {error}")]


def _keep(store: Store, key: str, sound: _Sound, output: Output) -> Record:
    samples, delay_ms = output.samples, output.delay_ms
    length = len(sound.heard)
    if delay_ms is None:
        lag_ms = align(sound.heard, samples[:length]).lag_ms
        delay_ms = 0.0 if np.isnan(lag_ms) else lag_ms
        samples = shift(samples, delay_ms)[:length]
    samples = store.save_audio(key, samples)
    record = Record(output.kbps, output.bandwidth_hz, delay_ms, align(sound.heard, samples))
    store.save(key, record)
    return record


def _row(
    clip: Clip,
    codec: str,
    mode: float,
    key: str,
    record: Record | None,
    sound: _Sound,
    versions: dict[str, str],
    store: Store,
) -> Row:
    assert record is not None
    names = {metric: version + sound.against for metric, version in versions.items()}
    missing = [metric for metric, name in names.items() if name not in record.scores]
    alignment = record.alignment
    if missing or (sound.against and alignment.fault()):
        samples = store.audio(key)
        for metric in missing:
            record.scores[names[metric]] = METRICS[metric].function(sound.wanted, samples, RATE)
        if missing:
            store.save(key, record)
        if sound.against and alignment.fault():  # a codec that cleans gives back what is wanted, not what it heard
            alignment = max(alignment, align(sound.wanted, samples), key=lambda found: found.envelope)
    fault, notes = alignment.fault(), alignment.notes()
    if fault and clip.condition != "clean" and not alignment.certain:  # noise hides the envelopes that this is told by
        fault, notes = "", [f"perhaps {fault}", *notes]
    return Row(
        file=clip.name,
        codec=codec,
        condition=clip.condition,
        mode=mode,
        kbps=record.kbps,
        bandwidth_hz=record.bandwidth_hz,
        delay_ms=record.delay_ms,
        alignment=alignment,
        scores={metric: record.scores[name] for metric, name in names.items()},
        fault=fault,
        notes=notes,
        key=key,
    )


def _score_together(rows: Sequence[Row], clips: dict[str, Clip], versions: dict[str, str], store: Store) -> None:
    """The scores of VERSA, put into rows that have audio; many clips a call, kept after each."""
    keys = {name: metric.key for name in versions if isinstance(metric := METRICS[name], VersaMetric)}
    lacking = []
    for row in rows if versions else ():
        record = store.record(row.key) if row.key else None
        if record is None:
            continue
        against = _read(clips[row.file]).against
        names = {name: version + against for name, version in versions.items()}
        row.scores.update({name: record.scores.get(kept, float("nan")) for name, kept in names.items()})
        if any(kept not in record.scores for kept in names.values()):
            lacking.append((row, names))
    for start in range(0, len(lacking), _TOGETHER):
        batch = lacking[start : start + _TOGETHER]
        pairs = [(_read(clips[row.file]).wanted, store.audio(row.key)) for row, _ in batch]
        for (row, names), found in zip(batch, score(list(keys.values()), pairs), strict=True):
            record = store.record(row.key)
            assert record is not None
            for name, kept in names.items():
                row.scores[name] = record.scores[kept] = found[keys[name]]
            store.save(row.key, record)


class _Sound(NamedTuple):
    """A clip's [samples]: what codecs are given and what they should give back, the former's digest, and what tells
    scores against something else from those against it."""

    heard: npt.NDArray[np.float64]
    wanted: npt.NDArray[np.float64]
    source: str
    against: str


@lru_cache(maxsize=1)
def _read(clip: Clip) -> _Sound:
    """The last clip stays, because every codec wants it."""
    heard, wanted = read_clip(clip)
    against = "" if clip.reference is None else f" against {digest(wanted)[:24]}"
    return _Sound(heard, wanted, digest(heard), against)
