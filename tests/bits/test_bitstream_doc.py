"""The examples in docs/bitstream.md, against the code."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from bits_strategies import DEFAULT

from linnet.bits import (
    MISSING,
    EntropyCoder,
    Header,
    Layout,
    Reader,
    Redundancy,
    Tables,
    Writer,
    pack_packets,
    pack_redundant,
    unpack_packets,
)
from linnet.bits.format import BLOCK_FRAMES, CODED, CUT_TRAILER, HEADER_BYTES, PLAIN, TRAILER_BYTES, Geometry, crc16
from linnet.bits.tables import frequencies

DOC = (Path(__file__).parents[2] / "docs" / "bitstream.md").read_text(encoding="utf-8")
MODEL_ID = bytes.fromhex("5a17c0de")


def example(name):
    """The lines of the one code block of this language, without their remarks."""
    (block,) = re.findall(rf"^```{name}\n(.*?)^```$", DOC, re.DOTALL | re.MULTILINE)
    return [line.split(";")[0].strip() for line in block.splitlines()]


def test_the_whole_file():
    data = bytes.fromhex(" ".join(example("lnt")))
    codes = np.full((3, 6), MISSING)
    codes[:, 0] = [int(code, 16) for code in example("codes")[0].split()]
    reader = Reader(io.BytesIO(data), {MODEL_ID: DEFAULT})
    np.testing.assert_array_equal(reader.read(), codes)
    assert (reader.header, reader.samples) == (Header(MODEL_ID, 44_100, 1), 1_500)
    written = io.BytesIO()
    with Writer(written, reader.header, DEFAULT) as writer:
        writer.write(codes)
        writer.samples = 1_500
    assert written.getvalue() == data


def test_the_coded_file():
    data = bytes.fromhex(" ".join(example("coded")))
    layout = Layout((4,), (1,), 16_000, 192)
    tables = Tables.from_bytes(bytes.fromhex(" ".join(example("tables"))))
    coder = EntropyCoder(layout, tables, bytes.fromhex("c0de5a17"))
    codes = np.array([[int(code)] for code in example("toy")[0]])
    reader = Reader(io.BytesIO(data), {coder.model_id: coder})
    np.testing.assert_array_equal(reader.read(), codes)
    assert reader.samples == 7_680
    written = io.BytesIO()
    with Writer(written, Header(coder.model_id, 16_000, 1, CODED), layout, coder) as writer:
        writer.write(codes)
    assert written.getvalue() == data
    assert ", ".join(map(str, frequencies(np.arange(8, dtype=np.uint8)))) in " ".join(DOC.split())


def test_the_packets():
    packets = [bytes.fromhex(line) for line in example("packet")]
    codes = np.array([[0x123, 0xABC, 0x00F, 0, 0, 0]])
    for n_layers, packet in enumerate(packets, start=1):
        assert pack_packets(codes, DEFAULT, n_layers) == [packet]
        np.testing.assert_array_equal(unpack_packets([packet], DEFAULT)[0, :n_layers], codes[0, :n_layers])


def test_the_packets_with_copies():
    packets = [bytes.fromhex(line) for line in example("copies")]
    codes = np.zeros((4, 6), int)
    codes[:, 0], codes[:, 1] = (0x111, 0x222, 0x333, 0x444), (0xAAA, 0xBBB, 0xCCC, 0xDDD)
    assert pack_redundant(codes, codes[:0], DEFAULT, 2, Redundancy((1, 3))) == packets


def test_the_check_value_of_the_crc():
    assert "from ffff give 29b1" in DOC
    assert crc16(b"123456789", 0xFFFF).hex() == "29b1"


@pytest.mark.parametrize(("frames", "n_layers", "length"), [(837, 1, 1_289), (0, 1, 25), (256, 6, 2_331)])
def test_the_lengths(frames, n_layers, length):
    bits = 12 * n_layers
    blocks, rest = divmod(frames, 256)
    assert length == 14 + blocks * (32 * bits + 2) + (-(-rest * bits // 8) + 2 if rest else 0) + 11
    geometry = Geometry(Header(MODEL_ID, 16_000, n_layers), DEFAULT)
    assert HEADER_BYTES + geometry.body_bytes(frames) + TRAILER_BYTES == length


def test_the_constants():
    assert (HEADER_BYTES, TRAILER_BYTES, BLOCK_FRAMES, PLAIN, CODED) == (14, 11, 256, 1, 2)
    assert CUT_TRAILER.hex() == "ff" * 11
