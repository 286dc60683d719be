"""The page: what is in it, and in a headless browser, where there is one, what it does."""

import base64
import html.parser
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from linnet.evaluate import page as page_module
from linnet.evaluate.codecs import Contestant
from linnet.evaluate.codecs.g711 import G711
from linnet.evaluate.conditions.grammar import parse_conditions
from linnet.evaluate.conditions.making import Source, make_set
from linnet.evaluate.page import hardest_files, worst_files, write_page
from linnet.evaluate.page.loudness import loudness
from linnet.evaluate.report import Report, Row, summarize
from linnet.evaluate.runner import evaluate
from linnet.evaluate.sets import find_clips
from linnet.evaluate.store import Store
from linnet.evaluate.tables import as_json

RATE = 16_000
SPEECH = Path(__file__).parents[1] / "data" / "speech.flac"
METRICS = ["si_sdr", "log_mel"]
HOSTILE = "</script><b>&amp;.wav"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("set")
    speech = soundfile.read(SPEECH)[0]
    soundfile.write(folder / "loud.wav", np.clip(3 * speech[: 2 * RATE], -1, 1), RATE)
    (folder / HOSTILE).parent.mkdir()
    soundfile.write(folder / HOSTILE, speech[2 * RATE : 4 * RATE], RATE)
    store = Store(tmp_path_factory.mktemp("store"))
    contestants = [Contestant(G711("g711a", "a"), (64.0,)), Contestant(G711("g711mu", "mu"), (64.0,))]
    report = evaluate(contestants, find_clips(folder), METRICS, store)
    document = as_json(report, METRICS, "linnet compare '<!--'", 2)
    return write_page(report, document, METRICS, store, find_clips(folder), listen=2)


class Collector(html.parser.HTMLParser):
    """Tags and their attributes, and the text of the data element."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data, self._inside = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") == "data"

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.data += data


@pytest.fixture(scope="module")
def parsed(page: str) -> Collector:
    collector = Collector()
    collector.feed(page)
    return collector


def test_nothing_is_asked_of_a_network(page: str, parsed: Collector) -> None:
    for tag, attributes in parsed.tags:
        assert "src" not in attributes, tag
        assert tag != "link" or attributes["href"] == "data:,"
    without_data = page.replace(parsed.data, "")
    assert set(re.findall(r"https?://[^\"'\s]+", without_data)) == {"http://www.w3.org/2000/svg"}  # a name, never fetched
    assert "@import" not in without_data
    assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(", without_data)


def test_names_cannot_end_the_data(parsed: Collector) -> None:
    data = json.loads(parsed.data)
    assert "<" not in parsed.data
    assert {row["file"] for row in data["rows"]} == {"loud.wav", HOSTILE}
    assert data["command"] == "linnet compare '<!--'"


def test_every_element_that_the_scripts_want_is_there(page: str, parsed: Collector) -> None:
    ids = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    assert set(re.findall(r'\$\("([\w-]+)"\)', page)) <= ids


def test_clips_sound_as_they_did_at_one_loudness(parsed: Collector) -> None:
    data: dict[str, Any] = json.loads(parsed.data)
    assert len(data["clips"]) == 2
    for clip in data["clips"]:
        assert [sound["label"] for sound in clip["sounds"]] == ["original", "g711a 64", "g711mu 64"]
        played = [soundfile.read(io.BytesIO(base64.b64decode(sound["flac"])))[0] * sound["gain"] for sound in clip["sounds"]]
        levels = [loudness(samples) for samples in played]
        assert max(levels) - min(levels) < 0.01
        assert max(np.abs(samples).max() for samples in played) <= 1
        assert clip["seconds"] == len(played[0]) / RATE == 2.0


def test_the_pairs_are_in_the_page(parsed: Collector) -> None:
    pairs = json.loads(parsed.data)["pairs"]["clean"]
    assert set(pairs) == set(METRICS)
    one, other, difference, low, high, p, files = pairs["si_sdr"][0]
    assert (one, other, files) == ("g711a 64", "g711mu 64", 2)
    assert low <= difference <= high
    assert 0 < p <= 1


def test_the_agreements_are_in_the_page(parsed: Collector) -> None:
    (agreement,) = json.loads(parsed.data)["agreements"]
    assert (agreement["condition"], agreement["metrics"]) == ("clean", METRICS)
    assert -1 <= agreement["clips"] <= 1
    assert agreement["codecs"] is None  # of two codecs


def test_a_large_set_stays_a_small_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst in each metric are in the page, and what the others are is told."""
    monkeypatch.setattr(page_module, "_TABLE_FILES", 2)
    scores = {"a": (4.0, 9.0), "b": (2.0, 8.0), "c": (3.0, 7.0), "d": (5.0, 1.0)}
    rows = [Row(file, "x", mode=1.0, scores=dict(zip(METRICS, found, strict=True))) for file, found in scores.items()]
    report = Report(rows, summarize(rows, METRICS), [])
    document = as_json(report, METRICS, "linnet compare", 4)
    collector = Collector()
    collector.feed(write_page(report, document, METRICS, Store(tmp_path), [], listen=2))
    data = json.loads(collector.data)
    assert data["worst"] == {"clean": {"si_sdr": ["b", "c"], "log_mel": ["a", "b"]}}
    assert {row["file"] for row in data["rows"]} == {"a", "b", "c"}
    assert data["counts"] == {"clean": 4}


def test_the_hardest_files_come_first() -> None:
    """By both codecs together: 'b' is worst for one and near the mean of the other; lower is better in the last metric."""
    scores = {"good": {"a": 4.0, "b": 3.0, "c": 4.1}, "bad": {"a": 2.0, "b": 1.9, "c": 2.3}}
    rows = [
        Row(file, codec, mode=1.0, scores={"si_sdr": value, "log_mel": value}, key=f"{codec}{file}")
        for codec, of_files in scores.items()
        for file, value in of_files.items()
    ]
    unscored = {"si_sdr": float("nan"), "log_mel": float("nan")}
    others = [Row("d", error="cannot be read"), Row("e", "good", mode=1.0, scores=unscored, key="e")]
    report = Report([*rows, *others, Row("f", "good", mode=1.0, fault="silent", scores=unscored, key="f")], [], [])
    assert worst_files(report, "si_sdr") == {"clean": ["d", "f", "b", "a", "c", "e"]}
    assert worst_files(report, "log_mel") == {"clean": ["d", "f", "c", "a", "b", "e"]}
    worst = {"clean": ["d", "f", "b", "a"], "noise@0": ["g", "c"]}
    assert hardest_files(report, worst, 3) == ["f", "c", "b"]  # those that have audio, by turns


def test_loudness_is_the_standards() -> None:
    """BS.1770-4: a full-scale sine of 997 Hz in one channel reads -3.01 LUFS; -70 LUFS is silence; pauses do not count."""
    tone = np.sin(2 * np.pi * 997 * np.arange(5 * RATE) / RATE)
    assert loudness(tone) == pytest.approx(-3.01, abs=0.02)
    assert loudness(0.1 * tone) == pytest.approx(-23.01, abs=0.02)
    assert loudness(np.concatenate([tone, np.zeros(20 * RATE)])) == pytest.approx(-3.01, abs=0.5)
    assert loudness(np.zeros(RATE)) == -np.inf
    assert loudness(tone[:100]) < loudness(tone)


@pytest.fixture
def tab(page: str, tmp_path: Path) -> Iterator[Any]:
    """The page in a headless Chromium."""
    yield from opened(page, tmp_path)


def opened(page: str, tmp_path: Path) -> Iterator[Any]:
    """A page in a headless Chromium, from a file; an error of a script fails the test."""
    api = pytest.importorskip("playwright.sync_api", reason="needs a browser: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a browser: apt install chromium")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    with api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        tab = browser.new_page(viewport={"width": 390, "height": 844})
        wrong: list[str] = []
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: None if request.url.startswith("file:") else wrong.append(request.url))
        tab.goto((tmp_path / "report.html").as_uri())
        tab.wait_for_selector("#spectrogram[data-drawn='0 0']")
        yield tab
        browser.close()
    assert wrong == []


def test_in_a_browser_tables_sort(tab: Any) -> None:
    def column() -> list[float]:
        return [float(text.split()[0]) for text in tab.locator("#means tbody td:nth-child(4)").all_inner_texts()]

    header = tab.locator("#means thead th").nth(3)
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert column() == sorted(column(), reverse=True)
    header.locator("button").click()
    assert column() == sorted(column())
    assert tab.evaluate("document.documentElement.scrollWidth") == 390  # wide tables scroll, the page does not


def test_in_a_browser_the_keyboard_plays(tab: Any) -> None:
    tab.keyboard.press("2")
    tab.wait_for_selector("#spectrogram[data-drawn='0 2']")
    tab.keyboard.press("ArrowRight")
    tab.wait_for_selector("#spectrogram[data-drawn='0 0']")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowLeft")
    tab.wait_for_selector("#spectrogram[data-drawn='1 2']")
    tab.keyboard.press("d")
    tab.wait_for_selector("#spectrogram[data-drawn='1 2 difference']")
    tab.keyboard.press(" ")
    tab.wait_for_selector("#play[aria-pressed=true]")
    tab.wait_for_function("playing && position() > 0.2")
    tab.keyboard.press("1")
    tab.wait_for_function(
        "playing.gains[1].gain.value > 0.9 * data.clips[1].sounds[1].gain && playing.gains[2].gain.value < 1e-3"
    )
    tab.keyboard.press(" ")
    assert tab.get_attribute("#play", "aria-pressed") == "false"


def test_in_a_browser_a_metric_is_chosen(tab: Any) -> None:
    assert tab.locator("#curves circle").count() == 2
    tab.select_option("#metric", "log_mel")
    assert "log_mel" in str(tab.get_attribute("#curves svg", "aria-label"))
    assert tab.locator("#pairs thead th").first.inner_text() == "log_mel, dB"
    assert tab.locator("#files tbody tr").count() == 2
    assert tab.locator("#left-out li").count() == 0
    assert tab.locator("#agreements thead th").all_inner_texts() == ["", *METRICS]


@pytest.fixture
def noisy_tab(tmp_path: Path) -> Iterator[Any]:
    """A page of two conditions and a listening test."""
    made, store = tmp_path / "made", Store(tmp_path / "store")
    source = tmp_path / "set"
    source.mkdir()
    soundfile.write(source / "a.wav", soundfile.read(SPEECH)[0][:RATE], RATE)
    make_set(Source(source, "test", 0), parse_conditions(["clean,shaped@0"]), made)
    clips = find_clips(made)
    report = evaluate([Contestant(G711("g711a", "a"), (64.0,))], clips, METRICS, store)
    rated = {"system": "g711a 64", "mean": 80.0, "low": 70.0, "high": 90.0, "ratings": 3, "features": {}}
    verdict = {"title": "MUSHRA", "ends": [0, 100], "systems": [rated], "listeners": 1, "excluded": {"odd": "asleep"}}
    document = {**as_json(report, METRICS, "linnet compare", len(clips)), "listening": [verdict]}
    yield from opened(write_page(report, document, METRICS, store, clips, listen=2), tmp_path)


def test_in_a_browser_conditions_are_chosen(noisy_tab: Any) -> None:
    def si_sdr() -> float:
        return float(noisy_tab.locator("#means tbody td:nth-child(4)").inner_text().split()[0])

    assert si_sdr() > 10
    noisy_tab.select_option("#condition", "shaped@0")
    assert abs(si_sdr()) < 5
    assert noisy_tab.locator("#files tbody tr").all_inner_texts()[0].startswith("▶ shaped@0/a.flac")
    assert noisy_tab.locator("#conditions thead th").all_inner_texts() == ["si_sdr\ndB", "clean", "shaped@0"]
    noisy_tab.keyboard.press("ArrowDown")
    noisy_tab.wait_for_selector("#spectrogram[data-drawn='1 0']")
    assert noisy_tab.locator("#versions button").all_inner_texts() == [
        "0original",
        "1shaped@0",
        "2g711a 64",
    ]  # what it was given
    assert noisy_tab.locator("#scores tbody tr").count() == 1


def test_in_a_browser_listeners_are_heard(noisy_tab: Any) -> None:
    assert "1 listeners. odd is left out: asleep" in noisy_tab.inner_text("#verdicts")
    assert noisy_tab.locator("#verdicts tbody th").inner_text() == "g711a 64"
    assert noisy_tab.evaluate("document.documentElement.scrollWidth") == 390
