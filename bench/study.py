"""The recipes of a folder, trained, exported and scored side by side: the tables of docs/recipes.md and docs/systems/README.md.

    python bench/study.py --corpus CORPUS [--recipes recipes/study] [--folder runs/study] [--jobs 3] [--costs] [NAME...]

Each recipe of the folder, or those named, trains in one single-thread process, `--jobs` of them at a time. What is already
there, here or in `bundles/`, is not made again, and a run that was interrupted goes on. A cell holds PESQ-WB / ESTOI / DNSMOS
against the speech without what disturbs it; the first rows are what all began with, and what goes in. With `--costs` columns
before those say what each codec is: kHz, kbit/s, parameters, MFLOPS in all and receiving, latency.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from linnet.bundle import load

CONDITIONS = ("clean", "noise@10", "room")
METRICS = ("pesq_wb", "estoi", "dnsmos")
RATES = (1, 6)
COSTS = ("kHz", "kbit/s", "parameters, M", "MFLOPS", "receiving", "latency, ms")


def linnet(*arguments: object, **options: Any) -> subprocess.CompletedProcess:
    """The command line, on one thread."""
    command = [sys.executable, "-m", "linnet", *map(str, arguments)]
    return subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)


def bundle_of(recipe: Path, corpus: Path, folder: Path, cache: Path | None) -> Path:
    """Train and export a recipe, as far as it has not been."""
    kept, run = Path("bundles") / recipe.stem, folder / recipe.stem
    bundle = kept if kept.exists() else run / "bundle" / recipe.stem
    if not bundle.exists():
        last = run / "last.safetensors"
        more = [*(["--resume"] if last.exists() else []), *(["--cache", cache] if cache else [])]
        linnet("train", recipe, "--corpus", corpus, "--folder", run, "--validate-minutes", 1e9, *more)
        linnet("export", last, bundle)
    return bundle


def costs(models: Mapping[str, str | Path]) -> dict[str, list[str]]:
    """What each model is, by its name here: a cell for each of `COSTS`."""
    budgets = json.loads(linnet("budget", *models.values(), "--json", stdout=subprocess.PIPE).stdout)
    cells = {}
    for (name, model), budget in zip(models.items(), budgets, strict=True):
        layout, sides = load(model).card.layout, (budget["send"], budget["receive"])
        cells[name] = [
            f"{budget['sample_rate'] / 1000:g}",
            f"{layout.kbps(1):g} to {layout.kbps(layout.n_layers):g}",
            f"{sum(side['parameters'] for side in sides) / 1e6:.2f}",
            f"{sum(side['mflops'] for side in sides):.0f}",
            f"{sides[1]['mflops']:.0f}",
            f"{budget['latency_ms']['card']:.1f}",
        ]
    return cells


def table(results: dict, names: list[str], own: dict[str, list[str]]) -> str:
    """Markdown: a row a codec, a column a condition and rate, after those of its `own` if there are any."""
    cells: dict[tuple[str, str], str] = {}
    for summary in results["summaries"]:
        means = [summary["means"][metric]["value"] for metric in METRICS]
        cells[summary["label"], summary["condition"]] = " / ".join(f"{value:.2f}".removeprefix("0") for value in means)
    head = [*(COSTS if own else ()), *(f"{condition}, {rate} kbit/s" for condition in CONDITIONS for rate in RATES)]
    lines = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name in names:
        labels = [name] * len(RATES) if name == "pcm 256" else [f"{name} {rate}" for rate in RATES]
        row = [
            *(own.get(name, [""] * len(COSTS)) if own else ()),
            *(cells[label, condition] for condition in CONDITIONS for label in labels),
        ]
        lines.append(f"| {'the input' if name == 'pcm 256' else name} | " + " | ".join(row) + " |")
    return "\n".join(lines)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--corpus", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--recipes", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path("recipes/study"))
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/study"))
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Where packed corpora are kept.")
@click.option("--jobs", type=click.IntRange(min=1), default=3)
@click.option("--limit", type=click.IntRange(min=1), default=24, help="Clips.")
@click.option("--costs", "with_costs", is_flag=True, help="Columns of size, compute, latency and rate, too.")
def main(
    names: tuple[str, ...],
    corpus: Path,
    recipes: Path,
    folder: Path,
    cache: Path | None,
    jobs: int,
    limit: int,
    with_costs: bool,
) -> None:
    """Train, export and score the recipes of a folder."""
    files = [recipes / f"{name}.toml" for name in names] or sorted(recipes.glob("*.toml"))
    with ThreadPoolExecutor(jobs) as pool:
        bundles = list(pool.map(lambda recipe: bundle_of(recipe, corpus, folder, cache), files))
    scores, rates = folder / "scores.json", ",".join(map(str, RATES))
    others = [option for bundle in bundles for option in ("--codec", f"{bundle}@{rates}")]
    conditions, metrics = ",".join(CONDITIONS), ",".join(METRICS)
    linnet(
        "eval", "clear", "--set", corpus, "--kbps", rates, *others, "--codec", "pcm", "--condition", conditions,
        "--metrics", metrics, "--limit", limit, "--jobs", jobs, "--json", scores,
    )  # fmt: skip
    results = json.loads(scores.read_text(encoding="utf-8"))
    models: dict[str, str | Path] = {
        "clear": "clear",
        **{recipe.stem: bundle for recipe, bundle in zip(files, bundles, strict=True)},
    }
    click.echo(table(results, ["pcm 256", *models], costs(models) if with_costs else {}))


if __name__ == "__main__":
    main()
