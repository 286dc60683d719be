"""The encoder's graph: spectra, pitch tracker, network, the closed loop of the base layer, and the layers above it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from linnet.lab.dsp.stft import Stft
from linnet.lab.export.builder import STREAMS, Builder
from linnet.lab.export.fourier import Fourier, rotate
from linnet.lab.export.layers import backbone, conv_next, gru, gru_step, layer_norm, linear
from linnet.lab.export.quantizer import (
    QUARTER,
    Codebook,
    PitchCoder,
    advances,
    memory_table,
    reference,
    sines,
    steady,
)
from linnet.lab.systems.codec import Codec
from linnet.lab.systems.enhancer import FLOOR
from linnet.lab.systems.remix import RemixCodec
from linnet.lab.systems.tracker import PitchTracker

_END = np.iinfo(np.int64).max
# The lab's features are the logarithm of a bin's energy plus this, over `_SPREAD`.
_CENTRE, _SPREAD = 4.0, 4.0


@torch.no_grad()
def export_encoder(codec: Codec, *, eight_bit: bool = True) -> bytes:
    """The encoder's graph: `samples` float32 `[frames, streams, hop]` and states -> `codes` int64 `[frames, streams, layers]`,
    new states."""
    codec = codec.eval()
    g = Builder(eight_bit=eight_bit)
    tracker = codec.tracker
    samples = g.input("samples", np.float32, ["frames", STREAMS, codec.config.hop])
    # The decibels' centre as a gain: what an 8-bit product rounds should lie around zero.
    loudness = float(np.exp(_CENTRE / 2))
    transforms = [(tracker.long, 1.0, 1e-9), (tracker.short, 1.0, 1e-9), (codec.stft, loudness, FLOOR * loudness**2)]
    long, short, own = spectra(g, samples, codec.config.hop, transforms)
    power, gain = own.power, None
    if codec.enhancer is not None:
        power, gain = enhance(g, codec, power, FLOOR * loudness**2)
    heard = [("long", long.power), ("short", short.power)]
    if tracker.reads_enhanced:
        heard.append(("short", g.Mul(power, loudness**-2)))
    wanted = pitch(g, tracker, heard)
    latent, hidden = network(g, codec, power, wanted)
    if isinstance(codec, RemixCodec):
        codes = search_branches(g, codec, latent, hidden, wanted)
    else:
        more = guidance(g, codec.guide, hidden) if codec.guide is not None else None
        base = search_base(g, codec, latent if more is None else g.Add(latent, more), wanted)
        codes = [base.codes, *search_rest(g, codec, base.rest, codec.config.spectrum_layers, more)]
    if codec.phase is not None:
        low, place = lowest(g, codec, own, gain), g.Squeeze(base.place, np.array([1]))
        latent = phase_latent(g, codec, low, loudness, hidden, base.table, place)
        codes += search_phase(g, codec, latent, base.table, place)
    layers = g.Cast(g.Concat(*codes, axis=1), to=TensorProto.INT64)
    g.output("codes", g.Transpose(layers, perm=[0, 2, 1]), np.int64, ["frames", STREAMS, codec.config.n_layers])
    return g.finish()


@dataclass(frozen=True)
class Spectrum:
    """What one Stft says of every frame: its power spectrum in `Fourier`'s order plus a floor, `[frames, streams, places]`; and
    the spectra of all the Stfts of its length, of which it is the one at `index`, `[frames, streams, several * 2 places]`."""

    power: str
    all_spectra: str
    index: int


def spectra(g: Builder, samples: str, hop: int, transforms: Sequence[tuple[Stft, float, float]]) -> list[Spectrum]:
    """Spectra of the frames of `samples` `[frames, streams, hop]`, by Stfts, each with its gain and the floor of its power.

    The lab pads a window at its end, this at its beginning, so that all of them are cut from one past: the middle of a window
    comes later by as much. Transforms of equal length are one product.
    """
    longest = max(stft.n_fft for stft, *_ in transforms)
    # Frames are looked up in rows of as many samples.
    unit = math.gcd(hop, Fourier(longest).columns)
    rows = g.Reshape(g.Transpose(samples, perm=[1, 0, 2]), np.array([0, -1, unit]))
    past = g.state("past", np.float32, [STREAMS, (longest - hop) // unit, unit])
    joined = g.Concat(past, rows, axis=1)
    g.keep(past, g.Slice(joined, np.array([-(longest - hop) // unit]), np.array([_END]), np.array([1])))
    first = g.Range(np.array(0), g.Squeeze(g.Shape(rows, start=1, end=2)), np.array(hop // unit))
    cut = g.Gather(joined, g.Add(g.Unsqueeze(first, np.array([1])), np.arange(longest // unit)), axis=1)
    frames = g.Transpose(cut, perm=[1, 0, 2, 3])
    found: dict[int, Spectrum] = {}
    for points in sorted({stft.n_fft for stft, *_ in transforms}):
        alike = [index for index, (stft, *_) in enumerate(transforms) if stft.n_fft == points]
        own = [transforms[index] for index in alike]
        fourier = Fourier(points)
        shape = [points // fourier.columns, fourier.columns]
        windows = [gain * np.pad(stft.hann.numpy(), (points - stft.window, 0)).reshape(shape) for stft, gain, _ in own]
        last = g.Slice(frames, np.array([-points // unit]), np.array([_END]), np.array([2])) if points < longest else frames
        # Rows may be those of this transform already.
        if len(alike) > 1 or shape[1] != unit:
            last = g.Reshape(last, np.array([0, -1, 1, *shape]))
        spectrum = fourier.forward(g, g.Mul(last, np.stack(windows)))
        real, imaginary = g.Split(g.Mul(spectrum, spectrum), outputs=2, axis=-1, num_outputs=2)
        power = g.Reshape(g.Add(real, imaginary), np.array([0, -1, len(alike) * fourier.size]))
        power = g.Add(power, np.repeat([floor for *_, floor in own], fourier.size))
        powers = g.split(power, [fourier.size] * len(alike), axis=2)
        flat = g.Reshape(spectrum, np.array([0, -1, len(alike) * 2 * fourier.size]))
        found |= {index: Spectrum(power, flat, place) for place, (index, power) in enumerate(zip(alike, powers, strict=True))}
    return [found[index] for index in range(len(transforms))]


def pitch(g: Builder, tracker: PitchTracker, heard: Sequence[tuple[str, str]]) -> str:
    """1 + the tracker's pitch step, int64 `[frames, streams]`, 0 where unvoiced.

    What is `heard` are power spectra, each behind the name of the tracker's transform that has as many points.

    The lags of an autocorrelation go straight into the input layer, so their matrix and the layer's are one. All weights are
    exact: with 8 bits the pitches that change cost 0.01 of PESQ-WB at one layer.
    """
    lags = tracker.lags[1] - tracker.lags[0]
    weight, energies, features = tracker.input.weight, [], []
    for number, (name, power) in enumerate(heard):
        first = number * (lags + 1)
        own: Tensor = 4 * weight[:, first : first + lags] @ getattr(tracker, f"{name}_lags").T
        matrix = spread(torch.cat([own, getattr(tracker, f"{name}_power").T]), Fourier(getattr(tracker, name).n_fft))
        summed = g.MatMul(g.Sqrt(power), g.floats(matrix.T.contiguous()))
        product, energy = g.Split(summed, np.array([len(weight), 1]), outputs=2, axis=-1)
        features.append(g.Div(product, energy))
        energies.append(energy)
    levels = weight[:, lags :: lags + 1]
    level = g.MatMul(g.Log(g.Concat(*energies, axis=-1)), g.floats(0.25 * levels.T))
    x = g.Relu(g.Sum(*features, level, tracker.input.bias + levels.sum(1)))
    hidden = g.state("tracker", np.float32, [1, STREAMS, tracker.gru.hidden_size])
    y, after = gru(g, x, tracker.gru, hidden)
    g.keep(hidden, after)
    logits = linear(g, g.Concat(x, y, axis=-1), tracker.output.weight, tracker.output.bias, exact=True)
    # Class 0 must have more than half: far ahead of all others if it has, behind them if not.
    n_classes = tracker.output.out_features
    ahead = np.where(np.arange(n_classes) == 0, 1e6, 1).astype(np.float32)
    handicap = np.where(np.arange(n_classes) == 0, -0.5e6, 0).astype(np.float32)
    return g.ArgMax(g.Add(g.Mul(g.Softmax(logits, axis=-1), ahead), handicap), axis=-1, keepdims=0)


def enhance(g: Builder, codec: Codec, power: str, floor: float) -> tuple[str, str | None]:
    """The enhancer: of a power spectrum plus its floor what passes, with the floor again, and the gains, all of one shape."""
    enhancer: Any = codec.enhancer
    fourier, lookahead = Fourier(codec.stft.n_fft), codec.config.lookahead
    heard, power = power, g.Sub(power, floor)
    if lookahead:
        power = g.delay("power_past", power, lookahead, fourier.size)
    gain = frame_gain(g, enhancer.frames, heard, fourier) if enhancer.frames is not None else None
    if enhancer.bands is not None:
        passed = let_through(g, power, gain, floor)
        bins = [g.Gather(g.Log(read), _first_places(fourier), axis=2) for read in (heard, passed)]
        own = g.Gather(band_gain(g, enhancer.bands, bins), fourier.bins, axis=2)
        gain = own if gain is None else g.Mul(gain, own)
    return let_through(g, power, gain, floor), gain


def let_through(g: Builder, power: str, gain: str | None, floor: float) -> str:
    """A power spectrum under a gain of its magnitudes, if there is one, plus the floor."""
    return g.Add(power if gain is None else g.Mul(power, g.Mul(gain, gain)), floor)


def frame_gain(g: Builder, frames: Any, heard: str, fourier: Fourier) -> str:
    """The gain at every place by the network over whole frames, `[frames, streams, places]`, of a power spectrum."""
    x = linear(g, g.Log(heard), spread(frames.input.weight / _SPREAD, fourier), frames.input.bias)
    x = layer_norm(g, backbone(g, x, frames.blocks, "enhancer"), frames.norm)
    return g.Mul(g.Sigmoid(linear(g, x, frames.head.weight[fourier.bins], frames.head.bias[fourier.bins])), 2.0)


def band_gain(g: Builder, bands: Any, features: Sequence[str]) -> str:
    """The gain of every bin by the network of the bands, `[frames, streams, bins]`, of features of that shape."""
    n_bands, channels = bands.place.shape
    half, spare = bands.stride // 2, n_bands * bands.stride - bands.n_bins
    sizes = {"kernel_shape": [1, 2 * bands.stride], "strides": [1, bands.stride]}
    x = g.Concat(*(g.Unsqueeze(feature, np.array([1])) for feature in features), axis=1)
    weight = bands.input.weight.unsqueeze(2) / _SPREAD
    x = g.Conv(x, weight, bands.input.bias, pads=[0, half, 0, half + spare], **sizes)
    x = g.Add(g.Transpose(x, perm=[0, 2, 3, 1]), bands.place)
    for number, block in enumerate(bands.blocks.blocks):
        before = g.state(f"bands_{number}", np.float32, [STREAMS, n_bands, channels])
        rows = g.Reshape(layer_norm(g, x, block.norm), np.array([0, -1, channels]))
        y, after = gru(g, rows, block.gru, g.Reshape(before, np.array([1, -1, channels])))
        g.keep(before, g.Reshape(after, np.array([-1, n_bands, channels])))
        x = g.Add(x, g.Reshape(y, np.array([0, -1, n_bands, channels])))
        y = g.MatMul(g.floats(block.across.weight), layer_norm(g, x, block.across_norm))
        y = g.MatMul(g.floats(block.across_back.weight), g.Gelu(g.Add(y, block.across.bias.unsqueeze(1))))
        x = g.Add(x, g.Add(y, block.across_back.bias.unsqueeze(1)))
        y = g.Gelu(linear(g, layer_norm(g, x, block.inner_norm), block.inner.weight, block.inner.bias, exact=True))
        x = g.Add(x, linear(g, y, block.inner_back.weight, block.inner_back.bias, exact=True))
    x = g.Transpose(layer_norm(g, x, bands.norm), perm=[0, 3, 1, 2])
    logits = g.ConvTranspose(x, bands.head.weight.unsqueeze(2), bands.head.bias, pads=[0, half, 0, half], **sizes)
    own = g.Slice(logits, np.array([0]), np.array([bands.n_bins]), np.array([3]))
    return g.Mul(g.Sigmoid(g.Squeeze(own, np.array([1]))), 2.0)


def network(g: Builder, codec: Codec, power: str, wanted: str) -> tuple[str, str]:
    """The latent `[frames, streams, dim]`, less the predictor's bias, of one Stft's power spectrum, whose gain centred it, and
    the pitch; and the last hidden layer `[frames, streams, channels]`."""
    encoder = codec.encoder
    weight = spread(encoder.input.weight / _SPREAD, Fourier(codec.stft.n_fft))
    x = linear(g, g.Log(power), weight, encoder.input.bias)
    x = backbone(g, g.Add(x, g.Gather(g.floats(encoder.pitch.weight), wanted)), encoder.blocks, "encoder")
    scale = 1 / encoder.power.sqrt()
    bias = scale * encoder.output.bias - codec.quantizer.predict.bias
    return linear(g, layer_norm(g, x, encoder.norm), scale * encoder.output.weight, bias), x


def search_branches(g: Builder, codec: RemixCodec, latent: str, hidden: str, wanted: str) -> list[str]:
    """The codes of speech and of background, int32 `[frames, 1, streams]` each."""
    config, codes = codec.config, []
    unvoiced = g.Mul(wanted, np.array(0))
    branches = [("speech", codec.speech, wanted, config.spectrum_layers), ("noise", codec.noise, unvoiced, config.noise_layers)]
    for name, branch, pitch_steps, layers in branches:
        with g.scope(name):
            base = search_base(g, codec, g.Add(latent, guidance(g, branch, hidden)), pitch_steps)
            codes += [base.codes, *search_rest(g, codec, base.rest, layers)]
    return codes


def guidance(g: Builder, guide: Any, hidden: str) -> str:
    """What a base layer or a branch is to say more than the latent, `[frames, streams, dim]`."""
    x = backbone(g, linear(g, hidden, guide.input.weight, guide.input.bias), guide.blocks, "guide")
    return linear(g, x, guide.output.weight, guide.output.bias)


def spread(weight: Tensor, fourier: Fourier) -> Tensor:
    """A matrix over bins as one over the places of a spectrum: each bin is read where it first appears."""
    wide = weight.new_zeros(len(weight), fourier.size)
    wide[:, _first_places(fourier)] = weight
    return wide


def _first_places(fourier: Fourier) -> np.ndarray:
    """Where each bin first appears in a spectrum, `[bins]`."""
    return np.unique(fourier.bins, return_index=True)[1]


def lowest(g: Builder, codec: Codec, own: Spectrum, gain: str | None) -> str:
    """Real parts, then imaginary parts, of a spectrum's lowest bins where they first appear,
    `[frames, streams, 2 * phase_bins]`; of an enhancer's `gain`, what it lets pass."""
    fourier, config = Fourier(codec.stft.n_fft), codec.config
    places = _first_places(fourier)[: config.phase_bins]
    row, column = np.divmod(places, fourier.columns)
    real = own.index * 2 * fourier.size + row * 2 * fourier.columns + column
    low = g.Gather(own.all_spectra, np.concatenate([real, real + fourier.columns]), axis=2)
    if gain is None:
        return low
    if config.lookahead:
        low = g.delay("low_past", low, config.lookahead, 2 * config.phase_bins)
    return g.Mul(low, g.Gather(gain, np.tile(places, 2), axis=2))


@dataclass(frozen=True)
class Base:
    """The base layer's codes, int32 `[frames, 1, streams]`, what they leave of the latent `[frames, 1, streams, dim]`, and the
    place of the pitch in `table`, `[frames, 1, streams]`."""

    codes: str
    rest: str
    place: str
    table: PitchCoder


def search_base(g: Builder, codec: Codec, latent: str, wanted: str) -> Base:
    """The closed loop of the base layer."""
    quantizer = codec.quantizer
    coder = PitchCoder.of(quantizer)
    book = Codebook.of(quantizer.base.entries, eight_bit=g.eight_bit)
    said = memory_table(g, quantizer, book.table(g))

    def step(inner: Builder, hidden: str, previous: str, target: str, want: str) -> tuple[list[str], list[str]]:
        rest = inner.Sub(target, inner.MatMul(hidden, inner.floats(quantizer.predict.weight.T.contiguous())))
        place = inner.Add(previous, want)
        kind = inner.Gather(inner.integers(coder.kind), place)
        entry = book.nearest_of_kind(inner, rest, quantizer.entry_kind.numpy(), kind)
        after = gru_step(inner, inner.Gather(said, entry), quantizer.memory, hidden)
        sent = inner.Gather(inner.integers(coder.sent * coder.n), place)
        return [after, sent], [rest, entry, place]

    shapes: list[list[int | str]] = [[1, STREAMS, quantizer.memory.hidden_size], [1, STREAMS]]
    hidden = g.state("memory", np.float32, shapes[0])
    # In units of the table's rows, so that a row and a column only need adding.
    previous = g.state("pitch", np.int64, shapes[1])
    types = [np.float32, np.int64, np.float32, np.int64]
    *after, rest, entry, place = g.scan(step, [hidden, previous], [latent, wanted], types, shapes)
    g.keep(hidden, after[0])
    g.keep(previous, after[1])
    codes = g.Cast(g.Add(entry, g.Gather(g.integers(coder.first), place)), to=TensorProto.INT32)
    left = g.Sub(rest, g.Gather(book.table(g), entry))
    return Base(codes, left, place, coder)


def search_rest(g: Builder, codec: Codec, rest: str, layers: int, more: str | None = None) -> list[str]:
    """Codes of the second of `layers` and up, int32 `[frames, 1, streams]` each, of what the base layer leaves; `more` is what
    a guide adds to the latent for the enhanced streams."""
    codes: list[str] = []
    for number, (inward, outward, book) in enumerate(codec.quantizer.layers()[: layers - 1], start=1):
        if more is not None and number == codec.config.enhanced_streams:
            # What those streams were not asked to say is for the others to say, too.
            rest = g.Sub(rest, g.Unsqueeze(more, np.array([1])))
        codebook = Codebook.of(book.entries, eight_bit=g.eight_bit)
        small = g.MatMul(rest, inward.weight.T)
        codes.append(codebook.nearest(g, small))
        if len(codes) < layers - 1:
            said = g.MatMul(codebook.table(g), outward.weight.T)
            rest = g.Sub(rest, g.Gather(said, codes[-1]))
    return codes


def phase_latent(
    g: Builder, codec: Codec, low: str, gain: float, hidden: str, coder: PitchCoder, place: str
) -> str:  # fmt: skip
    """The phase's latent `[frames, streams, phase_dim]` of the lowest bins, which came with a `gain`, and the
    place of the pitch in `coder` `[frames, streams]`."""
    encoder: Any = codec.phase.encoder  # type: ignore[union-attr]
    config, n_bins = codec.config, codec.config.phase_bins
    fourier = Fourier(encoder.reference.n_fft)
    where = _first_places(fourier)[:n_bins]

    # The mean energy and each bin's own, for its real and for its imaginary part, with their floors, as one product.
    squares, mean = np.ones((2 * n_bins, 1)) / n_bins, np.ones((1, 2 * n_bins))
    pairs = np.tile(np.eye(n_bins), (2, 2)) + 1e-3 * squares * mean
    energies = g.Add(g.MatMul(g.Mul(low, low), np.concatenate([pairs, squares], 1)), 1e-7 * gain**2)
    energy, mean = g.Split(energies, np.array([2 * n_bins, 1]), outputs=2, axis=2)
    level = g.Mul(low, g.Pow(g.Mul(energy, mean), -0.25))

    advanced = g.Gather(g.integers(advances(codec, coder.before, coder.sent)[:, None]), place)
    state = g.state("phase", np.int64, [1, STREAMS, 1])
    phase = g.Mod(g.Add(g.CumSum(advanced, np.array(0)), state), np.array(1 << 32))
    g.keep(state, g.Slice(phase, np.array([-1]), np.array([_END])))
    middle = config.window // 2 + fourier.points - config.window
    # Turned back; where a place has its bin's conjugate, forth, and the layer that reads it turns its imaginary part round.
    sign = np.where(fourier.mirrored[where], 1, -1)
    angles = reference(codec, np.arange(n_bins), sign, middle)
    told = rotate(g, level, *sines(g, phase, g.Gather(g.integers(coder.sent), place), [angles.turned(QUARTER), angles]))
    weight = encoder.input.weight.clone()
    weight[:, n_bins : 2 * n_bins] *= -torch.from_numpy(sign)
    x = linear(g, g.Concat(told, hidden, axis=2), weight, encoder.input.bias)
    past = g.state("phase_block", np.float32, [STREAMS, config.phase_channels, encoder.block.depthwise.history])
    x, after = conv_next(g, x, encoder.block, past)
    g.keep(past, after)
    level = 1 / encoder.power.sqrt()
    return linear(g, layer_norm(g, x, encoder.norm), level * encoder.output.weight, level * encoder.output.bias, exact=True)


def search_phase(g: Builder, codec: Codec, latent: str, coder: PitchCoder, place: str) -> list[str]:
    """The codes of the phase's layers, int32 `[frames, 1, streams]` each: the first in a closed loop, the others of what it
    leaves."""
    quantizer: Any = codec.phase.quantizer  # type: ignore[union-attr]
    shape = [1, STREAMS, quantizer.memory.hidden_size]
    books = [Codebook.of(book.entries, eight_bit=g.eight_bit) for book in quantizer.codebooks()]
    said = books[0].table(g)

    def step(inner: Builder, hidden: str, target: str, same: str) -> tuple[list[str], list[str]]:
        told = linear(inner, hidden, quantizer.predict.weight, quantizer.predict.bias, exact=True)
        rest = inner.Sub(target, inner.Mul(told, same))
        entry = books[0].nearest(inner, rest)
        after = gru_step(inner, inner.Gather(said, entry), quantizer.memory, hidden)
        return [after], [rest, entry]

    state = g.state("phase_memory", np.float32, shape)
    series = [latent, steady(g, coder.before, coder.sent, place)]
    after, rest, entry = g.scan(step, [state], series, [np.float32] * 3, [shape])
    g.keep(state, after)
    codes = [entry]
    for before, book in itertools.pairwise(books):
        rest = g.Sub(rest, g.Gather(before.table(g), codes[-1]))
        codes.append(book.nearest(g, rest))
    return codes
