"""Metrics that live in other packages or commands, with stand-ins for them: what they are given, and what becomes of it."""

import importlib.util
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from linnet.evaluate import cli
from linnet.evaluate.codecs import Contestant
from linnet.evaluate.codecs.g711 import G711
from linnet.evaluate.codecs.pcm import Pcm
from linnet.evaluate.metrics import METRICS, MissingPackageError, listening, speech
from linnet.evaluate.metrics.speech import edits
from linnet.evaluate.metrics.versa import COMMAND, VersaError
from linnet.evaluate.runner import evaluate
from linnet.evaluate.sets import Clip
from linnet.evaluate.store import Store

RATE = 16_000
CACHES = (speech._recognizer, speech._words, speech._embedder, speech._embedding, listening._visqol)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """Modules that stand in for packages; set their attributes."""
    made = {}
    for name in ("pocketsphinx", "resemblyzer", "visqol", "visqol.api", "torch", "torchmetrics.functional.audio.nisqa"):
        made[name] = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, made[name])
    for cached in CACHES:
        cached.cache_clear()
    yield made
    for cached in CACHES:
        cached.cache_clear()


class Sphinx:
    """Hears a word for each tenth of a second that is loud, and says how often it was asked."""

    asked = 0

    def __init__(self, **options: object) -> None:
        assert options["samprate"] == RATE

    def reinit_feat(self) -> None:
        pass

    start_utt = end_utt = reinit_feat

    def process_raw(self, raw: bytes, full_utt: bool) -> None:
        assert full_utt
        Sphinx.asked += 1
        pieces = np.frombuffer(raw, "<i2").reshape(-1, RATE // 10)
        self.words = [f"w{place}" for place, piece in enumerate(pieces) if np.abs(piece).max() > 1000]

    def hyp(self) -> SimpleNamespace | None:
        return SimpleNamespace(hypstr=" ".join(self.words)) if self.words else None


def test_words_are_counted(packages: dict[str, ModuleType]) -> None:
    packages["pocketsphinx"].Decoder = Sphinx  # type: ignore[attr-defined]
    said = np.repeat([0.1, 0.1, 0.0, 0.1, 0.1], RATE // 10)
    heard = np.repeat([0.1, 0.0, 0.0, 0.1, 0.1], RATE // 10)
    assert METRICS["wer"].function(said, said, RATE) == 0
    assert METRICS["wer"].function(said, heard, RATE) == 25
    assert METRICS["cer"].function(said, heard, RATE) == pytest.approx(100 * 3 / 11)  # "w1 " of "w0 w1 w3 w4"
    assert METRICS["wer"].function(said, np.zeros_like(said), RATE) == 100
    assert Sphinx.asked == 3  # each signal once
    assert np.isnan(METRICS["wer"].function(np.zeros(RATE), said[:RATE].repeat(2)[:RATE], RATE))


@pytest.mark.parametrize(
    ("one", "other", "expected"), [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("abc", "xabc", 1), ("ab", "ba", 2)]
)
def test_edits_are_the_fewest(one: str, other: str, expected: int) -> None:
    assert edits(one, other) == edits(other, one) == expected


def test_speakers_are_compared_by_the_angle(packages: dict[str, ModuleType]) -> None:
    class VoiceEncoder:
        def __init__(self, device: str, verbose: bool) -> None:
            assert (device, verbose) == ("cpu", False)

        def embed_utterance(self, samples: np.ndarray) -> np.ndarray:
            assert samples.dtype == np.float32
            return np.array([samples[0], samples[1]])

    packages["resemblyzer"].VoiceEncoder = VoiceEncoder  # type: ignore[attr-defined]
    one, other = np.tile([0.1, 0.0], RATE), np.tile([0.2, 0.2], RATE)
    assert METRICS["speaker"].function(one, other, RATE) == pytest.approx(np.sqrt(0.5))
    assert np.isnan(METRICS["speaker"].function(one, np.zeros_like(one), RATE))


def test_visqol_and_nisqa_are_asked(
    packages: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, speech: np.ndarray
) -> None:
    class VisqolApi:
        def create(self, mode: str) -> None:
            assert mode == "speech"

        def measure_from_arrays(self, reference: np.ndarray, degraded: np.ndarray, sample_rate: int) -> SimpleNamespace:
            assert (len(reference), sample_rate) == (len(degraded), RATE)
            return SimpleNamespace(moslqo=3.25)

    packages["visqol.api"].VisqolApi = VisqolApi  # type: ignore[attr-defined]
    assert METRICS["visqol"].function(speech, speech, RATE) == 3.25
    packages["torch"].float32 = np.float32  # type: ignore[attr-defined]
    packages["torch"].as_tensor = np.asarray  # type: ignore[attr-defined]
    judge = packages["torchmetrics.functional.audio.nisqa"]
    judge.non_intrusive_speech_quality_assessment = lambda _samples, rate: [rate / 4000, 0, 0, 0, 0]  # type: ignore[attr-defined]
    monkeypatch.setattr(listening, "NISQA_WEIGHTS", tmp_path / "nisqa.tar")
    with pytest.raises(MissingPackageError, match=r"weights/nisqa\.tar"):
        METRICS["nisqa"].function(speech, speech, RATE)
    (tmp_path / "nisqa.tar").touch()
    assert METRICS["nisqa"].function(speech, speech, RATE) == 4


VERSA = """#!{python}
import argparse, json, pathlib, sys
import numpy, soundfile
parser = argparse.ArgumentParser()
for option in ("score_config", "gt", "pred", "output_file", "io"):
    parser.add_argument("--" + option, required=True)
chosen = parser.parse_args()
with open("{log}", "a") as log:
    log.write(open(chosen.score_config).read() + "---\\n")
if "sheet_ssqa" in open(chosen.score_config).read():
    sys.exit("no network to fetch weights from")
assert chosen.io == "soundfile"
sides = [dict(line.split() for line in open(path)) for path in (chosen.gt, chosen.pred)]
with open(chosen.output_file, "w") as out:
    for key in sides[1]:
        (ours, rate), (theirs, _) = (soundfile.read(side[key]) for side in sides)
        assert rate == 16000 and ours.shape == theirs.shape
        noise = float(numpy.abs(ours - theirs).max())
        out.write(json.dumps({{"key": key, "utmos": 4 - noise, "scoreq_nr": 3.0}}) + "\\n")
"""


@pytest.fixture
def versa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's log: what it was asked for, call by call."""
    script, log = tmp_path / "versa-score", tmp_path / "log.txt"
    script.write_text(VERSA.format(python=sys.executable, log=log))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return log


def test_versa_hears_every_clip_in_one_call(versa: Path, tmp_path: Path, recording: Path) -> None:
    contestants = [Contestant(Pcm(), (256.0,)), Contestant(G711("g711a", "a"), (64.0,))]
    chosen = (
        contestants,
        [Clip("a", recording), Clip("b", recording)],
        ["si_sdr", "utmos", "scoreq"],
        Store(tmp_path / "store"),
    )
    report = evaluate(*chosen)
    assert versa.read_text().count("---") == 1
    assert "pseudo_mos" in versa.read_text()
    scores = {(row.file, row.label): row.scores for row in report.rows}
    assert scores["a", "pcm 256"]["utmos"] == pytest.approx(4, abs=1e-4)
    assert scores["b", "g711a 64"]["utmos"] < 3.99
    assert scores["b", "g711a 64"]["scoreq"] == 3
    assert report.summaries[0].means["utmos"].files == 2
    assert evaluate(*chosen).to_json() == report.to_json()
    assert versa.read_text().count("---") == 1  # the second run asked nobody


def test_what_versa_says_is_told(versa: Path, speech: np.ndarray) -> None:
    with pytest.raises(VersaError, match="no network to fetch weights from"):
        METRICS["sheet_ssqa"].function(speech, speech, RATE)
    assert METRICS["scoreq"].function(speech, speech, RATE) == 3
    assert np.isnan(METRICS["audiobox_pq"].function(speech, speech, RATE))  # which it left out
    assert versa.exists()


def test_what_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, recording: Path, tmp_path: Path) -> None:
    monkeypatch.setenv(COMMAND, "/nowhere/versa-score --cpu")
    with pytest.raises(MissingPackageError, match="pip install git"):
        METRICS["utmos"].identity()
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    for cached in CACHES:
        cached.cache_clear()
    with pytest.raises(MissingPackageError, match="pip install pocketsphinx"):
        METRICS["wer"].function(np.ones(RATE), np.ones(RATE), RATE)
    args = [str(recording.parent), "--codec", "pcm", "--cache", str(tmp_path), "--out", str(tmp_path / "out"), "--metrics"]
    failed = CliRunner().invoke(cli.compare, [*args, "si_sdr,utmos"])
    assert isinstance(failed.exception, MissingPackageError)


def test_what_a_package_needs_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    weights = tmp_path / "nisqa.tar"
    assert METRICS["nisqa"].needs == ("librosa", "requests", listening.NISQA_WEIGHTS)
    monkeypatch.setitem(METRICS, "nisqa", replace(METRICS["nisqa"], needs=("librosa", "requests", weights)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None) if name in there else None)
    there: set[str] = set()
    for installed in ("torchmetrics", "librosa", "requests"):
        there.add(installed)
        assert "nisqa" not in cli._metrics("si_sdr,all")
        assert "without nisqa: pip install torchmetrics librosa requests, and put NISQA's" in capsys.readouterr().err
    with pytest.raises(MissingPackageError, match=r"nisqa\.tar"):
        METRICS["nisqa"].identity()
    weights.touch()
    assert "nisqa" in cli._metrics("si_sdr,all")


def test_usual_metrics_are_quick_and_the_rest_is_offered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(COMMAND, "/nowhere/versa-score")
    usual = cli._metrics(None)
    assert "nmr" in usual
    assert not {"wer", "speaker", "utmos", "visqol"} & set(usual)
    assert cli._metrics("default,wer")[-1] == "wer"
    capsys.readouterr()
    assert "utmos" not in cli._metrics("all")
    assert "without utmos: pip install git" in capsys.readouterr().err
    assert all(metric.blind_to for metric in METRICS.values())
