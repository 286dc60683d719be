"""What is said and who says it: a recognizer and a speaker embedding from other packages, each with its weights inside."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from linnet.evaluate.metrics.base import RATE, Samples, at_16k, import_package, silent

_LEAST_S = 0.25  # less is no word, and no voice

SPHINX = "pip install pocketsphinx"
RESEMBLYZER = "pip install resemblyzer 'setuptools<81'"


def word_error_rate(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Words that a recognizer hears otherwise in the degraded signal than in the original, in percent of the original's.

    The recognizer is PocketSphinx with its American English model. What it mishears in the original too is no error: the
    rate is that of the codec, and can pass 100.

    Returns:
        The rate; nan where it hears no word in the original.

    Raises:
        MissingPackageError: if `pocketsphinx` is not installed.
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    wanted, heard = _transcripts(reference, degraded, sample_rate)
    return 100 * edits(wanted, heard) / len(wanted) if wanted else float("nan")


def character_error_rate(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """As `word_error_rate`, in characters, with a space between words: a word nearly right is not a whole error."""
    wanted, heard = (" ".join(words) for words in _transcripts(reference, degraded, sample_rate))
    return 100 * edits(wanted, heard) / len(wanted) if wanted else float("nan")


def speaker_similarity(reference: Samples, degraded: Samples, sample_rate: int) -> float:
    """Cosine of two embeddings of the speaker, up to 1: GE2E (Wan et al., 2018) as Resemblyzer ships it, without its pauses'
    removal, which would cut both signals differently.

    Returns:
        The cosine; nan for silence and under a quarter of a second.

    Raises:
        MissingPackageError: if `resemblyzer` is not installed.
        ValueError: if the signals are not two one-dimensional ones of one length.
    """
    _embedder()
    reference, degraded = at_16k(reference, degraded, sample_rate)
    if silent(reference) or silent(degraded) or len(reference) < _LEAST_S * RATE:
        return float("nan")
    ours, theirs = (_embedding(np.asarray(signal, np.float32).tobytes()) for signal in (reference, degraded))
    return float(ours @ theirs / np.sqrt((ours @ ours) * (theirs @ theirs)))


def edits(wanted: Sequence[Any], heard: Sequence[Any]) -> int:
    """Insertions, deletions and substitutions between two sequences, the fewest (Levenshtein, 1966)."""
    row = list(range(len(heard) + 1))
    for at, item in enumerate(wanted, start=1):
        above, row = row, [at]
        for place, other in enumerate(heard, start=1):
            row.append(min(above[place] + 1, row[-1] + 1, above[place - 1] + (item != other)))
    return row[-1]


def _transcripts(reference: Samples, degraded: Samples, sample_rate: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    _recognizer()
    reference, degraded = at_16k(reference, degraded, sample_rate)
    if silent(reference) or len(reference) < _LEAST_S * RATE:
        return (), ()
    words = (_words(np.asarray(signal, np.float64).tobytes()) for signal in (reference, degraded))
    return next(words), next(words)


@lru_cache(maxsize=4)  # two metrics want it, and every codec that of the original
def _words(signal: bytes) -> tuple[str, ...]:
    """Of float64 samples at 16 kHz."""
    decoder = _recognizer()
    pcm = np.clip(np.round(np.frombuffer(signal) * 32767), -32768, 32767).astype("<i2")
    decoder.reinit_feat()  # or what it learned of the last clip's noise would stay
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return tuple(found.hypstr.split()) if found is not None else ()


@cache
def _recognizer() -> Any:
    return import_package("pocketsphinx", SPHINX).Decoder(samprate=RATE, loglevel="FATAL")


@lru_cache(maxsize=4)
def _embedding(signal: bytes) -> npt.NDArray[np.float64]:
    """Of float32 samples at 16 kHz, [256]."""
    return np.asarray(_embedder().embed_utterance(np.frombuffer(signal, np.float32)), np.float64)


@cache
def _embedder() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of webrtcvad's import of pkg_resources, and of torch's loading
        return import_package("resemblyzer", RESEMBLYZER).VoiceEncoder("cpu", verbose=False)
