"""Long gaps: the decoder conceals what is lost, and this fades it to comfort noise when nothing comes for long.

A network that is trained to go on through short losses goes on for ever: left alone with lost frames, `clear` hums at about
-40 dBFS. So after 100 ms its output is faded out within another 100 ms, and noise with the level and the spectrum of the
pauses heard before takes its place, or with the level that the sender tells; when frames come again, the sound is faded in.
Without long gaps no sample is touched.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from linnet.bits import StateError
from linnet.runtime.state import State, taken

Samples = npt.NDArray[np.float32]

HOLD_MS = 100.0
"""How long concealed sound is left as it is: most losses are shorter."""

_FADE_MS = 100.0
_RETURN_MS = 24.0  # longer than the first good frame takes to reach the output, short beside a syllable
_MEMORY_S = 2.0  # of received sound, in which there is most likely a pause
_QUIETEST = 0.1  # of that sound is taken for the noise between words
_SEED = 0
_WORD = (1 << 64) - 1


class GapFade:
    """One stream's fade, frame after frame with the same outcome in any chunks.

    Args:
        hop: samples a frame.
        sample_rate: in Hz.
    """

    def __init__(self, hop: int, sample_rate: int):
        frames_per_ms = sample_rate / hop / 1000
        self.hop = hop
        self.hold = max(1, round(HOLD_MS * frames_per_ms))
        self.fall = 1 / max(1, round(_FADE_MS * frames_per_ms))
        self.rise = 1 / max(1, round(_RETURN_MS * frames_per_ms))
        self.window = np.sqrt(0.5 - 0.5 * np.cos(np.pi * np.arange(2 * hop) / hop))
        self.ramp = np.arange(1, hop + 1) / hop
        self.remembered = max(2, round(_MEMORY_S * sample_rate / hop))
        self.reset()

    def reset(self) -> None:
        """As before the first frame: nothing lost, nothing heard."""
        self.missing = 0  # frames lost in a row
        self.gain = 1.0  # of the decoder's output, at the end of the last frame
        self.heard, self.received = np.zeros((self.remembered, self.hop), np.float32), 0
        self.told: float | None = None  # the root mean square of the noise, if the sender tells it
        self.level: npt.NDArray[np.float64] | None = None  # of the noise's spectrum, known while it sounds
        self.tail = np.zeros(self.hop)  # of the noise, to be added to its next hop
        self.rng = np.random.default_rng(_SEED)

    def save(self) -> State:
        """The state, every name with the prefix "gap_"."""
        generator = self.rng.bit_generator.state["state"]["state"]
        noise = np.zeros((2, self.hop + 1)) if self.level is None else np.stack([self.level, np.append(self.tail, 1.0)])
        return {
            "gap_counts": np.array([self.missing, self.received]),
            "gap_gain": np.array(self.gain),
            "gap_heard": self.heard.copy(),
            "gap_noise": noise,  # the level, and the tail with a 1 behind it if it is known
            "gap_generator": np.array([generator & _WORD, generator >> 64], np.uint64),
        }

    def restore(self, state: State) -> None:
        """Go on from a saved state.

        Raises:
            StateError: if it is not of this hop and rate. The fade is then as it was.
        """
        counts, gain = taken(state, "gap_counts", np.int64, 1), taken(state, "gap_gain", np.float64, 0)
        heard, noise = taken(state, "gap_heard", np.float32, 2), taken(state, "gap_noise", np.float64, 2)
        generator = taken(state, "gap_generator", np.uint64, 1)
        shapes = [counts.shape, heard.shape, noise.shape, generator.shape]
        if shapes != [(2,), self.heard.shape, (2, self.hop + 1), (2,)] or (counts < 0).any() or not 0 <= gain <= 1:
            raise StateError("a saved state whose 'gap_' arrays are no fade's of this hop and sample rate")
        self.missing, self.received = map(int, counts)
        self.gain, self.heard = float(gain), heard
        self.level, self.tail = (noise[0], noise[1, :-1]) if noise[1, -1] else (None, np.zeros(self.hop))
        low, high = map(int, generator)
        whole = self.rng.bit_generator.state
        whole["state"]["state"] = high << 64 | low
        self.rng.bit_generator.state = whole

    def __call__(self, samples: Samples, lost: npt.NDArray[np.bool_]) -> Samples:
        """The decoder's next frames.

        Args:
            samples: float32 `[frames * hop]`.
            lost: bool `[frames]`, true for those of which nothing arrived.

        Returns:
            `[frames * hop]`: `samples` itself where no gap is long.
        """
        if len(lost) == 0:
            return samples
        frames = samples.reshape(-1, self.hop)
        if not lost.any() and self.gain == 1:
            self.missing = 0
            self._remember(frames)
            return samples
        return np.concatenate([self._frame(frame, gone) for frame, gone in zip(frames, lost.tolist(), strict=True)])

    def tell(self, level: float | None) -> None:
        """The root mean square that the noise is to have from now on; None for that of what was heard. No part of the state."""
        self.told = level
        if self.level is not None:
            self.level = self._noise_level()

    def _frame(self, frame: Samples, gone: bool) -> Samples:
        self.missing = self.missing + 1 if gone else 0
        if not gone:
            self._remember(frame[np.newaxis])
        before = self.gain
        if self.missing > self.hold:
            self.gain = max(0.0, before - self.fall)
        elif not gone:
            self.gain = min(1.0, before + self.rise)
        if before == self.gain == 1:
            return frame
        gains = before + (self.gain - before) * self.ramp
        faded = gains * frame + np.sqrt(1 - gains**2) * self._noise()
        if self.gain == 1:
            self.level = None
        return faded.astype(np.float32)

    def _remember(self, frames: Samples) -> None:
        """Keep the newest frames, in a ring: order does not matter."""
        frames = frames[-len(self.heard) :]
        if len(frames) == 1:
            self.heard[self.received % len(self.heard)] = frames[0]
        else:
            self.heard[(self.received + np.arange(len(frames))) % len(self.heard)] = frames
        self.received += len(frames)

    def _noise(self) -> npt.NDArray[np.float64]:
        """The next hop of comfort noise: random spectra of a steady level, overlapped and added."""
        if self.level is None:
            self.level, self.tail = self._noise_level(), np.zeros(self.hop)
        shape = (2, len(self.level))
        real, imaginary = self.rng.standard_normal(shape)
        block = self.window * np.fft.irfft(self.level * (real + 1j * imaginary))
        hop, self.tail = self.tail + block[: self.hop], block[self.hop :]
        return hop

    def _noise_level(self) -> npt.NDArray[np.float64]:
        """The standard deviation of each bin's real and imaginary part, `[hop + 1]`, in the quietest of what was heard.

        Each of those frames stands alone, since its neighbours in the ring need not have been its neighbours in time.
        """
        heard = self.heard[: min(self.received, len(self.heard))].astype(np.float64)
        if len(heard) == 0:
            return np.zeros(self.hop + 1)
        energy = (heard**2).sum(axis=1)
        quietest = heard[np.argsort(energy, kind="stable")[: max(1, round(_QUIETEST * len(heard)))]]
        # A window of one hop, its squares sum to hop / 2; spectra of 2 * hop samples of noise have 2 * hop times its power,
        # half of it in each part.
        power = np.abs(np.fft.rfft(quietest * self.window[::2], 2 * self.hop, axis=1)) ** 2
        level = np.sqrt(2 * power.mean(axis=0))
        if self.told is None or not level.any():
            return level
        # Parseval: all bins but the first and the last stand for two, and have a real and an imaginary part.
        return self.told * level * 2 * self.hop / np.sqrt(4 * np.square(level).sum() - 3 * (level[0] ** 2 + level[-1] ** 2))
