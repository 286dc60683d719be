"""What a codec is to the laboratory: a small class that codes samples and says how many bits that took.

A codec takes and returns samples at its own rate and leaves its delay where it is; `through` resamples, compensates and
cuts, in one place for all. Bits are the payload: what a radio or a packet has to carry, without container or padding.
"""

from __future__ import annotations

import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from linnet.bits.errors import LinnetError
from linnet.evaluate.metrics import RATE, Samples, to_rate
from linnet.writing import file_identity

if TYPE_CHECKING:
    from linnet.evaluate.network import Network

_TIMEOUT_S = 600
_UNKNOWN_DELAY = RATE // 4  # samples at 16 kHz


class CodecError(LinnetError):
    """A codec that is not there, not installed, or that failed."""


@dataclass(frozen=True)
class Coded:
    """What came out of a codec.

    Args:
        samples: decoded [samples] at the codec's rate, its delay still in front.
        bits: payload.
        seconds: of audio that the bits stand for.
        bandwidth_hz: where this audio ends, if that depends on the file or the rate.
    """

    samples: npt.NDArray[Any]
    bits: float
    seconds: float
    bandwidth_hz: int | None = None


class Codec(ABC):
    """One codec, at any of its rates. Instances are small and can be sent to another process.

    A class of another package takes part through the entry point group `linnet.codecs`, called without arguments.
    """

    name: str
    """What tables call it, without its rate."""
    sample_rate: int = RATE
    """Hz, of what `run` takes and returns."""
    bandwidth_hz: int = RATE // 2
    """Where its audio ends, unless `Coded.bandwidth_hz` knows better."""
    frame: int = 1
    """Samples; `run` is given whole frames."""
    rates: tuple[float, ...] = ()
    """Nominal kbit/s of its modes, rising; empty if it takes any rate."""
    least_kbps: float = 0.0
    """The lowest rate of a codec that takes any."""
    usual_kbps: tuple[float, ...] = ()
    """kbit/s, what is measured if nobody asks for a rate; if empty, somebody has to."""

    def available(self) -> str | None:
        """None if it can run here, or one line that says what to install."""
        return None

    @abstractmethod
    def identity(self) -> str:
        """Everything besides samples and rate that decides the output, such as a version: results are kept under it."""

    def delay(self, kbps: float) -> int | None:  # noqa: ARG002
        """Samples at its rate by which `run` lags, the same for every file; None to measure it in each file."""
        return 0

    @abstractmethod
    def run(self, samples: Samples, kbps: float) -> Coded:
        """Through the codec and back.

        Args:
            samples: [samples] at `sample_rate`, full scale 1.0, a multiple of `frame`.
            kbps: a rate that `mode` gave.

        Raises:
            CodecError: if the codec fails.
        """

    def runs(self, samples: Samples, rates: Sequence[float]) -> Iterator[Coded]:
        """At several rates; a codec whose rates share an encoding does better than this."""
        for kbps in rates:
            yield self.run(samples, kbps)

    def over(self, network: Network) -> Codec | None:  # noqa: ARG002
        """This codec over a network that loses packets; None if it takes no loss."""
        return None

    def mode(self, kbps: float) -> float:
        """The rate it can be run at for a wanted one: the highest that is not above it, or else its lowest."""
        if not self.rates:
            return max(kbps, self.least_kbps)
        return max((rate for rate in self.rates if rate <= kbps + 1e-9), default=self.rates[0])


@dataclass(frozen=True)
class Output:
    """One file through one codec: [samples] at 16 kHz, and what they cost.

    Args:
        samples: float64, clipped to full scale. If the codec knows its delay this is gone, and there are as many as went in;
            else there is a quarter of a second more.
        kbps: measured, payload only.
        bandwidth_hz: where the codec's audio ends.
        delay_ms: what was taken away; None if the codec does not know its delay.
    """

    samples: npt.NDArray[np.float64]
    kbps: float
    bandwidth_hz: int
    delay_ms: float | None


def through(codec: Codec, samples: Samples, rates: Sequence[float], times: int = 1) -> Iterator[Output]:
    """[samples] at 16 kHz through a codec at each of several rates, in their order.

    Args:
        codec: at rates that its `mode` gave.
        samples: full scale 1.0.
        rates: nominal, kbit/s.
        times: so often, each time what came out of the time before (tandem coding, ITU-T P.830); the rate is one coder's.

    Raises:
        CodecError: if the codec is missing or fails.
    """
    reason = codec.available()
    if reason is not None:
        raise CodecError(reason)
    if times == 1:
        yield from _once(codec, samples, rates)
        return
    for kbps in rates:
        heard, delay_ms = samples, 0.0
        for _ in range(times):
            output = next(_once(codec, heard, [kbps]))
            heard, delay_ms = output.samples, delay_ms + (output.delay_ms or 0.0)
        yield replace(output, delay_ms=None if output.delay_ms is None else delay_ms)


def _once(codec: Codec, samples: Samples, rates: Sequence[float]) -> Iterator[Output]:
    at_rate = to_rate(samples, RATE, codec.sample_rate)
    # room for the delay: a codec that gives back as much as it took must not swallow the end
    room = max((codec.delay(kbps) or 0 for kbps in rates), default=0)
    padded = np.pad(at_rate, (0, room + -(len(at_rate) + room) % codec.frame))
    for kbps, coded in zip(rates, codec.runs(padded, rates), strict=True):
        delay = codec.delay(kbps)
        # whoever finds the delay wants the end, which may lie beyond the input's
        length = len(samples) + (_UNKNOWN_DELAY if delay is None else 0)
        audio = to_rate(np.asarray(coded.samples, np.float64)[delay or 0 :], codec.sample_rate, RATE)[:length]
        yield Output(
            samples=np.clip(np.pad(audio, (0, length - len(audio))), -1, 1),
            kbps=coded.bits / coded.seconds / 1000,
            bandwidth_hz=coded.bandwidth_hz or codec.bandwidth_hz,
            delay_ms=None if delay is None else 1000 * delay / codec.sample_rate,
        )


def missing_tools(*tools: str, package: str) -> str | None:
    """None, or what to install for command-line tools."""
    absent = [tool for tool in tools if shutil.which(tool) is None]
    return f"{' and '.join(absent)} not found: apt install {package}" if absent else None


def tool_identity(*tools: str) -> str:
    """Which build of some tools is installed: their size and time, and the first line of what `--version` prints."""
    told = []
    for tool in tools:
        path = shutil.which(tool)
        if path is None:
            raise CodecError(f"{tool} not found")
        told.append(f"{tool} {file_identity(path)} {_version(path)}")
    return "; ".join(told)


def call(*command: str, shell: bool = False) -> None:
    """Run a tool to its end.

    Raises:
        CodecError: with the tool's last line, if it fails or takes more than ten minutes.
    """
    try:
        subprocess.run(command[0] if shell else command, check=True, capture_output=True, timeout=_TIMEOUT_S, shell=shell)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {error.returncode}"]
        raise CodecError(f"{command[0]} failed: {said[-1]}") from error
    except subprocess.TimeoutExpired as error:
        raise CodecError(f"{command[0]} took more than {_TIMEOUT_S} s: give it shorter files") from error


def _version(path: str) -> str:
    for option in ("--version", "-version"):  # the second is ffmpeg's
        told = subprocess.run([path, option], capture_output=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
        if told.returncode == 0 and told.stdout:
            return told.stdout.decode(errors="replace").splitlines()[0]
    return ""
