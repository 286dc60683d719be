"""The trainable codec: encoder, bottleneck, decoder and pitch tracker, and the ways in which training passes through them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linnet.lab.quant.predictive import PredictiveQuantizer
from linnet.lab.share import Share
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
        self.quantizer = PredictiveQuantizer(config.latent_dim, config.n_layers, config.pitch, size=1 << config.bits)
        self.decoder = Decoder(config)
        self.tracker = PitchTracker(config.sample_rate, config.hop, config.pitch)
        self.delay = config.window - config.hop

    def encode(self, samples: Tensor, pitch_steps: Tensor) -> Tensor:
        """`[batch, frames * hop]` -> latent `[batch, frames, dim]`, from silence."""
        return self.encoder(samples, pitch_steps, self.encoder.initial_state(len(samples)))[0]

    def decode(self, latent: Tensor, pitch_steps: Tensor, quality: Tensor) -> Tensor:
        """Latent `[batch, frames, dim]` -> samples `[batch, frames * hop]`, from silence."""
        return self.decoder(latent, pitch_steps, quality, self.decoder.initial_state(len(latent)))[0]

    @torch.no_grad()
    def track(self, samples: Tensor) -> Tensor:
        """The tracker's pitch steps of `[batch, frames * hop]` from silence: int64 `[batch, frames]`, -1 unvoiced."""
        return self.tracker.steps(self.tracker(samples, self.tracker.initial_state(len(samples)))[0])

    def through_noise(self, samples: Tensor, pitch_steps: Tensor, share: Share) -> Tensor:
        """The autoencoder with Gaussian noise on its latent, at the level of 1 to all layers, or none, clip by clip."""
        latent = self.encode(samples, pitch_steps)
        n_layers = self.config.n_layers
        quality = share.randint(1, n_layers + 2, 1)
        power = torch.tensor([0.0, *_NOISE_POWER[:n_layers], 0.0])[quality].unsqueeze(-1)
        noisy = latent + power.sqrt() * share.randn(*latent.shape[1:])
        return self.decode(noisy, pitch_steps, quality.expand_as(pitch_steps))

    def draw_arrivals(self, codes: Tensor, loss_probability: float, share: Share) -> Tensor:
        """Codes as a network might deliver them: a random number of layers for every clip, 1 and all of them more often,
        and in one clip of three bursts of lost frames (Gilbert's two states, three frames long on average)."""
        batch, frames, n_layers = codes.shape
        choices = torch.tensor([1, 1, *range(1, n_layers + 1), n_layers, n_layers])
        layers = choices[share.randint(0, len(choices), 1, 1)]
        codes = torch.where(torch.arange(n_layers) < layers, codes, -1)
        lost = torch.zeros(batch, dtype=torch.bool)
        lossy = share.rand() < 1 / 3
        rows = []
        for draw in share.rand(frames).unbind(1):
            lost = torch.where(lost, draw > 1 / 3, draw < loss_probability / 3) & lossy
            rows.append(lost)
        return torch.where(torch.stack(rows, 1).unsqueeze(-1), -1, codes)

    def receive(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes with -1 where nothing arrived -> latent, pitch steps, number of layers, as the decoder takes them."""
        hidden, previous = self.quantizer.initial_state(len(codes))
        latent, quality, _ = self.quantizer.dequantize(codes, hidden)
        return latent, self.quantizer.decode_pitch(codes[..., 0], previous)[0], quality
