"""Degradations: drawn alike from the same seed, in the asked measure, with the clean target beside them."""

import numpy as np
import pytest

from linnet.lab.data.corpus import Clip, Packed
from linnet.lab.data.crops import CropConfig, CropSampler
from linnet.lab.data.degrade import DegradeConfig, Degrader
from linnet.lab.data.noises import blows, machine, synthetic, turbulence

RATE = 16000


def packed(*recordings):
    audio = np.concatenate(recordings)
    offsets = np.cumsum([0, *map(len, recordings)])
    pitch = np.zeros(len(audio) // 192 + len(recordings), np.float32)
    clips = [Clip(f"{number}.wav", "speech", "train") for number in range(len(recordings))]
    return Packed(clips, np.round(audio * 32767).astype(np.int16), offsets, pitch, offsets // 192, RATE)


def tone(hertz, seconds=2.0, level=0.1):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


SPEECH = packed(tone(300), tone(500))
NOISE = packed(0.1 * np.random.default_rng(0).standard_normal(3 * RATE).clip(-3, 3))
# A direct sound after 100 samples, an early echo at 20 ms and a late one at 80 ms.
ECHOES = np.zeros(RATE // 2)
ECHOES[100], ECHOES[100 + 320], ECHOES[100 + 1280] = 0.8, 0.4, 0.4
ROOMS = packed(ECHOES)
CLEAN = tone(400).astype(np.float32)


def degraded(**settings):
    return Degrader(DegradeConfig(**settings), SPEECH, NOISE, ROOMS)(CLEAN, np.random.default_rng(1))


def level(x):
    return np.sqrt(np.mean(np.square(x)))


def test_nothing_asked_nothing_done():
    heard, target = degraded()
    np.testing.assert_array_equal(heard, CLEAN)
    np.testing.assert_array_equal(target, CLEAN)
    assert not DegradeConfig().active


def test_noise_and_babble_have_the_level_asked_for_and_stay_out_of_the_target():
    for settings in (
        {"noise_probability": 1.0, "snr_db": (10.0, 10.0)},
        {"babble_probability": 1.0, "babble_snr_db": (10.0, 10.0)},
        {"noise_probability": 1.0, "snr_db": (10.0, 10.0), "synthetic_share": 1.0},
    ):
        heard, target = degraded(**settings)
        np.testing.assert_array_equal(target, CLEAN)
        assert 20 * np.log10(level(CLEAN) / level(heard - CLEAN)) == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("family", [turbulence, machine, blows, synthetic])
def test_noise_that_is_made_up_sounds_and_is_drawn_from_its_generator(family):
    for seed in range(30):
        noise = family(8000, RATE, np.random.default_rng(seed))
        assert noise.shape == (8000,)
        assert np.isfinite(noise).all()
        assert level(noise) > 1e-5
    np.testing.assert_array_equal(noise, family(8000, RATE, np.random.default_rng(29)))


def test_a_room_keeps_its_early_echo_in_the_target_and_adds_no_delay():
    heard, target = degraded(room_probability=1.0)
    click = np.zeros(RATE, np.float32)
    click[1000] = 0.1
    heard, target = Degrader(DegradeConfig(room_probability=1.0), SPEECH, NOISE, ROOMS)(click, np.random.default_rng(1))
    np.testing.assert_allclose(heard[[1000, 1320, 2280]], [0.1, 0.05, 0.05], rtol=1e-3)
    np.testing.assert_allclose(target[[1000, 1320, 2280]], [0.1, 0.05, 0.0], rtol=1e-3, atol=1e-6)


def test_noise_plays_backwards_and_in_a_room():
    rising = packed(np.linspace(0, 0.5, 3 * RATE) * tone(440, 3.0, 1.0))
    settings = {"noise_probability": 1.0, "noises": 1, "noise_colour_db": 0.0, "noise_speed": (1.0, 1.0)}

    def noise(**more):
        config = DegradeConfig(**settings, **more)
        return Degrader(config, SPEECH, rising, ROOMS)(CLEAN, np.random.default_rng(1))[0] - CLEAN

    quarter = len(CLEAN) // 4
    assert level(noise()[:quarter]) < level(noise()[-quarter:])
    backwards = noise(reversed_share=1.0)
    assert level(backwards[:quarter]) > level(backwards[-quarter:])
    assert not np.allclose(noise(noise_room_share=1.0), noise(), atol=1e-3)
    with pytest.raises(ValueError, match="no room responses"):
        Degrader(DegradeConfig(noise_probability=1.0, noise_room_share=0.1), SPEECH, NOISE, None)


def test_noise_or_a_room_are_one_choice():
    config = DegradeConfig(noise_probability=1 / 3, room_probability=1 / 3, noise_or_room=True, snr_db=(20.0, 20.0))
    degrader, echoing = Degrader(config, SPEECH, NOISE, ROOMS), degraded(room_probability=1.0)[0]
    cases = []
    for seed in range(60):
        heard, target = degrader(CLEAN, np.random.default_rng(seed))
        in_a_room = not np.array_equal(target, CLEAN)
        assert not in_a_room or np.array_equal(heard, echoing)
        cases.append("room" if in_a_room else "clean" if np.array_equal(heard, CLEAN) else "noise")
    assert min(cases.count(case) for case in ("clean", "room", "noise")) > 10


def test_a_band_limit_takes_what_lies_above():
    rng = np.random.default_rng(2)
    noise = rng.standard_normal(RATE).astype(np.float32)
    heard, _ = Degrader(DegradeConfig(band_probability=1.0, band_hz=(4000, 4000)), SPEECH, None, None)(noise, rng)
    spectrum = np.abs(np.fft.rfft(heard)) / np.abs(np.fft.rfft(noise))
    assert np.median(spectrum[:3900]) == pytest.approx(1, abs=0.05)
    assert np.median(spectrum[5000:]) < 0.01


def test_clipping_steps_lines_and_colour_change_what_is_heard_only():
    for name in ("clip", "gain", "line", "colour"):
        heard, target = degraded(**{f"{name}_probability": 1.0}, clip_share=(0.2, 0.3))
        np.testing.assert_array_equal(target, CLEAN)
        assert 1e-4 < level(heard - CLEAN) < 0.5
        assert np.isfinite(heard).all()


def test_what_the_corpus_lacks_is_said():
    with pytest.raises(ValueError, match="no room responses"):
        Degrader(DegradeConfig(room_probability=0.5), SPEECH, NOISE, None)
    with pytest.raises(ValueError, match="has none"):
        Degrader(DegradeConfig(noise_probability=0.5), SPEECH, None, ROOMS)


def test_a_crop_comes_with_its_target_at_the_same_gain_and_again_from_the_same_step():
    config = CropConfig(frames=40, noise_probability=0.0, degrade=DegradeConfig(noise_probability=1.0, room_probability=0.5))
    sampler = CropSampler(SPEECH, NOISE, config, 192, -48, seed=3, rooms=ROOMS)
    batch, again = sampler.batch(4, step=5), sampler.batch(4, step=5)
    np.testing.assert_array_equal(batch.samples, again.samples)
    assert batch.samples.shape == batch.target.shape == (4, 40 * 192)
    assert (np.abs(batch.samples) <= 1).all()
    for heard, target in zip(batch.samples, batch.target, strict=True):
        # The target is the part of what is heard that stays when the noise, which knows nothing of it, averages out.
        assert np.dot(heard, target) / np.dot(target, target) == pytest.approx(1, abs=0.5)
