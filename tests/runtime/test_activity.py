import numpy as np
import pytest

from linnet.runtime.activity import ActivityDetector

HOP, RATE = 192, 16000


def noise(frames, level, seed=0):
    return (level * np.random.default_rng(seed).standard_normal(frames * HOP)).astype(np.float32)


def sounding(detector, samples):
    return np.array([detector(frame) for frame in samples[: len(samples) // HOP * HOP].reshape(-1, HOP)])


@pytest.mark.parametrize("level", [0.0, 1e-5, 1e-3, 0.1])
def test_steady_noise_is_background_and_its_level_is_known(level):
    detector = ActivityDetector(HOP, RATE)
    assert not sounding(detector, noise(2000, level)).any()
    assert detector.background == pytest.approx(level, rel=0.15)


def test_noise_that_begins_is_background_after_two_seconds():
    detector = ActivityDetector(HOP, RATE)
    found = sounding(detector, np.concatenate([noise(300, 1e-4), noise(600, 0.01, 1)]))
    assert found[301:440].all()
    assert not found[480:].any()
    assert detector.background == pytest.approx(0.01, rel=0.15)


@pytest.mark.parametrize(("level", "least"), [(0.0, 1.0), (0.001, 1.0), (0.01, 0.93)])
def test_speech_is_heard_in_noise(speech, level, least):
    """Down to a ratio of 10 dB, of the frames within 10 dB of the speech's level."""
    pause = np.zeros(200 * HOP, np.float32)
    samples = np.concatenate([pause, speech, pause])
    found = sounding(ActivityDetector(HOP, RATE), samples + noise(len(samples) // HOP + 1, level)[: len(samples)])
    levels = np.square(samples[: len(found) * HOP].reshape(-1, HOP)).mean(axis=1)
    assert found[levels > 0.1 * np.square(speech).mean()].mean() >= least
    assert not found[:200].any()
    assert not found[-170:].any()
    assert found[200:-200].mean() > 0.7


def test_what_was_heard_is_forgotten():
    detector = ActivityDetector(HOP, RATE)
    first = sounding(detector, noise(100, 0.1))
    sounding(detector, noise(100, 0.001))
    detector.reset()
    assert detector.background == 0
    np.testing.assert_array_equal(sounding(detector, noise(100, 0.1)), first)


def test_the_background_is_that_after_the_last_sound():
    detector = ActivityDetector(HOP, RATE)
    sounding(detector, np.concatenate([noise(1, 0.3), noise(20, 0.001, 1), noise(20, 0.1, 2)]))
    assert detector.background == 0
    sounding(detector, noise(60, 0.001, 3))
    assert detector.background == pytest.approx(0.001, rel=0.15)
