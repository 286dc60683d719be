"""Speech and background as two streams that a receiver mixes: the dual-branch codec's idea (`dual_branch.py`) on the default
system.

What makes it this system: one encoder hears the scene; two branches say of it what that encoder would make of the speech alone
and of the background alone; one quantizer codes both and one decoder is run on both, apart, as in the dual-branch codec. To the
decoder a background is speech without a voice: noise through a filter, which goes with the frames. Codes of speech come first,
so that whoever drops the upper layers drops the background. docs/systems/dual_branch.md says what was measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from linnet.lab.dsp.excitation import NOISE_FRAMES
from linnet.lab.share import Share
from linnet.lab.systems.base import Example, Heard, Passed, draw_layers, draw_losses, quantizer_losses
from linnet.lab.systems.codec import Codec, Received
from linnet.lab.systems.pure import Guide, enhancement_loss
from linnet.lab.systems.source_filter import Analysis, SourceFilterConfig

if TYPE_CHECKING:
    from linnet.lab.train.recipe import Stage


BACKGROUND_AHEAD = NOISE_FRAMES // 2
"""By how many frames the background's source is ahead of the speech's: two noises that were one would add up to too much."""


@dataclass(frozen=True)
class MixerConfig(SourceFilterConfig):
    """The default system's sizes, those of the branches, and how many of the layers, the last ones, are the background's."""

    kind: str = "mixer"
    branch_channels: int = 160
    branch_hidden: int = 480
    branch_blocks: int = 3
    noise_layers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.phase_layers or self.guide_blocks or self.enhances:
            raise ValueError(
                "the mixer has branches in place of the phase's layers, a guide and an enhancer: set none of these"
            )
        if not 0 < self.noise_layers <= self.n_layers // 2:
            raise ValueError(f"noise_layers is {self.noise_layers}; choose 1 to {self.n_layers // 2} of {self.n_layers}")

    @property
    def spectrum_layers(self) -> int:
        """Those of the speech."""
        return self.n_layers - self.noise_layers


class MixerCodec(Codec):
    """Both branches lie behind each other along the batch, speech first, wherever they are `[2 * batch, ...]`.

    Its bottleneck: "quantized", a random number of layers of each branch, with bursts of lost frames.
    """

    parts = ("encoder", "speech", "noise", "quantizer", "decoder", "tracker")
    bottlenecks = ("quantized",)
    outputs = ("speech", "noise", "mixture")
    config: MixerConfig

    def __init__(self, config: MixerConfig):
        super().__init__(config)
        sizes = (config.branch_channels, config.branch_hidden, config.branch_blocks)
        self.speech, self.noise = (Guide(config.encoder_channels, config.latent_dim, *sizes) for _ in range(2))
        self.description = f"source-filter codec, speech and background apart, {config.noise_layers} layers for the background"

    def branches(self, analysis: Analysis) -> Tensor:
        """The latents of speech and of background, `[2 * batch, frames, dim]`, from silence."""
        hidden = analysis.hidden
        more = [branch(hidden, branch.initial_state(len(hidden)))[0] for branch in (self.speech, self.noise)]
        return torch.cat([analysis.latent + each for each in more])

    def told_apart(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The branches' latents of `[batch, frames * hop]`, from silence, and their pitch steps."""
        spectrum, pitch_steps = self.read(samples)
        return self.branches(self.analyse(spectrum, pitch_steps)), with_unvoiced(pitch_steps)

    def forward(self, stage: Stage, example: Example, share: Share) -> Passed:
        """`System.forward`."""
        samples, noise = example.samples, example.samples - example.wanted
        spectrum = self.spectrum(samples)
        pitch_steps = self.track(samples, spectrum) if stage.pitch == "tracked" else self._labelled(example)
        latents, pitches = self.branches(self.analyse(spectrum, pitch_steps)), with_unvoiced(pitch_steps)
        losses: dict[str, Tensor] = {}
        if "enhancement" in stage.losses:
            with torch.no_grad():
                aim = self.analyse(self.spectrum(torch.cat([example.wanted, noise])), pitches).latent
            losses["enhancement"] = enhancement_loss(latents, aim)
        arrived = ~draw_losses(pitch_steps.shape[1], stage.frame_loss, share).repeat(2, 1)
        with torch.autocast(samples.device.type, enabled=False):
            quantized = self.quantizer(latents, pitches, arrived)
        heard: dict[str, Heard] = {}
        if stage.decodes:
            speech, background = quantized.codes.chunk(2)
            kept = [draw_layers(speech, share), draw_layers(background[..., : self.config.noise_layers], share)]
            received = self._received(kept, arrived)
            straight = latents + (received.latent - latents).detach()
            outputs = self.synthesise(dataclasses.replace(received, latent=straight)).chunk(2)
            wanted = {"speech": example.wanted, "noise": noise, "mixture": samples}
            for (name, target), output in zip(wanted.items(), (*outputs, outputs[0] + outputs[1]), strict=True):
                heard[name] = self._heard(output, dataclasses.replace(example, wanted=target))
        learning = []
        if "quantizer" in stage.trains:
            parts = zip(latents.chunk(2), pitches.chunk(2), strict=True)
            learning = [(self.quantizer, (latent, pitch, latent)) for latent, pitch in parts]
        return Passed(losses | quantizer_losses(quantized), heard, latents.chunk(2)[0], learning)

    def _received(self, codes: Sequence[Tensor], arrived: Tensor | None = None) -> Received:
        """Of each branch's codes, -1 where one did not arrive, what the decoder takes."""
        speech, noise = codes
        wide = torch.nn.functional.pad(noise, (0, speech.shape[-1] - noise.shape[-1]), value=-1)
        both = torch.cat([speech, wide])
        return self.receive(both if arrived is None else torch.where(arrived.unsqueeze(-1), both, -1))

    @torch.no_grad()
    def fit(self, stage: Stage, examples: Sequence[Example], generator: torch.Generator) -> None:  # noqa: ARG002
        """`System.fit`."""
        latents, pitches = zip(*(self.told_apart(example.samples) for example in examples), strict=True)
        self.quantizer.fit(torch.cat(latents), torch.cat(pitches), generator)

    def latent(self, samples: Tensor) -> Tensor:
        """`System.latent`: the speech's."""
        return self.told_apart(samples)[0].chunk(2)[0]

    def encode(self, samples: Tensor) -> Tensor:
        """`System.encode`."""
        speech, noise = self.quantizer(*self.told_apart(samples)).codes.chunk(2)
        return torch.cat([speech, noise[..., : self.config.noise_layers]], -1)

    def decode(self, codes: Tensor) -> Tensor:
        """`System.decode`: both branches, added. One whose codes do not arrive is silent; a lost frame, which has no codes at
        all, goes on with the branches that there were."""
        speech, noise = codes.split([self.config.spectrum_layers, self.config.noise_layers], -1)
        speech, noise = self.synthesise(self._received([speech, noise]), present(speech, noise)).chunk(2)
        return speech + noise

    def synthesise(self, received: Received, level: Tensor | None = None) -> Tensor:
        """Samples of both branches `[2 * batch, frames * hop]`, from silence."""
        state: Any = self.decoder.initial_state(len(received.latent))
        blocks, (*source, counter), tails = state
        counter[len(counter) // 2 :] = BACKGROUND_AHEAD
        state = blocks, (*source, counter), tails
        return self.decoder(received.latent, received.pitch_steps, received.quality, None, state, level)[0]

    def unquantized(self, example: Example) -> dict[str, Tensor]:
        """`System.unquantized`: both branches added, and speech alone."""
        latents, pitches = self.told_apart(example.samples)
        quality = torch.full_like(pitches, self.config.n_layers + 1)
        speech, noise = self.synthesise(Received(latents, pitches, quality)).chunk(2)
        return {"unquantized": speech + noise, "unquantized, speech": speech}

    def columns(self) -> list[tuple[str, int]]:
        """`System.columns`."""
        noise = [f"noise_{layer}" for layer in range(1, self.config.noise_layers + 1)]
        return [*super().columns()[: self.config.spectrum_layers], *((name, self.quantizer.index.size) for name in noise)]


def with_unvoiced(pitch_steps: Tensor) -> Tensor:
    """The pitch of both branches `[2 * batch, frames]` of the speech's: a background has none."""
    return torch.cat([pitch_steps, torch.full_like(pitch_steps, -1)])


def present(speech: Tensor, noise: Tensor) -> Tensor:
    """Which branch is to be heard, 1 or 0, `[2 * batch, frames]`, of codes `[batch, frames, layers]` each: those that arrived,
    and in a lost frame those of the frame before."""
    arrived = torch.stack([speech[..., 0] >= 0, noise[..., 0] >= 0])
    heard, columns = torch.zeros_like(arrived[..., 0]), []
    for now in arrived.unbind(-1):
        heard = torch.where(now.any(0), now, heard)
        columns.append(heard)
    return torch.stack(columns, -1).flatten(0, 1).float()
