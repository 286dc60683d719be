"""What several rooms' commands share: options, the progress bar, and what is said beside a result."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from linnet.bits.errors import LinnetError


class Duration(click.ParamType):
    """A time with its unit, "60ms" or "0.06s", as milliseconds."""

    name = "time"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+|\d*\.\d+)(ms|s)", value.strip())
        milliseconds = float(found[1]) * (1000 if found[2] == "s" else 1) if found else 0.0
        if not 0 < milliseconds < math.inf:
            self.fail(f"{value!r} is no length of time: write it like 60ms or 0.06s", param, ctx)
        return milliseconds


DURATION = Duration()


class Decibels(click.ParamType):
    """A level in dB at or below 0, or "off", as a gain from 0 to 1."""

    name = "dB"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            decibels = -math.inf if value.strip() == "off" else float(value)
        except ValueError:
            decibels = math.nan
        if not decibels <= 0:
            self.fail(f"{value!r} is no level: write 0, -12 or off", param, ctx)
        return 10 ** (decibels / 20)


kbps_option = click.option(
    "--kbps", type=click.FloatRange(min=0, min_open=True), help="The rate, 1 to 6 for 'clear' [all layers]."
)
model_option = click.option("--model", default="clear", show_default=True, help="A shipped model's name or a bundle's path.")


background_option = click.option(
    "--background",
    type=Decibels(),
    default="0",
    metavar="DB",
    help="Turn the background to -12, say, or off, where the model codes it apart [0].",
)


def copies_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name a redundancy: `copies` and `spacing_ms`."""
    spacing = click.option(
        "--spacing", "spacing_ms", type=DURATION, default="60ms", show_default=True, metavar="TIME", help="Between copies."
    )
    copies = click.option(
        "--redundancy", "copies", type=click.IntRange(0, 16), default=0, help="Copies of each frame's first layer."
    )
    return copies(spacing(command))


def loss_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name a network: `loss`, `burst_ms` and `seed`."""
    loss = click.option("--loss", type=click.FloatRange(0, 1), default=0.0, help="Lose this share of the packets.")
    burst = click.option(
        "--burst", "burst_ms", type=DURATION, metavar="TIME", help="Mean length of losses in a row, like 60ms [chance]."
    )
    seed = click.option("--seed", type=click.IntRange(min=0), default=0, help="Which packets are lost.")
    return loss(burst(seed(command)))


def refuse_same(source: str, target: str) -> None:
    """A LinnetError if a command would write over what it reads."""
    if source != "-" and Path(source).exists() and Path(target).exists() and Path(source).samefile(target):
        raise LinnetError(f"{source} is both the input and the output; name another output")


def progress(items: Iterable, total: int | None, label: str = "") -> Iterable:
    """A progress bar on a terminal, nothing in a pipe or for work of a moment."""
    if sys.stderr is None or not sys.stderr.isatty() or total is None or total < 12:
        yield from items
        return
    with click.progressbar(items, length=total, label=label, file=sys.stderr) as bar:
        yield from bar


def say(text: str) -> None:
    """A remark, on standard error."""
    click.echo(f"linnet: {text}", err=True)
