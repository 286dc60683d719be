from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rtp_strategies import FRAME_S, hostile

import linnet
from linnet.bits import LayoutError, Redundancy, RtpError, RtpPacket, unpack_payload
from linnet.runtime.session import RtpReceiver, RtpSender

HOP, START = 192, 2**32 - 9000
PLAIN = Redundancy()


def sent(codec, samples, kbps=2, redundancy=PLAIN, frames=1, **options):
    """The datagrams of a recording, each with the time at which its last sample is there."""
    sender = RtpSender(codec, 16000, kbps, redundancy, frames=frames, sequence=65500, timestamp=START, **options)
    datagrams = [datagram for start in range(0, len(samples), HOP) for datagram in sender.push(samples[start : start + HOP])]
    datagrams += sender.flush()
    stamps = [(RtpPacket.from_bytes(datagram).timestamp - START) % 2**32 for datagram in datagrams]
    return [(stamp / 16000 + frames * FRAME_S, datagram) for stamp, datagram in zip(stamps, datagrams, strict=True)]


def heard(receiver, arrivals, end):
    """All that the receiver plays."""
    waiting, hops, tick = sorted(arrivals, key=lambda arrival: -arrival[0]), [], 0.0
    while tick < end:
        while waiting and waiting[-1][0] <= tick:
            time, datagram = waiting.pop()
            receiver.receive(datagram, time)
        hop = receiver.play(tick)
        if hop is not None:
            assert hop.shape == (HOP,)
            assert hop.dtype == np.float32
            hops.append(hop)
        tick += FRAME_S
    return np.concatenate(hops)


@pytest.mark.parametrize("frames", [1, 5, 16])
@pytest.mark.parametrize("offsets", [(), (5, 10)])
def test_a_calm_network_is_the_codec_itself(codec, short, frames, offsets):
    redundancy = Redundancy(offsets)
    kbps = codec.layout.kbps(2) * (2 + len(offsets)) / 2
    receiver = RtpReceiver(codec, redundancy)
    sound = heard(receiver, sent(codec, short, kbps, redundancy, frames=frames), 2.0)
    expected = codec.decode(codec.encode(short, 16000, kbps, redundancy), redundancy=redundancy)
    np.testing.assert_allclose(sound[codec.card.delay :][: len(expected)], expected, atol=1e-4)
    assert receiver.stretched == receiver.shrunk == 0


def test_the_rate_changes_from_packet_to_packet(codec, short):
    sender = RtpSender(codec, 16000, 1, frames=4)
    datagrams, rates = [], [1, 6, 3, 2, 4]
    for part, kbps in zip(np.array_split(short[: 85 * HOP], len(rates)), rates, strict=True):
        sender.kbps = kbps
        assert sender.kbps == kbps
        datagrams += sender.push(part)
    sizes = [len(unpack_payload(RtpPacket.from_bytes(datagram).payload)[0]) for datagram in datagrams]
    assert [size for n, size in enumerate(sizes) if n == 0 or size != sizes[n - 1]] == [2, 9, 5, 3, 6]
    with pytest.raises(LayoutError, match="ask for at least 1"):
        sender.kbps = 0.5
    assert sender.kbps == 4
    receiver = RtpReceiver(codec)
    sound = heard(receiver, [(0.048 * n, datagram) for n, datagram in enumerate(datagrams)], 1.3)
    assert receiver.jitter.counts.lost == 0
    assert np.abs(sound).max() < 1.2 * np.abs(short).max()


def talk(short, level=0.0, pause=200):
    """Two talk spurts and a pause of frames between them, in noise."""
    samples = np.concatenate([short[: 40 * HOP], np.zeros(pause * HOP, np.float32), short[: 40 * HOP]])
    return samples + (level * np.random.default_rng(0).standard_normal(len(samples))).astype(np.float32)


def parsed(arrivals):
    packets = [RtpPacket.from_bytes(datagram) for _, datagram in arrivals]
    return packets, [packet for packet in packets if packet.payload_type == 97]


def test_pauses_are_not_sent_and_the_marker_says_where_speech_begins(codec, short):
    arrivals = sent(codec, talk(short, 0.001), frames=3, discontinuous=True)
    packets, noises = parsed(arrivals)
    assert {(b.sequence - a.sequence) % 65536 for a, b in pairwise(packets)} == {1}
    spurts = [packet for packet in packets if packet.marker]
    assert [(packet.timestamp - START) % 2**32 // HOP for packet in spurts] == [0, 238]  # two frames before the first sound
    assert len(unpack_payload(spurts[1].payload)) == 3
    assert 3 * (len(packets) - len(noises)) < 40 + 17 + 20 + 43
    begins, *again = ((packet.timestamp - START) % 2**32 // HOP for packet in noises)
    assert 57 <= begins < 80
    assert again == [begins + 83, begins + 166]
    assert {packet.payload for packet in noises} <= {bytes([59]), bytes([60]), bytes([61])}
    assert not any(packet.marker for packet in noises)


@pytest.mark.parametrize("chunk", [1, 100, 10**6])
def test_pauses_are_the_same_in_any_chunks(codec, short, chunk):
    samples = talk(short, 0.001)[: 250 * HOP]
    sender = RtpSender(codec, 16000, 2, frames=3, sequence=65500, timestamp=START, discontinuous=True)
    for step in (chunk, HOP):  # and once more after a flush
        chunks = range(0, len(samples), step) if step > 1 else range(60 * HOP)
        whole = samples[: len(chunks) if step == 1 else len(samples)]
        datagrams = [datagram for start in chunks for datagram in sender.push(whole[start : start + step])] + sender.flush()
        first = RtpPacket.from_bytes(datagrams[0])
        alone = RtpSender(codec, 16000, 2, frames=3, sequence=first.sequence, timestamp=first.timestamp, discontinuous=True)
        assert alone.push(whole) + alone.flush() == datagrams


def test_the_decoder_begins_a_talk_spurt_as_the_encoder_did(codec, short):
    """Also if the packet with the marker is lost: comfort noise came before. So nothing of a pause is remembered."""
    arrivals = sent(codec, talk(short, 0.01), discontinuous=True)
    packets, _ = parsed(arrivals)
    place = next(n for n, packet in enumerate(packets) if n and packet.marker)
    for first in (place, place + 1):
        sound = heard(RtpReceiver(codec), [*arrivals[:place], *arrivals[first:]], 3.6)
        alone = heard(RtpReceiver(codec), arrivals[first:], 3.6)
        spurt = alone[6 * HOP : 30 * HOP]
        assert any(np.array_equal(sound[n : n + len(spurt)], spurt) for n in range(0, len(sound), HOP))


def test_the_background_in_a_pause_is_the_senders(codec, short):
    samples = talk(short, 0.002, 400)
    samples[220 * HOP : 440 * HOP] *= 2  # a pause gets louder by 6 dB, which is no voice
    receiver = RtpReceiver(codec)
    arrivals = sent(codec, samples, frames=2, discontinuous=True)
    sound = heard(receiver, arrivals, 5.9)
    levels = [np.sqrt(np.mean(sound[start * HOP : (start + 40) * HOP] ** 2)) for start in (150, 380)]
    np.testing.assert_allclose(levels, [0.002, 0.004], rtol=0.2)
    assert (receiver.jitter.counts.restarts, receiver.jitter.counts.refused, receiver.jitter.counts.missing) == (0, 0, 0)
    deaf = RtpReceiver(codec, noise_type=None)
    heard(deaf, arrivals, 5.9)
    assert deaf.jitter.counts.refused == len(parsed(arrivals)[1])
    whole = codec.decode(codec.encode(samples, 16000, 2))
    after = slice(446 * HOP, 476 * HOP)
    voices = [np.sqrt(np.mean(part[after] ** 2)) for part in (sound[codec.card.delay :], whole)]
    assert voices[0] == pytest.approx(voices[1], rel=0.4)


def test_a_background_that_is_turned_down_is_so_in_pauses_too(short):
    codec = linnet.load(Path(__file__).parents[2] / "bundles" / "remix")
    arrivals = sent(codec, talk(short, 0.01), kbps=6, discontinuous=True)
    levels = []
    for gain in (1, 0.1, 0):
        receiver = RtpReceiver(codec)
        receiver.decoder.background = gain
        sound = heard(receiver, arrivals, 3.6)
        levels.append(np.sqrt(np.mean(sound[150 * HOP : 190 * HOP] ** 2)))
    np.testing.assert_allclose(levels, [0.01, 0.001, 0], rtol=0.2, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_an_attack_with_comfort_noise_is_not_heard(codec, short, data):
    times = sent(codec, talk(short, 0.001, 60), frames=2, discontinuous=True)
    attacks = data.draw(st.lists(st.tuples(st.floats(0, 1.8), hostile([datagram for _, datagram in times])), max_size=40))
    sound = heard(RtpReceiver(codec), [*times, *attacks], 2.2)
    assert np.isfinite(sound).all()


def test_a_delay_that_changes_is_followed_without_a_click(codec, speech):
    rng = np.random.default_rng(0)
    times = sent(codec, speech)
    calm = heard(RtpReceiver(codec), times, 5.2)
    shaken = [(time + (rng.uniform(0, 0.12) if 1 < time < 2.5 else 0), datagram) for time, datagram in times]
    receiver = RtpReceiver(codec, min_delay_s=0.02)
    sound = heard(receiver, shaken, 6.0)
    assert receiver.jitter.counts.lost < 20
    # Concealed frames may have sharper pulses than those that came; a click is several times as steep.
    assert np.abs(np.diff(sound)).max() <= 1.2 * np.abs(np.diff(calm)).max()


@pytest.mark.parametrize(("lost", "pause"), [((), 0.05), ((), 0.4), ((), 0.9), ((152, 154), 0.2)])
def test_late_packets_leave_no_trace(codec, speech, lost, pause):
    """After a pause of the network the sound is, to the bit, what it would have been without, only later."""
    kept = [arrival for n, arrival in enumerate(sent(codec, speech)) if n not in lost]
    calm = heard(RtpReceiver(codec), kept, 5.0)
    receiver = RtpReceiver(codec)
    receiver.jitter.adjustment = lambda: 0
    sound = heard(receiver, [(max(time, 1.8 + pause) if time > 1.8 else time, datagram) for time, datagram in kept], 6.2)
    assert receiver.jitter.counts.lost == len(lost)
    frames = calm[300 * HOP : 380 * HOP]
    assert any(np.array_equal(sound[start : start + len(frames)], frames) for start in range(300 * HOP, len(sound), HOP))
    assert np.abs(np.diff(sound)).max() <= 1.05 * np.abs(np.diff(calm)).max()


def test_a_stretched_or_shrunk_stream_is_only_longer_or_shorter(codec, speech):
    """The buffer's wish is forced, the decoder still meets each frame once: its undisturbed sound is all there."""
    times = sent(codec, speech)
    calm = heard(RtpReceiver(codec), times, 5.0)
    for wish, name in ((1, "stretched"), (-1, "shrunk")):
        receiver = RtpReceiver(codec, min_delay_s=0.3)
        asked = iter([wish if n in (150, 152, 200) else 0 for n in range(1000)])
        receiver.jitter.adjustment = lambda asked=asked: next(asked)
        receiver._is_quiet = lambda _: True  # at once, not in silence
        sound = heard(receiver, times, 5.0)
        assert getattr(receiver, name) == 3
        np.testing.assert_array_equal(sound[: 150 * HOP], calm[: 150 * HOP])
        assert np.abs(np.diff(sound)).max() <= 1.05 * np.abs(np.diff(calm)).max()
        tail = sound[250 * HOP : 300 * HOP]
        np.testing.assert_array_equal(tail, calm[(250 - 3 * wish) * HOP :][: len(tail)])


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_an_attack_is_not_heard(codec, short, data):
    """Noise, cuts, replays and strangers beside a stream leave it as it is, or conceal; nothing is loud."""
    times = sent(codec, short, frames=2)
    attacks = data.draw(st.lists(st.tuples(st.floats(0, 1.2), hostile([datagram for _, datagram in times])), max_size=60))
    sound = heard(RtpReceiver(codec), [*times, *attacks], 1.6)
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() < 3 * np.abs(short).max()


def test_noise_alone_plays_nothing(codec):
    receiver = RtpReceiver(codec)
    rng = np.random.default_rng(0)
    for n in range(2000):
        receiver.receive(rng.bytes(rng.integers(0, 200)), n * 0.001)
        assert receiver.play(n * 0.001) is None
    assert receiver.jitter.counts.refused == 2000


def test_another_sender_meets_a_new_decoder(codec, short):
    first = sent(codec, short[::-1][: 40 * HOP])
    second = [(time + 0.7, datagram) for time, datagram in sent(codec, short, ssrc=9)]
    receiver = RtpReceiver(codec)
    sound = heard(receiver, [*first, *second], 2.4)
    alone = heard(RtpReceiver(codec), sent(codec, short, ssrc=9), 1.0)
    assert receiver.jitter.epoch == 1
    begin = next(n for n in range(0, len(sound), HOP) if np.array_equal(sound[n : n + 10 * HOP], alone[: 10 * HOP]))
    np.testing.assert_array_equal(sound[begin : begin + 60 * HOP], alone[: 60 * HOP])


def test_packets_of_no_or_too_many_frames_are_refused(codec):
    for frames in (0, 17):
        with pytest.raises(RtpError, match="1 to 16"):
            RtpSender(codec, 16000, frames=frames)
