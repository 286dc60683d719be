"""Fitting the tables of the entropy coder to codes.

Groups are found as in I. S. Dhillon et al., "Information-theoretic co-clustering" (KDD 2003): a code joins the group
whose codes are followed, preceded and accompanied by the same groups, and this is repeated for one column after the
other, as the groups that they are described by change too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from linnet.bits.errors import TablesError
from linnet.bits.packet import Codes, Layout, check_codes
from linnet.bits.tables import MAX_SIZE, ColumnTables, Source, Tables, costs

FIRST_GROUPS, UPPER_GROUPS, CLUSTERS = 64, 32, 8
"""Groups of the first layer's columns and of the others, and clusters of a second source."""

_ROUNDS = 4
_STEPS = 3
_LAGS = (1, 2)
# Counts that the expectation is worth beside what was counted; chosen on other recordings than were fitted.
_PRIOR = 5.0
_FIRST_PRIOR = 20.0
_SECOND_PRIOR = 40.0
_CODE_PRIOR = 0.5

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Relation:
    """The codes of `target` are expected from those of `source`."""

    target: int
    source: Source


def fit_tables(recordings: Sequence[Codes], layout: Layout) -> Tables:
    """The tables that fit codes best.

    Args:
        recordings: codes [frames, n_codes] of all layers, one array a recording.
        layout: of the codes.

    Raises:
        TablesError: if a column has too many values for a table, or there is nothing to fit to.
        CodesError: if the codes do not fit the layout.
    """
    if max(layout.sizes) > MAX_SIZE:
        raise TablesError(f"a column of {max(layout.sizes)} codes is too large for tables: they go up to {MAX_SIZE}")
    counts = _Counts(recordings, layout)
    candidates = [_candidates(column) for column in range(layout.n_codes)]
    groups = counts.group([Relation(target, source) for target, sources in enumerate(candidates) for source in sources])
    chosen = [counts.choose(column, sources, groups) for column, sources in enumerate(candidates)]
    # Once more, for the contexts that are used.
    groups = counts.group([Relation(target, source) for target, pair in enumerate(chosen) for source in pair], groups)
    return Tables(tuple(counts.tables(column, pair, groups) for column, pair in enumerate(chosen)))


def _candidates(column: int) -> list[Source]:
    """What may tell something of a column: its own past, the columns before it, and the first column's past."""
    own = [Source(column, lag) for lag in _LAGS]
    return own + [Source(lower, 0) for lower in range(column)] + ([Source(0, 1)] if column else [])


class _Counts:
    """What was seen together in the recordings, all of them end to end."""

    def __init__(self, recordings: Sequence[Codes], layout: Layout) -> None:
        codes = [check_codes(recording, layout, layout.n_layers)[max(_LAGS) :] for recording in recordings]
        if not sum(map(len, codes)):
            raise TablesError("there are no codes to fit tables to: give recordings of a second or more")
        self._layout = layout
        self._codes = {
            lag: np.concatenate([recording[max(_LAGS) - lag : len(recording) - lag] for recording in recordings]).T.copy()
            for lag in (0, *_LAGS)
        }
        self._n_groups = [
            min(size, FIRST_GROUPS if layer == 1 else UPPER_GROUPS)
            for size, layer in zip(layout.sizes, layout.layers, strict=True)
        ]

    def group(self, relations: Sequence[Relation], start: Sequence[Groups] | None = None) -> list[Groups]:
        """The group of each code of each column, so that a relation's groups say the most of each other."""
        sizes = zip(self._layout.sizes, self._n_groups, strict=True)
        groups = list(start or (np.arange(size) * n // size for size, n in sizes))
        for _ in range(_ROUNDS):
            for column in range(self._layout.n_codes):
                seen = [self._seen(column, relation, groups) for relation in relations if relation.target == column]
                seen += [self._meant(column, relation, groups) for relation in relations if relation.source.column == column]
                groups[column] = _cluster(np.stack([_widen(block, max(self._n_groups)) for block in seen]), groups[column])
        return groups

    def choose(self, column: int, sources: Sequence[Source], groups: Sequence[Groups]) -> tuple[Source, Source]:
        """The two sources that make the column's groups cheapest, the second given the first."""
        first = min(sources, key=lambda source: _price(self._joint(column, (source,), groups)))

        def price(second: Source) -> float:
            joint = self._joint(column, (first, second), groups)
            return _price(_merge(joint, _clusters(joint)))

        return first, min((source for source in sources if source != first), key=price)

    def tables(self, column: int, sources: tuple[Source, Source], groups: Sequence[Groups]) -> ColumnTables:
        """One column's tables, in which what was seldom seen leans on what was seen more often."""
        joint = self._joint(column, sources, groups)
        clusters = _clusters(joint)
        alone = joint.sum(axis=(0, 1)) + _CODE_PRIOR
        first = _lean(joint.sum(axis=1), alone / alone.sum(), _FIRST_PRIOR)
        both = _lean(_merge(joint, clusters), first[:, np.newaxis], _SECOND_PRIOR)
        size = self._layout.sizes[column]
        seen = np.bincount(self._codes[0][column], minlength=size) + _CODE_PRIOR
        within = seen / np.bincount(groups[column], seen)[groups[column]]
        as_bytes = groups[column].astype(np.uint8), costs(within), clusters.astype(np.uint8), costs(both)
        return ColumnTables(sources, *as_bytes)

    def _seen(self, column: int, relation: Relation, groups: Sequence[Groups]) -> Array:
        """How often each code of a relation's target came with each group of its source."""
        source = relation.source
        return self._pairs(column, self._codes[0][column], source.column, self._codes[source.lag][source.column], groups)

    def _meant(self, column: int, relation: Relation, groups: Sequence[Groups]) -> Array:
        """How often each code of a relation's source came with each group of its target."""
        lagged = self._codes[relation.source.lag][column]
        return self._pairs(column, lagged, relation.target, self._codes[0][relation.target], groups)

    def _pairs(self, column: int, codes: Codes, other: int, others: Codes, groups: Sequence[Groups]) -> Array:
        n, size = self._n_groups[other], self._layout.sizes[column]
        return np.bincount(codes * n + groups[other][others], minlength=size * n).reshape(size, n).astype(np.float64)

    def _joint(self, column: int, sources: Sequence[Source], groups: Sequence[Groups]) -> Array:
        """How often each group of the column came with each group of each source: [sources' groups..., groups]."""
        places = [(source.column, source.lag) for source in sources] + [(column, 0)]
        shape = tuple(self._n_groups[number] for number, _ in places)
        index = np.ravel_multi_index(tuple(groups[number][self._codes[lag][number]] for number, lag in places), shape)
        return np.bincount(index, minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)


def _clusters(joint: Array) -> Groups:
    """Clusters of the second source's groups, from counts [first, second, groups]."""
    n = min(CLUSTERS, joint.shape[1])
    return _cluster(joint, np.arange(joint.shape[1]) * n // joint.shape[1], 20)


def _cluster(seen: Array, labels: Groups, steps: int = _STEPS) -> Groups:
    """New labels for rows, each that of the label whose rows are distributed the most like it.

    Args:
        seen: counts [views, rows, outcomes]; the views are independent of each other.
        labels: of the rows, from 0; none beyond the largest is ever given.
        steps: at most so many.
    """
    n = int(labels.max()) + 1
    expected = seen.sum(axis=1, keepdims=True) + 1.0
    expected /= expected.sum(axis=2, keepdims=True)
    for _ in range(steps):
        sums = np.stack([np.matmul(np.eye(n)[labels].T, view) for view in seen])
        logs = np.log(_lean(sums, expected, _PRIOR))
        new = sum(view @ log.T for view, log in zip(seen, logs, strict=True)).argmax(axis=1)
        if np.array_equal(new, labels):
            break
        labels = new
    return labels


def _merge(joint: Array, clusters: Groups) -> Array:
    """Counts [first, second, groups] as [first, clusters, groups]."""
    return np.einsum("fsg,sc->fcg", joint, np.eye(int(clusters.max()) + 1)[clusters])


def _lean(counts: Array, expected: Array, prior: float) -> Array:
    """Probabilities from counts [..., outcomes], `prior` more counts of what is expected among them."""
    return (counts + prior * expected) / (counts.sum(axis=-1, keepdims=True) + prior)


def _price(counts: Array) -> float:
    """Bits that the outcomes of counts [..., outcomes] cost in all, given the rest."""
    totals = counts.sum(axis=-1)
    return float((totals * np.log2(np.maximum(totals, 1))).sum() - (counts * np.log2(np.maximum(counts, 1))).sum())


def _widen(counts: Array, width: int) -> Array:
    return np.pad(counts, ((0, 0), (0, width - counts.shape[1])))
