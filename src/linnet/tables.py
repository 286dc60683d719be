"""Fitting a model's tables for entropy coding to a corpus, and what they save."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from linnet.bits import Codes, EntropyCoder, Geometry, Header, Writer
from linnet.bits.fit import fit_tables
from linnet.bundle import add_tables
from linnet.evaluate.sets import find_files
from linnet.files import Progress
from linnet.runtime.codec import Codec


def fit_bundle(model: str, corpus: Path, split: str, progress: Progress) -> float:
    """Put tables fitted to the speech of a corpus's `split` into a bundle's folder, in place of any that are there.

    Returns:
        The hours of speech.

    Raises:
        SetError: if there is no such speech.
        BundleError: if the bundle cannot be read or is a zip.
    """
    codec = Codec.open(model)
    recordings = read_codes(codec, corpus, split, progress)
    hours = sum(map(len, recordings)) / codec.layout.frame_rate / 3600
    tables = fit_tables(recordings, codec.layout)
    add_tables(model, tables.to_bytes(), {"split": split, "hours": round(hours, 2)})
    return hours


def read_codes(codec: Codec, corpus: Path, split: str, progress: Progress) -> list[Codes]:
    """The codes [frames, n_codes] of every recording of speech in a corpus's `split`, or in a folder."""
    files = find_files(corpus, split)
    return [codec.encode_codes(*soundfile.read(path, dtype="float32")) for path in progress(files, len(files))]


@dataclass(frozen=True)
class Saving:
    """What entropy coding saves at one rate: shares of the codes' bits, and of the bytes of files, one a recording."""

    kbps: float
    codes: float
    files: float


def savings(codec: Codec, recordings: Sequence[Codes]) -> list[Saving]:
    """What a model's tables save at each rate, of recordings' codes [frames, n_codes] of all layers; nothing if it has none."""
    coder, layout = codec.coder, codec.layout
    if coder is None:
        return []
    frames, coded_bytes, rows = sum(map(len, recordings)), 0, []
    for n_layers in range(1, layout.n_layers + 1):
        coded_bytes += sum(len(coder.encode(codes, n_layers)) for codes in recordings)
        header = Header(coder.model_id, layout.sample_rate, n_layers)
        plain = sum(Geometry(header, layout).file_bytes(len(codes)) for codes in recordings)
        files = sum(_file_bytes(header, coder, codes) for codes in recordings)
        shares = 1 - 8 * coded_bytes / (frames * layout.frame_bits(n_layers)), 1 - files / plain
        rows.append(Saving(layout.kbps(n_layers), *shares))
    return rows


def _file_bytes(header: Header, coder: EntropyCoder, codes: Codes) -> int:
    out = io.BytesIO()
    with Writer(out, header, coder.layout, coder) as writer:
        writer.write(codes)
    return out.tell()
