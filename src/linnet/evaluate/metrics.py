"""How alike two signals sound: published metrics at 16 kHz behind one signature, and what each of them cannot hear.

Every metric is `metric(reference, degraded, sample_rate) -> float` over float arrays [samples] of one length, full scale
1.0. Other rates than 16 kHz are resampled first. What has no score (silence, a clip too short) is nan, never a guess.
PESQ, STOI, DNSMOS and the pitch tracker live in optional packages, imported at the first call.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import soxr

from linnet.bits.errors import LinnetError

if TYPE_CHECKING:
    import onnxruntime

Samples = npt.NDArray[Any]

RATE = 16_000
"""The sample rate at which everything is judged, in Hz."""

BAND_EDGES_HZ = (125, 250, 500, 1000, 2000, 4000, 8000)
"""Octaves: the lowest holds the pitch of most voices, the highest ends where 16 kHz audio does."""

_SILENCE = 1e-5  # RMS of -100 dBFS: below the last bit of a 16-bit file
_FFT = 512  # 32 ms
_HOP = 160  # 10 ms
_MELS = 80
_FLOOR_DB = -80.0  # below the loudest mel band of the reference: no ear and no 16-bit file tells what lies lower
_DNSMOS_SAMPLES = 144_160  # 9.01 s, the fixed input of the DNSMOS P.835 network


class MissingPackageError(LinnetError):
    """A metric's package is not installed."""


def pesq_wb(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Wideband PESQ (ITU-T P.862.2), MOS-LQO from about 1.04 to 4.64.

    Returns:
        The score; nan where PESQ finds no utterance, or less than a quarter of a second.

    Raises:
        MissingPackageError: if `pesq` is not installed.
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    return _pesq(reference, degraded, sample_rate, RATE, "wb")


def pesq_nb(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Narrowband PESQ (ITU-T P.862.1) at 8 kHz, MOS-LQO from about 1.02 to 4.55. Returns and raises as `pesq_wb`."""
    return _pesq(reference, degraded, sample_rate, 8000, "nb")


def stoi(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al., 2011), up to 1. Returns and raises as `estoi`."""
    return _stoi(reference, degraded, sample_rate, extended=False)


def estoi(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Extended short-time objective intelligibility (Jensen and Taal, 2016), up to 1.

    Returns:
        The score; nan for silence, and where fewer than the 30 frames are left that the measure needs.

    Raises:
        MissingPackageError: if `pystoi` is not installed.
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    return _stoi(reference, degraded, sample_rate, extended=True)


def si_sdr(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., 2019, eq. 1), both signals without their mean.

    Returns:
        The ratio, at most about 150 for float64; nan for silence.

    Raises:
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    reference, degraded = _at_16k(reference, degraded, sample_rate)
    if _silent(reference) or _silent(degraded):
        return float("nan")
    reference, degraded = reference - reference.mean(), degraded - degraded.mean()
    target = reference * (degraded @ reference) / (reference @ reference)
    tiny = 1e-15 * float(degraded @ degraded)
    return float(10 * np.log10((target @ target + tiny) / (np.square(degraded - target).sum() + tiny)))


def log_mel_distance(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Mean absolute difference in dB of 80-band mel spectrograms: 32 ms Hann windows every 10 ms, 0 to 8 kHz.

    Bands more than 80 dB below the reference's loudest count as that low, so that digital silence is no infinite error.

    Returns:
        The distance, 0 for equal signals; nan if the reference is silent or shorter than a window.

    Raises:
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    reference, degraded = _at_16k(reference, degraded, sample_rate)
    if _silent(reference) or len(reference) < _FFT:
        return float("nan")
    wanted, heard = _mel_power(reference), _mel_power(degraded)
    floor = wanted.max() * 10 ** (_FLOOR_DB / 10)
    return float(np.abs(10 * np.log10(np.maximum(wanted, floor) / np.maximum(heard, floor))).mean())


def band_levels(reference: Samples, degraded: Samples, sample_rate: int) -> npt.NDArray[np.float64]:
    """The degraded signal's long-term level less the reference's, in dB, in each octave of `BAND_EDGES_HZ`.

    The levels are energies over the whole clip. A band that is empty counts as 80 dB below the whole reference, so the
    figures stay within about +-80 dB.

    Returns:
        Differences [6], lowest octave first; nan if the reference is silent.

    Raises:
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    reference, degraded = _at_16k(reference, degraded, sample_rate)
    if _silent(reference):
        return np.full(len(BAND_EDGES_HZ) - 1, np.nan)
    wanted, heard = _band_energies(reference), _band_energies(degraded)
    floor = wanted.sum() * 10 ** (_FLOOR_DB / 10)
    return 10 * np.log10(np.maximum(heard, floor) / np.maximum(wanted, floor))


def band_error(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Mean absolute value of `band_levels`, in dB."""
    return float(np.abs(band_levels(reference, degraded, sample_rate)).mean())


def lsd_low(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """`_log_spectral_distance` from 0 to 4 kHz, which every codec carries."""
    return _log_spectral_distance(reference, degraded, sample_rate, 0, 4000)


def lsd_high(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """`_log_spectral_distance` from 4 to 8 kHz, where a narrowband codec has nothing."""
    return _log_spectral_distance(reference, degraded, sample_rate, 4000, 8000)


def f0_error(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Root mean square pitch error in cents over the frames of 5 ms that are voiced in both, pitch by DIO and StoneMask.

    Errors are cut at an octave: beyond it the tracker has jumped, and how far says nothing.

    Returns:
        The error; nan if no frame is voiced in both.

    Raises:
        MissingPackageError: if `pyworld` is not installed.
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    wanted, heard = _pitches(reference, degraded, sample_rate)
    both = (wanted > 0) & (heard > 0)
    if not both.any():
        return float("nan")
    cents = np.clip(1200 * np.log2(heard[both] / wanted[both]), -1200, 1200)
    return float(np.sqrt(np.square(cents).mean()))


def voicing_error(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Frames of 5 ms that are voiced in only one of the signals, in percent of those that are voiced in either.

    Returns:
        The share; nan if no frame is voiced in either. Raises as `f0_error`.
    """
    wanted, heard = (pitch > 0 for pitch in _pitches(reference, degraded, sample_rate))
    either = int((wanted | heard).sum())
    return 100 * int((wanted ^ heard).sum()) / either if either else float("nan")


def dnsmos(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """DNSMOS P.835 overall quality (Reddy et al., 2022), 1 to 5, from the degraded signal alone.

    The network and the polynomial are those of the package `speechmos`, which hears clips of 9.01 s, one a second, and
    repeats a shorter signal. Its own code is not used: it imports librosa and leaves the thread count to ONNX Runtime.

    Returns:
        The mean over the clips; nan for silence.

    Raises:
        MissingPackageError: if `speechmos` is not installed.
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    session = _dnsmos_session()
    _, degraded = _at_16k(reference, degraded, sample_rate)
    if _silent(degraded):
        return float("nan")
    while len(degraded) < _DNSMOS_SAMPLES:
        degraded = np.concatenate([degraded, degraded])
    signal = np.clip(degraded, -1, 1).astype(np.float32)
    clips = int(len(signal) // RATE - _DNSMOS_SAMPLES / RATE) + 1  # the package's count: only whole seconds are looked at
    starts = range(0, clips * RATE, RATE)
    raw = [session.run(None, {"input_1": signal[np.newaxis, at : at + _DNSMOS_SAMPLES]})[0][0][2] for at in starts]
    return float(np.mean(np.polyval([-0.06766283, 1.11546468, 0.04602535], raw)))


@dataclass(frozen=True)
class Metric:
    """One way of judging.

    Args:
        function: `(reference, degraded, sample_rate) -> float`.
        unit: of the value, '' for a number of its own scale.
        higher_is_better: which end of the scale is good.
        blind_to: what it does not hear, so that nobody relies on it for that.
        package: whose version its value depends on, '' if it is ours alone.
    """

    function: Callable[[Samples, Samples, int], float]
    unit: str
    higher_is_better: bool
    blind_to: str
    package: str = ""
    revision: int = 1  # raised when our own arithmetic changes

    def available(self) -> bool:
        """Whether its package is installed."""
        return not self.package or importlib.util.find_spec(self.package) is not None

    def identity(self) -> str:
        """What its value depends on besides the signals: results are kept under it.

        Raises:
            MissingPackageError: if its package is not installed.
        """
        version = ""
        if self.package:
            try:
                version = f"{self.package} {importlib.metadata.version(self.package)}"
            except importlib.metadata.PackageNotFoundError as error:
                raise _missing(self.package) from error
        return f"{self.function.__name__} {self.revision} {version}".rstrip()


METRICS: dict[str, Metric] = {
    "pesq_wb": Metric(pesq_wb, "MOS", True, "who speaks; unfair to vocoders; caps narrowband codecs near 3.4", "pesq"),
    "pesq_nb": Metric(pesq_nb, "MOS", True, "everything above 3.4 kHz; unfair to vocoders", "pesq"),
    "stoi": Metric(stoi, "", True, "everything above 4.3 kHz, quality where all is intelligible, and pitch", "pystoi"),
    "estoi": Metric(estoi, "", True, "everything above 4.3 kHz, pitch, timbre and noise in the pauses", "pystoi"),
    "si_sdr": Metric(si_sdr, "dB", True, "quality, wherever the phase is synthetic: meaningless for vocoders"),
    "log_mel": Metric(log_mel_distance, "dB", False, "phase and pitch harmonics; punishes any change in the pauses"),
    "lsd_low": Metric(lsd_low, "dB", False, "phase, everything above 4 kHz; counts a shifted harmonic as much as noise"),
    "lsd_high": Metric(lsd_high, "dB", False, "phase, everything below 4 kHz; in narrowband it sees only that"),
    "band_error": Metric(band_error, "dB", False, "everything but the long-term balance of the octaves"),
    "f0_error": Metric(f0_error, "cents", False, "all but pitch; frames where either signal seems unvoiced", "pyworld"),
    "voicing_error": Metric(voicing_error, "%", False, "all but voicing; and the tracker errs on noisy originals", "pyworld"),
    "dnsmos": Metric(dnsmos, "MOS", True, "the words, and most codec damage; a lost upper band costs it nothing", "speechmos"),
}


def to_rate(samples: Samples, sample_rate: int, wanted: int) -> npt.NDArray[np.float64]:
    """Samples [samples] at another rate, in soxr's best quality, as float64."""
    samples = np.asarray(samples, np.float64)
    return samples if sample_rate == wanted else soxr.resample(samples, sample_rate, wanted, quality="VHQ")


def _pesq(reference: Samples, degraded: Samples, sample_rate: int, rate: int, mode: str) -> float:
    pesq = _package("pesq")
    reference, degraded = _at_16k(reference, degraded, sample_rate)
    if _silent(reference) or _silent(degraded):
        return float("nan")
    try:
        return float(pesq.pesq(rate, to_rate(reference, RATE, rate), to_rate(degraded, RATE, rate), mode))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError):
        return float("nan")


def _stoi(reference: Samples, degraded: Samples, sample_rate: int, extended: bool) -> float:
    pystoi = _package("pystoi")
    reference, degraded = _at_16k(reference, degraded, sample_rate)
    if _silent(reference) or _silent(degraded):
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi warns of too few frames and returns 1e-5
        try:
            return float(pystoi.stoi(reference, degraded, RATE, extended=extended))
        except (RuntimeWarning, ValueError, IndexError):  # the last two from clips of less than one frame
            return float("nan")


def _log_spectral_distance(reference: Samples, degraded: Samples, sample_rate: int, low_hz: int, high_hz: int) -> float:
    """Root mean square difference in dB of the power spectra between two frequencies, by frame, then the mean of frames.

    32 ms Hann windows every 10 ms. What is more than 80 dB below the reference's loudest bin counts as that low; frames in
    which the reference has nothing above that are pauses, and left out.

    Returns:
        The distance, 0 for equal signals; nan if the reference is silent or shorter than a window.

    Raises:
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    reference, degraded = _at_16k(reference, degraded, sample_rate)
    if _silent(reference) or len(reference) < _FFT:
        return float("nan")
    wanted, heard = _power(reference), _power(degraded)
    floor = wanted.max() * 10 ** (_FLOOR_DB / 10)
    band = slice(*np.searchsorted(np.fft.rfftfreq(_FFT, 1 / RATE), (low_hz, high_hz)))
    wanted, heard = np.maximum(wanted[:, band], floor), np.maximum(heard[:, band], floor)
    active = (wanted > floor).any(axis=1)
    return (
        float(np.sqrt(np.square(10 * np.log10(wanted / heard)[active]).mean(axis=1)).mean()) if active.any() else float("nan")
    )


def _pitches(reference: Samples, degraded: Samples, sample_rate: int) -> tuple[npt.NDArray[np.float64], ...]:
    """Pitch of both in Hz every 5 ms, 0 where unvoiced, [frames] each."""
    signals = _at_16k(reference, degraded, sample_rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of its own import of pkg_resources
        _package("pyworld")
    if len(signals[0]) < _FFT or _silent(signals[0]):
        return np.zeros(1), np.zeros(1)
    return tuple(_pitch(np.asarray(signal, np.float64).tobytes()) for signal in signals)


@lru_cache(maxsize=4)  # two metrics want it, and every codec that of the original
def _pitch(signal: bytes) -> npt.NDArray[np.float64]:
    """Of float64 samples at 16 kHz, by DIO and StoneMask (Morise et al., 2009), 60 to 500 Hz."""
    world, samples = _package("pyworld"), np.frombuffer(signal)
    rough, times = world.dio(samples, RATE, f0_floor=60.0, f0_ceil=500.0)
    return world.stonemask(samples, rough, times, RATE)


def _at_16k(reference: Samples, degraded: Samples, sample_rate: int) -> tuple[Samples, Samples]:
    shapes = np.shape(reference), np.shape(degraded)
    if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
        raise ValueError(f"signals of shapes {shapes[0]} and {shapes[1]}: give two of one length, one channel each")
    return to_rate(reference, sample_rate, RATE), to_rate(degraded, sample_rate, RATE)


def _silent(samples: Samples) -> bool:
    return len(samples) == 0 or float(np.sqrt(np.square(samples).mean())) < _SILENCE


def _power(samples: Samples) -> npt.NDArray[np.float64]:
    """Power spectra, [frames, bins]."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FFT)[::_HOP]
    return np.square(np.abs(np.fft.rfft(frames * np.hanning(_FFT))))


def _mel_power(samples: Samples) -> npt.NDArray[np.float64]:
    return _power(samples) @ _mel_weights()


@cache
def _mel_weights() -> npt.NDArray[np.float64]:
    """Triangles on the HTK mel scale, [bins, mels]; each sums to 1, so that a band's power is a weighted mean."""
    hz = np.fft.rfftfreq(_FFT, 1 / RATE)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), _MELS + 2) / 2595) - 1)
    # The lowest triangles are narrower than a bin of 31 Hz: each reaches at least one bin to both sides.
    reach_down = np.maximum(np.diff(edges)[:-1], RATE / _FFT)
    reach_up = np.maximum(np.diff(edges)[1:], RATE / _FFT)
    offset = hz[:, np.newaxis] - edges[1:-1]
    triangles = np.maximum(0, 1 - np.where(offset < 0, -offset / reach_down, offset / reach_up))
    return triangles / triangles.sum(axis=0)


def _band_energies(samples: Samples) -> npt.NDArray[np.float64]:
    power = np.square(np.abs(np.fft.rfft(samples)))
    edges = np.searchsorted(np.fft.rfftfreq(len(samples), 1 / RATE), BAND_EDGES_HZ)
    return np.array([power[low:high].sum() for low, high in pairwise(edges)])


@cache
def _dnsmos_session() -> onnxruntime.InferenceSession:
    import onnxruntime

    spec = importlib.util.find_spec("speechmos")
    if spec is None or spec.origin is None:
        raise _missing("speechmos")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # files are the parallel axis
    network = Path(spec.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
    return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _missing(name) from error


def _missing(name: str) -> MissingPackageError:
    return MissingPackageError(f"this metric needs the package '{name}': pip install 'linnet[eval]'")
