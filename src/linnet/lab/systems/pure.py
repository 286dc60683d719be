"""PURE Codec (Shi et al., arXiv 2511.22687): the first stream says what is clean, the others what is then lacking.

What makes it this system: an autoencoder that was trained as a variational one, its encoder then frozen; and a residual
quantizer whose first stream aims, at random with a probability, at the embedding of the enhanced speech, while the others
quantize what is lacking of the embedding of the input. The paper's enhancer (TF-GridNet) is the clean target here, which
is known in training. The paper trains on 16 kHz, 50 frames of 512 dimensions a second, 8 codebooks of 1024 (0.5 to 4 kbit/s),
with DAC's networks; here networks run at the frame rate, 83.3 a second, with 6 codebooks of 4096 (1 to 6 kbit/s).

What it gives beyond the paper: with one layer the clean speech is asked for, with more the scene, from one bitstream.
docs/systems/pure.md says what else is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from linnet.lab.dsp.pitch import PitchLabels
from linnet.lab.nn.blocks import State
from linnet.lab.nn.spectral import SpectralDecoder, SpectralEncoder
from linnet.lab.quant.aimed import AimedQuantizer
from linnet.lab.share import Share
from linnet.lab.systems.base import Example, Passed, draw_layers, draw_losses, quantizer_losses, unit_power
from linnet.lab.systems.plain import PlainCodec
from linnet.lab.systems.source_filter import backbone

if TYPE_CHECKING:
    from linnet.lab.train.recipe import Stage


@dataclass(frozen=True)
class PureConfig:
    """Sizes of the networks; a layer has `bits` a frame. The first `enhanced_streams` layers aim at the clean speech. The paper
    has no guide: with `guide_blocks` one stands before them, which estimates the clean embedding from the input's."""

    kind: str = "pure"
    sample_rate: int = 16000
    hop: int = 192
    window: int = 480
    latent_dim: int = 24
    channels: int = 192
    hidden: int = 576
    blocks: int = 3
    guide_channels: int = 160
    guide_hidden: int = 480
    guide_blocks: int = 0
    n_layers: int = 6
    bits: int = 12
    code_dim: int = 16
    enhanced_streams: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.enhanced_streams < self.n_layers:
            raise ValueError(f"enhanced_streams is {self.enhanced_streams}; choose 1 to {self.n_layers - 1} of {self.n_layers}")

    @property
    def phase_hz(self) -> float:
        """The decoder is free to make every waveform."""
        return self.sample_rate / 2

    @property
    def labels(self) -> PitchLabels:
        """As the default system's, so that a packed corpus serves both; no pitch is used."""
        return PitchLabels(self.hop, self.hop - self.window // 2)


class Guide(nn.Module):
    """What the clean speech's embedding is more than the input's, `[batch, frames, dim]`, of features of the input `[batch,
    frames, inputs]`; nothing at first."""

    def __init__(self, inputs: int, dim: int, channels: int, hidden: int, n_blocks: int):
        super().__init__()
        self.input = nn.Linear(inputs, channels)
        self.blocks = backbone(channels, hidden, n_blocks, recurrent=True)
        self.output = nn.Linear(channels, dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def initial_state(self, batch: int) -> State:
        return self.blocks.initial_state(batch)

    def forward(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        x, state = self.blocks(self.input(features), state)
        return self.output(x).float(), state


def enhancement_loss(guided: Tensor, aim: Tensor) -> Tensor:
    """What a guide learns from: absolute and squared distance."""
    return (guided - aim).abs().mean() + (guided - aim).square().mean()


def asked_for(example: Example, kept: Tensor, enhanced: Tensor, streams: int) -> Tensor:
    """What is to be heard of codes `[batch, frames, layers]`: the clean speech of a clip that was `enhanced`, `[batch, 1]`, and
    left no more than its first `streams`, else the scene."""
    alone = (kept[:, 0] >= 0).sum(-1, keepdim=True) <= streams
    return torch.where(enhanced & alone, example.wanted, example.samples)


class PureCodec(PlainCodec):
    """Its bottlenecks: "variational", a sample of the encoder's posterior, and "quantized", a random number of layers."""

    parts = ("encoder", "guide", "quantizer", "decoder")
    bottlenecks: tuple[str, ...] = ("quantized", "variational")
    quantizer: AimedQuantizer

    def __init__(self, config: PureConfig):
        size, dim = 1 << config.bits, config.latent_dim
        transform, sizes = (config.window, config.hop), (config.channels, config.hidden, config.blocks)
        super().__init__(
            config,
            # Mean and logarithm of the variance.
            SpectralEncoder(*transform, config.channels, backbone(*sizes, recurrent=False), 2 * dim),
            AimedQuantizer(dim, config.n_layers, size=size, code_dim=config.code_dim, aimed=config.enhanced_streams),
            SpectralDecoder(*transform, config.channels, backbone(*sizes, recurrent=True), dim),
            delay=config.window - config.hop,
        )
        sizes = (config.guide_channels, config.guide_hidden, config.guide_blocks)
        self.guide = Guide(dim, dim, *sizes) if config.guide_blocks else None
        self.description = f"PURE codec, {config.enhanced_streams} of {config.n_layers} streams enhanced"

    def initial_states(self, batch: int) -> tuple[State, State]:
        """`StreamingSystem.initial_states`; the encoder's with the guide's."""
        encoder, decoder = super().initial_states(batch)
        return (encoder, () if self.guide is None else self.guide.initial_state(batch)), decoder

    def posterior(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Of `[batch, frames * hop]`, from silence: mean and logarithm of the variance, `[batch, frames, dim]` each."""
        encoder: Any = self.encoder
        mean, log_variance = encoder(samples, encoder.initial_state(len(samples)))[0].float().chunk(2, -1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def encode_step(self, samples: Tensor, state: Any) -> tuple[Tensor, State]:
        """`StreamingSystem.encode_step`."""
        encoder, guide = state
        features, encoder = self.encoder(samples, encoder)
        latent = features[..., : self.config.latent_dim].float() / self.power.sqrt()
        guided, guide = self.guide_step(latent, guide)
        return self.quantizer.search(latent, guided), (encoder, guide)

    def latent(self, samples: Tensor) -> Tensor:
        """`System.latent`: the posterior's mean."""
        return unit_power(self.posterior(samples)[0], self.power, training=self.encoder.training)

    def guided(self, latent: Tensor) -> Tensor:
        """What the first streams search for, from silence."""
        return self.guide_step(latent, self.initial_states(len(latent))[0][1])[0]

    def guide_step(self, latent: Tensor, state: State) -> tuple[Tensor, State]:
        """What the first streams search for; the latent itself without a guide."""
        if self.guide is None:
            return latent, state
        more, state = self.guide(latent, state)
        return latent + more, state

    def forward(self, stage: Stage, example: Example, share: Share) -> Passed:
        """`System.forward`."""
        if stage.bottleneck == "variational":
            return self._variational_pass(example, share)
        latent = self.latent(example.samples)
        with torch.no_grad():
            clean = self.posterior(example.wanted)[0] / self.power.sqrt()
        enhanced = share.rand(1) < stage.enhancement_probability
        aim = torch.where(enhanced.unsqueeze(-1), clean, latent.detach())
        # The guide learns from the aim alone, the encoder from what is heard and from the upper streams.
        guided = self.guided(latent.detach())
        with torch.autocast(latent.device.type, enabled=False):
            quantized = self.quantizer(latent, guided.detach(), aim)
        losses = quantizer_losses(error=quantized)
        losses["enhancement"] = enhancement_loss(guided, aim)
        heard = {}
        if stage.decodes:
            kept = draw_layers(quantized.codes, share)
            arrived = ~draw_losses(latent.shape[1], stage.frame_loss, share)
            wanted = asked_for(example, kept, enhanced, self.config.enhanced_streams)
            codes = torch.where(arrived.unsqueeze(-1), kept, -1)
            heard = {"": self.heard(self.pass_straight(latent, codes), wanted)}
        learning = [(self.quantizer, (latent, guided))] if "quantizer" in stage.trains else []
        return Passed(losses, heard, latent, learning)

    def _variational_pass(self, example: Example, share: Share) -> Passed:
        """The input's own autoencoder (section 3): a sample of the posterior, and its divergence from a standard normal."""
        mean, log_variance = self.posterior(example.samples)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        sample = mean + (0.5 * log_variance).exp() * share.randn(*mean.shape[1:])
        scaled = unit_power(sample, self.power, training=self.encoder.training)
        return Passed({"kl": divergence}, {"": self.heard(scaled, example.samples)}, scaled)
