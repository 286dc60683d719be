"""Predictors of opinion through VERSA (Shi et al., 2025), a toolkit that the user installs: its command, run as one runs it.

Its metrics need torch and weights that are fetched on their first use, so none of it is imported: two lists of files and
a list of metrics go in, JSON lines come out. Loading takes long, so many clips go through one call.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

from linnet.bits.errors import LinnetError
from linnet.evaluate.metrics.base import RATE, Metric, Samples, at_16k, missing_package
from linnet.writing import file_identity

COMMAND = "LINNET_VERSA"
"""The environment variable with VERSA's command, if it is not `versa-score`."""

INSTALL = f"pip install git+https://github.com/wavlab-speech/versa, or name its scorer in {COMMAND}"

# What makes VERSA report each key
_CONFIG = {
    "utmos": "- name: pseudo_mos\n  predictor_types: [utmos]\n  predictor_args:\n    utmos:\n      fs: 16000\n",
    "scoreq_nr": "- name: scoreq_nr\n",
    "sheet_ssqa": "- name: sheet_ssqa\n",
    "audiobox_aesthetics_PQ": "- name: audiobox_aesthetics\n  batch_size: 1\n",
}

Pair = tuple[Samples, Samples]


class VersaError(LinnetError):
    """VERSA failed, or left something else than scores."""


@dataclass(frozen=True)
class Through:
    """One of VERSA's scores as a metric of one clip."""

    key: str

    @property
    def __name__(self) -> str:
        return f"versa {self.key}"

    def __call__(self, reference: Samples, degraded: Samples, sample_rate: int) -> float:
        """See `Metric.function`: slow, for VERSA loads its networks in every call; `score` takes many clips."""
        return score([self.key], [at_16k(reference, degraded, sample_rate)])[0][self.key]


@dataclass(frozen=True)
class VersaMetric(Metric):
    """A metric that VERSA computes; `function` is a `Through`."""

    @classmethod
    def of(cls, key: str, unit: str, blind_to: str) -> VersaMetric:
        """By the key under which VERSA reports it."""
        return cls(Through(key), unit, True, blind_to, default=False, package="VERSA", install=INSTALL)

    @property
    def key(self) -> str:
        """Under which VERSA reports it."""
        assert isinstance(self.function, Through)
        return self.function.key

    def lacking(self) -> str:
        """See `Metric.lacking`."""
        return "" if shutil.which(_command()[0]) else self.package

    def identity(self) -> str:
        """See `Metric.identity`: the command, its build, and what it is asked."""
        path = shutil.which(_command()[0])
        if path is None:
            raise missing_package(self.package, self.install)
        asked = hashlib.sha256(_CONFIG[self.key].encode()).hexdigest()[:8]
        return f"versa {self.key} {asked} {shlex.join(_command())} {file_identity(path)}"


def score(keys: Sequence[str], pairs: Sequence[Pair]) -> list[dict[str, float]]:
    """What VERSA says of many clips in one call.

    Args:
        keys: under which it reports what is asked for.
        pairs: original and degraded [samples] at 16 kHz.

    Returns:
        A score for each key, for each pair; nan where VERSA left one out.

    Raises:
        VersaError: if it fails, or leaves no readable scores.
    """
    with TemporaryDirectory(prefix="linnet-") as name:
        folder = Path(name)
        names = [f"clip{number:06d}" for number in range(len(pairs))]
        for side, place in (("gt", 0), ("pred", 1)):
            (folder / side).mkdir()
            for clip, pair in zip(names, pairs, strict=True):
                soundfile.write(folder / side / f"{clip}.wav", np.clip(pair[place], -1, 1), RATE, subtype="PCM_16")
            lines = "".join(f"{clip} {folder / side / clip}.wav\n" for clip in names)
            (folder / f"{side}.scp").write_text(lines, encoding="utf-8")
        (folder / "config.yaml").write_text("".join(_CONFIG[key] for key in keys), encoding="utf-8")
        files = {"score_config": "config.yaml", "gt": "gt.scp", "pred": "pred.scp", "output_file": "scores.jsonl"}
        options = [part for option, file in files.items() for part in (f"--{option}", str(folder / file))]
        told = subprocess.run(
            [*_command(), *options, "--io", "soundfile"], capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
        if told.returncode != 0:
            said = told.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {told.returncode}"]
            raise VersaError(f"VERSA failed: {said[-1]}")
        try:
            lines = (folder / "scores.jsonl").read_text(encoding="utf-8")
            found = {row["key"]: row for row in map(json.loads, lines.splitlines())}
            scores = [{key: float(found.get(clip, {}).get(key, "nan")) for key in keys} for clip in names]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VersaError(f"VERSA left no scores that can be read: {error}") from error
    return scores


def _command() -> list[str]:
    return shlex.split(os.environ.get(COMMAND, "")) or ["versa-score"]
