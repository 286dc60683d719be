"""Models of listeners from other packages: PESQ, STOI, DNSMOS, ViSQOL, NISQA."""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from linnet.evaluate.metrics.base import RATE, Samples, at_16k, import_package, missing_package, silent, to_rate

if TYPE_CHECKING:
    import onnxruntime

VISQOL = "pip install 'visqol-python[lattice]'"
NISQA_WEIGHTS = Path("~/.torchmetrics/NISQA/nisqa.tar").expanduser()
"""Where torchmetrics looks for them. They are CC BY-NC-SA 4.0: whoever uses them puts them there."""
NISQA = f"pip install torchmetrics librosa requests, and put NISQA's weights/nisqa.tar at {NISQA_WEIGHTS}"

_DNSMOS_SAMPLES = 144_160  # 9.01 s, the fixed input of the DNSMOS P.835 network


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
    _, degraded = at_16k(reference, degraded, sample_rate)
    if silent(degraded):
        return float("nan")
    while len(degraded) < _DNSMOS_SAMPLES:
        degraded = np.concatenate([degraded, degraded])
    signal = np.clip(degraded, -1, 1).astype(np.float32)
    clips = int(len(signal) // RATE - _DNSMOS_SAMPLES / RATE) + 1  # the package's count: only whole seconds are looked at
    starts = range(0, clips * RATE, RATE)
    raw = [session.run(None, {"input_1": signal[np.newaxis, at : at + _DNSMOS_SAMPLES]})[0][0][2] for at in starts]
    return float(np.mean(np.polyval([-0.06766283, 1.11546468, 0.04602535], raw)))


def _pesq(reference: Samples, degraded: Samples, sample_rate: int, rate: int, mode: str) -> float:
    pesq = import_package("pesq")
    reference, degraded = at_16k(reference, degraded, sample_rate)
    if silent(reference) or silent(degraded):
        return float("nan")
    try:
        return float(pesq.pesq(rate, to_rate(reference, RATE, rate), to_rate(degraded, RATE, rate), mode))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError):
        return float("nan")


def _stoi(reference: Samples, degraded: Samples, sample_rate: int, extended: bool) -> float:
    pystoi = import_package("pystoi")
    reference, degraded = at_16k(reference, degraded, sample_rate)
    if silent(reference) or silent(degraded):
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi warns of too few frames and returns 1e-5
        try:
            return float(pystoi.stoi(reference, degraded, RATE, extended=extended))
        except (RuntimeWarning, ValueError, IndexError):  # the last two from clips of less than one frame
            return float("nan")


@cache
def _dnsmos_session() -> onnxruntime.InferenceSession:
    import onnxruntime

    spec = importlib.util.find_spec("speechmos")
    if spec is None or spec.origin is None:
        raise missing_package("speechmos")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # files are the parallel axis
    network = Path(spec.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
    return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])


def visqol(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """ViSQOL in speech mode (Hines et al., 2015; Chinen et al., 2020), MOS-LQO 1 to 5, by the port `visqol-python`.

    Returns:
        The score; nan for silence and under a second, in which it finds no patch.

    Raises:
        MissingPackageError: if `visqol-python` is not installed.
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    judge = _visqol()
    reference, degraded = at_16k(reference, degraded, sample_rate)
    if silent(reference) or silent(degraded) or len(reference) < RATE:
        return float("nan")
    return float(judge.measure_from_arrays(reference, degraded, sample_rate=RATE).moslqo)


def nisqa(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """NISQA v2.0 overall quality (Mittag et al., 2021), 1 to 5, from the degraded signal alone, by torchmetrics.

    Returns:
        The score; nan for silence and under a quarter of a second.

    Raises:
        MissingPackageError: if `torchmetrics` is not installed, or the weights are not in `NISQA_WEIGHTS`.
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    judge = import_package("torchmetrics.functional.audio.nisqa", NISQA)
    if not NISQA_WEIGHTS.exists():  # it would fetch them
        raise missing_package(str(NISQA_WEIGHTS), NISQA)
    torch = import_package("torch", NISQA)
    _, degraded = at_16k(reference, degraded, sample_rate)
    if silent(degraded) or len(degraded) < RATE // 4:
        return float("nan")
    return float(judge.non_intrusive_speech_quality_assessment(torch.as_tensor(degraded, dtype=torch.float32), RATE)[0])


@cache
def _visqol() -> Any:
    judge = import_package("visqol.api", VISQOL).VisqolApi()
    judge.create(mode="speech")
    return judge
