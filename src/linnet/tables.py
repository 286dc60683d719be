"""Fitting a model's tables for entropy coding to a corpus."""

from __future__ import annotations

from pathlib import Path

from linnet.bits import Codes
from linnet.bits.fit import fit_tables
from linnet.bundle import add_tables, writable_folder
from linnet.evaluate.sets import find_files
from linnet.files import Progress, open_audio, read_mono
from linnet.runtime.codec import Codec
from linnet.writing import FileError


def fit_bundle(model: str, corpus: Path, split: str, progress: Progress) -> tuple[int, float]:
    """Put tables fitted to the speech of a corpus's `split` into a bundle's folder, in place of any that are there.

    Returns:
        The bytes of the tables, and the hours of speech.

    Raises:
        SetError: if there is no such speech.
        BundleError: if the bundle cannot be read, or is a zip.
        FileError: if a recording is empty, damaged or no audio.
    """
    writable_folder(model)  # which is told before the work, not after it
    codec = Codec.open(model)
    files = find_files(corpus, split)
    recordings = [_codes(codec, path) for path in progress(files, len(files))]
    hours = sum(map(len, recordings)) / codec.layout.frame_rate / 3600
    tables = fit_tables(recordings, codec.layout).to_bytes()
    add_tables(model, tables, {"split": split, "hours": round(hours, 2)})
    return len(tables), hours


def _codes(codec: Codec, path: Path) -> Codes:
    with open_audio(str(path)) as audio:
        samples = read_mono(audio)
        if len(samples) == 0:
            raise FileError(f"{path} holds no audio")
        return codec.encode_codes(samples, audio.samplerate)
