"""What each condition does to a clip: pure functions of samples, with what was added at a stated level.

Every step takes what is heard and what should be heard, [samples] at 16 kHz each, and gives both again. What should be
heard is the speech without what disturbs it; but a lower level, a narrower band and a second talker are part of what a
codec is asked to carry. Speech is measured by its active level (ITU-T P.56), noise by its power over the whole clip.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from linnet.evaluate.conditions.level import active_level, power_level
from linnet.evaluate.metrics import RATE, Samples

_EARLY_S = 0.05  # ISO 3382-1: what comes within 50 ms of the direct sound helps speech (C50)
_RAMP_S = 0.005
_DIRECT_S = 0.003
_SLOPE = 6.0  # the low-pass falls by 60 dB within a sixth of its edge, as an anti-alias filter does


class Pair(NamedTuple):
    """What a codec is given and what it should give back, float64 [samples] at 16 kHz each."""

    heard: npt.NDArray[np.float64]
    wanted: npt.NDArray[np.float64]


def add_noise(pair: Pair, noise: Samples, snr_db: float) -> Pair:
    """With [samples] of noise as long as the speech, its power `snr_db` below the wanted speech's active level."""
    gain = _gain_to(active_level(pair.wanted) - snr_db, power_level(noise))
    return _unclipped(Pair(pair.heard + gain * noise, pair.wanted))


def add_talker(pair: Pair, other: Samples, sir_db: float) -> Pair:
    """With another voice, as long, its active level `sir_db` below; both are wanted."""
    second = _gain_to(active_level(pair.wanted) - sir_db, active_level(other)) * other
    return _unclipped(Pair(pair.heard + second, pair.wanted + second))


def shaped_noise(samples: Samples, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Stationary noise with the long-term spectrum of [samples]: their own, with every phase drawn anew."""
    spectrum = np.fft.rfft(samples)
    return np.fft.irfft(np.abs(spectrum) * np.exp(2j * np.pi * rng.random(len(spectrum))), len(samples))


def in_room(pair: Pair, response: Samples) -> Pair:
    """In a room; its direct sound and the reflections of the first 50 ms stay wanted.

    The response [samples] is used from its peak on, at unit energy of the first 3 ms: neither delay nor distance is tested.
    """
    response = np.asarray(response[int(np.abs(response).argmax()) :], np.float64)
    response = response / max(float(np.sqrt(np.square(response[: round(_DIRECT_S * RATE)]).sum())), 1e-9)
    late = np.maximum(np.arange(len(response)) - round(_EARLY_S * RATE), 0)
    early = response * np.maximum(1 - late / (_RAMP_S * RATE), 0)
    return _unclipped(Pair(convolved(pair.heard, response), convolved(pair.wanted, early)))


def modelled_room(seconds: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A response that falls by 60 dB in `seconds`: one direct sound, and noise that decays exponentially (Polack, 1988).

    Both have the same energy, as at the critical distance from a talker.
    """
    times = np.arange(1, int(1.2 * seconds * RATE)) / RATE
    tail = rng.standard_normal(len(times)) * 10 ** (-3 * times / seconds)
    return np.concatenate([[1.0], tail / np.sqrt(np.square(tail).sum())])


def at_level(pair: Pair, level_dbov: float) -> Pair:
    """With the wanted speech at an active level in dBov; what then passes full scale is clipped, as a converter does it."""
    gain = _gain_to(level_dbov, active_level(pair.wanted))
    return Pair(*(np.clip(gain * samples, -1, 1) for samples in pair))


def low_passed(pair: Pair, edge_hz: float) -> Pair:
    """Without anything above an edge."""

    def filtered(samples: Samples) -> npt.NDArray[np.float64]:
        size = len(samples) + 1024  # room for the filter to ring, or the end would sound in the beginning
        fall_db = 60 * np.clip((np.fft.rfftfreq(size, 1 / RATE) / edge_hz - 1) * _SLOPE, 0, 2)
        return np.fft.irfft(np.fft.rfft(samples, size) * 10 ** (-fall_db / 20), size)[: len(samples)]

    return Pair(*map(filtered, pair))


def _gain_to(wanted_db: float, level_db: float) -> float:
    """What brings one level to another; 0 where one of them is that of silence."""
    difference = wanted_db - level_db
    return 10 ** (difference / 20) if np.isfinite(difference) else 0.0


def _unclipped(pair: Pair) -> Pair:
    """Both as much quieter as the louder needs, so that neither their ratio nor the waveform changes."""
    peak = max(float(np.abs(samples).max(initial=0)) for samples in pair)
    return Pair(*(samples / peak for samples in pair)) if peak > 1 else pair


def convolved(samples: Samples, response: Samples) -> Samples:
    """[samples] as they sound through a response, [samples]."""
    size = 1 << (len(samples) + len(response) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]
