"""Noises made up: what a few recordings lack is not realism but kinds, and a suppressor is asked about noises it never heard.

Three families, after what noises are made of: turbulence (noise whose bands come and go), machines and music (harmonics of a
wandering pitch) and blows (one resonating thing, struck again and again). All numbers are drawn from a generator.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from linnet.evaluate.conditions.steps import convolved

Samples = npt.NDArray[np.float32]


def synthetic(length: int, sample_rate: int, rng: np.random.Generator) -> Samples:
    """Noise of a random family, `[length]`; the level means nothing."""
    family = (turbulence, machine, blows)[rng.integers(3)]
    return family(length, sample_rate, rng).astype(np.float32)


def turbulence(length: int, sample_rate: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Wind, water, traffic: Gaussian noise in bands of an octave, whose levels wander by up to 20 dB, apart or together."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    octave = np.log2(np.maximum(np.fft.rfftfreq(length, 1 / sample_rate), 1.0) / 62.5)
    together, apart = rng.uniform(0, 10, 2)
    rate = rng.uniform(0.5, 12)
    common = together * wander(length, sample_rate, rate, rng)
    total = np.zeros(length)
    for band in range(8):
        inside = np.clip(1 - np.abs(octave - band), 0, 1)
        gain_db = common + apart * wander(length, sample_rate, rate, rng)
        total += np.fft.irfft(spectrum * inside, length) * 10 ** (gain_db / 20)
    return total


def machine(length: int, sample_rate: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Engines, hums, alarms, notes: up to 30 harmonics of a pitch from 25 to 1600 Hz, steady or wandering by up to half an
    octave, swelling at a rate of its own."""
    pitch = np.exp(rng.uniform(np.log(25), np.log(1600)))
    octaves = rng.choice([0.0, 0.01, 0.5]) * wander(length, sample_rate, rng.uniform(0.5, 6), rng)
    turns = np.cumsum(pitch * 2**octaves) / sample_rate
    total = np.zeros(length)
    slope = rng.uniform(0, 2)
    for number in range(1, 1 + min(30, int(0.45 * sample_rate / (pitch * 2 ** octaves.max())))):
        total += rng.uniform(0, 1) * number**-slope * np.sin(2 * np.pi * (number * turns + rng.random()))
    swell = 1 + rng.uniform(0, 1) * np.sin(2 * np.pi * (rng.uniform(0.5, 30) * np.arange(length) / sample_rate + rng.random()))
    return total * swell


def blows(length: int, sample_rate: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Keys, dishes, steps, drops: a few damped modes and a burst of noise, struck 1 to 15 times a second, evenly or not."""
    seconds = np.arange(sample_rate // 2) / sample_rate
    response = (
        rng.uniform(0, 2)
        * rng.standard_normal(len(seconds))
        * np.exp(-seconds / np.exp(rng.uniform(np.log(0.001), np.log(0.05))))
    )
    for _ in range(rng.integers(0, 5)):
        hz, decay_s = np.exp(rng.uniform(np.log((100, 0.003)), np.log((0.45 * sample_rate, 0.2))))
        response += rng.uniform(0, 1) * np.sin(2 * np.pi * hz * seconds) * np.exp(-seconds / decay_s)
    struck = np.zeros(length)
    rate = rng.uniform(1, 15)
    evenly = rng.uniform(0, 1)
    gaps = evenly + (1 - evenly) * rng.exponential(1, int(2 * rate * length / sample_rate) + 8)
    places = ((np.cumsum(gaps) - rng.random()) * sample_rate / rate).astype(int)
    places = places[(places >= 0) & (places < length)]
    struck[places] = rng.uniform(0.2, 1, len(places))
    # A floor, as a clip may have no blow at all.
    return convolved(struck, response) + 1e-3 * rng.standard_normal(length)


def wander(length: int, sample_rate: int, rate: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A curve `[length]` around zero, mostly within -1 and 1, that takes a new turn `rate` times a second."""
    turns = rng.standard_normal(int(length / sample_rate * rate) + 2) / 2
    return np.interp(np.arange(length) * rate / sample_rate, np.arange(len(turns)), turns)
