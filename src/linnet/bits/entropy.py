"""Codes of a layer to range-coded bytes and back, by a model's tables. docs/bitstream.md, "Coded blocks"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from linnet.bits.packet import MISSING, Codes, Layout
from linnet.bits.rangecoder import RangeDecoder, RangeEncoder
from linnet.bits.tables import ColumnTables, Tables, cumulative, frequencies

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EntropyCoder:
    """Codes the layers of a block's frames with fewer bits than their columns have.

    Nothing is carried from one call to the next, so that every block can be decoded alone.

    Args:
        layout: of the model's codes.
        tables: fitted to them.
        model_id: four bytes that name the model and these tables in a file.

    Raises:
        TablesError: if the tables are for another layout.
    """

    layout: Layout
    tables: Tables
    model_id: bytes

    def __post_init__(self) -> None:
        self.tables.check_layout(self.layout)

    def columns(self, layer: int) -> range:
        """The columns of one layer."""
        return range(self.layout.columns(layer - 1) if layer > 1 else 0, self.layout.columns(layer))

    def encode(self, codes: Codes, layer: int) -> bytes:
        """The coded bytes of `layer`, of codes [frames, n_codes] whose layers up to it are there."""
        columns = self.columns(layer)
        counts = np.stack([part for column in columns for part in self._column_counts(codes, column)], axis=1)
        encoder = RangeEncoder()
        for start, frequency, total in counts.reshape(-1, 3).tolist():
            encoder.encode(start, frequency, total)
        return encoder.finish()

    def decode(self, data: bytes, codes: Codes, layer: int) -> None:
        """Fill in `layer` of codes [frames, n_codes] whose layers below it are there. Any bytes decode to some codes."""
        self._decode(RangeDecoder(data), codes, layer)

    def decode_cut(self, data: bytes, codes: Codes, layer: int) -> int:
        """Fill in the frames of `layer` that are certain although `data` was cut; the others stay missing.

        What is missing lies between nothing but zero bits and nothing but ones, and a range coder keeps the order: as far
        as the two agree, the truth agrees with them.

        Returns:
            The number of certain frames.
        """
        columns, guesses = self.columns(layer), []
        for filling in (0x00, 0xFF):
            guess = codes.copy()
            self._decode(RangeDecoder(data, filling), guess, layer)
            guesses.append(guess[:, columns])
        differing = np.flatnonzero((guesses[0] != guesses[1]).any(axis=1))
        certain = int(differing[0]) if len(differing) else len(codes)
        codes[:certain, columns] = guesses[0][:certain]
        codes[certain:, columns] = MISSING
        return certain

    def _decode(self, decoder: RangeDecoder, codes: Codes, layer: int) -> None:
        below = range(self.columns(layer).start)
        history = {column: self._history(column, codes[:, column]) for column in below}
        steps = []
        for number in self.columns(layer):
            column, lists = self.tables.columns[number], self._column_lists(number)
            history[number] = self._history(number, codes[:0, number])
            first, second = column.sources
            steps.append((number, lists, history[first.column], first.lag, history[second.column], second.lag))
        before = self._lag
        for frame in range(len(codes)):
            for number, lists, first_groups, first_lag, second_groups, second_lag in steps:
                first_group = first_groups[before + frame - first_lag]
                cluster = lists.clusters[second_groups[before + frame - second_lag]]
                group = decoder.decode(lists.groups[first_group][cluster])
                codes[frame, number] = lists.codes[group][decoder.decode(lists.places[group])]
                history[number].append(group)

    def _history(self, column: int, codes: Codes) -> list[int]:
        """The groups of a column's codes, code 0 before the first of them."""
        groups = self.tables.columns[column].groups
        return [int(groups[0])] * self._lag + groups[codes].tolist()

    def _column_counts(self, codes: Codes, number: int) -> Iterator[Counts]:
        """What the encoder takes for a column's groups, and for the places within them: [frames, 3] each."""
        column = self.tables.columns[number]
        starts, counts, totals = self._counts[number]
        first, second = (self._context(codes, source.column, source.lag) for source in column.sources)
        groups = column.groups[codes[:, number]]
        rows = frequencies(column.group_costs[first, column.clusters[second]])
        sums = np.cumsum(rows, axis=1)
        own = np.take_along_axis(rows, groups[:, np.newaxis], 1)[:, 0]
        yield np.stack([np.take_along_axis(sums, groups[:, np.newaxis], 1)[:, 0] - own, own, sums[:, -1]], axis=1)
        yield np.stack([array[codes[:, number]] for array in (starts, counts, totals)], axis=1)

    def _context(self, codes: Codes, column: int, lag: int) -> npt.NDArray[np.uint8]:
        """The groups of a source's codes, one a frame."""
        past = np.concatenate([np.zeros(lag, np.int64), codes[:, column]])[: len(codes)]
        return self.tables.columns[column].groups[past]

    @cached_property
    def _lag(self) -> int:
        return max(source.lag for column in self.tables.columns for source in column.sources)

    @cached_property
    def _counts(self) -> list[tuple[Counts, Counts, Counts]]:
        """For every column, of each code within its group: the counts before it, its own, and all of them."""
        return [_within_groups(column) for column in self.tables.columns]

    def _column_lists(self, number: int) -> _Lists:
        """A column's, made when the first block needs them: most files have not all layers."""
        if number not in self._lists:
            self._lists[number] = _Lists(self.tables.columns[number])
        return self._lists[number]

    @cached_property
    def _lists(self) -> dict[int, _Lists]:
        return {}


class _Lists:
    """A column's tables as the decoder walks through them: plain lists, as numpy is slow at single numbers.

    Attributes:
        groups: cumulative frequencies of the groups, by first source's group and second source's cluster.
        places: cumulative frequencies within each group.
        codes: of each group, in order.
        clusters: of the second source's groups.
    """

    def __init__(self, column: ColumnTables) -> None:
        counts, within = frequencies(column.group_costs), frequencies(column.code_costs)
        self.groups = cumulative(counts)
        members = [np.flatnonzero(column.groups == group) for group in range(column.n_groups)]
        self.codes = [codes.tolist() or [0] for codes in members]
        # Nobody sends a code of an empty group, but a damaged file may name the group.
        self.places = [cumulative(within[codes]) if len(codes) else [0, 1] for codes in members]
        self.clusters = column.clusters.tolist()


def _within_groups(column: ColumnTables) -> tuple[Counts, Counts, Counts]:
    counts = frequencies(column.code_costs)
    order = np.argsort(column.groups, kind="stable")
    before = np.empty_like(counts)
    before[order] = np.cumsum(counts[order]) - counts[order]
    totals = np.bincount(column.groups, counts, minlength=column.n_groups).astype(np.int64)
    first = np.cumsum(totals) - totals
    return before - first[column.groups], counts, totals[column.groups]
