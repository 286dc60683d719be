"""`linnet eval`, the table of a model beside other codecs, and `linnet compare`, any codecs on one page: one engine."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from linnet.bits.errors import LinnetError
from linnet.evaluate.codecs import CODECS, Contestant, parse_codecs
from linnet.evaluate.metrics import METRICS
from linnet.evaluate.page import write_page
from linnet.evaluate.runner import Report
from linnet.evaluate.runner import evaluate as run
from linnet.evaluate.sets import find_files
from linnet.evaluate.store import Store, default_folder
from linnet.evaluate.tables import as_csv, as_json, as_markdown, as_text, told

_COMPARED = ("clear", "opus", "codec2", "amrwb")


class OptionError(LinnetError):
    """An option's value that cannot be understood."""


def _engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What both commands ask for."""
    path = click.Path(path_type=Path, file_okay=False)
    options = (
        click.option("--split", default="test", show_default=True, help="Split of a corpus."),
        click.option("--metrics", help=f"Some of {','.join(METRICS)}.  [default: those that are installed]"),
        click.option("--limit", type=click.IntRange(min=1), help="At most so many files, spread evenly over the set."),
        click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: the cores at hand]"),
        click.option("--cache", type=path, help=f"Where results are kept.  [default: {default_folder()}]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


_CODEC_HELP = (
    f"A model, a bundle's path, or one of {', '.join(CODECS)}; NAME@KBPS,KBPS for rates of its own; all; "
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
def evaluate(
    model: str,
    folder: Path,
    kbps: str,
    codecs: tuple[str, ...],
    json_out: Path | None,
    markdown: Path | None,
    **engine: Any,
) -> None:
    """Score MODEL (a name or a path) and other codecs on the speech in a folder.

    Audio is judged at 16 kHz, one channel. The figures are means over the files, with 95 % bootstrap intervals. What was
    measured before is not measured again.
    """
    first = [Contestant.at(contestant.codec, _rates(kbps)) for contestant in parse_codecs([model])]
    if len(first) != 1:
        raise OptionError(f"{model!r} is not one model: name one, and the others with --codec")
    others = [contestant for contestant in parse_codecs(codecs) if contestant.codec != first[0].codec]
    report, names, n_files, _ = _run(folder, [*first, *others], **engine)
    _print(report, names)
    if json_out is not None:
        _write(json_out, _json(as_json(report, names, command_line(), n_files)))
    if markdown is not None:
        _write(markdown, as_markdown(report, names, command_line(), n_files))


@click.command("compare")
@click.argument("folder", metavar="SET", type=click.Path(path_type=Path))
@click.option("--codec", "codecs", multiple=True, help=f"{_CODEC_HELP}  [default: {','.join(_COMPARED)}]")
@click.option("--kbps", help="Rates, with commas between: each codec at its highest mode not above.  [default: its usual ones]")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for report.html and data.")
@click.option("--listen", type=click.IntRange(min=0), default=8, show_default=True, help="Clips in the page, the worst first.")
@_engine_options
def compare(folder: Path, codecs: tuple[str, ...], kbps: str | None, out: Path, listen: int, **engine: Any) -> None:
    """Compare any codecs on the recordings of SET: one page to look at and listen to.

    Writes report.html, which needs nothing else and no network, results.json and results.csv into --out. What was measured
    before is not measured again, and an interrupted run goes on where it was.
    """
    contestants = parse_codecs(codecs or _COMPARED, _rates(kbps) if kbps else ())
    report, names, n_files, store = _run(folder, contestants, **engine)
    out.mkdir(parents=True, exist_ok=True)
    document = as_json(report, names, command_line(), n_files)
    _write(out / "results.json", _json(document))
    _write(out / "results.csv", as_csv(report, names))
    _write(out / "report.html", write_page(report, document, names, store, folder, listen))
    _print(report, names)
    click.echo(f"{out / 'report.html'}: open it in a browser")


def _run(
    folder: Path,
    contestants: Sequence[Contestant],
    split: str,
    metrics: str | None,
    limit: int | None,
    jobs: int | None,
    cache: Path | None,
) -> tuple[Report, list[str], int, Store]:
    """The report, the metrics, the number of files, and where the audio is."""
    if not contestants:
        raise OptionError("nothing to compare: name codecs with --codec")
    names = _listed(metrics) if metrics else _installed()
    files, store = find_files(folder, split, limit), Store(cache or default_folder())
    jobs = jobs or _cores()
    if not sys.stderr.isatty():  # where click's bar would still print its label
        report = run(contestants, files, names, store, jobs, root=folder)
    else:
        with click.progressbar(length=len(files) * len(contestants), label="codecs x files", file=sys.stderr) as bar:
            report = run(contestants, files, names, store, jobs, root=folder, on_done=lambda: bar.update(1))
    return report, names, len(files), store


def _print(report: Report, metrics: Sequence[str]) -> None:
    click.echo(as_text(report, metrics))
    for skipped in report.skipped:
        click.echo(f"{skipped.codec} is skipped: {skipped.reason}", err=True)
    for row in report.errors:
        click.echo(told(row), err=True)


def command_line() -> str:
    """The command that runs, as one would type it."""
    called = sys.argv[0]
    return shlex.join(["linnet" if Path(called).name in {"linnet", "__main__.py"} else called, *sys.argv[1:]])


def _installed() -> list[str]:
    """The metrics whose packages are there; the others are told."""
    missing = sorted({metric.package for metric in METRICS.values() if not metric.available()})
    if missing:
        click.echo(f"without the metrics of {', '.join(missing)}: pip install 'linnet[eval]'", err=True)
    return [name for name, metric in METRICS.items() if metric.available()]


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(part) for part in _listed(text))
    except ValueError:
        rates = ()
    if not rates or min(rates) <= 0:
        raise OptionError(f"--kbps {text!r} is no list of rates: give kbit/s with commas between, like 1,6")
    return rates


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write(path: Path, text: str) -> None:
    """All or nothing: through a file beside it.

    Raises:
        OptionError: if the file cannot be written.
    """
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OptionError(f"cannot write {path}: {error.strerror}") from error
