"""Corpora: a manifest of recordings, packed once into arrays that training can map into memory.

A corpus is a folder with a `manifest.csv` that has at least the columns `path`, `kind` (speech, noise, rir) and `split`.
Packing decodes every file, resamples it to the model's rate and labels speech with its pitch, because decoding Ogg and
tracking pitch in every epoch would cost more than the training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
import soxr

from linnet.evaluate import sets
from linnet.lab.dsp.pitch import PitchLabels, label_pitch
from linnet.writing import file_identity, replacing

# Part of the cache key: raise it when what is packed changes.
_PACK_VERSION = 2


@dataclass(frozen=True)
class Clip:
    """One recording of a corpus, as its manifest describes it."""

    path: str
    kind: str
    split: str


def read_manifest(corpus: Path) -> list[Clip]:
    """Every recording that `corpus/manifest.csv` names; FileNotFoundError or SetError says what is missing."""
    manifest = corpus / "manifest.csv"
    if not manifest.is_file():
        raise FileNotFoundError(f"{corpus} is not a corpus: it has no manifest.csv with columns path, kind, split")
    return [Clip(row["path"], row["kind"], row["split"]) for row in sets.read_manifest(manifest, {"path", "kind", "split"})]


def load_audio(path: Path, sample_rate: int) -> np.ndarray:
    """The recording as mono float32 `[samples]` at `sample_rate`; ValueError says which one cannot be used."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be read: {error.error_string.rstrip('.')}") from error
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} holds samples that are not finite numbers (NaN or infinity)")
    mono = samples.mean(axis=1)
    return mono if rate == sample_rate else soxr.resample(mono, rate, sample_rate, quality="HQ")


@dataclass(frozen=True)
class Packed:
    """Recordings laid end to end.

    `audio` is int16 `[samples]`; recording i is `audio[offsets[i]:offsets[i + 1]]`. `pitch`, for speech, is float32
    `[frames]` in Hz (0 where unvoiced), recording i's being `pitch[pitch_offsets[i]:pitch_offsets[i + 1]]`.
    """

    clips: list[Clip]
    audio: np.ndarray
    offsets: np.ndarray
    pitch: np.ndarray
    pitch_offsets: np.ndarray
    sample_rate: int

    def __len__(self) -> int:
        return len(self.clips)

    def samples(self, index: int) -> np.ndarray:
        """Recording `index` as float32 `[samples]` in [-1, 1)."""
        return self.audio[self.offsets[index] : self.offsets[index + 1]].astype(np.float32) / 32768

    def pitch_of(self, index: int) -> np.ndarray:
        """The pitch labels of recording `index`, float32 `[frames]` in Hz."""
        return self.pitch[self.pitch_offsets[index] : self.pitch_offsets[index + 1]]


def pack(
    corpus: Path,
    kind: str,
    split: str,
    cache: Path,
    *,
    sample_rate: int,
    labels: PitchLabels,
    jobs: int = 2,
    progress: Callable[[Iterable, int], Iterable] = lambda items, _: items,
) -> Packed:
    """The recordings of one kind and split, from `cache` if they were packed before.

    `progress(items, total)` may wrap the iteration in a progress bar. Peaks above full scale are clipped.
    """
    clips = [clip for clip in read_manifest(corpus) if clip.kind == kind and clip.split == split]
    if not clips:
        raise ValueError(f"{corpus}/manifest.csv has no {kind} in split {split!r}")
    # A recording that was mended or replaced is packed anew.
    files = [(clip.path, file_identity(corpus / clip.path)) for clip in clips]
    identity = [_PACK_VERSION, str(corpus.resolve()), kind, sample_rate, repr(labels), files]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    folder = cache / f"{kind}-{split}-{key}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        tasks = [(corpus / clip.path, sample_rate, labels if kind == "speech" else None) for clip in clips]
        # Spawned, because a fork of a process whose libraries run threads may crash.
        with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
            packed = list(progress(pool.map(_pack_one, tasks, chunksize=8), len(tasks)))
        for name, parts in (("audio", [audio for audio, _ in packed]), ("pitch", [pitch for _, pitch in packed])):
            _save(folder / f"{name}.npy", np.concatenate(parts))
            _save(folder / f"{name}_offsets.npy", np.cumsum([0, *map(len, parts)]))
        (folder / "done").touch()
    return Packed(
        clips,
        np.load(folder / "audio.npy", mmap_mode="r"),
        np.load(folder / "audio_offsets.npy"),
        np.load(folder / "pitch.npy", mmap_mode="r"),
        np.load(folder / "pitch_offsets.npy"),
        sample_rate,
    )


def _save(path: Path, array: np.ndarray) -> None:
    # Another training may have packed the same meanwhile and have mapped what it wrote, which must not change under it.
    with replacing(path) as partial:
        np.save(partial, array)


def _pack_one(task: tuple[Path, int, PitchLabels | None]) -> tuple[np.ndarray, np.ndarray]:
    path, sample_rate, labels = task
    samples = load_audio(path, sample_rate)
    pitch = label_pitch(samples, sample_rate, labels) if labels else np.zeros(0, np.float32)
    return np.round(np.clip(samples, -1, 32767 / 32768) * 32768).astype(np.int16), pitch
