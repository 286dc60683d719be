import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.bits import Redundancy, StateError
from linnet.runtime.loss import GilbertElliott

TWO = Redundancy((3, 6))


def through_a_file(state):
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(0, 17003), redundancy=st.sampled_from([Redundancy(), TWO]))
def test_an_encoder_goes_on_in_another_one(codec, short, cut, redundancy):
    first, second = codec.encoder(redundancy=redundancy), codec.encoder(redundancy=redundancy)
    second.push(short[:5000])  # whatever it did before
    packets = first.push(short[:cut])
    second.restore(through_a_file(first.save()))
    assert [*packets, *second.push(short[cut:]), *second.flush()] == codec.encode(short, 16000, redundancy=redundancy)


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(0, 89), length=st.sampled_from([2, 20]), redundancy=st.sampled_from([Redundancy(), TWO]))
def test_a_decoder_goes_on_in_another_one(codec, short, cut, length, redundancy):
    """Also in the middle of a gap's fade, whose noise goes on."""
    packets = codec.encode(short, 16000, 4, redundancy)
    lost = GilbertElliott(0.3, length, seed=1).draw(len(packets))
    received = [None if gone else packet for gone, packet in zip(lost, packets, strict=True)]
    first, second = codec.decoder(redundancy=redundancy), codec.decoder(redundancy=redundancy)
    second.push(received[:20])
    before = first.push(received[:cut])
    state = through_a_file(first.save())
    whole = np.concatenate([before, first.push(received[cut:]), first.flush()])
    second.restore(state)
    parts = np.concatenate([before, second.push(received[cut:]), second.flush()])
    np.testing.assert_array_equal(parts, whole)


def test_a_state_is_a_copy(codec, short):
    stream = codec.encoder()
    stream.push(short[:5000])
    state = stream.save()
    first = stream.push(short[5000:])
    stream.restore(state)
    assert stream.push(short[5000:]) == first
    stream.restore(state)
    assert stream.push(short[5000:]) == first


def test_a_state_of_something_else_is_refused_and_changes_nothing(codec, short):
    encoder, decoder = codec.encoder(redundancy=TWO), codec.decoder(redundancy=TWO)
    packets = encoder.push(short[:9000])
    decoder.push(packets)
    for stream, other in ((encoder, decoder), (decoder, encoder)):
        good, wrong = stream.save(), other.save()
        others_model = {**good, "identity": np.frombuffer(b"\0\0\0\0\3\6", np.uint8)}
        others_copies = {**good, "identity": good["identity"][:4]}
        for state, message in (
            (others_model, "model 00000000"),
            (others_copies, "copies"),
            (wrong, "without"),
            ({}, "without"),
        ):
            with pytest.raises(StateError, match=message):
                stream.restore(state)
        for name in good:
            array = good[name]
            damaged = [array.astype(np.complex64), array[np.newaxis]]
            if array.dtype.kind == "f":
                damaged += [np.full_like(array, np.nan)]
            if array.ndim:
                damaged += [np.repeat(array, 30, axis=0)]
            for bad in damaged:
                with pytest.raises(StateError):
                    stream.restore({**good, name: bad})
        for name, array in stream.save().items():
            np.testing.assert_array_equal(array, good[name])
    with pytest.raises(StateError, match="codes"):
        decoder.restore({**decoder.save(), "held": np.full((1, 6), 4096)})
    with pytest.raises(StateError, match="skips"):
        decoder.restore({**decoder.save(), "to_skip": np.array(-1)})


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_state_from_which_the_model_does_not_run_is_refused(codec, kind):
    """Found by fuzzing: the graph's own indices went beyond its tables at the next frame."""
    stream = getattr(codec, kind)()
    good = stream.save()
    for wild in (2**63 - 1, -(2**63), 10**6):
        with pytest.raises(StateError, match="does not run"):
            stream.restore({**good, "state_pitch": np.full_like(good["state_pitch"], wild)})
    for name, array in stream.save().items():
        np.testing.assert_array_equal(array, good[name])


def test_frames_to_be_sent_again_are_not_missing(codec):
    """Found by fuzzing: an encoder took lost frames, and could then send none."""
    encoder, decoder = codec.encoder(redundancy=TWO), codec.decoder(redundancy=TWO)
    lost = np.full((1, codec.layout.n_codes), -1)
    decoder.restore({**decoder.save(), "held": lost})
    with pytest.raises(StateError, match="codes"):
        encoder.restore({**encoder.save(), "sent": lost})


def test_a_stream_that_begins_anew_keeps_nothing(codec, short):
    """Found by fuzzing: its state still held two seconds of what it had heard before."""
    decoder = codec.decoder()
    decoder.push(codec.encode(short, 16000))
    decoder.reset()
    fresh = codec.decoder().save()
    for name, array in decoder.save().items():
        np.testing.assert_array_equal(array, fresh[name])


def test_a_stream_that_resamples_says_that_it_cannot(codec):
    for stream, other in ((codec.encoder(8000), codec.encoder()), (codec.decoder(8000), codec.decoder())):
        with pytest.raises(StateError, match="resample outside"):
            stream.save()
        with pytest.raises(StateError, match="resample outside"):
            stream.restore(other.save())


def test_the_rate_may_change_between_calls(codec, short):
    whole = {kbps: codec.encode(short, 16000, kbps) for kbps in (1, 4)}
    stream = codec.encoder(kbps=1)
    packets = stream.push(short[:6000])
    stream.kbps = 4
    assert stream.kbps == 4
    count = len(packets)
    packets += [*stream.push(short[6000:]), *stream.flush()]
    assert packets == whole[1][:count] + whole[4][count:]
    stream.kbps = None
    assert stream.kbps == 6


def test_many_streams_share_one_model_in_threads(codec, short):
    packets = codec.encode(short, 16000, 2)
    alone = codec.decoder().push(packets)
    streams = [codec.decoder() for _ in range(12)]
    with ThreadPoolExecutor(4) as pool:
        heard = list(pool.map(lambda stream: np.concatenate([stream.push(packet) for packet in packets]), streams))
    for sound in heard:
        np.testing.assert_allclose(sound, alone, atol=1e-4)
