"""A recipe: one TOML file that says what is trained, on what, in which stages. Every number of a run is in it."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from linnet.lab.data.crops import CropConfig
from linnet.lab.losses.adversarial import DiscriminatorConfig
from linnet.lab.systems import SYSTEMS
from linnet.lab.systems.base import SystemConfig
from linnet.lab.systems.source_filter import SourceFilterConfig

T = TypeVar("T")

_SPECTRAL = ("mel", "loudness", "intelligibility", "balance", "compressed")
RECONSTRUCTION = (*_SPECTRAL, "l1", "si_sdr", "waveform")
ADVERSARIAL = ("adversarial", "feature_matching")
LOSSES = (*RECONSTRUCTION, *ADVERSARIAL, "latent", "commitment", "alignment", "pitch", "kl", "enhancement", "mix")


@dataclass(frozen=True)
class Stage:
    """One stretch of training: which parts learn, what stands between encoder and decoder, and what is minimised.

    `trains` names parts of the system, the others stay frozen. `bottleneck` is one of the system's own: "quantized" is
    every system's, a random number of layers, with bursts of lost frames at `frame_loss` in a third of the clips. `losses`
    are weights by name: mel, loudness, intelligibility, balance, compressed, l1, si_sdr (reconstruction) and waveform
    (where the phase's layers arrive), adversarial and feature_matching (with the recipe's discriminators, which learn at
    `discriminator_learning_rate`, alone for the first `discriminator_warmup_steps`), latent (what the quantizers learn
    from) and commitment (what the encoders do), both errors in units of the latents' power, alignment (how far the latent
    is from what the recipe's teacher makes of the target: squared error and one less the cosine), and systems' own: pitch
    (the tracker's cross-entropy), kl (PURE's), enhancement (PURE's and the remix's), mix (the dual-branch codec's). Where a
    system has several outputs, what is lost on one is called `output/loss`. Codebooks without entries are fitted at the
    start of the first stage that minimises latent; until then a phase passes unquantized. `pitch` is "tracked", by the
    tracker as it stands, which is what the codec will meet, "labelled", by the corpus's labels, or "taught", by what the
    teacher tracks in the target. `enhancement_probability` is how often PURE's first streams aim at the target,
    `perturbation` how often, in the source-filter system, the decoder is given a neighbour of a code that is not a first
    one. Unless `paired`, discriminators are shown other clips' targets. `batch` counts the clips of all processes together.
    """

    name: str
    steps: int
    trains: tuple[str, ...]
    losses: dict[str, float]
    bottleneck: str = "none"
    frame_loss: float = 0.1
    pitch: str = "tracked"
    enhancement_probability: float = 0.0
    perturbation: float = 0.0
    paired: bool = True
    learning_rate: float = 1e-3
    final_learning_rate: float = 5e-5
    warmup_steps: int = 200
    discriminator_learning_rate: float = 5e-4
    discriminator_warmup_steps: int = 0
    batch: int = 48
    crops: CropConfig = field(default_factory=CropConfig)

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.crops.frames) < 1:
            raise ValueError(f"stage {self.name!r}: steps, batch and the crops' frames are at least 1")
        if self.pitch not in ("tracked", "labelled", "taught"):
            raise ValueError(f"stage {self.name!r}: pitch {self.pitch!r} is not one of 'tracked', 'labelled', 'taught'")
        for name in map(_loss, self.losses):
            if name not in LOSSES:
                near = difflib.get_close_matches(name, LOSSES, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"losses are {', '.join(LOSSES)}"
                raise ValueError(f"stage {self.name!r}: unknown loss {name!r}; {hint}")
        if self.adversarial and self.bottleneck == "none":
            raise ValueError(
                f"stage {self.name!r}: nothing is decoded without a bottleneck, so there is nothing to discriminate"
            )
        if not self.paired and "feature_matching" in map(_loss, self.losses):
            raise ValueError(f"stage {self.name!r}: features of other clips' targets cannot be matched")

    @property
    def decodes(self) -> bool:
        """Whether anything is to be heard in this stage."""
        return self.adversarial or any(_loss(name) in RECONSTRUCTION for name in self.losses)

    @property
    def adversarial(self) -> bool:
        """Whether discriminators learn in this stage."""
        return any(_loss(name) in ADVERSARIAL for name in self.losses)

    def rivals(self, output: str) -> bool:
        """Whether discriminators learn from this output."""
        return any(loss_name(output, name) in self.losses for name in ADVERSARIAL)


def loss_name(output: str, loss: str) -> str:
    """What a loss on one of a system's outputs is called."""
    return f"{output}/{loss}" if output else loss


def _loss(name: str) -> str:
    return name.rpartition("/")[2]


@dataclass(frozen=True)
class Recipe:
    """The whole of a training run.

    `data` names the corpus with its licences, for the card of what is trained on it. `teacher` is the checkpoint that stages
    align with or learn pitch from, and a fresh run takes the parts that it `inherits` from there. Networks compute in bfloat16
    unless told otherwise; losses, codebooks and weights are float32 anyway. Validation hears clean clips and, at the levels
    of `validation_snr_db` in turn, the same clips in noise.
    """

    name: str
    stages: tuple[Stage, ...]
    system: SystemConfig = field(default_factory=SourceFilterConfig)
    discriminators: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    data: str = ""
    teacher: str = ""
    inherits: tuple[str, ...] = ()
    seed: int = 0
    bfloat16: bool = True
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    averaging: float = 0.003
    validation_clips: int = 12
    validation_snr_db: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError(f"recipe {self.name!r} has no stages: there is nothing to train")
        if self.seed < 0:
            raise ValueError(f"recipe {self.name!r}: seed is {self.seed}; choose 0 or more")
        asked = any("alignment" in stage.losses or stage.pitch == "taught" for stage in self.stages)
        if not self.teacher and (self.inherits or asked):
            raise ValueError(f"recipe {self.name!r} inherits, aligns with or takes its pitch from a teacher, but names none")
        system = SYSTEMS[self.system.kind][1]
        unknown = ", ".join(sorted(set(self.inherits) - set(system.parts)))
        if unknown:
            raise ValueError(f"recipe {self.name!r} inherits {unknown}; parts are {', '.join(system.parts)}")
        for stage in self.stages:
            unknown = ", ".join(sorted(set(stage.trains) - set(system.parts)))
            if unknown:
                raise ValueError(f"stage {stage.name!r} trains {unknown}; parts are {', '.join(system.parts)}")
            if stage.bottleneck not in system.bottlenecks:
                known = ", ".join(system.bottlenecks)
                raise ValueError(f"stage {stage.name!r}: bottleneck {stage.bottleneck!r} is not one of {known}")
            for name in stage.losses:
                outputs = system.outputs if _loss(name) in RECONSTRUCTION + ADVERSARIAL else ("",)
                known = ", ".join(loss_name(output, _loss(name)) for output in outputs)
                if name not in known.split(", "):
                    raise ValueError(f"stage {stage.name!r}: loss {name!r} of this system is {known}")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; ValueError names an unknown key and the nearest known one.

    A table `crops` of the recipe itself holds for every stage; each key of it that a stage's own `crops` has is replaced.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    shared, stages = table.pop("crops", {}), table.get("stages")
    _convert(CropConfig, shared, f"{path}: crops")
    for stage in stages if isinstance(stages, list) else ():
        if isinstance(stage, dict) and isinstance(own := stage.get("crops", {}), dict):
            stage["crops"] = {**shared, **own}
    return build(Recipe, table, str(path))


def build(kind: type[T], table: dict[str, Any], where: str) -> T:
    """A frozen dataclass from a TOML table, checking every key; tables nest as the dataclasses do."""
    hints = typing.get_type_hints(kind)
    for key in table:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            raise ValueError(f"{where}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        inspect.signature(kind).bind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error
    return kind(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if hint is SystemConfig and isinstance(value, dict):
        kind = value.get("kind", SourceFilterConfig.kind)
        if kind not in SYSTEMS:
            raise ValueError(f"{where}: kind {kind!r} is not one of {', '.join(SYSTEMS)}")
        return build(SYSTEMS[kind][0], value, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return build(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, item, f"{where}[{index}]") for index, item in enumerate(value))
    if hint is float and isinstance(value, int):
        return float(value)
    plain = typing.get_origin(hint) or hint
    if not isinstance(plain, types.UnionType) and isinstance(plain, type) and not isinstance(value, plain):
        raise ValueError(f"{where}: expected {plain.__name__}, got {value!r}")
    return value
