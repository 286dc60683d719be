"""A bad network on loopback: a proxy that delays, reorders, repeats and loses datagrams, by chance from a seed."""

import heapq
import select
import socket
import threading
import time
from pathlib import Path

import numpy as np


class Proxy:
    """Forwards from `port` to `target` until it is closed.

    Args:
        target: the port that the receiver listens on.
        delay, jitter: in seconds; each datagram takes the delay and an exponential time of mean `jitter`.
        loss, repeat: the share of datagrams lost, and of those sent twice.
        junk: random datagrams sent beside each one.
    """

    def __init__(self, target, *, delay=0.0, jitter=0.0, loss=0.0, repeat=0.0, junk=0, seed=0):
        self.target, self.delay, self.jitter, self.loss, self.repeat, self.junk = target, delay, jitter, loss, repeat, junk
        self.rng = np.random.default_rng(seed)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.lost = self.repeated = self.forwarded = 0
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.thread.join()
        self.socket.close()

    def run(self):
        waiting = []
        while not self.closing.is_set():
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                self.socket.sendto(heapq.heappop(waiting)[2], ("127.0.0.1", self.target))
            if select.select([self.socket], [], [], 0.002)[0]:
                for due, datagram in self.fate(self.socket.recv(65536)):
                    heapq.heappush(waiting, (due, self.rng.random(), datagram))

    def fate(self, datagram):
        """When a datagram goes on, if it does, and what goes with it."""
        self.forwarded += 1
        if self.rng.random() < self.loss:
            self.lost += 1
            return
        again = self.rng.random() < self.repeat
        self.repeated += again
        for copy in [datagram] * (1 + again) + [self.rng.bytes(int(size)) for size in self.rng.integers(0, 60, self.junk)]:
            yield time.monotonic() + self.delay + self.rng.exponential(self.jitter), copy


def free_port():
    """A UDP port of 127.0.0.1 that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _taken(port):
    """Whether somebody has this UDP port. Linux says so; elsewhere one must try, and may then be in the other's way."""
    table = Path("/proc/net/udp")
    if table.exists():
        return any(line.split()[1].endswith(f":{port:04X}") for line in table.read_text().splitlines()[1:])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def await_listener(port, process, seconds=60):
    """Until somebody listens there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if _taken(port):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nobody listens on port {port}")
