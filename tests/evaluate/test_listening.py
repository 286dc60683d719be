"""Listening tests: what listeners are asked and cannot know, what is written down, and who is believed."""

import csv
import io
import json
import socket
import struct
import sys
import threading
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from served import RATE, Served, clips

from linnet.evaluate.listening.analysis import Answer, analyse, as_text, read_answers
from linnet.evaluate.listening.cli import listen, ratings
from linnet.evaluate.listening.plan import BAD, COLUMNS, REFERENCE, ListeningError, Plan, make_plan, mnru
from linnet.evaluate.listening.rhymes import PAIRS, find_pairs
from linnet.evaluate.listening.server import RunningTest
from linnet.evaluate.page.loudness import loudness

HEAD = ",".join(COLUMNS)
METHODS = ("mushra", "acr", "dcr", "drt")


@pytest.fixture(params=METHODS)
def plan(request: pytest.FixtureRequest, speech: np.ndarray) -> Plan:
    return make_plan(request.param, clips(speech), seed=1)


def test_the_rhymes_are_those_of_the_standard() -> None:
    assert len(PAIRS) == 96
    features = [name.split()[0] for name in PAIRS]
    assert {feature: features.count(feature) for feature in features} == dict.fromkeys(features, 16)
    assert find_pairs("veal") == [("voicing", ("veal", "feel"))]
    assert {feature for feature, _ in find_pairs("got")} == {"sibilation", "compactness"}
    assert find_pairs("linnet") == []


def test_every_method_asks_what_it_should(speech: np.ndarray) -> None:
    made = {method: make_plan(method, clips(speech), seed=1) for method in METHODS}
    (first, _) = made["mushra"].trials
    assert set(first.sounds) == {REFERENCE, "good 6", "bad 1", "anchor 3.5 kHz", "anchor 7 kHz"}
    assert first.reference not in first.sounds.values()  # or a browser would know the hidden one
    assert made["mushra"].wavs[first.reference] == made["mushra"].wavs[first.sounds[REFERENCE]]
    for method in ("acr", "dcr"):
        assert [list(trial.sounds) for trial in made[method].trials[:4]] == [[REFERENCE], ["good 6"], ["bad 1"], [BAD]]
        assert all(bool(trial.reference) == (method == "dcr") for trial in made[method].trials)
    assert {(trial.clip, trial.detail) for trial in made["drt"].trials} == {
        ("list/veal.wav", "voicing"),
        ("got.wav", "sibilation"),
        ("got.wav", "compactness"),
    }
    assert all(trial.words[trial.said] in trial.clip for trial in made["drt"].trials)


def test_all_sounds_are_equally_loud(plan: Plan) -> None:
    for trial in plan.trials:
        levels = [loudness(soundfile.read(io.BytesIO(plan.wavs[sound]))[0]) for sound in trial.sounds.values()]
        assert max(levels) - min(levels) < 0.1


def test_anchors_end_where_they_should(speech: np.ndarray) -> None:
    plan = make_plan("mushra", clips(speech), seed=1)
    for name, edge in (("anchor 3.5 kHz", 3500), ("anchor 7 kHz", 7000)):
        sounds = plan.trials[0].sounds
        anchor, original = (soundfile.read(io.BytesIO(plan.wavs[sounds[one]]))[0] for one in (name, REFERENCE))
        power, wanted = (np.square(np.abs(np.fft.rfft(one))) for one in (anchor, original))
        hz = np.fft.rfftfreq(len(anchor), 1 / RATE)
        below, above = hz < 0.95 * edge, hz > 1.15 * edge  # BS.1534-3 wants 25 dB at 4 kHz, 50 dB at 4.5 kHz
        if above.any():
            assert power[above].sum() < 1e-5 * power.sum() + 1e-4
        gain = power[below].sum() / wanted[below].sum()
        np.testing.assert_allclose(power[below].sum(), gain * wanted[below].sum())


def test_mnru_has_the_ratio_that_it_says(speech: np.ndarray) -> None:
    quiet = 0.1 * speech.astype(np.float64)
    noise = mnru(quiet, 20.0, np.random.default_rng(0)) - quiet
    assert 10 * np.log10(np.square(quiet).sum() / np.square(noise).sum()) == pytest.approx(20, abs=0.3)


def test_every_listener_has_an_order_of_their_own(plan: Plan) -> None:
    def asked(listener: str) -> list[dict[str, Any]]:
        return [plan.shown(trial, listener) for trial in plan.for_listener(listener)]

    assert asked("ann") == asked("ann")
    orders = {json.dumps(asked(f"listener{number}")) for number in range(12)}
    assert len(orders) > 1
    text = json.dumps([asked("ann"), list(plan.wavs)])
    for told in ("good", "bad", "anchor", "reference 6", "veal.wav"):
        assert told not in text
    assert len(plan.for_listener("ann", 1)) == 1
    shown = {tuple(plan.words(trial, f"listener{number}")) for trial in plan.trials[:1] for number in range(12)}
    assert shown == ({("veal", "feel"), ("feel", "veal")} if plan.method == "drt" else {()})


def test_what_cannot_be_tested_is_told(speech: np.ndarray) -> None:
    (name, original, _), _ = clips(speech)
    with pytest.raises(ListeningError, match="takes 9 beside"):
        make_plan("mushra", [(name, original, {str(number): original for number in range(10)})], 0)
    with pytest.raises(ListeningError, match=r"like veal\.wav"):
        make_plan("drt", [("linnet.wav", original, {})], 0)
    with pytest.raises(ListeningError, match="nothing to listen to"):
        make_plan("acr", [], 0)


@pytest.fixture
def served(plan: Plan, tmp_path: Path) -> Iterator[Served]:
    served = Served(plan, tmp_path)
    yield served
    served.close()


def test_answers_are_written_down_once(served: Served) -> None:
    plan = served.test.plan
    top = {"mushra": 100, "acr": 5, "dcr": 5, "drt": 1}[plan.method]
    trials = served.trials("ann")
    assert served.get("/").startswith(b"<!doctype html>")
    assert served.get(f"/sound/{trials[0]['sounds'][0]}.wav").startswith(b"RIFF")
    answer = {"listener": "ann", "trial": trials[0]["key"], "scores": dict.fromkeys(trials[0]["sounds"], top), "seconds": 2.5}
    served.post(answer)
    served.post(answer)  # as a page does whose first try seemed lost
    assert [trial["key"] for trial in served.trials("ann")] == [trial["key"] for trial in trials[1:]]
    assert len(served.trials("bob")) == len(trials)
    with served.test.answers.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    trial = next(trial for trial in plan.trials if trial.key == trials[0]["key"])
    assert [row["system"] for row in rows] == list(trial.sounds)
    assert {(row["listener"], row["clip"], row["seconds"]) for row in rows} == {("ann", trial.clip, "2.5")}
    expected = int(trials[0]["words"][1] == trial.words[trial.said]) if plan.method == "drt" else top
    assert {row["score"] for row in rows} == {str(expected)}
    assert len(read_answers(served.test.answers)) == len(rows)


def test_what_was_not_asked_is_refused(served: Served) -> None:
    (trial, *_) = served.trials("ann")
    good = {"listener": "ann", "trial": trial["key"], "scores": dict.fromkeys(trial["sounds"], 1), "seconds": 1}
    for change, said in (
        ({"scores": {}}, "for all of its sounds"),
        ({"scores": dict.fromkeys(trial["sounds"], 101)}, "whole number"),
        ({"scores": dict.fromkeys(trial["sounds"], 1.5)}, "whole number"),
        ({"scores": dict.fromkeys(trial["sounds"], True)}, "whole number"),
        ({"scores": [1]}, "no such trial"),
        ({"trial": "0"}, "no such trial"),
        ({"listener": "a,b\n"}, "no such trial"),
        ({"listener": 7}, "has listener"),
        ({"seconds": "long"}, "has listener"),
    ):
        assert said in served.refused(good | change)
    assert "has listener" in served.refused([])
    for path in ("/sound/0.wav", "/answers", "/../pyproject.toml"):
        with pytest.raises(urllib.error.HTTPError):
            served.get(path)
    with pytest.raises(urllib.error.HTTPError) as caught:
        served.get("/trials?listener=")
    assert caught.value.code == 400
    assert not served.test.answers.exists()


@pytest.fixture
def watched(served: Served, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Waits for the end of one more request, and gives what the terminal would show as tracebacks."""
    ended, shown, shut_down = threading.Semaphore(0), list[str](), served.server.shutdown_request
    monkeypatch.setattr(served.server, "handle_error", lambda *_: shown.append(repr(sys.exception())))
    monkeypatch.setattr(served.server, "shutdown_request", lambda request: (shut_down(request), ended.release()))

    def wait() -> list[str]:
        assert ended.acquire(timeout=10)
        return shown

    return wait


def sent(served: Served, request: bytes) -> socket.socket:
    """A connection on which a request was sent; closed before it is read to its end, it is reset."""
    client = socket.create_connection(("127.0.0.1", served.server.server_port), timeout=10)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sendall(request)
    return client


def test_a_listener_who_goes_away_is_no_error(served: Served, watched: Callable[[], list[str]]) -> None:
    served.test.plan.wavs["ab"] = bytes(50_000_000)  # more than what lies between two sockets
    with sent(served, b"GET /sound/ab.wav HTTP/1.0\r\n\r\n") as client:
        assert client.recv(4) == b"HTTP"
    assert watched() == []
    with sent(served, b"POST /answers HTTP/1.0\r\nContent-Length: 100\r\n\r\n{"):
        pass
    assert watched() == []


def test_a_lost_reply_is_not_the_file(
    served: Served, watched: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = threading.Event()

    def trials(_: str) -> dict[str, Any]:
        assert gone.wait(10)
        return {"trials": [], "done": 0}

    monkeypatch.setattr(served.test, "trials", trials)
    with sent(served, b"GET /trials?listener=ann HTTP/1.0\r\n\r\n"):
        pass
    gone.set()
    assert watched() == []


def test_a_length_that_is_none_is_refused(served: Served, watched: Callable[[], list[str]]) -> None:
    wrong = {"x": 400, "-1": 400, "1_0": 400, "\xb2": 400, "9" * 5000: 400, "0": 413, "65537": 413}
    for length, status in wrong.items():
        with sent(served, f"POST /answers HTTP/1.0\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")) as client:
            assert client.makefile("rb").readline().startswith(f"HTTP/1.0 {status} ".encode())
        assert watched() == []


def mushra(careless: bool) -> list[Answer]:
    """Eight listeners and six clips; with one who cannot tell the reference from the rest."""
    rng = np.random.default_rng(0)
    levels = {REFERENCE: 98, "good 6": 80, "bad 1": 40, "anchor 3.5 kHz": 25}
    answers = [
        Answer("mushra", f"l{listener}", f"c{clip}", system, float(np.clip(level + rng.normal(0, 3), 0, 100)))
        for listener in range(8)
        for clip in range(6)
        for system, level in levels.items()
    ]
    if careless:
        answers += [Answer("mushra", "odd", f"c{clip}", system, 50.0) for clip in range(6) for system in levels]
    return answers


def test_mushra_believes_who_knows_the_reference() -> None:
    verdict = analyse(mushra(careless=True))
    assert verdict.excluded == {"odd": "the hidden reference is below 90 in 100 % of the trials"}
    assert verdict.to_json()["systems"] == analyse(mushra(careless=False)).to_json()["systems"]
    assert [one.system for one in verdict.systems] == [REFERENCE, "good 6", "bad 1", "anchor 3.5 kHz"]
    good = verdict.systems[1]
    assert good.low < 80 < good.high
    assert good.high - good.low < 4
    assert good.ratings == 48
    assert verdict.pairs["good 6", "bad 1"].p < 0.01
    assert analyse(mushra(careless=True), screen=False).excluded == {}
    assert "odd is left out" in as_text(verdict)


def test_intervals_know_that_listeners_are_few() -> None:
    """Ratings that agree within a listener and not between them are worth as many as there are listeners."""
    rng = np.random.default_rng(1)
    lean = rng.normal(0, 10, 5)
    answers = [Answer("mushra", f"l{a}", f"c{b}", REFERENCE, 95.0 + lean[a] / 10) for a in range(5) for b in range(40)]
    answers += [Answer("mushra", f"l{a}", f"c{b}", "x", 50.0 + lean[a]) for a in range(5) for b in range(40)]
    wide = analyse(answers, screen=False).systems[-1]
    assert wide.high - wide.low > 2 * 1.96 * lean.std() / np.sqrt(200) * 3


@pytest.mark.parametrize("method", ["acr", "dcr"])
def test_known_answers_find_who_does_not_listen(method: str) -> None:
    levels = {REFERENCE: 5, "good 6": 4, "bad 1": 2, BAD: 1}
    people = {"ann": levels, "bob": levels, "same": dict.fromkeys(levels, 3), "wild": {**levels, REFERENCE: 1, BAD: 5}}
    answers = [
        Answer(method, name, f"c{clip}", system, score)
        for name, scores in people.items()
        for clip in range(5)
        for system, score in scores.items()
    ]
    verdict = analyse(answers)
    assert verdict.excluded == {"same": "every answer is 3", "wild": "100 % of the known answers are missed"}
    assert {one.system: one.mean for one in verdict.systems} == levels


def test_rhymes_are_scored_less_what_guessing_gives() -> None:
    def heard(name: str, system: str, right: int) -> list[Answer]:
        return [
            Answer("drt", name, f"c{clip}", system, int(clip < right), "voicing" if clip < 10 else "nasality")
            for clip in range(20)
        ]

    answers = heard("ann", REFERENCE, 20) + heard("ann", "x 1", 15) + heard("deaf", REFERENCE, 10) + heard("deaf", "x 1", 10)
    verdict = analyse(answers)
    assert verdict.excluded == {"deaf": "0 of 100 on the originals"}
    assert {one.system: one.mean for one in verdict.systems} == {REFERENCE: 100, "x 1": 50}
    assert verdict.systems[1].features == {"voicing": 100, "nasality": 0}


def test_everybody_may_be_left_out() -> None:
    verdict = analyse([Answer("mushra", "odd", "c", REFERENCE, 10)])
    assert (verdict.systems, verdict.listeners) == ([], 0)
    assert "odd is left out" in as_text(verdict)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "columns are not"),
        (",".join(COLUMNS) + "\n", "answers of nobody"),
        (",".join(COLUMNS) + "\nacr,a,c,s,x", "x"),
    ],
)
def test_what_holds_no_answers_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "answers.csv").write_text(text)
    with pytest.raises(ListeningError, match=said):
        read_answers(tmp_path / "answers.csv")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recording: Path) -> None:
    """`linnet listen` up to its serving, which is interrupted after one answer; then `linnet ratings`."""
    made: list[RunningTest] = []

    class Interrupted:
        server_port = 1

        def serve_forever(self) -> None:
            (trial, *_) = made[0].trials("ann")["trials"]
            made[0].answer(
                {"listener": "ann", "trial": trial["key"], "scores": dict.fromkeys(trial["sounds"], 95), "seconds": 1}
            )
            raise KeyboardInterrupt

        def server_close(self) -> None:
            pass

    def stand_in(test: RunningTest, *_: object) -> Interrupted:
        made.append(test)
        return Interrupted()

    monkeypatch.setattr("linnet.evaluate.listening.cli.make_server", stand_in)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.flac").write_bytes(recording.read_bytes())
    args = [str(tmp_path / "set"), "--codec", "g711a,pcm", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    result = CliRunner().invoke(listen, [*args, "--jobs", "1"], catch_exceptions=False)
    assert "MUSHRA, 1 trials" in result.output
    assert "g711a 64" in result.output
    told = CliRunner().invoke(ratings, [str(tmp_path / "out" / "answers.csv")], catch_exceptions=False)
    assert "MUSHRA, 0 to 100: 1 listeners, 0 left out" in told.output
    with pytest.raises(ListeningError, match="has answers of mushra, not acr"):
        CliRunner().invoke(listen, [*args, "--jobs", "1", "--test", "acr"], catch_exceptions=False)
    assert len(made) == 1
    with pytest.raises(ValueError, match="not enough values"):  # ann has nothing left to answer
        CliRunner().invoke(listen, [*args, "--jobs", "1"], catch_exceptions=False)
