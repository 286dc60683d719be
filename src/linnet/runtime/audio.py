"""Samples on their way in and out: checked, mixed to mono, resampled as a stream."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

from linnet.bits import LinnetError, StateError

Samples = npt.NDArray[np.float32]

LOWEST_RATE, HIGHEST_RATE = 1000, 768000
_MOST_CHANNELS = 64  # more than there are samples of each, and samples and channels were mistaken for each other


class AudioError(LinnetError):
    """Samples that cannot be coded."""


def to_mono(samples: npt.ArrayLike) -> Samples:
    """Any real samples `[n]` or `[n, channels]` as float32 `[n]`: integers scaled to full scale 1, channels averaged.

    Raises AudioError for other shapes or types and for NaN or infinite samples.
    """
    array = np.asarray(samples)
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] == 0):
        raise AudioError(f"audio has the shape {array.shape}; it must be [samples] or [samples, channels]")
    if array.ndim == 2 and array.shape[1] > max(_MOST_CHANNELS, array.shape[0]):
        raise AudioError(f"audio has the shape {array.shape}; it must be [samples, channels]: transpose it")
    if array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        middle = 0 if array.dtype.kind == "i" else (int(info.max) + 1) // 2
        array = (array.astype(np.float64) - middle) / ((int(info.max) - int(info.min) + 1) // 2)
    elif array.dtype.kind != "f":
        raise AudioError(f"audio has the type {array.dtype}; it must be real numbers")
    mono = (array.mean(axis=1) if array.ndim == 2 else array).astype(np.float32)
    if not np.isfinite(mono).all():
        raise AudioError("audio holds samples that are not finite numbers (NaN or infinity)")
    return mono


def check_rate(sample_rate: int) -> int:
    """A sample rate that can be resampled, or AudioError."""
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE or sample_rate != int(sample_rate):
        raise AudioError(f"a sample rate of {sample_rate} Hz: give a whole number from {LOWEST_RATE} to {HIGHEST_RATE}")
    return int(sample_rate)


class Resampler:
    """Streaming conversion between two rates; the same stream whatever the chunks. Equal rates pass through."""

    def __init__(self, source: int, target: int):
        self.source, self.target = check_rate(source), check_rate(target)
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        same = self.source == self.target
        self._stream = None if same else soxr.ResampleStream(self.source, self.target, 1, dtype="float32", quality="HQ")

    def check_saved(self) -> None:
        """A StateError if the stream's state is more than can be read."""
        if self._stream is not None:
            raise StateError(
                f"a stream from {self.source} to {self.target} Hz cannot be saved or restored: use the model's own rate, "
                "and resample outside"
            )

    def __call__(self, samples: Samples, *, last: bool = False) -> Samples:
        """Convert the next samples; `last` lets out what the filter still holds."""
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(np.ascontiguousarray(samples), last=last), np.float32)
