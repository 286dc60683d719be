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

from linnet.lab.dsp.excitation import (
    centre_phases,
    harmonic_frames,
    harmonic_numbers,
    noise_frames,
    phase_increments,
    reference_rotation,
)
from linnet.lab.dsp.pitch import PitchLabels, PitchScale
from linnet.lab.dsp.stft import Stft
from linnet.lab.nn.blocks import Chain, ConvNeXt, ResidualGru, State
from linnet.lab.systems.base import unit_power
from linnet.lab.systems.enhancer import log_energy


@dataclass(frozen=True)
class SourceFilterConfig:
    """Sizes of the networks; `window - hop` samples of overlap and the hop make up the latency. A layer has `bits` a frame.

    The last `phase_layers` of the layers carry the phase of the lowest `phase_bins` bins, the others the spectrum. With
    `enhancer_blocks` or `band_channels` an enhancer stands before the encoder, of a network over frames, one over bands of
    `band_bins`, or both; it answers for a frame `lookahead` frames later, and with `tracker_enhanced` the pitch tracker reads
    what it lets pass, too. With `guide_blocks` the first `enhanced_streams` layers say the clean speech and the others the
    scene, as in PURE Codec.
    """

    kind: str = "source-filter"
    sample_rate: int = 16000
    hop: int = 192
    window: int = 480
    latent_dim: int = 64
    encoder_channels: int = 240
    encoder_hidden: int = 720
    encoder_blocks: int = 3
    enhancer_channels: int = 256
    enhancer_hidden: int = 768
    enhancer_blocks: int = 0
    band_channels: int = 0
    band_bins: int = 8
    band_blocks: int = 3
    lookahead: int = 0
    guide_channels: int = 160
    guide_hidden: int = 480
    guide_blocks: int = 0
    enhanced_streams: int = 1
    decoder_channels: int = 240
    decoder_hidden: int = 720
    decoder_blocks: int = 3
    head: str = "source-filter"
    n_layers: int = 6
    bits: int = 12
    phase_layers: int = 0
    phase_bins: int = 26
    phase_dim: int = 24
    phase_channels: int = 128
    phase_hidden: int = 384
    tracker_channels: int = 96
    tracker_enhanced: bool = False
    pitch: PitchScale = field(default_factory=PitchScale)

    def __post_init__(self) -> None:
        if self.head not in ("source-filter", "free"):
            raise ValueError(f"head is {self.head!r}; choose 'source-filter' or 'free'")
        if self.head == "free" and self.phase_layers:
            raise ValueError("the free head has no source whose phase could be referred to: give it no phase_layers")
        if self.lookahead and not self.enhances:
            raise ValueError("only an enhancer looks ahead: without enhancer_blocks and band_channels, lookahead is 0")
        if self.tracker_enhanced and not self.enhances:
            raise ValueError("tracker_enhanced needs an enhancer: set enhancer_blocks or band_channels")
        if self.tracker_enhanced and Stft(self.window, self.hop).n_fft != 512:
            raise ValueError(f"tracker_enhanced needs a window of 257 to 512 samples, not {self.window}")
        if not 0 <= self.phase_layers < self.n_layers:
            raise ValueError(f"{self.phase_layers} of {self.n_layers} layers for the phase leave none for the spectrum")
        if not 1 <= self.enhanced_streams <= self.spectrum_layers:
            raise ValueError(f"enhanced_streams is {self.enhanced_streams}; choose 1 to the spectrum's {self.spectrum_layers}")

    @property
    def enhances(self) -> bool:
        """Whether an enhancer stands before the encoder."""
        return self.enhancer_blocks > 0 or self.band_channels > 0

    @property
    def phase_hz(self) -> float:
        """Where the band ends whose phase is coded."""
        return self.phase_bins * self.sample_rate / Stft(self.window, self.hop).n_fft

    @property
    def labels(self) -> PitchLabels:
        """Pitch is labelled in the middle of every window."""
        return PitchLabels(self.hop, self.hop - self.window // 2)

    @property
    def spectrum_layers(self) -> int:
        """The layers that carry the spectrum, from the first on."""
        return self.n_layers - self.phase_layers


@dataclass(frozen=True)
class Analysis:
    """What the encoder found: `latent` `[batch, frames, dim]` of unit mean power, and for who codes the phase the complex
    `spectrum` `[batch, frames, bins]` and the last `hidden` layer `[batch, frames, channels]`."""

    latent: Tensor
    spectrum: Tensor
    hidden: Tensor


class Encoder(nn.Module):
    """Log-magnitude spectrum and pitch to a latent: complex `[batch, frames, bins]` -> `[batch, frames, dim]`."""

    def __init__(self, config: SourceFilterConfig):
        super().__init__()
        self.input = nn.Linear(Stft(config.window, config.hop).n_bins, config.encoder_channels)
        self.pitch = nn.Embedding(config.pitch.n_steps + 1, config.encoder_channels)
        self.blocks = backbone(config.encoder_channels, config.encoder_hidden, config.encoder_blocks, recurrent=False)
        self.norm = nn.LayerNorm(config.encoder_channels)
        self.output = nn.Linear(config.encoder_channels, config.latent_dim)
        # The latent's scale is what quantization noise is measured against, so it is held at 1.
        self.register_buffer("power", torch.ones(()))
        self.power: Tensor

    def initial_state(self, batch: int) -> State:
        return self.blocks.initial_state(batch)

    def forward(self, spectrum: Tensor, pitch_steps: Tensor, state: State) -> tuple[Analysis, State]:
        """`pitch_steps` is int64 `[batch, frames]` on the pitch scale, -1 where unvoiced."""
        x, state = self.blocks(self.input(log_energy(spectrum)) + self.pitch(pitch_steps + 1), state)
        latent = unit_power(self.output(self.norm(x)).float(), self.power, training=self.training)
        return Analysis(latent, spectrum, x), state


def backbone(channels: int, hidden: int, count: int, *, recurrent: bool) -> Chain:
    """ConvNeXt blocks; a recurrence stands before the last."""
    blocks: list[nn.Module] = [ConvNeXt(channels, hidden) for _ in range(count)]
    if recurrent:
        blocks.insert(count - 1, ResidualGru(channels))
    return Chain(*blocks)


class PhaseEncoder(nn.Module):
    """The low band's complex spectrum to a latent of unit mean power, `[batch, frames, phase_dim]`.

    Phases are told from the harmonic source's as the decoder will have it, so that a steady voice has steady phases: the
    pitch must be the one that was sent.
    """

    def __init__(self, config: SourceFilterConfig):
        super().__init__()
        self.config = config
        self.reference = PhaseReference(config)
        self.input = nn.Linear(2 * config.phase_bins + config.encoder_channels, config.phase_channels)
        self.block = ConvNeXt(config.phase_channels, config.phase_hidden)
        self.norm = nn.LayerNorm(config.phase_channels)
        self.output = nn.Linear(config.phase_channels, config.phase_dim)
        self.register_buffer("power", torch.ones(()))
        self.power: Tensor

    def initial_state(self, batch: int) -> tuple[State, ...]:
        return self.reference.initial_state(batch), self.block.initial_state(batch)

    def forward(self, analysis: Analysis, pitch_sent: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """`pitch_sent` is int64 `[batch, frames]`, -1 where unvoiced."""
        source, block = state
        phases, source = self.reference.phases(pitch_sent, source)
        low = analysis.spectrum[..., : self.config.phase_bins] * self.reference(phases, pitch_sent).conj()
        energy = low.real**2 + low.imag**2
        # Compressed to the square root, relative to the frame's own level: what counts is the angle.
        mean = energy.mean(-1, keepdim=True)
        scale = ((energy + 1e-3 * mean + 1e-7) * (mean + 1e-7)) ** -0.25
        features = torch.cat([low.real * scale, low.imag * scale, analysis.hidden.float()], -1)
        x, block = self.block(self.input(features), block)
        return unit_power(self.output(self.norm(x)).float(), self.power, training=self.training), (source, block)


class PhaseReference(nn.Module):
    """The harmonic source's phase: over time, and in each of the lowest bins."""

    def __init__(self, config: SourceFilterConfig):
        super().__init__()
        self.window, self.hop = config.window, config.hop
        self.n_fft = Stft(config.window, config.hop).n_fft
        frequencies = torch.from_numpy(config.pitch.frequencies())
        self.register_buffer("increments", phase_increments(frequencies, config.sample_rate), persistent=False)
        numbers = harmonic_numbers(frequencies, config.phase_bins, config.sample_rate / self.n_fft)
        self.register_buffer("numbers", numbers, persistent=False)
        self.increments: Tensor
        self.numbers: Tensor

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        zeros = self.increments.new_zeros(batch, 1)
        return zeros, zeros.clone()

    def phases(self, pitch_steps: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """At the middle of every window, int64 `[batch, frames]`, and the new state."""
        increments = self.increments[pitch_steps.clamp(min=0)]
        centres, phase, previous = centre_phases(increments, pitch_steps >= 0, self.hop, *state)
        return centres, (phase, previous)

    def forward(self, phases: Tensor, pitch_steps: Tensor) -> Tensor:
        """The phase of each low bin, as factors complex `[batch, frames, phase_bins]`."""
        return reference_rotation(phases, pitch_steps, self.numbers, self.window, self.n_fft)


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
        self.blocks = backbone(channels, config.decoder_hidden, config.decoder_blocks, recurrent=True)
        self.norm = nn.LayerNorm(channels)
        self.stft = Stft(config.window, config.hop)
        n_bins = self.stft.n_bins
        # Of the harmonic source the phase is turned in the lower half of the spectrum only: above, it made no difference.
        self.n_turned = self.stft.n_fft // 4
        self.head = nn.Linear(channels, 2 * n_bins + (self.n_turned if config.head == "source-filter" else 0))
        self.reference = PhaseReference(config)
        if config.phase_layers:
            self.phase_input = nn.Linear(config.phase_dim, channels)
            # The phase's latent says little but angles, which need no depth: what the network adds is level and context.
            self.phase_skip = nn.Linear(config.phase_dim, 2 * config.phase_bins, bias=False)
            self.phase_head = nn.Linear(channels, 2 * config.phase_bins)
            # At first the decoder sounds as it would without.
            for parameter in (*self.phase_skip.parameters(), *self.phase_head.parameters()):
                nn.init.zeros_(parameter)
        else:
            self.register_load_state_dict_pre_hook(_forget_phase)

    def initial_state(self, batch: int) -> tuple[State, ...]:
        phase, previous = self.reference.initial_state(batch)
        counter = torch.zeros_like(phase)
        return self.blocks.initial_state(batch), (phase, previous, counter), self.stft.initial_tails(batch)

    def forward(
        self, latent: Tensor, pitch_steps: Tensor, quality: Tensor, phase_latent: Tensor | None, state: tuple,
        level: Tensor | None = None,
    ) -> tuple[Tensor, tuple]:  # fmt: skip
        """Latent `[batch, frames, dim]`, pitch and quality int64 `[batch, frames]`, the phase's latent `[batch, frames,
        phase_dim]` (zero where it did not arrive; None in a system without) -> samples `[batch, frames * hop]`, each frame
        `level` `[batch, frames]` times as loud."""
        blocks, sources, tails = state
        x = self.input(latent) + self.pitch(pitch_steps + 1) + self.quality(quality)
        if phase_latent is not None:
            x = x + self.phase_input(phase_latent)
        x, blocks = self.blocks(x, blocks)
        hidden = self.norm(x)
        controls = self.head(hidden).float()
        if self.config.head == "free":
            log_magnitude, phase = controls.chunk(2, -1)
            spectrum = torch.polar(_gain(log_magnitude), phase)
        else:
            harmonic, noise, reference, sources = self.excitation(pitch_steps, sources)
            n_bins = self.stft.n_bins
            log_harmonic, phase, log_noise = controls.split([n_bins, self.n_turned, n_bins], -1)
            phase = torch.nn.functional.pad(phase, (0, n_bins - self.n_turned))
            gain, noise_gain = _gain(log_harmonic), _gain(log_noise)
            spectrum = torch.polar(gain, phase) * harmonic + noise_gain * noise
            if phase_latent is not None:
                real, imaginary = (self.phase_head(hidden) + self.phase_skip(phase_latent)).float().chunk(2, -1)
                # In the noise's units, so that the head's numbers are near one.
                low = gain[..., : self.config.phase_bins] * 16.0 * torch.complex(real, imaginary) * reference
                spectrum = spectrum + torch.nn.functional.pad(low, (0, n_bins - self.config.phase_bins))
        if level is not None:
            spectrum = spectrum * level.unsqueeze(-1)
        samples, tails = self.stft.inverse(spectrum, tails)
        return samples, (blocks, sources, tails)

    def excitation(self, pitch_steps: Tensor, sources: tuple) -> tuple[Tensor, Tensor, Tensor, tuple]:
        """Spectra of the two sources, complex `[batch, frames, bins]`, and the harmonic one's phase in the low bins."""
        phase, previous, counter = sources
        voiced = pitch_steps >= 0
        increments = self.reference.increments[pitch_steps.clamp(min=0)]
        window, hop = self.config.window, self.config.hop
        centres, source = self.reference.phases(pitch_steps, (phase, previous))
        harmonic = harmonic_frames(centres, increments, voiced, window)
        noise = noise_frames(counter, pitch_steps.shape[1], window, hop)
        counter = counter + pitch_steps.shape[1]
        reference = self.reference(centres, pitch_steps)
        return self.stft.spectrum(harmonic), self.stft.spectrum(noise), reference, (*source, counter)


def _forget_phase(decoder: nn.Module, weights: dict[str, Tensor], prefix: str, *_: object) -> None:  # noqa: ARG001
    """Let a decoder that hears no phase inherit from one that does, of which it takes what is there when no phase arrives."""
    if f"{prefix}phase_input.bias" in weights:
        weights[f"{prefix}input.bias"] = weights[f"{prefix}input.bias"] + weights[f"{prefix}phase_input.bias"]
    for name in [name for name in weights if name.startswith(f"{prefix}phase_")]:
        del weights[name]


def _gain(log_magnitude: Tensor) -> Tensor:
    # Centred at the level of speech; the clamp keeps an untrained head from overflowing.
    return torch.exp((log_magnitude - 3.0).clamp(-14.0, 6.0))
