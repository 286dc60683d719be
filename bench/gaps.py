"""What a model's decoder does while nothing arrives, what the runtime makes of it, and how long a burst is remembered.

    python bench/gaps.py clear --set CORPUS --split valid --limit 12

Prints three tables: levels within a gap of a second that begins in loud speech, the decoder's own and the runtime's; the level
after such a gap against that without it; and the log-mel distance to the undisturbed output after bursts of 1 and 5 frames,
which falls to zero if the decoder forgets its losses. All at one layer.
"""

from pathlib import Path

import click
import numpy as np
import soundfile

import linnet
from linnet.evaluate.metrics import RATE, log_mel_distance, to_rate
from linnet.evaluate.sets import find_files
from linnet.runtime.codec import Codec

GAP_MS = 1008
IN_GAP_MS = (0, 60, 120, 240, 480, 800)
AFTER_MS = (0, 100, 200, 400, 800)
SPAN = RATE // 1000 * 100  # samples of 100 ms


def levels(codec: Codec, codes: np.ndarray, start: int) -> tuple[list[float], list[float], list[float]]:
    """dBFS inside a gap from frame `start`: of the decoder alone and of the runtime; and dB too loud after it."""
    hop, count = codec.card.hop, round(GAP_MS * RATE / 1000 / codec.card.hop)
    gappy = codes.copy()
    gappy[start : start + count] = -1
    alone = codec.decoder_graph.stream()(gappy).reshape(-1)[codec.card.delay :]
    faded, clean = codec.decode_codes(gappy), codec.decode_codes(codes)
    begin, end = start * hop, (start + count) * hop
    inside = [[decibels(sound[begin + ms * RATE // 1000 :][:SPAN]) for ms in IN_GAP_MS] for sound in (alone, faded)]
    after = [slice(end + ms * RATE // 1000, end + ms * RATE // 1000 + SPAN) for ms in AFTER_MS]
    return inside[0], inside[1], [abs(decibels(faded[span]) - decibels(clean[span])) for span in after]


def decibels(samples: np.ndarray) -> float:
    """The level of samples `[n]` in dBFS."""
    return 20 * float(np.log10(np.sqrt(np.mean(np.square(samples, dtype=np.float64))) + 1e-6))


def memory(codec: Codec, codes: np.ndarray, start: int, burst: int) -> list[float]:
    """dB of log-mel distance to the undisturbed output, after `burst` lost frames."""
    damaged = codes.copy()
    damaged[start : start + burst] = -1
    heard, clean = codec.decode_codes(damaged), codec.decode_codes(codes)
    end = (start + burst) * codec.card.hop
    spans = [slice(end + ms * RATE // 1000, end + ms * RATE // 1000 + SPAN) for ms in AFTER_MS]
    return [log_mel_distance(clean[span], heard[span], RATE) for span in spans]


def row(name: str, values: list[list[float]]) -> str:
    """Medians over the clips, as a line of a table."""
    return f"| {name} | {' | '.join(f'{value:.1f}' for value in np.nanmedian(values, axis=0))} |"


@click.command()
@click.argument("model")
@click.option("--set", "folder", required=True, type=click.Path(path_type=Path), help="Folder of audio, or a corpus.")
@click.option("--split", default="valid", show_default=True, help="Split of a corpus.")
@click.option("--limit", type=click.IntRange(min=1), default=12, show_default=True, help="At most so many files.")
def main(model: str, folder: Path, split: str, limit: int) -> None:
    """Measure MODEL in gaps."""
    codec = linnet.load(model)
    found: dict[str, list[list[float]]] = {name: [] for name in ("decoder alone", "runtime", "after", "1 frame", "5 frames")}
    files = find_files(folder, split, limit)
    for path in files:
        samples, rate = soundfile.read(path, always_2d=True)
        codes = codec.encode_codes(to_rate(samples.mean(axis=1), rate, RATE), RATE, codec.layout.kbps(1))
        heard = codec.decode_codes(codes)
        loudness = [
            decibels(frame) for frame in heard[: len(heard) // codec.card.hop * codec.card.hop].reshape(-1, codec.card.hop)
        ]
        last = len(codes) - round((GAP_MS + AFTER_MS[-1] + 200) * RATE / 1000 / codec.card.hop)
        if last < 40:
            click.echo(f"{path} is too short and left out", err=True)
            continue
        start = 30 + int(np.argmax(loudness[30:last]))
        for name, values in zip(found, levels(codec, codes, start), strict=False):
            found[name].append(values)
        for name, burst in (("1 frame", 1), ("5 frames", 5)):
            found[name].append(memory(codec, codes, start, burst))
    click.echo(f"{len(found['after'])} clips, medians.\n")
    for head, times, names in (
        ("dBFS, ms into a gap", IN_GAP_MS, ("decoder alone", "runtime")),
        ("dB off in level, ms after the gap", AFTER_MS, ("after",)),
        ("dB of log-mel distance, ms after a burst", AFTER_MS, ("1 frame", "5 frames")),
    ):
        click.echo(f"| {head} | {' | '.join(map(str, times))} |\n| --- | {' | '.join(['---:'] * len(times))} |")
        click.echo("\n".join(row(name, found[name]) for name in names) + "\n")


if __name__ == "__main__":
    main()
