"""Dual-branch codec for speech enhancement (Klement, Brno University of Technology, 2025; USE-DDP, arXiv 2509.22942).

What makes it this system: one encoder, two transformers with rotary positions, one for clean speech and one for noise, a
residual quantizer for each, one decoder that hears both apart, and the mix of the two that comes nearest to the input, by
least squares (eqs. 1 and 2). That mix must sound like the input, speech like speech and noise like noise, each by
discriminators of its own: so speech is told from noise even where no clean recording is known. The paper has DAC's networks
at 16 kHz and gives no sizes; here networks run at the frame rate, with codebooks of 4096, four for speech and two for noise.

Codes of speech come first, so that whoever drops the upper layers drops the noise. docs/systems/dual_branch.md says what
else is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linnet.lab.dsp.pitch import PitchLabels
from linnet.lab.nn.blocks import Chain, FeedForward, State, WindowedAttention
from linnet.lab.nn.spectral import SpectralDecoder, SpectralEncoder
from linnet.lab.quant.codebook import EmaCodebook
from linnet.lab.quant.residual import ResidualQuantizer
from linnet.lab.share import Share
from linnet.lab.systems.base import Example, Heard, Passed, draw_layers, draw_losses, quantizer_losses, unit_power
from linnet.lab.systems.plain import StreamingSystem
from linnet.lab.systems.source_filter import backbone

if TYPE_CHECKING:
    from linnet.lab.train.recipe import Stage

_BRANCHES = ("speech", "noise")
# How many frames a branch is heard for, from one that arrived on.
_HELD = 8


@dataclass(frozen=True)
class DualBranchConfig:
    """Sizes of the networks; a layer has `bits` a frame. A transformer's frame attends to `span` frames, its own the last."""

    kind: str = "dual-branch"
    sample_rate: int = 16000
    hop: int = 192
    window: int = 480
    latent_dim: int = 24
    channels: int = 160
    hidden: int = 480
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    transformer_layers: int = 2
    heads: int = 4
    span: int = 64
    speech_layers: int = 4
    noise_layers: int = 2
    bits: int = 12
    code_dim: int = 16

    @property
    def n_layers(self) -> int:
        """Of both branches."""
        return self.speech_layers + self.noise_layers

    @property
    def phase_hz(self) -> float:
        """The decoder is free to make every waveform."""
        return self.sample_rate / 2

    @property
    def labels(self) -> PitchLabels:
        """As the default system's, so that a packed corpus serves both; no pitch is used."""
        return PitchLabels(self.hop, self.hop - self.window // 2)


class Branch(nn.Module):
    """A RoFormer (arXiv 2104.09864): features `[batch, frames, channels]` -> the latent of one source, of unit mean power,
    `[batch, frames, dim]`."""

    def __init__(self, config: DualBranchConfig):
        super().__init__()
        channels = config.channels
        blocks: list[nn.Module] = []
        for _ in range(config.transformer_layers):
            attention = WindowedAttention(channels, config.heads, config.span, rotary=True)
            blocks += [attention, FeedForward(channels, config.hidden)]
        self.blocks = Chain(*blocks)
        self.norm = nn.LayerNorm(channels)
        self.output = nn.Linear(channels, config.latent_dim)
        self.register_buffer("power", torch.ones(()))
        self.power: Tensor

    def initial_state(self, batch: int) -> State:
        return self.blocks.initial_state(batch)

    def forward(self, features: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        x, state = self.blocks(features, state)
        return unit_power(self.output(self.norm(x)).float(), self.power, training=self.training), state


class BranchQuantizers(nn.Module):
    """A residual quantizer for each branch, for latents side by side `[batch, frames, 2 * dim]`; the codes of speech first."""

    def __init__(self, config: DualBranchConfig):
        super().__init__()
        make = partial(ResidualQuantizer, size=1 << config.bits, code_dim=config.code_dim)
        self.speech = make(config.latent_dim, config.speech_layers)
        self.noise = make(config.latent_dim, config.noise_layers)

    def of(self, branch: str) -> ResidualQuantizer:
        """The quantizer of a branch by its name."""
        return self.speech if branch == "speech" else self.noise

    def search(self, latents: Tensor) -> Tensor:
        """Codes of all layers, int64 `[batch, frames, layers]`."""
        parts = zip(_BRANCHES, latents.chunk(2, -1), strict=True)
        return torch.cat([self.of(branch).search(latent) for branch, latent in parts], -1)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Codes `[batch, frames, layers]`, -1 where one did not arrive -> latents; each branch for itself."""
        parts = zip(_BRANCHES, codes.split([len(self.speech.books), len(self.noise.books)], -1), strict=True)
        return torch.cat([self.of(branch).dequantize(part) for branch, part in parts], -1)


class DualBranchCodec(StreamingSystem):
    """Its bottlenecks: "quantized", a random number of layers of each branch, and "continuous", nothing is quantized. A stage
    that does not train the branch "noise" hears speech alone."""

    mixes = True
    parts = ("encoder", "speech", "noise", "quantizer", "decoder")
    bottlenecks: tuple[str, ...] = ("quantized", "continuous")
    outputs = ("speech", "noise", "mixture")

    def __init__(self, config: DualBranchConfig):
        super().__init__()
        self.config, self.delay = config, config.window - config.hop
        self.description = f"dual-branch codec, {config.speech_layers} layers of speech and {config.noise_layers} of noise"
        transform, channels = (config.window, config.hop), config.channels
        blocks = backbone(channels, config.hidden, config.encoder_blocks, recurrent=False)
        self.encoder = SpectralEncoder(*transform, channels, blocks, channels)
        self.speech, self.noise = Branch(config), Branch(config)
        self.quantizer = BranchQuantizers(config)
        blocks = backbone(channels, config.hidden, config.decoder_blocks, recurrent=True)
        self.decoder = SpectralDecoder(*transform, channels, blocks, config.latent_dim)

    def initial_states(self, batch: int) -> tuple[State, State]:
        """`StreamingSystem.initial_states`. A receiver decodes each branch, and knows of each whether it arrived in the last
        frames, how loud it was at last, and how much of the noise its listener does without."""
        sending = (self.encoder.initial_state(batch), *(self._branch(name).initial_state(batch) for name in _BRANCHES))
        silence = self.speech.power.new_zeros(batch, 1, len(_BRANCHES))
        receiving = tuple(self.decoder.initial_state(batch) for _ in _BRANCHES)
        return sending, (receiving, silence.expand(-1, _HELD - 1, -1).clone(), silence, silence[:, 0, :1].clone())

    def _branch(self, name: str) -> Branch:
        return self.speech if name == "speech" else self.noise

    def encode_step(self, samples: Tensor, state: Any) -> tuple[Tensor, State]:
        """`StreamingSystem.encode_step`."""
        encoder, speech, noise = state
        features, encoder = self.encoder(samples, encoder)
        (speech_latent, speech), (noise_latent, noise) = self.speech(features, speech), self.noise(features, noise)
        return self.quantizer.search(torch.cat([speech_latent, noise_latent], -1)), (encoder, speech, noise)

    def decode_step(self, codes: Tensor, state: Any) -> tuple[Tensor, State]:
        """`StreamingSystem.decode_step`: both branches, added. One that has not arrived in `_HELD` frames is silent: so long it
        goes on without its codes, in lost frames and in those that a copy of their first layer mended. `cut` of the noise
        `[batch, 1]` is not wanted."""
        decoders, history, before, cut = state
        latents = self.quantizer.dequantize(codes)
        arrived = codes[..., [0, self.config.speech_layers]].ge(0).to(latents.dtype)
        known = torch.cat([history, arrived], 1)
        wanted = torch.cat([torch.ones_like(cut), 1 - cut], 1).unsqueeze(1)
        gains = F.max_pool1d(known.transpose(1, 2), _HELD, 1).transpose(1, 2) * wanted
        # From one gain to the next within a hop, so that a branch that comes or goes does not click.
        earlier = torch.cat([before, gains], 1)[:, :-1]
        ramp = torch.arange(1, self.config.hop + 1, device=codes.device) / self.config.hop
        fades = earlier.unsqueeze(-1) * (1 - ramp) + gains.unsqueeze(-1) * ramp
        heard, after = codes.new_zeros((), dtype=latents.dtype), []
        for latent, decoder, fade in zip(latents.chunk(2, -1), decoders, fades.unbind(2), strict=True):
            samples, decoder = self.decoder(latent, decoder)
            heard = heard + fade.flatten(1) * samples
            after.append(decoder)
        return heard, (tuple(after), known[:, known.shape[1] - _HELD + 1 :], gains[:, -1:], cut.clone())

    def forward(self, stage: Stage, example: Example, share: Share) -> Passed:
        """`System.forward`."""
        branches = self._trained(stage)
        losses: dict[str, Tensor] = {}
        latents = self.latents(example.samples, branches)
        received = latents
        if stage.bottleneck == "quantized":
            arrived = ~draw_losses(latents["speech"].shape[1], stage.frame_loss, share)
            with torch.autocast(example.samples.device.type, enabled=False):
                quantized = {name: self.quantizer.of(name)(latents[name]) for name in branches}
            losses |= quantizer_losses(**{f"{name}_error": each for name, each in quantized.items()})
            received = {
                name: self._received(name, latents[name], each.codes, arrived, share) for name, each in quantized.items()
            }
        heard: dict[str, Heard] = {}
        if stage.decodes:
            samples, wanted = example.samples, example.wanted
            outputs = self.decoded(received)
            heard["speech"] = self.compared(outputs["speech"], wanted)
            if "noise" in outputs:
                heard["noise"] = self.compared(outputs["noise"], samples - wanted)
                weights = least_squares(heard["speech"].output, heard["noise"].output, samples[:, : -self.delay])
                mixture = weights[:, :1] * outputs["speech"] + weights[:, 1:] * outputs["noise"]
                heard["mixture"] = self.compared(mixture, samples)
                # A receiver does not know the input, and adds the branches as they are.
                losses["mix"] = (weights - 1).square().mean()
        learning = []
        if stage.bottleneck == "quantized" and "quantizer" in stage.trains:
            learning = [(self.quantizer.of(name), (latents[name],)) for name in branches]
        return Passed(losses, heard, torch.cat(list(latents.values()), -1), learning)

    def _received(self, name: str, latent: Tensor, codes: Tensor, arrived: Tensor, share: Share) -> Tensor:
        """What arrives of a branch's latent in some of its layers, straight through."""
        kept = torch.where(arrived.unsqueeze(-1), draw_layers(codes, share), -1)
        return latent + (self.quantizer.of(name).dequantize(kept) - latent).detach()

    def _trained(self, stage: Stage) -> tuple[str, ...]:
        return _BRANCHES if "noise" in stage.trains else ("speech",)

    def latents(self, samples: Tensor, branches: Sequence[str] = _BRANCHES) -> dict[str, Tensor]:
        """What the branches make of `[batch, frames * hop]`, from silence: `[batch, frames, dim]` each."""
        features = self.encoder(samples, self.encoder.initial_state(len(samples)))[0]
        return {name: self._branch(name)(features, self._branch(name).initial_state(len(samples)))[0] for name in branches}

    def decoded(self, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        """The samples of each branch `[batch, frames * hop]`, from silence."""
        together = torch.cat(list(latents.values()))
        samples = self.decoder(together, self.decoder.initial_state(len(together)))[0].float()
        return dict(zip(latents, samples.chunk(len(latents)), strict=True))

    def unfitted(self, stage: Stage) -> bool:
        """`System.unfitted`."""
        return "latent" in stage.losses and not all(self.quantizer.of(name).fitted for name in self._trained(stage))

    @torch.no_grad()
    def fit(self, stage: Stage, examples: Sequence[Example], generator: torch.Generator) -> None:
        """`System.fit`."""
        drawn = [self.latents(example.samples) for example in examples]
        for name in self._trained(stage):
            if not self.quantizer.of(name).fitted:
                self.quantizer.of(name).fit(torch.cat([latents[name] for latents in drawn]), generator)

    def latent(self, samples: Tensor) -> Tensor:
        """`System.latent`: of both branches side by side."""
        return torch.cat(list(self.latents(samples).values()), -1)

    def unquantized(self, example: Example) -> dict[str, Tensor]:
        """`System.unquantized`: both branches added, and speech alone."""
        outputs = self.decoded(self.latents(example.samples))
        return {"unquantized": outputs["speech"] + outputs["noise"], "unquantized, speech": outputs["speech"]}

    def columns(self) -> list[tuple[str, int]]:
        """`System.columns`."""
        return [
            (f"{name}_{layer}", book.size)
            for name in _BRANCHES
            for layer, book in enumerate(self.quantizer.of(name).codebooks(), start=1)
        ]

    def codebooks(self) -> list[EmaCodebook]:
        """`System.codebooks`: none before both branches have theirs."""
        quantizers = [self.quantizer.of(name) for name in _BRANCHES]
        return [book for quantizer in quantizers for book in quantizer.codebooks()] if all(q.fitted for q in quantizers) else []


def least_squares(speech: Tensor, noise: Tensor, mixture: Tensor) -> Tensor:
    """The weights of speech and noise whose sum comes nearest to the mixture (eq. 1): `[batch, n]` each -> `[batch, 2]`."""
    # What is added to the powers keeps a silent branch, or two equal ones, from being divided by.
    floor = 1e-4 * mixture.square().mean(1) + 1e-9
    speech_power, noise_power = speech.square().mean(1) + floor, noise.square().mean(1) + floor
    shared, with_speech, with_noise = (speech * noise).mean(1), (speech * mixture).mean(1), (noise * mixture).mean(1)
    determinant = speech_power * noise_power - shared.square()
    first = with_speech * noise_power - with_noise * shared
    second = with_noise * speech_power - with_speech * shared
    return torch.stack([first, second], 1) / determinant.unsqueeze(1)
