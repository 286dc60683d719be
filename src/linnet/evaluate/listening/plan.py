"""What listeners are asked: trials made of a set's clips and what codecs made of them.

MUSHRA is ITU-R BS.1534-3; ACR and DCR are ITU-T P.800 (annexes B and D) as P.808 has them done without a laboratory; DRT is
ANSI/ASA S3.2. Every listener gets trials and sounds in an order of their own, and sees no name.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile

from linnet.bits.errors import LinnetError
from linnet.evaluate.conditions.steps import Pair, low_passed
from linnet.evaluate.listening.rhymes import find_pairs
from linnet.evaluate.metrics import RATE, Samples
from linnet.evaluate.page.loudness import equal_gains

REFERENCE = "reference"
ANCHORS_HZ = {"anchor 3.5 kHz": 3500.0, "anchor 7 kHz": 7000.0}
BAD = "MNRU 5 dB"
"""What everybody must hear as bad: ITU-T P.810's modulated noise, at that ratio."""

_OPEN = "open reference"  # an id of its own, or a listener's browser would know the hidden one
_MOST = 12  # BS.1534-3, section 5: signals that one can compare in a trial, hidden reference and anchors among them
_BAD_DB = 5.0


COLUMNS = ("test", "listener", "clip", "system", "score", "detail", "trial", "seconds", "time")
"""Of a file of answers, one line a sound."""


class ListeningError(LinnetError):
    """A listening test that cannot be, or answers that cannot be read."""


@dataclass(frozen=True)
class Method:
    """A kind of test: its name, the ends of its scale, and what the page says of it."""

    title: str
    low: int
    high: int
    words: tuple[str, ...]
    task: str


METHODS: dict[str, Method] = {
    "mushra": Method(
        "MUSHRA",
        0,
        100,
        ("Bad", "Poor", "Fair", "Good", "Excellent"),
        "Compare every sound with the reference, and rate how good it is. One of them is the reference itself.",
    ),
    "acr": Method(
        "ACR", 1, 5, ("Bad", "Poor", "Fair", "Good", "Excellent"), "Listen to the end. How good is the quality of the speech?"
    ),
    "dcr": Method(
        "DCR",
        1,
        5,
        ("Very annoying", "Annoying", "Slightly annoying", "Audible but not annoying", "Inaudible"),
        "You hear the original, and then a second sound. How much worse is the second?",
    ),
    "drt": Method("DRT", 0, 1, (), "Which word do you hear? If you are not sure, guess."),
}


@dataclass(frozen=True)
class Trial:
    """One question.

    Args:
        clip: what it is about.
        sounds: ids of what is rated, by system.
        reference: id of what is played as the original, '' if nothing is.
        words: of a DRT, and which of them was said.
        said: its place, 0 or 1.
        detail: the feature of a DRT.
    """

    clip: str
    sounds: dict[str, str]
    reference: str = ""
    words: tuple[str, ...] = ()
    said: int = 0
    detail: str = ""

    @property
    def key(self) -> str:
        """What the trial is called on the wire: it tells a listener nothing."""
        return _id(0, "trial", self.clip, *self.sounds.values(), self.detail)


@dataclass
class Plan:
    """A whole test: its method, its trials, and its sounds as WAV files."""

    method: str
    seed: int
    trials: list[Trial] = field(default_factory=list)
    wavs: dict[str, bytes] = field(default_factory=dict)

    def for_listener(self, listener: str, most: int | None = None) -> list[Trial]:
        """This listener's trials in their order: at most so many, the same whenever they come back."""
        order = self._chance(listener).permutation(len(self.trials))
        return [self.trials[place] for place in order[:most]]

    def shown(self, trial: Trial, listener: str) -> dict[str, Any]:
        """A trial as the page sees it, its sounds in this listener's order."""
        ids = list(trial.sounds.values())
        order = self._chance(f"{listener}\n{trial.key}").permutation(len(ids))
        sounds = [ids[place] for place in order]
        return {"key": trial.key, "sounds": sounds, "reference": trial.reference, "words": self.words(trial, listener)}

    def words(self, trial: Trial, listener: str) -> list[str]:
        """A rhyme trial's words in this listener's order, or that which has the feature would always come first."""
        turned = self._chance(f"{listener}\n{trial.key}\nwords").random() < 0.5
        return list(trial.words[::-1] if turned else trial.words)

    def _chance(self, text: str) -> np.random.Generator:
        return np.random.default_rng(int(_id(self.seed, text), 16))

    def add(self, clip: str, versions: dict[str, Samples]) -> dict[str, str]:
        """Keep the versions of a clip, [samples] at 16 kHz by system, all at one loudness; their ids."""
        gains = equal_gains(list(versions.values()))
        ids = {}
        for (system, samples), gain in zip(versions.items(), gains, strict=True):
            ids[system] = _id(self.seed, clip, system)
            self.wavs[ids[system]] = _wav(samples * gain)
        return ids


def make_plan(method: str, clips: Sequence[tuple[str, Samples, dict[str, Samples]]], seed: int) -> Plan:
    """Every trial of a test.

    Args:
        method: of `METHODS`.
        clips: name, original and what each system made of it, [samples] at 16 kHz.
        seed: of what chance decides.

    Raises:
        ListeningError: if there is nothing to hear, too much in one trial, or no clip is a word of the DRT.
    """
    plan = Plan(method, seed)
    for name, original, systems in clips:
        versions: dict[str, Samples] = {REFERENCE: original, **systems}
        if method == "mushra":
            versions |= {anchor: low_passed(Pair(original, original), edge).heard for anchor, edge in ANCHORS_HZ.items()}
            if len(versions) > _MOST:
                room = _MOST - len(versions) + len(systems)
                raise ListeningError(
                    f"{len(systems)} codecs and rates: a MUSHRA trial takes {room} beside reference and anchors"
                )
            ids = plan.add(name, {**versions, _OPEN: original})
            plan.trials.append(Trial(name, ids, ids.pop(_OPEN)))
        elif method == "drt":
            plan.trials += _rhymes(plan, name, versions)
        else:
            versions[BAD] = mnru(original, _BAD_DB, plan._chance(name))
            ids = plan.add(name, {**versions, _OPEN: original})
            reference = ids.pop(_OPEN)
            shown = reference if method == "dcr" else ""
            plan.trials += [Trial(name, {system: sound}, shown) for system, sound in ids.items()]
    if not plan.trials:
        raise ListeningError(
            "no clip is a word of the DRT: name recordings by the word that is said, like veal.wav"
            if method == "drt"
            else "there is nothing to listen to: no clip went through every codec"
        )
    return plan


def mnru(samples: Samples, q_db: float, chance: np.random.Generator) -> Samples:
    """[samples] with noise that follows them at a ratio: the modulated noise reference unit of ITU-T P.810, eq. 1."""
    return np.clip(samples * (1 + 10 ** (-q_db / 20) * chance.standard_normal(len(samples))), -1, 1)


def _rhymes(plan: Plan, name: str, versions: dict[str, Samples]) -> list[Trial]:
    """A trial for each system, if the clip is called by a word of the list."""
    word = re.split(r"[-_ /]", name.rsplit(".", 1)[0])[-1].lower()
    pairs = find_pairs(word)
    if not pairs:
        return []
    ids = plan.add(name, versions)
    return [
        Trial(name, {system: sound}, words=words, said=words.index(word), detail=feature)
        for feature, words in pairs
        for system, sound in ids.items()
    ]


def _id(seed: int, *parts: str) -> str:
    return hashlib.sha256("\n".join([str(seed), *parts]).encode()).hexdigest()[:20]


def _wav(samples: Samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()
