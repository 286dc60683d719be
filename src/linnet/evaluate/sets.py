"""Sets of recordings: which files, what happened to them, and a file as everything here hears it."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import soundfile

from linnet.bits.errors import LinnetError
from linnet.evaluate.metrics import RATE, Samples, to_int16, to_rate

SUFFIXES = frozenset({".aif", ".aiff", ".flac", ".mp3", ".ogg", ".opus", ".w64", ".wav"})

_COLUMNS = {"path", "kind", "split"}
_CONDITION_COLUMNS = {"condition", "clip", "reference", "seed", "sha256", "reference_sha256"}


class SetError(LinnetError):
    """A set of files that is not there, or empty, or a file of it that holds nothing or not what it should."""


@dataclass(frozen=True)
class Clip:
    """One recording under one condition.

    Args:
        name: as tables call it: the path below the set's folder, with the condition in front if that is not in it.
        path: of what codecs are given.
        reference: of what they should give back, if that is something else.
        condition: its name, see `linnet.evaluate.conditions.grammar`.
        seed: of what chance decides while it is coded.
        sha256: of the samples at `path`, as `digest_16` takes it, '' if nobody said.
        reference_sha256: likewise of the reference.
        source: of which recording it was made: the path below that corpus's folder; '' if nobody said.
    """

    name: str
    path: Path
    reference: Path | None = None
    condition: str = "clean"
    seed: int = 0
    sha256: str = ""
    reference_sha256: str = ""
    source: str = ""


@dataclass(frozen=True)
class Recording:
    """A file of a corpus and who speaks in it, its own path if nobody knows."""

    path: Path
    speaker: str


def find_clips(folder: Path, split: str = "test", limit: int | None = None) -> list[Clip]:
    """The clips of a set in the order of their conditions and names: recordings, or a set that `linnet conditions` made.

    Args:
        folder: audio files at any depth; or a corpus with a manifest.csv, whose speech is taken.
        split: of the corpus; a plain folder has none.
        limit: at most so many clips of each condition, spread evenly over all.

    Raises:
        SetError: if there is none.
    """
    manifest = folder / "manifest.csv"
    if manifest.is_file() and "condition" in read_table(manifest)[0]:
        return _conditioned(manifest, split, limit)
    return [Clip(path.relative_to(folder).as_posix(), path) for path in find_files(folder, split, limit)]


def find_files(folder: Path, split: str = "test", limit: int | None = None) -> list[Path]:
    """The speech files of a set, sorted. Arguments and what is raised as in `find_clips`."""
    found = [recording.path for recording in find_recordings(folder, "speech", split)]
    return spread(found, limit)


def find_recordings(folder: Path, kind: str, split: str) -> list[Recording]:
    """All recordings of one kind (speech, noise, rir) and split of a corpus, sorted; a plain folder has only speech.

    Raises:
        SetError: if there is no folder, its manifest is none, or it has no speech of this split, or none at all.
    """
    if not folder.is_dir():
        raise SetError(f"{folder} is not a folder: name a folder of audio files or a corpus")
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        if kind != "speech":
            return []
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not paths:
            raise SetError(f"{folder} holds no audio files: name a folder with {', '.join(sorted(SUFFIXES))} files")
        return [Recording(path, str(path)) for path in paths]
    entries = [entry for entry in read_manifest(manifest, _COLUMNS) if entry["kind"] == kind]
    here = [entry for entry in entries if entry["split"] == split]
    if kind == "speech" and not here:
        there = ", ".join(sorted({entry["split"] for entry in entries})) or "none at all"
        raise SetError(f"{manifest} has no speech of split {split!r}: it has {there}")
    return sorted(
        (Recording(manifest.parent / entry["path"], entry.get("speaker") or entry["path"]) for entry in here),
        key=lambda recording: recording.path,
    )


def said_of_each(folder: Path, column: str) -> dict[str, str]:
    """What a set's manifest says in one column, like a speaker's language, by each clip's name as `find_clips` has it.

    Raises:
        SetError: if there is no manifest, or no such column.
    """
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        raise SetError(f"{folder} is no corpus: without a manifest.csv nobody knows a {column}")
    return {_name(entry): entry[column] for entry in read_manifest(manifest, {"path", column})}


def read_audio(path: Path) -> npt.NDArray[np.float64]:
    """A file as one channel at 16 kHz, [samples].

    Raises:
        SetError: if it holds no samples, or some that are no numbers.
        soundfile.LibsndfileError: if it is no audio.
    """
    samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    if len(samples) == 0:
        raise SetError("it holds no samples")
    if not np.isfinite(samples).all():
        raise SetError("it holds samples that are no numbers")
    return to_rate(samples.mean(axis=1), rate, RATE)


def read_clip(clip: Clip) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What codecs are given and what they should give back, [samples] at 16 kHz each.

    Raises:
        SetError: as `read_audio`, and if the samples are not those that the manifest was made with.
        soundfile.LibsndfileError: if it is no audio.
    """
    heard = read_audio(clip.path)
    wanted = heard if clip.reference is None else read_audio(clip.reference)
    for samples, sha256 in ((heard, clip.sha256), (wanted, clip.reference_sha256)):
        if sha256 and digest_16(samples) != sha256:
            raise SetError("its samples are not those that the manifest names: make the set again")
    return heard, wanted


def digest_16(samples: Samples) -> str:
    """SHA-256 of [samples] as little-endian integers of 16 bits, whatever file holds them."""
    return hashlib.sha256(to_int16(samples).astype("<i2").tobytes()).hexdigest()


_Item = TypeVar("_Item")


def spread(items: Sequence[_Item], limit: int | None) -> list[_Item]:
    """At most so many of them, spread evenly over all."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def _conditioned(manifest: Path, split: str, limit: int | None) -> list[Clip]:
    by_condition: dict[str, list[Clip]] = {}
    entries = read_manifest(manifest, _COLUMNS | _CONDITION_COLUMNS)
    for entry in entries:
        if entry["split"] != split:
            continue
        clip = Clip(
            name=_name(entry),
            path=manifest.parent / entry["path"],
            reference=manifest.parent / entry["reference"] if entry["reference"] else None,
            condition=entry["condition"],
            seed=_seed(manifest, entry),
            sha256=entry["sha256"],
            reference_sha256=entry["reference_sha256"],
            source=entry.get("source", ""),
        )
        by_condition.setdefault(clip.condition, []).append(clip)
    if not by_condition:
        there = ", ".join(sorted({entry["split"] for entry in entries})) or "none at all"
        raise SetError(f"{manifest} has no clips of split {split!r}: it has {there}")
    return [clip for clips in by_condition.values() for clip in spread(clips, limit)]


def _name(entry: dict[str, str]) -> str:
    """A clip's name by its line of a manifest; of a made set with its condition, of which each may be told something else."""
    if entry.keys() >= _CONDITION_COLUMNS:
        return f"{entry['condition']}/{entry['clip']}"
    return Path(entry["path"]).as_posix()


def _seed(manifest: Path, entry: dict[str, str]) -> int:
    try:
        return int(entry["seed"])
    except ValueError as error:
        raise SetError(f"{manifest}: the seed of {entry['path']} is {entry['seed']!r}: make the set again") from error


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and lines of a CSV file; what a line lacks is ''.

    Raises:
        SetError: if it is none.
        OSError: if it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines, restval="")
            return list(reader.fieldnames or ()), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SetError(f"{path} is no table (CSV in UTF-8): {error}") from error


def read_manifest(manifest: Path, needed: set[str]) -> list[dict[str, str]]:
    """The lines of a corpus's manifest; what a line lacks is ''.

    Raises:
        SetError: if it is none, has not all the `needed` columns, or names a file that is not below its folder.
        OSError: if it cannot be read.
    """
    columns, entries = read_table(manifest)
    missing = sorted(needed - set(columns))
    if missing:
        raise SetError(f"{manifest} has no column {missing[0]!r}: it needs {', '.join(sorted(needed))}")
    for line, entry in enumerate(entries, start=2):
        path = Path(entry["path"])
        if path.is_absolute() or ".." in path.parts or not path.name:  # what is made of it has this path in other folders
            raise SetError(f"{manifest}, line {line}: {entry['path']!r} is no file below that folder: put it there")
    return entries
