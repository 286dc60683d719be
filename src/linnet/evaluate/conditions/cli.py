"""`linnet conditions`, and the options by which other commands choose the clips of a set and what happens to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import soundfile

from linnet.evaluate.conditions.grammar import ConditionError, described, parse_conditions
from linnet.evaluate.conditions.making import MANIFEST, Source, differences, fingerprint, make_set, read_hashes
from linnet.evaluate.sets import Clip, SetError, find_clips, read_clip
from linnet.evaluate.store import Store, default_folder
from linnet.options import progress


def options(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Options that several commands have, as one decorator."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


_FOLDER = click.Path(path_type=Path, file_okay=False)
_set_options = options(
    click.option("--split", default="test", show_default=True, help="Split of a corpus."),
    click.option("--limit", type=click.IntRange(min=1), help="At most so many files, spread evenly over the set."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what chance decides."),
)
set_options = options(
    click.option(
        "--condition",
        "conditions",
        multiple=True,
        help=f"What happens to speech, joined by '+'. Repeatable. {described()}.",
    ),
    _set_options,
    click.option("--cache", type=_FOLDER, help=f"Where results are kept.  [default: {default_folder()}]"),
    click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: the cores at hand]"),
)


@click.command("conditions")
@click.argument("folder", metavar="SET", type=click.Path(path_type=Path))
@click.option("--condition", "names", multiple=True, required=True, help=f"Joined by '+'. Repeatable. {described()}.")
@click.option("--out", required=True, type=_FOLDER, help="Folder for the audio and manifest.csv.")
@click.option("--like", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="A manifest to agree with.")
@_set_options
def conditions(
    folder: Path, names: tuple[str, ...], out: Path, like: Path | None, split: str, limit: int | None, seed: int
) -> None:
    """Make a set of clips under conditions from SET, a corpus or a folder: the same one from the same corpus and seed.

    The folder is a SET for the other commands; its manifest says what was done to each clip, with SHA-256 of the samples.
    """
    chosen = parse_conditions(names)
    theirs = None if like is None else read_hashes(like)  # before it is replaced, if it is the one in --out
    manifest = make_set(Source(folder, split, seed), chosen, out, limit, partial(progress, label="clips"))
    click.echo(f"{manifest}: {len(find_clips(out, split))} clips under {len(chosen)} conditions")
    if theirs is not None:
        found = differences(read_hashes(manifest), theirs)
        if found:
            raise ConditionError(f"{len(found)} clips are not those of {like}, like {found[0]}: take its corpus and seed")
        click.echo(f"every clip is that of {like}")


def chosen_clips(
    folder: Path, conditions: tuple[str, ...], split: str, limit: int | None, seed: int, cache: Path | None
) -> tuple[list[Clip], Store]:
    """The clips that `set_options` choose, made in the cache if conditions are asked for; and where results are kept."""
    store = Store(cache or default_folder())
    if not conditions:
        return find_clips(folder, split, limit), store
    asked = parse_conditions(conditions)
    source = Source(folder, split, seed)
    made = store.folder / "sets" / fingerprint(source, asked, limit)
    if not ((made / MANIFEST).exists() and _is_whole(made, split)):
        (made / MANIFEST).unlink(missing_ok=True)  # an empty one would be taken for another corpus
        make_set(source, asked, made, limit, partial(progress, label="clips"))
    click.echo(f"{made}: the clips under {len(asked)} conditions, with their manifest", err=True)
    return find_clips(made, split), store


def _is_whole(folder: Path, split: str) -> bool:
    """Whether every clip of a set is what its manifest says."""
    try:
        for clip in find_clips(folder, split):
            read_clip(clip)
    except (OSError, SetError, soundfile.LibsndfileError):
        return False
    return True
