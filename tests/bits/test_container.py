import io
import os
import threading

import numpy as np
import pytest
from bits_strategies import DEFAULT, MODEL_ID, Pipe, file_of, layouts_and_codes, some_codes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from linnet.bits import (
    BLOCK_FRAMES,
    MISSING,
    CodesError,
    CorruptFileError,
    Header,
    Layout,
    LayoutError,
    LinnetError,
    Reader,
    SeekError,
    VersionError,
    WriteError,
    Writer,
    WrongModelError,
    keep_layers,
    read_header,
    thin,
)
from linnet.bits.format import HEADER_BYTES, TRAILER_BYTES, crc16

LAYOUTS = {MODEL_ID: DEFAULT}
STREAMS = pytest.mark.parametrize("stream", [io.BytesIO, Pipe])
# Whole blocks, short blocks, and lengths whose last block and trailer are longer than a whole block.
FRAMES = st.sampled_from([0, 1, 2, 7, 100, 247, 248, 253, 254, 255, 256, 257, 300, 511, 512, 513, 760])


def reader_of(data, stream=io.BytesIO, layout=DEFAULT, **options):
    return Reader(stream(data), {MODEL_ID: layout}, **options)


@STREAMS
@given(layouts_and_codes(), FRAMES, st.integers(8_000, 192_000))
@settings(max_examples=60)
def test_reader_inverts_writer(stream, drawn, frames, sample_rate):
    layout, n_layers, _ = drawn
    codes = some_codes(frames, layout)
    samples = frames * layout.hop * sample_rate // layout.sample_rate
    reader = reader_of(file_of(codes, n_layers, layout, samples, sample_rate), stream, layout)
    np.testing.assert_array_equal(reader.read(), keep_layers(codes, layout, n_layers))
    assert (reader.frames, reader.samples, reader.truncated, reader.damaged) == (frames, samples, False, set())
    assert reader.header == Header(MODEL_ID, sample_rate, n_layers)


@given(st.lists(st.integers(0, 600), max_size=5), st.lists(st.integers(0, 600), max_size=5))
def test_chunks_do_not_matter(written, read):
    codes = some_codes(sum(written))
    out = Pipe()
    with Writer(out, Header(MODEL_ID, 16_000, 6), DEFAULT) as writer:
        for end, size in zip(np.cumsum(written), written, strict=True):
            writer.write(codes[end - size : end])
            assert writer.frames == end
    assert out.getvalue() == file_of(codes, 6, sample_rate=16_000)
    reader = reader_of(out.getvalue(), Pipe)
    parts = [reader.read(size) for size in read]
    parts += list(reader)
    np.testing.assert_array_equal(np.concatenate([*parts, codes[:0]]), codes)
    assert [len(part) for part in parts[: len(read)]] == [
        min(size, max(0, len(codes) - sum(read[:i]))) for i, size in enumerate(read)
    ]


@given(FRAMES, st.integers(0, 1000), st.integers(0, 1000), st.sampled_from([0, 5]))
def test_seek(frames, first, count, offset):
    codes = some_codes(frames)
    stream = io.BytesIO(bytes(offset) + file_of(codes, 6))
    stream.seek(offset)
    reader = Reader(stream, LAYOUTS)
    reader.read(3)
    reader.seek(first)
    np.testing.assert_array_equal(reader.read(count), codes[first : first + count])


def test_seek_to_any_number():
    reader = reader_of(file_of(some_codes(300)))
    reader.seek(10**30)
    assert len(reader.read()) == 0
    with pytest.raises(SeekError):
        reader.seek(-1)
    with pytest.raises(SeekError):
        reader.read(-1)
    with pytest.raises(SeekError, match="pipe"):
        reader_of(file_of(some_codes(300)), Pipe).seek(0)


def test_a_real_pipe_delivers_blocks_before_the_end():
    codes = some_codes(600)
    read_end, write_end = os.pipe()
    first_block_read = threading.Event()

    def write():
        with os.fdopen(write_end, "wb") as out, Writer(out, Header(MODEL_ID, 16_000, 1), DEFAULT) as writer:
            writer.write(codes[: 2 * BLOCK_FRAMES])
            assert first_block_read.wait(30)
            writer.write(codes[2 * BLOCK_FRAMES :])

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(read_end, "rb") as source:
        reader = Reader(source, LAYOUTS)
        start = reader.read(BLOCK_FRAMES)
        assert reader.frames is None
        first_block_read.set()
        rest = reader.read()
    thread.join()
    np.testing.assert_array_equal(np.concatenate([start, rest]), keep_layers(codes, DEFAULT, 1))
    assert (reader.frames, reader.samples) == (600, 600 * 192)


def test_sizes():
    """The figures in docs/bitstream.md."""
    assert len(file_of(some_codes(834), 1)) == 1_284
    assert len(file_of(some_codes(835), 1)) == 1_286
    assert len(file_of(some_codes(0), 1)) == 25
    hour = some_codes(300_000)
    assert len(file_of(hour, 1)) / (300_000 * 12 / 8) == pytest.approx(1.0053, abs=5e-5)
    assert len(file_of(hour, 6)) / (300_000 * 72 / 8) == pytest.approx(1.0009, abs=5e-5)


@STREAMS
@pytest.mark.parametrize(("frames", "n_layers"), [(0, 1), (1, 1), (20, 2), (251, 1), (255, 1), (256, 1), (300, 1)])
def test_cut_at_every_byte(stream, frames, n_layers):
    codes = keep_layers(some_codes(frames), DEFAULT, n_layers)
    data = file_of(codes, n_layers)
    bits = DEFAULT.frame_bits(n_layers)
    for length in range(len(data)):
        if length < HEADER_BYTES:
            with pytest.raises(CorruptFileError):
                reader_of(data[:length], stream)
            continue
        reader = reader_of(data[:length], stream)
        decoded = reader.read()
        assert reader.truncated
        assert reader.samples is None
        assert reader.frames == len(decoded)
        np.testing.assert_array_equal(decoded, codes[: len(decoded)])  # never a frame that was not written
        arrived = min(frames, 8 * (length - HEADER_BYTES) // bits)
        assert arrived - len(decoded) <= 104 / bits + 2


@given(layouts_and_codes(), FRAMES, st.integers(0, 10_000))
def test_cut_files_of_any_layout_decode_to_the_cut(drawn, frames, cut):
    layout, n_layers, _ = drawn
    codes = some_codes(frames, layout)
    data = file_of(codes, n_layers, layout)
    length = max(HEADER_BYTES, len(data) - 1 - cut)
    for stream in (io.BytesIO, Pipe):
        reader = reader_of(data[:length], stream, layout)
        decoded = reader.read()
        assert reader.truncated
        np.testing.assert_array_equal(decoded, keep_layers(codes[: len(decoded)], layout, n_layers))


@STREAMS
@pytest.mark.parametrize("frames", [0, 20, 256, 300])
def test_every_flipped_bit_is_an_error_or_reported(stream, frames):
    codes = keep_layers(some_codes(frames), DEFAULT, 1)
    data = bytearray(file_of(codes, 1))
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
    codes = some_codes(700)
    data = bytearray(file_of(codes, 6))
    data[HEADER_BYTES + 2306 + 5] ^= 1  # in block 1
    with pytest.raises(CorruptFileError, match="frames 256 to 511"):
        reader_of(bytes(data), stream).read()
    reader = reader_of(bytes(data), stream, on_damage="conceal")
    codes[256:512] = MISSING
    np.testing.assert_array_equal(reader.read(), codes)
    assert reader.damaged == {1}
    assert not reader.truncated


def test_what_is_unharmed_can_be_read_by_seeking():
    codes = some_codes(700)
    data = bytearray(file_of(codes, 6))
    data[HEADER_BYTES] ^= 1
    reader = reader_of(bytes(data))
    reader.seek(256)
    np.testing.assert_array_equal(reader.read(), codes[256:])


@pytest.mark.parametrize("order", [[1, 0], [0], [1], [0, 0, 1], [0, 0], [1, 1]])
def test_moved_missing_and_repeated_blocks_are_seen(order):
    data = file_of(some_codes(512), 1)
    blocks = [data[HEADER_BYTES : HEADER_BYTES + 386], data[HEADER_BYTES + 386 : HEADER_BYTES + 772]]
    spliced = data[:HEADER_BYTES] + b"".join(blocks[i] for i in order) + data[-TRAILER_BYTES:]
    try:
        reader = reader_of(spliced)
        reader.read()
    except CorruptFileError:
        return
    assert reader.truncated


def test_a_hole_of_zeros_is_seen():
    data = file_of(some_codes(512), 1)
    holed = data[:HEADER_BYTES] + bytes(386) + data[HEADER_BYTES + 386 :]
    with pytest.raises(CorruptFileError):
        reader_of(holed).read()


def drain(data, stream, on_damage):
    """Read garbage to its end, or to the typed error."""
    try:
        reader = reader_of(data, stream, on_damage=on_damage)
        codes = reader.read()
    except LinnetError:
        return
    assert len(codes) <= 8 * len(data) / 12
    assert reader.samples is None or reader.samples <= (len(codes) + 1) * 192 * 12  # 12 x the codec's rate at the most


GOOD_HEADER = Header(MODEL_ID, 44_100, 1).to_bytes()


@STREAMS
@given(st.binary(max_size=900), st.sampled_from([b"", b"LNT\1", GOOD_HEADER]), st.sampled_from(["raise", "conceal"]))
@example(b"\xff" * 800, GOOD_HEADER, "conceal")
@example(b"\0" * 800, GOOD_HEADER, "conceal")
def test_garbage_decodes_or_raises_the_typed_error(stream, garbage, start, on_damage):
    drain(start + garbage, stream, on_damage)


@STREAMS
@given(st.data(), st.sampled_from(["raise", "conceal"]))
def test_mangled_files_decode_or_raise_the_typed_error(stream, data, on_damage):
    mangled = bytearray(file_of(some_codes(600), 1))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(mangled)))
        mangled[place : place + data.draw(st.integers(0, 400))] = data.draw(st.binary(max_size=30))
    drain(bytes(mangled), stream, on_damage)


@pytest.mark.parametrize(("frames", "samples"), [(2**32 - 1, 0), (2**31, 2**40 - 1), (300, 2**40 - 1), (299, 0)])
def test_a_trailer_that_lies_is_no_trailer(frames, samples):
    fields = frames.to_bytes(4) + samples.to_bytes(5)
    data = file_of(some_codes(300), 1)[:-TRAILER_BYTES] + fields + crc16(fields, 0xFFFF)
    for stream in (io.BytesIO, Pipe):
        reader = reader_of(data, stream)
        assert len(reader.read()) == 300
        assert reader.truncated


def with_header(fields):
    return fields + crc16(fields, 0xFFFF)


@pytest.mark.parametrize(
    ("header", "error", "match"),
    [
        (b"", CorruptFileError, "not a .lnt"),
        (b"RIFF" + bytes(40), CorruptFileError, "not a .lnt"),
        (GOOD_HEADER[:9], CorruptFileError, "cut inside its header"),
        (b"LNT\3", VersionError, "version 3"),
        (b"LNT\3" + bytes(40), VersionError, "update"),
        (GOOD_HEADER[:-1] + b"?", CorruptFileError, "header is damaged"),
        (Header(b"abcd", 44_100, 1).to_bytes(), WrongModelError, "61626364"),
        (Header(MODEL_ID, 44_100, 7).to_bytes(), LayoutError, "6 layers"),
        (with_header(b"LNT\1" + MODEL_ID + (7_999).to_bytes(3) + b"\1"), CorruptFileError, "7999 Hz"),
        (with_header(b"LNT\1" + MODEL_ID + (16_000).to_bytes(3) + b"\0"), CorruptFileError, "0 layers"),
    ],
)
def test_headers_that_are_refused(header, error, match):
    with pytest.raises(error, match=match):
        reader_of(header)


def test_read_header_needs_no_model():
    assert read_header(Pipe(file_of(some_codes(3), 2))) == Header(MODEL_ID, 44_100, 2)


@STREAMS
@given(layouts_and_codes(), FRAMES, st.data())
@settings(max_examples=60)
def test_thinning_is_writing_fewer_layers(stream, drawn, frames, data):
    layout, n_layers, _ = drawn
    fewer = data.draw(st.integers(1, n_layers))
    codes = some_codes(frames, layout)
    samples = frames * layout.hop * 44_100 // layout.sample_rate
    thinned = Pipe()
    report = thin(stream(file_of(codes, n_layers, layout, samples)), thinned, fewer, {MODEL_ID: layout})
    assert thinned.getvalue() == file_of(codes, fewer, layout, samples)
    assert (report.frames, report.samples, report.truncated) == (frames, samples, False)


@given(layouts_and_codes(), FRAMES, st.integers(0, 3000), st.data())
def test_thinning_a_cut_file_loses_nothing_more(drawn, frames, cut, data):
    layout, n_layers, _ = drawn
    fewer = data.draw(st.integers(1, n_layers))
    whole = file_of(some_codes(frames, layout), n_layers, layout)
    cut_file = whole[: max(HEADER_BYTES, len(whole) - 1 - cut)]
    thinned = io.BytesIO()
    assert thin(io.BytesIO(cut_file), thinned, fewer, {MODEL_ID: layout}).truncated
    reader = reader_of(thinned.getvalue(), layout=layout)
    expected = keep_layers(reader_of(cut_file, layout=layout).read(), layout, fewer)
    decoded = reader.read()
    assert reader.truncated
    lost = len(expected) - len(decoded)
    bits = layout.frame_bits(fewer)
    # Of frames smaller than a byte, filling may pass for some, and hide some where the file ended.
    assert -(7 // bits) <= lost <= (7 // bits + 1 if bits < 8 else 0)
    np.testing.assert_array_equal(decoded[: len(expected)], expected[: len(decoded)])


def test_thin_refuses_what_it_cannot_do():
    data = bytearray(file_of(some_codes(300), 2))
    with pytest.raises(LayoutError, match="has 2"):
        thin(io.BytesIO(data), io.BytesIO(), 3, LAYOUTS)
    with pytest.raises(LayoutError):
        thin(io.BytesIO(data), io.BytesIO(), 0, LAYOUTS)
    data[-20] ^= 1
    thinned = io.BytesIO()
    with pytest.raises(CorruptFileError):
        thin(io.BytesIO(data), thinned, 1, LAYOUTS)
    assert reader_of(thinned.getvalue()).truncated


def test_a_writer_that_fails_leaves_a_cut_file():
    out = io.BytesIO()

    def fail_halfway():
        with Writer(out, Header(MODEL_ID, 16_000, 1), DEFAULT) as writer:
            writer.write(some_codes(300))
            writer.write(np.full((300, 6), MISSING))

    with pytest.raises(CodesError):
        fail_halfway()
    reader = reader_of(out.getvalue())
    assert reader.truncated
    assert len(reader.read()) == (8 * 386 - 104) // 12  # the block's end cannot be told from a trailer


def test_a_writer_guards_its_use():
    with pytest.raises(LayoutError):
        Writer(io.BytesIO(), Header(MODEL_ID, 16_000, 7), DEFAULT)
    writer = Writer(io.BytesIO(), Header(MODEL_ID, 16_000, 1), DEFAULT)
    writer.write(some_codes(2))
    for samples in (-1, 3 * 192 + 1, 2**40):
        writer.samples = samples
        with pytest.raises(WriteError):
            writer.close()
    writer.samples = 3 * 192
    writer.close()
    writer.close()
    with pytest.raises(WriteError, match="closed"):
        writer.write(some_codes(2))


@pytest.mark.parametrize(
    ("model_id", "sample_rate", "n_layers"),
    [(b"abc", 16_000, 1), (MODEL_ID, 7_999, 1), (MODEL_ID, 192_001, 1), (MODEL_ID, 16_000, 0), (MODEL_ID, 16_000, 256)],
)
def test_a_header_out_of_range_raises(model_id, sample_rate, n_layers):
    with pytest.raises(WriteError):
        Header(model_id, sample_rate, n_layers)


def test_a_layout_of_small_frames():
    """Frames of three bits: the filling of the last byte could pass for frames."""
    layout = Layout((8, 256), (1, 2), 16_000, 192)
    codes = some_codes(301, layout)
    data = file_of(codes, 1, layout)
    np.testing.assert_array_equal(reader_of(data, layout=layout).read()[:, 0], codes[:, 0])
    for length in range(HEADER_BYTES, len(data)):
        decoded = reader_of(data[:length], layout=layout).read()
        np.testing.assert_array_equal(decoded[:, 0], codes[: len(decoded), 0])
