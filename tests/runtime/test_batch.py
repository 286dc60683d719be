"""Streams in a batch: each as if it were alone, to the bit."""

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.bits import PacketError, Redundancy
from linnet.runtime.audio import AudioError

STREAMS = 3
PLAIN, TWO = Redundancy(), Redundancy((2,))
ACTIONS = st.sampled_from(["push", "push", "push", "rest", "reset", "flush"])


def voices(short, streams=STREAMS):
    """Different in time and level."""
    return [np.roll(short, 4000 * stream) * np.float32(0.5**stream) for stream in range(streams)]


@settings(max_examples=15, deadline=None)
@given(
    plan=st.lists(st.lists(st.tuples(ACTIONS, st.integers(0, 700)), min_size=STREAMS, max_size=STREAMS), max_size=12),
    rate=st.sampled_from([16000, 48000]),
    redundancy=st.sampled_from([PLAIN, TWO]),
)
def test_encoders_are_each_alone(codec, short, plan, rate, redundancy):
    """Chunks of any size, streams that rest, begin anew or end while the others go on."""
    heard = [soxr.resample(voice, 16000, rate) for voice in voices(short)]
    batch = codec.encoders(STREAMS, rate, 3, redundancy)
    alone = [codec.encoder(rate, 3, redundancy) for _ in range(STREAMS)]
    place = [0] * STREAMS
    for step in plan:
        chunks = []
        for stream, (action, size) in enumerate(step):
            if action == "reset":
                batch[stream].reset()
                alone[stream].reset()
            if action == "flush":
                assert batch[stream].flush() == alone[stream].flush()
            end = place[stream] + size * (action == "push")
            chunks.append(heard[stream][place[stream] : end])
            place[stream] = end
        assert batch.push(chunks) == [one.push(chunk) for one, chunk in zip(alone, chunks, strict=True)]


@settings(max_examples=15, deadline=None)
@given(
    plan=st.lists(st.lists(st.tuples(ACTIONS, st.integers(0, 4)), min_size=STREAMS, max_size=STREAMS), max_size=12),
    rate=st.sampled_from([16000, 48000]),
    redundancy=st.sampled_from([PLAIN, TWO]),
    seed=st.integers(0, 100),
)
def test_decoders_are_each_alone(codec, short, plan, rate, redundancy, seed):
    """Lost packets in each stream, and gaps long enough for noise."""
    rng = np.random.default_rng(seed)
    sent = [codec.encode(voice, 16000, redundancy=redundancy) for voice in voices(short)]
    batch, alone = codec.decoders(STREAMS, rate, redundancy), [codec.decoder(rate, redundancy) for _ in range(STREAMS)]
    place = [0] * STREAMS
    for step in plan:
        packets = []
        for stream, (action, size) in enumerate(step):
            if action == "reset":
                batch[stream].reset()
                alone[stream].reset()
            if action == "flush":
                np.testing.assert_array_equal(batch[stream].flush(), alone[stream].flush())
            end = place[stream] + size * (action == "push")
            packets.append([None if rng.random() < 0.5 else packet for packet in sent[stream][place[stream] : end]])
            place[stream] = end
        for ours, one, own in zip(batch.push(packets), alone, packets, strict=True):
            np.testing.assert_array_equal(ours, one.push(own))


def test_frame_by_frame_in_step_is_each_file(codec, short):
    """What a server does, with one stream that joins late, and its state's way from a stream alone into the batch."""
    hop, frames = codec.card.hop, 60
    heard = [voice[: frames * hop] for voice in voices(short)]
    encoders, decoders = codec.encoders(STREAMS), codec.decoders(STREAMS)
    alone = codec.encoder()
    first = alone.push(heard[0][: 20 * hop])
    encoders[0].restore(alone.save())
    packets, samples = [first, [], []], [[codec.decoder().push(first)], [], []]
    early = codec.decoder()
    early.push(first)
    decoders[0].restore(early.save())
    for frame in range(20, frames):
        chunks = np.stack([voice[(frame - 20 * (slot > 0)) * hop :][:hop] for slot, voice in enumerate(heard)])
        now = encoders.push(chunks)
        assert [len(own) for own in now] == [1] * STREAMS
        for slot, got in enumerate(decoders.push([own[0] for own in now])):
            packets[slot] += now[slot]
            samples[slot].append(got)
    for slot, voice in enumerate(heard):
        own = voice[: len(packets[slot]) * hop]
        assert packets[slot] == codec.encoder().push(own)
        np.testing.assert_array_equal(np.concatenate(samples[slot]), codec.decoder().push(packets[slot]))


def test_rates_are_each_streams_own(codec, short):
    encoders = codec.encoders(2)
    encoders[0].kbps = 1
    one, all_layers = encoders.push([short, short])
    assert one == codec.encoder(kbps=1).push(short)
    assert all_layers == codec.encoder().push(short)


def test_packets_are_any_bytes(codec, short):
    packet = codec.encode(short, 16000)[9]
    heard = codec.decoder().push(packet)
    assert len(heard) == codec.card.hop
    for kind in (bytearray, memoryview):
        np.testing.assert_array_equal(codec.decoder().push(kind(packet)), heard)
        np.testing.assert_array_equal(codec.decoder().push([kind(packet)]), heard)


def test_what_fits_no_batch_is_refused(codec, short):
    encoders, decoders = codec.encoders(2), codec.decoders(2)
    assert (len(encoders), len(decoders)) == (2, 2)
    for batch in (encoders, decoders):
        with pytest.raises(ValueError, match="1 streams' data for a batch of 2"):
            batch.push([[]])
        with pytest.raises(IndexError):
            batch[2]
    with pytest.raises(ValueError, match="batch of 0"):
        codec.encoders(0)
    with pytest.raises(AudioError, match="finite"):
        encoders.push([short[:500], [np.nan]])
    assert encoders.push([short, short]) == [codec.encoder().push(short)] * 2
    packets, copies = codec.encode(short, 16000, redundancy=TWO), codec.decoders(2, redundancy=TWO)
    for wrong, error in ((b"o", PacketError), (5, TypeError)):
        with pytest.raises(error):
            copies.push([packets[:9], wrong])
    np.testing.assert_array_equal(copies.push([packets, []])[0], codec.decoder(redundancy=TWO).push(packets))
