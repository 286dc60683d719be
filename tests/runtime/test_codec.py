from itertools import pairwise

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.bits import LinnetError
from linnet.runtime.audio import AudioError, to_mono


def test_a_stream_of_single_frames_is_one_call(codec, short):
    packets = codec.encode(short, 16000)
    whole = codec.decode(packets)
    stream = codec.decoder()
    parts = np.concatenate([stream.push(packet) for packet in packets])
    np.testing.assert_allclose(parts[codec.card.delay :], whole, atol=1e-4)


def test_real_speech_frame_by_frame_is_the_whole_file(codec, speech):
    hop = codec.card.hop
    frames = speech[: len(speech) // hop * hop].reshape(-1, hop)
    codes = codec.encoder_graph.stream()(frames)
    stream = codec.encoder_graph.stream()
    np.testing.assert_array_equal(np.concatenate([stream(frames[t : t + 1]) for t in range(len(frames))]), codes)
    whole = codec.decoder_graph.stream()(codes)
    stream = codec.decoder_graph.stream()
    np.testing.assert_allclose(np.concatenate([stream(codes[t : t + 1]) for t in range(len(codes))]), whole, atol=1e-6)


def test_a_stream_may_change_its_step_and_start_anew(codec, short):
    hop = codec.card.hop
    frames = short[: 80 * hop].reshape(-1, hop)
    steps = [1, 1, 1, 2, 1, 1, 1, 30, 30, 2, 2, 2, 6]
    graph = codec.encoder_graph
    whole = graph.stream()(frames)
    stream = graph.stream()
    for _ in range(2):
        parts, start = [], 0
        for step in steps:
            parts.append(stream(frames[start : start + step]))
            start += step
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        stream.reset()


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 8000), max_size=8), rate=st.sampled_from([8000, 16000, 22050, 48000]))
def test_any_chunks_give_the_same_packets(codec, short, cuts, rate):
    samples = short if rate == 16000 else soxr.resample(short, 16000, rate)
    stream = codec.encoder(rate, kbps=3)
    edges = [0, *sorted(cuts), len(samples)]
    packets = [packet for a, b in pairwise(edges) for packet in stream.push(samples[a:b])]
    assert [*packets, *stream.flush()] == codec.encode(samples, rate, kbps=3)
    # Flushed, the stream is as new.
    assert [*stream.push(samples), *stream.flush()] == codec.encode(samples, rate, kbps=3)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_all_of_the_sound_comes_back(codec, short, rate):
    samples = soxr.resample(short, 16000, rate)
    heard = codec.decode(codec.encode(samples, rate), rate)
    assert 0 <= len(heard) - len(samples) <= (codec.card.hop + 2) * rate / codec.card.sample_rate
    envelopes = [np.convolve(np.abs(x[: len(samples)]), np.ones(rate // 20), "same") for x in (samples, heard)]
    assert np.corrcoef(*envelopes)[0, 1] > 0.9


def test_fewer_kilobits_are_a_prefix(codec, short):
    full, base = codec.encode(short, 16000), codec.encode(short, 16000, kbps=1)
    assert all(a[0] == b[0] for a, b in zip(full, base, strict=True))
    assert {len(packet) for packet in base} == {2}
    assert {len(packet) for packet in full} == {9}


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_no_pattern_of_loss_breaks_the_decoder(codec, short, seed, share):
    packets = codec.encode(short, 16000)
    lost = np.random.default_rng(seed).random(len(packets)) < share
    heard = codec.decode([None if gone else packet for gone, packet in zip(lost, packets, strict=True)])
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() < 4


def test_channels_are_averaged_and_integers_scaled(codec, short):
    stereo = np.stack([short, short], 1)
    np.testing.assert_allclose(to_mono(np.array([-32768, 0, 16384], np.int16)), [-1, 0, 0.5])
    np.testing.assert_allclose(to_mono(np.array([0, 128, 192], np.uint8)), [-1, 0, 0.5])
    assert codec.encode(stereo, 16000) == codec.encode(short, 16000)


@pytest.mark.parametrize(
    ("samples", "message"),
    [([], "no samples"), ([0.0, np.nan], "finite"), ([np.inf], "finite"), (np.zeros((2, 3, 4)), "shape"), (["a"], "numbers"),
     (np.zeros((2, 16000)), "transpose")],
)  # fmt: skip
def test_what_is_no_sound_is_refused(codec, samples, message):
    with pytest.raises(AudioError, match=message):
        codec.encode(np.asarray(samples), 16000)


def test_odd_sounds_and_rates(codec):
    for samples in (np.zeros(16000), np.zeros(1), np.full(5000, 1e6), np.random.default_rng(0).standard_normal(7001)):
        assert np.isfinite(codec.decode(codec.encode(samples, 16000))).all()
    for rate in (0, 3, 16000.5, np.inf):
        for refused in (lambda rate=rate: codec.encode(np.zeros(100), rate), lambda rate=rate: codec.decode([None], rate)):
            with pytest.raises(AudioError, match="sample rate"):
                refused()
        for stream in (codec.encoder, codec.decoder):
            with pytest.raises(AudioError, match="sample rate"):
                stream(rate)
    with pytest.raises(LinnetError, match="ask for at least 1"):
        codec.encode(np.zeros(100), 16000, kbps=0.5)
