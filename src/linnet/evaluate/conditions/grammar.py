"""How one names what happens to speech before and while it is coded: `noise@10`, `room+noise@5`, `loss@10-60ms`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from linnet.bits.errors import LinnetError
from linnet.evaluate.network import Network


class ConditionError(LinnetError):
    """A condition that nobody knows, or that a set cannot give."""


@dataclass(frozen=True)
class Kind:
    """One sort of step: what it does, an example of it, and the pattern that its value must have."""

    does: str
    example: str
    pattern: str


_SHARE = r"\d+(?:\.\d+)?"
_NUMBER = rf"-?{_SHARE}"
KINDS: dict[str, Kind] = {
    "clean": Kind("nothing", "clean", ""),
    "noise": Kind("a noise recording of the corpus, at so many dB below the speech", "noise@10", _NUMBER),
    "shaped": Kind("stationary noise with the clip's own long-term spectrum, so many dB below it", "shaped@10", _NUMBER),
    "room": Kind("a room response of the corpus, or a modelled one of this reverberation time in s", "room@0.6", f"|{_NUMBER}"),
    "talkers": Kind("a second talker of the set, so many dB below the first", "talkers@5", _NUMBER),
    "level": Kind("the active speech level (ITU-T P.56) in dBov", "level@-36", _NUMBER),
    "band": Kind("nothing above this many Hz", "band@3400", r"\d+"),
    "coded": Kind("coded before, by this codec at this many kbit/s", "coded@amrwb-12.65", rf".+-{_SHARE}"),
    "loss": Kind("percent of packets lost, singly or in bursts of a mean length", "loss@10-60ms", r"\d+(?:\.\d+)?(?:-\d+ms)?"),
    "tandem": Kind("so many times through the codec itself, one after the other", "tandem@2", r"[1-9]"),
}


@dataclass(frozen=True)
class Step:
    """One thing that happens: its kind, and its value as it was written ('' for none)."""

    kind: str
    value: str

    @property
    def number(self) -> float:
        """The value of a step that has a number for one."""
        return float(self.value)


@dataclass(frozen=True)
class Condition:
    """Steps in the order in which they happen, joined by '+' in their name."""

    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        """As one writes it; also the name of its folder."""
        return "+".join(f"{step.kind}@{step.value}" if step.value else step.kind for step in self.steps)

    @property
    def times(self) -> int:
        """How often the speech goes through the codec."""
        return next((int(step.number) for step in self.steps if step.kind == "tandem"), 1)

    def network(self, seed: int) -> Network | None:
        """The network between the coder's two sides, None for one that loses nothing."""
        for step in self.steps:
            if step.kind == "loss":
                percent, _, burst = step.value.removesuffix("ms").partition("-")
                return Network(float(percent) / 100, float(burst) if burst else None, seed)
        return None


CLEAN = Condition((Step("clean", ""),))


def parse_conditions(specs: Sequence[str]) -> list[Condition]:
    """What `--condition` says: each one or more conditions with commas between; every condition once.

    Raises:
        ConditionError: if there is no such condition.
    """
    names = [name.strip() for spec in specs for name in spec.split(",") if name.strip()]
    if not names:
        raise ConditionError("no condition is named: 'clean' is that of nothing happening")
    return list(dict.fromkeys(parse_condition(name) for name in names))


def parse_condition(name: str) -> Condition:
    """One condition by its name; 'clean' beside other steps says nothing and is dropped.

    Raises:
        ConditionError: if there is no such condition.
    """
    steps = tuple(_step(part, name) for part in name.split("+"))
    for once in ("tandem", "loss"):
        if [step.kind for step in steps].count(once) > 1:
            raise ConditionError(f"condition {name!r} has {once} twice: once is all that can be")
    return Condition(tuple(step for step in steps if step.kind != "clean") or CLEAN.steps)


def described() -> str:
    """Every kind with its example, for help."""
    return "; ".join(f"{kind.example}: {kind.does}" for kind in KINDS.values())


def _step(part: str, name: str) -> Step:
    kind, _, value = part.partition("@")
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConditionError(f"condition {name!r}: {hint}there is {', '.join(known.example for known in KINDS.values())}")
    if not re.fullmatch(KINDS[kind].pattern, value):
        raise ConditionError(f"condition {name!r}: write {kind} like {KINDS[kind].example}: {KINDS[kind].does}")
    _check(kind, value, name)
    return Step(kind, value)


def _check(kind: str, value: str, name: str) -> None:
    """Raises ConditionError for numbers that are none of this world."""
    limits: dict[str, tuple[Callable[[str], float], float, float, str]] = {
        "loss": (lambda text: float(text.split("-")[0]), 0, 100, "percent"),
        "room": (lambda text: float(text or 1), 0.05, 20, "s"),
        "band": (float, 300, 8000, "Hz"),
        "level": (float, -80, 0, "dBov"),
    }
    if kind in limits:
        number, low, high, unit = limits[kind]
        if not low <= number(value) <= high:
            raise ConditionError(f"condition {name!r}: {kind} takes {low:g} to {high:g} {unit}")
