"""The decoder's graph: codes to latent and pitch, network, excitation, and the inverse transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from linnet.lab.dsp.excitation import NOISE_FRAMES, NOISE_MULTIPLIERS, NOISE_PRIME
from linnet.lab.export.builder import Builder
from linnet.lab.export.fourier import Fourier
from linnet.lab.export.layers import backbone, gru, gru_step, layer_norm, linear
from linnet.lab.export.quantizer import Codebook, PitchDecoder, advances, memory_table, reference, steady
from linnet.lab.systems.codec import Codec

_END = np.iinfo(np.int64).max
_CYCLE = 1 << 32
# Near a pulse the closed form of a sum of harmonics is 0 / 0; this much is added below, and in proportion above.
_AT_PULSE = 1e-8
# Log-magnitudes are centred at the level of speech.
_LEVEL = 3.0


@torch.no_grad()
def export_decoder(codec: Codec, *, eight_bit: bool = True) -> bytes:
    """The decoder's graph: `codes` int64 `[frames, layers]` (-1: did not arrive) and states -> `samples`, new states."""
    codec = codec.eval()
    g = Builder(eight_bit=eight_bit)
    codes = g.input("codes", np.int64, ["frames", codec.config.n_layers])
    received = dequantize(g, codec, codes)
    fourier = Fourier(codec.decoder.stft.n_fft)
    spectrum = network(g, codec, fourier, received)
    g.output("samples", overlap_add(g, codec, fourier, spectrum), np.float32, ["samples"])
    return g.finish()


@dataclass(frozen=True)
class Received:
    """What the codes say of every frame: latent `[frames, dim]`, the number of layers that arrived, the place in the pitch
    table and 1 + pitch step `[frames]`, and, in a system that codes it, the phase's latent `[frames, phase_dim]`."""

    latent: str
    count: str
    place: str
    pitch: str
    phase: str | None
    table: PitchDecoder


def dequantize(g: Builder, codec: Codec, codes: str) -> Received:
    """Codes to what they stand for."""
    config = codec.config
    quantizer: Any = codec.quantizer
    size, n_above, n_phase = quantizer.index.size, config.spectrum_layers - 1, config.phase_layers
    # A layer counts only if all below it arrived. What did not arrive reads a table's last row.
    missing = g.CumSum(g.Cast(g.Less(codes, np.array(0)), to=TensorProto.INT64), np.array(1))
    arrived = g.Equal(missing, np.array(0))
    count = g.ReduceSum(g.Cast(arrived, to=TensorProto.INT64), np.array([1]), keepdims=0)
    rows = np.array([0, *(size * np.arange(n_above)), *([0] * n_phase)])
    lost = np.array([size, *([size * n_above] * n_above), *([size] * n_phase)])
    places = g.Where(arrived, g.Add(codes, rows), lost)
    sizes = np.array([1, n_above, *([1] * n_phase)])
    base_column, above, *fine = g.Split(places, sizes, outputs=len(sizes), axis=1)
    base_index = g.Reshape(base_column, np.array([-1]))
    base = Codebook.of(quantizer.base.entries, eight_bit=g.eight_bit).table(g, lost=True)
    entry = g.Gather(g.integers(np.append(quantizer.entries.numpy(), quantizer.index.n_entries)), base_index)
    table = PitchDecoder.of(quantizer)
    symbol = g.Gather(g.integers(table.symbol), base_index)
    hidden, place = remember(g, codec, memory_table(g, quantizer, base, lost=True), entry, table, symbol)

    books = [Codebook.of(book.entries, eight_bit=g.eight_bit) for book in quantizer.books]
    numbers = np.concatenate([*(book.numbers for book in books), np.zeros_like(books[0].numbers[:1])])
    found = g.Gather(g.Cast(numbers, to=TensorProto.FLOAT), above)
    found = g.Reshape(found, np.array([-1, numbers.shape[1] * n_above]))
    outward = [book.scale * layer.weight for book, layer in zip(books, quantizer.outward, strict=True)]
    # What the memory foretells and what the upper layers add, in one product.
    weight = torch.cat([quantizer.predict.weight, *outward], 1)
    told = linear(g, g.Concat(hidden, found, axis=1), weight, quantizer.predict.bias)
    latent, pitch = g.Add(told, g.Gather(base, entry)), g.Gather(g.integers(table.pitch), place)
    phase = dequantize_phase(g, codec, fine, place, table) if n_phase else None
    return Received(latent, count, place, pitch, phase, table)


def dequantize_phase(g: Builder, codec: Codec, codes: list[str], place: str, table: PitchDecoder) -> str:
    """The phase's latent `[frames, phase_dim]` from its layers' codes `[frames, 1]`, the last row where nothing arrived."""
    quantizer: Any = codec.phase.quantizer  # type: ignore[union-attr]
    books = [Codebook.of(book.entries, eight_bit=g.eight_bit) for book in quantizer.codebooks()]
    vectors = [g.Gather(book.table(g, lost=True), code) for book, code in zip(books, codes, strict=True)]
    before = g.state("phase_memory", np.float32, [1, 1, quantizer.memory.hidden_size])
    y, after = gru(g, vectors[0], quantizer.memory, before)
    g.keep(before, after)
    earlier = g.Slice(g.Concat(before, y, axis=0), np.array([0]), np.array([-1]))
    told = linear(g, earlier, quantizer.predict.weight, quantizer.predict.bias, exact=True)
    same = g.Unsqueeze(steady(g, table.before, table.pitch, place), np.array([2]))
    total = g.Mul(told, same)
    for vector in vectors:
        total = g.Add(total, vector)
    arrived = g.Cast(g.Less(codes[0], np.array(len(books[0].numbers))), to=TensorProto.FLOAT)
    return g.Mul(g.Reshape(total, np.array([-1, codec.config.phase_dim])), arrived)


def remember(
    g: Builder, codec: Codec, said: str, entry: str, table: PitchDecoder, symbol: str
) -> tuple[str, str]:  # fmt: skip
    """What follows the frames one by one: the memory before each frame `[frames, hidden]`, the place in the pitch table."""
    layer: Any = codec.quantizer.memory

    def step(inner: Builder, hidden: str, previous: str, entry: str, what: str) -> tuple[list[str], list[str]]:
        after = gru_step(inner, inner.Gather(said, entry), layer, hidden)
        place = inner.Add(previous, what)
        return [after, inner.Gather(inner.integers(table.pitch * table.n), place)], [inner.Identity(hidden), place]

    shapes = [[1, 1, layer.hidden_size], [1]]
    states = g.state("memory", np.float32, shapes[0]), g.state("pitch", np.int64, shapes[1])
    series = [g.Unsqueeze(each, np.array([1])) for each in (entry, symbol)]
    *after, before, place = g.scan(step, states, series, [np.float32, np.int64, np.int64, np.int64], shapes)
    for state, value in zip(states, after, strict=True):
        g.keep(state, value)
    return g.Reshape(before, np.array([-1, layer.hidden_size])), g.Reshape(place, np.array([-1]))


def network(g: Builder, codec: Codec, fourier: Fourier, received: Received) -> str:
    """The spectrum `[frames, 1, rows, 2 columns]` that the network makes of what was received."""
    decoder, config = codec.decoder, codec.config
    x = linear(g, received.latent, decoder.input.weight, decoder.input.bias)
    x = g.Add(x, g.Gather(g.floats(decoder.pitch.weight), received.pitch))
    x = g.Add(x, g.Gather(g.floats(decoder.quality.weight), received.count))
    if received.phase is not None:
        x = g.Add(x, linear(g, received.phase, decoder.phase_input.weight, decoder.phase_input.bias, exact=True))
    x = g.Reshape(x, np.array([1, -1, config.decoder_channels]))
    x = backbone(g, x, decoder.blocks, "decoder")
    hidden = layer_norm(g, x, decoder.norm)
    if config.head == "free":
        return free_spectrum(g, fourier, codec, hidden)
    return excited_spectrum(g, fourier, codec, hidden, received)


Head: TypeAlias = "tuple[Tensor, Tensor, Places]"


def at_places(g: Builder, hidden: str, groups: list[list[Head]]) -> list[str]:
    """One product for several heads: rows by bin (weight `[bins, channels]`, bias), and where they are wanted.

    Gives `[frames, heads, rows, own columns]` for each group of heads that have their columns in common.
    """
    heads = [head for group in groups for head in group]
    weight = torch.cat([own[torch.from_numpy(places.bins)] * places.scale for own, _, places in heads])
    bias = torch.cat([own[torch.from_numpy(places.bins)] * places.scale.squeeze(1) for _, own, places in heads])
    sizes = np.array([sum(len(places.bins) for *_, places in group) for group in groups])
    product = linear(g, hidden, weight, bias)
    split = g.Split(product, sizes, outputs=len(sizes), axis=-1) if len(sizes) > 1 else (product,)
    shapes = [(len(group), group[0][2].rows, len(group[0][2].columns)) for group in groups]
    return [g.Reshape(part, np.array([-1, *shape])) for part, shape in zip(split, shapes, strict=True)]


@dataclass(frozen=True)
class Places:
    """Some columns of a spectrum: `bins` and the factor `scale` `[places, 1]` for each place, row by row.

    The factor is 0 beyond the bins there are, and -1 where an `odd` part (a phase, an imaginary part) meets a mirrored bin.
    """

    rows: int
    columns: np.ndarray
    bins: np.ndarray
    scale: Tensor

    @classmethod
    def of(cls, fourier: Fourier, n_bins: int, *, odd: bool = False) -> Places:
        """The columns that hold the lowest `n_bins` bins."""
        shape = (fourier.rows, fourier.columns)
        bins, mirrored = fourier.bins.reshape(shape), fourier.mirrored.reshape(shape)
        columns = np.flatnonzero((bins < n_bins).sum(0) > 1)
        own, flipped = bins[:, columns].flatten(), mirrored[:, columns].flatten()
        scale = np.where(own < n_bins, np.where(flipped & odd, -1.0, 1.0), 0.0).astype(np.float32)
        return cls(fourier.rows, columns, np.minimum(own, n_bins - 1), torch.from_numpy(scale).unsqueeze(1))

    def widen(self, g: Builder, x: str, columns: int) -> str:
        """`[frames, heads, rows, own columns]` -> all columns, 0 where there was none."""
        before, after = self.columns[0], columns - 1 - self.columns[-1]
        return g.Pad(x, np.array([0, 0, 0, before, 0, 0, 0, after])) if before + after else x


def magnitude(g: Builder, logarithm: str) -> str:
    return g.Exp(g.Clip(logarithm, -14.0, 6.0))


def free_spectrum(g: Builder, fourier: Fourier, codec: Codec, hidden: str) -> str:
    """The spectrum `[frames, 1, rows, 2 columns]` of free magnitudes and phases."""
    (weight, turn_weight), (bias, turn_bias) = (part.chunk(2) for part in (codec.decoder.head.weight, codec.decoder.head.bias))
    everywhere, odd = (Places.of(fourier, fourier.points // 2 + 1, odd=odd) for odd in (False, True))
    heads = [(weight, bias - _LEVEL, everywhere), (turn_weight, turn_bias, odd)]
    logarithm, phase = at_places(g, hidden, [[head] for head in heads])
    gain = magnitude(g, logarithm)
    return g.Concat(g.Mul(gain, g.Cos(phase)), g.Mul(gain, g.Sin(phase)), axis=-1)


def excited_spectrum(g: Builder, fourier: Fourier, codec: Codec, hidden: str, received: Received) -> str:
    """The spectrum `[frames, 1, rows, 2 columns]` of both sources through their filters, and of the coded low band."""
    decoder = codec.decoder
    n_bins, n_turned = fourier.points // 2 + 1, decoder.n_turned
    weights, biases = (part.split([n_bins, n_turned, n_bins]) for part in (decoder.head.weight, decoder.head.bias))
    everywhere, turned_places = Places.of(fourier, n_bins), Places.of(fourier, n_turned, odd=True)
    heads = [
        [(weights[0], biases[0] - _LEVEL, everywhere), (weights[2], biases[2] - _LEVEL, everywhere)],
        [(weights[1], biases[1], turned_places)],
    ]
    if received.phase is not None:
        heads.append(low_heads(fourier, codec, decoder.phase_head.weight, decoder.phase_head.bias))
    logarithms, turn, *low = at_places(g, hidden, heads)
    phase, counter = clock(g, codec, received)
    real, imaginary = g.Split(
        fourier.forward(g, harmonic_frames(g, codec, fourier, phase, received.pitch)), outputs=2, axis=-1, num_outputs=2
    )
    turn = turned_places.widen(g, turn, fourier.columns)
    cosine, sine = g.Cos(turn), g.Sin(turn)
    parts = [
        g.Sub(g.Mul(cosine, real), g.Mul(sine, imaginary)),
        g.Add(g.Mul(cosine, imaginary), g.Mul(sine, real)),
    ]
    if received.phase is not None:
        coded = low_band(g, fourier, codec, received, low[0], phase)
        parts = [g.Add(part, own) for part, own in zip(parts, coded, strict=True)]
    gain, noise_gain = g.Split(magnitude(g, logarithms), outputs=2, axis=1, num_outputs=2)
    noises = noise_spectra(g, codec, fourier)
    parts = [
        g.Add(g.Mul(gain, part), g.Mul(noise_gain, g.Gather(noise, counter))) for part, noise in zip(parts, noises, strict=True)
    ]
    return g.Concat(*parts, axis=-1)


def low_heads(fourier: Fourier, codec: Codec, weight: Tensor, bias: Tensor) -> list[Head]:
    """The real and the imaginary parts of the coded low band, in units of the magnitude."""
    return [
        (16 * own, 16 * own_bias, Places.of(fourier, codec.config.phase_bins, odd=odd))
        for own, own_bias, odd in zip(weight.chunk(2), bias.chunk(2), (False, True), strict=True)
    ]


def low_band(g: Builder, fourier: Fourier, codec: Codec, received: Received, low: str, phase: str) -> tuple[str, str]:
    """Real and imaginary parts `[frames, 1, rows, columns]` of the coded low band over the magnitude.

    From what the network says of it, `low` `[frames, 2, rows, own columns]`, told from the harmonic source.
    """
    skip: Tensor = codec.decoder.phase_skip.weight
    heads = low_heads(fourier, codec, skip, torch.zeros(len(skip)))
    low = g.Add(low, *at_places(g, received.phase, [heads]))  # type: ignore[arg-type]
    odd = heads[1][2]
    shape = (odd.rows, len(odd.columns))
    bins, sign = odd.bins.reshape(shape), odd.scale.numpy().reshape(shape)
    # Cosine and cosine, minus sine and sine: what each part counts in its own place and in the other's.
    quarters = np.array([1, 1, 2, 0])[:, None, None]
    rotation = reference(g, codec, phase, received.pitch, bins, sign, quarters, codec.config.window // 2)
    own, across = g.Split(rotation, outputs=2, axis=1, num_outputs=2)
    turned = g.Add(g.Mul(low, own), g.Mul(g.Gather(low, np.array([1, 0]), axis=1), across))
    return g.Split(odd.widen(g, turned, fourier.columns), outputs=2, axis=1, num_outputs=2)


def clock(g: Builder, codec: Codec, received: Received) -> tuple[str, str]:
    """The source's phase `[frames, 1, 1, 1]` in the middle of each window, and the number of its noise `[frames, 1]`."""
    table = received.table
    advance = g.integers(advances(codec, table.before, table.pitch)[:, None])
    # The noise's counter is a second phase.
    phases = g.state("phase", np.int64, [1, 2])
    both = g.Gather(g.Concat(advance, g.integers(np.ones((len(table.pitch), 1), np.int64)), axis=1), received.place)
    both = g.Mod(g.Add(g.CumSum(both, np.array(0)), phases), np.array([_CYCLE, NOISE_FRAMES]))
    g.keep(phases, g.Slice(both, np.array([-1]), np.array([_END])))
    phase, counter = g.Split(both, outputs=2, axis=1, num_outputs=2)
    return g.Reshape(phase, np.array([-1, 1, 1, 1])), counter


def harmonic_frames(g: Builder, codec: Codec, fourier: Fourier, phase: str, pitch: str) -> str:
    """The lab's harmonic frames, windowed: `[frames, 1, points / columns, columns]`.

    A sine of the sum of the phase and of what a sample adds to it: the latter is a table by pitch and sample, made of
    integers when the graph is loaded, so that each frame costs two sines and two cosines.
    """
    window, increments = codec.config.window, codec.decoder.reference.increments.numpy()
    current = np.concatenate([increments[:1], increments])
    voiced = np.arange(len(current)) > 0
    count = _CYCLE // 2 // current - 1
    # Of the quotient's two sides: so many half phases make the angle.
    multiples = np.stack([2 * count + 1, np.ones_like(count)], 1)[..., None, None]
    steps = np.arange(fourier.points).reshape(-1, fourier.columns) - window // 2

    def radians(half_phases: str) -> str:
        return g.Mul(g.Cast(g.Mod(half_phases, np.array(2 * _CYCLE)), to=TensorProto.FLOAT), np.pi / _CYCLE)

    level = np.where(voiced, np.sqrt(0.5 / count), 0)[:, None, None, None]
    loudness = np.concatenate([level, np.ones_like(level)], 1)
    added = radians(g.Mul(current[:, None, None, None] * multiples, steps))
    cosines, sines = g.Mul(g.Cos(added), loudness), g.Mul(g.Sin(added), loudness)
    angle = radians(g.Mul(phase, g.Gather(multiples, pitch)))
    # In doubles, for a sine's last bits depend on the length of the call, and a pulse would magnify them.
    wide = g.Cast(angle, to=TensorProto.DOUBLE)
    sine, cosine = (g.Cast(part, to=TensorProto.FLOAT) for part in (g.Sin(wide), g.Cos(wide)))
    quotient = g.Add(g.Mul(sine, g.Gather(cosines, pitch)), g.Mul(cosine, g.Gather(sines, pitch)))
    above, below = g.Split(quotient, outputs=2, axis=1, num_outputs=2)
    at_pulse = g.Gather(_AT_PULSE * level * multiples[:, :1], pitch)
    ratio = g.Div(g.Add(g.Mul(above, below), at_pulse), g.Add(g.Mul(below, below), _AT_PULSE))
    hann = np.pad(codec.decoder.stft.hann.numpy(), (0, fourier.points - window))
    return g.Mul(g.Sub(ratio, g.Gather(level, pitch)), hann.reshape(-1, fourier.columns))


def noise_spectra(g: Builder, codec: Codec, fourier: Fourier) -> tuple[str, str]:
    """Real and imaginary parts of all frames of noise there are, `[NOISE_FRAMES, rows, columns]`; row n is frame n - 1.

    All of it is worked out when the graph is loaded.
    """
    hop, window = codec.config.hop, codec.config.window
    hops = g.Reshape(noise(g, NOISE_FRAMES * hop), np.array([NOISE_FRAMES, hop]))
    parts = -(-fourier.points // hop)

    def some(value: str, first: int, last: int) -> str:
        return g.Slice(value, np.array([first]), np.array([last]))

    around = g.Concat(some(hops, -1, _END), hops, some(hops, 0, parts - 2), axis=0)
    wide = g.Concat(*(some(around, k, k + NOISE_FRAMES) for k in range(parts)), axis=1)
    frames = g.Slice(wide, np.array([0]), np.array([fourier.points]), np.array([1]))
    hann = np.pad(codec.decoder.stft.hann.numpy(), (0, fourier.points - window))
    shaped = g.Reshape(g.Mul(frames, hann), np.array([0, 1, -1, fourier.columns]))
    return g.Split(g.Squeeze(fourier.forward(g, shaped), np.array([1])), outputs=2, axis=-1, num_outputs=2)


def noise(g: Builder, count: int) -> str:
    """The lab's `noise_samples`, in the graph's operators."""
    number = g.Range(np.array(0), np.array(count), np.array(1))
    prime = np.array(NOISE_PRIME)
    mixed = g.Mod(g.Add(g.Mul(number, np.array(48271)), np.array(12345)), prime)
    for multiplier in NOISE_MULTIPLIERS:
        product = g.Mul(g.Mod(g.Mul(mixed, mixed), prime), np.array(multiplier))
        mixed = g.Mod(g.Add(product, number), prime)
    return g.Mul(g.Sub(g.Mul(g.Cast(mixed, to=TensorProto.FLOAT), 1 / NOISE_PRIME), 0.5), 12.0**0.5)


def overlap_add(g: Builder, codec: Codec, fourier: Fourier, spectrum: str) -> str:
    """Spectra to samples, overlapping with the frames before: the state holds those, `[frames, hops * hop]`."""
    stft, hop = codec.decoder.stft, codec.config.hop
    width = (stft.back + 1) * hop
    rows = -(-width // fourier.columns)
    frames = g.Reshape(fourier.inverse(g, spectrum, rows), np.array([-1, rows * fourier.columns]))
    if rows * fourier.columns > width:
        frames = g.Slice(frames, np.array([0]), np.array([width]), np.array([1]))
    synthesis = np.pad(stft.synthesis.numpy(), (0, width - stft.window))
    tails = g.state("tails", np.float32, [stft.back, width])
    joined = g.Concat(tails, g.Mul(frames, synthesis), axis=0)
    g.keep(tails, g.Slice(joined, np.array([-stft.back]), np.array([_END])))
    total = None
    for k in range(stft.back + 1):
        start, end = np.array([stft.back - k, k * hop]), np.array([-k or _END, (k + 1) * hop])
        part = g.Slice(joined, start, end, np.array([0, 1]))
        total = part if total is None else g.Add(total, part)
    return g.Reshape(total, np.array([-1]))
