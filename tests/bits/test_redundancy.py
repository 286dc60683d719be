from pathlib import Path

import numpy as np
import pytest
from bits_strategies import DEFAULT, layouts_and_codes, some_codes
from hypothesis import given
from hypothesis import strategies as st

from linnet.bits import (
    MISSING,
    CodesError,
    Layout,
    LayoutError,
    PacketError,
    Redundancy,
    keep_layers,
    pack_packets,
    pack_redundant,
    recover,
    thin_packet,
    unpack_redundant,
)

GOLDEN = Path(__file__).parent / "golden_packets"
NONE = np.zeros((0, 6), int)

offset_lists = st.lists(st.integers(1, 12), max_size=3, unique=True).map(sorted)


def redundancy_for(layout, offsets):
    """The offsets, or none where two numbers of layers would give packets of one length."""
    redundancy = Redundancy(tuple(offsets))
    try:
        redundancy.layout(layout)
    except LayoutError:
        return Redundancy()
    return redundancy


def pack_slowly(codes, layout, n_layers, offsets):
    """Packets as text of zeros and ones: an independent implementation."""

    def layer_bits(frame, lowest, highest):
        row = codes[frame] if frame >= 0 else [0] * layout.n_codes
        return "".join(
            format(int(code), f"0{size.bit_length() - 1}b")
            for code, size, layer in zip(row, layout.sizes, layout.layers, strict=True)
            if lowest <= layer <= highest
        )

    packets = []
    for t in range(len(codes)):
        bits = layer_bits(t, 1, 1) + "".join(layer_bits(t - d, 1, 1) for d in offsets) + layer_bits(t, 2, n_layers)
        bits += "0" * (-len(bits) % 8)
        packets.append(bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)))
    return packets


@given(layouts_and_codes(), offset_lists)
def test_packets_are_their_parts_in_order(drawn, offsets):
    layout, n_layers, codes = drawn
    redundancy = redundancy_for(layout, offsets)
    packets = pack_redundant(codes, codes[:0], layout, n_layers, redundancy)
    assert packets == pack_slowly(codes, layout, n_layers, redundancy.offsets)


@given(layouts_and_codes())
def test_no_copies_are_the_plain_packets(drawn):
    layout, n_layers, codes = drawn
    assert Redundancy().layout(layout) == layout
    assert pack_redundant(codes, codes[:0], layout, n_layers, Redundancy()) == pack_packets(codes, layout, n_layers)


@given(layouts_and_codes(), offset_lists, st.integers(0, 40))
def test_packing_in_parts_is_packing_at_once(drawn, offsets, cut):
    layout, n_layers, codes = drawn
    redundancy = redundancy_for(layout, offsets)
    parts = [
        pack_redundant(part, before, layout, n_layers, redundancy)
        for part, before in ((codes[:cut], codes[:0]), (codes[cut:], codes[:cut]))
    ]
    assert parts[0] + parts[1] == pack_redundant(codes, codes[:0], layout, n_layers, redundancy)


@given(layouts_and_codes(), offset_lists, st.data())
def test_a_frame_comes_back_unless_all_that_carried_it_is_lost(drawn, offsets, data):
    layout, n_layers, codes = drawn
    redundancy = redundancy_for(layout, offsets)
    lost = np.array(data.draw(st.lists(st.booleans(), min_size=len(codes), max_size=len(codes))), bool)
    packets = pack_redundant(codes, codes[:0], layout, n_layers, redundancy)
    received = [None if gone else packet for gone, packet in zip(lost, packets, strict=True)]
    mended = recover(*unpack_redundant(received, layout, redundancy), redundancy)
    expected = keep_layers(codes, layout, n_layers)
    for t in np.flatnonzero(lost):
        carriers = [t + d for d in redundancy.offsets if t + d < len(codes)]
        expected[t, layout.columns(1) :] = MISSING
        if all(lost[carrier] for carrier in carriers):
            expected[t] = MISSING
    np.testing.assert_array_equal(mended, expected)


@given(layouts_and_codes(), offset_lists, st.data())
def test_layers_are_dropped_by_cutting(drawn, offsets, data):
    layout, n_layers, codes = drawn
    redundancy = redundancy_for(layout, offsets)
    fewer = data.draw(st.integers(1, n_layers))
    packets = pack_redundant(codes, codes[:0], layout, n_layers, redundancy)
    thinned = [thin_packet(packet, redundancy.layout(layout), fewer) for packet in packets]
    assert thinned == pack_redundant(codes, codes[:0], layout, fewer, redundancy)


@given(st.lists(st.none() | st.binary(max_size=30), max_size=6), offset_lists)
def test_garbage_decodes_or_raises_the_typed_error(packets, offsets):
    redundancy = Redundancy(tuple(offsets))
    try:
        codes, copies = unpack_redundant(packets, DEFAULT, redundancy)
    except PacketError:
        return
    mended = recover(codes, copies, redundancy)
    assert mended.shape == (len(packets), 6)
    assert ((mended >= MISSING) & (mended < 4096)).all()


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 10, 13, 4096])
def test_a_packet_of_another_length_raises(length):
    with pytest.raises(PacketError, match="5, 6, 8, 9, 11, 12") as caught:
        unpack_redundant([bytes(length)], DEFAULT, Redundancy((5, 10)))
    assert "\n" not in str(caught.value)


def test_the_default_packets():
    with_two = Redundancy.spaced(2, 5).layout(DEFAULT)
    assert [with_two.packet_bytes(n) for n in range(1, 7)] == [5, 6, 8, 9, 11, 12]
    assert [Redundancy((7,)).layout(DEFAULT).packet_bytes(n) for n in range(1, 7)] == [3, 5, 6, 8, 9, 11]
    assert [with_two.kbps(n) for n in (1, 2)] == [3, 4]
    assert (Redundancy.spaced(2, 5).offsets, Redundancy.spaced(2, 5).depth) == ((5, 10), 10)
    assert Redundancy.spaced(0, 5) == Redundancy()


@pytest.mark.parametrize("offsets", [(0,), (-1,), (256,), (2, 2), (3, 1)])
def test_offsets_that_cannot_be_raise(offsets):
    with pytest.raises(LayoutError, match="ascending numbers from 1 to 255"):
        Redundancy(offsets)


@pytest.mark.parametrize(("copies", "spacing"), [(-1, 5), (1, 0), (3, 100)])
def test_spacings_that_cannot_be_raise(copies, spacing):
    with pytest.raises(LayoutError):
        Redundancy.spaced(copies, spacing)


def test_a_layout_whose_lengths_would_collide_raises():
    layout = Layout(sizes=(2**7, 2**2), layers=(1, 2), sample_rate=16_000, hop=192)  # 7 and 9 bits: 1 and 2 bytes
    with pytest.raises(LayoutError, match="as many bytes"):
        Redundancy((1,)).layout(layout)  # 14 and 16 bits: 2 bytes both


@pytest.mark.parametrize("wrong", [4096, MISSING])
def test_codes_that_do_not_fit_raise(wrong):
    codes = some_codes(5)
    codes[2, 0] = wrong
    for own, before in ((codes, NONE), (some_codes(5), codes)):
        with pytest.raises(CodesError, match="frame 2, column 0"):
            pack_redundant(own, before, DEFAULT, 1, Redundancy((1, 4)))
    with pytest.raises(CodesError, match="shape"):
        recover(codes, np.zeros((4, 2, 6), int), Redundancy((1, 4)))


def test_golden_packets():
    """Two layers with copies 5 and 10 frames back, frames 3 to 6 and 19 to 25 lost: packets in hexadecimal, and codes."""
    lines = (GOLDEN / "v1-copies.txt").read_text().splitlines()
    expected = np.loadtxt(GOLDEN / "v1-copies.csv", np.int64, delimiter=",")
    redundancy = Redundancy((5, 10))
    received = [bytes.fromhex(line) if line != "lost" else None for line in lines]
    np.testing.assert_array_equal(recover(*unpack_redundant(received, DEFAULT, redundancy), redundancy), expected)
