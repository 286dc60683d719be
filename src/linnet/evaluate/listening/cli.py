"""`linnet listen`, which serves a test, and `linnet ratings`, which says what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from linnet.bits.errors import LinnetError
from linnet.evaluate.cli import COMPARED, codec_options, contestants, measured
from linnet.evaluate.conditions.cli import chosen_clips, set_options
from linnet.evaluate.listening.analysis import analyse, as_text, read_answers
from linnet.evaluate.listening.plan import METHODS, ListeningError, Plan, make_plan
from linnet.evaluate.listening.server import RunningTest, make_server
from linnet.evaluate.metrics import Samples
from linnet.evaluate.report import Report
from linnet.evaluate.sets import Clip, read_clip
from linnet.evaluate.store import Store

_CLIPS = 10


@click.command("listen")
@click.argument("folder", metavar="SET", type=click.Path(path_type=Path))
@click.option("--test", "method", type=click.Choice(list(METHODS)), default="mushra", show_default=True, help="The method.")
@codec_options
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for answers.csv.")
@click.option("--trials", type=click.IntRange(min=1), help="At most so many for each listener, drawn anew for each.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on; 0.0.0.0 for other machines.")
@click.option("--port", type=click.IntRange(0, 65535), default=8100, show_default=True, help="Port; 0 for a free one.")
@set_options
def listen(
    folder: Path,
    method: str,
    codecs: tuple[str, ...],
    kbps: str | None,
    out: Path,
    trials: int | None,
    host: str,
    port: int,
    limit: int | None,
    seed: int,
    jobs: int | None,
    **chosen: Any,
) -> None:
    """Serve a listening test of codecs on SET until it is interrupted, and write answers.csv into --out.

    What was decoded before is not decoded again. Of SET, 10 files are heard unless --limit says otherwise; of a DRT, all that
    are called by one of its words. Answers are added to those of the same method that are there, and listeners who come back
    go on.
    """
    answers = out / "answers.csv"
    if answers.exists() and (before := read_answers(answers)[0].method) != method:  # together they could not be read
        raise ListeningError(f"{answers} has answers of {before}, not {method}: name another folder for --out")
    limit = limit or (None if method == "drt" else _CLIPS)
    clips, store = chosen_clips(folder, limit=limit, seed=seed, **chosen)
    report = measured(contestants(codecs or COMPARED, kbps), clips, [], store, jobs)
    for skipped in report.skipped:
        click.echo(f"{skipped.codec} is skipped: {skipped.reason}", err=True)
    plan = plan_for(method, clips, report, store, seed)
    out.mkdir(parents=True, exist_ok=True)
    test = RunningTest(plan, answers, trials)
    try:
        server = make_server(test, host, port)
    except OSError as error:
        raise LinnetError(f"cannot serve on {host}:{port}: {error.strerror}; choose another --port") from error
    heard = min(len(plan.trials), trials or len(plan.trials))
    where = f"http://{'localhost' if host == '0.0.0.0' else host}:{server.server_port}/"
    click.echo(f"{where}: {METHODS[method].title}, {heard} trials for each listener; end with Ctrl-C")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        if test.answers.exists():
            click.echo(as_text(analyse(read_answers(test.answers))))
    finally:
        server.server_close()


@click.command("ratings")
@click.argument("answers", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--unscreened", is_flag=True, help="Believe everybody.")
def ratings(answers: Path, unscreened: bool) -> None:
    """Means and intervals of a listening test's ANSWERS, after post-screening."""
    click.echo(as_text(analyse(read_answers(answers), screen=not unscreened)))


def plan_for(method: str, clips: Sequence[Clip], report: Report, store: Store, seed: int) -> Plan:
    """The test of a run's clips; one that any codec spoiled is left out, and told.

    Raises:
        ListeningError: if no trial is left, or one has too many sounds.
    """
    spoiled = {row.file for row in report.errors}
    for name in sorted(spoiled):
        click.echo(f"{name} is left out: not every codec gave something that can be compared", err=True)
    heard: list[tuple[str, Samples, dict[str, Samples]]] = []
    for clip in clips:
        rows = [row for row in report.rows if row.file == clip.name and row.key]
        if clip.name not in spoiled and rows:
            heard.append((clip.name, read_clip(clip)[1], {row.label: store.audio(row.key) for row in rows}))
    return make_plan(method, heard, seed)
