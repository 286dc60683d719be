"""Files of every version of the bitstream, which every later Linnet must decode.

Each `golden/NAME.lnt` has the codes it decodes to beside it, in `golden/NAME.csv`, and `golden/TABLES.bin` is what those of
version 2 are coded with. To add one, describe it in GOLDEN
and run this test once with LINNET_MAKE_GOLDEN=1. That makes what is missing and never touches what is there: a golden
file is never made again.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from bits_strategies import CODED_ID, DEFAULT, probable_codes, tables_for

from linnet.bits import CODED, PLAIN, EntropyCoder, Header, Layout, Reader, Tables, Writer

FOLDER = Path(__file__).parent / "golden"
MODEL_ID = bytes.fromhex("5a17c0de")
TABLES = "v2-tables"
CODABLE = Layout(sizes=(4096, 64, 16, 256), layers=(1, 2, 2, 3), sample_rate=16_000, hop=192)
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
    version: int = PLAIN

    @property
    def header(self):
        """What the file begins with."""
        model_id = MODEL_ID if self.version == PLAIN else CODED_ID
        return Header(model_id, self.sample_rate, self.n_layers, self.version)


GOLDEN = {
    "v1-default-1": Golden(DEFAULT, 44_100, n_layers=1, frames=300, samples=157_001),
    "v1-default-6": Golden(DEFAULT, 16_000, n_layers=6, frames=90, samples=17_000),
    "v1-uneven": Golden(UNEVEN, 192_000, n_layers=2, frames=70, samples=179_000),
    "v1-empty": Golden(DEFAULT, 8_000, n_layers=3, frames=0, samples=0),
    "v1-cut": Golden(DEFAULT, 48_000, n_layers=2, frames=60, samples=34_000, keep=150, truncated=True),
    "v1-damaged": Golden(DEFAULT, 48_000, n_layers=1, frames=270, samples=155_000, flip=99, damaged=frozenset({0})),
    "v2-whole": Golden(CODABLE, 44_100, n_layers=3, frames=300, samples=157_001, version=CODED),
    "v2-first": Golden(CODABLE, 16_000, n_layers=1, frames=520, samples=99_000, version=CODED),
    "v2-empty": Golden(CODABLE, 8_000, n_layers=2, frames=0, samples=0, version=CODED),
    "v2-cut": Golden(CODABLE, 16_000, n_layers=3, frames=200, samples=38_000, keep=400, truncated=True, version=CODED),
    "v2-cut-first": Golden(CODABLE, 16_000, n_layers=3, frames=200, samples=38_000, keep=150, truncated=True, version=CODED),
    "v2-damaged": Golden(
        CODABLE, 16_000, n_layers=2, frames=270, samples=51_000, flip=99, damaged=frozenset({0}), version=CODED
    ),
}


def coder():
    """What the files of version 2 are coded with."""
    path = FOLDER / f"{TABLES}.bin"
    if os.environ.get("LINNET_MAKE_GOLDEN") == "1" and not path.exists():
        path.write_bytes(tables_for(CODABLE).to_bytes())
    return EntropyCoder(CODABLE, Tables.from_bytes(path.read_bytes()), CODED_ID)


def make_missing(name, golden):
    """Write a golden file and its codes, unless one of them is there ("x" refuses)."""
    frame, column = np.ogrid[: golden.frames, : golden.layout.n_codes]
    codes = (frame * 40_503 + column * 30_011 + frame * frame * 77) % np.array(golden.layout.sizes)
    if golden.version == CODED:  # but for one layer, which is then packed
        codes = np.where(np.array(golden.layout.layers) == 2, codes, probable_codes(golden.frames, coder()))
    out = io.BytesIO()
    with Writer(out, golden.header, golden.layout, coder() if golden.version == CODED else None) as writer:
        writer.write(codes)
        writer.samples = golden.samples
    data = bytearray(out.getvalue()[: golden.keep])
    if golden.flip is not None:
        data[golden.flip] ^= 0x10
    decoded = reader_of(io.BytesIO(data), golden).read()
    with (FOLDER / f"{name}.csv").open("x") as table:
        np.savetxt(table, decoded, fmt="%d", delimiter=",")
    with (FOLDER / f"{name}.lnt").open("xb") as file:
        file.write(data)


def reader_of(file, golden):
    return Reader(file, {MODEL_ID: golden.layout, CODED_ID: coder()}, on_damage="conceal")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    golden, path = GOLDEN[name], FOLDER / f"{name}.lnt"
    if os.environ.get("LINNET_MAKE_GOLDEN") == "1" and not path.exists():
        make_missing(name, golden)
    table = (FOLDER / f"{name}.csv").read_text().split()
    expected = np.array([line.split(",") for line in table], np.int64).reshape(-1, golden.layout.n_codes)
    with path.open("rb") as file:
        reader = reader_of(file, golden)
        np.testing.assert_array_equal(reader.read(), expected)
    assert reader.header == golden.header
    assert reader.samples == (None if golden.truncated else golden.samples)
    assert reader.truncated == golden.truncated
    assert reader.damaged == golden.damaged
    if not golden.truncated and not golden.damaged:
        written = io.BytesIO()
        with Writer(written, golden.header, golden.layout, coder() if golden.version == CODED else None) as writer:
            writer.write(expected)
            writer.samples = golden.samples
        assert written.getvalue() == path.read_bytes()


def test_every_golden_file_is_tested():
    assert {path.stem for path in FOLDER.iterdir()} == {*GOLDEN, TABLES}
