"""Checkpoints: one safetensors file that holds the weights, their running average, the optimisers and the whole recipe."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from linnet.lab.train.recipe import Recipe, build
from linnet.writing import replacing

_FORMAT = "linnet-checkpoint-1"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `stage` (an index), `step` within it, audio-seconds seen and wall-clock hours spent in all."""

    stage: int = 0
    step: int = 0
    audio_seconds: float = 0.0
    hours: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """`weights` and `average` by parameter name; `optimiser` is empty where a stage has just ended.

    `average` may be empty too, where only the finished weights are kept. The discriminators' groups are empty before the
    first adversarial stage.
    """

    recipe: Recipe
    progress: Progress
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    discriminators: dict[str, Tensor] = field(default_factory=dict)
    discriminator_optimiser: dict[str, Tensor] = field(default_factory=dict)


_GROUPS = ("weights", "average", "optimiser", "discriminators", "discriminator_optimiser")


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write it whole or not at all: a killed run never leaves half a checkpoint."""
    tensors = {
        f"{group}/{name}": tensor.detach().contiguous()
        for group in _GROUPS
        for name, tensor in getattr(checkpoint, group).items()
    }
    metadata = {
        "format": _FORMAT,
        "recipe": json.dumps(dataclasses.asdict(checkpoint.recipe)),
        "progress": json.dumps(dataclasses.asdict(checkpoint.progress)),
    }
    with replacing(path) as partial:
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, partial, metadata)


def slim(checkpoints: Sequence[Checkpoint], parts: Sequence[str] = ()) -> Checkpoint:
    """The averaged weights alone, as training can start from: the large matrices in half precision, whose rounding is far
    below what a step changes. Codebooks keep theirs, for their counts go far beyond its range.

    Of several checkpoints with one ancestor their mean (Wortsman et al., Model soups, arXiv 2203.05482), as far along as the
    last; with `parts` of these alone, the others are the last's. ValueError if what is to be averaged is not alike.
    """
    last = checkpoints[-1]
    if not parts and any(checkpoint.recipe.system != last.recipe.system for checkpoint in checkpoints):
        raise ValueError("checkpoints of different systems have no mean; name the parts that they share")
    averages = [checkpoint.average or checkpoint.weights for checkpoint in checkpoints]
    unknown = set(parts) - {name.split(".")[0] for name in averages[-1]}
    if unknown:
        raise ValueError(f"the last checkpoint has no part {', '.join(sorted(unknown))}")
    weights = {}
    for name, tensor in averages[-1].items():
        if not tensor.is_floating_point():
            weights[name] = tensor
            continue
        shared = averages if not parts or name.split(".")[0] in parts else averages[-1:]
        if any(name not in average or average[name].shape != tensor.shape for average in shared):
            raise ValueError(f"{name} is not alike in all checkpoints: it has no mean")
        mean = torch.stack([average[name] for average in shared]).mean(0)
        weights[name] = mean if mean.ndim < 2 or name.endswith(".sums") else mean.half()
    return Checkpoint(last.recipe, last.progress, weights, {}, {})


def load_checkpoint(path: Path) -> Checkpoint:
    """ValueError says what is wrong with a file that is not a checkpoint of this format."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this version (format {metadata.get('format')!r})")
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in _GROUPS}
    try:
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = tensor.float() if tensor.dtype == torch.float16 else tensor
        recipe, progress = (dict(json.loads(metadata[key])) for key in ("recipe", "progress"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a checkpoint of this version: its recipe, progress or tensors cannot be read ({error})"
        ) from error
    return Checkpoint(build(Recipe, recipe, str(path)), build(Progress, progress, str(path)), **groups)


def restore_weights(system: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put a checkpoint's weights into its system, or a part's into its like; ValueError if they are another's."""
    try:
        system.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"the checkpoint's weights are of another version or size: {str(error).splitlines()[-1].strip()}"
        ) from error


def optimiser_tensors(optimiser: torch.optim.AdamW, names: list[str]) -> dict[str, Tensor]:
    """The state of an optimiser by parameter name."""
    state = optimiser.state_dict()["state"]
    return {f"{names[index]}/{key}": value for index, entry in state.items() for key, value in entry.items()}


def restore_optimiser(optimiser: torch.optim.AdamW, names: list[str], tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimiser_tensors`."""
    whole = optimiser.state_dict()
    for index, name in enumerate(names):
        entry = {key: tensors[f"{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}/{key}" in tensors}
        if entry:
            whole["state"][index] = entry
    optimiser.load_state_dict(whole)
