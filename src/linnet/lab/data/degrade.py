"""Degradations: what rooms, noise, microphones and lines do to speech, drawn afresh for every crop, with the clean target.

Everything is drawn from a random generator that the caller seeds, so a step of training hears the same crop on every run.
Filters act on whole pieces in the frequency domain; pieces begin before the crop, so that a room rings from what came before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from linnet.evaluate.conditions.steps import convolved
from linnet.lab.data.corpus import Packed
from linnet.lab.data.noises import synthetic

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DegradeConfig:
    """How often each degradation strikes, and in which range. All zero, as by default, leaves speech clean.

    Noise: `noises` sources at most at once, together at `snr_db` below the speech: recordings played at a random speed, for
    shares of them a crowd of 3 to 8 voices, Gaussian noise, or one that `linnet.lab.data.noises` makes up, each coloured at
    random; `reversed_share` of the recordings are played backwards, `noise_room_share` of all sources sound in a room. Room:
    a measured response, made to decay faster by up to `room_damping_db_s`, of whose reflections `early_ms` stay in the
    target. With `noise_or_room` these two are one choice, and no clip has both. Babble: a second voice at `babble_snr_db`.
    Band: low-pass between the limits, in Hz. Colour: a smooth random response within `colour_db`. Gain: a sudden step within
    `gain_db`. Clip: the loudest share within `clip_share` is cut off. Line: 8-bit mu-law companding.
    """

    noise_probability: float = 0.0
    snr_db: tuple[float, float] = (-5.0, 30.0)
    noises: int = 3
    noise_speed: tuple[float, float] = (0.7, 1.5)
    noise_colour_db: float = 10.0
    crowd_share: float = 0.0
    gaussian_share: float = 0.0
    synthetic_share: float = 0.0
    reversed_share: float = 0.0
    noise_room_share: float = 0.0
    room_probability: float = 0.0
    room_damping_db_s: float = 0.0
    early_ms: float = 50.0
    noise_or_room: bool = False
    babble_probability: float = 0.0
    babble_snr_db: tuple[float, float] = (5.0, 25.0)
    band_probability: float = 0.0
    band_hz: tuple[float, float] = (3000.0, 7500.0)
    colour_probability: float = 0.0
    colour_db: float = 6.0
    gain_probability: float = 0.0
    gain_db: tuple[float, float] = (-12.0, 12.0)
    clip_probability: float = 0.0
    clip_share: tuple[float, float] = (0.0005, 0.02)
    line_probability: float = 0.0

    @property
    def active(self) -> bool:
        """Whether anything can strike."""
        return any(getattr(self, field.name) > 0 for field in fields(self) if field.name.endswith("_probability"))


class Degrader:
    """Degrades pieces of clean speech with recordings of the corpus."""

    # Speech before the crop that a room still hears.
    lead_s = 0.5

    def __init__(self, config: DegradeConfig, speech: Packed, noise: Packed | None, rooms: Packed | None):
        if config.noise_probability > 0 and noise is None:
            raise ValueError("the recipe asks for noise, but the corpus has none in its train split")
        if (config.room_probability > 0 or config.noise_room_share > 0) and rooms is None:
            raise ValueError("the recipe asks for rooms, but the corpus has no room responses (kind rir) in its train split")
        self.config, self.speech, self.noise, self.rooms = config, speech, noise, rooms
        self.sample_rate = speech.sample_rate

    def __call__(self, clean: Samples, rng: np.random.Generator) -> tuple[Samples, Samples]:
        """Clean `[samples]` -> degraded and target, `[samples]` each."""
        config = self.config

        def strikes(probability: float) -> bool:
            return bool(rng.random() < probability)

        heard = target = clean
        in_a_room = strikes(config.room_probability)
        # What is left of the probability once the other was not chosen.
        in_noise = config.noise_probability
        if config.noise_or_room:
            in_noise = 0.0 if in_a_room else min(in_noise / max(1 - config.room_probability, 1e-9), 1.0)
        if in_a_room:
            heard, target = self._in_a_room(clean, rng)
        level = _level(target)
        if strikes(config.babble_probability):
            heard = heard + self._excerpt(self.speech, len(heard), rng, level, config.babble_snr_db)
        if strikes(in_noise):
            heard = heard + self._noise(len(heard), rng, level)
        if strikes(config.colour_probability):
            heard = self._coloured(heard, rng, config.colour_db)
        if strikes(config.gain_probability):
            heard = heard.copy()
            heard[rng.integers(len(heard)) :] *= 10 ** (rng.uniform(*config.gain_db) / 20)
        if strikes(config.clip_probability):
            limit = np.quantile(np.abs(heard), 1 - rng.uniform(*config.clip_share))
            heard = np.clip(heard, -limit, limit)
        if strikes(config.band_probability):
            heard = self._low_passed(heard, rng.uniform(*config.band_hz))
        if strikes(config.line_probability):
            heard = _companded(heard)
        return heard.astype(np.float32), target.astype(np.float32)

    def _in_a_room(self, clean: Samples, rng: np.random.Generator) -> tuple[Samples, Samples]:
        response = self._room(rng)
        early = round(self.config.early_ms * self.sample_rate / 1000)
        fade = np.ones(len(response), np.float32)
        ramp = round(0.005 * self.sample_rate)
        fade[early:] = np.maximum(1 - np.arange(max(len(response) - early, 0)) / ramp, 0)
        return convolved(clean, response), convolved(clean, response * fade)

    def _room(self, rng: np.random.Generator) -> Samples:
        """A room's response, from the direct sound on and at unit energy of its first 3 ms: neither delay nor distance is to be
        learned."""
        assert self.rooms is not None
        response = self.rooms.samples(int(rng.integers(len(self.rooms))))
        response = response[int(np.abs(response).argmax()) :]
        direct = np.sqrt(np.square(response[: round(0.003 * self.sample_rate)]).sum())
        response = response / max(direct, 1e-6)
        seconds = np.arange(len(response), dtype=np.float32) / self.sample_rate
        return response * 10 ** (-rng.uniform(0, self.config.room_damping_db_s) / 20 * seconds)

    def _noise(self, length: int, rng: np.random.Generator, level: float) -> Samples:
        assert self.noise is not None
        parts = []
        for _ in range(rng.integers(1, self.config.noises + 1)):
            part = self._source(length, rng)
            if self.config.noise_room_share and rng.random() < self.config.noise_room_share:
                part = convolved(part, self._room(rng))
            part = self._coloured(part, rng, self.config.noise_colour_db)
            parts.append(part * (10 ** (-rng.uniform(0.0, 10.0) / 20) / _level(part)))
        total = np.sum(parts, axis=0)
        return (total * level * 10 ** (-rng.uniform(*self.config.snr_db) / 20) / _level(total)).astype(np.float32)

    def _source(self, length: int, rng: np.random.Generator) -> Samples:
        """Recordings of noise are few: speed and colour make more of them, crowds, Gaussian and synthetic noise others."""
        assert self.noise is not None
        which = rng.random()
        if which < self.config.crowd_share:
            voices = [self._excerpt(self.speech, length, rng, 1.0, (0.0, 6.0)) for _ in range(rng.integers(3, 9))]
            return np.sum(voices, axis=0, dtype=np.float32)
        if which < self.config.crowd_share + self.config.gaussian_share:
            return rng.standard_normal(length, np.float32)
        if which < self.config.crowd_share + self.config.gaussian_share + self.config.synthetic_share:
            return synthetic(length, self.sample_rate, rng)
        speed = rng.uniform(*self.config.noise_speed)
        piece = self._excerpt(self.noise, int(length * speed) + 2, rng, 1.0, (0.0, 0.0))
        if self.config.reversed_share and rng.random() < self.config.reversed_share:
            piece = piece[::-1]
        # Linear interpolation: what it adds to noise is noise.
        return np.interp(np.arange(length) * speed, np.arange(len(piece)), piece).astype(np.float32)

    def _excerpt(
        self, source: Packed, length: int, rng: np.random.Generator, level: float, snr_db: tuple[float, float]
    ) -> Samples:
        """A random piece of a random recording, repeated where it is short, at `snr_db` below `level`."""
        recording = source.samples(int(rng.integers(len(source))))
        start = int(rng.integers(0, max(len(recording) - length, 0) + 1))
        piece = np.resize(recording[start : start + length], length)
        return (piece * (level * 10 ** (-rng.uniform(*snr_db) / 20) / _level(piece))).astype(np.float32)

    def _coloured(self, x: Samples, rng: np.random.Generator, colour_db: float) -> Samples:
        octaves = np.log2([60, 125, 250, 500, 1000, 2000, 4000, 8000])
        gains = rng.uniform(-colour_db, colour_db, len(octaves))
        return self._filtered(x, lambda hz: np.interp(np.log2(np.maximum(hz, 1.0)), octaves, gains))

    def _low_passed(self, x: Samples, edge: float) -> Samples:
        # 60 dB down within a sixth of the edge, as an anti-alias filter does it.
        return self._filtered(x, lambda hz: -60 * np.clip((hz / edge - 1) * 6, 0, 1))

    def _filtered(self, x: Samples, response_db: Callable[[np.ndarray], np.ndarray]) -> Samples:
        size = len(x) + 1024
        gains = 10 ** (response_db(np.fft.rfftfreq(size, 1 / self.sample_rate)) / 20)
        return np.fft.irfft(np.fft.rfft(x, size) * gains, size)[: len(x)].astype(np.float32)


def _companded(x: Samples) -> Samples:
    """8-bit mu-law (ITU-T G.711's curve), with the loudest sample at full scale."""
    peak = max(float(np.abs(x).max()), 1e-6)
    steps = np.round(127 * np.sign(x) * np.log1p(255 * np.abs(x) / peak) / np.log(256)) / 127
    return (np.sign(steps) * np.expm1(np.abs(steps) * np.log(256)) / 255 * peak).astype(np.float32)


def _level(x: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(x)) + 1e-12))
