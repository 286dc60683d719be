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
    chosen, by_name = hardest_files(report, metrics[0], listen), {clip.name: clip for clip in clips}
    data = {
        "command": document["command"],
        "files": document["files"],
        "metrics": document["metrics"],
        "conditions": report.conditions,
        "summaries": document["summaries"],
        "skipped": document["skipped"],
        "listening": document.get("listening", []),
        "rows": [_short(row) for row in report.rows],
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


def hardest_files(report: Report, metric: str, count: int) -> list[str]:
    """The files that score worst beside the others, by the mean over codecs of how far each is from that codec's mean.

    Scores are in units of the codec's own spread over files, so that no codec outweighs another. Every condition gives its
    worst, then every one its second, and so on.
    """
    sign = 1.0 if METRICS[metric].higher_is_better else -1.0
    by_label: dict[tuple[str, str], dict[str, float]] = {}
    standing: dict[str, dict[str, list[float]]] = {}
    for row in report.rows:
        if row.key:
            standing.setdefault(row.condition, {}).setdefault(row.file, [])
        if not row.error and not row.fault and not np.isnan(row.scores[metric]):
            by_label.setdefault((row.condition, row.label), {})[row.file] = sign * row.scores[metric]
    for (condition, _), scores in by_label.items():
        values = np.array(list(scores.values()))
        for file, value in scores.items():
            standing[condition][file].append(float((value - values.mean()) / (values.std() or 1.0)))
    means = [{file: float(np.mean(of_file or [0.0])) for file, of_file in found.items()} for found in standing.values()]
    worst = [[file for _, file in sorted((mean, file) for file, mean in found.items())] for found in means]
    return [file for places in zip_longest(*worst) for file in places if file is not None][:count]


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
