"""What a run found: a row for each clip and codec, and means whose uncertainty is known.

What lies where it should not (see `linnet.evaluate.alignment`) keeps its scores in its row and stays out of every mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from linnet.evaluate.alignment import Alignment
from linnet.evaluate.metrics import METRICS
from linnet.evaluate.statistics import Mean, Paired, bootstrap_mean, paired_test, rank_correlation


@dataclass(frozen=True)
class Row:
    """One file through one codec at one rate.

    Args:
        file: the clip's name: the path below the set's folder.
        condition: under which it was coded.
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
    condition: str = "clean"
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
    """One codec at one rate under one condition over all files, or those of a group, like 'language de': means of kbit/s and of
    every metric, over how many files, and how many were left out."""

    group: str
    label: str
    codec: str
    condition: str
    kbps: float
    bandwidth_hz: int
    delay_ms: float
    means: dict[str, Mean]
    files: int
    faults: int


@dataclass(frozen=True)
class Skipped:
    """A codec that is not installed, and the line that installs it; or one that a condition is not for."""

    codec: str
    reason: str


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation of two metrics: over all clips of all codecs, and over the codecs' means.

    1 if what one calls better the other calls better too; nan of fewer than three.
    """

    clips: float
    codecs: float


@dataclass(frozen=True)
class Report:
    """Everything that a run found, files and codecs in the order in which they were given; `groups` are means over some of the
    files."""

    rows: list[Row]
    summaries: list[Summary]
    skipped: list[Skipped]
    groups: list[Summary] = field(default_factory=list)

    @property
    def errors(self) -> list[Row]:
        """The rows of what failed, or lies where it should not."""
        return [row for row in self.rows if row.error or row.fault]

    @property
    def oddities(self) -> list[tuple[str, str]]:
        """A condition and a line for each codec under it of which some files are odd though their scores stand."""
        alike: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            alike.setdefault((row.condition, row.label), []).append(row)
        lines = []
        for (condition, label), found in alike.items():
            odd = [row for row in found if row.notes]
            if odd:
                told = f"{label}: {len(odd)} of {len(found)} files are odd, like {odd[0].file}: {odd[0].notes[0]}"
                lines.append((condition, told))
        return lines

    @property
    def conditions(self) -> list[str]:
        """The names of all conditions, in the order in which they came."""
        return list(dict.fromkeys(row.condition for row in self.rows))

    def pairs(self, metric: str, condition: str) -> dict[tuple[str, str], Paired]:
        """Every two codecs under one condition on the files that both have, by their labels."""
        scores: dict[str, dict[str, float]] = {one.label: {} for one in self.summaries if one.condition == condition}
        for row in self.rows:
            if row.condition == condition and not row.error and not row.fault:
                scores[row.label][row.file] = row.scores[metric]
        found = {}
        for one, other in combinations(scores, 2):
            both = [file for file in scores[one] if file in scores[other]]
            found[one, other] = paired_test([scores[one][file] for file in both], [scores[other][file] for file in both])
        return found

    def by(self, column: str, said: dict[str, str], metrics: Sequence[str]) -> Report:
        """With a group for each value, in alphabetical order, that `said` has in this column for the files, by their names."""
        alike: dict[str, list[Row]] = {}
        for row in self.rows:
            alike.setdefault(said.get(row.file) or "unknown", []).append(row)
        groups = [one for value in sorted(alike) for one in summarize(alike[value], metrics, f"{column} {value}")]
        return replace(self, groups=[*self.groups, *groups])

    def agreements(self, metrics: Sequence[str], condition: str) -> dict[tuple[str, str], Agreement]:
        """Every two metrics under one condition, by their names."""
        rows = [row for row in self.rows if row.condition == condition and not row.error and not row.fault]
        means = [one.means for one in self.summaries if one.condition == condition]
        sign = {name: 1 if METRICS[name].higher_is_better else -1 for name in metrics}
        clips = {name: [sign[name] * row.scores[name] for row in rows] for name in metrics}
        codecs = {name: [sign[name] * of_codec[name].value for of_codec in means] for name in metrics}
        return {
            (one, other): Agreement(rank_correlation(clips[one], clips[other]), rank_correlation(codecs[one], codecs[other]))
            for one, other in combinations(metrics, 2)
        }

    def to_json(self) -> dict[str, Any]:
        """As plain values; nan, which JSON has not, becomes None."""
        plain: dict[str, Any] = without_nan(asdict(self))
        return plain


def summarize(rows: Sequence[Row], metrics: Sequence[str], group: str = "") -> list[Summary]:
    """Means over the files of each condition, codec and rate, in the order of their first rows; failed rows are left out."""
    alike: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if not row.error:
            alike.setdefault((row.condition, row.label), []).append(row)
    return [_summary(group, label, found, metrics) for (_, label), found in alike.items()]


def _summary(group: str, label: str, found: Sequence[Row], metrics: Sequence[str]) -> Summary:
    scored = [row for row in found if not row.fault]
    return Summary(
        group=group,
        label=label,
        codec=found[0].codec,
        condition=found[0].condition,
        kbps=float(np.mean([row.kbps for row in found])),
        bandwidth_hz=max(row.bandwidth_hz for row in found),
        delay_ms=float(np.median([row.delay_ms for row in found])),
        means={name: bootstrap_mean([row.scores[name] for row in scored]) for name in metrics},
        files=len(scored),
        faults=len(found) - len(scored),
    )


def without_nan(value: Any) -> Any:
    """A tree of dicts and lists with None for nan."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
