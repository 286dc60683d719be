"""Pitch as the codec sends it: labels for training, and the integer scale on which it is quantized."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PitchLabels:
    """Where the labels of a recording stand.

    Label t belongs to the sample `t * hop + offset`: for a causal analysis that is the middle of the window whose last
    sample is the last of frame t, so `offset = hop - window / 2`.
    """

    hop: int
    offset: int
    lowest_hz: float = 55.0
    highest_hz: float = 650.0


def label_pitch(samples: np.ndarray, sample_rate: int, labels: PitchLabels) -> np.ndarray:
    """Pitch in Hz at every frame, 0 where unvoiced: DIO refined by StoneMask (Morise et al., WORLD).

    Takes float `[samples]`, returns float32 `[ceil(samples / hop)]`. Both look ahead: this is for training data.
    """
    with warnings.catch_warnings():  # of pyworld's own import of pkg_resources, which nobody here can mend
        warnings.simplefilter("ignore")
        import pyworld  # heavy, and needed only where a corpus is packed

    frames = -(-len(samples) // labels.hop)
    # DIO labels sample t * hop of what it is given, so the recording is moved by the offset.
    shifted = np.pad(samples.astype(np.float64), (max(-labels.offset, 0), 0))[max(labels.offset, 0) :]
    period_ms = 1000 * labels.hop / sample_rate
    coarse, times = pyworld.dio(shifted, sample_rate, labels.lowest_hz, labels.highest_hz, frame_period=period_ms)
    refined = pyworld.stonemask(shifted, coarse, times, sample_rate).astype(np.float32)
    refined[(refined < labels.lowest_hz) | (refined > labels.highest_hz)] = 0
    return np.pad(refined, (0, max(frames - len(refined), 0)))[:frames]


@dataclass(frozen=True)
class PitchScale:
    """A logarithmic scale of integer pitch steps, the only pitch that encoder and decoder know.

    Step s stands for `lowest_hz * 2 ** (s / steps_per_octave)`, s from 0 to `n_steps - 1`.
    """

    lowest_hz: float = 60.0
    steps_per_octave: int = 30
    n_steps: int = 96

    def frequencies(self) -> np.ndarray:
        """Hz of every step, float64 `[n_steps]`."""
        return self.lowest_hz * 2.0 ** (np.arange(self.n_steps) / self.steps_per_octave)

    def quantize(self, pitch_hz: np.ndarray) -> np.ndarray:
        """The nearest step of each pitch, int64, -1 where `pitch_hz` is 0 (unvoiced)."""
        octaves = np.log2(np.maximum(pitch_hz, 1.0) / self.lowest_hz)
        steps = np.clip(np.round(octaves * self.steps_per_octave), 0, self.n_steps - 1).astype(np.int64)
        return np.where(pitch_hz > 0, steps, -1)
