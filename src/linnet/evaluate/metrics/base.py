"""What every metric is and needs: one signature, one rate, and packages that may be missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from linnet.bits.errors import LinnetError

Samples = npt.NDArray[Any]
Function = Callable[[Samples, Samples, int], float]

RATE = 16_000
"""The sample rate at which everything is judged, in Hz."""

FFT = 512  # 32 ms
HOP = 160  # 10 ms

_SILENCE = 1e-5  # RMS of -100 dBFS: below the last bit of a 16-bit file


class MissingPackageError(LinnetError):
    """A metric's package is not installed."""


@dataclass(frozen=True)
class Metric:
    """One way of judging.

    Args:
        function: `(reference, degraded, sample_rate) -> float`.
        unit: of the value, '' for a number of its own scale.
        higher_is_better: which end of the scale is good.
        blind_to: what it does not hear, so that nobody relies on it for that.
        package: that it imports and whose version its value depends on, '' if it is ours alone.
        revision: raised when our own arithmetic changes.
        default: whether it is measured if nobody names metrics; not what is slow, or tied to a language.
        install: what installs the package.
        distribution: of the package, '' if it has the same name.
        needs: other packages without which that one does not run, and files.
    """

    function: Function
    unit: str
    higher_is_better: bool
    blind_to: str
    package: str = ""
    revision: int = 1
    default: bool = True
    install: str = "pip install 'linnet[eval]'"
    distribution: str = ""
    needs: tuple[str | Path, ...] = ()

    def lacking(self) -> str:
        """The first package or file that it needs and that is not there, '' if all are."""
        needs: tuple[str | Path, ...] = (self.package, *self.needs) if self.package else self.needs
        for need in needs:
            there = need.exists() if isinstance(need, Path) else importlib.util.find_spec(need) is not None
            if not there:
                return str(need)
        return ""

    def available(self) -> bool:
        """Whether what it needs is installed."""
        return not self.lacking()

    def identity(self) -> str:
        """What its value depends on besides the signals: results are kept under it.

        Raises:
            MissingPackageError: if what it needs is not installed.
        """
        version = ""
        if self.package:
            if lacking := self.lacking():
                raise missing_package(lacking, self.install)
            version = f"{self.package} {importlib.metadata.version(self.distribution or self.package)}"
        return f"{self.function.__name__} {self.revision} {version}".rstrip()


def to_rate(samples: Samples, sample_rate: int, wanted: int) -> npt.NDArray[np.float64]:
    """Samples [samples] at another rate, in soxr's best quality, as float64."""
    samples = np.asarray(samples, np.float64)
    return samples if sample_rate == wanted else soxr.resample(samples, sample_rate, wanted, quality="VHQ")


def to_int16(samples: Samples) -> npt.NDArray[np.int16]:
    """[samples] as a file of 16 bits holds them: rounded and clipped, full scale 1.0 being 32768."""
    return np.clip(np.round(np.asarray(samples, np.float64) * 32768), -32768, 32767).astype(np.int16)


def at_16k(reference: Samples, degraded: Samples, sample_rate: int) -> tuple[Samples, Samples]:
    """Both signals at `RATE`.

    Raises:
        ValueError: if they are not two one-dimensional ones of one length.
    """
    shapes = np.shape(reference), np.shape(degraded)
    if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
        raise ValueError(f"signals of shapes {shapes[0]} and {shapes[1]}: give two of one length, one channel each")
    return to_rate(reference, sample_rate, RATE), to_rate(degraded, sample_rate, RATE)


def silent(samples: Samples) -> bool:
    """Whether there is nothing to judge in [samples]."""
    return len(samples) == 0 or float(np.sqrt(np.square(samples).mean())) < _SILENCE


def frames(samples: Samples, hop: int = HOP) -> npt.NDArray[np.complex128]:
    """Spectra of Hann windows of 32 ms, [frames, bins]; [samples] are at least one window."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, FFT)[::hop]
    return np.fft.rfft(windows * np.hanning(FFT))


def power(samples: Samples) -> npt.NDArray[np.float64]:
    """Power spectra, [frames, bins]."""
    return np.square(np.abs(frames(samples)))


def import_package(name: str, install: str = Metric.install) -> ModuleType:
    """A package that may be missing.

    Raises:
        MissingPackageError: if it is.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise missing_package(name, install) from error


def missing_package(name: str, install: str = Metric.install) -> MissingPackageError:
    """What to say of a package that is not there."""
    return MissingPackageError(f"this metric needs the package '{name}': {install}")
