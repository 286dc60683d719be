"""The active level of speech, by ITU-T P.56: how loud it is where there is speech, whatever the pauses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from linnet.evaluate.metrics import RATE, Samples

_TIME_S = 0.03  # of each of the two exponential averages of the envelope
_HANGOVER_S = 0.2
_MARGIN_DB = 15.9
_THRESHOLDS = 2.0 ** np.arange(-16, 0)  # of the envelope, 6 dB apart, for full scale 1.0


def active_level(samples: Samples) -> float:
    """Active speech level of [samples] at 16 kHz in dBov (a square wave of full scale is 0), by method B of ITU-T P.56.

    A threshold of the envelope divides activity (with 200 ms of hangover) from pauses; the level is the energy over the
    active time, at the threshold that lies 15.9 dB below that level itself.

    Returns:
        The level; -inf where the envelope never passes -96 dBov.
    """
    energy = float(np.square(samples, dtype=np.float64).sum())
    envelope = _envelope(samples)
    active = np.array([_active_samples(envelope, threshold) for threshold in _THRESHOLDS])
    known = active > 0
    if energy <= 0 or not known.any():
        return float("-inf")
    levels = 10 * np.log10(energy / active[known])
    over = levels - 20 * np.log10(_THRESHOLDS[known]) - _MARGIN_DB  # falls as the threshold rises
    if over[-1] > 0 or over[0] <= 0:  # no crossing: the loudest, or the lowest, threshold is the nearest
        return float(levels[-1] if over[-1] > 0 else levels[0])
    at = int((over <= 0).argmax())
    share = over[at - 1] / (over[at - 1] - over[at])
    return float(levels[at - 1] + share * (levels[at] - levels[at - 1]))


def power_level(samples: Samples) -> float:
    """Level of [samples] in dBov over their whole length, as noise is measured; -inf for nothing but zeros."""
    power = float(np.square(samples, dtype=np.float64).mean()) if len(samples) else 0.0
    return 10 * float(np.log10(power)) if power > 0 else float("-inf")


def _envelope(samples: Samples) -> npt.NDArray[np.float64]:
    """|samples| through two averages in a row (P.56, 7.2.2), [samples]."""
    keep = float(np.exp(-1 / (_TIME_S * RATE)))
    first = second = 0.0
    envelope = np.empty(len(samples))
    for at, value in enumerate(np.abs(np.asarray(samples, np.float64)).tolist()):  # a recursion has no array form
        first = keep * first + (1 - keep) * value
        second = keep * second + (1 - keep) * first
        envelope[at] = second
    return envelope


def _active_samples(envelope: npt.NDArray[Any], threshold: float) -> int:
    """Samples at which the envelope is above, or was within the hangover."""
    places = np.arange(len(envelope))
    last = np.maximum.accumulate(np.where(envelope >= threshold, places, -len(envelope) - RATE))
    return int((places - last <= _HANGOVER_S * RATE).sum())
