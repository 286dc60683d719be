import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rtp_strategies import FRAME_S, SSRC, hostile, played, stream

from linnet.bits import LayoutError, LinnetError, Redundancy, RtpPacket
from linnet.runtime.jitter import JitterBuffer

PLAIN = Redundancy()


def heard(frames):
    """The frames that were played, without the wait at the start."""
    return np.concatenate([frame for frame in frames if frame is not None])


def sounding(frames):
    """Those of them that were not concealed."""
    rows = heard(frames)
    return rows[rows[:, 0] >= 0]


def in_time(datagrams, per_packet=1, delay=0.05, start=0.0):
    return [(start + delay + number * per_packet * FRAME_S, datagram) for number, datagram in enumerate(datagrams)]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([1, 5, 16]),
    st.lists(st.floats(0, 0.03), min_size=60, max_size=60),
    st.lists(st.integers(0, 59), max_size=20),
)
def test_reordered_and_repeated_packets_are_one_stream(codec, per_packet, delays, repeated):
    codes, datagrams = stream(codec.layout, 60, per_packet)
    times = in_time(datagrams, per_packet)
    arrivals = [(time + delay, datagram) for (time, datagram), delay in zip(times, delays, strict=False)]
    arrivals[0] = (0.05, datagrams[0])
    again = [(time + 0.3, datagrams[n]) for n, (time, _) in enumerate(arrivals) if n in repeated]
    buffer = JitterBuffer(codec.layout, PLAIN)
    frames = played(buffer, [*arrivals, *again], 2.0)
    np.testing.assert_array_equal(sounding(frames), codes)
    assert buffer.counts.repeated == len(again)
    assert (buffer.counts.received, buffer.counts.missing, buffer.counts.late) == (len(datagrams), 0, 0)
    assert len(buffer) == buffer.counts.lost == buffer.counts.restarts == 0


def test_the_first_frame_waits_for_the_delay_and_the_clock_then_runs(codec):
    codes, datagrams = stream(codec.layout, 60)
    frames = played(JitterBuffer(codec.layout, PLAIN, min_delay_s=0.04), in_time(datagrams), 0.05 + 60 * FRAME_S)
    waited = sum(frame is None for frame in frames) * FRAME_S
    assert 0.09 <= waited < 0.09 + FRAME_S
    np.testing.assert_array_equal(heard(frames), codes[: len(heard(frames))])


def test_losses_are_concealed_in_their_place(codec):
    codes, datagrams = stream(codec.layout, 100)
    lost = [10, 11, 40, 77]
    arrivals = [arrival for number, arrival in enumerate(in_time(datagrams)) if number not in lost]
    buffer = JitterBuffer(codec.layout, PLAIN)
    rows = heard(played(buffer, arrivals, 1.1))
    codes[lost] = -1
    np.testing.assert_array_equal(rows[: len(rows)], codes[: len(rows)])
    assert (buffer.counts.lost, buffer.counts.missing) == (4, 4)


def test_copies_recover_what_they_can_without_a_longer_wait_than_theirs(codec):
    codes, datagrams = stream(codec.layout, 100, offsets=(2, 5))
    lost = [10, 30, 32, 50, 51, 52, 53, 54, 55]  # 50 and 53 lose all of theirs
    arrivals = [arrival for number, arrival in enumerate(in_time(datagrams)) if number not in lost]
    buffer = JitterBuffer(codec.layout, Redundancy((2, 5)))
    rows = heard(played(buffer, arrivals, 1.1))
    first_layer = codes.copy()
    first_layer[:, 1:] = -1
    expected = codes.copy()
    expected[lost] = first_layer[lost]
    expected[[50]] = -1
    np.testing.assert_array_equal(rows, expected[: len(rows)])
    assert (buffer.counts.recovered, buffer.counts.lost) == (8, 1)
    assert buffer.target_s == pytest.approx(6 * FRAME_S)


def test_copies_have_time_on_a_network_that_also_delays(codec):
    rng = np.random.default_rng(0)
    _, datagrams = stream(codec.layout, 1000, offsets=(5, 10))
    arrivals = [(time + rng.exponential(0.03), datagram) for time, datagram in in_time(datagrams) if rng.random() > 0.2]
    buffer = JitterBuffer(codec.layout, Redundancy((5, 10)))
    played(buffer, arrivals, 12.1)
    assert buffer.target_s == pytest.approx(11 * FRAME_S + 0.03 * np.log(2), abs=0.01)
    # Of 200 lost, 0.8 % of 1000 lose both copies as well; some more are late.
    assert buffer.counts.lost < 25
    assert buffer.counts.recovered > 165


def test_the_delay_follows_the_jitter(codec):
    rng = np.random.default_rng(0)
    _, datagrams = stream(codec.layout, 3000)
    calm, wild = rng.exponential(0.002, 1000), rng.exponential(0.03, 1000)
    delays = np.concatenate([calm, wild, calm])
    buffer = JitterBuffer(codec.layout, PLAIN, min_delay_s=0.02)
    targets = []
    arrivals = [(time + delays[n], datagram) for n, (time, datagram) in enumerate(in_time(datagrams))]
    for third in range(3):
        played(buffer, arrivals, 12 * (third + 1), start=12 * third)
        targets.append((buffer.target_s, buffer.jitter_s))
    (quiet, small), (loud, large), (again, _) = targets
    assert quiet < 0.03
    # 98 % of exponential delays are below 3.9 means, which differ from packet to packet by one mean.
    assert loud == pytest.approx(3.9 * 0.03, rel=0.35)
    assert again < 0.03
    assert small == pytest.approx(0.002, rel=0.6)
    assert large == pytest.approx(0.03, rel=0.6)


def test_a_delay_that_is_wrong_asks_for_adjustment(codec):
    _, datagrams = stream(codec.layout, 400)
    buffer = JitterBuffer(codec.layout, PLAIN)
    times = in_time(datagrams)
    played(buffer, times, 1.2)
    assert buffer.adjustment() == 0
    # A pause of the network of 300 ms makes the buffer as much deeper.
    late = [(max(time, 1.5), datagram) for time, datagram in times if time >= 1.2]
    played(buffer, late, 2.4, start=1.2)
    assert buffer.counts.lost == 0
    assert buffer.delay_s > 0.29
    buffer.target_s = 0.04
    assert buffer.adjustment() == -1
    buffer.target_s = 0.6
    assert buffer.adjustment() == 1


@pytest.mark.parametrize("drift", [-0.002, 0.002])
def test_clocks_that_drift_do_not_run_away(codec, drift):
    """Four thousand parts a million, of which real clocks have a hundred; without adjustment, so the delay only moves."""
    codes, datagrams = stream(codec.layout, 4000)
    arrivals = [(time * (1 + drift), datagram) for time, datagram in in_time(datagrams)]
    buffer = JitterBuffer(codec.layout, PLAIN)
    frames = played(buffer, arrivals, 48 * (1 + drift))
    assert len(buffer) < 20
    np.testing.assert_array_equal(sounding(frames), codes[: len(sounding(frames))])


def test_a_pause_of_transmission_keeps_the_delay(codec):
    _, datagrams = stream(codec.layout, 200)
    times = in_time(datagrams)
    numbered = [RtpPacket.from_bytes(datagram) for datagram in datagrams]
    # Frames 50 to 149 are never sent, so sequence numbers run on.
    spurts = [*zip(times[:50], numbered[:50], strict=True)]
    spurts += [
        (time, RtpPacket((n.sequence - 100) % 2**16, n.timestamp, SSRC, 96, not index, n.payload))
        for index, (time, n) in enumerate(zip(times[150:], numbered[150:], strict=True))
    ]
    buffer = JitterBuffer(codec.layout, PLAIN)
    arrivals = [(time, packet.to_bytes()) for (time, _), packet in spurts]
    played(buffer, arrivals, 0.6)
    before = buffer.delay_s
    played(buffer, arrivals, 2.6, start=0.6)
    assert buffer.delay_s == pytest.approx(before, abs=FRAME_S)
    assert (buffer.counts.missing, buffer.counts.restarts, buffer.counts.played) == (0, 0, 100)


def test_comfort_noise_keeps_the_time_of_a_long_pause(codec):
    """Ten seconds, five times as long as the window."""
    codes, datagrams = stream(codec.layout, 100, offsets=(2,))
    numbered = [RtpPacket.from_bytes(datagram) for datagram in datagrams]
    pause = 833

    def moved(packet, packets, frames, **fields):
        place = (packet.sequence + packets) % 2**16, (packet.timestamp + 192 * frames) % 2**32
        return RtpPacket(*place, SSRC, **{"payload_type": 96, "marker": False, "payload": packet.payload, **fields}).to_bytes()

    noises = list(range(0, pause, 83))
    arrivals = [(0.05 + FRAME_S * n, moved(packet, 0, 0)) for n, packet in enumerate(numbered[:50])]
    for number, frame in enumerate(noises):
        noise = moved(numbered[50], number, frame, payload_type=97, payload=bytes([60]))
        arrivals.append((0.05 + FRAME_S * (50 + frame), noise))
    for n, packet in enumerate(numbered[50:], start=50):
        # Copies of frames that were never sent are zeros.
        own = bytes([packet.payload[2] & 0xF0])
        payload = packet.payload[:2] + own + b"\0" + packet.payload[4:] if n < 52 else packet.payload
        arrivals.append((0.05 + FRAME_S * (n + pause), moved(packet, len(noises), pause, marker=n == 50, payload=payload)))
    buffer = JitterBuffer(codec.layout, Redundancy((2,)))
    before = played(buffer, arrivals, 0.6)
    delay = buffer.delay_s
    after = played(buffer, arrivals, 13, start=0.6)
    assert buffer.delay_s == pytest.approx(delay, abs=FRAME_S)
    counts = buffer.counts
    assert (counts.missing, counts.refused, counts.restarts, counts.recovered, counts.played) == (0, 0, 0, 0, 100)
    np.testing.assert_array_equal(sounding([*before, *after]), codes)
    assert buffer.background == pytest.approx(0.001)


def test_comfort_noise_is_believed_of_the_running_stream_alone(codec):
    _, datagrams = stream(codec.layout, 20)
    last = RtpPacket.from_bytes(datagrams[-1])
    buffer = JitterBuffer(codec.layout, PLAIN)
    noise = RtpPacket(last.sequence + 1, last.timestamp + 192, SSRC, 97, False, b"\x3c")
    buffer.push(noise.to_bytes(), 0.0)
    assert buffer.pull(1.0) is None
    played(buffer, in_time(datagrams), 0.3)
    for number in range(3):
        other = RtpPacket(noise.sequence + number, noise.timestamp + 192 * number, 7, 97, False, b"\x3c")
        buffer.push(other.to_bytes(), 0.3)
    assert (buffer.background, buffer.epoch, buffer.counts.refused) == (None, 0, 4)
    buffer.push(noise.to_bytes(), 0.3)
    assert buffer.background == pytest.approx(0.001)


@pytest.mark.parametrize("jump", [5_000_000, -5_000_000, 2**31, 96])
@pytest.mark.parametrize("marker", [False, True])
def test_a_jump_in_time_is_followed_once_it_is_confirmed(codec, jump, marker):
    codes, datagrams = stream(codec.layout, 120, n_layers=1)
    jumped = []
    for n, datagram in enumerate(datagrams):
        packet = RtpPacket.from_bytes(datagram)
        after = (packet.timestamp + jump * (n >= 60)) % 2**32
        jumped.append(RtpPacket(packet.sequence, after, SSRC, 96, marker and n == 60, packet.payload).to_bytes())
    buffer = JitterBuffer(codec.layout, PLAIN)
    frames = played(buffer, in_time(jumped), 2.0)
    assert (buffer.counts.restarts, buffer.epoch, buffer.counts.refused) == (1, 0, 0)
    rows = sounding(frames)
    np.testing.assert_array_equal(rows[-60:], codes[60:])  # both packets of the jump are played
    assert len(rows) >= 110


def test_another_sender_takes_over_once_it_is_alone(codec):
    _, first = stream(codec.layout, 60)
    codes, second = stream(codec.layout, 60, ssrc=7, seed=1, sequence=100)
    buffer = JitterBuffer(codec.layout, PLAIN)
    frames = played(buffer, in_time(first) + in_time(second, start=0.72), 2.0)
    assert (buffer.epoch, buffer.counts.restarts) == (1, 1)
    np.testing.assert_array_equal(sounding(frames)[-60:], codes)


def test_a_sender_beside_the_stream_is_not_heard(codec):
    codes, mine = stream(codec.layout, 60)
    _, other = stream(codec.layout, 60, ssrc=7, seed=1)
    buffer = JitterBuffer(codec.layout, PLAIN)
    frames = played(buffer, in_time(mine) + in_time(other, start=0.003), 2.0)
    np.testing.assert_array_equal(sounding(frames), codes)
    assert (buffer.epoch, buffer.counts.refused) == (0, 60)


def test_a_replayed_stream_is_not_heard_twice(codec):
    codes, datagrams = stream(codec.layout, 300)
    buffer = JitterBuffer(codec.layout, PLAIN)
    # Each packet comes again at once, and all of the old ones, in order, once more while the stream runs.
    again = [(1.0 + 0.001 * n, datagram) for n, datagram in enumerate(datagrams[:70])]
    frames = played(buffer, [*in_time(datagrams), *in_time(datagrams), *again], 4.5)
    np.testing.assert_array_equal(sounding(frames), codes)
    assert buffer.counts.repeated == 370


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_that_comes_raises_or_fills_the_memory(codec, data):
    offsets = data.draw(st.sampled_from([(), (3,), (5, 10)]))
    _, datagrams = stream(codec.layout, 40, data.draw(st.sampled_from([1, 4])), offsets)
    steps = data.draw(st.lists(hostile(datagrams) | st.floats(0, 3), max_size=80))
    outcomes = []
    for _ in range(2):  # deterministic: the same steps give the same frames
        buffer, now, frames = JitterBuffer(codec.layout, Redundancy(offsets), max_delay_s=0.5), 0.0, []
        for step in steps:
            if isinstance(step, float):
                now += step
                frames.append(buffer.pull(now))
            else:
                buffer.push(step, now)
            assert len(buffer) <= buffer.window
            assert buffer.adjustment() in (-1, 0, 1)
            assert buffer.least_s <= buffer.target_s <= buffer.max_delay_s
        outcomes.append(frames)
    for one, other in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one is None or (one.shape == (1, 6) and one.min() >= -1 and one.max() < 4096)


@pytest.mark.parametrize("kind", ["noise", "strangers", "numbers"])
def test_a_flood_takes_no_memory_and_the_stream_goes_on(codec, kind):
    codes, datagrams = stream(codec.layout, 80)
    rng = np.random.default_rng(0)
    good = RtpPacket.from_bytes(datagrams[0])

    def attack():
        if kind == "noise":
            return rng.bytes(rng.integers(0, 60))
        ssrc = int(rng.integers(2**32)) if kind == "strangers" else SSRC
        timestamp = (good.timestamp + int(rng.integers(2**32))) % 2**32
        return RtpPacket(int(rng.integers(2**16)), timestamp, ssrc, 96, False, good.payload).to_bytes()

    buffer = JitterBuffer(codec.layout, PLAIN)
    frames, peak = [], []
    tracemalloc.start()
    for n, (time, datagram) in enumerate(in_time(datagrams)):
        buffer.push(datagram, time)
        for _ in range(40):
            buffer.push(attack(), time)
        frames.append(buffer.pull(time))
        if n in (20, 79):
            peak.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert peak[1] - peak[0] < 100_000
    np.testing.assert_array_equal(sounding(frames), codes[: len(sounding(frames))])
    assert len(sounding(frames)) > 70
    assert buffer.counts.restarts == 0


def test_nobody_pulls(codec):
    _, datagrams = stream(codec.layout, 5000)
    buffer = JitterBuffer(codec.layout, PLAIN, max_delay_s=0.2)
    for time, datagram in in_time(datagrams):
        buffer.push(datagram, time)
        assert len(buffer) <= buffer.window
    assert buffer.counts.restarts > 10


def test_what_cannot_be_is_refused(codec):
    for least, most in ((-1, 1), (0.5, 0.1), (0, float("inf")), (float("nan"), 1)):
        with pytest.raises(LinnetError, match="smaller one first"):
            JitterBuffer(codec.layout, PLAIN, min_delay_s=least, max_delay_s=most)
    buffer = JitterBuffer(codec.layout, PLAIN)
    assert buffer.pull(0) is None
    with pytest.raises(LayoutError):
        JitterBuffer(codec.layout, Redundancy((1, 1)))
