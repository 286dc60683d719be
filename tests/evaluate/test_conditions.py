"""Conditions: what they are called, that they do what they say to the decibel, and that a set is made the same again."""

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import linnet
from linnet.bits import LinnetError
from linnet.evaluate import cli
from linnet.evaluate.codecs import Contestant, through
from linnet.evaluate.codecs.bundle import Bundle
from linnet.evaluate.codecs.g711 import G711
from linnet.evaluate.codecs.pcm import Pcm
from linnet.evaluate.conditions import steps
from linnet.evaluate.conditions.cli import conditions
from linnet.evaluate.conditions.grammar import KINDS, ConditionError, parse_condition, parse_conditions
from linnet.evaluate.conditions.level import active_level, power_level
from linnet.evaluate.conditions.making import Source, differences, make_set, read_hashes
from linnet.evaluate.conditions.steps import Pair
from linnet.evaluate.metrics import si_sdr
from linnet.evaluate.network import Network
from linnet.evaluate.runner import evaluate
from linnet.evaluate.sets import SetError, find_clips, read_clip, said_of_each
from linnet.evaluate.store import Store

RATE = 16_000


@pytest.fixture(scope="module")
def pair(speech: np.ndarray) -> Pair:
    return Pair(*2 * (0.5 * speech.astype(np.float64),))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, speech: np.ndarray) -> Path:
    """Two talkers, a noise longer than the clips and at another rate, and a room."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    decay = np.exp(-np.arange(RATE // 4) / 900)
    sounds = {
        "speech/a.wav": (speech[:RATE], RATE),
        "speech/b.wav": (speech[2 * RATE : 4 * RATE], RATE),
        "noise.wav": (0.1 * rng.standard_normal(5 * 8000), 8000),
        "room.wav": (np.pad(rng.standard_normal(len(decay)) * decay * 0.1, (40, 0)), RATE),
    }
    lines = ["path,kind,split,speaker"]
    for name, (samples, rate) in sounds.items():
        (root / name).parent.mkdir(exist_ok=True)
        soundfile.write(root / name, samples, rate)
        kind = {"noise.wav": "noise", "room.wav": "rir"}.get(name, "speech")
        lines.append(f"{name},{kind},test,{Path(name).stem}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_example_is_a_condition_of_its_own_name(kind: str) -> None:
    assert parse_condition(KINDS[kind].example).name == KINDS[kind].example


def test_a_list_of_conditions() -> None:
    found = parse_conditions(["clean,room+noise@-2.5", "loss@10-60ms+tandem@2", "clean"])
    assert [condition.name for condition in found] == ["clean", "room+noise@-2.5", "loss@10-60ms+tandem@2"]
    assert (found[2].network(7), found[2].times) == (Network(0.1, 60.0, 7), 2)
    assert (found[0].network(7), found[0].times) == (None, 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("noize@3", "did you mean noise"),
        ("noise", "write noise like noise@10"),
        ("loss@10-60", "like loss@10-60ms"),
        ("loss@101", "0 to 100 percent"),
        ("level@3", "-80 to 0 dBov"),
        ("band@9000", "300 to 8000 Hz"),
        ("tandem@2+tandem@3", "tandem twice"),
        ("", "there is clean"),
    ],
)
def test_what_is_no_condition_is_told(name: str, said: str) -> None:
    with pytest.raises(ConditionError, match=said):
        parse_condition(name)


def test_the_active_level_is_that_without_the_pauses() -> None:
    """P.56: of continuous noise it is the power; silence of the same length costs 3 dB of power and none of this."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE)
    assert active_level(noise) == pytest.approx(-20, abs=0.1)
    paused = np.concatenate([noise, np.zeros(4 * RATE)])
    assert power_level(paused) == pytest.approx(-23, abs=0.1)
    assert active_level(paused) == pytest.approx(-20, abs=0.4)  # the hangover of 0.2 s counts as speech
    assert active_level(0.001 * paused) == pytest.approx(active_level(paused) - 60, abs=0.1)
    assert active_level(np.zeros(RATE)) == power_level(np.zeros(RATE)) == -np.inf


def test_noise_lies_where_it_should(pair: Pair) -> None:
    noise = np.random.default_rng(1).standard_normal(len(pair.heard))
    for wanted_db in (20.0, -10.0):  # the second has to be turned down to fit into full scale
        heard, wanted = steps.add_noise(pair, noise, wanted_db)
        assert active_level(wanted) - power_level(heard - wanted) == pytest.approx(wanted_db, abs=0.05)
        assert np.abs(heard).max() <= 1


def test_a_second_talker_is_wanted_too(pair: Pair) -> None:
    heard, wanted = steps.add_talker(pair, pair.heard[::-1], 6.0)
    np.testing.assert_array_equal(heard, wanted)
    assert active_level(pair.wanted) - active_level(wanted - pair.wanted) == pytest.approx(6, abs=0.1)


def test_shaped_noise_has_the_spectrum_and_nothing_else(pair: Pair) -> None:
    noise = steps.shaped_noise(pair.heard, np.random.default_rng(2))
    np.testing.assert_allclose(np.abs(np.fft.rfft(noise))[1:-1], np.abs(np.fft.rfft(pair.heard))[1:-1], atol=1e-9)
    assert abs(np.corrcoef(noise, pair.heard)[0, 1]) < 0.05


def test_a_room_adds_its_tail_and_no_delay() -> None:
    impulse = np.zeros(RATE)
    impulse[100] = 1.0
    response = np.zeros(4000)
    response[[300, 300 + 400, 300 + 1600]] = 1.0, 0.5, 0.25  # direct, after 25 ms and after 100 ms
    heard, wanted = steps.in_room(Pair(impulse, impulse), response)
    np.testing.assert_allclose(heard[[100, 500, 1700]], [1, 0.5, 0.25], atol=1e-12)
    np.testing.assert_allclose(wanted[[100, 500, 1700]], [1, 0.5, 0], atol=1e-12)
    room = steps.modelled_room(0.5, np.random.default_rng(3))
    backwards = np.cumsum(np.square(room[:0:-1]))[::-1]  # Schroeder: the energy that is still to come
    decay_db = 10 * np.log10(backwards / backwards[0])
    assert decay_db[RATE // 4] == pytest.approx(-30, abs=1.5)


def test_level_and_band(pair: Pair) -> None:
    assert active_level(steps.at_level(pair, -40.0).wanted) == pytest.approx(-40, abs=0.05)
    heard = steps.low_passed(pair, 3000.0).heard
    power = np.square(np.abs(np.fft.rfft(heard)))
    assert power[power.size * 7 // 16 :].sum() < 1e-6 * power.sum()
    assert si_sdr(pair.heard, heard, RATE) > 5


CONDITIONS = ["clean", "noise@10", "noise@0", "room+shaped@15", "room@0.4", "talkers@3", "level@-36", "band@3400"]
CONDITIONS += ["coded@g711a-64", "loss@20-60ms", "tandem@2"]


@pytest.fixture(scope="module")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    make_set(Source(corpus, "test", 5), parse_conditions(CONDITIONS), out)
    return out


def test_a_set_is_the_same_from_the_same_seed(corpus: Path, made: Path, tmp_path: Path) -> None:
    again = make_set(Source(corpus, "test", 5), parse_conditions(CONDITIONS), tmp_path / "again")
    assert (made / "manifest.csv").read_text() == again.read_text()
    fewer = make_set(Source(corpus, "test", 5), parse_conditions(["noise@10"]), tmp_path / "fewer", limit=1)
    clip, theirs = find_clips(tmp_path / "fewer")[0], find_clips(made)
    assert clip.sha256 in {other.sha256 for other in theirs}  # a smaller set has the same noise
    whole = read_hashes(made / "manifest.csv")
    assert len(differences(read_hashes(fewer), whole)) == 2 * len(CONDITIONS) - 1
    other = make_set(Source(corpus, "test", 6), parse_conditions(["clean", "noise@10"]), tmp_path / "other")
    different = differences(read_hashes(other), whole)
    assert {"noise@10/speech/a.flac", "noise@10/speech/b.flac"} <= set(different)
    assert "clean/speech/a.flac" not in different


def test_a_manifest_says_what_was_done(made: Path) -> None:
    with (made / "manifest.csv").open(newline="") as lines:
        rows = {(row["condition"], row["clip"]): row for row in csv.DictReader(lines)}
    assert len(rows) == 2 * len(CONDITIONS)
    assert rows["noise@10", "speech/a.flac"]["added"] == rows["noise@0", "speech/a.flac"]["added"]
    assert rows["noise@10", "speech/a.flac"]["added"].startswith("noise.wav from ")
    assert rows["talkers@3", "speech/a.flac"]["added"].startswith("speech/b.wav from ")
    assert rows["room+shaped@15", "speech/b.flac"]["added"] == "room.wav"
    assert rows["noise@0", "speech/b.flac"]["source"] == "speech/b.wav"
    references = {row["reference"] for row in rows.values() if row["condition"] in {"clean", "level@-36", "loss@20-60ms"}}
    assert references == {""}


def test_a_changed_file_is_found_out(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "set")
    clip = find_clips(tmp_path / "set")[0]
    read_clip(clip)
    soundfile.write(clip.path, soundfile.read(clip.path)[0] * 0.9, RATE)
    with pytest.raises(SetError, match="not those that the manifest names"):
        read_clip(clip)


def test_the_engine_groups_by_condition(made: Path, tmp_path: Path) -> None:
    clips = [clip for clip in find_clips(made) if clip.condition in {"clean", "noise@0", "loss@20-60ms", "tandem@2"}]
    contestants = [Contestant(Pcm(), (256.0,)), Contestant(Bundle("clear"), (1.0,))]
    report = evaluate(contestants, clips, ["si_sdr", "log_mel"], Store(tmp_path))
    assert report.errors == []
    found = {(one.condition, one.label): one.means for one in report.summaries}
    assert report.conditions == ["clean", "noise@0", "loss@20-60ms", "tandem@2"]
    assert [(one.codec, one.reason) for one in report.skipped] == [("pcm", "loss@20-60ms: it takes no packet loss here")]
    assert found["clean", "pcm 256"]["si_sdr"].value > 60
    assert 0 < found["noise@0", "pcm 256"]["si_sdr"].value + 2 < 4  # P.56 counts speech without its pauses
    for worse in ("loss@20-60ms", "tandem@2"):
        assert found[worse, "clear 1"]["log_mel"].value > found["clean", "clear 1"]["log_mel"].value + 0.3
    assert set(report.pairs("log_mel", "clean")) == {("pcm 256", "clear 1")}
    assert report.pairs("log_mel", "loss@20-60ms") == {}


def test_tandem_is_one_coder_after_the_other(speech: np.ndarray) -> None:
    once = next(through(G711("g711a", "a"), speech, [64.0]))
    twice = next(through(G711("g711a", "a"), once.samples, [64.0]))
    together = next(through(G711("g711a", "a"), speech, [64.0], times=2))
    np.testing.assert_array_equal(twice.samples, together.samples)
    assert (together.kbps, together.delay_ms) == (64.0, 0.0)


def test_a_set_that_cannot_be_is_told(corpus: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    shutil.copy(corpus / "speech" / "a.wav", plain)
    for name, said in (
        ("noise@3", "shaped@10 needs none"),
        ("room", "room@0.6 models one"),
        ("talkers@3", "no second talker"),
        ("coded@mp4-3", "no codec is called 'mp4'"),
    ):
        with pytest.raises(ConditionError, match=said):
            make_set(Source(plain, "test", 0), [parse_condition(name)], tmp_path / "out")
    shutil.copy(corpus / "speech" / "a.wav", plain / "a.flac")
    with pytest.raises(SetError, match="two recordings are called 'a'"):
        make_set(Source(plain, "test", 0), [parse_condition("clean")], tmp_path / "out")


def test_the_commands(corpus: Path, tmp_path: Path) -> None:
    def call(command: object, *args: str) -> str:
        result = CliRunner().invoke(command, [*args], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    out, chosen = tmp_path / "made", ("--condition", "clean,shaped@5", "--seed", "3")
    assert "4 clips under 2 conditions" in call(conditions, str(corpus), *chosen, "--out", str(out))
    same = ("--out", str(tmp_path / "again"), "--like", str(out / "manifest.csv"))
    assert "every clip is that of" in call(conditions, str(corpus), *chosen, *same)
    wrong = CliRunner().invoke(conditions, [str(corpus), "--condition", "clean,shaped@5", *same]).exception
    assert isinstance(wrong, LinnetError)
    assert "2 clips are not those of" in str(wrong)
    engine = ("--codec", "pcm", "--metrics", "si_sdr", "--jobs", "1", "--cache", str(tmp_path / "cache"))
    given = call(cli.compare, str(out), *engine, "--out", str(tmp_path / "one"))
    asked = call(cli.compare, str(corpus), *engine, *chosen, "--out", str(tmp_path / "two"))
    table = [line for line in given.splitlines() if " pcm 256 " in line]
    assert [line.split()[0] for line in table] == ["clean", "shaped@5"]
    assert set(table) <= set(asked.splitlines())
    as_input = call(cli.compare, str(out), *engine, "--against", "input", "--out", str(tmp_path / "three"))
    (row,) = (line.split() for line in as_input.splitlines() if line.startswith("shaped@5 "))
    assert float(row[5]) > 60
    for damaged in ("*.flac", "manifest.csv"):
        for path in (tmp_path / "cache" / "sets").rglob(damaged):
            path.write_bytes(b"")
        assert call(cli.compare, str(corpus), *engine, *chosen, "--out", str(tmp_path / "two")) == asked


def test_a_set_is_compared_with_what_it_replaces(corpus: Path, tmp_path: Path) -> None:
    args = [str(corpus), "--condition", "shaped@5", "--out", str(tmp_path), "--like", str(tmp_path / "manifest.csv")]
    CliRunner().invoke(conditions, args[:-2], catch_exceptions=False)
    assert "every clip is that of" in CliRunner().invoke(conditions, args, catch_exceptions=False).output
    with pytest.raises(ConditionError, match="2 clips are not those of"):
        CliRunner().invoke(conditions, [*args, "--seed", "1"], catch_exceptions=False)


def test_means_by_what_a_manifest_says_under_conditions(corpus: Path, made: Path, tmp_path: Path) -> None:
    def groups(folder: Path, column: str, *more: str) -> dict[str, set[str]]:
        args = [str(folder), "--codec", "pcm", "--metrics", "si_sdr", "--jobs", "1", "--by", column, *more]
        args += ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
        assert CliRunner().invoke(cli.compare, args, catch_exceptions=False).exit_code == 0
        found: dict[str, set[str]] = {}
        for one in json.loads((tmp_path / "out" / "results.json").read_text())["groups"]:
            found.setdefault(one["group"], set()).add(one["condition"])
        return found

    asked = {"clean", "shaped@5"}
    assert groups(corpus, "speaker") == {"speaker a": {"clean"}, "speaker b": {"clean"}}
    assert groups(corpus, "speaker", "--condition", "clean,shaped@5") == {"speaker a": asked, "speaker b": asked}
    judged = set(CONDITIONS) - {"loss@20-60ms"}  # which pcm does not take
    assert groups(made, "source") == {"source speech/a.wav": judged, "source speech/b.wav": judged}
    assert groups(made, "added")["added room.wav"] == {"room+shaped@15"}  # of one clip, each condition is told its own
    again = groups(made, "source", "--condition", "level@-30")
    assert again == {"source speech/a.wav": {"level@-30"}, "source speech/b.wav": {"level@-30"}}


def test_a_bar_counts_the_clips(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []

    def bar(items: Iterable, total: int, label: str) -> Iterable:
        assert label == "clips"
        for item in items:
            yield item
            shown.append(total)

    monkeypatch.setattr("linnet.evaluate.conditions.cli.progress", bar)
    asked = [str(corpus), "--condition", "clean,shaped@5", "--out", str(tmp_path / "made")]
    engine = ["--codec", "pcm", "--metrics", "si_sdr", "--jobs", "1", "--cache", str(tmp_path / "cache")]
    for command, args in ((conditions, asked), (cli.compare, [*asked, *engine])):
        assert CliRunner().invoke(command, args, catch_exceptions=False).exit_code == 0
    assert shown == [2] * 4


def test_a_corpus_is_not_spoilt(corpus: Path, tmp_path: Path) -> None:
    before = (corpus / "manifest.csv").read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.csv").write_bytes(before)
    for out in (corpus, other):
        with pytest.raises(SetError, match="name another folder"):
            make_set(Source(corpus, "test", 0), [parse_condition("clean")], out)
        assert (out / "manifest.csv").read_bytes() == before
    with pytest.raises(ConditionError, match="no condition is named"):
        parse_conditions([" , "])


@pytest.mark.parametrize("path", ["../other/a.wav", "speech/../../a.wav", "/tmp/a.wav", ""])
def test_a_manifest_names_nothing_outside_its_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "manifest.csv").write_text(f"path,kind,split\na.wav,speech,train\n{path},speech,test\n")
    with pytest.raises(SetError, match=r"manifest\.csv, line 3"):
        make_set(Source(tmp_path / "set", "test", 0), [parse_condition("clean")], tmp_path / "out" / "deep")
    assert [found.name for found in tmp_path.iterdir()] == ["set"]


def test_a_bundle_that_lies_elsewhere_leads_nowhere(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, out = tmp_path / "a" / "b" / "c", tmp_path / "set" / "out"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    (tmp_path / "clear").symlink_to(Path(linnet.__file__).parent / "models" / "clear")
    make_set(Source(corpus, "test", 0), [parse_condition("coded@../../../clear-6")], out, limit=1)
    (clip,) = find_clips(out)
    assert clip.path.resolve().is_relative_to(out)
    assert said_of_each(out, "source") == {clip.name: "speech/a.wav"}


def test_a_set_that_fails_leaves_things_as_they_were(tmp_path: Path, speech: np.ndarray) -> None:
    folder, out = tmp_path / "set", tmp_path / "out"
    folder.mkdir()
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, speech[:RATE], RATE)
    source, wanted = Source(folder, "test", 0), [parse_condition("clean")]
    broken = np.full(RATE, np.nan, np.float32)

    def fails() -> None:
        good = (folder / "b.wav").read_bytes()
        soundfile.write(folder / "b.wav", broken, RATE, subtype="FLOAT")
        with pytest.raises(SetError, match=r"b\.wav"):
            make_set(source, wanted, out)
        (folder / "b.wav").write_bytes(good)

    fails()
    assert [found.name for found in tmp_path.iterdir()] == ["set"]
    make_set(source, wanted, out)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    soundfile.write(folder / "a.wav", speech[RATE : 2 * RATE], RATE)
    fails()
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    make_set(source, wanted, out)
    assert len([read_clip(clip) for clip in find_clips(out)]) == 2
    assert sorted(found.name for found in tmp_path.iterdir()) == ["out", "set"]
