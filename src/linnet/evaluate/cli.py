"""`linnet eval`: a model and the codecs to beat, over a set of files, as a table, as JSON and as a page for docs/."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from linnet.bits.errors import LinnetError
from linnet.evaluate.baselines import BASELINES, BaselineError
from linnet.evaluate.metrics import METRICS
from linnet.evaluate.runner import Bundle, Contestant, Legacy, Mean, Report, find_files
from linnet.evaluate.runner import evaluate as run


class OptionError(LinnetError):
    """An option's value that cannot be understood."""


@click.command("eval")
@click.argument("model")
@click.option("--set", "folder", required=True, type=click.Path(path_type=Path), help="Folder of audio, or a corpus.")
@click.option("--split", default="test", show_default=True, help="Split of a corpus.")
@click.option("--kbps", default="1,2,3,4,5,6", show_default=True, help="Rates of MODEL, with commas between.")
@click.option("--baselines", default="none", show_default=True, help=f"all, none, or some of {','.join(BASELINES)}.")
@click.option("--metrics", default=",".join(METRICS), show_default=True, help="What to measure.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many files, spread evenly over the set.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: the cores at hand]")
@click.option("--json", "json_out", type=click.Path(path_type=Path, dir_okay=False), help="Write every row there.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write the table there.")
def evaluate(
    model: str,
    folder: Path,
    split: str,
    kbps: str,
    baselines: str,
    metrics: str,
    limit: int | None,
    jobs: int | None,
    json_out: Path | None,
    markdown: Path | None,
) -> None:
    """Score MODEL (a name or a path) and other codecs on the speech in a folder.

    Audio is judged at 16 kHz, one channel. The figures are means over the files, with 95 % bootstrap intervals.
    """
    command = command_line()
    names = _listed(metrics)
    bundle = Bundle(model, _rates(kbps))
    bundle.rates()  # opens the model: a mistake in MODEL or --kbps is told before the work starts
    codecs: list[Contestant] = [bundle, *chosen_baselines(baselines)]
    files = find_files(folder, split, limit)
    report = _run(codecs, files, names, jobs or _cores(), folder)
    click.echo(as_text(report, names))
    for row in report.errors:
        click.echo(f"{row.file}: {row.codec + ': ' if row.codec else ''}{row.error}", err=True)
    if json_out is not None:
        document = {"command": command, "files": len(files), "metrics": _described(names), **report.to_json()}
        _write(json_out, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if markdown is not None:
        _write(markdown, as_markdown(report, names, command, len(files)))


def _run(codecs: Sequence[Contestant], files: Sequence[Path], metrics: Sequence[str], jobs: int, root: Path) -> Report:
    """With a progress bar on a terminal, silent in a pipe, where click's bar would still print its label."""
    if not sys.stderr.isatty():
        return run(codecs, files, metrics, jobs, root=root)
    with click.progressbar(length=len(files), label="eval", file=sys.stderr) as bar:
        return run(codecs, files, metrics, jobs, root=root, on_file=lambda: bar.update(1))


def command_line() -> str:
    """The command that runs, as one would type it."""
    return shlex.join(["linnet" if Path(sys.argv[0]).name == "linnet" else sys.argv[0], *sys.argv[1:]])


def chosen_baselines(choice: str) -> list[Legacy]:
    """Baselines by family; `all` leaves out what is not installed and says so, naming one insists on it.

    Raises:
        OptionError: if there is no such family.
        BaselineError: if one that was named is not installed.
    """
    if choice == "none":
        return []
    families = list(BASELINES) if choice == "all" else _listed(choice)
    chosen = []
    for family in families:
        if family not in BASELINES:
            raise OptionError(f"no baseline is called {family!r}: choose from all, none, {', '.join(BASELINES)}")
        codecs = BASELINES[family]()
        reason = codecs[0].available()
        if reason is None:
            chosen += [Legacy(codec) for codec in codecs]
        elif choice == "all":
            click.echo(f"{family} is left out: {reason}", err=True)
        else:
            raise BaselineError(reason)
    return chosen


def as_text(report: Report, metrics: Sequence[str]) -> str:
    """The means as a table in columns for a terminal."""
    table = _table(report, metrics)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))])
        for line in table
    )


def as_markdown(report: Report, metrics: Sequence[str], command: str, n_files: int) -> str:
    """The means as a page that says which command made it, and what each metric does not hear."""
    header, *body = _table(report, metrics)
    lines = [f"Made by `{command}`.", ""]
    lines.append(f"{n_files} files, judged at 16 kHz; means over files with 95 % bootstrap intervals.")
    lines += ["", *(f"| {' | '.join(line)} |" for line in (header, ["---", *["---:"] * (len(header) - 1)], *body)), ""]
    for name in metrics:
        better = "higher" if METRICS[name].higher_is_better else "lower"
        lines.append(f"- `{name}`: {better} is better; blind to {METRICS[name].blind_to}.")
    unscored = {(s.codec, name): mean.unscored for s in report.summaries for name, mean in s.means.items()}
    lines += [f"- {codec}: {n} files have no `{name}`." for (codec, name), n in unscored.items() if n]
    lines += [f"- Failed: {row.file} {row.codec} {row.error}" for row in report.errors]
    return "\n".join(lines) + "\n"


def _table(report: Report, metrics: Sequence[str]) -> list[list[str]]:
    units = [METRICS[name].unit for name in metrics]
    header = ["codec", "kbit/s", *(f"{name}, {unit}" if unit else name for name, unit in zip(metrics, units, strict=True))]
    rows = [[s.codec, f"{s.kbps:.2f}", *(_cell(s.means[name]) for name in metrics)] for s in report.summaries]
    return [header, *rows]


def _cell(mean: Mean) -> str:
    return f"{mean.value:.2f} [{mean.low:.2f}, {mean.high:.2f}]" if mean.files else "-"


def _described(metrics: Sequence[str]) -> dict[str, dict[str, object]]:
    return {
        name: {"unit": metric.unit, "higher_is_better": metric.higher_is_better, "blind_to": metric.blind_to}
        for name, metric in ((name, METRICS[name]) for name in metrics)
    }


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
