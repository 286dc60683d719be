import time

import numpy as np
import pytest
from bits_strategies import DEFAULT, layouts, layouts_and_codes, some_codes
from hypothesis import given
from hypothesis import strategies as st

from linnet.bits import (
    MISSING,
    CodesError,
    Layout,
    LayoutError,
    LinnetError,
    PacketError,
    keep_layers,
    pack,
    pack_packets,
    thin_packet,
    unpack,
    unpack_packets,
)


def pack_slowly(codes, layout, n_layers):
    """The stream as text of zeros and ones: an independent implementation."""
    bits = "".join(
        format(code, f"0{size.bit_length() - 1}b")
        for frame in codes.tolist()
        for code, size, layer in zip(frame, layout.sizes, layout.layers, strict=True)
        if layer <= n_layers
    )
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


@given(layouts_and_codes())
def test_pack_is_the_bits_in_order(drawn):
    layout, n_layers, codes = drawn
    assert pack(codes, layout, n_layers) == pack_slowly(codes, layout, n_layers)


@given(layouts_and_codes())
def test_unpack_inverts_pack(drawn):
    layout, n_layers, codes = drawn
    unpacked = unpack(pack(codes, layout, n_layers), len(codes), layout, n_layers)
    assert unpacked.dtype == np.int64
    np.testing.assert_array_equal(unpacked, keep_layers(codes, layout, n_layers))


@given(layouts_and_codes(), st.data())
def test_packets_of_any_layers_and_losses(drawn, data):
    layout, _, codes = drawn
    layers = [data.draw(st.integers(0, layout.n_layers)) for _ in codes]
    packets = [pack_packets(codes[i : i + 1], layout, n)[0] if n else None for i, n in enumerate(layers)]
    expected = np.array(codes)
    for row, n in zip(expected, layers, strict=True):
        row[np.array(layout.layers) > n] = MISSING
    np.testing.assert_array_equal(unpack_packets(packets, layout), expected)


@given(layouts_and_codes())
def test_packets_are_the_stream_of_one_frame(drawn):
    layout, n_layers, codes = drawn
    packets = pack_packets(codes, layout, n_layers)
    assert packets == [pack(codes[i : i + 1], layout, n_layers) for i in range(len(codes))]
    assert {len(packet) for packet in packets} <= {layout.packet_bytes(n_layers)}


@given(layouts_and_codes(), st.data())
def test_a_thinned_packet_is_the_packet_of_fewer_layers(drawn, data):
    layout, n_layers, codes = drawn
    fewer = data.draw(st.integers(1, layout.n_layers))
    thinned = [thin_packet(packet, layout, fewer) for packet in pack_packets(codes, layout, n_layers)]
    assert thinned == pack_packets(codes, layout, min(fewer, n_layers))


@given(layouts(), st.lists(st.none() | st.binary(max_size=30), max_size=6))
def test_garbage_packets_decode_or_raise_the_typed_error(layout, packets):
    try:
        codes = unpack_packets(packets, layout)
    except PacketError:
        return
    assert codes.shape == (len(packets), layout.n_codes)
    assert ((codes >= MISSING) & (codes < np.array(layout.sizes))).all()


def test_the_default_packets():
    assert [DEFAULT.packet_bytes(n) for n in range(1, 7)] == [2, 3, 5, 6, 8, 9]
    assert [DEFAULT.kbps(n) for n in range(1, 7)] == [1, 2, 3, 4, 5, 6]
    assert DEFAULT.frame_rate == pytest.approx(83.333, abs=1e-3)


@pytest.mark.parametrize(("kbps", "n_layers"), [(1, 1), (1.99, 1), (2, 2), (6, 6), (64, 6), (float("inf"), 6)])
def test_layers_for_kbps(kbps, n_layers):
    assert DEFAULT.layers_for_kbps(kbps) == n_layers


@given(layouts())
def test_a_layers_own_rate_fits_it(layout):
    assert [layout.layers_for_kbps(layout.kbps(n)) for n in range(1, layout.n_layers + 1)] == list(
        range(1, layout.n_layers + 1)
    )


@pytest.mark.parametrize("kbps", [0, 0.99, -1, float("nan")])
def test_a_rate_below_the_first_layer_is_one_clear_line(kbps):
    with pytest.raises(LayoutError, match=r"ask for at least 1$") as caught:
        DEFAULT.layers_for_kbps(kbps)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "layers", "sample_rate", "hop"),
    [
        ((), (), 16_000, 192),
        ((4096, 4096), (1,), 16_000, 192),
        ((4095,), (1,), 16_000, 192),
        ((1,), (1,), 16_000, 192),
        ((0,), (1,), 16_000, 192),
        ((2**33,), (1,), 16_000, 192),
        ((4096,), (0,), 16_000, 192),
        ((4096, 4096), (1, 3), 16_000, 192),
        ((4096, 4096, 4096), (1, 2, 1), 16_000, 192),
        ((4096,) * 256, tuple(range(1, 257)), 16_000, 192),
        ((4096,), (1,), 0, 192),
        ((4096,), (1,), 16_000, 0),
        ((4096, 8), (1, 2), 16_000, 192),  # 12 and 15 bits: 2 bytes both
    ],
)
def test_a_layout_that_contradicts_itself_raises(sizes, layers, sample_rate, hop):
    with pytest.raises(LayoutError):
        Layout(sizes, layers, sample_rate, hop)


@pytest.mark.parametrize(
    "codes",
    [
        np.full((3, 6), 4096),
        np.full((3, 6), -1),
        np.full((3, 6), 2**40),
        np.zeros((3, 5), int),
        np.zeros(6, int),
        np.zeros((3, 6)),
        np.zeros((3, 6), bool),
    ],
)
def test_codes_that_do_not_fit_raise(codes):
    with pytest.raises(CodesError):
        pack(codes, DEFAULT, 6)


def test_an_error_names_the_frame_and_the_column():
    codes = some_codes(5)
    codes[3, 2] = 5000
    with pytest.raises(CodesError, match="code 5000 in frame 3, column 2"):
        pack(codes, DEFAULT, 6)
    assert pack(codes, DEFAULT, 2) == pack(keep_layers(codes, DEFAULT, 2), DEFAULT, 2)  # not looked at


def test_a_lost_frame_is_an_empty_packet_and_a_half_lost_one_is_an_error():
    codes = some_codes(3)
    codes[1] = MISSING
    packets = pack_packets(codes, DEFAULT, 6)
    assert packets[1] == b""
    np.testing.assert_array_equal(unpack_packets(packets, DEFAULT), codes)
    codes[1, 0] = 7
    with pytest.raises(CodesError, match="frame 1, column 1"):
        pack_packets(codes, DEFAULT, 6)


@pytest.mark.parametrize("length", [0, 1, 17, 19, 2000])
def test_a_stream_of_another_length_raises(length):
    with pytest.raises(PacketError):
        unpack(bytes(length), 2, DEFAULT, 6)


@pytest.mark.parametrize("length", [1, 4, 7, 10, 4096])
def test_a_packet_of_another_length_raises(length):
    with pytest.raises(PacketError, match="2, 3, 5, 6, 8, 9"):
        unpack_packets([bytes(length)], DEFAULT)
    with pytest.raises(PacketError):
        thin_packet(bytes(length), DEFAULT, 1)


@pytest.mark.parametrize("n_layers", [0, -1, 7])
def test_layers_that_do_not_exist_raise(n_layers):
    for call in (
        lambda: pack(some_codes(1), DEFAULT, n_layers),
        lambda: unpack(b"", 0, DEFAULT, n_layers),
        lambda: thin_packet(bytes(9), DEFAULT, n_layers),
        lambda: pack_packets(some_codes(1), DEFAULT, n_layers),
    ):
        with pytest.raises(LayoutError):
            call()


def test_negative_frames_raise():
    with pytest.raises(LinnetError):
        unpack(b"", -1, DEFAULT, 1)


def test_lost_packets_stay_lost():
    assert thin_packet(None, DEFAULT, 1) == thin_packet(b"", DEFAULT, 1) == b""
    np.testing.assert_array_equal(unpack_packets([None, b""], DEFAULT), np.full((2, 6), MISSING))


def test_an_hour_is_fast():
    codes = some_codes(300_000)
    start = time.process_time()
    np.testing.assert_array_equal(unpack(pack(codes, DEFAULT, 6), len(codes), DEFAULT, 6), codes)
    assert time.process_time() - start < 2  # 0.4 s on a busy core; bit by bit it took minutes
