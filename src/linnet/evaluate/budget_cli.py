"""`linnet budget`: what bundles cost, as text, as JSON, or as a page with the quality that they give for it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from linnet import bundle
from linnet.bits.errors import LinnetError
from linnet.evaluate.budget import Budget, assess, render, to_json
from linnet.runtime.graph import RUNTIME_ERRORS
from linnet.writing import write_text


@click.command("budget")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON: an object, of several models a list.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page there, with measured speed.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="What `linnet compare` wrote into results.json: quality for the page.",
)
def command(models: tuple[str, ...], as_json: bool, html: Path | None, results: Path | None) -> None:
    """MACs, parameters and latency of each MODEL (a name or a path) against the LRAC limits."""
    if results is not None and html is None:
        raise click.UsageError("--results is for the page: name it with --html")
    budgets = [_budget(model) for model in models]
    if as_json:
        plain = [to_json(budget) for budget in budgets]
        click.echo(json.dumps(plain[0] if len(plain) == 1 else plain, indent=2))
    else:
        click.echo("\n\n".join(map(render, budgets)))
    if html is not None:
        write_text(html, _page(models, budgets, results))
        click.echo(f"{html}: open it in a browser", err=True)


def _page(models: tuple[str, ...], budgets: list[Budget], results: Path | None) -> str:
    from linnet.evaluate.budget_page import Costed, write_budget_page
    from linnet.evaluate.cli import command_line
    from linnet.evaluate.codecs.bundle import Bundle
    from linnet.evaluate.speed import measure_speed

    costed = []
    for model, budget in zip(models, budgets, strict=True):
        opened = bundle.load(model)
        sizes = [column.size for column in opened.card.columns]
        rate, hop = opened.card.sample_rate, opened.card.hop
        speed = measure_speed(opened.encoder, opened.decoder, sample_rate=rate, hop=hop, sizes=sizes)
        costed.append(Costed(Bundle(model).name, budget, speed))
    if results is None:
        return write_budget_page(costed, None, command_line())
    try:
        return write_budget_page(costed, json.loads(results.read_text(encoding="utf-8")), command_line())
    except (ValueError, KeyError, TypeError) as error:
        raise LinnetError(f"{results} is not what `linnet compare` writes: name its results.json") from error


def _budget(model: str) -> Budget:
    opened = bundle.load(model)
    card = opened.card
    try:
        return assess(
            opened.encoder,
            opened.decoder,
            name=card.name,
            sample_rate=card.sample_rate,
            hop=card.hop,
            latency_ms=card.latency_ms,
            n_codes=len(card.columns),
        )
    except RUNTIME_ERRORS as error:
        raise LinnetError(f"{model}: its graphs do not run as its card says, export it again: {error}") from error
    except ModuleNotFoundError as error:
        raise click.UsageError(f"linnet budget needs the package {error.name}: pip install 'linnet[eval]'") from error
