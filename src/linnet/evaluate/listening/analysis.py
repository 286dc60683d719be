"""What listeners said: who is believed, and means with intervals that know both listeners and clips are few.

Post-screening leaves out listeners who cannot have heard what they rated: in MUSHRA those who rate the hidden reference
below 90 in more than 15 % of the trials (ITU-R BS.1534-3, post-screening); in ACR and DCR those who miss more than 15 % of the
questions with a known answer (P.808's gold clips: the original at least 4, MNRU at 5 dB at most 2) or always say the same; in
DRT those who score below 90 on the originals. BS.1534's second rule, of the 7 kHz anchor, is not used: beside an original
that ends at 8 kHz that anchor may rightly pass for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from linnet.evaluate.listening.plan import BAD, COLUMNS, METHODS, REFERENCE, ListeningError
from linnet.evaluate.sets import read_table
from linnet.evaluate.statistics import Paired, paired_test

_RESAMPLES = 1000
_MISSED = 0.15
_HIDDEN = 90.0


@dataclass(frozen=True)
class Answer:
    """One listener's score of one sound."""

    method: str
    listener: str
    clip: str
    system: str
    score: float
    detail: str = ""


@dataclass(frozen=True)
class Rated:
    """One system: the mean of its scores, its 95 % interval, and how many there are; of a DRT by feature too."""

    system: str
    mean: float
    low: float
    high: float
    ratings: int
    features: dict[str, float]


@dataclass(frozen=True)
class Verdict:
    """A whole test: the systems, the best first, who was heard, and who was left out and why."""

    method: str
    systems: list[Rated]
    listeners: int
    excluded: dict[str, str]
    pairs: dict[tuple[str, str], Paired]

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the report's page."""
        method = METHODS[self.method]
        ends = [0, 100] if self.method == "drt" else [method.low, method.high]
        return {
            "title": method.title,
            "ends": ends,
            "systems": [vars(rated) for rated in self.systems],
            "listeners": self.listeners,
            "excluded": self.excluded,
        }


def read_answers(path: Path) -> list[Answer]:
    """The answers of one test.

    Raises:
        ListeningError: if the file is none of answers, has none, or those of several methods.
        SetError: if it is no table.
        OSError: if it cannot be read.
    """
    columns, rows = read_table(path)
    if tuple(columns) != COLUMNS:
        raise ListeningError(f"{path} is no file of answers: its columns are not {', '.join(COLUMNS)}")
    answers = []
    for line, row in enumerate(rows, start=2):
        try:
            score = float(row["score"])
        except ValueError as error:
            raise ListeningError(f"{path}, line {line}: {error}") from error
        answers.append(Answer(row["test"], row["listener"], row["clip"], row["system"], score, row["detail"]))
    methods = {answer.method for answer in answers}
    if len(methods) != 1 or not methods <= METHODS.keys():
        raise ListeningError(f"{path} has answers of {', '.join(sorted(methods)) or 'nobody'}: give those of one test")
    return answers


def analyse(answers: Sequence[Answer], screen: bool = True) -> Verdict:
    """Means over those who are believed, or over all without screening.

    Intervals resample listeners and clips, both with replacement (Owen, 2007): one person's ratings are not independent, nor
    are those of one clip. Of a DRT the mean is 100 (right - wrong) / all, so that guessing gives 0. Pairs are tested on
    the trials that both systems share, by listener and clip.
    """
    method = answers[0].method
    everyone = sorted({answer.listener for answer in answers})
    excluded = {name: reason for name in everyone if screen and (reason := _doubt(method, name, answers))}
    kept = [answer for answer in answers if answer.listener not in excluded]
    systems = dict.fromkeys(answer.system for answer in kept)
    rated = sorted((_rated(name, kept) for name in systems), key=lambda one: -one.mean)
    listeners = len(everyone) - len(excluded)
    return Verdict(method, rated, listeners, excluded, _pairs([one.system for one in rated], kept))


def as_text(verdict: Verdict) -> str:
    """The verdict for a terminal."""
    method = METHODS[verdict.method]
    ends = "0 to 100, guessing is 0" if verdict.method == "drt" else f"{method.low} to {method.high}"
    lines = [f"{method.title}, {ends}: {verdict.listeners} listeners, {len(verdict.excluded)} left out"]
    width = max((len(one.system) for one in verdict.systems), default=0)
    for one in verdict.systems:
        by_feature = "  ".join(f"{feature} {value:.0f}" for feature, value in one.features.items())
        line = f"{one.system:{width}}  {one.mean:6.2f} [{one.low:.2f}, {one.high:.2f}]  {one.ratings} ratings  {by_feature}"
        lines.append(line.rstrip())
    for (better, worse), pair in verdict.pairs.items():
        if pair.files and pair.p >= 0.05:
            lines.append(f"no difference is shown between {better} and {worse} (p = {pair.p:.2f})")
    lines += [f"{name} is left out: {reason}" for name, reason in verdict.excluded.items()]
    return "\n".join(lines)


def _doubt(method: str, listener: str, answers: Sequence[Answer]) -> str:
    """Why a listener is not believed, '' if nothing speaks against it."""
    mine = [answer for answer in answers if answer.listener == listener]
    hidden = np.array([answer.score for answer in mine if answer.system == REFERENCE])
    if method == "drt":
        right = _scaled(method, hidden)
        return f"{right.mean():.0f} of 100 on the originals" if len(hidden) and right.mean() < _HIDDEN else ""
    if method == "mushra":
        missed = hidden < _HIDDEN
        return f"the hidden reference is below 90 in {100 * missed.mean():.0f} % of the trials" if _often(missed) else ""
    if len(mine) > 2 and len({answer.score for answer in mine}) == 1:
        return f"every answer is {mine[0].score:g}"
    bad = np.array([answer.score for answer in mine if answer.system == BAD])
    wrong = np.concatenate([hidden < 4, bad > 2])
    return f"{100 * wrong.mean():.0f} % of the known answers are missed" if _often(wrong) else ""


def _often(missed: npt.NDArray[np.bool_]) -> bool:
    return len(missed) > 0 and float(missed.mean()) > _MISSED


def _rated(system: str, answers: Sequence[Answer]) -> Rated:
    mine = [answer for answer in answers if answer.system == system]
    scores = _scaled(mine[0].method, np.array([answer.score for answer in mine]))
    features = dict.fromkeys(answer.detail for answer in mine if answer.detail)
    by_feature = {
        feature: float(np.mean([score for score, answer in zip(scores, mine, strict=True) if answer.detail == feature]))
        for feature in features
    }
    low, high = _interval(mine, scores)
    return Rated(system, float(scores.mean()), low, high, len(mine), by_feature)


def _scaled(method: str, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Right and wrong of a DRT as 100 and -100, whose mean is the score less what guessing gives."""
    return 200 * scores - 100 if method == "drt" else scores


def _interval(answers: Sequence[Answer], scores: npt.NDArray[np.float64]) -> tuple[float, float]:
    listeners = np.unique([answer.listener for answer in answers], return_inverse=True)[1]
    clips = np.unique([answer.clip for answer in answers], return_inverse=True)[1]
    chance = np.random.default_rng(0)
    means = []
    for _ in range(_RESAMPLES):
        weights = _counts(chance, listeners)[listeners] * _counts(chance, clips)[clips]
        if weights.any():  # a draw may leave nobody who heard any of the clips drawn
            means.append(np.average(scores, weights=weights))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _counts(chance: np.random.Generator, places: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """How often each of several is drawn in as many draws."""
    count = int(places.max()) + 1
    return np.bincount(chance.integers(count, size=count), minlength=count)


def _pairs(systems: Sequence[str], answers: Sequence[Answer]) -> dict[tuple[str, str], Paired]:
    scores: dict[str, dict[tuple[str, str, str], float]] = {system: {} for system in systems}
    for answer in answers:
        scores[answer.system][answer.listener, answer.clip, answer.detail] = answer.score
    found = {}
    for one, other in combinations(systems, 2):
        both = sorted(scores[one].keys() & scores[other].keys())
        found[one, other] = paired_test([scores[one][key] for key in both], [scores[other][key] for key in both])
    return found
