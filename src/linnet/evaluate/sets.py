"""Sets of recordings: which files, and a file as everything here hears it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from linnet.bits.errors import LinnetError
from linnet.evaluate.metrics import RATE, to_rate

SUFFIXES = frozenset({".aif", ".aiff", ".flac", ".mp3", ".ogg", ".opus", ".w64", ".wav"})


class SetError(LinnetError):
    """A set of files that is not there, or empty, or a file of it that holds nothing."""


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
        raise SetError(f"{folder} is not a folder: name a folder of audio files or a corpus")
    manifest = folder / "manifest.csv"
    if manifest.is_file():
        files = _listed(manifest, split)
    else:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise SetError(f"{folder} holds no audio files: name a folder with {', '.join(sorted(SUFFIXES))} files")
    if limit is None or limit >= len(files):
        return files
    return [files[index] for index in np.linspace(0, len(files) - 1, limit).round().astype(int)]


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
