"""The baselines of the LRAC 2025 challenge (Low-Resource Audio Codec, Cisco), one for each track.

What makes it this system: an EnCodec (arXiv 2210.13438) at 24 kHz, cut down to 700 MFLOPS for transparent coding (Track 1) or
2600 for coding that cleans (Track 2). Convolutions over time, with ELU and without channel bottlenecks, go down to 100 frames a
second; six codebooks of 1024 stand in a few projected dimensions; the way back is transposed convolutions that do not overlap.
Almost all is causal: the latency is spent where it reaches far, on a few dilated convolutions at 2 kHz in the encoder and 500
Hz in the decoder, which are centred on their output.

All sizes are the organisers' own (github.com/cisco-open/espnet, egs2/lrac/track{1,2}/conf/train.yaml). Published: 377.5 + 296.8
+ 17.1 MFLOPS (encoder, decoder, search) and 30 ms for Track 1, 1944 + 594 + 38.7 and 50 ms for Track 2; this is exactly that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from linnet.lab.dsp.pitch import PitchLabels
from linnet.lab.nn.blocks import (
    CausalConv,
    CausalConvTranspose,
    Chain,
    NewAxis,
    Residual,
    Stateless,
    weight_normalised,
    without_biases,
)
from linnet.lab.quant.residual import ResidualQuantizer
from linnet.lab.systems.plain import PlainCodec

HOP = 240
CODEBOOK_SIZE = 1024
FIRST_KERNEL, LAST_KERNEL = 7, 21


@dataclass(frozen=True)
class Unit:
    """ELU, a convolution of kernel `wide` and a dilation, ELU, one of kernel `narrow`, beside the identity.

    `centred` is the one of the two that is centred on its output, 1 or 2, or 0 where both are causal.
    """

    wide: int
    narrow: int
    dilation: int
    centred: int = 0

    @property
    def lookahead(self) -> int:
        """In steps of its own rate: half of the centred convolution's span."""
        return (0, (self.wide - 1) * self.dilation, self.narrow - 1)[self.centred] // 2


@dataclass(frozen=True)
class Side:
    """Encoder or decoder, from its input to its output: channels before, between and after the changes of rate, the changes'
    strides, and each one's units: before it in the encoder, after it in the decoder."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    units: tuple[tuple[Unit, ...], ...]


@dataclass(frozen=True)
class Baseline:
    """One track's system; `biased`, whether biases begin as torch begins them, not at zero."""

    encoder: Side
    decoder: Side
    codebook_dim: int
    biased: bool = True

    def encoder_lookahead(self) -> Iterator[tuple[int, int]]:
        """Of every unit that looks ahead, by how many steps, and how many samples a step is."""
        step = 1
        for stride, units in zip(self.encoder.strides, self.encoder.units, strict=True):
            yield from ((unit.lookahead, step) for unit in units if unit.centred)
            step *= stride

    def decoder_lookahead(self) -> Iterator[tuple[int, int]]:
        """The decoder's, likewise."""
        step = HOP
        for stride, units in zip(self.decoder.strides, self.decoder.units, strict=True):
            step //= stride
            yield from ((unit.lookahead, step) for unit in units if unit.centred)


TRACK_1 = Baseline(
    encoder=Side(
        channels=(8, 16, 32, 64, 160),
        strides=(3, 4, 4, 5),
        units=(
            (Unit(5, 1, 3), Unit(5, 1, 9), Unit(5, 1, 27)),
            (Unit(5, 1, 3), Unit(5, 1, 9), Unit(5, 1, 27)),
            (Unit(5, 1, 3, centred=1), Unit(5, 1, 7, centred=1), Unit(5, 1, 27)),
            (Unit(5, 1, 3), Unit(7, 3, 9), Unit(7, 3, 27)),
        ),
    ),
    decoder=Side(
        channels=(160, 64, 32, 16, 8),
        strides=(5, 4, 3, 4),
        units=(
            (Unit(3, 1, 5, centred=1), Unit(5, 1, 5), Unit(5, 3, 25)),
            (Unit(5, 1, 4), Unit(5, 1, 5), Unit(5, 1, 25)),
            (Unit(5, 1, 3), Unit(5, 1, 5), Unit(5, 1, 25)),
            (Unit(5, 1, 4), Unit(5, 1, 5), Unit(5, 1, 25)),
        ),
    ),
    codebook_dim=12,
)
TRACK_2 = Baseline(
    encoder=Side(
        channels=(8, 16, 32, 64, 128, 320),
        strides=(2, 2, 3, 4, 5),
        units=(
            (Unit(7, 3, 3), Unit(7, 3, 9), Unit(7, 3, 27), Unit(7, 3, 81)),
            (Unit(7, 3, 3), Unit(7, 3, 9), Unit(7, 3, 27), Unit(5, 3, 81)),
            (Unit(7, 3, 3), Unit(7, 3, 9), Unit(7, 3, 27)),
            (Unit(7, 3, 3, centred=1), Unit(7, 3, 9, centred=1), Unit(7, 3, 27)),
            (Unit(7, 3, 3, centred=2), Unit(7, 3, 9), Unit(7, 3, 27)),
        ),
    ),
    decoder=Side(
        channels=(320, 96, 48, 24, 12, 8),
        strides=(5, 4, 3, 2, 2),
        units=(
            (Unit(3, 1, 5, centred=1), Unit(3, 1, 5, centred=1), Unit(5, 1, 25)),
            (Unit(3, 1, 4), Unit(5, 1, 5), Unit(5, 1, 25)),
            (Unit(5, 1, 3), Unit(5, 1, 5), Unit(5, 1, 25)),
            (Unit(3, 1, 2), Unit(5, 1, 5), Unit(5, 1, 25)),
            (Unit(5, 1, 2), Unit(5, 1, 5), Unit(5, 1, 25)),
        ),
    ),
    codebook_dim=24,
    # Next to torch's biases speech is nothing: an untrained encoder's latent is nearly a constant. Track 1 leaves that in some
    # 250 steps, Track 2 had not in 600.
    biased=False,
)
TRACKS = {1: TRACK_1, 2: TRACK_2}


@dataclass(frozen=True)
class LracConfig:
    """Which track's baseline; everything else is published."""

    kind: str = "lrac-baseline"
    track: int = 1

    def __post_init__(self) -> None:
        if self.track not in TRACKS:
            raise ValueError(f"track is {self.track}; choose 1 or 2")

    @property
    def sample_rate(self) -> int:
        return 24000

    @property
    def hop(self) -> int:
        return HOP

    @property
    def n_layers(self) -> int:
        return 6

    @property
    def labels(self) -> PitchLabels:
        """Nothing here uses pitch: labels stand where frames begin."""
        return PitchLabels(HOP, 0)

    @property
    def phase_hz(self) -> float:
        """The whole waveform is coded."""
        return self.sample_rate / 2


class LracBaseline(PlainCodec):
    """A baseline as it streams.

    A centred convolution is a causal one that answers late. All that the encoder is late, 10 ms or 20, is whole frames, so
    its strides fall on the samples that they would fall on if it could see the future, and the latent is `lookahead` frames
    late. Weights are normalised while training and plain in a bundle.
    """

    def __init__(self, config: LracConfig):
        shape = TRACKS[config.track]
        ahead, behind = (
            sum(steps * step for steps, step in side) for side in (shape.encoder_lookahead(), shape.decoder_lookahead())
        )
        dim = shape.encoder.channels[-1]
        quantizer = ResidualQuantizer(dim, config.n_layers, size=CODEBOOK_SIZE, code_dim=shape.codebook_dim)
        super().__init__(config, make_encoder(shape.encoder), quantizer, make_decoder(shape.decoder), ahead + behind)
        self.lookahead = ahead // HOP
        if not shape.biased:
            without_biases(self)
        self.description = f"LRAC 2025 baseline, Track {config.track}"


def make_encoder(side: Side) -> Chain:
    """Samples `[batch, frames * HOP]` -> latent `[batch, frames, dim]`."""
    blocks: list[nn.Module] = [Stateless(NewAxis()), CausalConv(1, side.channels[0], FIRST_KERNEL)]
    for (inputs, outputs), stride, units in zip(pairwise(side.channels), side.strides, side.units, strict=True):
        blocks += [_residual(inputs, unit) for unit in units]
        blocks += [Stateless(nn.ELU()), CausalConv(inputs, outputs, 2 * stride, stride=stride)]
    return weight_normalised(Chain(*blocks))


def make_decoder(side: Side) -> Chain:
    """Latent `[batch, frames, dim]` -> samples `[batch, frames * HOP]`."""
    blocks: list[nn.Module] = []
    for (inputs, outputs), stride, units in zip(pairwise(side.channels), side.strides, side.units, strict=True):
        blocks += [Stateless(nn.ELU()), CausalConvTranspose(inputs, outputs, stride, stride)]
        blocks += [_residual(outputs, unit) for unit in units]
    last = CausalConv(side.channels[-1], 1, LAST_KERNEL)
    return weight_normalised(Chain(*blocks, Stateless(nn.ELU()), last, Stateless(nn.Tanh()), Stateless(nn.Flatten(1))))


def _residual(channels: int, unit: Unit) -> Residual:
    wide = CausalConv(channels, channels, unit.wide, dilation=unit.dilation)
    narrow = CausalConv(channels, channels, unit.narrow)
    return Residual(channels, Stateless(nn.ELU()), wide, Stateless(nn.ELU()), narrow, lookahead=unit.lookahead)
