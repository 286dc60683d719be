"""The real codecs on a real sentence; each test is skipped, with the reason, where its codec is not installed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from linnet.evaluate import codecs
from linnet.evaluate.alignment import align
from linnet.evaluate.codecs import CODECS, Codec, CodecError, Coded, amr, known_codecs, parse_codecs, through
from linnet.evaluate.codecs.amr import AmrNb, AmrWb
from linnet.evaluate.codecs.bundle import Bundle
from linnet.evaluate.codecs.command import Command
from linnet.evaluate.codecs.g711 import G711, a_law, mu_law
from linnet.evaluate.codecs.vocoder import Codec2
from linnet.evaluate.codecs.xiph import Opus
from linnet.evaluate.metrics import estoi, si_sdr

RATE = 16_000
KBPS_SLACK = {"opus": 1.5, "opus-cbr": 0.25, "aac": 1.5}  # the others are exact
LEAST_ESTOI = {"opus": 0.7, "opus-cbr": 0.65, "codec2": 0.4, "speex-nb": 0.5, "speex-wb": 0.5, "mp3": 0.6}

each = pytest.mark.parametrize("name", list(CODECS))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return soundfile.read(Path(__file__).parents[1] / "data" / "speech.flac")[0]


def installed(name: str) -> Codec:
    codec = CODECS[name]()
    reason = codec.available()
    if reason is not None:
        pytest.skip(reason)
    return codec


def modes(codec: Codec) -> list[float]:
    return sorted({codec.mode(kbps) for kbps in (0.1, *codec.usual_kbps, 2.4, 12.2)})


@each
def test_speech_comes_back_in_its_place(name: str, speech: np.ndarray) -> None:
    codec = installed(name)
    rates = modes(codec)
    for kbps, output in zip(rates, through(codec, speech, rates), strict=True):
        place = align(speech, output.samples)
        assert output.samples.shape == speech.shape
        assert abs(output.kbps - kbps) <= KBPS_SLACK.get(name, 1e-9)
        assert place.fault() == ""
        assert abs(place.lag_ms) <= (0.13 if place.exact else 4.0)


@each
def test_speech_stays_intelligible(name: str, speech: np.ndarray) -> None:
    codec = installed(name)
    pytest.importorskip("pystoi")
    for output in through(codec, speech, codec.usual_kbps):
        assert estoi(speech, output.samples, RATE) > LEAST_ESTOI.get(name, 0.75)


@each
@pytest.mark.parametrize("length", [1, 319, 16_001])
def test_any_length(name: str, speech: np.ndarray, length: int) -> None:
    codec = installed(name)
    for output in through(codec, speech[:length], codec.usual_kbps[:1]):
        assert output.samples.shape == (length,)
        assert output.kbps > 0


@each
def test_runs_repeat(name: str, speech: np.ndarray) -> None:
    codec = installed(name)
    one, other = (next(through(codec, speech[:RATE], codec.usual_kbps[:1])).samples for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert codec.identity() == CODECS[name]().identity()


def test_narrow_is_told_from_wide(speech: np.ndarray) -> None:
    opus = installed("opus")
    assert [output.bandwidth_hz for output in through(opus, speech, [6.0, 24.0])] == [4000, 8000]


def test_a_model_is_encoded_once_for_all_its_rates(speech: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    import linnet

    model, counted = linnet.load("clear"), []
    encode = model.encode_codes
    monkeypatch.setattr(model, "encode_codes", lambda *args: counted.append(1) or encode(*args))
    monkeypatch.setattr(codecs.bundle, "opened", lambda _: model)
    outputs = list(through(Bundle("clear"), speech[:RATE], [1.0, 6.0]))
    assert len(counted) == 1
    assert [output.kbps for output in outputs] == [1.0, 6.0]
    np.testing.assert_allclose(outputs[1].samples, np.clip(model.decode(model.encode(speech[:RATE], RATE), RATE), -1, 1)[:RATE])


@pytest.mark.parametrize(("law", "quietest", "loudest"), [(a_law, 8, 32256), (mu_law, 0, 32124)])
def test_g711_is_the_standards(law: Callable[[np.ndarray], np.ndarray], quietest: int, loudest: int) -> None:
    """Decoder outputs of G.711's tables, in 16 bits: 256 values, symmetric, the steps doubling with each segment."""
    every = np.arange(-32768, 32768).astype(np.int16)
    out = law(every)
    assert len(np.unique(out)) == (256 if law is a_law else 255)  # mu-law has a plus and a minus zero
    assert (np.diff(out) >= 0).all()
    assert out.max() == loudest == -out.min()
    assert np.abs(out).min() == quietest
    np.testing.assert_array_equal(law(out.astype(np.int16)), out)


@pytest.mark.parametrize("law", ["a", "mu"])
def test_g711_has_38_db(law: str) -> None:
    """The ratio of a sine at -10 dBm0 is the textbook figure of both laws, 38 dB."""
    tone = 10 ** (-10 / 20) * np.sin(2 * np.pi * 1020 * np.arange(8000) / 8000)
    assert si_sdr(tone, G711("g711", law).run(tone, 64.0).samples, RATE) == pytest.approx(38.0, abs=1.5)


@pytest.mark.parametrize(("codec", "package"), [(Opus(), "opus-tools"), (Codec2(), "codec2")])
def test_a_missing_tool_names_its_package(codec: Codec, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert f"apt install {package}" in str(codec.available())
    with pytest.raises(CodecError, match=package):
        next(through(codec, np.zeros(RATE), [6.0]))


@pytest.mark.parametrize(
    ("codec", "package"), [(AmrNb(), "libopencore-amrnb0"), (AmrWb(), "libvo-amrwbenc0 libopencore-amrwb0")]
)
def test_a_missing_library_names_its_packages(codec: Codec, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(amr.ctypes, "CDLL", absent)
    assert f"apt install {package}" in str(codec.available())


def test_a_tool_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for tool in ("c2enc", "c2dec"):
        script = tmp_path / tool
        script.write_text("#!/bin/sh\necho 'no such mode' >&2\nexit 1\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CodecError, match="c2enc failed: no such mode"):
        next(through(Codec2(), np.zeros(RATE), [1.2]))


def test_a_command(speech: np.ndarray) -> None:
    (contestant,) = parse_codecs(["copy@2,8=cp {in} {out} && head -c {kbps}000 {in} > {bits}"])
    outputs = list(through(contestant.codec, speech, contestant.rates))
    np.testing.assert_allclose(outputs[0].samples[: len(speech)], speech, atol=1 / 32768)
    assert len(outputs[0].samples) == len(speech) + RATE // 4  # room for a delay that is not known
    seconds = len(speech) / RATE
    assert [output.kbps for output in outputs] == pytest.approx([16 / seconds, 64 / seconds])
    assert outputs[0].delay_ms is None


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("cp {in} /dev/null", "lacks {in} or {out}"),
        ("cp {in} {out} {rate}", "has {rate}"),
        ("true {in} {out}", "left no readable output"),
        ("ls --no-such-option {in} {out}", "failed"),
    ],
)
def test_a_command_that_is_wrong(template: str, said: str) -> None:
    with pytest.raises(CodecError) as error:
        Command("wrong", template).run(np.zeros(RATE), 6.0)
    assert said in str(error.value)


def test_a_missing_command_is_told() -> None:
    assert "nowhere-at-all not found" in str(Command("gone", "nowhere-at-all {in} {out}").available())


@dataclass(frozen=True)
class Silent(Codec):
    """What another package offers."""

    name: str = "silent"
    usual_kbps = (0.5,)

    def identity(self) -> str:
        return "1"

    def run(self, samples: np.ndarray, kbps: float) -> Coded:
        return Coded(0 * samples, 1000 * kbps, 1.0)


class Point:
    name = "silent"

    def load(self) -> type[Codec]:
        return Silent


def test_a_class_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "entry_points", lambda group: [Point()] if group == "linnet.codecs" else [])
    assert "silent" in known_codecs()
    (contestant,) = parse_codecs(["silent"])
    assert contestant.codec == Silent()
    assert contestant.rates == (0.5,)


def test_a_class_without_usual_rates_wants_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(Silent):
        usual_kbps = ()

    monkeypatch.setattr(Point, "load", lambda _: Bare)
    monkeypatch.setattr(codecs, "entry_points", lambda group: [Point()] if group == "linnet.codecs" else [])
    with pytest.raises(CodecError, match="give silent@KBPS or --kbps, or its class usual_kbps"):
        parse_codecs(["opus,silent"])
    for specs, kbps in ((["silent@3"], ()), (["silent"], [3]), (["silent,silent@3"], ())):
        assert [contestant.rates for contestant in parse_codecs(specs, kbps)] == [(3.0,)]


def test_what_is_named(tmp_path: Path) -> None:
    found = {
        item.codec.name: item.rates for item in parse_codecs(["opus@6,12,codec2@0.7", "amrwb", "clear", "amrwb@24"], [2, 7])
    }
    assert found == {"opus": (6, 12), "codec2": (0.7,), "amrwb": (6.6, 23.85), "clear": (2, 6)}
    assert parse_codecs(["none"]) == []
    assert {item.codec.name for item in parse_codecs(["all"])} == set(CODECS)
    with pytest.raises(CodecError, match="did you mean amrwb"):
        parse_codecs(["amr-wb"])
    with pytest.raises(CodecError, match="rates are kbit/s"):
        parse_codecs(["opus@six"])
    with pytest.raises(CodecError, match="more than 0"):
        parse_codecs(["opus@0"])
    with pytest.raises(CodecError, match="two codecs are called 'opus'"):
        parse_codecs(["opus", "opus=cp {in} {out}"])
    with pytest.raises(Exception, match="not a bundle"):
        parse_codecs([str(tmp_path)])
