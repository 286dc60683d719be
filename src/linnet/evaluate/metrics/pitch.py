"""What becomes of pitch and voicing."""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from linnet.evaluate.metrics.base import FFT, RATE, Samples, at_16k, import_package, silent


def f0_error(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Root mean square pitch error in cents over the frames of 5 ms that are voiced in both, pitch by DIO and StoneMask.

    Errors are cut at an octave: beyond it the tracker has jumped, and how far says nothing.

    Returns:
        The error; nan if no frame is voiced in both.

    Raises:
        MissingPackageError: if `pyworld` is not installed.
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    wanted, heard = _pitches(reference, degraded, sample_rate)
    both = (wanted > 0) & (heard > 0)
    if not both.any():
        return float("nan")
    cents = np.clip(1200 * np.log2(heard[both] / wanted[both]), -1200, 1200)
    return float(np.sqrt(np.square(cents).mean()))


def voicing_error(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Frames of 5 ms that are voiced in only one of the signals, in percent of those that are voiced in either.

    Returns:
        The share; nan if no frame is voiced in either. Raises as `f0_error`.
    """
    wanted, heard = (pitch > 0 for pitch in _pitches(reference, degraded, sample_rate))
    either = int((wanted | heard).sum())
    return 100 * int((wanted ^ heard).sum()) / either if either else float("nan")


def _pitches(reference: Samples, degraded: Samples, sample_rate: int) -> tuple[npt.NDArray[np.float64], ...]:
    """Pitch of both in Hz every 5 ms, 0 where unvoiced, [frames] each."""
    signals = at_16k(reference, degraded, sample_rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of its own import of pkg_resources
        import_package("pyworld")
    if len(signals[0]) < FFT or silent(signals[0]):
        return np.zeros(1), np.zeros(1)
    return tuple(_pitch(np.asarray(signal, np.float64).tobytes()) for signal in signals)


@lru_cache(maxsize=4)  # two metrics want it, and every codec that of the original
def _pitch(signal: bytes) -> npt.NDArray[np.float64]:
    """Of float64 samples at 16 kHz, by DIO and StoneMask (Morise et al., 2009), 60 to 500 Hz."""
    world, samples = import_package("pyworld"), np.frombuffer(signal)
    rough, times = world.dio(samples, RATE, f0_floor=60.0, f0_ceil=500.0)
    return world.stonemask(samples, rough, times, RATE)
