"""What entropy coding saves, what the length of a block costs, and how fast it is.

    python bench/entropy.py MODEL --set CORPUS [--split test] [--blocks 64,128,256,512,1024]

"codes" is the share of the codes' own bits, a recording coded in one piece. "files" counts every byte of files, one a
recording; "10 s" those of the recordings joined and cut into pieces of 10 s. For each length of a block: the same pieces of
10 s and one long file, as if blocks had that many frames. Speed is processor time for all recordings in one file, the
networks included, with entropy coding and without.
"""

import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import soundfile

import linnet
from linnet.bits import Codes, Geometry, Header, Layout, Writer
from linnet.bits.format import CRC_BYTES, HEADER_BYTES, TRAILER_BYTES
from linnet.evaluate.sets import find_files
from linnet.files import decode_file, encode_file
from linnet.runtime.codec import Codec

PIECE_SECONDS = 10


def file_bytes(codec: Codec, codes: Codes, n_layers: int) -> tuple[int, int]:
    """Bytes of a file with entropy coding where it gets smaller, and without."""
    out, header = io.BytesIO(), Header(codec.card.model_id, codec.card.sample_rate, n_layers)
    with Writer(out, header, codec.layout, codec.coder) as writer:
        writer.write(codes)
    return out.tell(), Geometry(header, codec.layout).file_bytes(len(codes))


def saved(sizes: Sequence[tuple[int, int]]) -> float:
    """Per cent, of pairs of sizes with and without."""
    coded, plain = np.sum(sizes, axis=0)
    return 100 * float(1 - coded / plain)


def savings(codec: Codec, recordings: Sequence[Codes]) -> str:
    """A line for each rate."""
    layout, coded_bytes = codec.layout, 0
    lines = [f"{'kbit/s':>8}{'codes':>9}{'files':>9}{'10 s':>9}{'bytes of 10 s at the most':>28}"]
    for n_layers in range(1, layout.n_layers + 1):
        coded_bytes += sum(len(codec.coder.encode(codes, n_layers)) for codes in recordings)
        share = 100 * (1 - 8 * coded_bytes / (sum(map(len, recordings)) * layout.frame_bits(n_layers)))
        files = [file_bytes(codec, codes, n_layers) for codes in recordings]
        tens = [file_bytes(codec, codes, n_layers) for codes in pieces(recordings, layout)]
        row = f"{layout.kbps(n_layers):8g}{share:8.1f}%{saved(files):8.1f}%{saved(tens):8.1f}%"
        lines.append(f"{row}{max(coded for coded, _ in tens):18} of {tens[0][1]}")
    return "\n".join(lines)


def pieces(recordings: Sequence[Codes], layout: Layout) -> list[Codes]:
    """The recordings joined and cut into pieces of 10 s, the rest left out."""
    joined, frames = np.concatenate(recordings), round(PIECE_SECONDS * layout.frame_rate)
    return np.split(joined, range(frames, len(joined), frames))[: len(joined) // frames]


def block_lengths(codec: Codec, recordings: Sequence[Codes], lengths: Sequence[int]) -> str:
    """A line for each length of a block: what is saved at the lowest and the highest rate."""
    layout, layers = codec.layout, (1, codec.layout.n_layers)
    lines = [f"{'frames':>8}{'seconds':>9}" + "".join(f"{f'{layout.kbps(n):g} kbit/s: 10 s':>20}{'long':>8}" for n in layers)]
    for length in lengths:
        row = f"{length:8}{length / layout.frame_rate:9.2f}"
        for n_layers in layers:
            for parts in (pieces(recordings, layout), [np.concatenate(recordings)]):
                header = Header(codec.card.model_id, codec.card.sample_rate, n_layers)
                plain = [Geometry(header, layout).file_bytes(len(part)) for part in parts]
                coded = [blocks_bytes(codec, part, n_layers, length) for part in parts]
                row += f"{saved(list(zip(coded, plain, strict=True))):{19 if len(parts) > 1 else 7}.1f}%"
        lines.append(row)
    return "\n".join(lines)


def blocks_bytes(codec: Codec, codes: Codes, n_layers: int, length: int) -> int:
    """Bytes of a file whose blocks have `length` frames and heads of a byte and one a layer."""
    total = HEADER_BYTES + TRAILER_BYTES
    for start in range(0, len(codes), length):
        block = codes[start : start + length]
        total += 1 + n_layers + CRC_BYTES + sum(len(codec.coder.encode(block, layer + 1)) for layer in range(n_layers))
    return total


def speeds(codec: Codec, files: Sequence[Path]) -> str:
    """A line for each rate: how many times faster than real time a file is encoded and decoded, with and without."""
    lines = [f"{'kbit/s':>8}{'with':>9}{'without':>9}  x real time, encoding and decoding"]
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/in.wav", f"{folder}/out.wav"
        sound = [soundfile.read(path, dtype="float32") for path in files]
        rate = codec.card.sample_rate
        samples = np.concatenate([samples for samples, its_rate in sound if its_rate == rate])
        soundfile.write(source, samples, rate)
        for n_layers in (1, codec.layout.n_layers):
            spent = []
            for entropy in (True, False, True, False):
                start, bits = time.process_time(), io.BytesIO()
                encode_file(codec, source, bits, codec.layout.kbps(n_layers), lambda items, _: items, entropy)
                bits.seek(0)
                decode_file(codec, bits, target, None, None, lambda items, _: items)
                spent.append(time.process_time() - start)
            speed = [len(samples) / rate / min(spent[which::2]) for which in (0, 1)]
            lines.append(f"{codec.layout.kbps(n_layers):8g}{speed[0]:9.0f}{speed[1]:9.0f}")
    return "\n".join(lines)


@click.command()
@click.argument("model")
@click.option("--set", "folder", type=click.Path(path_type=Path), required=True, help="A folder of speech, or a corpus.")
@click.option("--split", default="test", show_default=True, help="Split of a corpus.")
@click.option("--blocks", default="64,128,256,512,1024", show_default=True, help="Lengths of a block, in frames.")
def main(model: str, folder: Path, split: str, blocks: str) -> None:
    """Measure what MODEL's tables (a name, or the path of a bundle) save."""
    codec = linnet.load(model)
    if codec.coder is None:
        raise click.UsageError(f"{model} has no tables: make them with 'linnet tables'")
    files = find_files(folder, split)
    recordings = [codec.encode_codes(*soundfile.read(path, dtype="float32")) for path in files]
    for part in (
        savings(codec, recordings),
        block_lengths(codec, recordings, [int(length) for length in blocks.split(",")]),
        speeds(codec, files),
    ):
        click.echo(part + "\n")


if __name__ == "__main__":
    main()
