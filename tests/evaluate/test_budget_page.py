"""The page of budgets: every bundle, every limit, and points where the figures say."""

import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("onnx", reason="a budget counts the nodes of a graph")

from linnet import bundle
from linnet.evaluate import budget_cli
from linnet.evaluate.budget import Budget, assess
from linnet.evaluate.budget_page import Costed, write_budget_page
from linnet.evaluate.speed import Speed, measure_speed


@pytest.fixture(scope="module")
def clear() -> Budget:
    opened = bundle.load("clear")
    shape = {"sample_rate": 16000, "hop": opened.card.hop, "n_codes": len(opened.card.columns)}
    return assess(opened.encoder, opened.decoder, name="clear", latency_ms=opened.card.latency_ms, **shape)


def results() -> dict:
    """Two rates of one bundle, and a codec that has no budget."""

    def summary(codec: str, kbps: float, value: float) -> dict:
        mean = {"value": value, "low": value - 0.5, "high": value + 0.5, "files": 3, "unscored": 0}
        return {"label": f"{codec} {kbps:g}", "codec": codec, "condition": "clean", "kbps": kbps, "means": {"estoi": mean}}

    metric = {"unit": "", "higher_is_better": True, "blind_to": "a <b>"}
    summaries = [summary("clear", 1.0, 2.0), summary("clear", 6.0, 3.0), summary("opus", 6.0, 2.5)]
    return {"files": 3, "metrics": {"estoi": metric}, "summaries": summaries}


class Tags(html.parser.HTMLParser):
    """What is drawn, and whether every element ends."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.found if attributes.get("class") == name]


def test_points_and_limits_are_where_the_figures_say(clear: Budget) -> None:
    slow = replace(clear, name="slow", card_ms=45.0)
    bundles = [Costed("clear", clear, Speed(180, 150, 36.5)), Costed("slow", slow, Speed(900, 600, 8.0))]
    page = write_budget_page(bundles, results(), "linnet budget '<i>'")
    tags = Tags(page)
    assert tags.open == []
    assert "<i>" not in page
    assert len(re.findall("<svg", page)) == 4
    points = [attributes for tag, attributes in tags.found if tag == "circle"]
    assert len(points) == 2 * 4  # Opus has no budget, and 'slow' no quality
    limits = [float(attributes["x1"] or 0) for attributes in tags.of_class("limit")]
    assert len(limits) == 2 * 3
    assert float(points[0]["cx"] or 0) < limits[0] < limits[1]  # 632 of 700 and of 2600 MFLOPS
    assert float(points[4]["cx"] or 0) == pytest.approx(limits[4])  # 30 ms are the limit itself
    lower, higher = (float(point["cy"] or 0) for point in points[:2])
    assert lower > higher  # 2.0 is drawn below 3.0
    assert "FAIL: latency" in page
    assert "36.5" in page


def test_a_page_without_results_is_a_table(clear: Budget) -> None:
    page = write_budget_page([Costed("clear", clear, Speed(180, 150, 36.5))], None, "linnet budget")
    assert "<table>" in page
    assert "<svg" not in page
    assert not re.findall(r"https?://|<script|<img|@import", page)


def test_speed_is_measured() -> None:
    opened = bundle.load("clear")
    sizes = [column.size for column in opened.card.columns]
    speed = measure_speed(opened.encoder, opened.decoder, sample_rate=16000, hop=opened.card.hop, sizes=sizes, seconds=0.2)
    assert speed.times_real_time == pytest.approx(12000 / (speed.send_us + speed.receive_us))
    assert speed.times_real_time > 1


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results()))
    args = ["clear", "--html", str(tmp_path / "page.html"), "--results", str(tmp_path / "results.json")]
    told = CliRunner().invoke(budget_cli.command, args, catch_exceptions=False)
    assert "LRAC Track 1" in told.output
    assert (tmp_path / "page.html").read_text().count("<circle") == 8
    for content in (b"[]", b"RIFF\xff" * 1000, b"{" * 1000):
        (tmp_path / "results.json").write_bytes(content)
        wrong = CliRunner().invoke(budget_cli.command, args)
        assert str(wrong.exception).endswith("is not what `linnet compare` writes: name its results.json")
    assert CliRunner().invoke(budget_cli.command, ["clear", *args[3:]]).exit_code == 2
