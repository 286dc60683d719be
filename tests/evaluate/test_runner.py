"""The engine and its commands with codecs whose damage is known."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from linnet.bits import LinnetError
from linnet.evaluate import cli, codecs
from linnet.evaluate.codecs import Codec, Coded, Contestant
from linnet.evaluate.codecs.g711 import G711
from linnet.evaluate.metrics import METRICS as KNOWN
from linnet.evaluate.runner import MetricError, Report, evaluate
from linnet.evaluate.sets import Clip, SetError, find_clips, find_files, said_of_each
from linnet.evaluate.store import Store
from linnet.evaluate.tables import as_markdown, as_text

RATE = 16_000
SPEECH = Path(__file__).parents[1] / "data" / "speech.flac"
METRICS = ["log_mel", "band_error", "si_sdr"]


@dataclass(frozen=True)
class Gain(Codec):
    """Quieter the fewer bits there are; it counts its runs in a file, because it may run in another process."""

    counter: Path
    name: str = "gain"
    known_delay: int | None = 0
    late: int = 0
    version: str = "1"
    rates = (1.0, 2.0)

    def identity(self) -> str:
        return self.version

    def delay(self, kbps: float) -> int | None:  # noqa: ARG002
        return self.known_delay

    def run(self, samples: np.ndarray, kbps: float) -> Coded:
        with self.counter.open("a") as lines:
            lines.write(f"{kbps}\n")
        late = np.pad(samples, (self.late, 0))[: len(samples)]
        return Coded(late * kbps / 2, 1000 * kbps, 1.0)

    @property
    def count(self) -> int:
        return len(self.counter.read_text().split())


@dataclass(frozen=True)
class Broken(Codec):
    name: str = "broken"
    usual_kbps = (3.0,)

    def identity(self) -> str:
        return ""

    def run(self, samples: np.ndarray, kbps: float) -> Coded:
        raise RuntimeError(f"no way with {len(samples)} samples at {kbps:g}")


@dataclass(frozen=True)
class Missing(Broken):
    name: str = "missing"

    def available(self) -> str:
        return "missing not found: apt install it"


@pytest.fixture
def gain(tmp_path: Path) -> Gain:
    return Gain(tmp_path / "runs.txt")


def run(tmp_path: Path, codec: Codec, files: Sequence[Path], metrics: Sequence[str] = METRICS, rates: tuple = (2.0,)) -> Report:
    return evaluate([Contestant(codec, rates)], [Clip(path.name, path) for path in files], metrics, Store(tmp_path / "store"))


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


def test_rows_and_means(folder: Path, gain: Gain, tmp_path: Path) -> None:
    contestants = [Contestant(gain, (2.0, 1.0)), Contestant(Broken(), (3.0,)), Contestant(Missing(), (3.0,))]
    report = evaluate(contestants, find_clips(folder), METRICS, Store(tmp_path / "store"))
    assert [row.file for row in report.errors] == ["a.wav", "deep/b.flac", "silent.wav", "torn.wav"]
    assert report.errors[0].error == f"RuntimeError: no way with {2 * RATE} samples at 3"
    assert report.errors[-1].error.startswith("cannot be read")
    assert [summary.label for summary in report.summaries] == ["gain 2", "gain 1"]
    untouched, quieter = (summary.means["band_error"] for summary in report.summaries)
    assert untouched.value == pytest.approx(0.0, abs=1e-4)
    assert (untouched.files, untouched.unscored) == (2, 1)
    silent = next(line for _, line in report.oddities if line.startswith("gain 2: 1 of 3 files are odd"))
    assert "silent.wav: the original is silent or under 0.5 s" in silent
    assert quieter.value == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert report.summaries[1].kbps == 1.0
    assert report.rows[1].notes == ["level is -6.0 dB off"]
    assert [(skipped.codec, skipped.reason) for skipped in report.skipped] == [("missing", "missing not found: apt install it")]
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["rows"][-1]["kbps"] is None


def test_means_by_what_a_corpus_says_of_its_speakers(folder: Path, gain: Gain, tmp_path: Path) -> None:
    (folder / "torn.wav").unlink()
    entries = ["a.wav,speech,test,de", "deep/b.flac,speech,test,ml", "silent.wav,speech,test,"]
    (folder / "manifest.csv").write_text("\n".join(["path,kind,split,language", *entries]))
    report = evaluate([Contestant(gain, (2.0, 1.0))], find_clips(folder), METRICS, Store(tmp_path / "store"))
    report = report.by("language", said_of_each(folder, "language"), METRICS)
    found = [(one.group, one.label, one.files) for one in report.groups]
    assert found[:3] == [("language de", "gain 2", 1), ("language de", "gain 1", 1), ("language ml", "gain 2", 1)]
    assert found[-1][0] == "language unknown"
    assert "language ml" in as_text(report, METRICS)
    assert "| language ml | gain 1 | 1 |" in as_markdown(report, METRICS, "linnet", 3)
    with pytest.raises(SetError, match="no column 'accent'"):
        said_of_each(folder, "accent")
    with pytest.raises(SetError, match="no corpus"):
        said_of_each(folder / "deep", "language")


def test_processes_change_nothing(folder: Path, tmp_path: Path) -> None:
    files = find_clips(folder)
    contestants = [Contestant(G711("a", "a"), (64.0,)), Contestant(G711("mu", "mu"), (64.0,))]
    seen: list[int] = []
    alone = evaluate(contestants, files, METRICS, Store(tmp_path / "one"), jobs=1)
    together = evaluate(contestants, files, METRICS, Store(tmp_path / "two"), 2, on_done=lambda: seen.append(1))
    assert alone.to_json() == together.to_json()
    assert len(seen) == len(files) * 2
    assert len([row for row in together.rows if row.file == "torn.wav"]) == 1


@pytest.mark.parametrize("send", [os.kill, os.killpg])  # to the command alone, as from a script, or to all, as from a terminal
def test_an_interrupt_ends_all_processes(folder: Path, tmp_path: Path, send: Callable[[int, int], None]) -> None:
    script, temporary = tmp_path / "slow.py", tmp_path / "tmp"
    script.write_text("import os, pathlib, sys, time\npathlib.Path(sys.argv[3], str(os.getpid())).touch()\ntime.sleep(20)\n")
    (tmp_path / "begun").mkdir()
    temporary.mkdir()
    args = [folder, "--codec", f"slow@6={sys.executable} {script} {{in}} {{out}} {tmp_path}/begun", "--jobs", "2"]
    args += ["--metrics", "si_sdr", "--cache", tmp_path / "cache", "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "linnet", "compare", *args]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, start_new_session=True) as comparing:
        while comparing.poll() is None and len(list((tmp_path / "begun").iterdir())) < 2:
            time.sleep(0.05)
        send(comparing.pid, signal.SIGINT)
        assert comparing.communicate(timeout=15)[1].strip() == b""
    assert comparing.returncode == 130
    assert send is os.killpg or not list(temporary.iterdir())


def test_nothing_is_done_twice(gain: Gain, tmp_path: Path) -> None:
    first = run(tmp_path, gain, [SPEECH])
    assert gain.count == 1
    assert run(tmp_path, gain, [SPEECH]).to_json() == first.to_json()
    copied = tmp_path / "another name.wav"
    soundfile.write(copied, soundfile.read(SPEECH)[0], RATE)
    run(tmp_path, gain, [copied], [*METRICS, "lsd_low"])  # the same samples, and a new metric
    assert gain.count == 1
    run(tmp_path, gain, [SPEECH], rates=(1.0, 2.0))
    assert gain.count == 2
    run(tmp_path, replace(gain, version="2"), [SPEECH])
    assert gain.count == 3


def test_what_is_half_written_is_made_again(gain: Gain, tmp_path: Path) -> None:
    run(tmp_path, gain, [SPEECH])
    (record,) = (tmp_path / "store").rglob("*.json")
    record.write_text(record.read_text()[:-9])
    report = run(tmp_path, gain, [SPEECH])
    assert gain.count == 2
    assert report.errors == []
    next((tmp_path / "store").rglob("*.flac")).unlink()
    run(tmp_path, gain, [SPEECH])
    assert gain.count == 3
    (audio,) = (tmp_path / "store").rglob("*.flac")
    for times, left in ((4, audio.read_bytes()[: audio.stat().st_size // 2]), (5, b"")):
        audio.write_bytes(left)
        assert run(tmp_path, gain, [SPEECH]).errors == []
        assert gain.count == times
    assert {path.suffix for path in (tmp_path / "store").rglob("*.*")} == {".flac", ".json"}
    assert not list((tmp_path / "store").rglob(".*"))


def test_what_lies_elsewhere_stays_out_of_the_mean(gain: Gain, tmp_path: Path) -> None:
    report = run(tmp_path, replace(gain, late=7), [SPEECH])
    assert report.rows[0].fault == "shifted by +7 samples (+0.44 ms)"
    assert report.rows[0].scores["si_sdr"] < 20
    assert (report.summaries[0].means["si_sdr"].files, report.summaries[0].faults) == (0, 1)
    assert report.errors == report.rows


@dataclass(frozen=True)
class Planted(Broken):
    """Gives back what it took, but for one thing that is wrong with it."""

    wrong: str = ""

    def identity(self) -> str:
        return self.wrong

    def run(self, samples: np.ndarray, kbps: float) -> Coded:
        made = {
            "nothing": samples,
            "delay": np.pad(samples, (7, 0))[:-7],
            "polarity": -samples,
            "level": samples * 10 ** (-6 / 20),
            "swapped": np.roll(samples, len(samples) // 2),
        }
        return Coded(made[self.wrong], 1000 * kbps, 1.0)


@pytest.mark.parametrize(
    ("wrong", "fault", "note"),
    [
        ("nothing", "", ""),
        ("delay", "shifted by +7 samples (+0.44 ms)", ""),
        ("polarity", "", "polarity is flipped"),
        ("level", "", "level is -6.0 dB off"),
        ("swapped", "not the same recording", ""),
    ],
)
def test_what_is_planted_is_told(tmp_path: Path, wrong: str, fault: str, note: str) -> None:
    report = run(tmp_path, Planted(wrong=wrong), [SPEECH], rates=(1.0,))
    (row,) = report.rows
    assert row.fault.startswith(fault)
    assert bool(row.fault) == bool(fault)
    assert row.notes == [note] * bool(note)
    assert report.summaries[0].means["si_sdr"].files == (0 if fault else 1)  # what lies elsewhere is not averaged in
    told = [("clean", f"broken 1: 1 of 1 files are odd, like {row.file}: {note}")]
    assert report.oddities == told * bool(note)


def test_an_unknown_delay_is_measured(gain: Gain, tmp_path: Path) -> None:
    (row,) = run(tmp_path, replace(gain, late=160, known_delay=None), [SPEECH]).rows
    assert row.delay_ms == 10.0
    assert row.fault == ""
    assert row.scores["si_sdr"] > 20  # the codec has cut the end


def test_a_command_that_is_late_loses_nothing(tmp_path: Path) -> None:
    script = tmp_path / "late.py"
    script.write_text(
        "import sys, numpy, soundfile\n"
        "samples, rate = soundfile.read(sys.argv[1])\n"
        "soundfile.write(sys.argv[2], numpy.pad(samples, (320, 0)), rate)\n"
    )
    (contestant,) = codecs.parse_codecs([f"late@6={sys.executable} {script} {{in}} {{out}}"])
    (row,) = run(tmp_path, contestant.codec, [SPEECH], rates=contestant.rates).rows
    assert row.delay_ms == 20.0
    assert row.scores["si_sdr"] > 60


def test_pairs(folder: Path, tmp_path: Path) -> None:
    contestants = [Contestant(G711("a", "a"), (64.0,)), Contestant(G711("mu", "mu"), (64.0,))]
    report = evaluate(contestants, find_clips(folder), METRICS, Store(tmp_path / "store"))
    (pair,) = report.pairs("si_sdr", "clean").values()
    first, second = (summary.means["si_sdr"].value for summary in report.summaries)
    assert list(report.pairs("si_sdr", "clean")) == [("a 64", "mu 64")]
    assert pair.difference == pytest.approx(first - second)
    assert pair.files == 2


def test_an_unknown_metric(gain: Gain, tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="mos"):
        run(tmp_path, gain, [SPEECH], ["mos"])


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


@pytest.fixture
def offered(gain: Gain, monkeypatch: pytest.MonkeyPatch) -> Gain:
    """`gain` and `missing` as codecs that have a name."""
    made = {"gain": lambda: gain, "missing": Missing}
    monkeypatch.setattr(codecs, "CODECS", {**made, "g711a": codecs.CODECS["g711a"]})
    return gain


def test_eval(offered: Gain, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    out, page = tmp_path / "out.json", tmp_path / "out.md"
    args = ["gain", "--set", str(folder), "--kbps", "1,2", "--jobs", "1", "--metrics", "log_mel,si_sdr", "--codec", "missing"]
    args += ["--json", str(out), "--markdown", str(page), "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/linnet", "eval", *args])
    result = CliRunner().invoke(cli.evaluate, args, catch_exceptions=False)
    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["codec", "kbit/s", "kHz", "log_mel,", "dB", "si_sdr,", "dB"]
    assert [row.split()[:4] for row in rows] == [["gain", "1", "1.00", "8"], ["gain", "2", "2.00", "8"]]
    assert result.stderr.splitlines()[0] == "missing is skipped: missing not found: apt install it"
    assert result.stderr.splitlines()[1].startswith("torn.wav: cannot be read")  # and no progress bar in a pipe
    written = json.loads(out.read_text())
    assert written["command"].startswith("linnet eval gain --set ")
    assert written["files"] == 4
    assert len(written["rows"]) == 7
    assert written["summaries"][0]["means"]["log_mel"]["files"] == 2
    assert f"Made by `{written['command']}`." in page.read_text()
    assert "| codec | kbit/s | kHz | log_mel, dB | si_sdr, dB |" in page.read_text()
    assert not list(tmp_path.glob(".*"))


def test_compare(offered: Gain, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = [str(folder), "--codec", "gain,missing", "--kbps", "1,2", "--metrics", "log_mel,si_sdr", "--jobs", "1"]
    args += ["--out", str(out), "--cache", str(tmp_path / "cache"), "--codec", "less@3=cp {in} {out}"]
    for _ in range(2):
        result = CliRunner().invoke(cli.compare, args, catch_exceptions=False)
        assert result.exit_code == 0
    assert offered.count == 2 * 3  # two rates of three files that can be read, once
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "results.csv", "results.json"]
    with (out / "results.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["codec"] for row in rows if row["file"] == "a.wav"] == ["gain", "gain", "less"]
    assert float(rows[0]["log_mel"]) == pytest.approx(6.0, abs=0.3)
    assert rows[0]["notes"] == "level is -6.0 dB off"
    written = json.loads((out / "results.json").read_text())
    assert {summary["label"] for summary in written["summaries"]} == {"gain 1", "gain 2", "less 3"}
    assert written["skipped"] == [{"codec": "missing", "reason": "missing not found: apt install it"}]


def test_shards_fill_one_cache(offered: Gain, folder: Path, tmp_path: Path) -> None:
    def compared(*more: str) -> list[str]:
        args = [str(folder), "--codec", "gain", "--kbps", "1", "--metrics", "si_sdr", "--jobs", "1", *more]
        args += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
        assert CliRunner().invoke(cli.compare, args, catch_exceptions=False).exit_code == 0
        return [row["file"] for row in json.loads((tmp_path / "out" / "results.json").read_text())["rows"]]

    parts = [compared("--shard", f"{place}/2") for place in (1, 2)]
    assert offered.count == 3
    whole = compared()
    assert offered.count == 3  # of the whole nothing is left to do
    assert sorted(parts[0] + parts[1]) == sorted(whole)
    assert all(parts)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--shard", "3/2"], "--shard '3/2'"),
        (["--shard", "half"], "--shard 'half'"),
        (["--kbps", "one"], "--kbps 'one'"),
        (["--kbps", "nan"], "--kbps 'nan'"),
        (["--codec", "g711a@0"], "more than 0"),
        (["--codec", "mp4"], "no codec is called 'mp4'"),
        (["--codec", "gain=cp {in} {out}"], "two codecs are called 'gain'"),
        (["--metrics", "mos"], "no metric is called 'mos'"),
        (["--metrics", " ,"], "--metrics ' ,' names none"),
        (["--shard", "5/5"], "--shard 5/5 has none"),
        (["--json", "/nowhere/at/all.json", "--metrics", "si_sdr", "--limit", "1"], "cannot be written"),
    ],
)
def test_mistakes_are_linnet_errors(offered: Gain, folder: Path, tmp_path: Path, changed: list[str], said: str) -> None:  # noqa: ARG001
    args = ["gain", "--set", str(folder), "--kbps", "1", "--jobs", "1", "--cache", str(tmp_path / "cache"), *changed]
    error = CliRunner().invoke(cli.evaluate, args).exception
    assert isinstance(error, LinnetError)
    assert said in str(error)


def test_metrics_that_are_not_installed_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(KNOWN, "pesq_wb", replace(KNOWN["pesq_wb"], package="no_such_package"))
    assert "pesq_wb" not in cli._installed()
    assert "without the metrics of no_such_package" in capsys.readouterr().err


def test_nothing_measured_is_an_error(offered: Gain, tmp_path: Path) -> None:  # noqa: ARG001
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "text.wav").write_text("no sound")
    options = ["--metrics", "si_sdr", "--jobs", "1", "--cache", str(tmp_path / "cache")]
    outs = [tmp_path / "o.json", tmp_path / "page"]
    for command, args in (
        (cli.evaluate, ["gain", "--set", str(tmp_path / "set"), "--json", str(outs[0])]),
        (cli.compare, [str(tmp_path / "set"), "--codec", "gain@1", "--out", str(outs[1])]),
    ):
        error = CliRunner().invoke(command, [*args, *options]).exception
        assert isinstance(error, LinnetError)
        assert "nothing could be measured" in str(error)
        assert "text.wav" in str(error)
    assert not any(out.exists() for out in outs)


def test_a_run_that_measures_nothing_leaves_the_report_before(offered: Gain, folder: Path, tmp_path: Path) -> None:  # noqa: ARG001
    args = [str(folder), "--kbps", "1", "--jobs", "1", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    args.append("--codec")
    assert CliRunner().invoke(cli.compare, [*args, "gain", "--metrics", "si_sdr"]).exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for more, said in (
        (["missing"], "1 failed, the first is missing: missing not found: apt install it"),
        (["gain", "--shard", "9/9"], "has none of so few clips"),
        (["gain", "--metrics", ","], "names none"),
    ):
        error = CliRunner().invoke(cli.compare, [*args, *more]).exception
        assert isinstance(error, LinnetError)
        assert said in str(error)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    "manifest",
    [
        b"\xff\xfe",
        b"path,kind,split,condition,clip,reference,seed,sha256,reference_sha256\na.wav,speech,test,clean,a,,x,,\n",
        b"path,kind,split,condition,clip,reference,seed,sha256,reference_sha256\na.wav,speech,test,clean\n",
    ],
)
def test_a_manifest_that_is_none_is_told(tmp_path: Path, manifest: bytes) -> None:
    (tmp_path / "manifest.csv").write_bytes(manifest)
    with pytest.raises(SetError, match=r"manifest\.csv"):
        find_clips(tmp_path)
