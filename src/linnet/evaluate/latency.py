"""Latency of a codec: by arithmetic from its layers, and measured from what it does.

LRAC counts buffering and algorithmic latency, not processing time: the hop that must be collected, the right context of
every layer that looks ahead, and, for an overlap-add synthesis, the part of the window beyond the hop.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Codec = Callable[[Array], Array]  # samples [T * hop] -> the stream decoder's samples [T * hop], nothing dropped
ENVELOPE_MS = 5.0  # shorter than a phoneme, longer than a pitch period of 200 Hz
MAX_LAG_MS = 250.0
CLEAR = 0.5  # normalised correlation of envelopes that marks an alignment
CLEAR_WAVEFORM = 0.8  # that of waveforms; lower ones may well be a pitch period off
FRAMES_BEFORE = 24  # history before the first change, so that the states are in use


@dataclass(frozen=True)
class LookAhead:
    """A layer's right context: `steps` of its own axis, each of `step` samples of the audio."""

    steps: int
    step: int


def analytic_latency(hop: int, look_ahead: Iterable[LookAhead] = (), window: int | None = None) -> int:
    """Buffering and algorithmic latency in samples.

    Args:
        hop: samples a frame, which must all arrive before the frame can be coded.
        look_ahead: every layer that is not causal, in the encoder and in the decoder.
        window: samples of the synthesis window, if the decoder overlaps and adds.

    >>> analytic_latency(192, window=480)
    480
    """
    overlap = 0 if window is None else window - hop
    return hop + sum(layer.steps * layer.step for layer in look_ahead) + overlap


@dataclass(frozen=True)
class MeasuredLatency:
    """What a codec's own output says of its latency, in samples.

    Attributes:
        reach: how early a change in the input is heard, on the stream's own axis: the most samples, over all positions
            in a frame, from the first output sample that changes to the first input sample that did, that one
            included. A causal graph reaches no further than the hop. None when no change was ever heard, or when the
            codec is not repeatable.
        lag: by how much the output trails the input on that axis, from their correlation; None when it is not clear,
            as for a model that has not been trained.
        lag_exact: the waveforms correlate; otherwise only the envelopes do, and `lag` is good to a few milliseconds.
        repeatable: the same input gives the same output twice.
        hop: samples a frame.
    """

    reach: int | None
    lag: int | None
    lag_exact: bool
    repeatable: bool
    hop: int

    def total(self, lag: int) -> int:
        """Samples from a sound to its reproduction: a hop of buffering (more, if the graph reads ahead) and `lag`."""
        return max(self.hop, self.reach or 0) + lag


def speech_like(samples: int, sample_rate: int, seed: int = 0) -> Array:
    """Syllables of a gliding pulse train through one resonance, between pauses: what a speech codec can follow."""
    rng = np.random.default_rng(seed)
    signal = np.zeros(samples)
    start = 0
    while start < samples:
        length = int(rng.uniform(0.08, 0.25) * sample_rate)
        time = np.arange(length) / sample_rate
        pitch = rng.uniform(90, 220) * (1 + rng.uniform(-0.6, 0.6) * time)
        pulses = np.diff(np.floor(np.cumsum(pitch) / sample_rate), prepend=0.0)
        decay = np.exp(-time * 300) * np.cos(2 * np.pi * rng.uniform(300, 1500) * time)
        voiced = np.convolve(pulses, decay)[:length]
        syllable = (voiced + 0.02 * rng.standard_normal(length)) * np.sin(np.pi * time / time[-1])
        fits = min(length, samples - start)
        signal[start : start + fits] = syllable[:fits]
        start += length + int(rng.uniform(0.02, 0.12) * sample_rate)
    return (0.3 * signal / np.max(np.abs(signal))).astype(np.float32)


def measure(codec: Codec, sample_rate: int, hop: int) -> MeasuredLatency:
    """Measure a codec's reach and lag with synthetic speech."""
    samples = hop * max(2 * FRAMES_BEFORE, round(4 * sample_rate / hop))
    signal = speech_like(samples, sample_rate)
    output = codec(signal)
    repeatable = np.array_equal(output, codec(signal))
    reach = measure_reach(codec, sample_rate, hop) if repeatable else None
    lag, exact = measure_lag(signal, output, sample_rate)
    return MeasuredLatency(reach, lag, exact, repeatable, hop)


def measure_reach(codec: Codec, sample_rate: int, hop: int, seeds: int = 3) -> int | None:
    """Change the input from sample n on and find the first output sample that changes, for n all over a frame.

    The changed part is noise, each time another: a quantizer may well give the same code to one change. The codec must
    be repeatable. Returns the reach as `MeasuredLatency` has it, None when no change was ever heard.
    """
    before = speech_like(hop * 2 * FRAMES_BEFORE, sample_rate)
    reference = codec(before)
    offsets = sorted({0, 1, hop // 4, hop // 2, 3 * hop // 4, hop - 2, hop - 1} & set(range(hop)))
    reaches = []
    for seed in range(seeds):
        noise = np.random.default_rng(seed).uniform(-0.9, 0.9, before.size).astype(np.float32)
        for offset in offsets:
            position = FRAMES_BEFORE * hop + offset
            changed = np.concatenate([before[:position], noise[position:]])
            heard = np.flatnonzero(codec(changed) != reference)
            if heard.size:
                reaches.append(position - int(heard[0]) + 1)
    return max(reaches, default=None)


def measure_lag(signal: Array, output: Array, sample_rate: int) -> tuple[int | None, bool]:
    """Samples by which `output` trails `signal`, and whether the waveforms themselves say so."""
    window = max(1, round(ENVELOPE_MS * sample_rate / 1000))
    limit = round(MAX_LAG_MS * sample_rate / 1000)
    lag, height = _best_lag(signal, output, limit)
    if height > CLEAR_WAVEFORM:
        return lag, True
    lag, height = _best_lag(_envelope(signal, window), _envelope(output, window), limit)
    return (lag, False) if height > CLEAR else (None, False)


def _envelope(audio: Array, window: int) -> Array:
    return np.convolve(np.abs(audio), np.ones(window) / window, mode="same")


def _best_lag(signal: Array, output: Array, limit: int) -> tuple[int, float]:
    """The lag from 0 to `limit` samples of the highest normalised correlation, and its height (0 to 1)."""
    signal, output = signal - signal.mean(), output - output.mean()
    scale = float(np.linalg.norm(signal) * np.linalg.norm(output))
    if scale == 0.0:
        return 0, 0.0
    size = 2 ** int(np.ceil(np.log2(2 * signal.size)))
    cross = np.fft.irfft(np.fft.rfft(output, size) * np.conj(np.fft.rfft(signal, size)), size)
    heights = np.abs(cross[: limit + 1])  # some codecs invert the polarity
    return int(np.argmax(heights)), float(heights.max() / scale)
