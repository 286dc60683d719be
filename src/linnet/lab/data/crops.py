"""Random crops of packed speech, changed afresh every time: new speeds, levels and backgrounds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import soxr

from linnet.lab.data.corpus import Packed
from linnet.lab.data.degrade import DegradeConfig, Degrader


@dataclass(frozen=True)
class CropConfig:
    """What a training example is and how it is varied.

    Noise at `snr_db` below the speech belongs to the scene: the codec is to keep it. What `degrade` adds it is to remove.
    """

    frames: int = 64
    speed: tuple[float, float] = (0.85, 1.18)
    speed_probability: float = 0.5
    level_db: tuple[float, float] = (-45.0, -12.0)
    noise_probability: float = 0.1
    snr_db: tuple[float, float] = (5.0, 30.0)
    degrade: DegradeConfig = field(default_factory=DegradeConfig)


@dataclass(frozen=True)
class Batch:
    """What the codec hears and what it is to give back, float32 `[batch, frames * hop]` each, and the pitch in Hz
    `[batch, frames]` (0 where unvoiced)."""

    samples: np.ndarray
    target: np.ndarray
    pitch_hz: np.ndarray


class CropSampler:
    """Draws batches; the same seed, step and place in the batch always give the same crop.

    Pitch labels stand `offset` samples after the start of a frame, and come `lookahead` frames late.
    """

    def __init__(
        self, speech: Packed, noise: Packed | None, config: CropConfig, hop: int, offset: int, seed: int,
        rooms: Packed | None = None, lookahead: int = 0,
    ):  # fmt: skip
        self.speech, self.noise, self.config = speech, noise, config
        self.degrader = Degrader(config.degrade, speech, noise, rooms) if config.degrade.active else None
        self.lead = round(Degrader.lead_s * speech.sample_rate / hop) * hop if self.degrader else 0
        self.hop, self.offset, self.seed, self.lookahead = hop, offset, seed, lookahead
        lengths = np.diff(speech.offsets).astype(np.float64)
        self.cumulative = np.cumsum(lengths / lengths.sum())

    def batch(self, size: int, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Crops `rank`, `rank + world`, ... of a batch of `size`, drawn in proportion to the recordings' lengths."""
        crops = [self._crop(np.random.default_rng((self.seed, step, place))) for place in range(rank, size, world)]
        return Batch(*(np.stack(parts) for parts in zip(*crops, strict=True)))

    def _crop(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        config, length = self.config, self.lead + self.config.frames * self.hop
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
        frames = np.arange(config.frames) - self.lookahead
        places = (self.lead + frames * self.hop + self.offset) * speed + start
        rows = np.round((places - self.offset) / self.hop).astype(int)
        inside = (rows >= 0) & (rows < len(labels))
        pitch = np.where(inside, labels[np.clip(rows, 0, len(labels) - 1)], 0) * speed
        return *self._dress(samples, rng), pitch.astype(np.float32)

    def _dress(self, clean: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        config = self.config
        level = np.sqrt(np.mean(clean**2) + 1e-12)
        if self.noise is not None and rng.random() < config.noise_probability:
            background = self._background(len(clean), rng)
            wanted = level * 10 ** (-rng.uniform(*config.snr_db) / 20)
            clean = clean + background * wanted / np.sqrt(np.mean(background**2) + 1e-12)
        heard, target = self.degrader(clean, rng) if self.degrader else (clean, clean)
        heard, target = heard[self.lead :], target[self.lead :]
        # A crop of silence is not blown up into noise at the level of speech.
        gain = 10 ** (rng.uniform(*config.level_db) / 20) / max(level, 3e-3)
        gain /= max(np.abs(heard).max() * gain, np.abs(target).max() * gain, 1.0)
        return (heard * gain).astype(np.float32), (target * gain).astype(np.float32)

    def _background(self, length: int, rng: np.random.Generator) -> np.ndarray:
        assert self.noise is not None
        recording = self.noise.samples(int(rng.integers(len(self.noise))))
        start = int(rng.integers(0, max(len(recording) - length, 0) + 1))
        return np.resize(recording[start : start + length], length)
