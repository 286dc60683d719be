"""Which packets a network loses: independent losses, bursts, a recorded trace. For simulation and for tests.

A model is a stream: `draw(count)` says of the next packets which are lost, in chunks of any size with the same outcome, and
`reset()` begins the same sequence again. Bursts are what hurts: real networks lose packets in a row (queues overflow, radio
fades), and redundancy that mends single losses fails there unless its copies are far enough apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from linnet.bits import LinnetError

Lost = npt.NDArray[np.bool_]

_RATE_TOLERANCE = 1e-9  # a burst of 1 / (1 - rate), computed, must be allowed


class LossError(LinnetError):
    """A loss model that cannot exist, or a trace that cannot be read."""


class LossModel(Protocol):
    """Says which packets are lost."""

    def draw(self, count: int) -> Lost:
        """Of the next `count` packets, which are lost: bool `[count]`."""

    def reset(self) -> None:
        """Begin the same sequence again."""


class Independent:
    """Every packet is lost with the same probability, whatever happened to the others.

    Args:
        rate: the probability, 0 to 1.
        seed: the same gives the same losses.

    Raises:
        LossError: if the rate is no probability.
    """

    def __init__(self, rate: float, seed: int = 0):
        self.rate, self.seed = _checked_rate(rate), seed
        self.reset()

    def draw(self, count: int) -> Lost:
        """See `LossModel.draw`."""
        return self._rng.random(count) < self.rate

    def reset(self) -> None:
        """See `LossModel.reset`."""
        self._rng = np.random.default_rng(self.seed)


class GilbertElliott:
    """Losses in bursts: a chain of two states, of which one loses every packet and the other none.

    This is Gilbert's model of 1960 in the form that two measured figures determine: the chain leaves the losing state with
    probability `1 / burst` after each packet, so that bursts are geometric with that mean, and enters it as often as `rate`
    demands. Elliott's two more parameters (losses in the good state, arrivals in the bad one) stay 0. The first packet
    finds the chain in its stationary state, so the rate holds from the start.

    Args:
        rate: the share of packets lost in the long run, 0 to 1.
        burst: mean number of packets lost in a row, at least 1; independent losses have `1 / (1 - rate)`.
        seed: the same gives the same losses.

    Raises:
        LossError: if the rate is no probability, the burst is shorter than a packet, or the rate is too high for it:
            with gaps of at least one packet, `rate` is at most `burst / (burst + 1)` (or 1: all is lost).
    """

    def __init__(self, rate: float, burst: float, seed: int = 0):
        self.rate, self.burst, self.seed = _checked_rate(rate), burst, seed
        if not 1 <= burst < float("inf"):
            raise LossError(f"a mean burst of {burst:g} packets: give 1 or more")
        self._leave = 1 / burst
        self._enter = 1.0 if rate == 1 else self._leave * rate / (1 - rate)
        if rate < 1 and self._enter > 1 + _RATE_TOLERANCE:
            raise LossError(
                f"a loss of {100 * rate:g} % needs bursts of at least {rate / (1 - rate):.3g} packets in the mean, "
                f"not {burst:.3g}: give longer bursts or less loss"
            )
        if rate == 1:
            self._leave = 0.0
        self.reset()

    def draw(self, count: int) -> Lost:
        """See `LossModel.draw`."""
        lost = np.empty(count, np.bool_)
        for packet, chance in enumerate(self._rng.random(count).tolist()):
            lost[packet] = self._losing
            self._losing ^= chance < (self._leave if self._losing else self._enter)
        return lost

    def reset(self) -> None:
        """See `LossModel.reset`."""
        self._rng = np.random.default_rng(self.seed)
        self._losing = bool(self._rng.random() < self.rate)


class Trace:
    """What a network did once, again: a recorded sequence, from its beginning when it ends.

    Args:
        lost: bool `[packets]`, true for what was lost.

    Raises:
        LossError: if it is empty.
    """

    def __init__(self, lost: npt.ArrayLike):
        self.lost = np.asarray(lost, np.bool_).ravel()
        if len(self.lost) == 0:
            raise LossError("the trace says nothing of any packet: give at least one 0 or 1")
        self.reset()

    @classmethod
    def read(cls, path: str | Path) -> Trace:
        """A text file of one digit a packet, 0 for one that arrived and 1 for a lost one; white space does not count.

        Raises:
            LossError: if the file holds anything else, or nothing.
            OSError: if it cannot be read.
        """
        digits = bytearray()
        for number, line in enumerate(Path(path).read_bytes().split(b"\n"), start=1):
            digits += (row := b"".join(line.split()))
            if wrong := row.translate(None, b"01"):
                raise LossError(f"{path}, line {number}: {chr(wrong[0])!r} in a trace; it has a 0 or 1 a packet, 1 for lost")
        if not digits:
            raise LossError(f"{path} is an empty trace: it needs a 0 or 1 a packet, 1 for lost")
        return cls(np.frombuffer(digits, np.uint8) == ord("1"))

    def reset(self) -> None:
        """See `LossModel.reset`."""
        self._at = 0

    def draw(self, count: int) -> Lost:
        """See `LossModel.draw`."""
        places = (self._at + np.arange(count)) % len(self.lost)
        self._at = (self._at + count) % len(self.lost)
        return self.lost[places]


def loss_model(rate: float, burst: float | None = None, trace: str | Path | None = None, seed: int = 0) -> LossModel:
    """The model that a user's options name: a trace's, or losses of a rate, in bursts of a mean number of packets if given.

    Raises:
        LossError: if they contradict each other, or describe no model.
        OSError: if the trace cannot be read.
    """
    if trace is not None:
        if rate or burst is not None:
            raise LossError("a trace says itself what is lost: leave out the loss rate and the burst")
        return Trace.read(trace)
    if burst is None:
        return Independent(rate, seed)
    return GilbertElliott(rate, burst, seed)


def bursts(lost: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The lengths of the runs of lost packets in bool `[packets]`, in order: int64 `[runs]`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.asarray(lost, np.bool_), [False]]).astype(np.int8)))
    return edges[1::2] - edges[::2]


def _checked_rate(rate: float) -> float:
    if not 0 <= rate <= 1:
        raise LossError(f"a loss rate of {rate:g}: give a share of the packets, 0 to 1")
    return rate
