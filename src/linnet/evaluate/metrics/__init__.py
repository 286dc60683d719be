"""How alike two signals sound: metrics at 16 kHz behind one signature, and what each of them cannot hear.

Every metric is `metric(reference, degraded, sample_rate) -> float` over float arrays [samples] of one length, full scale
1.0. Other rates than 16 kHz are resampled first. What has no score (silence, a clip too short) is nan, never a guess.
What a metric takes from another package is imported at its first call.
"""

from __future__ import annotations

from linnet.evaluate.metrics.base import RATE, Metric, MissingPackageError, Samples, to_int16, to_rate
from linnet.evaluate.metrics.listening import NISQA, NISQA_WEIGHTS, VISQOL, dnsmos, estoi, nisqa, pesq_nb, pesq_wb, stoi, visqol
from linnet.evaluate.metrics.masking import nmr, nmr_audible
from linnet.evaluate.metrics.pitch import f0_error, voicing_error
from linnet.evaluate.metrics.spectral import (
    BAND_EDGES_HZ,
    band_error,
    band_levels,
    log_mel_distance,
    lsd_high,
    lsd_low,
    si_sdr,
)
from linnet.evaluate.metrics.speech import RESEMBLYZER, SPHINX, character_error_rate, speaker_similarity, word_error_rate
from linnet.evaluate.metrics.versa import VersaMetric

__all__ = [
    "BAND_EDGES_HZ",
    "METRICS",
    "RATE",
    "Metric",
    "MissingPackageError",
    "Samples",
    "band_error",
    "band_levels",
    "dnsmos",
    "estoi",
    "log_mel_distance",
    "pesq_nb",
    "pesq_wb",
    "si_sdr",
    "stoi",
    "to_int16",
    "to_rate",
]

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
    "nmr": Metric(nmr, "dB", False, "phase, and what is masked; counts any change of level as noise"),
    "nmr_audible": Metric(nmr_audible, "%", False, "phase, and by how far the noise is heard"),
    "visqol": Metric(
        visqol,
        "MOS",
        True,
        "pitch; harsh on noise and on synthetic speech",
        "visqol",
        default=False,
        install=VISQOL,
        distribution="visqol-python",
    ),
    "nisqa": Metric(
        nisqa,
        "MOS",
        True,
        "the words and the speaker; trained without neural codecs",
        "torchmetrics",
        default=False,
        install=NISQA,
        needs=("librosa", "requests", NISQA_WEIGHTS),
    ),
    "wer": Metric(
        word_error_rate,
        "%",
        False,
        "quality, the speaker, any language but English; a weak recognizer exaggerates",
        "pocketsphinx",
        default=False,
        install=SPHINX,
    ),
    "cer": Metric(
        character_error_rate,
        "%",
        False,
        "quality, the speaker, any language but English; a weak recognizer exaggerates",
        "pocketsphinx",
        default=False,
        install=SPHINX,
    ),
    "speaker": Metric(
        speaker_similarity,
        "",
        True,
        "the words, and noise that spares the voice; all voices of one kind lie close",
        "resemblyzer",
        default=False,
        install=RESEMBLYZER,
        needs=("pkg_resources",),
    ),
    "utmos": VersaMetric.of("utmos", "MOS", "the words and the speaker; likes clean synthesis better than noisy truth"),
    "scoreq": VersaMetric.of("scoreq_nr", "MOS", "the words and the speaker"),
    "sheet_ssqa": VersaMetric.of("sheet_ssqa", "MOS", "the words and the speaker"),
    "audiobox_pq": VersaMetric.of("audiobox_aesthetics_PQ", "1-10", "the words, the speaker and what the original was like"),
}
