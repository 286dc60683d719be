"""The real codecs on a real sentence; each test is skipped, with the reason, where its codec is not installed."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from linnet.evaluate import baselines
from linnet.evaluate.baselines import BASELINES, AmrWb, Baseline, BaselineError, Codec2, Opus
from linnet.evaluate.metrics import estoi

RATE = 16_000
EVERY = [codec for family in BASELINES.values() for codec in family()]
KBPS = {"opus 6 VBR": (4.5, 6.5), "opus 6 CBR": (5.9, 6.1), "amrwb 6.60": (6.6, 6.6)}
KBPS |= {"codec2 1200": (1.2, 1.2), "codec2 3200": (3.2, 3.2)}
LEAST_ESTOI = {"opus 6 VBR": 0.7, "opus 6 CBR": 0.65, "codec2 1200": 0.45, "codec2 3200": 0.55, "amrwb 6.60": 0.75}

each = pytest.mark.parametrize("codec", EVERY, ids=lambda codec: codec.name)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return soundfile.read(Path(__file__).parents[1] / "data" / "speech.flac")[0]


def need(codec: Baseline) -> None:
    reason = codec.available()
    if reason is not None:
        pytest.skip(reason)


def envelope(samples: np.ndarray) -> np.ndarray:
    """Log energy below 3.4 kHz, which every codec here carries: 16 ms windows every 1 ms."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 256)[::16] * np.hanning(256)
    level = np.log(np.square(np.abs(np.fft.rfft(frames)))[:, 3:54].sum(axis=1) + 1e-4)
    return level - level.mean()


def lag_ms(reference: np.ndarray, decoded: np.ndarray) -> int:
    one, other = envelope(reference), envelope(decoded)
    lags = range(-40, 41)
    return max(lags, key=lambda lag: float(one[40:-40] @ other[40 + lag : len(other) - 40 + lag]))


@each
def test_speech_comes_back_in_its_place(codec: Baseline, speech: np.ndarray) -> None:
    need(codec)
    decoded, kbps = codec.run(speech)
    low, high = KBPS[codec.name]
    assert decoded.shape == speech.shape
    assert low - 1e-9 <= kbps <= high + 1e-9
    assert abs(lag_ms(speech, decoded)) <= 4


@each
def test_speech_stays_intelligible(codec: Baseline, speech: np.ndarray) -> None:
    need(codec)
    pytest.importorskip("pystoi")
    assert estoi(speech, codec.run(speech)[0], RATE) > LEAST_ESTOI[codec.name]


@each
@pytest.mark.parametrize("length", [1, 319, 16_001])
def test_any_length(codec: Baseline, speech: np.ndarray, length: int) -> None:
    need(codec)
    decoded, kbps = codec.run(speech[:length])
    assert decoded.shape == (length,)
    assert kbps > 0


@each
def test_runs_repeat(codec: Baseline, speech: np.ndarray) -> None:
    need(codec)
    np.testing.assert_array_equal(codec.run(speech[:RATE])[0], codec.run(speech[:RATE])[0])


@pytest.mark.parametrize(("codec", "package"), [(Opus(), "opus-tools"), (Codec2(), "codec2")])
def test_a_missing_tool_names_its_package(codec: Baseline, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert f"apt install {package}" in str(codec.available())
    with pytest.raises(BaselineError, match=package):
        codec.run(np.zeros(RATE))


def test_a_missing_library_names_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(baselines.ctypes, "CDLL", absent)
    assert "libvo-amrwbenc0 libopencore-amrwb0" in str(AmrWb().available())
    with pytest.raises(BaselineError, match="apt install"):
        AmrWb().run(np.zeros(RATE))


def test_a_tool_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for tool in ("c2enc", "c2dec"):
        script = tmp_path / tool
        script.write_text("#!/bin/sh\necho 'no such mode' >&2\nexit 1\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BaselineError, match="c2enc failed: no such mode"):
        Codec2().run(np.zeros(RATE))
