"""The page of budgets: what bundles cost, against the LRAC limits, and what quality they give for it.

It is drawn here and not by a script: tables and SVG, which take their colours from the report's style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from linnet.evaluate.budget import LRAC, Budget
from linnet.evaluate.metrics import METRICS
from linnet.evaluate.speed import Speed

_WIDTH, _HEIGHT = 300, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 10, 24, 34
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_STYLE = """
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 14px; }
.charts svg { width: 100%; height: auto; }
.charts text { fill: var(--faint); font: 11px system-ui, sans-serif; }
.charts text { stroke: var(--ground); stroke-width: 3px; paint-order: stroke; }
.charts .grid { stroke: var(--line); }
.charts .limit { stroke: var(--bad); stroke-dasharray: 5 4; }
.charts .limit-name { fill: var(--bad); }
summary { cursor: pointer; font-weight: 600; padding: 6px 0; }
"""


@dataclass(frozen=True)
class Costed:
    """A bundle by the name that results have for it: its budget and its speed here."""

    name: str
    budget: Budget
    speed: Speed

    @property
    def total_mflops(self) -> float:
        """Of both sides."""
        return self.budget.send.mflops + self.budget.receive.mflops


@dataclass(frozen=True)
class _Axis:
    title: str
    value: Callable[[Costed], float]
    limits: tuple[tuple[float, str], ...] = ()


def _tracks() -> list[str]:
    """The tracks, short: "Track 1" of "LRAC Track 1 (transparency)"."""
    return [limits.track.removeprefix("LRAC ").partition(" (")[0] for limits in LRAC]


def _axes() -> tuple[_Axis, ...]:
    short = _tracks()
    return (
        _Axis(
            "MFLOPS, both sides",
            lambda one: one.total_mflops,
            tuple((limits.total_mflops, name) for limits, name in zip(LRAC, short, strict=True)),
        ),
        _Axis(
            "MFLOPS, receiving side",
            lambda one: one.budget.receive.mflops,
            tuple((limits.receive_mflops, name) for limits, name in zip(LRAC, short, strict=True)),
        ),
        _Axis(
            "latency, ms",
            lambda one: one.budget.judged_ms,
            tuple((limits.latency_ms, name) for limits, name in zip(LRAC, short, strict=True)),
        ),
        _Axis("times real time, one thread here", lambda one: one.speed.times_real_time),
    )


def write_budget_page(bundles: Sequence[Costed], results: dict[str, Any] | None, command: str) -> str:
    """The page as HTML.

    Args:
        bundles: in the order of the table.
        results: what `linnet compare` wrote into results.json, None for no quality.
        command: that made the page.
    """
    sections = [f'<section><h2>Cost</h2>\n<div class="scroll">{_table(bundles)}</div></section>']
    if results is not None:
        condition = next(iter(summary["condition"] for summary in results["summaries"]), "clean")
        charts = [_charts(bundles, results, condition, metric) for metric in results["metrics"]]
        hint = f"Means over files, condition {escape(condition)}, with 95&nbsp;% intervals; a point a rate in kbit/s. "
        hint += "Dashed: the limits of LRAC 2025."
        sections.append(
            f'<section><h2>Quality against cost</h2>\n<p class="hint">{hint}</p>{_legend(bundles)}{"".join(charts)}</section>'
        )
    style = files("linnet.evaluate.page").joinpath("report.css").read_text(encoding="utf-8") + _STYLE
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += '<meta name="color-scheme" content="light dark"><title>What bundles cost</title><link rel="icon" href="data:,">'
    about = f'<header><h1>What bundles cost</h1><p id="about">Made by <code>{escape(command)}</code></p></header>'
    body = f"<body>{about}<main>{''.join(sections)}</main></body>"
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{style}</style></head>\n{body}</html>\n'


def _table(bundles: Sequence[Costed]) -> str:
    header = ["bundle", *_tracks(), "parameters, M", "MMAC/s, send", "MMAC/s, receive", "MFLOPS", "latency, ms", "frame, ms"]
    header += ["µs a frame, send", "µs a frame, receive", "x real time"]
    lines = []
    for one in bundles:
        send, receive, budget = one.budget.send, one.budget.receive, one.budget
        figures = [(send.parameters + receive.parameters) / 1e6, send.mmacs, receive.mmacs, one.total_mflops]
        figures += [budget.judged_ms, budget.buffering_ms, one.speed.send_us, one.speed.receive_us, one.speed.times_real_time]
        cells = [f'<th scope="row">{escape(one.name)}</th>']
        for limits in LRAC:
            verdict = budget.verdict(limits)
            over = ", ".join(check.quantity for check in budget.checks(limits) if not check.passed)
            cells.append(f'<td class="{"bad" if over else ""}">{verdict}{": " + over if over else ""}</td>')
        cells += [f"<td>{value:.4g}</td>" for value in figures]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    titles = "".join(f'<th scope="col">{_heading(title)}</th>' for title in header)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _heading(title: str) -> str:
    """A column's title with what follows the comma below it."""
    name, _, unit = title.partition(", ")
    return f'{escape(name)}<span class="interval">{escape(unit)}</span>' if unit else escape(name)


def _round_ticks(low: float, high: float) -> list[float]:
    """Three to eight round numbers between two."""
    most = (high - low) / 3
    power = 10 ** math.floor(math.log10(most))
    step = max(factor * power for factor in (1, 2, 5) if factor * power <= most)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _legend(bundles: Sequence[Costed]) -> str:
    names = (
        f'<span><span class="dot" style="background:var(--c{place % 8})"></span>{escape(one.name)}</span>'
        for place, one in enumerate(bundles)
    )
    return f'<div class="legend">{"".join(names)}</div>'


def _charts(bundles: Sequence[Costed], results: dict[str, Any], condition: str, metric: str) -> str:
    """One metric over every cost, folded in but for the first."""
    rated = [one for one in results["summaries"] if one["condition"] == condition and one["means"][metric]["files"]]
    described = results["metrics"][metric]
    title = f"{metric}, {described['unit']}" if described["unit"] else metric
    first = " open" if metric == next(iter(results["metrics"])) else ""
    better = "higher" if described["higher_is_better"] else "lower"
    blind = METRICS[metric].blind_to if metric in METRICS else described["blind_to"]
    drawn = "".join(_chart(bundles, rated, axis, metric, title) for axis in _axes())
    told = f'<p class="hint">{better.capitalize()} is better. Blind to {escape(blind)}.</p>'
    return f'<details{first}><summary>{escape(title)}</summary>{told}<div class="charts">{drawn}</div></details>'


def _chart(bundles: Sequence[Costed], rated: Sequence[dict[str, Any]], axis: _Axis, metric: str, title: str) -> str:
    points = [
        (place, axis.value(one), summary, summary["means"][metric])
        for place, one in enumerate(bundles)
        for summary in rated
        if summary["codec"] == one.name
    ]
    costs = [*(axis.value(one) for one in bundles), *(limit for limit, _ in axis.limits)]
    low_x, high_x = min(costs) / 2, max(costs) * 2
    low_y = min((mean["low"] for *_, mean in points), default=0.0)
    high_y = max((mean["high"] for *_, mean in points), default=1.0)
    margin = 0.08 * (high_y - low_y) or 0.5
    low_y, high_y = low_y - margin, high_y + margin

    def x(cost: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(cost / low_x) / math.log(high_x / low_x)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - low_y) / (high_y - low_y)

    base = _HEIGHT - _BOTTOM
    parts = [f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>']
    for tick in (tick for tick in _TICKS if low_x <= tick <= high_x):
        parts.append(f'<text x="{x(tick):.1f}" y="{base + 15}" text-anchor="middle">{tick}</text>')
    for value in _round_ticks(low_y, high_y):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for limit, name in axis.limits:
        parts.append(f'<line class="limit" x1="{x(limit):.1f}" x2="{x(limit):.1f}" y1="{_TOP}" y2="{base}"/>')
        parts.append(f'<text class="limit-name" x="{x(limit):.1f}" y="{_TOP - 5}" text-anchor="middle">{name}</text>')
    for place, cost, summary, mean in points:
        at, colour = f"{x(cost):.1f}", f"var(--c{place % 8})"
        told = f"{summary['label']}: {mean['value']:.3g} [{mean['low']:.3g}, {mean['high']:.3g}], {axis.title} {cost:.4g}"
        bar = f'<line x1="{at}" x2="{at}" y1="{y(mean["low"]):.1f}" y2="{y(mean["high"]):.1f}" style="stroke:{colour}"/>'
        dot = f'<circle cx="{at}" cy="{y(mean["value"]):.1f}" r="4" style="fill:{colour}"/>'
        name = f'<text x="{x(cost) + 7:.1f}" y="{y(mean["value"]) + 4:.1f}">{summary["kbps"]:.3g}</text>'
        parts.append(f"<g><title>{escape(told)}</title>{bar}{dot}{name}</g>")
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{escape(axis.title)}</text>')
    label = escape(f"{title} over {axis.title}")
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
