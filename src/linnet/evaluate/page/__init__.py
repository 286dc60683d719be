"""The page of a comparison: one HTML file with everything in it, that asks nothing of any network.

The document is a template, a style sheet and two scripts, kept beside this module as plain files, and the data as JSON inside
a script element. Audio is FLAC of 16 bits, so that what one hears is what the codec gave; the browser draws the spectrograms
and the curves.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from itertools import zip_longest
from typing import Any

import numpy as np
import soundfile

from linnet.evaluate.metrics import METRICS, RATE, Samples
from linnet.evaluate.page.loudness import equal_gains
from linnet.evaluate.report import Report, Row, without_nan
from linnet.evaluate.sets import Clip, read_clip
from linnet.evaluate.store import Store

_TABLE_FILES = 200  # of a condition, in the table of files; of hundreds of hours, all rows are in results.csv alone


def write_page(
    report: Report, document: dict[str, Any], metrics: Sequence[str], store: Store, clips: Sequence[Clip], listen: int
) -> str:
    """The page as HTML.

    Args:
        report: what was found.
        document: of `tables.as_json`, for what the page says of itself.
        metrics: in the order in which the page offers them; clips are chosen by the first.
        store: where the decoded audio is.
        clips: those that were coded.
        listen: how many of them one can hear, those that codecs find hardest.
    """
    worst = {metric: worst_files(report, metric) for metric in metrics}
    chosen = hardest_files(report, worst[metrics[0]], listen)
    shown = {*chosen, *(file for found in worst.values() for files in found.values() for file in files[:_TABLE_FILES])}
    by_name = {clip.name: clip for clip in clips}
    data = {
        "command": document["command"],
        "files": document["files"],
        "metrics": document["metrics"],
        "conditions": report.conditions,
        "summaries": document["summaries"],
        "skipped": document["skipped"],
        "listening": document.get("listening", []),
        "rows": [_short(row) for row in report.rows if row.file in shown],
        "worst": {
            condition: {metric: files[condition][:_TABLE_FILES] for metric, files in worst.items()}
            for condition in report.conditions
        },
        "counts": {condition: len(files) for condition, files in worst[metrics[0]].items()},
        "oddities": report.oddities,
        "agreements": document["agreements"],
        "pairs": {
            condition: {metric: _pairs(report, metric, condition) for metric in metrics} for condition in report.conditions
        },
        "clips": [_clip(by_name[name], report.rows, store) for name in chosen],
    }
    here = files("linnet.evaluate.page")
    page = here.joinpath("report.html").read_text(encoding="utf-8")
    parts = {"style": here.joinpath("report.css").read_text(encoding="utf-8")}
    parts["script"] = "".join(here.joinpath(name).read_text(encoding="utf-8") for name in ("tables.js", "player.js"))
    # the only thing that could end a script element early is a '<' in a name
    parts["data"] = json.dumps(without_nan(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    for name, text in parts.items():
        page = page.replace(f"{{{{{name}}}}}", text)
    return page


def worst_files(report: Report, metric: str) -> dict[str, list[str]]:
    """The files of each condition, the worst first, by the mean over codecs of how far each is from that codec's mean.

    Scores are in units of the codec's own spread over files, so that no codec outweighs another. What failed or is left out
    everywhere comes first, what has no score in this metric last.
    """
    sign = 1.0 if METRICS[metric].higher_is_better else -1.0
    by_label: dict[tuple[str, str], dict[str, float]] = {}
    standing: dict[str, dict[str, list[float]]] = {}
    wrong = set()
    for row in report.rows:
        standing.setdefault(row.condition, {}).setdefault(row.file, [])
        if row.error or row.fault:
            wrong.add(row.file)
        elif not np.isnan(row.scores[metric]):
            by_label.setdefault((row.condition, row.label), {})[row.file] = sign * row.scores[metric]
    for (condition, _), scores in by_label.items():
        values = np.array(list(scores.values()))
        for file, value in scores.items():
            standing[condition][file].append(float((value - values.mean()) / (values.std() or 1.0)))
    place = {False: np.inf, True: -np.inf}  # of files without a score
    means = {
        condition: {file: float(np.mean(of_file)) if of_file else place[file in wrong] for file, of_file in found.items()}
        for condition, found in standing.items()
    }
    return {condition: sorted(found, key=lambda file: (found[file], file)) for condition, found in means.items()}


def hardest_files(report: Report, worst: dict[str, list[str]], count: int) -> list[str]:
    """So many files that can be heard: of `worst_files`, every condition's worst, then every one's second, and so on."""
    heard = {row.file for row in report.rows if row.key}
    return [file for place in zip_longest(*worst.values()) for file in place if file in heard][:count]


def _short(row: Row) -> dict[str, Any]:
    return {
        "file": row.file,
        "label": row.label,
        "condition": row.condition,
        "kbps": round(row.kbps, 4),
        "scores": {name: round(value, 4) for name, value in row.scores.items()},
        "problem": row.error or row.fault,
        "notes": row.notes,
    }


def _pairs(report: Report, metric: str, condition: str) -> list[list[Any]]:
    """Of two codecs: labels, mean difference, its interval, p, files."""
    return [
        [one, other, *(float(f"{value:.4g}") for value in (pair.difference, pair.low, pair.high, pair.p)), pair.files]
        for (one, other), pair in report.pairs(metric, condition).items()
    ]


def _clip(clip: Clip, rows: Sequence[Row], store: Store) -> dict[str, Any]:
    """The original, what codecs were given if that is something else, and what each made of it, as sound."""
    heard, wanted = read_clip(clip)
    versions = [("original", wanted)]
    if clip.reference is not None:
        versions.append((clip.condition, heard))
    versions += [(row.label, store.audio(row.key)) for row in rows if row.file == clip.name and row.key]
    gains = equal_gains([samples for _, samples in versions])
    sounds = [
        {"label": label, "gain": round(gain, 4), "flac": _flac(samples)}
        for gain, (label, samples) in zip(gains, versions, strict=True)
    ]
    return {"file": clip.name, "seconds": len(versions[0][1]) / RATE, "sounds": sounds}


def _flac(samples: Samples) -> str:
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, RATE, format="FLAC", subtype="PCM_16")
    return base64.b64encode(encoded.getvalue()).decode("ascii")
