"""Noise-to-mask ratio: how far what a codec changed rises above what the ear cannot hear beside the original.

The masking threshold is that of psychoacoustic model 1 of MPEG-1 (ISO/IEC 11172-3, annex D.1): tonal and noise maskers of
every frame spread over the Bark scale and add up, with the threshold in quiet, in power. The noise is, as in ITU-R BS.1387,
the difference of the magnitudes, so that a codec is not punished for a phase that nobody hears. Two simplifications: maskers
closer than half a Bark are all kept, and the threshold is taken at the middle of each critical band.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from linnet.evaluate.metrics.base import FFT, RATE, Samples, at_16k, frames, silent

FULL_SCALE_DB = 96.0
"""Sound pressure level of a sine of full scale: speech at -26 dBov is then at 70 dB, as one plays it."""

_HOP = 256
_BLOCK = 128  # frames in memory at once
_LEAST = 1e-8  # ratio that counts for no noise at all: -80 dB
_TONAL_DB = 7.0
# how far a tonal masker must rise above its neighbours: up to which bin, which of them (annex D.1, step 4)
_NEIGHBOURS = ((63, (2,)), (127, (2, 3)), (FFT // 2, (2, 3, 4, 5, 6)))


def nmr(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Total noise-to-mask ratio in dB (Total NMR of ITU-R BS.1387): mean of the ratios in power over frames and bands.

    Returns:
        The ratio, -80 for equal signals; nan if the reference is silent or shorter than a window of 32 ms.

    Raises:
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    ratios = noise_to_mask(reference, degraded, sample_rate)
    return float(10 * np.log10(ratios.mean())) if ratios.size else float("nan")


def nmr_audible(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Share in percent of critical bands, over all frames, in which the noise passes the mask. Returns and raises as `nmr`."""
    ratios = noise_to_mask(reference, degraded, sample_rate)
    return float(100 * (ratios > 1).mean()) if ratios.size else float("nan")


def noise_to_mask(reference: Samples, degraded: Samples, sample_rate: int) -> npt.NDArray[np.float64]:
    """Noise power over masking threshold in critical bands, at least 1e-8: [frames, bands], of no frames for silence.

    Frames are 32 ms long and 16 ms apart. In pauses of the original the mask is the threshold in quiet.

    Raises:
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    reference, degraded = at_16k(reference, degraded, sample_rate)
    if silent(reference) or len(reference) < FFT:
        return np.zeros((0, len(_CENTRES)))
    wanted, mask = _masked(np.asarray(reference, np.float64).tobytes())
    noise = np.square(wanted - _magnitudes(degraded))
    return np.maximum(np.add.reduceat(noise, _EDGES[:-1], axis=1) / mask, _LEAST)


@lru_cache(maxsize=2)  # two metrics want it, and every codec that of the original
def _masked(signal: bytes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Magnitudes and mask of float64 samples at 16 kHz."""
    magnitudes = _magnitudes(np.frombuffer(signal))
    return magnitudes, masking_threshold(np.square(magnitudes))


def masking_threshold(power: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Power that is just inaudible in each critical band beside spectra [frames, 257], in their units: [frames, bands].

    Unit is 0 dB of sound pressure level; a sine has its power in three bins together.
    """
    return np.concatenate([_threshold(power[at : at + _BLOCK]) for at in range(0, len(power), _BLOCK)])


def _threshold(power: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    tonal, noise = _maskers(power)
    quiet = 10 ** (_quiet_db(_hz(_CENTRES)) / 10)
    total = np.broadcast_to(quiet, (len(power), len(_CENTRES))).copy()
    for levels, barks, slope, least in ((tonal, _BARKS, 0.275, 4.5), (noise, _CENTRES, 0.175, 0.5)):
        offset = -1.525 - slope * barks - least  # annex D.1, step 6: the masking index
        spread = _spread(levels, _CENTRES[:, np.newaxis] - barks)
        total += (10 ** ((levels + offset)[:, np.newaxis] / 10) * spread).sum(axis=2)
    return total


def _maskers(power: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Levels in dB of the tonal maskers [frames, 257] and of the noise maskers [frames, bands]; -inf for none."""
    levels = _db(power)
    tonal = np.full(power.shape, -np.inf)
    rest = power.copy()
    first = 2
    for last, reach in _NEIGHBOURS:
        bins = np.arange(first, min(last, FFT // 2 - max(reach)))
        here = levels[:, bins]
        found = (here > levels[:, bins - 1]) & (here >= levels[:, bins + 1])
        for step in reach:
            lower = np.maximum(bins - step, 0)
            found &= (here >= levels[:, lower] + _TONAL_DB) & (here >= levels[:, bins + step] + _TONAL_DB)
        rows, columns = np.nonzero(found)
        at = bins[columns]
        tonal[rows, at] = _db(power[rows, at - 1] + power[rows, at] + power[rows, at + 1])
        for step in range(-max(reach), max(reach) + 1):
            rest[rows, np.maximum(at + step, 0)] = 0
        first = last
    return tonal, _db(np.add.reduceat(rest, _EDGES[:-1], axis=1))


def _spread(levels: npt.NDArray[np.float64], distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How much of a masker is left at a distance in Bark (annex D.1, step 6: vf), as a factor of power.

    Args:
        levels: in dB, [frames, maskers].
        distance: of the place from the masker, [places, maskers].

    Returns:
        [frames, places, maskers]; 0 beyond -3 and 8 Bark.
    """
    level = np.maximum(levels, 0)[:, np.newaxis]
    steep = 0.4 * level + 6
    loss = np.select(
        [distance < -1, distance < 0, distance < 1],
        [17 * (distance + 1) - steep, steep * distance, -17 * distance],
        -(distance - 1) * (17 - 0.15 * level) - 17,
    )
    return np.where((distance >= -3) & (distance < 8), 10 ** (loss / 10), 0)


def _magnitudes(samples: Samples) -> npt.NDArray[np.float64]:
    """Spectra [frames, 257] whose squares, added over the bins of a sine, are its power at `FULL_SCALE_DB`."""
    window = np.hanning(FFT)
    sine = np.sqrt(np.square(window).sum() * FFT) / 2  # by Parseval, of amplitude 1
    return np.abs(frames(samples, _HOP)) * (10 ** (FULL_SCALE_DB / 20) / sine)


def _db(power: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return 10 * np.log10(power)


def _bark(hz: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Zwicker and Terhardt (1980), eq. 1."""
    return 13 * np.arctan(0.00076 * hz) + 3.5 * np.arctan(np.square(hz / 7500))


def _hz(barks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    grid = np.linspace(20, RATE / 2, 4000)
    return np.interp(barks, _bark(grid), grid)


def _quiet_db(hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Threshold in quiet in dB of sound pressure level (Terhardt, 1979)."""
    khz = np.maximum(hz, 20) / 1000
    return 3.64 * khz**-0.8 - 6.5 * np.exp(-0.6 * np.square(khz - 3.3)) + 1e-3 * khz**4


_BARKS = _bark(np.fft.rfftfreq(FFT, 1 / RATE))
_BANDS = int(np.ceil(_BARKS[-1]))  # one Bark each
_EDGES = np.array([*np.searchsorted(_BARKS, np.arange(_BANDS)), FFT // 2 + 1])
_CENTRES = np.add.reduceat(_BARKS, _EDGES[:-1]) / np.diff(_EDGES)
