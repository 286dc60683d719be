"""What a mean over files is worth: bootstrap intervals, whether two codecs differ on the same files, whether metrics agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_RESAMPLES = 2000
_FLIPS = 4000
_LARGEST = 8_000_000  # numbers drawn at once
_INTERVAL = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class Mean:
    """A mean over files with the 95 % interval of its bootstrap; `files` have a score, `unscored` have nan."""

    value: float
    low: float
    high: float
    files: int
    unscored: int


@dataclass(frozen=True)
class Paired:
    """How one codec differs from another on the files that both have: the mean of first less second, its 95 % interval,
    and the probability `p` of so large a mean if the two were alike."""

    difference: float
    low: float
    high: float
    p: float
    files: int


def bootstrap_mean(values: Sequence[float]) -> Mean:
    """Mean of what is not nan, with the percentile interval of 2000 resamples of the files (Efron, 1979).

    The resamples come from a fixed seed: the same scores give the same interval. Blind to what files have in common: ten
    clips of one voice count as ten.
    """
    every = np.asarray(values, np.float64)
    known = every[~np.isnan(every)]
    if len(known) == 0:
        return Mean(float("nan"), float("nan"), float("nan"), files=0, unscored=len(every))
    blocks = _blocks(len(known), _RESAMPLES)
    means = np.concatenate([known[_drawn(len(known), rows, seed)].mean(axis=1) for seed, rows in blocks])
    low, high = np.percentile(means, _INTERVAL)
    return Mean(float(known.mean()), float(low), float(high), files=len(known), unscored=len(every) - len(known))


def paired_test(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Two codecs on the same files, in the same order; files where either has nan are left out.

    The interval is the bootstrap's; `p` is two-sided, by 4000 random flips of the differences' signs (Fisher's
    randomization test), with no assumption of a distribution, and never under 1/4001. It is not corrected for how many
    pairs one looks at.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} scores: a paired test needs the same files")
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    differences = differences[~np.isnan(differences)]
    mean = bootstrap_mean(differences.tolist())
    if mean.files == 0:
        return Paired(mean.value, mean.low, mean.high, p=float("nan"), files=0)
    blocks = _blocks(mean.files, _FLIPS)
    sums = np.concatenate([_signs(mean.files, rows, seed) @ differences for seed, rows in blocks])
    as_large = np.abs(sums) >= abs(differences.sum()) * (1 - 1e-12)
    return Paired(mean.value, mean.low, mean.high, p=float((as_large.sum() + 1) / (_FLIPS + 1)), files=mean.files)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation of pairs, equal values sharing their mean rank; pairs with a nan are left out.

    Returns:
        -1 to 1; nan of fewer than three pairs, or where one side is always the same.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} scores: a correlation needs pairs")
    pairs = np.array([first, second], np.float64)
    pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
    if pairs.shape[1] < 3 or (pairs == pairs[:, :1]).all(axis=1).any():
        return float("nan")
    return float(np.corrcoef([_ranks(side) for side in pairs])[0, 1])


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Places [values] in rising order; equal values share the mean of theirs."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[group]


def _blocks(files: int, rows: int) -> list[tuple[int, int]]:
    """Rows of draws in blocks that fit in memory, each as a seed and a number of rows."""
    most = max(1, _LARGEST // files)
    return [(at, min(most, rows - at)) for at in range(0, rows, most)]


@lru_cache(maxsize=1)  # a report asks for the same draws for every metric and pair
def _drawn(files: int, rows: int, seed: int) -> npt.NDArray[np.int64]:
    """Files drawn with replacement, [rows, files]."""
    return np.random.default_rng(seed).integers(files, size=(rows, files))


@lru_cache(maxsize=1)
def _signs(files: int, rows: int, seed: int) -> npt.NDArray[np.float64]:
    """Signs drawn by the toss of a coin, [rows, files]."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(rows, files))
