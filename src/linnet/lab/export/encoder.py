"""The encoder's graph: spectra, pitch tracker, network, the closed loop of the base layer, and the layers above it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from linnet.lab.dsp.stft import Stft
from linnet.lab.export.builder import Builder
from linnet.lab.export.fourier import Fourier
from linnet.lab.export.layers import backbone, conv_next, gru, gru_step, gru_table, layer_norm, linear
from linnet.lab.export.quantizer import Codebook, PitchCoder, advances, memory_table, reference, steady
from linnet.lab.systems.codec import Codec
from linnet.lab.systems.tracker import PitchTracker

_END = np.iinfo(np.int64).max
# The lab's features are the logarithm of a bin's energy plus this, over `_SPREAD`.
_CENTRE, _FLOOR, _SPREAD = 4.0, 1e-7, 4.0


@torch.no_grad()
def export_encoder(codec: Codec, *, eight_bit: bool = True) -> bytes:
    """The encoder's graph: `samples` float32 `[frames * hop]` and states -> `codes` int64 `[frames, layers]`, new states."""
    codec = codec.eval()
    g = Builder(eight_bit=eight_bit)
    tracker = codec.tracker
    samples = g.input("samples", np.float32, ["samples"])
    # The decibels' centre as a gain: what an 8-bit product rounds should lie around zero.
    loudness = float(np.exp(_CENTRE / 2))
    transforms = [(tracker.long, 1.0), (tracker.short, 1.0), (codec.stft, loudness)]
    found = spectra(g, samples, codec.config.hop, transforms)
    wanted = pitch(g, tracker, [power for _, power in found[:2]])
    spectrum, power = found[2]
    energy, gain = g.Add(power, _FLOOR * float(np.exp(_CENTRE))), None
    if codec.enhancer is not None:
        energy, gain = enhance(g, codec, power, energy)
    latent, hidden = network(g, codec, energy, wanted)
    base = search_base(g, codec, latent, wanted)
    codes = [base.codes, *search_rest(g, codec, base.rest)]
    if codec.phase is not None:
        low = lowest(g, codec, spectrum, gain)
        codes += search_phase(g, codec, phase_latent(g, codec, low, loudness, hidden, base), base)
    columns = g.Cast(g.Concat(*codes, axis=1), to=TensorProto.INT64)
    g.output("codes", columns, np.int64, ["frames", codec.config.n_layers])
    return g.finish()


def spectra(g: Builder, samples: str, hop: int, transforms: list[tuple[Stft, float]]) -> list[tuple[str, str]]:
    """Spectra of the frames of `samples` in `Fourier`'s order, real and imaginary parts `[frames, 1, rows, 2 columns]`, and
    their powers `[frames, 1, places]`; a gain goes with each Stft.

    The lab pads a window at its end, this at its beginning, so that all of them are cut from one past: the middle of a window
    comes later by as much. Transforms of equal length are one product.
    """
    back = max(stft.back for stft, _ in transforms)
    past = g.state("past", np.float32, [back * hop])
    joined = g.Concat(past, samples, axis=0)
    g.keep(past, g.Slice(joined, np.array([-back * hop]), np.array([_END])))
    hops = g.Reshape(joined, np.array([-1, hop]))
    count = g.Div(g.Squeeze(g.Shape(samples)), np.array(hop))
    first = g.Unsqueeze(g.Range(np.array(0), count, np.array(1)), np.array([1]))
    frames = g.Reshape(g.Gather(hops, g.Add(first, np.arange(back + 1))), np.array([-1, (back + 1) * hop]))
    found: dict[int, tuple[str, str]] = {}
    for points in sorted({stft.n_fft for stft, _ in transforms}):
        alike = [index for index, (stft, _) in enumerate(transforms) if stft.n_fft == points]
        own = [transforms[index] for index in alike]
        windows = [gain * np.pad(stft.hann.numpy(), (points - stft.window, 0)) for stft, gain in own]
        fourier = Fourier(points)
        last = g.Reshape(g.Slice(frames, np.array([-points]), np.array([_END]), np.array([1])), np.array([-1, 1, points]))
        shaped = g.Reshape(g.Mul(last, np.stack(windows)), np.array([0, 0, -1, fourier.columns]))
        spectrum = fourier.forward(g, shaped)
        real, imaginary = g.Split(g.Mul(spectrum, spectrum), outputs=2, axis=-1, num_outputs=2)
        power = g.Reshape(g.Add(real, imaginary), np.array([0, len(alike), fourier.size]))
        for index, own_spectrum, own_power in zip(alike, *(_each(g, x, len(alike)) for x in (spectrum, power)), strict=True):
            found[index] = own_spectrum, own_power
    return [found[index] for index in range(len(transforms))]


def _each(g: Builder, x: str, count: int) -> Sequence[str]:
    return g.Split(x, outputs=count, axis=1, num_outputs=count) if count > 1 else (x,)


def pitch(g: Builder, tracker: PitchTracker, powers: list[str]) -> str:
    """1 + the tracker's pitch step, int64 `[frames, 1]`, 0 where unvoiced.

    The lags of an autocorrelation go straight into the input layer, so their matrix and the layer's are one. All weights are
    exact: with 8 bits the pitches that change cost 0.01 of PESQ-WB at one layer.
    """
    lags = tracker.lags[1] - tracker.lags[0]
    weight, energies, features = tracker.input.weight, [], []
    for number, (name, power) in enumerate(zip(("long", "short"), powers, strict=True)):
        first = number * (lags + 1)
        own: Tensor = 4 * weight[:, first : first + lags] @ getattr(tracker, f"{name}_lags").T
        matrix = spread(torch.cat([own, getattr(tracker, f"{name}_power").T]), Fourier(getattr(tracker, name).n_fft))
        magnitude = g.Sqrt(g.Add(power, 1e-9))
        summed = g.MatMul(magnitude, g.floats(matrix.T.contiguous()))
        product, energy = g.Split(summed, np.array([len(weight), 1]), outputs=2, axis=-1)
        features.append(g.Div(product, energy))
        energies.append(energy)
    levels = weight[:, [lags, 2 * lags + 1]]
    level = linear(g, g.Log(g.Concat(*energies, axis=-1)), 0.25 * levels, tracker.input.bias + levels.sum(1))
    x = g.Relu(g.Add(g.Add(*features), level))
    hidden = g.state("tracker", np.float32, [1, 1, tracker.gru.hidden_size])
    y, after = gru(g, x, tracker.gru, hidden)
    g.keep(hidden, after)
    logits = linear(g, g.Concat(x, y, axis=-1), tracker.output.weight, tracker.output.bias, exact=True)
    # Class 0 must have more than half: far ahead of all others if it has, behind them if not.
    n_classes = tracker.output.out_features
    ahead = np.where(np.arange(n_classes) == 0, 1e6, 1).astype(np.float32)
    handicap = np.where(np.arange(n_classes) == 0, -0.5e6, 0).astype(np.float32)
    return g.ArgMax(g.Add(g.Mul(g.Softmax(logits, axis=-1), ahead), handicap), axis=-1, keepdims=0)


def enhance(g: Builder, codec: Codec, power: str, energy: str) -> tuple[str, str]:
    """The enhancer, of a power spectrum and the same above the floor: what passes, above the floor, and the gains, all of one
    shape."""
    enhancer: Any = codec.enhancer
    fourier, lookahead = Fourier(codec.stft.n_fft), codec.config.lookahead
    x = linear(g, g.Log(energy), spread(enhancer.input.weight / _SPREAD, fourier), enhancer.input.bias)
    x = backbone(g, g.Reshape(x, np.array([1, -1, codec.config.enhancer_channels])), enhancer.blocks, "enhancer")
    wide = linear(g, layer_norm(g, x, enhancer.norm), enhancer.head.weight[fourier.bins], enhancer.head.bias[fourier.bins])
    gain = g.Mul(g.Sigmoid(g.Reshape(wide, np.array([-1, 1, fourier.size]))), 2.0)
    if lookahead:
        power = g.delay("power_past", power, lookahead, [1, fourier.size])
    return g.Add(g.Mul(power, g.Mul(gain, gain)), _FLOOR * float(np.exp(_CENTRE))), gain


def network(g: Builder, codec: Codec, energy: str, wanted: str) -> tuple[str, str]:
    """The latent `[1, frames, dim]` of one Stft's power spectrum above the floor, whose gain centred it, and the pitch; and the
    last hidden layer `[1, frames, channels]`."""
    encoder = codec.encoder
    weight = spread(encoder.input.weight / _SPREAD, Fourier(codec.stft.n_fft))
    x = linear(g, g.Log(energy), weight, encoder.input.bias)
    x = g.Add(x, g.Gather(g.floats(encoder.pitch.weight), wanted))
    x = g.Reshape(x, np.array([1, -1, codec.config.encoder_channels]))
    x = backbone(g, x, encoder.blocks, "encoder")
    scale = 1 / encoder.power.sqrt()
    latent = linear(g, layer_norm(g, x, encoder.norm), scale * encoder.output.weight, scale * encoder.output.bias)
    return latent, x


def spread(weight: Tensor, fourier: Fourier) -> Tensor:
    """A matrix over bins as one over the places of a spectrum: each bin is read where it first appears."""
    wide = weight.new_zeros(len(weight), fourier.size)
    wide[:, _first_places(fourier)] = weight
    return wide


def _first_places(fourier: Fourier) -> np.ndarray:
    """Where each bin first appears in a spectrum, `[bins]`."""
    return np.unique(fourier.bins, return_index=True)[1]


def lowest(g: Builder, codec: Codec, spectrum: str, gain: str | None) -> str:
    """Real parts, then imaginary parts, of a spectrum's lowest bins where they first appear: `[frames, 2 * phase_bins]`; of an
    enhancer's `gain`, what it lets pass."""
    fourier, config = Fourier(codec.stft.n_fft), codec.config
    places = _first_places(fourier)[: config.phase_bins]
    row, column = np.divmod(places, fourier.columns)
    where = np.concatenate([row * 2 * fourier.columns + column + part for part in (0, fourier.columns)])
    low = g.Gather(g.Reshape(spectrum, np.array([-1, 2 * fourier.size])), where, axis=1)
    if gain is None:
        return low
    if config.lookahead:
        low = g.delay("low_past", low, config.lookahead, [2 * config.phase_bins])
    return g.Mul(low, g.Gather(g.Squeeze(gain, np.array([1])), np.tile(places, 2), axis=1))


@dataclass(frozen=True)
class Base:
    """The base layer's codes, int32 `[frames, 1]`, what they leave of the latent `[frames, 1, dim]`, 1 + the pitch step as sent
    `[frames]`, and its place in `table`."""

    codes: str
    rest: str
    sent: str
    place: str
    table: PitchCoder


def search_base(g: Builder, codec: Codec, latent: str, wanted: str) -> Base:
    """The closed loop of the base layer."""
    quantizer, dim = codec.quantizer, codec.config.latent_dim
    coder = PitchCoder.of(quantizer)
    book = Codebook.of(quantizer.base.entries, eight_bit=g.eight_bit)
    said = memory_table(g, quantizer, book.table(g))

    def step(inner: Builder, hidden: str, previous: str, target: str, want: str) -> tuple[list[str], list[str]]:
        predicted = linear(inner, hidden, quantizer.predict.weight, quantizer.predict.bias, exact=True)
        rest = inner.Reshape(inner.Sub(target, predicted), np.array([1, dim]))
        place = inner.Add(previous, want)
        kind = inner.Gather(inner.integers(coder.kind), place)
        entry = book.nearest_of_kind(inner, rest, quantizer.entry_kind.numpy(), kind)
        after = gru_step(inner, inner.Gather(said, entry), quantizer.memory, hidden)
        sent = inner.Gather(inner.integers(coder.sent * coder.n), place)
        return [after, sent], [rest, entry, place]

    shapes = [[1, 1, quantizer.memory.hidden_size], [1]]
    hidden = g.state("memory", np.float32, shapes[0])
    # In units of the table's rows, so that a row and a column only need adding.
    previous = g.state("pitch", np.int64, [1])
    series = [g.Reshape(latent, np.array([-1, dim])), g.Reshape(wanted, np.array([-1]))]
    types = [np.float32, np.int64, np.float32, np.int64]
    *after, rest, entry, place = g.scan(step, [hidden, previous], series, types, shapes)
    g.keep(hidden, after[0])
    g.keep(previous, after[1])
    codes = g.Cast(g.Add(entry, g.Gather(g.integers(coder.first), place)), to=TensorProto.INT32)
    left = g.Sub(rest, g.Gather(book.table(g), entry))
    sent = g.Gather(g.integers(coder.sent), g.Reshape(place, np.array([-1])))
    return Base(codes, left, sent, g.Reshape(place, np.array([-1])), coder)


def search_rest(g: Builder, codec: Codec, rest: str) -> list[str]:
    """Codes of layers 2 and up, int32 `[frames, 1]` each, of what the base layer leaves, `[frames, 1, dim]`."""
    codes = []
    layers: Any = zip(codec.quantizer.inward, codec.quantizer.outward, codec.quantizer.books, strict=True)
    for inward, outward, book in layers:
        codebook = Codebook.of(book.entries, eight_bit=g.eight_bit)
        small = g.MatMul(rest, inward.weight.T)
        codes.append(codebook.nearest(g, small))
        if len(codes) < len(codec.quantizer.books):
            said = g.MatMul(codebook.table(g), outward.weight.T)
            rest = g.Sub(rest, g.Gather(said, codes[-1]))
    return codes


def phase_latent(g: Builder, codec: Codec, low: str, gain: float, hidden: str, base: Base) -> str:
    """The phase's latent `[1, frames, phase_dim]` of the lowest bins, which came with a `gain`."""
    encoder: Any = codec.phase.encoder  # type: ignore[union-attr]
    config, n_bins = codec.config, codec.config.phase_bins
    fourier = Fourier(encoder.reference.n_fft)
    place = _first_places(fourier)[:n_bins]
    other = g.Gather(low, np.roll(np.arange(2 * n_bins), n_bins), axis=1)

    coder = base.table
    advanced = g.Gather(g.integers(advances(codec, coder.before, coder.sent)[:, None]), base.place)
    state = g.state("phase", np.int64, [1, 1])
    phase = g.Mod(g.Add(g.CumSum(advanced, np.array(0)), state), np.array(1 << 32))
    g.keep(state, g.Slice(phase, np.array([-1]), np.array([_END])))
    middle = config.window // 2 + fourier.points - config.window
    # Cosine and cosine, sine and minus sine; where a place has its bin's conjugate, its imaginary part counts half a cycle
    # later, which is its negative.
    conjugate = 2 * fourier.mirrored[place]
    quarters = np.concatenate([np.ones_like(conjugate), 1 + conjugate, conjugate, np.full_like(conjugate, 2)])
    rotation = reference(g, codec, phase, base.sent, np.tile(np.arange(n_bins), 4), np.ones(1), quarters, middle)
    cosines, sines = g.Split(rotation, outputs=2, axis=1, num_outputs=2)
    told = g.Add(g.Mul(low, cosines), g.Mul(other, sines))

    # Each energy twice, for the real and for the imaginary part.
    floor = 1e-7 * gain**2
    energy = g.Add(g.Mul(low, low), g.Mul(other, other))
    mean = g.ReduceMean(energy, np.array([1]))
    product = g.Mul(g.Add(energy, g.Add(g.Mul(mean, 1e-3), floor)), g.Add(mean, floor))
    told = g.Unsqueeze(g.Mul(told, g.Pow(product, -0.25)), np.array([0]))
    x = linear(g, g.Concat(told, hidden, axis=2), encoder.input.weight, encoder.input.bias)
    past = g.state("phase_block", np.float32, [1, config.phase_channels, encoder.block.depthwise.history])
    x, after = conv_next(g, x, encoder.block, past)
    g.keep(past, after)
    level = 1 / encoder.power.sqrt()
    return linear(g, layer_norm(g, x, encoder.norm), level * encoder.output.weight, level * encoder.output.bias, exact=True)


def search_phase(g: Builder, codec: Codec, latent: str, base: Base) -> list[str]:
    """The codes of the phase's layers, int32 `[frames, 1]` each: the first in a closed loop, the others of what it leaves."""
    quantizer: Any = codec.phase.quantizer  # type: ignore[union-attr]
    dim, shape = codec.config.phase_dim, [1, 1, quantizer.memory.hidden_size]
    books = [Codebook.of(book.entries, eight_bit=g.eight_bit) for book in quantizer.codebooks()]
    said = gru_table(g, books[0].table(g), len(books[0].numbers), quantizer.memory)

    def step(inner: Builder, hidden: str, target: str, same: str) -> tuple[list[str], list[str]]:
        told = linear(inner, hidden, quantizer.predict.weight, quantizer.predict.bias, exact=True)
        rest = inner.Reshape(inner.Sub(target, inner.Mul(told, same)), np.array([1, dim]))
        entry = books[0].nearest(inner, rest)
        after = gru_step(inner, inner.Gather(said, entry), quantizer.memory, hidden)
        return [after], [rest, entry]

    state = g.state("phase_memory", np.float32, shape)
    series = [g.Reshape(latent, np.array([-1, dim])), steady(g, base.table.before, base.table.sent, base.place)]
    after, rest, entry = g.scan(step, [state], series, [np.float32] * 3, [shape])
    g.keep(state, after)
    codes = [entry]
    for before, book in itertools.pairwise(books):
        rest = g.Sub(rest, g.Gather(before.table(g), codes[-1]))
        codes.append(book.nearest(g, rest))
    return codes
