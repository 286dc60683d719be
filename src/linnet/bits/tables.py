"""The integer tables from which codes are entropy-coded. docs/bitstream.md specifies their file to the byte.

Every column's codes are divided into *groups*. A code is sent as its group, whose probability depends on the groups of two
codes that the decoder already has (the column's two *sources*), and then as its place within the group, whose probability
does not depend on anything. So a context is learnt for a few dozen groups, not for thousands of codes, and nothing here
knows what a model's codes mean.

Probabilities are stored as costs in eighths of a bit, a byte each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from linnet.bits.errors import TablesError
from linnet.bits.packet import Layout
from linnet.bits.rangecoder import MAX_TOTAL

Bytes = npt.NDArray[np.uint8]

MAGIC = b"LNT\xe1"
MAX_SIZE = 1 << 16
"""Columns with more values than this have no tables."""

COST_STEPS = 8
_FREQUENCIES = np.array([32768, 30048, 27554, 25268, 23170, 21247, 19484, 17867])
"""round(2**(15 - k / 8)): the frequencies that cost k eighths of a bit in 32768."""


@dataclass(frozen=True)
class Source:
    """Where a context comes from: the code of `column`, `lag` frames ago."""

    column: int
    lag: int


@dataclass(frozen=True, eq=False)
class ColumnTables:
    """The tables of one column.

    Args:
        sources: the two codes that are the context. Before the first frame of a block they count as code 0.
        groups: uint8 [size], the group of each code.
        code_costs: uint8 [size], of each code within its group.
        clusters: uint8 [groups of the second source], which of these are taken together.
        group_costs: uint8 [groups of the first source, clusters, groups].
    """

    sources: tuple[Source, Source]
    groups: Bytes
    code_costs: Bytes
    clusters: Bytes
    group_costs: Bytes

    @property
    def n_groups(self) -> int:
        """Groups, the empty ones included."""
        return self.group_costs.shape[2]


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of a model's columns, in their order.

    Raises:
        TablesError: if they contradict themselves.
    """

    columns: tuple[ColumnTables, ...]

    def __post_init__(self) -> None:
        for number, column in enumerate(self.columns):
            self._check(number, column)

    def _check(self, number: int, column: ColumnTables) -> None:
        first, second = column.sources
        if any(s.column > number or (s.column == number and s.lag == 0) for s in column.sources):
            raise TablesError(f"column {number} needs codes that come after its own: fit the tables again")
        contexts = self.columns[first.column].n_groups, int(column.clusters.max(initial=0)) + 1
        if (
            column.groups.shape != column.code_costs.shape
            or not 2 <= column.groups.size <= MAX_SIZE
            or column.clusters.shape != (self.columns[second.column].n_groups,)
            or column.group_costs.shape != (*contexts, column.n_groups)
            or column.groups.max() >= column.n_groups
        ):
            raise TablesError(f"the tables of column {number} do not fit each other: fit them again")
        totals = np.bincount(column.groups, frequencies(column.code_costs))
        if max(totals.max(), frequencies(column.group_costs).sum(axis=2).max()) > MAX_TOTAL:
            raise TablesError(f"the costs of column {number} are no probabilities: fit the tables again")

    def check_layout(self, layout: Layout) -> None:
        """Whether these tables are for codes of `layout`; TablesError if not."""
        sizes = tuple(column.groups.size for column in self.columns)
        if sizes != layout.sizes:
            raise TablesError(f"tables for columns of {sizes} codes, and the model's have {layout.sizes}: fit them again")

    def to_bytes(self) -> bytes:
        """The tables' file."""
        parts = [MAGIC, bytes([len(self.columns)])]
        for column in self.columns:
            (a, b), n_clusters = column.sources, column.group_costs.shape[1]
            parts += [
                bytes([column.groups.size.bit_length() - 1, column.n_groups - 1, n_clusters - 1]),
                bytes([a.column, a.lag, b.column, b.lag]),
                *(array.tobytes() for array in (column.groups, column.code_costs, column.clusters, column.group_costs)),
            ]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Tables:
        """The tables of a file.

        Raises:
            TablesError: if it is none, or is damaged.
        """
        if data[:4] != MAGIC or len(data) < 5:
            raise TablesError("this is no file of tables, or of another version: fit them again")
        place = 5

        def take(*shape: int) -> Bytes:
            nonlocal place
            count = int(np.prod(shape))
            if place + count > len(data):
                raise TablesError("the file of tables is cut short: fit them again")
            place += count
            return np.frombuffer(data, np.uint8, count, place - count).reshape(shape)

        columns: list[ColumnTables] = []
        for number in range(data[4]):
            bits, n_groups, n_clusters, *where = take(7).tolist()
            sources = Source(*where[:2]), Source(*where[2:])
            if bits > 16 or any(source.column > number for source in sources):
                raise TablesError(f"the tables of column {number} are damaged: fit them again")
            n_first, n_second = (
                columns[source.column].n_groups if source.column < number else n_groups + 1 for source in sources
            )
            columns.append(
                ColumnTables(
                    sources, take(1 << bits), take(1 << bits), take(n_second), take(n_first, n_clusters + 1, n_groups + 1)
                )
            )
        if place != len(data):
            raise TablesError("the file of tables is longer than it should be: fit them again")
        return cls(tuple(columns))


def frequencies(costs: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The frequencies that stand for costs in eighths of a bit: 32768 costs nothing, and none is less than 1."""
    whole, eighths = np.divmod(costs.astype(np.int64), COST_STEPS)
    return np.maximum(_FREQUENCIES[eighths] >> np.minimum(whole, 15), 1)


def costs(probabilities: npt.ArrayLike) -> Bytes:
    """The costs nearest to probabilities, for whoever fits tables."""
    bits = -np.log2(np.maximum(probabilities, 2.0**-15))
    return np.round(COST_STEPS * bits).astype(np.uint8)


def cumulative(rows: npt.NDArray[np.int64]) -> list:
    """Frequencies [..., symbols] as the range coder's decoder takes them, in nested lists: 0, the first, the first two
    together, ..., the total."""
    sums = np.zeros((*rows.shape[:-1], rows.shape[-1] + 1), np.int64)
    np.cumsum(rows, axis=-1, out=sums[..., 1:])
    return sums.tolist()
