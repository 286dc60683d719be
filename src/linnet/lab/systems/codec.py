"""The trainable codec: encoder, bottleneck, decoder and pitch tracker, and the ways in which training passes through them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linnet.lab.quant.predictive import PredictiveQuantizer
from linnet.lab.systems.source_filter import Decoder, Encoder, SourceFilterConfig
from linnet.lab.systems.tracker import PitchTracker

# What six residual codebooks leave of a latent's power, layer by layer: the noise that the autoencoder learns to bear.
_NOISE_POWER = (0.22, 0.12, 0.08, 0.055, 0.04, 0.03)


class Codec(nn.Module):
    """All parts of a source-filter codec."""

    def __init__(self, config: SourceFilterConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = PredictiveQuantizer(config.latent_dim, config.n_layers, config.pitch)
        self.decoder = Decoder(config)
        self.tracker = PitchTracker(config.sample_rate, config.hop, config.pitch)
        self.delay = config.window - config.hop

    def encode(self, samples: Tensor, pitch_steps: Tensor) -> Tensor:
        """`[batch, frames * hop]` -> latent `[batch, frames, dim]`, from silence."""
        return self.encoder(samples, pitch_steps, self.encoder.initial_state(len(samples)))[0]

    def decode(self, latent: Tensor, pitch_steps: Tensor, quality: Tensor) -> Tensor:
        """Latent `[batch, frames, dim]` -> samples `[batch, frames * hop]`, from silence."""
        return self.decoder(latent, pitch_steps, quality, self.decoder.initial_state(len(latent)))[0]

    def through_noise(self, samples: Tensor, pitch_steps: Tensor, generator: torch.Generator) -> Tensor:
        """The autoencoder with Gaussian noise on its latent, at the level of 1 to all layers, or none, clip by clip."""
        latent = self.encode(samples, pitch_steps)
        n_layers = self.config.n_layers
        quality = torch.randint(1, n_layers + 2, (len(samples), 1), generator=generator)
        power = torch.tensor([0.0, *_NOISE_POWER[:n_layers], 0.0])[quality].unsqueeze(-1)
        noisy = latent + power.sqrt() * torch.randn(latent.shape, generator=generator)
        return self.decode(noisy, pitch_steps, quality.expand_as(pitch_steps))

    def draw_layers(self, batch: int, generator: torch.Generator) -> Tensor:
        """A random number of layers for every clip, int64 `[batch, 1]`; 1 and all of them come up more often."""
        n_layers = self.config.n_layers
        choices = torch.tensor([1, 1, *range(1, n_layers + 1), n_layers, n_layers])
        return choices[torch.randint(len(choices), (batch, 1), generator=generator)]
