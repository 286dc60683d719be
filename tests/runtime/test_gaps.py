from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.bits import CodesError
from linnet.runtime.gaps import HOLD_MS, GapFade

HOP, RATE = 192, 16000


def db(samples):
    return 20 * np.log10(np.sqrt(np.mean(np.square(samples, dtype=float))) + 1e-12)


def faded(samples, lost):
    return GapFade(HOP, RATE)(samples.astype(np.float32), np.asarray(lost, bool))


def gap(frames, start, length):
    """Lost frames `start` to `start + length` of `frames`."""
    return (np.arange(frames) >= start) & (np.arange(frames) < start + length)


@settings(max_examples=30, deadline=None)
@given(
    runs=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 40)), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_any_chunks_give_the_same_samples(runs, cuts):
    lost = np.concatenate([[False] * good + [True] * bad for good, bad in runs])
    samples = np.random.default_rng(0).standard_normal(len(lost) * HOP).astype(np.float32)
    fade = GapFade(HOP, RATE)
    whole = fade(samples, lost)
    fade.reset()
    edges = [0, *sorted(min(cut, len(lost)) for cut in cuts), len(lost)]
    parts = [fade(samples[a * HOP : b * HOP], lost[a:b]) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.dtype == np.float32


def test_what_is_not_lost_for_long_is_untouched():
    samples = np.random.default_rng(0).standard_normal(300 * HOP).astype(np.float32)
    np.testing.assert_array_equal(faded(samples, np.zeros(300)), samples)
    longest = int(HOLD_MS * RATE / HOP / 1000)
    lost = gap(300, 100, longest) | gap(300, 200, longest)
    np.testing.assert_array_equal(faded(samples, lost), samples)


def test_a_loss_free_stream_is_the_graph_to_the_bit(codec, short):
    codes = codec.encode_codes(short, 16000)
    np.testing.assert_array_equal(
        codec.decode_codes(codes), codec.decoder_graph.stream()(codes).reshape(-1)[codec.card.delay :]
    )


@pytest.mark.parametrize("wrong", [99999, -7])
def test_a_code_that_the_model_has_not_is_told(codec, short, wrong):
    codes = codec.encode_codes(short, 16000)
    codes[-1, 2] = wrong
    with pytest.raises(CodesError, match=f"code {wrong} in frame {len(codes) - 1}, column 2"):
        codec.decode_codes(codes)
    with pytest.raises(CodesError, match="this model's are"):
        codec.decode_codes(codes[:, 1:])


def test_a_long_gap_becomes_the_noise_of_the_pauses():
    """Speech-like: loud, with pauses of quiet noise whose upper half of the band is empty."""
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(400 * HOP)
    spectrum = np.fft.rfft(noise)
    spectrum[len(spectrum) // 2 :] = 0
    noise = 1e-3 * np.fft.irfft(spectrum) * np.sqrt(2)
    loud = np.repeat(np.arange(400) % 40 < 25, HOP)
    samples = np.where(loud, 0.1 * rng.standard_normal(len(noise)), noise)
    heard = faded(samples, gap(400, 200, 150))
    inside = heard[230 * HOP : 350 * HOP]
    assert db(inside) == pytest.approx(db(noise), abs=2)
    power = np.abs(np.fft.rfft(inside)) ** 2
    assert 10 * np.log10(power[: len(power) // 2].sum() / power[-len(power) // 3 :].sum()) > 20
    levels = [db(inside[start : start + 10 * HOP]) for start in range(0, len(inside), 10 * HOP)]
    assert np.ptp(levels) < 3  # steady
    # The fade itself is over in 100 ms, and the return in two frames.
    assert db(heard[218 * HOP : 220 * HOP]) < -50
    np.testing.assert_array_equal(heard[352 * HOP :], samples[352 * HOP :].astype(np.float32))


def test_nothing_heard_is_silence():
    heard = faded(np.ones(60 * HOP), np.ones(60))
    assert (heard[30 * HOP :] == 0).all()


@pytest.mark.parametrize("length", [9, 13, 17, 40, 300])
def test_there_is_no_jump(length):
    """Of a slow sine, whose own steps are small, neither fade nor return makes a large one."""
    sine = 0.5 * np.sin(2 * np.pi * 100 * np.arange((150 + length) * HOP) / RATE)
    sine[: 50 * HOP] = 0  # a pause, so that the comfort noise is silence
    heard = faded(sine, gap(150 + length, 100, length))
    assert np.abs(np.diff(heard)).max() < 1.2 * np.abs(np.diff(sine)).max()


@pytest.mark.parametrize("start", [60, 137, 200])
def test_real_speech_recovers_without_a_click(codec, speech, start):
    codes = codec.encode_codes(speech, 16000)
    clean = codec.decode_codes(codes)
    length = 100
    codes[start : start + length] = -1
    heard = codec.decode_codes(codes)
    silent = heard[(start + 30) * codec.card.hop : (start + length - 2) * codec.card.hop]
    assert db(silent) < -50  # the decoder alone hums at -32 dBFS
    around = heard[(start + length - 4) * codec.card.hop : (start + length + 8) * codec.card.hop]
    # A click is a step larger than any in the speech itself.
    assert np.abs(np.diff(around)).max() < np.abs(np.diff(clean)).max()


def test_a_live_stream_fades_as_the_file_does(codec, short):
    packets = codec.encode(short, 16000, 1)
    packets[30:80] = [None] * 50
    whole = codec.decode(packets)
    stream = codec.decoder()
    parts = np.concatenate([stream.push(packet) for packet in packets])
    np.testing.assert_allclose(parts[codec.card.delay :], whole, atol=1e-4)


def test_a_stream_may_end_in_a_gap(codec, short):
    stream = codec.decoder()
    stream.push([*codec.encode(short, 16000, 1), *[None] * 20])
    assert len(stream.push([])) == 0
    assert len(stream.flush()) == 0
