"""How well a dual-branch model, or `remix`, keeps speech and noise apart: what each branch says of both.

    python bench/branches.py BUNDLE... --corpus CORPUS --split test --condition noise@5 --limit 24

Prints a row a bundle, means over the clips: SI-SDR of the input and of the speech branch against the speech, of the noise
branch against the noise, and of both together against the input; what of the speech is in the noise branch, and of the noise
in the speech branch, in dB below it as it was in the input; and, of speech alone and of noise alone, how far the other branch
is below it, which is the measure where a decoder makes waveforms of its own. A branch is decoded from its codes alone.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

import linnet
from linnet.evaluate.conditions.grammar import parse_condition
from linnet.evaluate.conditions.making import Source, make_set
from linnet.evaluate.metrics import RATE, Samples
from linnet.evaluate.metrics.spectral import si_sdr
from linnet.evaluate.sets import find_clips, read_clip
from linnet.runtime.codec import Codec

HEAD = (
    "", "input to speech", "speech branch to speech", "noise branch to noise", "both to input", "speech in the noise branch",
    "noise in the speech branch", "noise branch of speech alone", "speech branch of noise alone",
)  # fmt: skip


def branches(codec: Codec, heard: Samples, speech_layers: int) -> tuple[Samples, Samples]:
    """What each branch makes of the input `[n]`, of its length."""
    codes = codec.encode_codes(heard, RATE)
    alone = []
    for other in (slice(speech_layers, None), slice(0, speech_layers)):
        kept = codes.copy()
        kept[:, other] = -1
        alone.append(codec.decode_codes(kept)[: len(heard)].astype(np.float64))
    return alone[0], alone[1]


def below(branch: Samples, source: Samples) -> float:
    """How many dB the power of a branch is below its source's, both `[n]`."""
    return 10 * float(np.log10(source @ source / (branch @ branch + 1e-9)))


def leak(branch: Samples, other: Samples) -> float:
    """The part of `other` in `branch`, both `[n]`, in dB below `other` itself."""
    return -20 * float(np.log10(abs(branch @ other) / (other @ other) + 1e-6))


def pairs(corpus: Path, split: str, condition: str, limit: int) -> Iterator[tuple[Samples, Samples]]:
    """The input and its speech, `[n]` each."""
    with TemporaryDirectory() as folder:
        make_set(Source(corpus, split, 0), [parse_condition(condition)], Path(folder), limit)
        yield from map(read_clip, find_clips(Path(folder), split))


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--corpus", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", default="test", show_default=True)
@click.option("--condition", default="noise@5", show_default=True, help="With noise alone: what is not speech is the noise.")
@click.option("--limit", type=click.IntRange(min=1), default=24, show_default=True, help="At most so many clips.")
@click.option("--speech-layers", type=click.IntRange(min=1), default=4, show_default=True)
def main(models: tuple[str, ...], corpus: Path, split: str, condition: str, limit: int, speech_layers: int) -> None:
    """Measure the branches of MODELS."""
    codecs = {model: linnet.load(model) for model in models}
    found: dict[str, list[list[float]]] = {model: [] for model in models}
    for (heard, speech), (model, codec) in itertools.product(pairs(corpus, split, condition, limit), codecs.items()):
        said, rest = branches(codec, heard, speech_layers)
        noise = heard - speech
        against = ((speech, heard), (speech, said), (noise, rest), (heard, said + rest))
        ratios = [si_sdr(wanted, got, RATE) for wanted, got in against]
        leaks = leak(rest, speech), leak(said, noise)
        wrong = branches(codec, speech, speech_layers)[1], branches(codec, noise, speech_layers)[0]
        found[model].append([*ratios, *leaks, below(wrong[0], speech), below(wrong[1], noise)])
    click.echo(f"| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|")
    for model, rows in found.items():
        click.echo(f"| {Path(model).name} | {' | '.join(f'{value:.1f}' for value in np.nanmean(rows, axis=0))} |")


if __name__ == "__main__":
    main()
