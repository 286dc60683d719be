"""PhoenixCodec (Wan, Zhao, Zhang, Han, Wei, Zou; arXiv 2510.21196), third of LRAC 2025's Track 1.

What makes it this system: the encoder works in the frequency domain, where it keeps most of what was said, the decoder in the
time domain, where it sounds best; a decoder of spectra would spread its few operations over bands that do not all need them
("resource scattering"). The encoder's window looks back and nothing is overlapped on the way out, so what is left of 30 ms of
latency goes to a few centred convolutions in the decoder.

Encoder: an STFT of 30 ms every 12 (241 bins up to 8 kHz), a complex convolution, four times a step down in frequency and a
recurrence over time that all bins share, to 335 numbers a frame. Quantizer: six codebooks of 4096 in 8 dimensions. Decoder: an
LSTM and four transposed convolutions with BigCodec's residual units (arXiv 2409.05377), 117 channels at 83 Hz to 7 at 16 kHz.

Published: 1.48 M parameters, 699 MFLOPS, 29.83 ms at 24 kHz. What of that closes is said in docs/systems/phoenix.md. The halves
that the paper's ablation puts in their places, F-F and T-T, are here too; it does not give their sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from linnet.lab.dsp.fourier import RealFourier
from linnet.lab.dsp.pitch import PitchLabels
from linnet.lab.nn.bands import Analysis, BandsDown, BandsGru, BandsUp, ComplexConv, Synthesis
from linnet.lab.nn.blocks import (
    CausalConv,
    CausalConvTranspose,
    Chain,
    NewAxis,
    Residual,
    ResidualLstm,
    Snake,
    Stateless,
    weight_normalised,
    without_biases,
)
from linnet.lab.quant.residual import ResidualQuantizer
from linnet.lab.systems.plain import PlainCodec

HOP, WINDOW = 192, 480  # at 16 kHz, for 288 and 720 at 24 kHz with the bins above 8 kHz cut off
LATENT = 335
CODEBOOK_SIZE, CODEBOOK_DIM = 4096, 8

# Frequency-domain encoder, from 241 bins to 48, 12, 3 and 1.
BANDS_CHANNELS = (32, 32, 32, 128, LATENT)
BANDS_FACTORS = (5, 4, 4, 3)
BANDS_KERNEL = 9  # not published: what brings encoder and search to 397 of the 399 MFLOPS that are

# Time-domain decoder.
TIME_CHANNELS = (117, 58, 29, 14, 7)
TIME_STRIDES = (3, 4, 4, 4)
TIME_KERNELS = (7, 9, 9, 11)
TIME_DILATIONS = (1, 3, 9)
LAST_KERNEL = 7

# The ablation's other halves, as costly as those that they replace: from 1 bin to 3, 12, 48 and 240, and from 16 kHz to 83 Hz.
BANDS_UP_CHANNELS = (180, 96, 32, 32, 32)
TIME_DOWN_CHANNELS = (9, 17, 35, 70, 142)


@dataclass(frozen=True)
class PhoenixConfig:
    """`architecture` names the domains of encoder and decoder: "F-T", the codec, or "F-F" or "T-T", the ablation's. Magnitudes
    enter the encoder to the power `compression`, as in SpecTokenizer (arXiv 2510.21209), whose encoder this is."""

    kind: str = "phoenix"
    architecture: str = "F-T"
    compression: float = 0.5

    def __post_init__(self) -> None:
        if self.architecture not in ("F-T", "F-F", "T-T"):
            raise ValueError(f"architecture is {self.architecture!r}; choose 'F-T', 'F-F' or 'T-T'")

    @property
    def sample_rate(self) -> int:
        return 16000

    @property
    def hop(self) -> int:
        return HOP

    @property
    def n_layers(self) -> int:
        return 6

    @property
    def labels(self) -> PitchLabels:
        """Nothing here uses pitch: labels stand in the middle of the encoder's windows."""
        return PitchLabels(HOP, HOP - WINDOW // 2)

    @property
    def phase_hz(self) -> float:
        """The whole waveform is coded."""
        return self.sample_rate / 2


class PhoenixCodec(PlainCodec):
    """The codec, or one of its ablations. The encoder never looks ahead."""

    def __init__(self, config: PhoenixConfig):
        sending, receiving = config.architecture.split("-")
        encoder = frequency_encoder(config.compression) if sending == "F" else time_encoder()
        decoder = time_decoder() if receiving == "T" else frequency_decoder(config.compression)
        delay = sum(steps * step for steps, step in decoder_lookahead()) if receiving == "T" else WINDOW - HOP
        quantizer = ResidualQuantizer(LATENT, config.n_layers, size=CODEBOOK_SIZE, code_dim=CODEBOOK_DIM)
        super().__init__(config, encoder, quantizer, decoder, delay)
        without_biases(self)
        self.description = f"PhoenixCodec {config.architecture}"


def frequency_encoder(compression: float) -> Chain:
    """Samples `[batch, frames * HOP]` -> latent `[batch, frames, LATENT]`."""
    blocks: list[nn.Module] = [
        Analysis(_fourier(), HOP, compression),
        Stateless(ComplexConv(1, BANDS_CHANNELS[0] // 2, BANDS_KERNEL)),
    ]
    bins = WINDOW // 2
    for (inputs, outputs), factor in zip(pairwise(BANDS_CHANNELS), BANDS_FACTORS, strict=True):
        bins //= factor
        blocks += [Stateless(BandsDown(inputs, outputs, factor)), Snake(outputs), _recurrence(bins, outputs)]
    return Chain(*blocks, Stateless(nn.Flatten(2)))


def time_decoder() -> Chain:
    """Latent `[batch, frames, LATENT]` -> samples `[batch, frames * HOP]`, `decoder_lookahead` late."""
    width = TIME_CHANNELS[0]
    blocks: list[nn.Module] = [Stateless(nn.Linear(LATENT, width)), ResidualLstm(width)]
    for (inputs, outputs), stride, kernel in zip(pairwise(TIME_CHANNELS), TIME_STRIDES, TIME_KERNELS, strict=True):
        blocks += [Snake(inputs), CausalConvTranspose(inputs, outputs, 2 * stride, stride)]
        blocks += [_unit(outputs, kernel, dilation, centred=dilation == 1) for dilation in TIME_DILATIONS]
    width = TIME_CHANNELS[-1]
    last = [Snake(width), CausalConv(width, 1, LAST_KERNEL), Stateless(nn.Tanh()), Stateless(nn.Flatten(1))]
    return weight_normalised(Chain(*blocks, *last))


def decoder_lookahead() -> list[tuple[int, int]]:
    """Of every convolution that is centred on its output, half its kernel, and how many samples a step is."""
    step, layers = HOP, []
    for stride, kernel in zip(TIME_STRIDES, TIME_KERNELS, strict=True):
        step //= stride
        layers.append((kernel // 2, step))
    return [*layers, (LAST_KERNEL // 2, 1)]


def time_encoder() -> Chain:
    """T-T's encoder, the decoder's mirror image but causal: as `frequency_encoder`."""
    blocks: list[nn.Module] = [Stateless(NewAxis()), CausalConv(1, TIME_DOWN_CHANNELS[0], LAST_KERNEL)]
    for (inputs, outputs), stride, kernel in zip(
        pairwise(TIME_DOWN_CHANNELS), reversed(TIME_STRIDES), reversed(TIME_KERNELS), strict=True
    ):
        blocks += [_unit(inputs, kernel, dilation, centred=False) for dilation in TIME_DILATIONS]
        blocks += [Snake(inputs), CausalConv(inputs, outputs, 2 * stride, stride=stride)]
    width = TIME_DOWN_CHANNELS[-1]
    return weight_normalised(Chain(*blocks, ResidualLstm(width), Stateless(nn.Linear(width, LATENT))))


def frequency_decoder(compression: float) -> Chain:
    """F-F's decoder, the encoder's mirror image: as `time_decoder`, `WINDOW - HOP` late by its overlap."""
    width = BANDS_UP_CHANNELS[0]
    blocks: list[nn.Module] = [Stateless(nn.Linear(LATENT, width)), Stateless(NewAxis(2))]
    bins = 1
    for (inputs, outputs), factor in zip(pairwise(BANDS_UP_CHANNELS), reversed(BANDS_FACTORS), strict=True):
        blocks += [_recurrence(bins, inputs), Stateless(BandsUp(inputs, outputs, factor)), Snake(outputs)]
        bins *= factor
    # The bin at half the sample rate, which the encoder drops, comes back from its neighbours.
    blocks += [Stateless(nn.ZeroPad2d((0, 0, 0, 1))), Stateless(ComplexConv(BANDS_UP_CHANNELS[-1] // 2, 1, BANDS_KERNEL))]
    return Chain(*blocks, Synthesis(_fourier(), HOP, compression))


def _fourier() -> RealFourier:
    return RealFourier(16, WINDOW // 16)


def _recurrence(bins: int, channels: int) -> Residual:
    """The recurrent half of a block: normalisation, tanh and GRU (in `BandsGru`), a pointwise convolution, Snake, identity."""
    return Residual(channels, BandsGru(bins, channels), Stateless(nn.Linear(channels, channels)), Snake(channels))


def _unit(channels: int, kernel: int, dilation: int, *, centred: bool) -> Residual:
    """BigCodec's residual unit: Snake, a wide convolution, Snake, a pointwise one, identity."""
    wide = CausalConv(channels, channels, kernel, dilation=dilation)
    pointwise = Stateless(nn.Linear(channels, channels))
    lookahead = kernel // 2 if centred else 0
    return Residual(channels, Snake(channels), wide, Snake(channels), pointwise, lookahead=lookahead)
