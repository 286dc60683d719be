"""Sender and receiver over real sockets, with a bad network between."""

import threading
import time

import numpy as np
import pytest
from udp_proxy import Proxy

from linnet.bits import Redundancy
from linnet.live.devices import LiveError
from linnet.live.network import open_socket, parse_address, receive, send
from linnet.runtime.session import RtpReceiver, RtpSender

HOP_S = 0.012
PLAIN = Redundancy()


class Sound:
    """A source of an array, and a sink into one; neither has a clock."""

    sample_rate, paced, latency_s = 16000, False, 0.0

    def __init__(self, samples=()):
        self.samples = np.asarray(samples, np.float32)

    def read(self, count):
        part, self.samples = self.samples[:count], self.samples[count:]
        return part

    def write(self, samples):
        self.samples = np.concatenate([self.samples, samples])


def over(codec, samples, *, kbps=3, redundancy=PLAIN, frames=2, min_delay_s=0.04, **network):
    """Send samples through a proxy; what was heard, the receiver and the proxy."""
    incoming, _ = open_socket(("127.0.0.1", 0), listen=True)
    with incoming, Proxy(incoming.getsockname()[1], **network) as proxy:
        receiver, sink = RtpReceiver(codec, redundancy, min_delay_s=min_delay_s), Sound()
        sender = RtpSender(codec, 16000, kbps, redundancy, frames=frames, sequence=65530, timestamp=2**32 - 1000)
        out, to = open_socket(("127.0.0.1", proxy.port), listen=False)
        with out:
            sending = threading.Thread(target=send, args=(sender, Sound(samples), out, to, HOP_S, lambda: False))
            sending.start()
            played = receive(receiver, sink, incoming, lambda: False, 0.6, lambda: None)
            sending.join()
    assert played == pytest.approx(len(sink.samples) / 16000)
    return sink.samples, receiver, proxy


def level(samples):
    """The root mean square of what is not silence."""
    return np.sqrt(np.mean(samples[np.abs(samples) > 1e-3] ** 2))


def sender_frames(samples):
    """Frames that carry the samples and empty the decoder's delay of 288."""
    return -(-(len(samples) + 288) // 192)


def test_a_good_network(codec, short):
    heard, receiver, proxy = over(codec, short)
    counts = receiver.jitter.counts
    assert (counts.missing, counts.refused, counts.repeated) == (0, 0, 0)
    assert counts.received == proxy.forwarded
    assert counts.played == sender_frames(short)
    assert level(heard) == pytest.approx(level(short), rel=0.5)


@pytest.mark.parametrize(
    ("network", "redundancy", "least"),  # the share of frames to be heard, however slow this machine is
    [
        ({"delay": 0.02, "jitter": 0.015}, PLAIN, 0.7),
        ({"delay": 0.02, "jitter": 0.005, "loss": 0.2, "repeat": 0.1}, Redundancy((4, 8)), 0.7),
        ({"jitter": 0.01, "loss": 0.1, "junk": 5}, PLAIN, 0.6),
    ],
    ids=["reordered", "lost", "junk"],
)
def test_a_bad_network(codec, speech, network, redundancy, least):
    samples = speech[20000:44000]
    heard, receiver, proxy = over(codec, samples, redundancy=redundancy, frames=1, **network)
    counts = receiver.jitter.counts
    assert counts.received == proxy.forwarded - proxy.lost
    assert counts.repeated == proxy.repeated
    assert counts.refused >= proxy.junk * (proxy.forwarded - proxy.lost)
    assert counts.restarts == 0
    if redundancy.offsets:
        assert counts.recovered > 0
    assert counts.played + counts.recovered > least * sender_frames(samples)
    assert level(heard) == pytest.approx(level(samples), rel=0.5)
    assert np.abs(heard).max() < 2 * np.abs(samples).max()


def test_it_waits_for_a_stream_and_stops_when_asked(codec):
    incoming, _ = open_socket(("127.0.0.1", 0), listen=True)
    with incoming:
        start, sink = time.monotonic(), Sound()
        assert receive(RtpReceiver(codec), sink, incoming, lambda: time.monotonic() > start + 0.2, 0.01, lambda: None) == 0
        assert 0.2 <= time.monotonic() - start < 1
        ticks = iter([False] * 5 + [True])
        assert receive(RtpReceiver(codec), sink, incoming, lambda: next(ticks), None, lambda: None) == 0
        assert len(sink.samples) == 0


def test_a_loudspeaker_sets_the_pace_and_is_fed_from_the_start(codec):
    incoming, _ = open_socket(("127.0.0.1", 0), listen=True)
    with incoming:
        sink, told = Sound(), []
        sink.paced = True
        receive(RtpReceiver(codec), sink, incoming, lambda: len(told) == 50, None, lambda: told.append(1))
        np.testing.assert_array_equal(sink.samples, np.zeros(50 * 192))


@pytest.mark.parametrize(
    ("text", "address"),
    [("host:1", ("host", 1)), (":65535", ("", 65535)), ("[::1]:5004", ("::1", 5004)), ("127.0.0.1:80", ("127.0.0.1", 80))],
)
def test_an_address(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", "host:0", "host:65536", "host:9" * 9, "host:x", "host:²", "5004"])
def test_what_is_no_address(text):
    with pytest.raises(LiveError, match="write it like"):
        parse_address(text)


def test_a_port_that_is_taken_is_one_error():
    taken, _ = open_socket(("127.0.0.1", 0), listen=True)
    with taken, pytest.raises(LiveError, match="in use"):
        open_socket(("127.0.0.1", taken.getsockname()[1]), listen=True)
