"""A report as plain text, as Markdown, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from linnet.evaluate.metrics import METRICS
from linnet.evaluate.report import Report, Row, Summary, without_nan
from linnet.evaluate.statistics import Mean


def as_text(report: Report, metrics: Sequence[str]) -> str:
    """The means as a table in columns for a terminal."""
    return "\n\n".join(_columns(table) for table in _tables(report, metrics))


def _columns(table: list[list[str]]) -> str:
    names = table[0].index("codec") + 1  # columns that are names, and stand to the left
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    )


def as_markdown(report: Report, metrics: Sequence[str], command: str, n_files: int) -> str:
    """The means as a page that says which command made it, and what each metric does not hear."""
    lines = [f"Made by `{command}`.", ""]
    lines.append(f"{n_files} files, judged at 16 kHz; means over files with 95 % bootstrap intervals.")
    for header, *body in _tables(report, metrics):
        lines += ["", *(f"| {' | '.join(line)} |" for line in (header, ["---", *["---:"] * (len(header) - 1)], *body))]
    lines.append("")
    for name in metrics:
        better = "higher" if METRICS[name].higher_is_better else "lower"
        lines.append(f"- `{name}`: {better} is better; blind to {METRICS[name].blind_to}.")
    unscored = {(f"{s.condition}: {s.label}", name): mean.unscored for s in report.summaries for name, mean in s.means.items()}
    lines += [f"- {label}: {n} files have no `{name}`." for (label, name), n in unscored.items() if n]
    lines += [f"- Skipped: {skipped.codec}: {skipped.reason}" for skipped in report.skipped]
    lines += [f"- Left out: {told(row)}" for row in report.errors]
    lines += [f"- {line}." for _, line in report.oddities]
    return "\n".join(lines) + "\n"


def as_json(report: Report, metrics: Sequence[str], command: str, n_files: int) -> dict[str, Any]:
    """Everything, as plain values."""
    described = {
        name: {"unit": metric.unit, "higher_is_better": metric.higher_is_better, "blind_to": metric.blind_to}
        for name, metric in ((name, METRICS[name]) for name in metrics)
    }
    agreements = [
        {"condition": condition, "metrics": list(pair), **asdict(found)}
        for condition in report.conditions
        for pair, found in report.agreements(metrics, condition).items()
    ]
    plain = without_nan({"agreements": agreements})
    return {"command": command, "files": n_files, "metrics": described, **plain, **report.to_json()}


def as_csv(report: Report, metrics: Sequence[str]) -> str:
    """One line a file and codec; what has no value is empty."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    measured = ("mode", "kbps", "bandwidth_hz", "delay_ms")
    lines.writerow(["file", "condition", "codec", *measured, "lag_ms", "gain_db", *metrics, "fault", "notes", "error"])
    for row in report.rows:
        place = row.alignment
        figures = [*(getattr(row, name) for name in measured), place and place.lag_ms, place and place.gain_db]
        figures += [row.scores.get(name) for name in metrics]
        shown = ["" if value is None or np.isnan(value) else f"{value:.6g}" for value in figures]
        lines.writerow([row.file, row.condition, row.codec, *shown, row.fault, "; ".join(row.notes), row.error])
    return text.getvalue()


def told(row: Row) -> str:
    """What is wrong with a row, in one line."""
    return f"{row.file}: {row.label + ': ' if row.codec else ''}{row.error or row.fault}"


def _tables(report: Report, metrics: Sequence[str]) -> list[list[list[str]]]:
    """The means over all files, and those of the groups if there are any; the condition in front if there is any but clean
    speech."""
    units = [METRICS[name].unit for name in metrics]
    several = report.conditions not in ([], ["clean"])
    names = [*(["condition"] if several else []), "codec"]
    figures = ["kbit/s", "kHz", *(f"{name}, {unit}" if unit else name for name, unit in zip(metrics, units, strict=True))]

    def called(summary: Summary) -> list[str]:
        return [summary.condition, summary.label] if several else [summary.label]

    def means(summary: Summary) -> list[str]:
        cells = (_cell(summary.means[name]) for name in metrics)
        return [f"{summary.kbps:.2f}", f"{summary.bandwidth_hz / 1000:g}", *cells]

    tables = [[[*names, *figures], *([*called(one), *means(one)] for one in report.summaries)]]
    if report.groups:
        lines = ([one.group, *called(one), str(one.files), *means(one)] for one in report.groups)
        tables.append([["group", *names, "files", *figures], *lines])
    return tables


def _cell(mean: Mean) -> str:
    return f"{mean.value:.2f} [{mean.low:.2f}, {mean.high:.2f}]" if mean.files else "-"
