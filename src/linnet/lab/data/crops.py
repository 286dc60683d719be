"""Random crops of packed speech, changed afresh every time: new speeds, levels and backgrounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr

from linnet.lab.data.corpus import Packed


@dataclass(frozen=True)
class CropConfig:
    """What a training example is and how it is varied."""

    frames: int = 64
    speed: tuple[float, float] = (0.85, 1.18)
    speed_probability: float = 0.5
    level_db: tuple[float, float] = (-45.0, -12.0)
    noise_probability: float = 0.1
    snr_db: tuple[float, float] = (5.0, 30.0)


@dataclass(frozen=True)
class Batch:
    """Float32 samples `[batch, frames * hop]` and pitch in Hz `[batch, frames]` (0 where unvoiced)."""

    samples: np.ndarray
    pitch_hz: np.ndarray


class CropSampler:
    """Draws batches for one process; the same seed, rank and step always give the same batch."""

    def __init__(self, speech: Packed, noise: Packed | None, config: CropConfig, hop: int, offset: int, seed: int):
        self.speech, self.noise, self.config = speech, noise, config
        self.hop, self.offset, self.seed = hop, offset, seed
        lengths = np.diff(speech.offsets).astype(np.float64)
        self.cumulative = np.cumsum(lengths / lengths.sum())

    def batch(self, size: int, step: int, rank: int = 0) -> Batch:
        """`size` crops, drawn in proportion to the recordings' lengths."""
        rng = np.random.default_rng((self.seed, step, rank))
        crops = [self._crop(rng) for _ in range(size)]
        return Batch(np.stack([samples for samples, _ in crops]), np.stack([pitch for _, pitch in crops]))

    def _crop(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        config, length = self.config, self.config.frames * self.hop
        index = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.speech) - 1)
        speed = float(np.exp(rng.uniform(*np.log(config.speed)))) if rng.random() < config.speed_probability else 1.0
        recording, labels = self.speech.samples(index), self.speech.pitch_of(index)
        needed = int(np.ceil(length * speed)) + self.hop
        start = int(rng.integers(0, max(len(recording) - needed, 0) // self.hop + 1)) * self.hop
        piece = recording[start : start + needed]
        if speed != 1.0:
            piece = soxr.resample(piece, speed, 1.0, quality="MQ")
        samples = np.pad(piece[:length], (0, max(length - len(piece), 0)))
        # Label t stands at sample t * hop + offset of its own recording: look up where that was before the change of speed.
        places = (np.arange(config.frames) * self.hop + self.offset) * speed + start
        rows = np.round((places - self.offset) / self.hop).astype(int)
        inside = (rows >= 0) & (rows < len(labels))
        pitch = np.where(inside, labels[np.clip(rows, 0, len(labels) - 1)], 0) * speed
        return self._dress(samples, rng), pitch.astype(np.float32)

    def _dress(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        config = self.config
        level = np.sqrt(np.mean(samples**2) + 1e-12)
        if self.noise is not None and rng.random() < config.noise_probability:
            background = self._background(len(samples), rng)
            wanted = level * 10 ** (-rng.uniform(*config.snr_db) / 20)
            samples = samples + background * wanted / np.sqrt(np.mean(background**2) + 1e-12)
        # A crop of silence is not blown up into noise at the level of speech.
        gain = 10 ** (rng.uniform(*config.level_db) / 20) / max(level, 3e-3)
        peak = np.abs(samples).max() * gain
        return (samples * (gain / max(peak, 1.0))).astype(np.float32)

    def _background(self, length: int, rng: np.random.Generator) -> np.ndarray:
        assert self.noise is not None
        recording = self.noise.samples(int(rng.integers(len(self.noise))))
        start = int(rng.integers(0, max(len(recording) - length, 0) + 1))
        return np.resize(recording[start : start + length], length)
