"""Listening tests from end to end in a headless browser: scripted listeners rate by keyboard, and the analysis finds them."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import RATE, Served

from linnet.evaluate.listening.analysis import analyse, read_answers
from linnet.evaluate.listening.plan import BAD, REFERENCE, Plan, Trial, make_plan

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1200, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs a browser: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a browser: apt install chromium")
    with api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a test's page; an error of a script, or a request to anywhere else, fails the test."""
    wrong: list[str] = []
    running: list[Served] = []

    def open_page(plan: Plan, **options: Any) -> tuple[Any, Served]:
        if not running:
            running.append(Served(plan, tmp_path))
        tab = browser.new_page(**{"viewport": DESK, **options})
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: None if request.url.startswith(running[0].url) else wrong.append(request.url))
        tab.goto(running[0].url)
        return tab, running[0]

    yield open_page
    for one in running:
        one.close()
    assert wrong == []


def short(speech: np.ndarray, names: list[str]) -> list[tuple[str, np.ndarray, dict[str, np.ndarray]]]:
    """Clips of a quarter of a second, that a listener in a hurry hears to their end."""
    pieces = [speech[at * RATE : at * RATE + RATE // 4].astype(np.float64) for at in range(1, len(names) + 1)]
    return [
        (name, piece, {"fine 6": 0.9 * piece, "poor 1": np.sign(piece) * 0.1})
        for name, piece in zip(names, pieces, strict=True)
    ]


def begin(tab: Any, listener: str) -> None:
    tab.fill("#listener", listener)
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#trial[data-key]:not([hidden]), #thanks:not([hidden])")


def systems(plan: Plan) -> dict[str, str]:
    return {sound: system for trial in plan.trials for system, sound in trial.sounds.items()}


def answer(tab: Any, plan: Plan, scores: dict[str, int], misses: bool = False) -> None:
    """All trials of a scale of categories or of words, each heard to its end, by the keyboard."""
    by_sound = systems(plan)
    while tab.is_visible("#trial"):
        key = tab.get_attribute("#trial", "data-key")
        tab.wait_for_function("!document.getElementById('play').disabled")
        assert tab.is_disabled("#next")
        tab.keyboard.press("3")  # too early: it is not heard yet
        assert tab.is_disabled("#next")
        tab.keyboard.press(" ")
        tab.wait_for_function("state.heard")
        sound = tab.evaluate("state.trials[state.at].sounds[0]")
        trial = next(trial for trial in plan.trials if trial.key == key)
        tab.keyboard.press(str(1 + (said(tab, trial) ^ misses) if trial.words else scores[by_sound[sound]]))
        assert tab.is_enabled("#next")
        tab.keyboard.press("Enter")
        tab.wait_for_function(
            f"!document.querySelector('#thanks').hidden || document.querySelector('#trial').dataset.key !== '{key}'"
        )


def said(tab: Any, trial: Trial) -> int:
    """Where the word that was said stands for this listener."""
    return tab.evaluate("state.trials[state.at].words").index(trial.words[trial.said])


SLIDES = {REFERENCE: 100, "fine 6": 80, "poor 1": 30, "anchor 3.5 kHz": 20, "anchor 7 kHz": 60}


def test_mushra(opened: Callable[..., Any], speech: np.ndarray) -> None:
    plan = make_plan("mushra", short(speech, ["a.wav"]), seed=3)
    by_sound = systems(plan)
    for listener, off in (("ann", 0), ("bob", -4), ("odd", -50)):
        tab, served = opened(plan)
        begin(tab, listener)
        tab.wait_for_function("!$('play').disabled")
        tab.keyboard.press(" ")  # the reference plays, and everything with it
        assert tab.evaluate("playing.shown === state.trials[state.at].reference && playing.sources.length") == 6
        sounds = tab.evaluate("state.trials[state.at].sounds")
        for place, sound in enumerate(sounds, start=1):
            assert tab.is_disabled("#next")
            tab.keyboard.press(str(place))
            assert tab.evaluate("playing.shown") == sound
            tab.keyboard.press("End")
            for _ in range((100 - max(0, SLIDES[by_sound[sound]] + off)) // 10):
                tab.keyboard.press("PageDown")
        tab.wait_for_function("playing.gains.get(playing.shown).gain.value > 0.9")
        tab.keyboard.press("0")
        assert tab.evaluate("playing.shown === state.trials[state.at].reference")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#thanks:not([hidden])")
        assert tab.evaluate("playing") is None
        tab.close()
    verdict = analyse(read_answers(served.test.answers))
    assert list(verdict.excluded) == ["odd"]
    means = {one.system: one.mean for one in verdict.systems}
    assert [one.system for one in verdict.systems][:2] == [REFERENCE, "fine 6"]
    for system, score in SLIDES.items():
        assert means[system] == pytest.approx(score, abs=6)


@pytest.mark.parametrize("method", ["acr", "dcr"])
def test_categories(opened: Callable[..., Any], speech: np.ndarray, method: str) -> None:
    plan = make_plan(method, short(speech, ["a.wav"]), seed=3)
    scores = {REFERENCE: 5, "fine 6": 4, "poor 1": 2, BAD: 1}
    listeners = {"ann": scores} | ({"wild": {**scores, REFERENCE: 1, BAD: 5}} if method == "acr" else {})
    for listener, told in listeners.items():
        tab, served = opened(plan, viewport=PHONE, color_scheme="dark")
        begin(tab, listener)
        assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
        answer(tab, plan, told)
        tab.close()
    verdict = analyse(read_answers(served.test.answers))
    assert {one.system: one.mean for one in verdict.systems} == scores
    assert list(verdict.excluded) == list(listeners)[1:]


def test_rhymes_and_coming_back(opened: Callable[..., Any], speech: np.ndarray) -> None:
    plan = make_plan("drt", short(speech, ["veal.wav"]), seed=3)
    tab, served = opened(plan)
    begin(tab, "ann")
    tab.wait_for_function("!document.getElementById('play').disabled")
    tab.click("#play")
    tab.wait_for_function("state.heard")
    trial = next(trial for trial in plan.trials if trial.key == tab.get_attribute("#trial", "data-key"))
    tab.click(f".choices button >> nth={said(tab, trial)}")  # by mouse or finger as well
    tab.click("#next")
    tab.wait_for_function("document.getElementById('progress').textContent === '2 of 3'")
    tab.close()
    tab, _ = opened(plan)
    begin(tab, "ann")
    assert tab.inner_text("#progress") == "2 of 3"  # where she was
    answer(tab, plan, {})
    tab.close()
    verdict = analyse(read_answers(served.test.answers))
    assert {one.mean for one in verdict.systems} == {100}
    assert set(verdict.systems[0].features) == {"voicing"}
    tab, _ = opened(plan)
    begin(tab, "deaf")
    answer(tab, plan, {}, misses=True)
    assert list(analyse(read_answers(served.test.answers)).excluded) == ["deaf"]


def test_what_the_server_refuses_is_shown(opened: Callable[..., Any], speech: np.ndarray) -> None:
    plan = make_plan("acr", short(speech, ["a.wav"]), seed=3)
    tab, served = opened(plan)
    tab.evaluate("document.getElementById('listener').removeAttribute('pattern')")
    tab.fill("#listener", "no such/name")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#error:not([hidden])")
    assert "letters, digits" in tab.inner_text("#error")
    begin(tab, "ann")
    tab.keyboard.press(" ")
    tab.wait_for_function("state.heard")
    served.test.answers.mkdir()  # nothing can be written
    tab.keyboard.press("4")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#error:not([hidden])")
    assert "cannot be used" in tab.inner_text("#error")
    served.test.answers.rmdir()
    tab.keyboard.press("Enter")  # the answer is still there
    tab.wait_for_function("document.getElementById('progress').textContent === '2 of 4'")
    assert tab.is_hidden("#error")
    assert json.loads(served.get("/trials?listener=bob"))["done"] == 0
