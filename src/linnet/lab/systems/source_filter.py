"""The default system: a causal source-filter codec in the time-frequency domain.

What makes it this system: the decoder knows that speech is a filtered source. From the codes it takes pitch and voicing,
builds a harmonic and a noise excitation, predicts a complex gain for the first and a magnitude for the second in every
time-frequency bin, and inverts the transform. Everything runs once a frame. Encoder and backbones follow VoCodec (arXiv
2601.13055) and Vocos (arXiv 2306.00814): ConvNeXt blocks and a recurrence between a transform and its inverse. Their own head,
free magnitude and phase, is here as `head = "free"`, so that the published design can be trained beside this one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from linnet.lab.dsp.excitation import centre_phases, harmonic_frames, noise_frames, phase_increments
from linnet.lab.dsp.pitch import PitchScale
from linnet.lab.dsp.stft import Stft
from linnet.lab.nn.blocks import Chain, ConvNeXt, ResidualGru, State
from linnet.lab.share import mean_over_processes


@dataclass(frozen=True)
class SourceFilterConfig:
    """Sizes of the networks; `window - hop` samples of overlap and the hop make up the latency. A layer has `bits` a frame."""

    sample_rate: int = 16000
    hop: int = 192
    window: int = 480
    latent_dim: int = 64
    encoder_channels: int = 240
    encoder_hidden: int = 720
    encoder_blocks: int = 3
    decoder_channels: int = 240
    decoder_hidden: int = 720
    decoder_blocks: int = 3
    head: str = "source-filter"
    n_layers: int = 6
    bits: int = 12
    pitch: PitchScale = field(default_factory=PitchScale)

    def __post_init__(self) -> None:
        if self.head not in ("source-filter", "free"):
            raise ValueError(f"head is {self.head!r}; choose 'source-filter' or 'free'")


class Encoder(nn.Module):
    """Log-magnitude spectrum and pitch to a latent of unit mean power: `[batch, frames * hop]` -> `[batch, frames, dim]`."""

    def __init__(self, config: SourceFilterConfig):
        super().__init__()
        self.stft = Stft(config.window, config.hop)
        self.input = nn.Linear(self.stft.n_bins, config.encoder_channels)
        self.pitch = nn.Embedding(config.pitch.n_steps + 1, config.encoder_channels)
        block = (config.encoder_channels, config.encoder_hidden)
        self.blocks = Chain(*(ConvNeXt(*block) for _ in range(config.encoder_blocks)))
        self.norm = nn.LayerNorm(config.encoder_channels)
        self.output = nn.Linear(config.encoder_channels, config.latent_dim)
        # The latent's scale is what quantization noise is measured against, so it is held at 1.
        self.register_buffer("power", torch.ones(()))
        self.power: Tensor

    def initial_state(self, batch: int) -> tuple[State, ...]:
        return self.stft.initial_state(batch), self.blocks.initial_state(batch)

    def forward(self, samples: Tensor, pitch_steps: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """`pitch_steps` is int64 `[batch, frames]` on the pitch scale, -1 where unvoiced."""
        past, blocks = state
        spectrum, past = self.stft(samples, past)
        energy = spectrum.real**2 + spectrum.imag**2
        # The floor is the power of rounding to 16 bits; centred near speech at -26 dBFS.
        features = (torch.log(energy + 1e-7) + 4.0) / 4.0
        x, blocks = self.blocks(self.input(features) + self.pitch(pitch_steps + 1), blocks)
        latent = self.output(self.norm(x)).float()
        if self.training:
            power = mean_over_processes(latent.pow(2))
            self.power.lerp_(power.detach(), 0.01)
            latent = latent / power.sqrt()
        else:
            latent = latent / self.power.sqrt()
        return latent, (past, blocks)


class Decoder(nn.Module):
    """A latent, its pitch and the number of layers it was quantized with to samples, late by `window - hop`."""

    def __init__(self, config: SourceFilterConfig):
        super().__init__()
        self.config = config
        channels = config.decoder_channels
        self.input = nn.Linear(config.latent_dim, channels)
        self.pitch = nn.Embedding(config.pitch.n_steps + 1, channels)
        # Row n: n layers arrived (0: the frame was lost); the last row: not quantized at all.
        self.quality = nn.Embedding(config.n_layers + 2, channels)
        before = [ConvNeXt(channels, config.decoder_hidden) for _ in range(config.decoder_blocks - 1)]
        self.blocks = Chain(*before, ResidualGru(channels), ConvNeXt(channels, config.decoder_hidden))
        self.norm = nn.LayerNorm(channels)
        self.stft = Stft(config.window, config.hop)
        n_bins = self.stft.n_bins
        self.head = nn.Linear(channels, 3 * n_bins if config.head == "source-filter" else 2 * n_bins)
        increments = phase_increments(torch.from_numpy(config.pitch.frequencies()), config.sample_rate)
        self.register_buffer("increments", increments, persistent=False)
        self.increments: Tensor

    def initial_state(self, batch: int) -> tuple[State, ...]:
        integer = self.increments.new_zeros(batch, 1)
        sources = (integer, integer.clone(), integer.clone())
        return self.blocks.initial_state(batch), sources, self.stft.initial_tails(batch)

    def forward(self, latent: Tensor, pitch_steps: Tensor, quality: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """Latent `[batch, frames, dim]`, pitch and quality int64 `[batch, frames]` -> samples `[batch, frames * hop]`."""
        blocks, sources, tails = state
        x = self.input(latent) + self.pitch(pitch_steps + 1) + self.quality(quality)
        x, blocks = self.blocks(x, blocks)
        controls = self.head(self.norm(x)).float()
        if self.config.head == "free":
            log_magnitude, phase = controls.chunk(2, -1)
            spectrum = torch.polar(_gain(log_magnitude), phase)
        else:
            harmonic, noise, sources = self.excitation(pitch_steps, sources)
            log_harmonic, phase, log_noise = controls.chunk(3, -1)
            real, imaginary = torch.cos(phase), torch.sin(phase)
            gain, noise_gain = _gain(log_harmonic), _gain(log_noise)
            # Written out, because the exporter fixes the length of a product of real and complex tensors.
            spectrum = torch.complex(
                gain * (real * harmonic.real - imaginary * harmonic.imag) + noise_gain * noise.real,
                gain * (real * harmonic.imag + imaginary * harmonic.real) + noise_gain * noise.imag,
            )
        samples, tails = self.stft.inverse(spectrum, tails)
        return samples, (blocks, sources, tails)

    def excitation(self, pitch_steps: Tensor, sources: tuple) -> tuple[Tensor, Tensor, tuple]:
        """Spectra of the two sources, complex `[batch, frames, bins]`."""
        phase, previous, counter = sources
        voiced = pitch_steps >= 0
        increments = self.increments[pitch_steps.clamp(min=0)]
        window, hop = self.config.window, self.config.hop
        centres, phase, previous = centre_phases(increments, voiced, hop, phase, previous)
        harmonic = harmonic_frames(centres, increments, voiced, window)
        noise = noise_frames(counter, pitch_steps.shape[1], window, hop)
        counter = counter + pitch_steps.shape[1]
        return self.stft.spectrum(harmonic), self.stft.spectrum(noise), (phase, previous, counter)


def _gain(log_magnitude: Tensor) -> Tensor:
    # Centred at the level of speech; the clamp keeps an untrained head from overflowing.
    return torch.exp((log_magnitude - 3.0).clamp(-14.0, 6.0))
