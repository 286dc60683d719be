"""A set of clips under conditions, made from a corpus by a seed: audio, and a manifest by which others get the same.

What chance decides (which noise, from where, which room) is drawn for each clip from the seed, the kind of the step and the
clip's path in the corpus, and from nothing else: a clip meets the same noise at every level, and in a larger set. Audio is
kept at 16 kHz and 16 bits; the manifest has the SHA-256 of those samples, so that two laboratories know they have the same.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import soundfile

from linnet.evaluate.codecs import CodecError, Contestant, parse_codecs, through
from linnet.evaluate.conditions.grammar import Condition, ConditionError, Step
from linnet.evaluate.conditions.steps import (
    Pair,
    add_noise,
    add_talker,
    at_level,
    in_room,
    low_passed,
    modelled_room,
    shaped_noise,
)
from linnet.evaluate.metrics import RATE, Samples, to_int16, to_rate
from linnet.evaluate.sets import Recording, SetError, digest_16, find_recordings, read_audio, read_table, spread
from linnet.writing import file_identity, write_text

MANIFEST = "manifest.csv"
_FORMAT = 1  # raised whenever a step makes something else of a clip
_COLUMNS = ("path", "kind", "split", "condition", "clip", "reference", "source", "added", "seed", "sha256", "reference_sha256")


@dataclass(frozen=True)
class Source:
    """A corpus, or a plain folder, and what of it is to be used."""

    folder: Path
    split: str
    seed: int

    @cached_property
    def speech(self) -> list[Recording]:
        """All its speech of this split."""
        return find_recordings(self.folder, "speech", self.split)

    @cached_property
    def noise(self) -> list[Recording]:
        """Its noise recordings, perhaps none."""
        return find_recordings(self.folder, "noise", self.split)

    @cached_property
    def rooms(self) -> list[Recording]:
        """Its room responses, perhaps none."""
        return find_recordings(self.folder, "rir", self.split)

    def name(self, path: Path) -> str:
        """A file's path in the corpus."""
        return path.relative_to(self.folder).as_posix()

    def chance(self, kind: str, clip: Recording) -> np.random.Generator:
        """What decides for one kind of step on one clip."""
        told = f"{self.seed}\n{kind}\n{self.name(clip.path)}".encode()
        return np.random.default_rng(int.from_bytes(hashlib.sha256(told).digest()[:16]))


def make_set(
    source: Source,
    conditions: Sequence[Condition],
    out: Path,
    limit: int | None = None,
    progress: Callable[[Iterable, int], Iterable] = lambda items, _: items,
) -> Path:
    """Every clip under every condition, as audio in a folder with a manifest; what is there already is replaced.

    Args:
        source: where speech, noise and rooms come from.
        conditions: see `linnet.evaluate.conditions.grammar`.
        out: the folder.
        limit: at most so many clips, spread evenly over the source's.
        progress: `progress(items, total)` may wrap the iteration over clips in a progress bar.

    Returns:
        The manifest. It is written last: a set with one is complete. What fails leaves the folder as it was.

    Raises:
        ConditionError: if the source has no noise or room for a condition, or a codec that one needs is not installed.
        SetError: if the source has no speech, two clips of one name, or a file that cannot be read; or if the folder is a
            corpus itself.
    """
    clips = spread(source.speech, limit)
    names = {clip.path: Path(source.name(clip.path)).with_suffix("").as_posix() for clip in clips}
    twice = [name for name, times in Counter(names.values()).items() if times > 1]
    if twice:
        raise SetError(f"two recordings are called {twice[0]!r} but for their endings: rename one")
    for condition in conditions:
        _check(source, condition)
    _check_out(source, out)
    place = out.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    # beside the folder: in it, what lacks a manifest would pass for plain recordings
    with TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as made:
        for clip in progress(clips, len(clips)):
            clean = to_int16(_read(clip.path)) / 32768
            for condition in conditions:
                rows.append(_made(source, clip, f"{names[clip.path]}.flac", clean, condition, Path(made)))
        for path in [path for path in Path(made).rglob("*") if path.is_file()]:
            kept = out / path.relative_to(made)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, kept)
    order = {condition.name: number for number, condition in enumerate(conditions)}
    rows.sort(key=lambda row: (order[str(row["condition"])], str(row["clip"])))
    text = io.StringIO()
    lines = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    lines.writeheader()
    lines.writerows(rows)
    write_text(out / MANIFEST, text.getvalue())
    return out / MANIFEST


def fingerprint(source: Source, conditions: Sequence[Condition], limit: int | None) -> str:
    """Of everything that decides a set, with files by their size and time: two sets of one fingerprint are alike.

    Raises:
        ConditionError: as `make_set`.
        SetError: likewise.
    """
    for condition in conditions:
        _check(source, condition)
    used = [*source.speech, *source.noise, *source.rooms]
    files = [(str(recording.path.resolve()), recording.speaker, file_identity(recording.path)) for recording in used]
    coders = [_coder(step).codec.identity() for condition in conditions for step in condition.steps if step.kind == "coded"]
    told = [_FORMAT, [condition.name for condition in conditions], coders, source.split, source.seed, limit, files]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]


def read_hashes(manifest: Path) -> dict[str, tuple[str, str]]:
    """SHA-256 of each clip's samples and its reference's, by its name.

    Raises:
        SetError: if it is no manifest of conditions.
    """
    try:
        _, rows = read_table(manifest)
        return {f"{row['condition']}/{row['clip']}": (row["sha256"], row["reference_sha256"]) for row in rows}
    except KeyError as error:
        raise SetError(f"{manifest} is no manifest of conditions: it has no column {error}") from error


def differences(ours: Mapping[str, tuple[str, str]], theirs: Mapping[str, tuple[str, str]]) -> list[str]:
    """The clips of one set whose samples are not those of another, or that only one of them has, sorted; by `read_hashes`."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def _made(
    source: Source, clip: Recording, name: str, clean: npt.NDArray[np.float64], condition: Condition, out: Path
) -> dict[str, object]:
    """One clip under one condition, kept; its line of the manifest."""
    pair, added = Pair(clean, clean), []
    for step in condition.steps:
        pair, told = _applied(pair, step, clip, source)
        added += [told] if told else []
    heard, wanted = digest_16(pair.heard), digest_16(pair.wanted)
    path, reference = f"{condition.name.replace('/', '%2F')}/{name}", ""  # a step may name a bundle's path
    _write(out / path, pair.heard)
    if wanted != heard:
        reference = f"references/{wanted[:24]}.flac"  # one file, however many conditions want the same
        _write(out / reference, pair.wanted)
    shown = (path, "speech", source.split, condition.name, name, reference, source.name(clip.path), "; ".join(added))
    return dict(zip(_COLUMNS, (*shown, source.seed, heard, wanted), strict=True))


def _applied(pair: Pair, step: Step, clip: Recording, source: Source) -> tuple[Pair, str]:
    """What one step makes of a clip, and what it took from the corpus."""
    chance = source.chance(step.kind, clip)
    match step.kind:
        case "noise":
            noise, told = _excerpt(source, source.noise[chance.integers(len(source.noise))], len(pair.heard), chance)
            return add_noise(pair, noise, step.number), told
        case "shaped":
            return add_noise(pair, shaped_noise(pair.wanted, chance), step.number), ""
        case "room" if step.value:
            return in_room(pair, modelled_room(step.number, chance)), ""
        case "room":
            room = source.rooms[chance.integers(len(source.rooms))]
            return in_room(pair, _read(room.path)), source.name(room.path)
        case "talkers":
            others = [other for other in source.speech if other.speaker != clip.speaker]
            voice, told = _excerpt(source, others[chance.integers(len(others))], len(pair.heard), chance)
            return add_talker(pair, voice, step.number), told
        case "level":
            return at_level(pair, step.number), ""
        case "band":
            return low_passed(pair, step.number), ""
        case "coded":
            return _coded(pair, step), ""
    return pair, ""  # what happens only while a codec runs


def _excerpt(source: Source, recording: Recording, length: int, chance: np.random.Generator) -> tuple[Samples, str]:
    """So many samples at 16 kHz from a random place of a recording, repeated where it is short; and where they are from."""
    try:
        info = soundfile.info(recording.path)
        count = -(-length * info.samplerate // RATE)
        start = int(chance.integers(max(info.frames - count, 0) + 1))
        piece, rate = soundfile.read(recording.path, count, start, dtype="float64", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise SetError(f"{recording.path} cannot be read: {error}") from error
    name = source.name(recording.path)
    return np.resize(to_rate(piece.mean(axis=1), rate, RATE), length), f"{name} from {start / rate:.3f} s"


def _read(path: Path) -> npt.NDArray[np.float64]:
    try:
        return read_audio(path)
    except (soundfile.LibsndfileError, SetError) as error:
        raise SetError(f"{path} cannot be read: {error}") from error


def _coder(step: Step) -> Contestant:
    """The codec, at one rate, that a step `coded@NAME-KBPS` names."""
    name, _, kbps = step.value.rpartition("-")
    (contestant,) = parse_codecs([f"{name}@{kbps}"])
    return contestant


def _coded(pair: Pair, step: Step) -> Pair:
    contestant = _coder(step)
    output = next(through(contestant.codec, pair.heard, contestant.rates))
    return Pair(output.samples[: len(pair.heard)], pair.wanted)


def _check_out(source: Source, out: Path) -> None:
    """Raises SetError if a set in this folder would spoil the source, or another corpus."""
    manifest = out / MANIFEST
    if out.resolve() == source.folder.resolve() or (manifest.is_file() and "condition" not in read_table(manifest)[0]):
        raise SetError(f"{out} is a set of recordings itself, which this would spoil: name another folder for --out")


def _check(source: Source, condition: Condition) -> None:
    """Raises ConditionError if the source cannot give it."""
    for step in condition.steps:
        lacking = ""
        if step.kind == "noise" and not source.noise:
            lacking = "noise (kind noise); shaped@10 needs none"
        elif step.kind == "room" and not step.value and not source.rooms:
            lacking = "room responses (kind rir); room@0.6 models one"
        elif step.kind == "talkers" and len({recording.speaker for recording in source.speech}) < 2:
            lacking = "second talker"
        if lacking:
            raise ConditionError(f"condition {condition.name!r}: {source.folder}, split {source.split}, has no {lacking}")
        if step.kind == "coded":
            try:
                reason = _coder(step).codec.available()
            except (CodecError, ValueError) as error:  # the latter of 'all' and 'none', which are not one
                raise ConditionError(f"condition {condition.name!r}: {error}") from error
            if reason is not None:
                raise ConditionError(f"condition {condition.name!r}: {reason}")


def _write(path: Path, samples: Samples) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, to_int16(samples), RATE, format="FLAC", subtype="PCM_16")
