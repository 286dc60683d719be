"""`linnet eval`, the table of a model beside other codecs, and `linnet compare`, any codecs on one page: one engine."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from linnet.bits.errors import LinnetError
from linnet.bundle import add_results, writable_folder
from linnet.evaluate.codecs import CODECS, Codec, Contestant, parse_codecs
from linnet.evaluate.codecs.bundle import Bundle
from linnet.evaluate.conditions.cli import chosen_clips, options, set_options
from linnet.evaluate.listening.analysis import analyse, read_answers
from linnet.evaluate.metrics import METRICS
from linnet.evaluate.page import write_page
from linnet.evaluate.report import Report
from linnet.evaluate.runner import evaluate as run
from linnet.evaluate.sets import Clip, said_of_each
from linnet.evaluate.store import Store
from linnet.evaluate.tables import as_csv, as_json, as_markdown, as_text, told
from linnet.writing import write_text

COMPARED = ("clear", "quiet", "opus", "codec2", "amrwb")


class OptionError(LinnetError):
    """An option's value that cannot be understood."""


_engine_options = options(
    set_options,
    click.option("--shard", help="K/N: only every N-th clip, from the K-th; others take the others, into the same --cache."),
    click.option("--metrics", help=f"Some of {','.join(METRICS)}; default: the quick ones that are installed; all."),
    click.option(
        "--against",
        type=click.Choice(["clean", "input"]),
        default="clean",
        show_default=True,
        help="Judge against the speech without what disturbs it, or against what the codec was given.",
    ),
    click.option("--by", multiple=True, help="Means by a column of the corpus's manifest, too, like language. Repeatable."),
)


_CODEC_HELP = (
    f"A model, a bundle's path, or one of {', '.join(CODECS)}; NAME@KBPS,KBPS for rates of its own; all, but models; "
    "or 'NAME=COMMAND {in} {out} {kbps}'. Repeatable."
)


@click.command("eval")
@click.argument("model")
@click.option("--set", "folder", required=True, type=click.Path(path_type=Path), help="Folder of audio, or a corpus.")
@click.option("--kbps", default="1,2,3,4,5,6", show_default=True, help="Rates of MODEL, with commas between.")
@click.option("--codec", "--baselines", "codecs", multiple=True, help=f"What stands beside MODEL. {_CODEC_HELP}")
@_engine_options
@click.option("--json", "json_out", type=click.Path(path_type=Path, dir_okay=False), help="Write every row there.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write the table there.")
@click.option("--card", is_flag=True, help="Put MODEL's means into the card of its bundle, with the command.")
def evaluate(
    model: str,
    folder: Path,
    kbps: str,
    codecs: tuple[str, ...],
    json_out: Path | None,
    markdown: Path | None,
    card: bool,
    **engine: Any,
) -> None:
    """Score MODEL (a name or a path) and other codecs on the speech in a folder, under any conditions.

    Audio is judged at 16 kHz, one channel. The figures are means over the files, with 95 % bootstrap intervals. What was
    measured before is not measured again.
    """
    rates = _rates(kbps)
    first = [Contestant.at(contestant.codec, rates) for contestant in parse_codecs([model], rates)]
    if len(first) != 1:
        raise OptionError(f"{model!r} is not one model: name one, and the others with --codec")
    measured_model = _carded(first[0].codec, engine["shard"]) if card else None
    others = [contestant for contestant in parse_codecs(codecs) if contestant.codec != first[0].codec]
    done = _run(folder, [*first, *others], **engine)
    _print(done)
    if json_out is not None:
        write_text(json_out, _json(_document(done)))
    if markdown is not None:
        write_text(markdown, as_markdown(done.report, done.metrics, command_line(), len(done.clips)))
    if measured_model is not None:
        add_results(measured_model, _results(done, first[0].codec.name))


def _carded(codec: Codec, shard: str | None) -> str:
    """The model into whose card the means can go; what is wrong with that is told before the work, not after it."""
    if not isinstance(codec, Bundle):
        raise OptionError(f"--card: {codec.name} is no model, so it has no card")
    if shard is not None:
        raise OptionError("--card and --shard: a card has the means of all clips")
    writable_folder(codec.model)
    return codec.model


def _results(done: Done, codec: str) -> dict[str, Any]:
    """One codec's means, for a card: a card goes to other machines, so of absolute paths the last part is kept."""
    means = [
        {"codec": one.label, "condition": one.condition, "kbps": round(one.kbps, 3), "files": one.files}
        | {name: round(mean.value, 4) for name, mean in one.means.items()}
        for one in done.report.summaries
        if one.codec == codec
    ]
    if not means:
        raise LinnetError(f"{codec} could not be measured: its card stays as it was")
    return {"command": shlex.join(_without_folders(word) for word in shlex.split(command_line())), "means": means}


def _without_folders(word: str) -> str:
    """A word of a command line, like `/a/set`, `--set=/a/set` or `name=/a/tool {in}`, with the last part of absolute paths."""
    return Path(word).name if Path(word).is_absolute() else re.sub(r"(?<=[=\s])/\S*/(?=\S)", "", word)


codec_options = options(
    click.option("--codec", "codecs", multiple=True, help=f"{_CODEC_HELP}  [default: {','.join(COMPARED)}]"),
    click.option("--kbps", help="Rates with commas between: each codec's highest mode not above.  [default: its usual ones]"),
)


@click.command("compare")
@click.argument("folder", metavar="SET", type=click.Path(path_type=Path))
@codec_options
@click.option(
    "--listening",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Answers of `linnet listen`.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for report.html and data.")
@click.option("--listen", type=click.IntRange(min=0), default=8, show_default=True, help="Clips in the page, the worst first.")
@_engine_options
def compare(
    folder: Path,
    codecs: tuple[str, ...],
    kbps: str | None,
    listening: tuple[Path, ...],
    out: Path,
    listen: int,
    **engine: Any,
) -> None:
    """Compare any codecs on the recordings of SET: one page to look at and listen to.

    Writes report.html, which needs nothing else and no network, results.json and results.csv into --out. What was measured
    before is not measured again, and an interrupted run goes on where it was.
    """
    verdicts = [analyse(read_answers(path)).to_json() for path in listening]
    done = _run(folder, contestants(codecs or COMPARED, kbps), **engine)
    out.mkdir(parents=True, exist_ok=True)
    document = {**_document(done), "listening": verdicts}
    write_text(out / "results.json", _json(document))
    write_text(out / "results.csv", as_csv(done.report, done.metrics))
    write_text(out / "report.html", write_page(done.report, document, done.metrics, done.store, done.clips, listen))
    _print(done)
    click.echo(f"{out / 'report.html'}: open it in a browser")


@dataclass(frozen=True)
class Done:
    """What a run gave: the report, its metrics and clips, and where the audio is."""

    report: Report
    metrics: list[str]
    clips: list[Clip]
    store: Store


def _document(done: Done) -> dict[str, Any]:
    """Everything as plain values, with what tells another laboratory that it has the same samples."""
    samples = [{"file": clip.name, "seed": clip.seed, "sha256": clip.sha256} for clip in done.clips if clip.sha256]
    return {**as_json(done.report, done.metrics, command_line(), len(done.clips)), "samples": samples}


def _run(
    folder: Path,
    chosen_codecs: Sequence[Contestant],
    shard: str | None,
    metrics: str | None,
    jobs: int | None,
    against: str,
    by: tuple[str, ...],
    conditions: tuple[str, ...],
    **chosen: Any,
) -> Done:
    names, part = _metrics(metrics), _shard(shard or "1/1")
    columns = {column: said_of_each(folder, column) for column in by}
    clips, store = chosen_clips(folder, conditions, **chosen)
    clips = clips[part]
    if not clips:
        raise OptionError(f"--shard {shard} has none of so few clips: give a smaller N")
    if against == "input":
        clips = [replace(clip, reference=None, reference_sha256="") for clip in clips]
    report = measured(chosen_codecs, clips, names, store, jobs)
    if all(row.error for row in report.rows):
        failed = [told(row) for row in report.rows] or [f"{skipped.codec}: {skipped.reason}" for skipped in report.skipped]
        raise LinnetError(f"nothing could be measured; {len(failed)} failed, the first is {failed[0]}")
    for column, said in columns.items():  # whose manifest does not name what conditions made of its recordings
        of_each = {clip.name: said.get(clip.source if conditions else clip.name, "") for clip in clips}
        report = report.by(column, of_each, names)
    return Done(report, names, clips, store)


def contestants(codecs: Sequence[str], kbps: str | None) -> list[Contestant]:
    """What `codec_options` choose."""
    return parse_codecs(codecs, _rates(kbps) if kbps else ())


def measured(
    chosen: Sequence[Contestant], clips: Sequence[Clip], metrics: Sequence[str], store: Store, jobs: int | None
) -> Report:
    """What the engine finds, with a bar on a terminal."""
    if not chosen:
        raise OptionError("nothing to compare: name codecs with --codec")
    jobs = jobs or _cores()
    if not sys.stderr.isatty():  # where click's bar would still print its label
        return run(chosen, clips, metrics, store, jobs)
    with click.progressbar(length=len(clips) * len(chosen), label="codecs x files", file=sys.stderr) as bar:
        return run(chosen, clips, metrics, store, jobs, on_done=lambda: bar.update(1))


def _print(done: Done) -> None:
    click.echo(as_text(done.report, done.metrics))
    for skipped in done.report.skipped:
        click.echo(f"{skipped.codec} is skipped: {skipped.reason}", err=True)
    for row in done.report.errors:
        click.echo(told(row), err=True)
    for _, line in done.report.oddities:
        click.echo(line, err=True)


def command_line() -> str:
    """The command that runs, as one would type it."""
    called = sys.argv[0]
    return shlex.join(["linnet" if Path(called).name in {"linnet", "__main__.py"} else called, *sys.argv[1:]])


def _installed() -> list[str]:
    """The usual metrics whose packages are there; the others are told."""
    usual = {name: metric for name, metric in METRICS.items() if metric.default}
    missing = sorted({metric.package for metric in usual.values() if not metric.available()})
    if missing:
        click.echo(f"without the metrics of {', '.join(missing)}: pip install 'linnet[eval]'", err=True)
    return [name for name, metric in usual.items() if metric.available()]


def _metrics(text: str | None) -> list[str]:
    """What --metrics says. What is asked for by name and not installed is an error; of 'all', only told."""
    names: list[str] = []
    for name in _listed(text or "default"):
        if name == "default":
            names += _installed()
        elif name == "all":
            for other, metric in METRICS.items():
                if metric.available():
                    names.append(other)
                else:
                    click.echo(f"without {other}: {metric.install}", err=True)
        else:
            names.append(name)
    if not names:
        raise OptionError(f"--metrics {text!r} names none: give some of {','.join(METRICS)}, default or all")
    return list(dict.fromkeys(names))


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(part) for part in _listed(text))
    except ValueError:
        rates = ()
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise OptionError(f"--kbps {text!r} is no list of rates: give kbit/s with commas between, like 1,6")
    return rates


def _shard(text: str) -> slice:
    """What --shard says, as a slice of the clips."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    place, number = (int(part) for part in found.groups()) if found else (0, 0)
    if not 1 <= place <= number:
        raise OptionError(f"--shard {text!r} is no part: give K/N, like 1/8 for the first of eight")
    return slice(place - 1, None, number)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
