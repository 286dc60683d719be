"""Results that need not be made again, kept in files under a digest of everything that they depend on.

A result is one file through one codec at one rate: decoded audio as FLAC of 24 bits, and beside it what was measured. Each
is written whole or not at all, as soon as it is there, so that a run may be interrupted at any time and several may share
a folder. Nothing is ever outdated, only unused: the folder can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from linnet.evaluate.alignment import Alignment
from linnet.evaluate.metrics import RATE, Samples
from linnet.writing import cache_folder, replacing

_FORMAT = 3  # raised whenever what is kept, or how it is made, changes


@dataclass
class Record:
    """What is known of one output.

    Args:
        kbps: measured.
        bandwidth_hz: where the codec's audio ends.
        delay_ms: that was taken away, as the codec knows it or as it was measured in this file.
        alignment: of what is left.
        scores: by metric and version.
    """

    kbps: float
    bandwidth_hz: int
    delay_ms: float
    alignment: Alignment
    scores: dict[str, float] = field(default_factory=dict)


def digest(samples: Samples) -> str:
    """Of [samples], whatever file they came from."""
    return hashlib.sha256(np.ascontiguousarray(samples, np.float64).tobytes()).hexdigest()


@dataclass(frozen=True)
class Store:
    """A folder of results."""

    folder: Path

    def key(self, source: str, codec: str, kbps: float) -> str:
        """Of one output: the digest of its samples, the codec's name and identity, and the rate."""
        return hashlib.sha256(json.dumps([_FORMAT, source, codec, kbps]).encode()).hexdigest()

    def record(self, key: str) -> Record | None:
        """What is known under a key; None if nothing, or nothing that can be read."""
        try:
            plain = json.loads(self._path(key, ".json").read_text(encoding="utf-8"))
            record = Record(**plain)
            record.alignment = Alignment(**plain["alignment"])
            self.audio(key)  # a disk that was full or a machine that died may have cut it short
        except (OSError, ValueError, TypeError, KeyError, soundfile.LibsndfileError):
            return None
        return record

    def audio(self, key: str) -> npt.NDArray[np.float64]:
        """The decoded [samples] at 16 kHz under a key that has a record."""
        return soundfile.read(self._path(key, ".flac"), dtype="float64")[0]

    def save_audio(self, key: str, samples: Samples) -> npt.NDArray[np.float64]:
        """Keep decoded [samples], and return them as they will be read again."""
        with self._written(key, ".flac") as partial:
            soundfile.write(partial, samples, RATE, format="FLAC", subtype="PCM_24")
        return self.audio(key)

    def save(self, key: str, record: Record) -> None:
        """Keep what is known; its audio must be there."""
        with self._written(key, ".json") as partial:
            partial.write_text(json.dumps(asdict(record)), encoding="utf-8")

    def _written(self, key: str, suffix: str) -> AbstractContextManager[Path]:
        path = self._path(key, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return replacing(path)

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / key[:2] / f"{key}{suffix}"


def default_folder() -> Path:
    """Where results are kept if nobody says otherwise: the user's cache folder."""
    return cache_folder() / "evaluate"
