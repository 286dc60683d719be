"""What the trainer, validation and the exporter ask of every system, and what systems share of training.

A system is a codec with its own way from samples to codes and back. Stages, losses on what is heard, discriminators,
checkpoints, validation and bundles are the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from linnet.lab.dsp.pitch import PitchLabels
from linnet.lab.quant.codebook import EmaCodebook
from linnet.lab.quant.residual import Quantized
from linnet.lab.share import Share, mean_over_processes

if TYPE_CHECKING:
    from linnet.lab.train.recipe import Stage


class SystemConfig(Protocol):
    """What every system's configuration says, a frozen dataclass; `kind` is its system's name in recipes."""

    @property
    def kind(self) -> str: ...

    @property
    def sample_rate(self) -> int: ...

    @property
    def hop(self) -> int: ...

    @property
    def n_layers(self) -> int: ...

    @property
    def labels(self) -> PitchLabels:
        """Where the corpus's pitch labels are to stand."""

    @property
    def phase_hz(self) -> float:
        """Up to where waveforms may be compared."""


@dataclass(frozen=True)
class Example:
    """What a codec hears and what it is to give back, `[batch, frames * hop]` each, and the pitch labels in Hz `[batch,
    frames]`, 0 where unvoiced."""

    samples: Tensor
    wanted: Tensor
    pitch_hz: Tensor


@dataclass(frozen=True)
class Heard:
    """What came out, `[batch, n]`, what should have, and of each clip the share of its phase that was transmitted `[batch]`,
    None where waveforms are not to be compared."""

    output: Tensor
    wanted: Tensor
    phase: Tensor | None = None


class Quantizer(Protocol):
    """What learns from statistics besides gradients."""

    def codebooks(self) -> list[EmaCodebook]:
        """All codebooks, base first."""

    def revive(self, *inputs: Any) -> None:
        """Replace hardly used entries; takes what `Passed.quantized` says, of the whole batch, and a generator."""


@dataclass(frozen=True)
class Passed:
    """What one pass through a system gave: its own `losses` by name (those that no stage weighs are for the log), what is
    `heard` of it, by the names of those of the system's `outputs` that were decoded, the encoder's `latent` `[batch, frames,
    dim]` (None where there was none), and the quantizers that learn in this stage, each with what its `revive` takes."""

    losses: dict[str, Tensor] = field(default_factory=dict)
    heard: dict[str, Heard] = field(default_factory=dict)
    latent: Tensor | None = None
    quantized: Sequence[tuple[Quantizer, tuple[Tensor, ...]]] = ()


class System(nn.Module):
    """A trainable codec.

    `description` is what a bundle's card says of it. `delay` is by how many samples what is decoded lags what was encoded,
    `lookahead` by how many frames the latent does. `parts` are the children that a stage may train, `bottlenecks` the ways
    through that it may ask for. `outputs` are what is heard apart, each with its own losses and discriminators, which a stage
    calls `output/loss`; a system's only output has no name.
    """

    config: Any
    description: str
    delay: int
    lookahead: int = 0
    parts: tuple[str, ...] = ("encoder", "quantizer", "decoder")
    bottlenecks: tuple[str, ...] = ("quantized",)
    outputs: tuple[str, ...] = ("",)

    def forward(self, stage: Stage, example: Example, share: Share) -> Passed:
        """One pass in training."""
        raise NotImplementedError

    def fit(self, stage: Stage, examples: Sequence[Example], generator: torch.Generator) -> None:
        """Start the codebooks that `unfitted` tells of on what the encoder makes of `examples`."""
        raise NotImplementedError

    def unfitted(self, stage: Stage) -> bool:
        """Whether a stage trains codebooks that have no entries yet."""
        raise NotImplementedError

    def latent(self, samples: Tensor) -> Tensor:
        """What a student's latent is to come near to: `[batch, frames * hop]` -> `[batch, frames, dim]`."""
        raise NotImplementedError

    def encode(self, samples: Tensor) -> Tensor:
        """`[batch, frames * hop]`, from silence -> codes of all layers, int64 `[batch, frames, columns]`."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """The inverse; -1 where a code did not arrive. The samples `[batch, frames * hop]` come `delay` late."""
        raise NotImplementedError

    def unquantized(self, example: Example) -> dict[str, Tensor]:
        """What the decoder makes, as `decode`, of what was not quantized, by the name of how: the measure of the quantizer."""
        raise NotImplementedError

    def columns(self) -> list[tuple[str, int]]:
        """What the codes are called and how many values each has, a column a layer."""
        raise NotImplementedError

    def codebooks(self) -> list[EmaCodebook]:
        """All codebooks that have entries, first layer first."""
        raise NotImplementedError


def draw_losses(frames: int, loss_probability: float, share: Share) -> Tensor:
    """Which frames a network might lose: bursts in one clip of three (Gilbert's two states, three frames long on average),
    bool `[batch, frames]`."""
    lossy = share.rand() < 1 / 3
    lost = torch.zeros_like(lossy)
    rows = []
    for draw in share.rand(frames).unbind(1):
        lost = torch.where(lost, draw > 1 / 3, draw < loss_probability / 3) & lossy
        rows.append(lost)
    return torch.stack(rows, 1)


def draw_layers(codes: Tensor, share: Share) -> Tensor:
    """Codes with a random number of layers for every clip, the lowest and the highest more often; the others are -1."""
    n_layers = codes.shape[-1]
    choices = torch.tensor([1, *range(1, n_layers + 1), n_layers - 1, n_layers, n_layers], device=codes.device)
    layers = choices[share.randint(0, len(choices), 1, 1)]
    return keep_layers(codes, layers)


def keep_layers(codes: Tensor, layers: Tensor | int) -> Tensor:
    """Codes `[..., layers]` of which the first `layers` arrived; the others are -1."""
    return torch.where(torch.arange(codes.shape[-1], device=codes.device) < layers, codes, -1)


def unit_power(latent: Tensor, power: Tensor, *, training: bool) -> Tensor:
    """Divide by the root of the mean power: the batch's in training, which `power` averages, and that average otherwise."""
    if not training:
        return latent / power.sqrt()
    present = mean_over_processes(latent.pow(2))
    power.lerp_(present.detach(), 0.01)
    return latent / present.sqrt()


def quantizer_losses(**quantized: Quantized) -> dict[str, Tensor]:
    """The losses of all quantizers together as a stage names them, and the errors of each, after each layer, for the log: those
    of `error` are `error_0`, `error_1` and so on."""
    losses = {f"{name}_{number}": error.detach() for name, each in quantized.items() for number, error in enumerate(each.error)}
    losses["latent"] = torch.stack([each.loss for each in quantized.values()]).sum()
    losses["commitment"] = torch.stack([each.commitment for each in quantized.values()]).sum()
    return losses
