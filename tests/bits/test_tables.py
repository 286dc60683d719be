import dataclasses

import numpy as np
import pytest
from bits_strategies import DEFAULT, coder_for, small_layouts, tables_for
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.bits import EntropyCoder, Layout, LinnetError, Tables, TablesError
from linnet.bits.tables import MAGIC, Source, costs, frequencies

LAYOUT = Layout((16, 8, 32), (1, 1, 2), 16_000, 192)


@given(small_layouts(), st.integers(0, 9))
def test_a_file_of_tables_reads_back(layout, seed):
    data = tables_for(layout, seed).to_bytes()
    read = Tables.from_bytes(data)
    assert read.to_bytes() == data
    read.check_layout(layout)


def test_frequencies_are_powers_of_two_eighths():
    exact = 2.0 ** (15 - np.arange(256) / 8)
    kept = frequencies(np.arange(256, dtype=np.uint8))
    np.testing.assert_array_less(np.abs(kept[:121] - exact[:121]), 1.0)
    assert kept.min() == 1
    np.testing.assert_array_equal(kept[::8][:16], 2 ** np.arange(15, -1, -1))
    np.testing.assert_array_equal(costs(exact[:121] / 2**15), np.arange(121))
    assert costs(0.0) == 120


def changed(**fields):
    """Good tables but for the last column."""
    *columns, last = tables_for(LAYOUT).columns
    return Tables((*columns, dataclasses.replace(last, **fields)))


@pytest.mark.parametrize(
    "fields",
    [
        {"sources": (Source(3, 1), Source(1, 0))},
        {"sources": (Source(2, 0), Source(1, 0))},
        {"groups": np.full(32, 200, np.uint8)},
        {"groups": np.zeros(16, np.uint8)},
        {"clusters": np.zeros(9, np.uint8)},
        {"group_costs": np.zeros((1, 1, 4), np.uint8)},
    ],
)
def test_tables_that_contradict_themselves_are_refused(fields):
    with pytest.raises(TablesError):
        changed(**fields)


def test_costs_that_add_up_to_too_much_are_refused():
    column = tables_for(Layout((4096,), (1,), 16_000, 192)).columns[0]
    with pytest.raises(TablesError, match="no probabilities"):
        Tables((dataclasses.replace(column, code_costs=np.zeros(4096, np.uint8)),))


def test_tables_of_another_model_are_refused():
    with pytest.raises(TablesError, match="fit them again"):
        EntropyCoder(DEFAULT, tables_for(LAYOUT), b"abcd")


@given(st.binary(max_size=200), st.sampled_from([b"", MAGIC, MAGIC + b"\1", MAGIC + b"\2\3\2\1"]))
def test_garbage_is_refused(garbage, start):
    try:
        Tables.from_bytes(start + garbage)
    except LinnetError:
        return
    assert start + garbage == MAGIC + b"\0"


@given(st.data())
@settings(max_examples=200)
def test_mangled_tables_are_refused_or_still_code(data):
    mangled = bytearray(tables_for(LAYOUT).to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        mangled[data.draw(st.integers(0, len(mangled) - 1))] = data.draw(st.integers(0, 255))
    try:
        coder = EntropyCoder(LAYOUT, Tables.from_bytes(bytes(mangled)), b"abcd")
    except TablesError:
        return
    codes = np.random.default_rng(0).integers(0, LAYOUT.sizes, (20, 3))
    decoded = np.zeros_like(codes)
    for layer in (1, 2):
        coder.decode(coder.encode(codes, layer), decoded, layer)
    np.testing.assert_array_equal(decoded, codes)


@pytest.mark.parametrize("length", [0, 3, 4, 5, 20, -1])
def test_cut_tables_are_refused(length):
    with pytest.raises(TablesError):
        Tables.from_bytes(coder_for(LAYOUT).tables.to_bytes()[:length])
