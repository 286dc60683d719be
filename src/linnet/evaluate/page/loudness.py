"""How loud a recording sounds, by ITU-R BS.1770-4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from linnet.evaluate.metrics import RATE, Samples

_BLOCK, _HOP = int(0.4 * RATE), int(0.1 * RATE)
_LOUDNESS_LUFS = -23.0  # EBU R 128; low enough that no clip of speech is turned up into clipping
_PEAK = 0.99
_DESIGN_RATE = 48_000
# Annex 1, tables 1 and 2: the head's shelf and the high-pass, each b and a, at 48 kHz
_STAGES = (
    ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)


def equal_gains(versions: Sequence[Samples]) -> list[float]:
    """What brings recordings [samples] at 16 kHz to one loudness of -23 LUFS, or as much below as the loudest peak needs."""
    levels = [loudness(samples) for samples in versions]
    gains = [10 ** ((_LOUDNESS_LUFS - level) / 20) if np.isfinite(level) else 1.0 for level in levels]  # silence stays
    # where one would clip, all are as much quieter: they are to be compared
    loudest = max(gain * float(np.abs(samples).max(initial=0)) for gain, samples in zip(gains, versions, strict=True))
    room = min(1.0, _PEAK / max(loudest, 1e-9))
    return [float(gain * room) for gain in gains]


def loudness(samples: Samples) -> float:
    """Integrated loudness of [samples] at 16 kHz in LUFS: K-weighted, gated at -70 LUFS and 10 LU below what is left.

    The filters' magnitudes at 48 kHz are applied to the whole spectrum, because only levels matter.

    Returns:
        The loudness; -inf for silence. What is shorter than a block of 400 ms counts as one block.
    """
    spectrum = np.fft.rfft(np.pad(samples, (0, max(0, _BLOCK - len(samples)))))
    n = 2 * (len(spectrum) - 1)
    weighted = np.fft.irfft(spectrum * _weights(np.fft.rfftfreq(n, 1 / RATE)), n)
    power = np.square(np.lib.stride_tricks.sliding_window_view(weighted, _BLOCK)[::_HOP]).mean(axis=1)
    loud = power[_lufs(power) > -70]
    if len(loud) == 0:
        return -np.inf
    loud = loud[_lufs(loud) > _lufs(loud.mean()) - 10]
    return float(_lufs(loud.mean()))


def _weights(hz: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    delay = np.exp(-2j * np.pi * hz / _DESIGN_RATE)
    gain = np.ones(len(hz))
    for over, under in _STAGES:
        gain *= np.abs(np.polyval(over[::-1], delay) / np.polyval(under[::-1], delay))
    return gain


def _lufs(power: npt.NDArray[np.float64] | np.float64) -> npt.NDArray[np.float64] | np.float64:
    return -0.691 + 10 * np.log10(np.maximum(power, 1e-12))
