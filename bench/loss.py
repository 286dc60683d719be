"""A model over a network that loses packets, with and without copies, beside Opus with its in-band FEC.

    python bench/loss.py clear --set CORPUS --split valid --limit 12 --burst 60 --markdown table.md --plot loss.svg

Prints a table for each metric: senders down, loss rates across, means over the clips. Clips and senders meet the same losses
in every run. Without --burst, packets are lost independently of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import click

from linnet.evaluate.cli import command_line
from linnet.evaluate.metrics import METRICS, RATE
from linnet.evaluate.network import LossyBundle, LossyOpus, Network, Sender
from linnet.evaluate.sets import find_files, read_audio
from linnet.evaluate.statistics import Mean, bootstrap_mean

OPUS_KBPS = (6.0, 18.0)  # its lowest rate, which has no room for FEC, and the lowest that has (from 10 % of loss on)


@dataclass(frozen=True)
class Summary:
    """One sender's means over the clips."""

    codec: str
    kbps: float
    means: dict[str, Mean]


def contestants(model: str, network: Network, spacing: int) -> list[LossyBundle | LossyOpus]:
    """Up to 3 kbit/s in all, spent on layers or on copies; and Opus at twice and six times that rate."""
    senders = [Sender(1), Sender(1, 1, spacing), Sender(1, 2, spacing), Sender(2, 1, spacing), Sender(3)]
    return [LossyBundle(model, tuple(senders), network), *(LossyOpus(kbps, network) for kbps in OPUS_KBPS)]


def score(file: Path, heard: Sequence[LossyBundle | LossyOpus], metrics: Sequence[str]) -> list[tuple[str, float, list[float]]]:
    """Label, kbit/s and scores of all senders on one clip."""
    reference = read_audio(file)
    return [
        (output.label, output.kbps, [METRICS[metric].function(reference, output.samples, RATE) for metric in metrics])
        for one in heard
        for output in one.outputs(reference)
    ]


def measure(
    model: str, files: Sequence[Path], networks: Sequence[Network], spacing: int, metrics: Sequence[str], jobs: int
) -> list[list[Summary]]:
    """Summaries of all senders for each network."""
    found = []
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for network in networks:
            heard = contestants(model, network, spacing)
            clips = list(pool.map(partial(score, metrics=metrics), files, repeat(heard)))
            found.append(
                [
                    Summary(
                        same[0][0],
                        sum(kbps for _, kbps, _ in same) / len(same),
                        {metric: bootstrap_mean([scores[k] for _, _, scores in same]) for k, metric in enumerate(metrics)},
                    )
                    for same in zip(*clips, strict=True)
                ]
            )
            click.echo(f"{100 * network.rate:g} % done", err=True)
    return found


def table(found: Sequence[Sequence[Summary]], networks: Sequence[Network], metric: str) -> list[str]:
    """Markdown: means by sender and loss rate, the widest half interval below."""
    head = [metric, "kbit/s", *(f"{100 * network.rate:g} %" for network in networks)]
    lines = [f"| {' | '.join(head)} |", f"| --- | {' | '.join(['---:'] * (len(head) - 1))} |"]
    for row in zip(*found, strict=True):
        cells = [row[0].codec, f"{row[0].kbps:.2f}", *(f"{summary.means[metric].value:.2f}" for summary in row)]
        lines.append(f"| {' | '.join(cells)} |")
    widest = max((s.means[metric].high - s.means[metric].low) / 2 for row in found for s in row)
    return [*lines, "", f"95 % bootstrap intervals over clips are at most ±{widest:.2f}.", ""]


def plot(found: Sequence[Sequence[Summary]], networks: Sequence[Network], metrics: Sequence[str], path: Path) -> None:
    """A panel for each metric, loss rates across."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "linnet"  # the same figures make the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(metrics), figsize=(4.2 * len(metrics), 4.6), squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        for row in zip(*found, strict=True):
            label = f"{row[0].codec}: {row[0].kbps:.3g} kbit/s"
            style = "--" if row[0].codec.startswith("opus") else "-"
            points = [100 * network.rate for network in networks], [summary.means[metric].value for summary in row]
            axis.plot(*points, style, marker="o", markersize=3, label=label)
        axis.set(xlabel="packets lost, %", title=metric)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", ncols=2, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.24, 1, 1))
    figure.savefig(path, metadata={"Date": None})


@click.command()
@click.argument("model")
@click.option("--set", "folder", required=True, type=click.Path(path_type=Path), help="Folder of audio, or a corpus.")
@click.option("--split", default="valid", show_default=True, help="Split of a corpus.")
@click.option("--limit", type=click.IntRange(min=1), default=12, show_default=True, help="At most so many files.")
@click.option("--losses", default="0,5,10,20,30,40", show_default=True, help="Percent, with commas between.")
@click.option("--burst", type=float, help="Mean length of losses in a row, in ms.  [default: independent losses]")
@click.option("--spacing", type=click.IntRange(min=1), default=5, show_default=True, help="Frames between copies.")
@click.option("--metrics", default="pesq_wb,estoi,dnsmos", show_default=True, help=f"Of {','.join(METRICS)}.")
@click.option("--seed", type=int, default=0, help="Which packets are lost.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the tables there.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Draw them there (needs matplotlib).")
def main(
    model: str,
    folder: Path,
    split: str,
    limit: int,
    losses: str,
    burst: float | None,
    spacing: int,
    metrics: str,
    seed: int,
    jobs: int,
    markdown: Path | None,
    picture: Path | None,
) -> None:
    """Measure MODEL against loss."""
    names = metrics.split(",")
    networks = [Network(float(percent) / 100, burst, seed) for percent in losses.split(",")]
    files = find_files(folder, split, limit)
    found = measure(model, files, networks, spacing, names, jobs)
    kind = f"bursts of {burst:g} ms in the mean" if burst is not None else "independent losses"
    lines = [f"Made by `{command_line()}`: {len(files)} clips, {kind}.", ""]
    for name in names:
        lines += table(found, networks, name)
    click.echo("\n".join(lines))
    if markdown is not None:
        markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if picture is not None:
        plot(found, networks, names, picture)


if __name__ == "__main__":
    main()
