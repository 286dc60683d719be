"""Whether a decoded file lies where the original does: its lag, polarity and level, and whether it is the same recording.

Every full-reference metric takes it for granted that both signals start together. A codec whose delay is wrongly known,
or a file taken for another, gives a number all the same, and a wrong one. Two estimates look for it: where the codec
keeps the waveform, the peak of the correlation is exact to a sample; where it does not, as in a vocoder, octave bands'
envelopes are within a millisecond or two. Blind to what moves inside a file: drift, and frames dropped or repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from linnet.evaluate.metrics import RATE, Samples

_REACH_S = 0.25  # lags are looked for on both sides
_STEP = 16  # samples between two windows of an envelope: 1 ms
_WINDOW = 512
_ENVELOPE_HZ = (150, 400, 800, 1500, 3400)  # what every codec carries, narrowband or not
_WAVEFORM_HZ = (500, 3400)  # the high-pass filters of telephone codecs turn the phase below
_FLOOR_DB = -50.0  # of an envelope below its peak: pauses are no evidence
_LEAST_S = 0.5

_SAME_WAVEFORM = 0.8  # correlation above which its peak is believed to the sample, and its sign
_RIVAL = 0.93  # of the peak, above which another is as likely: a strong formant correlates at all its half periods
_WAVEFORM_SLACK = 3  # samples at 16 kHz
_ENVELOPE_SLACK_MS = 8.0
_SAME_RECORDING = 0.65  # correlation of envelopes below which it is something else
_LEVEL_SLACK_DB = 4.5
_SILENT_DB = -120.0


@dataclass(frozen=True)
class Alignment:
    """How a decoded file lies against its original.

    Args:
        lag_ms: positive if the decoded one is late; nan if it cannot be told.
        exact: the lag is that of the waveform, to a sample, and not that of the envelopes; so is the sign of `waveform`.
        waveform: the highest correlation of the waveforms at any lag, -1 to 1.
        envelope: the highest correlation of the envelopes, up to 1.
        gain_db: level of the decoded file less that of the original, 150 to 3400 Hz.
    """

    lag_ms: float
    exact: bool
    waveform: float
    envelope: float
    gain_db: float

    @property
    def certain(self) -> bool:
        """Whether a fault is beyond doubt even in noise: told by the waveform itself, or by there being nothing."""
        return self.exact or self.gain_db <= _SILENT_DB

    def fault(self) -> str:
        """Why scores of this file mean nothing, '' if nothing is wrong."""
        if np.isnan(self.envelope):
            return ""
        if self.gain_db <= _SILENT_DB:
            return "the output is silent"
        if max(self.envelope, abs(self.waveform)) < _SAME_RECORDING:
            return f"not the same recording: envelopes correlate by {self.envelope:.2f} at best"
        samples = self.lag_ms * RATE / 1000
        if self.exact and abs(samples) > _WAVEFORM_SLACK:
            return f"shifted by {samples:+.0f} samples ({self.lag_ms:+.2f} ms)"
        if not self.exact and abs(self.lag_ms) > _ENVELOPE_SLACK_MS:
            return f"shifted by about {self.lag_ms:+.0f} ms"
        return ""

    def notes(self) -> list[str]:
        """What is odd about this file although its scores stand."""
        told = []
        if np.isnan(self.envelope):
            told.append(f"the original is silent or under {_LEAST_S:g} s: metrics that want more have no score")
        if self.exact and self.waveform < 0:
            told.append("polarity is flipped")
        if abs(self.gain_db) > _LEVEL_SLACK_DB:
            told.append(f"level is {self.gain_db:+.1f} dB off")
        return told


UNKNOWN = Alignment(float("nan"), False, float("nan"), float("nan"), float("nan"))
"""Of silence, and of clips under half a second."""


def align(reference: Samples, degraded: Samples) -> Alignment:
    """Where `degraded` lies against `reference`, both [samples] at 16 kHz and of one length.

    Returns:
        The alignment; `UNKNOWN` if the reference is silent or shorter than half a second.
    """
    if len(reference) < _LEAST_S * RATE or not reference.any():
        return UNKNOWN
    if not degraded.any():
        return Alignment(float("nan"), False, 0.0, 0.0, _SILENT_DB)
    ours, theirs = _envelopes(reference), _envelopes(degraded)
    reach = min(int(_REACH_S * RATE), len(reference) // 3)
    envelopes = _correlation(ours, theirs, reach // _STEP).mean(axis=0)
    inner = [_band(samples, _WAVEFORM_HZ)[np.newaxis] for samples in (reference, degraded)]
    waveforms = _correlation(inner[0], inner[1], reach)[0]
    peak = int(np.abs(waveforms).argmax())
    exact = abs(float(waveforms[peak])) >= _SAME_WAVEFORM and _stands_out(np.abs(waveforms), peak)
    lag = peak - reach if exact else (int(envelopes.argmax()) - reach // _STEP) * _STEP
    powers = [float(np.square(_band(samples, (_ENVELOPE_HZ[0], _ENVELOPE_HZ[-1]))).sum()) for samples in (degraded, reference)]
    return Alignment(
        lag_ms=1000 * lag / RATE,
        exact=exact,
        waveform=float(waveforms[peak]),
        envelope=float(envelopes.max()),
        gain_db=float(10 * np.log10(max(powers[0], 1e-12) / max(powers[1], 1e-12))),
    )


def _stands_out(heights: npt.NDArray[np.float64], peak: int) -> bool:
    """Whether the highest of [heights] is well above every other local maximum."""
    inner = heights[1:-1]
    tops = 1 + np.flatnonzero((inner >= heights[:-2]) & (inner > heights[2:]))
    return bool(heights[tops[tops != peak]].max(initial=0) < _RIVAL * heights[peak])


def shift(samples: npt.NDArray[np.float64], lag_ms: float) -> npt.NDArray[np.float64]:
    """[samples] at 16 kHz moved earlier by a lag, of the same length, with zeros where nothing is."""
    lag = round(lag_ms * RATE / 1000)
    kept = samples[lag:] if lag >= 0 else np.pad(samples, (-lag, 0))
    return np.pad(kept, (0, max(0, len(samples) - len(kept))))[: len(samples)]


def _band(samples: Samples, edges_hz: tuple[int, int]) -> npt.NDArray[np.float64]:
    """[samples] between two frequencies: a narrowband codec must not be told from a wideband one."""
    spectrum, hz = np.fft.rfft(samples), np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(hz < edges_hz[0]) | (hz > edges_hz[1])] = 0
    return np.fft.irfft(spectrum, len(samples))


def _envelopes(samples: Samples) -> npt.NDArray[np.float64]:
    """Level in dB of octave bands, [bands, windows]."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_STEP]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(_WINDOW))))
    edges = np.searchsorted(np.fft.rfftfreq(_WINDOW, 1 / RATE), _ENVELOPE_HZ)
    bands = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1).T
    return 10 * np.log10(np.maximum(bands / max(bands.max(), 1e-30), 10 ** (_FLOOR_DB / 10)))


def _correlation(ours: Samples, theirs: Samples, reach: int) -> npt.NDArray[np.float64]:
    """Correlation coefficients of rows [rows, time] at lags from -reach to reach, [rows, 2 * reach + 1]."""
    ours, theirs = (rows - rows.mean(axis=1, keepdims=True) for rows in (ours, theirs))
    size = 2 ** int(np.ceil(np.log2(ours.shape[1] + reach)))
    product = np.fft.irfft(np.conj(np.fft.rfft(ours, size)) * np.fft.rfft(theirs, size), size)
    lags = np.concatenate([product[:, size - reach :], product[:, : reach + 1]], axis=1)
    norm = np.sqrt(np.square(ours).sum(axis=1) * np.square(theirs).sum(axis=1))
    return lags / np.maximum(norm, 1e-30)[:, np.newaxis]
