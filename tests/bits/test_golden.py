"""Files of every version of the bitstream, which every later Linnet must decode.

Each `golden/NAME.lnt` has the codes it decodes to beside it, in `golden/NAME.csv`. To add one, describe it in GOLDEN
and run this test once with LINNET_MAKE_GOLDEN=1. That makes what is missing and never touches what is there: a golden
file is never made again.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from bits_strategies import DEFAULT

from linnet.bits import Header, Layout, Reader, Writer

FOLDER = Path(__file__).parent / "golden"
MODEL_ID = bytes.fromhex("5a17c0de")
UNEVEN = Layout(sizes=(8, 1024, 2, 65536, 4), layers=(1, 1, 2, 2, 2), sample_rate=24_000, hop=320)


@dataclass(frozen=True)
class Golden:
    """A golden file: what it is, and what the reader must say of it."""

    layout: Layout
    sample_rate: int
    n_layers: int
    frames: int
    samples: int
    keep: int | None = None  # bytes, of a file that was cut
    flip: int | None = None  # the byte that was damaged
    truncated: bool = False
    damaged: frozenset[int] = frozenset()


GOLDEN = {
    "v1-default-1": Golden(DEFAULT, 44_100, n_layers=1, frames=300, samples=157_001),
    "v1-default-6": Golden(DEFAULT, 16_000, n_layers=6, frames=90, samples=17_000),
    "v1-uneven": Golden(UNEVEN, 192_000, n_layers=2, frames=70, samples=179_000),
    "v1-empty": Golden(DEFAULT, 8_000, n_layers=3, frames=0, samples=0),
    "v1-cut": Golden(DEFAULT, 48_000, n_layers=2, frames=60, samples=34_000, keep=150, truncated=True),
    "v1-damaged": Golden(DEFAULT, 48_000, n_layers=1, frames=270, samples=155_000, flip=99, damaged=frozenset({0})),
}


def make_missing(name, golden):
    """Write a golden file and its codes, unless one of them is there ("x" refuses)."""
    frame, column = np.ogrid[: golden.frames, : golden.layout.n_codes]
    codes = (frame * 40_503 + column * 30_011 + frame * frame * 77) % np.array(golden.layout.sizes)
    out = io.BytesIO()
    with Writer(out, Header(MODEL_ID, golden.sample_rate, golden.n_layers), golden.layout) as writer:
        writer.write(codes)
        writer.samples = golden.samples
    data = bytearray(out.getvalue()[: golden.keep])
    if golden.flip is not None:
        data[golden.flip] ^= 0x10
    decoded = Reader(io.BytesIO(data), {MODEL_ID: golden.layout}, on_damage="conceal").read()
    with (FOLDER / f"{name}.csv").open("x") as table:
        np.savetxt(table, decoded, fmt="%d", delimiter=",")
    with (FOLDER / f"{name}.lnt").open("xb") as file:
        file.write(data)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    golden, path = GOLDEN[name], FOLDER / f"{name}.lnt"
    if os.environ.get("LINNET_MAKE_GOLDEN") == "1" and not path.exists():
        make_missing(name, golden)
    table = (FOLDER / f"{name}.csv").read_text().split()
    expected = np.array([line.split(",") for line in table], np.int64).reshape(-1, golden.layout.n_codes)
    with path.open("rb") as file:
        reader = Reader(file, {MODEL_ID: golden.layout}, on_damage="conceal")
        np.testing.assert_array_equal(reader.read(), expected)
    assert reader.header == Header(MODEL_ID, golden.sample_rate, golden.n_layers)
    assert reader.samples == (None if golden.truncated else golden.samples)
    assert reader.truncated == golden.truncated
    assert reader.damaged == golden.damaged


def test_every_golden_file_is_tested():
    assert {path.stem for path in FOLDER.iterdir()} == set(GOLDEN)
