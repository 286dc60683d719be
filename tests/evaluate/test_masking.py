"""The noise-to-mask ratio against the formulas of the standard, worked by hand, and against what must hold."""

import numpy as np
import pytest

from linnet.evaluate.metrics.masking import masking_threshold, nmr, nmr_audible, noise_to_mask

RATE = 16_000


def spectrum(level_db: float, bark_of_hz: float) -> np.ndarray:
    """A sine's power spectrum, [1, 257]."""
    power = np.zeros((1, 257))
    middle = round(bark_of_hz / 31.25)
    power[0, middle - 1 : middle + 2] = 10 ** (level_db / 10) * np.array([1, 4, 1]) / 6
    return power


def bark(hz: float) -> float:
    return 13 * np.arctan(0.00076 * hz) + 3.5 * np.arctan((hz / 7500) ** 2)


@pytest.mark.parametrize("level_db", [40.0, 70.0])
def test_a_tone_masks_as_the_standard_says(level_db: float) -> None:
    """ISO/IEC 11172-3, D.1, step 6: level, less the index of a tonal masker, less the spread at the band's middle."""
    threshold = 10 * np.log10(masking_threshold(spectrum(level_db, 1000))[0])
    masker = bark(1000)
    index = -1.525 - 0.275 * masker - 4.5
    bins = bark(np.arange(257) * 31.25)
    for band in (8, 9, 11):  # its own, one above, three above
        centre = bins[(bins >= band) & (bins < band + 1)].mean()
        distance = centre - masker
        if distance >= 1:
            loss = -(distance - 1) * (17 - 0.15 * level_db) - 17
        else:
            loss = -17 * distance if distance >= 0 else (0.4 * level_db + 6) * distance
        expected = level_db + index + loss
        assert threshold[band] == pytest.approx(expected, abs=0.5 if expected > 10 else 40)  # lower, the ear's own threshold


def test_silence_has_the_threshold_in_quiet() -> None:
    threshold = 10 * np.log10(masking_threshold(np.zeros((1, 257)))[0])
    assert threshold[16] == pytest.approx(-4.9, abs=0.6)  # at 3.3 kHz, where the ear is best
    assert threshold[0] > 30
    assert threshold.argmin() in {15, 16, 17}


def test_a_change_of_ten_times_is_twenty_decibels(speech: np.ndarray) -> None:
    """(1 - a) x differs from x by a x in every bin, so the ratio follows a alone."""
    signal = speech.astype(np.float64)
    coarse, fine = (nmr(signal, (1 - share) * signal, RATE) for share in (0.5, 0.05))
    assert coarse - fine == pytest.approx(20, abs=0.01)
    assert nmr_audible(signal, 0.999 * signal, RATE) == 0
    assert nmr_audible(signal, 0.1 * signal, RATE) > 20


def test_phase_is_not_noise(speech: np.ndarray) -> None:
    assert nmr(speech, -speech, RATE) == pytest.approx(-80, abs=1e-6)


def test_noise_under_a_voice_is_heard_less_than_in_silence() -> None:
    rng = np.random.default_rng(0)
    loud, soft = 0.3 * rng.standard_normal(RATE), 0.003 * rng.standard_normal(RATE)
    reference = np.concatenate([loud, 1e-4 * loud])
    ratios = noise_to_mask(reference, reference + np.concatenate([soft, soft]), RATE)
    half = len(ratios) // 2
    assert np.median(ratios[: half - 2]) < 0.05 < 5 < np.median(ratios[half + 2 :])


def test_nothing_to_judge_is_nan() -> None:
    assert np.isnan(nmr(np.zeros(RATE), np.ones(RATE), RATE))
    assert np.isnan(nmr_audible(np.ones(100), np.ones(100), RATE))
    assert noise_to_mask(np.zeros(RATE), np.zeros(RATE), RATE).shape[0] == 0
