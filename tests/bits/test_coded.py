"""Files of version 2: entropy-coded. What holds for both versions alike is tested in test_container."""

import io
import os
import threading

import numpy as np
import pytest
from bits_strategies import (
    CODED_ID,
    MODEL_ID,
    Pipe,
    coded_file_of,
    coder_for,
    file_of,
    probable_codes,
    small_layouts,
    some_codes,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from linnet.bits import (
    BLOCK_FRAMES,
    CODED,
    MISSING,
    PLAIN,
    CorruptFileError,
    Header,
    Layout,
    LayoutError,
    LinnetError,
    Reader,
    SeekError,
    WriteError,
    Writer,
    WrongModelError,
    keep_layers,
    thin,
)
from linnet.bits.format import HEADER_BYTES, TRAILER_BYTES, crc16

STREAMS = pytest.mark.parametrize("stream", [io.BytesIO, Pipe])
FRAMES = st.sampled_from([0, 1, 2, 7, 100, 255, 256, 257, 300, 511, 512, 513, 760])
LAYOUT = Layout((256, 64, 16, 256), (1, 2, 2, 3), 16_000, 192)
CODER = coder_for(LAYOUT)
CODES = probable_codes(600, CODER)
# A layer that gets smaller, one that does not and is packed, and one that is again coded.
MIXED = np.where([True, False, False, True], CODES, some_codes(600, LAYOUT))


def reader_of(data, stream=io.BytesIO, coder=CODER, **options):
    return Reader(stream(data), {coder.model_id: coder}, **options)


@STREAMS
@given(small_layouts(), FRAMES, st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_reader_inverts_writer(stream, layout, frames, probable, data):
    coder, n_layers = coder_for(layout), data.draw(st.integers(1, layout.n_layers))
    codes = probable_codes(frames, coder) if probable else some_codes(frames, layout)
    reader = reader_of(coded_file_of(codes, coder, n_layers, frames * 192, 16_000), stream, coder)
    np.testing.assert_array_equal(reader.read(), keep_layers(codes, layout, n_layers))
    assert (reader.frames, reader.samples, reader.truncated, reader.damaged) == (frames, frames * 192, False, set())
    assert reader.header == Header(CODED_ID, 16_000, n_layers, CODED)


@given(st.lists(st.integers(0, 400), max_size=4), st.lists(st.integers(0, 400), max_size=4))
@settings(max_examples=30, deadline=None)
def test_chunks_do_not_matter(written, read):
    codes = np.resize(CODES, (sum(written), 4))
    out = Pipe()
    with Writer(out, Header(CODED_ID, 16_000, 3, CODED), LAYOUT, CODER) as writer:
        for end, size in zip(np.cumsum(written), written, strict=True):
            writer.write(codes[end - size : end])
            assert writer.frames == end
    assert writer.frames == len(codes)
    assert out.getvalue() == coded_file_of(codes, CODER, 3, sample_rate=16_000)
    reader = reader_of(out.getvalue(), Pipe)
    parts = [reader.read(size) for size in read] + list(reader)
    np.testing.assert_array_equal(np.concatenate([*parts, codes[:0]]), codes)


@given(FRAMES, st.integers(0, 1000), st.integers(0, 1000), st.sampled_from([0, 5]))
@settings(max_examples=40, deadline=None)
def test_seek(frames, first, count, offset):
    codes = np.resize(MIXED, (frames, 4))
    stream = io.BytesIO(bytes(offset) + coded_file_of(codes, CODER, 3))
    stream.seek(offset)
    reader = Reader(stream, {CODED_ID: CODER})
    reader.read(3)
    reader.seek(first)
    np.testing.assert_array_equal(reader.read(count), codes[first : first + count])


def test_a_pipe_cannot_be_seeked():
    with pytest.raises(SeekError, match="pipe"):
        reader_of(coded_file_of(CODES, CODER), Pipe).seek(0)


def test_a_real_pipe_delivers_blocks_before_the_end():
    read_end, write_end = os.pipe()
    first_block_read = threading.Event()

    def write():
        header = Header(MODEL_ID, 16_000, 1)
        with os.fdopen(write_end, "wb") as out, Writer(out, header, LAYOUT, CODER) as writer:
            writer.write(CODES[: 2 * BLOCK_FRAMES])
            assert first_block_read.wait(30)
            writer.write(CODES[2 * BLOCK_FRAMES :])

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(read_end, "rb") as source:
        reader = Reader(source, {CODED_ID: CODER})
        start = reader.read(BLOCK_FRAMES)
        assert reader.frames is None
        first_block_read.set()
        rest = reader.read()
    thread.join()
    np.testing.assert_array_equal(np.concatenate([start, rest]), keep_layers(CODES, LAYOUT, 1))


@pytest.mark.parametrize(("codes", "version"), [(CODES, CODED), (some_codes(600, LAYOUT), PLAIN), (CODES[:0], PLAIN)])
def test_the_writer_codes_what_gets_smaller(codes, version):
    out = io.BytesIO()
    with Writer(out, Header(MODEL_ID, 44_100, 3), LAYOUT, CODER) as writer:
        for frame in range(0, len(codes), 100):
            writer.write(codes[frame : frame + 100])
    plain = file_of(codes, 3, LAYOUT)
    assert writer.header.version == version
    if version == PLAIN:
        assert out.getvalue() == plain
    else:
        assert out.getvalue() == coded_file_of(codes, CODER, 3)
        assert len(out.getvalue()) < len(plain)


def test_a_file_is_never_much_longer_than_without():
    codes = some_codes(600, LAYOUT)
    # Each of three blocks says its frames, and that none of three layers saves anything.
    assert len(coded_file_of(codes, CODER, 3)) <= len(file_of(codes, 3, LAYOUT)) + 3 * (1 + 3)


def test_a_small_file_is_not_hours_of_sound():
    """However probable the codes: at least a bit for every one."""
    codes = np.repeat(CODES[:1], 2560, axis=0)
    assert len(coded_file_of(codes, CODER, 1)) > 2560 / 8


@STREAMS
@pytest.mark.parametrize(("frames", "n_layers"), [(0, 1), (1, 1), (20, 2), (255, 1), (256, 1), (300, 3)])
def test_cut_at_every_byte(stream, frames, n_layers):
    codes = keep_layers(MIXED[:frames], LAYOUT, n_layers)
    data = coded_file_of(codes, CODER, n_layers)
    whole = 0
    for length in range(len(data)):
        if length < HEADER_BYTES:
            with pytest.raises(CorruptFileError):
                reader_of(data[:length], stream)
            continue
        reader = reader_of(data[:length], stream)
        decoded = reader.read()
        assert reader.truncated
        assert reader.samples is None
        assert reader.frames == len(decoded) >= whole  # more bytes never give less
        whole = len(decoded)
        arrived = decoded != MISSING
        np.testing.assert_array_equal(decoded[arrived], codes[: len(decoded)][arrived])  # never a code that was not written
        assert arrived[:, 0].all()
    if len(data) > 30:
        assert whole == frames  # all but the trailer


@STREAMS
@pytest.mark.parametrize("frames", [0, 20, 256, 300])
def test_every_flipped_bit_is_an_error_or_reported(stream, frames):
    codes = keep_layers(CODES[:frames], LAYOUT, 1)
    data = bytearray(coded_file_of(codes, CODER, 1))
    for bit in range(0, 8 * len(data), 1 if frames < 256 else 7):
        data[bit // 8] ^= 1 << bit % 8
        try:
            reader = reader_of(bytes(data), stream)
            decoded = reader.read()
        except LinnetError:
            pass
        else:  # only in the trailer, and then the file reads as cut
            assert bit // 8 >= len(data) - TRAILER_BYTES
            assert reader.truncated
            np.testing.assert_array_equal(decoded, codes[: len(decoded)])
        data[bit // 8] ^= 1 << bit % 8


@STREAMS
def test_damage_is_concealed_block_by_block(stream):
    data = bytearray(coded_file_of(CODES, CODER, 3))
    block = (len(data) - HEADER_BYTES) // 600 * 256
    data[HEADER_BYTES + block + 100] ^= 1  # in block 1
    with pytest.raises(CorruptFileError, match="frames 256 to 511"):
        reader_of(bytes(data), stream).read()
    reader = reader_of(bytes(data), stream, on_damage="conceal")
    expected = CODES.copy()
    expected[256:512] = MISSING
    np.testing.assert_array_equal(reader.read(), expected)
    assert (reader.damaged, reader.truncated) == ({1}, False)


def test_what_is_unharmed_can_be_read_by_seeking():
    data = bytearray(coded_file_of(CODES, CODER, 3))
    data[HEADER_BYTES + 50] ^= 1
    reader = reader_of(bytes(data))
    reader.seek(256)
    np.testing.assert_array_equal(reader.read(), CODES[256:])


def test_an_impossible_head_is_damage():
    data = bytearray(coded_file_of(CODES, CODER, 1))
    data[HEADER_BYTES + 1 : HEADER_BYTES + 3] = b"\xff\x7f"  # saves more than there is
    for stream in (io.BytesIO, Pipe):
        with pytest.raises(CorruptFileError, match="frames 0 to 255"):
            reader_of(bytes(data), stream).read()
        reader = reader_of(bytes(data), stream, on_damage="conceal")
        assert (reader.read() == MISSING).all()
        assert (reader.damaged, reader.truncated) == ({0}, True)
    reader = reader_of(bytes(data))
    reader.seek(10**6)
    assert len(reader.read()) == 0


def drain(data, stream, on_damage):
    """Read garbage to its end, or to the typed error."""
    try:
        reader = reader_of(data, stream, on_damage=on_damage)
        codes = reader.read()
    except LinnetError:
        return
    # At least a bit a frame, but for one block that claims to be there.
    assert len(codes) <= 8 * len(data) + BLOCK_FRAMES
    assert reader.frames == len(codes)


GOOD_HEADER = Header(CODED_ID, 44_100, 1, CODED).to_bytes()


@STREAMS
@given(st.binary(max_size=600), st.sampled_from([b"LNT\2", GOOD_HEADER]), st.sampled_from(["raise", "conceal"]))
@example(b"\xff" * 800, GOOD_HEADER, "conceal")
@example(b"\0" * 800, GOOD_HEADER, "conceal")
@settings(deadline=None)
def test_garbage_decodes_or_raises_the_typed_error(stream, garbage, start, on_damage):
    drain(start + garbage, stream, on_damage)


@STREAMS
@given(st.binary(max_size=300), st.integers(0, 255), st.sampled_from(["raise", "conceal"]))
@settings(deadline=None)
def test_garbage_with_a_right_checksum_decodes(stream, garbage, frames, on_damage):
    block = bytes([frames]) + garbage
    drain(GOOD_HEADER + block + crc16(block, 1) + bytes(TRAILER_BYTES), stream, on_damage)


@STREAMS
@given(st.data(), st.sampled_from(["raise", "conceal"]))
@settings(deadline=None)
def test_mangled_files_decode_or_raise_the_typed_error(stream, data, on_damage):
    mangled = bytearray(MANGLED)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(mangled)))
        mangled[place : place + data.draw(st.integers(0, 400))] = data.draw(st.binary(max_size=30))
    drain(bytes(mangled), stream, on_damage)


MANGLED = coded_file_of(CODES, CODER, 1)


@STREAMS
@given(small_layouts(), FRAMES, st.booleans(), st.data())
@settings(max_examples=40, deadline=None)
def test_thinning_is_writing_fewer_layers(stream, layout, frames, probable, data):
    coder, n_layers = coder_for(layout), data.draw(st.integers(1, layout.n_layers))
    fewer = data.draw(st.integers(1, n_layers))
    codes = probable_codes(frames, coder) if probable else some_codes(frames, layout)
    thinned = Pipe()
    report = thin(stream(coded_file_of(codes, coder, n_layers)), thinned, fewer, {CODED_ID: layout})  # needs no tables
    assert thinned.getvalue() == coded_file_of(codes, coder, fewer)
    assert (report.frames, report.truncated) == (frames, False)


@pytest.mark.parametrize("fewer", [1, 2, 3])
def test_thinning_a_cut_file_loses_no_more_than_its_end(fewer):
    whole = coded_file_of(MIXED[:300], CODER, 3)
    for length in range(HEADER_BYTES, len(whole), 5):
        thinned = io.BytesIO()
        assert thin(io.BytesIO(whole[:length]), thinned, fewer, {CODED_ID: LAYOUT}).truncated
        reader = reader_of(thinned.getvalue())
        decoded = reader.read()
        expected = keep_layers(reader_of(whole[:length]).read(), LAYOUT, fewer)
        assert reader.truncated
        assert len(expected) - len(decoded) <= 8 * TRAILER_BYTES / 4
        np.testing.assert_array_equal(decoded, expected[: len(decoded)])


def test_thin_refuses_what_it_cannot_do():
    data = bytearray(coded_file_of(CODES, CODER, 2))
    for n_layers in (0, 3):
        with pytest.raises(LayoutError, match="has 2"):
            thin(io.BytesIO(data), io.BytesIO(), n_layers, {CODED_ID: LAYOUT})
    data[-20] ^= 1
    thinned = io.BytesIO()
    with pytest.raises(CorruptFileError, match="frames 512 to 599"):
        thin(io.BytesIO(data), thinned, 1, {CODED_ID: LAYOUT})
    assert reader_of(thinned.getvalue()).truncated


def test_a_trailer_that_lies_is_no_trailer():
    fields = (599).to_bytes(4) + bytes(5)
    data = coded_file_of(CODES, CODER, 1)[:-TRAILER_BYTES] + fields + crc16(fields, 0xFFFF)
    for stream in (io.BytesIO, Pipe):
        reader = reader_of(data, stream)
        assert len(reader.read()) == 600
        assert reader.truncated


def test_a_coded_file_needs_its_tables():
    data = coded_file_of(CODES, CODER, 1)
    with pytest.raises(WrongModelError, match="without its tables"):
        Reader(io.BytesIO(data), {CODED_ID: LAYOUT})
    with pytest.raises(WrongModelError, match="c0de5a17"):
        Reader(io.BytesIO(data), {MODEL_ID: LAYOUT})
    with pytest.raises(WriteError, match="coder"):
        Writer(io.BytesIO(), Header(CODED_ID, 16_000, 1, CODED), LAYOUT)
    with pytest.raises(WriteError, match="coder"):
        Writer(io.BytesIO(), Header(MODEL_ID, 16_000, 1, CODED), LAYOUT, CODER)
    with pytest.raises(WriteError, match="version 3"):
        Header(MODEL_ID, 16_000, 1, 3)
