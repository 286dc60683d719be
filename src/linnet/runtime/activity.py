"""Voice activity: which frames of a signal are louder than its background, and how loud that is.

The background is the least that each of some bands has had in the last two seconds (R. Martin, "Spectral subtraction based on
minimum statistics", 1994): a voice pauses in every band, a fan does not. So nothing is learnt, any steady noise is background
after two seconds, and so is a steady tone.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from linnet.runtime.audio import Samples

_EDGES_HZ = (100, 500, 1000, 2000, 4000)  # where each band begins; the last one has the rest
_MEMORY_S = 2.0  # longer than a band of speech is without a pause
_KEPT = 0.6  # of a band's power from frame to frame: 180 dB a second, and noise varies by 1.4 dB in the lowest band
_ABOVE = 10.0  # the ratio of power to the least power, 10 dB, that steady noise has not
_SILENCE = 1e-8  # a power of -80 dBFS in a band, under which nothing sounds
_TAIL_S = 0.1  # after the last sound, in which it fades away
_LEVEL_S = 0.5  # of a pause, over which the background's power is averaged


class ActivityDetector:
    """One stream's detector.

    Args:
        hop: samples a frame.
        sample_rate: in Hz.

    Attributes:
        background: root mean square of the last half second, as far as nothing sounded in it; 0 where something sounds.
    """

    def __init__(self, hop: int, sample_rate: int):
        self._window = np.sqrt(2 / (hop * np.square(np.hanning(hop)).sum())) * np.hanning(hop)
        edges = np.searchsorted(np.fft.rfftfreq(hop, 1 / sample_rate), _EDGES_HZ)
        self._edges = np.unique(edges[edges < hop // 2 + 1])
        self._tail, self._longest = (max(1, round(seconds * sample_rate / hop)) for seconds in (_TAIL_S, _LEVEL_S))
        self._memory = max(1, round(_MEMORY_S * sample_rate / hop))
        self.reset()

    def reset(self) -> None:
        """As before the first frame."""
        self._powers: npt.NDArray[np.float64] | None = None  # of the bands, smoothed
        self._recent: deque[npt.NDArray[np.float64]] = deque(maxlen=self._memory)
        self._still = 0  # frames since the last sound
        self.background = 0.0

    def __call__(self, samples: Samples) -> bool:
        """Whether the next frame, float32 `[hop]`, sounds."""
        spectrum = np.square(np.abs(np.fft.rfft(samples * self._window)))
        powers = np.add.reduceat(spectrum, self._edges) + _SILENCE
        self._powers = powers if self._powers is None else _KEPT * self._powers + (1 - _KEPT) * powers
        self._recent.append(self._powers)
        if bool((self._powers > _ABOVE * np.min(self._recent, axis=0)).any()):
            self._still, self.background = 0, 0.0
            return True
        self._still += 1
        share = 1 / min(max(1, self._still - self._tail), self._longest)
        power = np.mean(np.square(samples, dtype=np.float64))
        self.background = float(np.sqrt((1 - share) * self.background**2 + share * power))
        return False
