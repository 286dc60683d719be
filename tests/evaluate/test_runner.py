"""The runner and its command with codecs whose damage is known, and a fake Linnet bundle."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import linnet
from linnet.bits import Layout, LayoutError, LinnetError
from linnet.evaluate import cli, runner
from linnet.evaluate.baselines import BASELINES, BaselineError, Opus
from linnet.evaluate.runner import Bundle, MetricError, Output, SetError, bootstrap_mean, evaluate, find_files

RATE = 16_000
SPEECH = Path(__file__).parents[1] / "data" / "speech.flac"
METRICS = ["log_mel", "band_error", "si_sdr"]


@dataclass(frozen=True)
class Gain:
    """Two rates: the signal untouched, and quieter."""

    name: str = "gain"

    def outputs(self, samples: np.ndarray) -> Iterator[Output]:
        yield Output("gain 2", samples, 2.0)
        yield Output("gain 1", samples / 2, 1.0)


@dataclass(frozen=True)
class Broken:
    name: str = "broken"

    def outputs(self, samples: np.ndarray) -> Iterator[Output]:
        raise RuntimeError(f"no way with {len(samples)} samples")


class FakeCodec:
    """Codes are 16-bit samples in two layers, the upper byte and the lower. It counts its encodings."""

    layout = Layout(sizes=(256, 256), layers=(1, 2), sample_rate=125, hop=1)  # 1 and 2 kbit/s

    def __init__(self) -> None:
        self.encoded = 0

    def encode_codes(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        assert sample_rate == RATE
        self.encoded += 1
        value = np.round(samples * 32768).astype(np.int64) + 32768
        return np.stack([value >> 8, value & 255], axis=1)

    def decode_codes(self, codes: np.ndarray, sample_rate: int) -> np.ndarray:
        assert sample_rate == RATE
        fine = np.where(codes[:, 1] < 0, 128, codes[:, 1])
        return ((codes[:, 0] * 256 + fine - 32768) / 32768).astype(np.float32)[:-3]  # shorter than what went in


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCodec]:
    codec = FakeCodec()

    def load(name: str) -> FakeCodec:
        if name != "fake":
            raise LinnetError(f"no model {name!r}")
        return codec

    monkeypatch.setattr(linnet, "load", load, raising=False)
    runner.opened.cache_clear()
    yield codec
    runner.opened.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    speech = soundfile.read(SPEECH)[0]
    root = tmp_path / "set"
    (root / "deep").mkdir(parents=True)
    soundfile.write(root / "a.wav", speech[: 2 * RATE], RATE)
    soundfile.write(root / "deep" / "b.flac", np.stack([speech, speech], axis=1)[: 2 * RATE], 2 * RATE)
    soundfile.write(root / "silent.wav", np.zeros(RATE), RATE)
    (root / "torn.wav").write_bytes(b"RIFF no sound")
    (root / "notes.txt").write_text("not audio")
    return root


def test_rows_and_means(folder: Path) -> None:
    report = evaluate([Gain(), Broken()], find_files(folder), METRICS, root=folder)
    assert [row.file for row in report.errors] == ["a.wav", "deep/b.flac", "silent.wav", "torn.wav"]
    assert report.errors[0].error == f"RuntimeError: no way with {2 * RATE} samples"
    assert report.errors[-1].error.startswith("cannot be read")
    assert [summary.codec for summary in report.summaries] == ["gain 2", "gain 1"]
    untouched, quieter = (summary.means["band_error"] for summary in report.summaries)
    assert (untouched.value, untouched.files, untouched.unscored) == (0.0, 2, 1)
    assert quieter.value == pytest.approx(20 * np.log10(2), abs=1e-6)
    assert report.summaries[1].kbps == 1.0
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["rows"][-1]["kbps"] is None


def test_processes_change_nothing(folder: Path) -> None:
    files = find_files(folder)
    seen: list[int] = []
    alone = evaluate([Gain()], files, METRICS, jobs=1, root=folder)
    together = evaluate([Gain()], files, METRICS, jobs=2, root=folder, on_file=lambda: seen.append(1))
    assert alone.to_json() == together.to_json()
    assert len(seen) == len(files)


def test_a_bundle_is_encoded_once_for_all_rates(fake: FakeCodec, folder: Path) -> None:
    report = evaluate([Bundle("fake", (1, 1.5, 2, 6))], [folder / "a.wav"], METRICS)
    assert fake.encoded == 1
    assert [(row.codec, row.kbps) for row in report.rows] == [("fake 1", 1.0), ("fake 2", 2.0)]
    coarse, fine = (row.scores["si_sdr"] for row in report.rows)
    assert fine > coarse + 6


def test_a_rate_too_low_is_told_before_the_work(fake: FakeCodec) -> None:  # noqa: ARG001
    with pytest.raises(LayoutError, match="below this model's first layer"):
        Bundle("fake", (0.5,)).rates()


def test_an_unknown_metric() -> None:
    with pytest.raises(MetricError, match="mos"):
        evaluate([Gain()], [SPEECH], ["mos"])


def test_bootstrap() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    mean = bootstrap_mean([*values, float("nan")])
    half = 1.96 * values.std() / 20  # the normal theory's half width
    assert mean.value == pytest.approx(values.mean())
    assert (mean.files, mean.unscored) == (400, 1)
    assert mean.high - mean.low == pytest.approx(2 * half, rel=0.1)
    assert mean == bootstrap_mean([*values, float("nan")])
    assert np.isnan(bootstrap_mean([float("nan")]).value)


def corpus(root: Path, entries: list[str]) -> Path:
    (root / "manifest.csv").write_text("\n".join(["path,kind,split,speaker", *entries]) + "\n")
    return root


def test_a_corpus_gives_the_speech_of_a_split(tmp_path: Path) -> None:
    entries = [f"speech/{n:02}.flac,speech,test,s{n}" for n in range(10)]
    corpus(tmp_path, [*entries, "speech/x.flac,speech,train,s", "noise/x.flac,noise,test,"])
    names = [path.stem for path in find_files(tmp_path, "test")]
    assert names == [f"{n:02}" for n in range(10)]
    assert [path.stem for path in find_files(tmp_path, "test", limit=4)] == ["00", "03", "06", "09"]
    assert [path.stem for path in find_files(tmp_path, "test", limit=99)] == names
    with pytest.raises(SetError, match="it has test, train"):
        find_files(tmp_path, "valid")


def test_sets_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SetError, match="is not a folder"):
        find_files(tmp_path / "nowhere")
    with pytest.raises(SetError, match="no audio files"):
        find_files(tmp_path)
    (tmp_path / "manifest.csv").write_text("path,speaker\n")
    with pytest.raises(SetError, match="no column 'kind'"):
        find_files(tmp_path)


def test_the_command(fake: FakeCodec, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    out, page = tmp_path / "out.json", tmp_path / "out.md"
    args = ["fake", "--set", str(folder), "--kbps", "1,2", "--jobs", "1", "--metrics", "log_mel,si_sdr"]
    args += ["--json", str(out), "--markdown", str(page)]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/linnet", "eval", *args])
    result = CliRunner().invoke(cli.evaluate, args, catch_exceptions=False)
    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["codec", "kbit/s", "log_mel,", "dB", "si_sdr,", "dB"]
    assert [row.split()[:3] for row in rows] == [["fake", "1", "1.00"], ["fake", "2", "2.00"]]
    assert result.stderr.startswith("torn.wav: cannot be read")  # and no progress bar in a pipe
    written = json.loads(out.read_text())
    assert written["command"].startswith("linnet eval fake --set ")
    assert written["files"] == 4
    assert len(written["rows"]) == 7
    assert written["summaries"][0]["means"]["log_mel"]["files"] == 2
    assert f"Made by `{written['command']}`." in page.read_text()
    assert "| codec | kbit/s | log_mel, dB | si_sdr, dB |" in page.read_text()
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--kbps", "one"], "--kbps 'one'"),
        (["--kbps", "0.1"], "below this model's first layer"),
        (["--baselines", "mp3"], "no baseline is called 'mp3'"),
        (["--metrics", "mos"], "no metric is called 'mos'"),
        (["--json", "/nowhere/at/all.json", "--metrics", "si_sdr", "--limit", "1"], "cannot write"),
    ],
)
def test_mistakes_are_linnet_errors(fake: FakeCodec, folder: Path, changed: list[str], said: str) -> None:  # noqa: ARG001
    args = ["fake", "--set", str(folder), "--kbps", "1", "--jobs", "1", *changed]
    error = CliRunner().invoke(cli.evaluate, args).exception
    assert isinstance(error, LinnetError)
    assert said in str(error)


def test_baselines_that_are_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Opus, "available", lambda _: "apt install opus-tools")
    assert "opus" not in {codec.name.split()[0] for codec in cli.chosen_baselines("all")}
    assert "opus is left out: apt install opus-tools" in capsys.readouterr().err
    with pytest.raises(BaselineError, match="opus-tools"):
        cli.chosen_baselines("opus")
    assert cli.chosen_baselines("none") == []
    assert set(BASELINES) == {"opus", "codec2", "amrwb"}
