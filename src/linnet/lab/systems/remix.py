"""Speech and background as two streams that a receiver mixes: the dual-branch codec's idea (`dual_branch.py`) on the default
system.

What makes it this system: one encoder hears the scene; two branches say of it what that encoder would make of the speech alone
and of the background alone; one quantizer codes both, and one decoder is run on both, apart, as in the dual-branch codec. To
the decoder a background is speech without a voice: noise through a filter, which changes with the frames. Codes of speech come
first, so that whoever drops the upper layers drops the background; of its base layer only the entries of unvoiced frames are
used. docs/systems/dual_branch.md says what was measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from linnet.lab.dsp.excitation import NOISE_FRAMES
from linnet.lab.quant.residual import Quantized
from linnet.lab.share import Share
from linnet.lab.systems.base import Example, Heard, Passed, draw_layers, draw_losses, quantizer_losses
from linnet.lab.systems.codec import Codec, Received
from linnet.lab.systems.pure import Guide, enhancement_loss
from linnet.lab.systems.source_filter import Analysis, SourceFilterConfig

if TYPE_CHECKING:
    from linnet.lab.train.recipe import Stage

BACKGROUND_AHEAD = NOISE_FRAMES // 2
"""By how many frames the background's excitation is ahead of the speech's: one noise twice would add up to too much."""
HELD_FRAMES = 8
"""For how many frames a branch without codes goes on while the other's arrive: a copy that mends a lost frame has one layer."""


@dataclass(frozen=True)
class RemixConfig(SourceFilterConfig):
    """The default system's sizes, those of the branches, and how many of the layers, the last ones, are the background's."""

    kind: str = "remix"
    branch_channels: int = 160
    branch_hidden: int = 480
    branch_blocks: int = 3
    noise_layers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.phase_layers or self.guide_blocks or self.enhances:
            raise ValueError("a remix has branches instead of phase_layers, guide_blocks, enhancer_blocks and band_channels")
        if not 0 < self.noise_layers <= self.n_layers // 2:
            raise ValueError(f"noise_layers is {self.noise_layers} of {self.n_layers}; choose 1 to half of n_layers")

    @property
    def spectrum_layers(self) -> int:
        """Those of the speech."""
        return self.n_layers - self.noise_layers


class RemixCodec(Codec):
    """Where both branches share a call they lie behind each other along the batch, speech first.

    Its bottlenecks: "quantized", a random number of layers of each branch, with bursts of lost frames; and "none", nothing is
    heard.
    """

    parts = ("encoder", "speech", "noise", "quantizer", "decoder", "tracker")
    bottlenecks = ("quantized", "none")
    outputs = ("speech", "noise", "mixture")
    config: RemixConfig

    def __init__(self, config: RemixConfig):
        super().__init__(config)
        sizes = (config.branch_channels, config.branch_hidden, config.branch_blocks)
        self.speech, self.noise = (Guide(config.encoder_channels, config.latent_dim, *sizes) for _ in range(2))
        self.description = f"source-filter codec, speech and background apart, {config.noise_layers} layers for the background"

    def branches(self, analysis: Analysis) -> tuple[Tensor, Tensor]:
        """The latents of speech and of background, `[batch, frames, dim]` each, from silence."""
        hidden, state = analysis.hidden, self.speech.initial_state(len(analysis.hidden))
        return analysis.latent + self.speech(hidden, state)[0], analysis.latent + self.noise(hidden, state)[0]

    def told_apart(self, samples: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """The branches' latents of `[batch, frames * hop]`, from silence, and the speech's pitch steps."""
        spectrum, pitch_steps = self.read(samples)
        return self.branches(self.analyse(spectrum, pitch_steps)), pitch_steps

    def forward(self, stage: Stage, example: Example, share: Share) -> Passed:
        """`System.forward`."""
        samples, background = example.samples, example.samples - example.wanted
        spectrum = self.spectrum(samples)
        pitch_steps = self.track(samples, spectrum) if stage.pitch == "tracked" else self._labelled(example)
        latents = self.branches(self.analyse(spectrum, pitch_steps))
        losses: dict[str, Tensor] = {}
        if "enhancement" in stage.losses:
            with torch.no_grad():
                alone = self.spectrum(torch.cat([example.wanted, background]))
                aim = self.analyse(alone, torch.cat([pitch_steps, unvoiced(pitch_steps)])).latent
            losses["enhancement"] = enhancement_loss(torch.cat(latents), aim)
        if stage.bottleneck == "none":
            return Passed(losses, latent=latents[0])
        arrived = ~draw_losses(pitch_steps.shape[1], stage.frame_loss, share)
        speech, noise = self._quantized(latents, pitch_steps, arrived)
        losses |= quantizer_losses(error=speech, noise_error=noise)
        heard: dict[str, Heard] = {}
        if stage.decodes:
            kept = [torch.where(arrived.unsqueeze(-1), draw_layers(each.codes, share), -1) for each in (speech, noise)]
            received = self._received(kept)
            both = torch.cat(latents)
            straight = dataclasses.replace(received, latent=both + (received.latent - both).detach())
            outputs = self.synthesise(straight).chunk(2)
            wanted = {"speech": example.wanted, "noise": background, "mixture": samples}
            for (name, target), output in zip(wanted.items(), (*outputs, outputs[0] + outputs[1]), strict=True):
                heard[name] = self._heard(output, dataclasses.replace(example, wanted=target))
        # Hardly used entries are for the speech to take.
        learning = [(self.quantizer, (latents[0], pitch_steps, latents[0]))] if "quantizer" in stage.trains else []
        return Passed(losses, heard, latents[0], learning)

    def _quantized(
        self, latents: tuple[Tensor, Tensor], pitch_steps: Tensor, arrived: Tensor | None = None
    ) -> tuple[Quantized, Quantized]:
        """Each branch with the layers that it has."""
        speech, noise = latents
        with torch.autocast(speech.device.type, enabled=False):
            return (
                self.quantizer(speech, pitch_steps, arrived, layers=self.config.spectrum_layers),
                self.quantizer(noise, unvoiced(pitch_steps), arrived, layers=self.config.noise_layers),
            )

    def _received(self, codes: Sequence[Tensor]) -> Received:
        """Of each branch's codes, -1 where one did not arrive, what the decoder takes."""
        speech, noise = codes
        padded = torch.nn.functional.pad(noise, (0, speech.shape[-1] - noise.shape[-1]), value=-1)
        return self.receive(torch.cat([speech, padded]))

    def synthesise(self, received: Received, level: Tensor | None = None) -> Tensor:
        """Samples of both branches `[2 * batch, frames * hop]`, from silence, each frame `level` `[2 * batch, frames]` times as
        loud."""
        state: Any = self.decoder.initial_state(len(received.latent))
        blocks, (*source, counter), tails = state
        counter[len(counter) // 2 :] = BACKGROUND_AHEAD
        state = blocks, (*source, counter), tails
        return self.decoder(received.latent, received.pitch_steps, received.quality, None, state, level)[0]

    @torch.no_grad()
    def fit(self, stage: Stage, examples: Sequence[Example], generator: torch.Generator) -> None:  # noqa: ARG002
        """`System.fit`: on the speech."""
        latents, pitches = zip(*(self.told_apart(example.samples) for example in examples), strict=True)
        self.quantizer.fit(torch.cat([speech for speech, _ in latents]), torch.cat(pitches), generator)

    def latent(self, samples: Tensor) -> Tensor:
        """`System.latent`: the speech's."""
        return self.told_apart(samples)[0][0]

    def encode(self, samples: Tensor) -> Tensor:
        """`System.encode`."""
        return torch.cat([each.codes for each in self._quantized(*self.told_apart(samples))], -1)

    def decode(self, codes: Tensor) -> Tensor:
        """`System.decode`: both branches, added, as far as they are `present`."""
        both = codes.split([self.config.spectrum_layers, self.config.noise_layers], -1)
        speech, noise = self.synthesise(self._received(both), present(*both)).chunk(2)
        return speech + noise

    def unquantized(self, example: Example) -> dict[str, Tensor]:
        """`System.unquantized`: both branches added, and speech alone."""
        latents, pitch_steps = self.told_apart(example.samples)
        pitches = torch.cat([pitch_steps, unvoiced(pitch_steps)])
        quality = torch.full_like(pitches, self.config.n_layers + 1)
        speech, noise = self.synthesise(Received(torch.cat(latents), pitches, quality)).chunk(2)
        return {"unquantized": speech + noise, "unquantized, speech": speech}

    def columns(self) -> list[tuple[str, int]]:
        """`System.columns`."""
        noise = [f"noise_{layer}" for layer in range(1, self.config.noise_layers + 1)]
        return [*super().columns()[: self.config.spectrum_layers], *((name, self.quantizer.index.size) for name in noise)]


def unvoiced(pitch_steps: Tensor) -> Tensor:
    """The pitch of a background: none, of the same shape."""
    return torch.full_like(pitch_steps, -1)


def present(speech: Tensor, noise: Tensor) -> Tensor:
    """Which branch is to be heard, 1 or 0, `[2 * batch, frames]`, of codes `[batch, frames, layers]` each.

    One whose codes do not arrive is silent, but only after `HELD_FRAMES` of them; a lost frame, which has no codes at all,
    changes nothing.
    """
    arrived = torch.stack([speech[..., 0] >= 0, noise[..., 0] >= 0])
    left, columns = torch.zeros_like(arrived[..., 0], dtype=torch.int64), []
    for now in arrived.unbind(-1):
        waned = (left - now.any(0).long()).clamp(min=0)
        left = torch.where(now, HELD_FRAMES + 1, waned)
        columns.append(left > 0)
    return torch.stack(columns, -1).flatten(0, 1).float()
