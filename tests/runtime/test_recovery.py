from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.bits import MISSING, LayoutError, PacketError, Redundancy, pack_redundant
from linnet.runtime.channel import LossyChannel
from linnet.runtime.loss import GilbertElliott, Independent, Trace
from linnet.runtime.recovery import RecoveryBuffer

TWO = Redundancy((2, 5))


def packets_of(codec, frames=40, n_layers=2, redundancy=TWO):
    codes = np.random.default_rng(0).integers(0, 4096, (frames, 6))
    return codes, pack_redundant(codes, codes[:0], codec.layout, n_layers, redundancy)


@settings(max_examples=20, deadline=None)
@given(lost=st.lists(st.booleans(), min_size=40, max_size=40), cuts=st.lists(st.integers(0, 40), max_size=5))
def test_any_chunks_give_the_same_frames(codec, lost, cuts):
    _, packets = packets_of(codec)
    received = [None if gone else packet for gone, packet in zip(lost, packets, strict=True)]
    buffer = RecoveryBuffer(codec.layout, TWO)
    whole = [*buffer.push(received), *buffer.flush()]
    edges = [0, *sorted(cuts), 40]
    parts = [row for a, b in pairwise(edges) for row in buffer.push(received[a:b])]
    np.testing.assert_array_equal([*parts, *buffer.flush()], whole)


def test_frames_wait_for_their_copies_and_no_longer(codec):
    codes, packets = packets_of(codec)
    buffer = RecoveryBuffer(codec.layout, TWO)
    assert [len(buffer.push([packet])) for packet in packets[:8]] == [0] * 5 + [1] * 3
    buffer = RecoveryBuffer(codec.layout, Redundancy())
    plain = packets_of(codec, redundancy=Redundancy())[1]
    np.testing.assert_array_equal(buffer.push(plain[:1])[0, :2], codes[0, :2])
    assert len(buffer.flush()) == 0


def test_a_late_packet_is_used_until_its_frame_is_played(codec):
    codes, packets = packets_of(codec)
    buffer = RecoveryBuffer(codec.layout, TWO)
    buffer.push([*packets[:10], None, None, None])
    assert buffer.late(packets[11], 1)
    assert buffer.late(packets[11], 1)  # once more does no harm
    assert not buffer.late(packets[7], 5)
    assert not buffer.late(packets[13], -1)
    rest = buffer.flush()  # frames 8 to 12; 9 came by itself, 10 and 12 are lost
    assert (rest[:, 0] != MISSING).tolist() == [True, True, False, True, False]
    np.testing.assert_array_equal(rest[3, :2], codes[11, :2])


def test_a_late_packet_brings_its_copies_and_its_own_layers(codec):
    codes, packets = packets_of(codec)
    buffer = RecoveryBuffer(codec.layout, TWO)
    buffer.push([*packets[:8], None, packets[9], None, packets[11]])  # 11 recovers frame 9's neighbours, not 8 or 10
    assert buffer.late(packets[10], 1)  # brings the first layer of frame 8
    assert buffer.late(packets[8], 3)  # and 8 itself comes last, with its second layer
    np.testing.assert_array_equal(buffer.flush()[:, :2], codes[7:12, :2])


def test_a_bad_packet_is_refused_and_leaves_the_buffer_as_it_was(codec):
    _, packets = packets_of(codec)
    buffer = RecoveryBuffer(codec.layout, TWO)
    buffer.push(packets[:10])
    for call in (lambda: buffer.push([packets[10], b"123"]), lambda: buffer.late(b"123", 0)):
        with pytest.raises(PacketError, match="3 bytes"):
            call()
    after = buffer.push(packets[10:])
    buffer.reset()
    np.testing.assert_array_equal(after, buffer.push(packets)[5:])


def test_a_live_stream_with_copies_and_loss_is_the_file(codec, short):
    redundancy = Redundancy((3, 6))
    packets = codec.encode(short, 16000, 4, redundancy)
    assert {len(packet) for packet in packets} == {6}
    sender = codec.encoder(16000, 4, redundancy)
    for _ in range(2):  # flushed, a stream is as new
        sent = [packet for chunk in np.array_split(short, 50) for packet in sender.push(chunk)]
        assert [*sent, *sender.flush()] == packets
    lost = GilbertElliott(0.3, 4).draw(len(packets))
    received = [None if gone else packet for gone, packet in zip(lost, packets, strict=True)]
    whole = codec.decode(received, None, redundancy)
    receiver = codec.decoder(None, redundancy)
    for _ in range(2):
        parts = [receiver.push(packet) for packet in received]
        assert [len(part) for part in parts[:8]] == [0] * 6 + [codec.card.hop] * 2
        heard = np.concatenate([*parts, receiver.flush()])
        np.testing.assert_allclose(heard[codec.card.delay :], whole, atol=1e-4)


def test_copies_are_a_part_of_the_rate(codec):
    two = Redundancy.spaced(2, 5)
    assert [codec.layers(kbps, two) for kbps in (None, 3, 4.5, 8)] == [6, 1, 2, 6]
    with pytest.raises(LayoutError, match="ask for at least 3"):
        codec.encode(np.zeros(1000), 16000, 2.9, two)


def test_a_channel_counts(codec):
    codes = np.random.default_rng(0).integers(0, 4096, (500, 6))
    channel = LossyChannel(codec.layout, 1, Redundancy((5, 10)), Trace([0] * 7 + [1] * 3))
    for _ in range(2):
        heard = np.concatenate([channel.push(codes[:100]), channel.push(codes[100:]), channel.flush()])
        assert (channel.packets, channel.lost, channel.mean_burst, channel.kbps) == (500, 150, 3, 3)
        assert channel.concealed == 3  # the last burst, which no copy follows
        np.testing.assert_array_equal(heard[:-3, 0], codes[:-3, 0])
        assert (heard[:, 1:] == MISSING).all()
        channel.reset()


@pytest.mark.parametrize(
    ("model", "offsets", "expected"),  # what docs/loss.md says is left
    [
        (Independent(0.2, seed=1), (1, 2), 0.008),
        (Independent(0.2, seed=1), (5, 10), 0.008),
        (GilbertElliott(0.2, 5, seed=1), (5,), 0.078),
        (GilbertElliott(0.2, 5, seed=1), (1, 2), 0.128),
        (GilbertElliott(0.2, 5, seed=1), (5, 10), 0.030),
        (GilbertElliott(0.2, 5, seed=1), (10, 20), 0.012),
    ],
)
def test_losses_leave_what_theory_says(codec, model, offsets, expected):
    channel = LossyChannel(codec.layout, 1, Redundancy(offsets), model)
    channel.reset()
    channel.push(np.zeros((100_000, 6), int))
    channel.flush()
    assert channel.concealed / channel.packets == pytest.approx(expected, rel=0.15)
