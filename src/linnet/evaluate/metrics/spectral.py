"""Distances of waveforms and spectra, all of them ours."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from linnet.evaluate.metrics.base import FFT, RATE, Samples, at_16k, power, silent

BAND_EDGES_HZ = (125, 250, 500, 1000, 2000, 4000, 8000)
"""Octaves: the lowest holds the pitch of most voices, the highest ends where 16 kHz audio does."""

_MELS = 80
_FLOOR_DB = -80.0  # below the loudest mel band of the reference: no ear and no 16-bit file tells what lies lower


def si_sdr(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., 2019, eq. 1), both signals without their mean.

    Returns:
        The ratio, at most about 150 for float64; nan if either is silent then.

    Raises:
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    both = at_16k(reference, degraded, sample_rate)
    reference, degraded = (samples - samples.mean() if len(samples) else samples for samples in both)
    if silent(reference) or silent(degraded):
        return float("nan")
    target = reference * (degraded @ reference) / (reference @ reference)
    tiny = 1e-15 * float(degraded @ degraded)
    return float(10 * np.log10((target @ target + tiny) / (np.square(degraded - target).sum() + tiny)))


def log_mel_distance(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Mean absolute difference in dB of 80-band mel spectrograms: 32 ms Hann windows every 10 ms, 0 to 8 kHz.

    Bands more than 80 dB below the reference's loudest count as that low, so that digital silence is no infinite error.

    Returns:
        The distance, 0 for equal signals; nan if the reference is silent or shorter than a window.

    Raises:
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    reference, degraded = at_16k(reference, degraded, sample_rate)
    if silent(reference) or len(reference) < FFT:
        return float("nan")
    wanted, heard = _mel_power(reference), _mel_power(degraded)
    floor = wanted.max() * 10 ** (_FLOOR_DB / 10)
    return float(np.abs(10 * np.log10(np.maximum(wanted, floor) / np.maximum(heard, floor))).mean())


def band_levels(reference: Samples, degraded: Samples, sample_rate: int) -> npt.NDArray[np.float64]:
    """The degraded signal's long-term level less the reference's, in dB, in each octave of `BAND_EDGES_HZ`.

    The levels are energies over the whole clip. A band that is empty counts as 80 dB below the whole reference, so the
    figures stay within about +-80 dB.

    Returns:
        Differences [6], lowest octave first; nan if the reference is silent there.

    Raises:
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    reference, degraded = at_16k(reference, degraded, sample_rate)
    if silent(reference):
        return np.full(len(BAND_EDGES_HZ) - 1, np.nan)
    wanted, heard = _band_energies(reference), _band_energies(degraded)
    floor = wanted.sum() * 10 ** (_FLOOR_DB / 10) or np.nan
    return 10 * np.log10(np.maximum(heard, floor) / np.maximum(wanted, floor))


def band_error(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Mean absolute value of `band_levels`, in dB."""
    return float(np.abs(band_levels(reference, degraded, sample_rate)).mean())


def lsd_low(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """`_log_spectral_distance` from 0 to 4 kHz, which every codec carries."""
    return _log_spectral_distance(reference, degraded, sample_rate, 0, 4000)


def lsd_high(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """`_log_spectral_distance` from 4 to 8 kHz, where a narrowband codec has nothing."""
    return _log_spectral_distance(reference, degraded, sample_rate, 4000, 8000)


def _log_spectral_distance(reference: Samples, degraded: Samples, sample_rate: int, low_hz: int, high_hz: int) -> float:
    """Root mean square difference in dB of the power spectra between two frequencies, by frame, then the mean of frames.

    32 ms Hann windows every 10 ms. What is more than 80 dB below the reference's loudest bin counts as that low; frames in
    which the reference has nothing above that are pauses, and left out.

    Returns:
        The distance, 0 for equal signals; nan if the reference is silent or shorter than a window.

    Raises:
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    reference, degraded = at_16k(reference, degraded, sample_rate)
    if silent(reference) or len(reference) < FFT:
        return float("nan")
    wanted, heard = power(reference), power(degraded)
    floor = wanted.max() * 10 ** (_FLOOR_DB / 10)
    band = slice(*np.searchsorted(np.fft.rfftfreq(FFT, 1 / RATE), (low_hz, high_hz)))
    wanted, heard = np.maximum(wanted[:, band], floor), np.maximum(heard[:, band], floor)
    active = (wanted > floor).any(axis=1)
    return (
        float(np.sqrt(np.square(10 * np.log10(wanted / heard)[active]).mean(axis=1)).mean()) if active.any() else float("nan")
    )


def _mel_power(samples: Samples) -> npt.NDArray[np.float64]:
    return power(samples) @ _mel_weights()


@cache
def _mel_weights() -> npt.NDArray[np.float64]:
    """Triangles on the HTK mel scale, [bins, mels]; each sums to 1, so that a band's power is a weighted mean."""
    hz = np.fft.rfftfreq(FFT, 1 / RATE)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), _MELS + 2) / 2595) - 1)
    # The lowest triangles are narrower than a bin of 31 Hz: each reaches at least one bin to both sides.
    reach_down = np.maximum(np.diff(edges)[:-1], RATE / FFT)
    reach_up = np.maximum(np.diff(edges)[1:], RATE / FFT)
    offset = hz[:, np.newaxis] - edges[1:-1]
    triangles = np.maximum(0, 1 - np.where(offset < 0, -offset / reach_down, offset / reach_up))
    return triangles / triangles.sum(axis=0)


def _band_energies(samples: Samples) -> npt.NDArray[np.float64]:
    power = np.square(np.abs(np.fft.rfft(samples)))
    edges = np.searchsorted(np.fft.rfftfreq(len(samples), 1 / RATE), BAND_EDGES_HZ)
    return np.array([power[low:high].sum() for low, high in pairwise(edges)])
