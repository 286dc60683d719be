"""The trainable source-filter codec: encoder, bottleneck, decoder and pitch tracker, and how training passes through them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from linnet.lab.dsp.stft import Stft
from linnet.lab.quant.codebook import EmaCodebook
from linnet.lab.quant.phase import PhaseQuantizer
from linnet.lab.quant.predictive import PredictiveQuantizer
from linnet.lab.quant.residual import Quantized
from linnet.lab.share import Share
from linnet.lab.systems.base import Example, Heard, Passed, Quantizer, System, draw_layers, draw_losses, quantizer_losses
from linnet.lab.systems.enhancer import Bands, Enhancer, Frames
from linnet.lab.systems.pure import Guide, asked_for, enhancement_loss
from linnet.lab.systems.source_filter import Analysis, Decoder, Encoder, PhaseEncoder, SourceFilterConfig, backbone
from linnet.lab.systems.tracker import PitchTracker

if TYPE_CHECKING:
    from linnet.lab.train.recipe import Stage

# What residual codebooks leave of a latent's power, layer by layer: the noise that the autoencoder learns to bear.
_NOISE_POWER = (0.22, 0.12, 0.08, 0.055, 0.04, 0.03)
_PHASE_NOISE_POWER = 0.2
# Among how many entries a perturbed code is chosen.
_NEIGHBOURS = 8


@dataclass(frozen=True)
class Received:
    """What the decoder takes: `latent` `[batch, frames, dim]`, int64 `pitch_steps` (-1 unvoiced) and `quality` (the number of
    layers, one more than all where nothing was quantized) `[batch, frames]`, and `phase` `[batch, frames, phase_dim]`, zero
    where it did not arrive, None in a system without."""

    latent: Tensor
    pitch_steps: Tensor
    quality: Tensor
    phase: Tensor | None = None


@dataclass(frozen=True)
class Coded:
    """What the encoder gives in training: the latents, unquantized, and what the base layer searched for; the pitch as
    tracked and as sent; codes with all layers; and both quantizers' losses, `fine` None as long as the phase's has no
    codebooks: its codes are then all 0."""

    latent: Tensor
    guided: Tensor
    pitch_steps: Tensor
    pitch_sent: Tensor
    phase: Tensor | None
    codes: Tensor
    spectrum: Quantized
    fine: Quantized | None


class Phase(nn.Module):
    """The part of the codec that is there for the phase alone, but for what the decoder makes of it."""

    def __init__(self, config: SourceFilterConfig):
        super().__init__()
        self.encoder = PhaseEncoder(config)
        self.quantizer = PhaseQuantizer(config.phase_dim, config.phase_layers, size=1 << config.bits)


class Codec(System):
    """All parts of a source-filter codec.

    Its bottlenecks: "noise", Gaussian at a random level; "quantized", a random number of layers, with bursts of lost frames at
    the stage's `frame_loss` in a third of the clips; "enhanced", nothing is coded, what the enhancer lets pass is heard as it
    is; and "none", nothing is heard.
    """

    parts: tuple[str, ...] = ("enhancer", "encoder", "guide", "quantizer", "phase", "decoder", "tracker")
    bottlenecks: tuple[str, ...] = ("noise", "quantized", "enhanced", "none")

    def __init__(self, config: SourceFilterConfig):
        super().__init__()
        self.config = config
        self.stft = Stft(config.window, config.hop)
        self.enhancer = make_enhancer(config, self.stft.n_bins) if config.enhances else None
        self.encoder = Encoder(config)
        guide_sizes = (config.guide_channels, config.guide_hidden, config.guide_blocks)
        self.guide = Guide(config.encoder_channels, config.latent_dim, *guide_sizes) if config.guide_blocks else None
        self.quantizer = PredictiveQuantizer(
            config.latent_dim, config.spectrum_layers, config.pitch, size=1 << config.bits, aimed=config.enhanced_streams
        )  # fmt: skip
        self.phase = Phase(config) if config.phase_layers else None
        self.decoder = Decoder(config)
        self.tracker = PitchTracker(
            config.sample_rate, config.hop, config.pitch, config.tracker_channels, reads_enhanced=config.tracker_enhanced
        )
        self.description = f"source-filter codec, head {config.head!r}" + (", removes noise" if config.enhances else "")
        self.lookahead = config.lookahead
        self.delay = config.window - config.hop + config.lookahead * config.hop

    def spectrum(self, samples: Tensor) -> Tensor:
        """What the encoder reads of `[batch, frames * hop]`, from silence: complex `[batch, frames, bins]`."""
        spectrum, _ = self.stft(samples, self.stft.initial_state(len(samples)))
        if self.enhancer is not None:
            spectrum, _ = self.enhancer(spectrum, self.enhancer.initial_state(len(samples)))
        return spectrum

    def resynthesised(self, spectrum: Tensor) -> Tensor:
        """The samples `[batch, frames * hop]` of a spectrum that was not coded, as late as those that were."""
        return self.stft.inverse(spectrum, self.stft.initial_tails(len(spectrum)))[0]

    def analyse(self, spectrum: Tensor, pitch_steps: Tensor) -> Analysis:
        """What the encoder makes of complex `[batch, frames, bins]`, from silence."""
        return self.encoder(spectrum, pitch_steps, self.encoder.initial_state(len(spectrum)))[0]

    def analyse_phase(self, analysis: Analysis, pitch_sent: Tensor) -> Tensor | None:
        """The phase's latent, from silence; None in a system without."""
        if self.phase is None:
            return None
        encoder = self.phase.encoder
        return encoder(analysis, pitch_sent, encoder.initial_state(len(pitch_sent)))[0]

    def synthesise(self, received: Received) -> Tensor:
        """Samples `[batch, frames * hop]`, from silence."""
        latent, state = received.latent, self.decoder.initial_state(len(received.latent))
        return self.decoder(latent, received.pitch_steps, received.quality, received.phase, state)[0]

    def _pitch_logits(self, samples: Tensor, spectrum: Tensor) -> Tensor:
        return self.tracker(samples, spectrum, self.tracker.initial_state(len(samples)))[0]

    @torch.no_grad()
    def track(self, samples: Tensor, spectrum: Tensor) -> Tensor:
        """The tracker's pitch steps of `[batch, frames * hop]`, whose `spectrum` is as above, from silence: int64 `[batch,
        frames]`, -1 unvoiced."""
        with torch.autocast(samples.device.type, enabled=False):  # the tracker computes as in use
            return self.tracker.steps(self._pitch_logits(samples, spectrum))

    def read(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """What is coded of `[batch, frames * hop]`: the `spectrum` and, as `track` has them, the pitch steps."""
        spectrum = self.spectrum(samples)
        return spectrum, self.track(samples, spectrum)

    def pitch_hz(self, samples: Tensor) -> Tensor:
        """The pitch of `[batch, frames * hop]` as `read` has it, in Hz, 0 where unvoiced."""
        _, steps = self.read(samples)
        frequencies = torch.from_numpy(self.config.pitch.frequencies()).to(samples)
        return torch.where(steps >= 0, frequencies[steps.clamp(min=0)], 0)

    def _labelled(self, example: Example) -> Tensor:
        steps = self.config.pitch.quantize(example.pitch_hz.cpu().numpy())
        return torch.from_numpy(steps).to(example.samples.device)

    def guided(self, analysis: Analysis) -> Tensor:
        """What the base layer searches for, `[batch, frames, dim]`, from silence."""
        if self.guide is None:
            return analysis.latent
        hidden = analysis.hidden.detach()
        return analysis.latent.detach() + self.guide(hidden, self.guide.initial_state(len(hidden)))[0]

    def quantize(
        self, analysis: Analysis, pitch_steps: Tensor, arrived: Tensor | None = None, aim: Tensor | None = None
    ) -> Coded:
        """Encode with all layers; `arrived` and `aim` as `PredictiveQuantizer.forward` takes them."""
        guided, device = self.guided(analysis), pitch_steps.device.type
        with torch.autocast(device, enabled=False):
            spectrum = self.quantizer(analysis.latent, pitch_steps, arrived, guided, aim)
        sent, _ = self.quantizer.decode_pitch(spectrum.codes[..., 0], self.quantizer.initial_state(len(pitch_steps))[1])
        codes, fine, phase = spectrum.codes, None, None
        if self.phase is not None:
            phase = self.analyse_phase(analysis, sent)
            shape = (*codes.shape[:2], self.config.phase_layers)
            if self.phase.quantizer.fitted:
                with torch.autocast(device, enabled=False):
                    fine = self.phase.quantizer(phase, steady(sent), arrived)
            codes = torch.cat([codes, codes.new_zeros(shape) if fine is None else fine.codes], -1)
        return Coded(analysis.latent, guided, pitch_steps, sent, phase, codes, spectrum, fine)

    def without_quantizer(self, spectrum: Tensor, pitch_steps: Tensor) -> Received:
        """What the decoder would get if nothing were quantized."""
        analysis = self.analyse(spectrum, pitch_steps)
        quality = torch.full_like(pitch_steps, self.config.n_layers + 1)
        return Received(analysis.latent, pitch_steps, quality, self.analyse_phase(analysis, pitch_steps))

    def with_noise(self, spectrum: Tensor, pitch_steps: Tensor, share: Share) -> Received:
        """The latent with Gaussian noise, at the level of 1 to all layers, or none, clip by clip."""
        clean = self.without_quantizer(spectrum, pitch_steps)
        config = self.config
        quality = share.randint(1, config.n_layers + 2, 1)
        powers = [_NOISE_POWER[min(layer, config.spectrum_layers) - 1] for layer in range(1, config.n_layers + 1)]
        power = clean.latent.new_tensor([0.0, *powers, 0.0])[quality].unsqueeze(-1)
        latent = clean.latent + power.sqrt() * share.randn(*clean.latent.shape[1:])
        phase = clean.phase
        if phase is not None:
            arrived, coded = quality > config.spectrum_layers, quality <= config.n_layers
            noise = _PHASE_NOISE_POWER**0.5 * share.randn(*phase.shape[1:])
            phase = (phase + noise * coded.unsqueeze(-1)) * arrived.unsqueeze(-1)
        return Received(latent, pitch_steps, quality.expand_as(pitch_steps), phase)

    def receive(self, codes: Tensor) -> Received:
        """Codes with -1 where nothing arrived, as the decoder takes them."""
        hidden, previous = self.quantizer.initial_state(len(codes))
        n_spectrum = self.config.spectrum_layers
        latent, quality, _ = self.quantizer.dequantize(codes[..., :n_spectrum], hidden)
        pitch_steps, _ = self.quantizer.decode_pitch(codes[..., 0], previous)
        if self.phase is None:
            return Received(latent, pitch_steps, quality)
        # A layer counts only if all below it arrived.
        own = torch.where((quality == n_spectrum).unsqueeze(-1), codes[..., n_spectrum:], -1)
        quality = quality + (own >= 0).cumprod(-1).sum(-1)
        quantizer = self.phase.quantizer
        phase, _ = quantizer.dequantize(own, steady(pitch_steps), quantizer.initial_state(len(codes)))
        return Received(latent, pitch_steps, quality, phase)

    def perturbed(self, codes: Tensor, probability: float, share: Share) -> Tensor:
        """Codes `[batch, frames, layers]` with neighbours in place of some: in every clip a random number of its last layers is
        struck, from the last to the first that no predictor listens to (arXiv 2509.19025)."""
        books = self.quantizer.codebooks()[1:]
        columns = list(range(1, self.config.spectrum_layers))
        if self.phase is not None and self.phase.quantizer.fitted:
            books += self.phase.quantizer.codebooks()[1:]
            columns += range(self.config.spectrum_layers + 1, self.config.n_layers)
        struck = share.randint(0, len(columns) + 1, 1)
        codes = codes.clone()
        for number, (column, book) in enumerate(zip(columns, books, strict=True)):
            own = codes[..., column]
            near = book.neighbours(own.flatten(), share.rand(codes.shape[1], _NEIGHBOURS).flatten(0, 1)).view_as(own)
            strikes = (share.rand(codes.shape[1]) < probability) & (number >= len(columns) - struck)
            codes[..., column] = torch.where(strikes, near, own)
        return codes

    def pass_straight(self, coded: Coded, received: Received) -> Received:
        """What was received, as a function of what was sent: the encoder gets the decoder's gradient as if nothing had been
        quantized. A phase without codebooks passes unquantized where its layers arrived."""
        latent = coded.latent + (received.latent - coded.latent).detach()
        phase = coded.phase
        if phase is not None and received.phase is not None:
            arrived = (received.quality > self.config.spectrum_layers).unsqueeze(-1)
            straight = phase if coded.fine is None else phase + (received.phase - phase).detach()
            phase = straight * arrived
        return Received(latent, received.pitch_steps, received.quality, phase)

    def forward(self, stage: Stage, example: Example, share: Share) -> Passed:
        """One pass in training; `System.forward`."""
        samples, losses = example.samples, {}
        spectrum = self.spectrum(samples)
        pitch_steps = self.track(samples, spectrum) if stage.pitch == "tracked" else self._labelled(example)
        if "pitch" in stage.losses:
            logits = self._pitch_logits(samples, spectrum)
            losses["pitch"] = torch.nn.functional.cross_entropy(logits.flatten(0, 1), pitch_steps.flatten() + 1)
        if stage.bottleneck == "quantized":
            return self._quantized_pass(stage, example, spectrum, pitch_steps, share, losses)
        if stage.bottleneck == "noise":
            received = self.with_noise(spectrum, pitch_steps, share)
            return Passed(losses, {"": self._heard(self.synthesise(received), example, received.quality)})
        latent = self.analyse(spectrum, pitch_steps).latent if "alignment" in stage.losses else None
        heard = {"": self._heard(self.resynthesised(spectrum), example)} if stage.bottleneck == "enhanced" else {}
        return Passed(losses, heard, latent)

    def _quantized_pass(
        self, stage: Stage, example: Example, spectrum: Tensor, pitch_steps: Tensor, share: Share, losses: dict[str, Tensor]
    ) -> Passed:
        arrived = ~draw_losses(pitch_steps.shape[1], stage.frame_loss, share)
        analysis = self.analyse(spectrum, pitch_steps)
        aim, enhanced = None, share.rand(1) < stage.enhancement_probability
        if self.guide is not None:
            # PURE Codec's aim (`linnet.lab.systems.pure`): the clean speech's embedding, or the input's own.
            with torch.no_grad():
                clean = self.analyse(self.spectrum(example.wanted), pitch_steps).latent
            aim = torch.where(enhanced.unsqueeze(-1), clean, analysis.latent.detach())
        coded = self.quantize(analysis, pitch_steps, arrived, aim)
        if aim is not None:
            losses["enhancement"] = enhancement_loss(coded.guided, aim)
        heard = {}
        if stage.decodes:
            sent = self.perturbed(coded.codes, stage.perturbation, share) if stage.perturbation else coded.codes
            kept = draw_layers(sent, share)
            if self.guide is not None:
                example = dataclasses.replace(example, wanted=asked_for(example, kept, enhanced, self.config.enhanced_streams))
            codes = torch.where(arrived.unsqueeze(-1), kept, -1)
            received = self.pass_straight(coded, self.receive(codes))
            heard = {"": self._heard(self.synthesise(received), example, received.quality)}
        learning: list[tuple[Quantizer, tuple[Tensor, ...]]] = []
        if "quantizer" in stage.trains:
            learning.append((self.quantizer, (coded.latent, coded.pitch_steps, coded.guided)))
        if "phase" in stage.trains and self.phase is not None and coded.phase is not None and coded.fine is not None:
            learning.append((self.phase.quantizer, (coded.phase, steady(coded.pitch_sent))))
        fine = {} if coded.fine is None else {"phase_error": coded.fine}
        return Passed(losses | quantizer_losses(error=coded.spectrum, **fine), heard, coded.latent, learning)

    def _heard(self, output: Tensor, example: Example, quality: Tensor | None = None) -> Heard:
        output = output.float()[:, self.delay :]
        phase = None
        if quality is not None and self.phase is not None:
            # What only some of the phase's layers say is too vague to be insisted on.
            arrived = (quality - self.config.spectrum_layers).clamp(0, self.config.phase_layers) / self.config.phase_layers
            phase = arrived.square().mean(1)
        return Heard(output, example.wanted[:, : output.shape[1]], phase)

    def unfitted(self, stage: Stage) -> bool:
        """`System.unfitted`: until a stage minimises `latent`, the phase passes unquantized."""
        phase = self.phase is not None and "phase" in stage.trains and not self.phase.quantizer.fitted
        return "latent" in stage.losses and (phase or not self.quantizer.fitted)

    @torch.no_grad()
    def fit(self, stage: Stage, examples: Sequence[Example], generator: torch.Generator) -> None:
        """`System.fit`."""
        drawn = [self.read(example.samples) for example in examples]
        if not self.quantizer.fitted:
            latent = torch.cat([self.analyse(spectrum, pitch).latent for spectrum, pitch in drawn])
            self.quantizer.fit(latent, torch.cat([pitch for _, pitch in drawn]), generator)
        if self.phase is not None and "phase" in stage.trains and not self.phase.quantizer.fitted:
            latents = [self.quantize(self.analyse(spectrum, pitch), pitch).phase for spectrum, pitch in drawn]
            self.phase.quantizer.fit(torch.cat([latent for latent in latents if latent is not None]), generator)

    def latent(self, samples: Tensor) -> Tensor:
        """`System.latent`."""
        return self.analyse(*self.read(samples)).latent

    def encode(self, samples: Tensor) -> Tensor:
        """`System.encode`."""
        spectrum, pitch_steps = self.read(samples)
        return self.quantize(self.analyse(spectrum, pitch_steps), pitch_steps).codes

    def decode(self, codes: Tensor) -> Tensor:
        """`System.decode`."""
        return self.synthesise(self.receive(codes))

    def unquantized(self, example: Example) -> dict[str, Tensor]:
        """`System.unquantized`: with the labelled pitch, as training the tracker has it, and as tracked."""
        spectrum, tracked = self.read(example.samples)
        pitches = {"unquantized, labelled pitch": self._labelled(example), "unquantized": tracked}
        return {name: self.synthesise(self.without_quantizer(spectrum, pitch)) for name, pitch in pitches.items()}

    def columns(self) -> list[tuple[str, int]]:
        """`System.columns`."""
        spectrum, size = self.config.spectrum_layers, self.quantizer.index.size
        residual = [f"residual_{layer}" for layer in range(2, spectrum + 1)]
        phase = [f"phase_{layer}" for layer in range(spectrum + 1, self.config.n_layers + 1)]
        return [(name, size) for name in ["base", *residual, *phase]]

    def codebooks(self) -> list[EmaCodebook]:
        """`System.codebooks`."""
        books = self.quantizer.codebooks() if self.quantizer.fitted else []
        if self.phase is not None and self.phase.quantizer.fitted:
            books = books + self.phase.quantizer.codebooks()
        return books


def make_enhancer(config: SourceFilterConfig, n_bins: int) -> Enhancer:
    """The enhancer of a configuration that has one, for a spectrum of `n_bins`."""
    frames, bands = None, None
    if config.enhancer_blocks:
        channels = config.enhancer_channels
        frames = Frames(n_bins, channels, backbone(channels, config.enhancer_hidden, config.enhancer_blocks, recurrent=True))
    if config.band_channels:
        bands = Bands(n_bins, config.band_channels, config.band_bins, config.band_blocks)
    return Enhancer(n_bins, config.lookahead, frames, bands)


def steady(pitch_steps: Tensor) -> Tensor:
    """Where a frame is voiced or unvoiced as the frame before, bool `[batch, frames]`; silence comes before the first."""
    voiced = torch.nn.functional.pad(pitch_steps >= 0, (1, 0))
    return voiced[:, 1:] == voiced[:, :-1]
