"""The codecs that `linnet eval` and `linnet compare` know, and how one names them on a command line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path

from linnet.bundle import list_models, read_card
from linnet.evaluate.codecs.amr import AmrNb, AmrWb
from linnet.evaluate.codecs.base import Codec, CodecError, Coded, Output, through
from linnet.evaluate.codecs.bundle import Bundle
from linnet.evaluate.codecs.command import Command
from linnet.evaluate.codecs.g711 import G711
from linnet.evaluate.codecs.lc3 import Lc3
from linnet.evaluate.codecs.mpeg import Aac, Mp3
from linnet.evaluate.codecs.neural import Dac, Encodec, Lyra, Mimi, Snac
from linnet.evaluate.codecs.pcm import Pcm
from linnet.evaluate.codecs.vocoder import Codec2
from linnet.evaluate.codecs.xiph import Opus, Speex

__all__ = ["CODECS", "Codec", "CodecError", "Coded", "Contestant", "Output", "known_codecs", "parse_codecs", "through"]

CODECS: dict[str, Callable[[], Codec]] = {
    "opus": Opus,
    "opus-cbr": lambda: Opus("opus-cbr", hard_cbr=True),
    "codec2": Codec2,
    "speex-nb": lambda: Speex("speex-nb", 8000),
    "speex-wb": lambda: Speex("speex-wb", 16000),
    "amrnb": AmrNb,
    "amrwb": AmrWb,
    "lc3": Lc3,
    "mp3": Mp3,
    "aac": Aac,
    "g711a": lambda: G711("g711a", "a"),
    "g711mu": lambda: G711("g711mu", "mu"),
    "lyra": Lyra,
    "encodec": Encodec,
    "dac": Dac,
    "mimi": Mimi,
    "snac": Snac,
    "pcm": Pcm,
}
"""The codecs that are no models of ours, by name."""

ENTRY_POINTS = "linnet.codecs"


@dataclass(frozen=True)
class Contestant:
    """A codec and the rates at which it takes part, in kbit/s."""

    codec: Codec
    rates: tuple[float, ...]

    @classmethod
    def at(cls, codec: Codec, wanted: Sequence[float]) -> Contestant:
        """At the modes nearest to some wanted rates; each mode once."""
        return cls(codec, tuple(sorted({codec.mode(kbps) for kbps in wanted})))


def known_codecs() -> dict[str, Callable[[], Codec]]:
    """Every codec that has a name: those here, those of other packages, and the shipped models."""
    others: dict[str, Callable[[], Codec]] = {point.name: point.load for point in entry_points(group=ENTRY_POINTS)}
    made = {name: (lambda load=load: load()()) for name, load in others.items()}
    models = {name: (lambda name=name: Bundle(name)) for name in list_models()}
    return {**models, **CODECS, **made}


def parse_codecs(specs: Sequence[str], kbps: Sequence[float] = ()) -> list[Contestant]:
    """What `--codec` says.

    Args:
        specs: each one or more, with commas between, of a name in `known_codecs` or the path of a bundle, either with its
            own rates (`opus@6,12`); `all`; `none`; or one command (`name=cmd {in} {out} {kbps}`).
        kbps: the rates of those that have none of their own; if empty, each codec's usual ones.

    Raises:
        CodecError: if there is no such codec, two of one name, or one without a rate.
        LinnetError: if a bundle cannot be opened.
    """
    found: dict[str, Contestant] = {}
    for spec in specs:
        for codec, rates in _parse(spec):
            if codec.name in found and found[codec.name].codec != codec:
                raise CodecError(f"two codecs are called {codec.name!r}: rename one, with --codec 'name=command' or its folder")
            before = found[codec.name].rates if codec.name in found else ()
            found[codec.name] = Contestant.at(codec, [*before, *(rates or kbps or codec.usual_kbps)])
    for contestant in found.values():
        if not contestant.rates:
            name = contestant.codec.name
            raise CodecError(f"{name!r} has no usual rates: give {name}@KBPS or --kbps, or its class usual_kbps")
    return list(found.values())


def _parse(spec: str) -> list[tuple[Codec, tuple[float, ...]]]:
    command = re.fullmatch(r"([\w.+-]+)(?:@([\d.,]+))?=(.*\{.*)", spec, re.DOTALL)
    if command:
        name, rates, template = command.groups()
        return [(Command(name, template), _rates(rates, spec))]
    parts: list[str] = []
    for part in filter(None, (part.strip() for part in spec.split(","))):
        if parts and "@" in parts[-1] and re.fullmatch(r"[\d.]+", part):
            parts[-1] += f",{part}"  # a rate of the codec before it
        else:
            parts.append(part)
    return [chosen for part in parts if part != "none" for chosen in _named(part)]


def _named(part: str) -> list[tuple[Codec, tuple[float, ...]]]:
    known = known_codecs()
    if part == "all":
        return [(make(), ()) for name, make in known.items() if name not in list_models()]
    if Path(part).exists() and part not in known:
        return [(_bundle(part), ())]
    name, _, rates = part.partition("@")
    if name in known:
        return [(known[name](), _rates(rates, part))]
    if Path(name).exists():
        return [(_bundle(name), _rates(rates, part))]
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise CodecError(f"no codec is called {name!r}: {hint}choose from all, {', '.join(known)}, a bundle's path or NAME=COMMAND")


def _bundle(path: str) -> Bundle:
    read_card(path)  # what is wrong with it is told before the work starts
    return Bundle(path)


def _rates(text: str | None, spec: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(rate) for rate in (text or "").split(",") if rate)
    except ValueError as error:
        raise CodecError(f"--codec {spec!r}: rates are kbit/s with commas between, like opus@6,12") from error
    if not all(0 < rate < math.inf for rate in rates):
        raise CodecError(f"--codec {spec!r}: a rate is more than 0 kbit/s")
    return rates
