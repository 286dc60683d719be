"""The lab's commands: `linnet train`, `linnet slim` and `linnet export`."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import sys
import time
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
import torch.distributed as dist
from torch.utils.tensorboard import SummaryWriter

from linnet.bundle import FORMAT, write_bundle
from linnet.lab.data.corpus import Packed, pack, read_manifest
from linnet.lab.export import export_graphs
from linnet.lab.systems import make_system
from linnet.lab.systems.base import System
from linnet.lab.train.checkpoint import Progress, load_checkpoint, restore_weights, save_checkpoint, slim
from linnet.lab.train.loop import Data, Trainer, append_metrics
from linnet.lab.train.recipe import Recipe, load_recipe
from linnet.lab.train.validate import choose_clips, draw_spectrograms, listen, score
from linnet.options import progress, refuse_same
from linnet.writing import cache_folder

_LOG_EVERY = 25


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--corpus", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True, help="A folder with manifest.csv."
)
@click.option("--hours", type=click.FloatRange(min=0), default=math.inf, help="Stop, with a checkpoint, after so many hours.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where checkpoints and logs go [runs/NAME].")
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@click.option(
    "--from", "source", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Start from this checkpoint."
)
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path), default=cache_folder(), help="Where packed corpora are kept."
)
@click.option("--jobs", type=click.IntRange(min=1), default=2, help="Processes that pack the corpus.")
@click.option(
    "--workers", type=click.IntRange(min=0), default=0, help="Processes that draw crops beside each one that trains [0]."
)
@click.option(
    "--validate-minutes", type=click.FloatRange(min=0), default=30.0, help="Validate so often, and after every stage [30]."
)
def train(
    recipe: Path, corpus: Path, hours: float, folder: Path | None, resume: bool, source: Path | None, cache: Path, jobs: int,
    workers: int, validate_minutes: float,
) -> None:  # fmt: skip
    """Train what RECIPE says, on a GPU where there is one. Under torchrun, one process a core or GPU trains together."""
    plan = load_recipe(recipe)
    folder = folder or Path("runs") / plan.name
    last = folder / "last.safetensors"
    if resume and not last.exists():
        raise click.UsageError(f"nothing to resume: {last} does not exist; leave --resume out to start")
    if not resume and last.exists():
        raise click.UsageError(f"{folder} already holds a run; go on with --resume or name another --folder")
    if "RANK" in os.environ:
        # One thread a process: OpenMP waits for its slowest thread, processes only for each other.
        torch.set_num_threads(1)
        # The first packs the corpus, which may take hours, while the others wait.
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(days=2))
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    read_manifest(corpus)  # what is wrong with it is told before anything is made
    folder.mkdir(parents=True, exist_ok=True)
    data, valid = _pack(plan, corpus, cache, jobs)
    trainer = Trainer(plan, data, folder, resume=last if resume else source, device=device, workers=workers)
    writer = SummaryWriter(str(folder)) if trainer.rank == 0 else None
    display = _Display(plan) if trainer.rank == 0 else None
    sums, counts = Counter[str](), Counter[str]()
    stage, validated = trainer.progress.stage, time.monotonic()
    for count, metrics in enumerate(trainer.run(hours), start=1):
        if trainer.progress.stage != stage:  # whose losses may be others, or mean something else
            sums.clear()
            counts.clear()
        sums.update(metrics)
        counts.update(metrics.keys())
        if count % _LOG_EVERY == 0:
            if writer and display:
                means = {name: value / counts[name] for name, value in sums.items()}
                _log(folder, writer, trainer, means)
                display.show(trainer.progress, means)
            sums.clear()
            counts.clear()
        if writer and (trainer.progress.stage != stage or time.monotonic() - validated > 60 * validate_minutes):
            _validate(folder, writer, trainer, valid)
            stage, validated = trainer.progress.stage, time.monotonic()
    if writer:
        _validate(folder, writer, trainer, valid)


class _Display:
    """How the run goes, on standard error: a bar a stage on a terminal, else a line every so often."""

    def __init__(self, plan: Recipe):
        self.plan = plan
        self.bar: Any = None

    def show(self, progress: Progress, metrics: dict[str, float]) -> None:
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        stage = self.plan.stages[min(progress.stage, len(self.plan.stages) - 1)]
        if not sys.stderr.isatty():
            click.echo(f"{stage.name} {progress.step}/{stage.steps}  {progress.hours:.2f} h  {shown}", err=True)
            return
        if self.bar is None or self.bar.label != stage.name:
            if self.bar is not None:
                self.bar.render_finish()
            self.bar = click.progressbar(
                length=stage.steps, label=stage.name, show_pos=True, item_show_func=str, file=sys.stderr, update_min_steps=1
            )
        self.bar.update(progress.step - self.bar.pos, shown)


def _pack(plan: Recipe, corpus: Path, cache: Path, jobs: int) -> tuple[Data, Packed]:
    """What to train on, and valid speech; process 0 packs first, the others find it packed."""
    system = plan.system
    leader = not dist.is_initialized() or dist.get_rank() == 0
    kinds = {clip.kind for clip in read_manifest(corpus) if clip.split == "train"}

    packing = partial(progress, label="packing")

    def packed(kind: str, split: str) -> Packed:
        rate, labels = system.sample_rate, system.labels
        return pack(corpus, kind, split, cache, sample_rate=rate, labels=labels, jobs=jobs, progress=packing)

    def everything() -> tuple[Data, Packed]:
        # A corpus without noise or rooms trains as well, on clean speech.
        noise, rooms = (packed(kind, "train") if kind in kinds else None for kind in ("noise", "rir"))
        return Data(packed("speech", "train"), noise, rooms), packed("speech", "valid")

    if dist.is_initialized():
        result = everything() if leader else None
        dist.barrier()
        return result or everything()
    return everything()


def _log(folder: Path, writer: SummaryWriter, trainer: Trainer, metrics: dict[str, float]) -> None:
    progress = trainer.progress
    stage = trainer.recipe.stages[min(progress.stage, len(trainer.recipe.stages) - 1)]
    append_metrics(folder, {**dataclasses.asdict(progress), "stage": stage.name, **metrics})
    for name, value in metrics.items():
        writer.add_scalar(f"{stage.name}/{name}", value, progress.step)


def _validate(folder: Path, writer: SummaryWriter, trainer: Trainer, valid: Packed) -> None:
    """Score the averaged weights on clips of the validation split, and draw a few of them."""
    codec = make_system(trainer.recipe.system)
    codec.load_state_dict(trainer.average)
    layers = tuple(range(1, codec.config.n_layers + 1))
    clips = choose_clips(valid, trainer.recipe.validation_clips)
    levels = itertools.cycle(trainer.recipe.validation_snr_db or (None,))
    heard = [listen(codec, valid, clip, layers, snr_db) for clip, snr_db in zip(clips, levels, strict=False)]
    scores = score(heard, codec.config.sample_rate)
    # How many entries are in effective use: a codebook that dies is seen here first.
    scores |= {f"perplexity/layer {number}": book.perplexity() for number, book in enumerate(codec.codebooks(), start=1)}
    append_metrics(folder, {**dataclasses.asdict(trainer.progress), "stage": "validation", **scores})
    heard_s = int(trainer.progress.audio_seconds)
    for name, value in scores.items():
        writer.add_scalar(f"validation/{name}", value, heard_s)
    for number, clip in enumerate(heard[:3]):
        figure = draw_spectrograms(clip, codec.config.sample_rate)
        figure.savefig(folder / f"spectrogram-{number}.png")
        writer.add_figure(f"validation/spectrogram {number}", figure, heard_s)
    click.echo("  ".join(f"{name} {value:.3f}" for name, value in scores.items()), err=True)


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", help="The model's name [the recipe's].")
@click.option("--weights", type=click.Choice(["int8", "float32"]), default="int8", show_default=True, help="How to store them.")
def export(checkpoint: Path, out: Path, name: str | None, weights: str) -> None:
    """Make the bundle OUT, two graphs and a card, from the averaged weights of CHECKPOINT."""
    trained = load_checkpoint(checkpoint)
    system = make_system(trained.recipe.system)
    restore_weights(system, trained.average or trained.weights)
    encoder, decoder = export_graphs(system, eight_bit=weights == "int8")
    write_bundle(out, encoder, decoder, card(system, trained.recipe, trained.progress, name))
    click.echo(
        f"{out}: {trained.progress.hours:.2f} hours of training, {trained.progress.audio_seconds / 3600:.0f} h of audio heard"
    )


@click.command(name="slim")
@click.argument(
    "checkpoints",
    nargs=-1,
    required=True,
    metavar="CHECKPOINT...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--part", "parts", multiple=True, help="Take the mean of this part alone, the rest from the last. Repeatable.")
def slim_checkpoint(checkpoints: tuple[Path, ...], out: Path, parts: tuple[str, ...]) -> None:
    """Keep a checkpoint's averaged weights alone, in half precision: what to go on from, or to export, elsewhere.

    Of several the mean: the ends of two ways from one place are often better together than alone.
    """
    for path in checkpoints:
        refuse_same(str(path), str(out))
    try:
        kept = slim([load_checkpoint(path) for path in checkpoints], parts)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    save_checkpoint(out, kept)
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB of {sum(path.stat().st_size for path in checkpoints) / 1e6:.1f}")


def card(system: System, recipe: Recipe, progress: object, name: str | None) -> dict:
    """The bundle's card, less the graphs' digests."""
    config = system.config
    return {
        "format": FORMAT,
        "name": name or recipe.name,
        "system": system.description,
        "sample_rate": config.sample_rate,
        "hop": config.hop,
        "delay": system.delay,
        "latency_ms": 1000 * (config.hop + system.delay) / config.sample_rate,
        "columns": [
            {"name": column, "size": size, "layer": layer} for layer, (column, size) in enumerate(system.columns(), start=1)
        ],
        "training": {
            "recipe": recipe.name,
            "data": recipe.data,
            **dataclasses.asdict(progress),  # type: ignore[call-overload]
        },
        "results": {},
    }
