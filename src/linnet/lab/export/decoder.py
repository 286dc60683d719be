"""The decoder's graph: codes to latent and pitch, network, excitation, and the inverse transform."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from linnet.bundle import BACKGROUND_CUT
from linnet.lab.dsp.excitation import NOISE_FRAMES, NOISE_MULTIPLIERS, NOISE_PRIME
from linnet.lab.export.builder import STREAMS, Builder
from linnet.lab.export.fourier import Fourier, rotate
from linnet.lab.export.layers import backbone, gru_before, layer_norm, linear
from linnet.lab.export.quantizer import (
    QUARTER,
    Angles,
    Codebook,
    PitchDecoder,
    advances,
    memory_table,
    radians,
    reference,
    sines,
    steady,
)
from linnet.lab.systems.codec import Codec
from linnet.lab.systems.remix import BACKGROUND_AHEAD, HELD_FRAMES, RemixCodec

_END = np.iinfo(np.int64).max
_CYCLE = 1 << 32
# Near a pulse the closed form of a sum of harmonics is 0 / 0; this much is added below, and in proportion above.
_AT_PULSE = 1e-8
# Log-magnitudes are centred at the level of speech.
_LEVEL = 3.0


@torch.no_grad()
def export_decoder(codec: Codec, *, eight_bit: bool = True) -> bytes:
    """The decoder's graph: `codes` int64 `[frames, streams, layers]` (-1: did not arrive) and states -> `samples` float32
    `[frames, streams, hop]`, new states."""
    codec = codec.eval()
    g = Builder(eight_bit=eight_bit)
    codes = g.input("codes", np.int64, ["frames", STREAMS, codec.config.n_layers])
    fourier = Fourier(codec.decoder.stft.n_fft)
    if isinstance(codec, RemixCodec):
        spectrum = mixed_spectrum(g, codec, fourier, codes)
    else:
        spectrum = network(g, codec, fourier, dequantize(g, codec, codes))
    g.output("samples", overlap_add(g, codec, fourier, spectrum), np.float32, ["frames", STREAMS, codec.config.hop])
    return g.finish()


def mixed_spectrum(g: Builder, codec: RemixCodec, fourier: Fourier, codes: str) -> str:
    """The spectra of both branches, each as far as it is to be heard, added: `[frames, streams, rows, 2 columns]`.

    The state `bundle.BACKGROUND_CUT`, which only a receiver changes, is how much of the background it does without.
    """
    sizes = [codec.config.spectrum_layers, codec.config.noise_layers]
    speech, noise = g.split(codes, sizes, axis=2)
    padded = g.Pad(noise, np.array([0, sizes[0] - sizes[1]]), np.array(-1), np.array([2]))
    speech_level, noise_level = present(g, speech, noise)
    cut = g.input(BACKGROUND_CUT, np.float32, [STREAMS, 1])
    g.keep(cut, g.Identity(cut))
    parts = []
    for name, own, level in (("speech", speech, speech_level), ("noise", padded, g.Mul(noise_level, g.Sub(1.0, cut)))):
        with g.scope(name):
            received = dataclasses.replace(dequantize(g, codec, own), background=name == "noise")
            parts.append(g.Mul(network(g, codec, fourier, received), g.Unsqueeze(level, np.array([3]))))
    return g.Add(*parts)


def present(g: Builder, speech: str, noise: str) -> tuple[str, ...]:
    """The lab's `present`: of each branch `[frames, streams, 1]`, 1 or 0."""
    first = g.Concat(*(g.Slice(codes, np.array([0]), np.array([1]), np.array([2])) for codes in (speech, noise)), axis=2)

    def step(inner: Builder, left: str, codes: str) -> tuple[list[str], list[str]]:
        arrived = inner.GreaterOrEqual(codes, np.array(0))
        some = inner.ReduceMax(inner.Cast(arrived, to=TensorProto.FLOAT), np.array([1]))
        left = inner.Where(arrived, float(HELD_FRAMES + 1), inner.Max(inner.Sub(left, some), 0.0))
        return [left], [inner.Min(left, 1.0)]

    shape: list[int | str] = [STREAMS, 2]
    state = g.state("present", np.float32, shape)
    after, level = g.scan(step, [state], [first], [np.float32, np.int64], [shape])
    g.keep(state, after)
    return g.split(level, [1, 1], axis=2)


@dataclass(frozen=True)
class Received:
    """What the codes say of every frame: latent `[frames, streams, dim]`, minus the number of layers that did not arrive, the
    place in the pitch table and 1 + pitch step `[frames, streams]`, and, in a system that codes it, the phase's latent
    `[frames, streams, phase_dim]`. A `background` has no voice."""

    latent: str
    missing: str
    place: str
    pitch: str
    phase: str | None
    table: PitchDecoder
    background: bool = False


def dequantize(g: Builder, codec: Codec, codes: str) -> Received:
    """Codes to what they stand for."""
    config = codec.config
    quantizer: Any = codec.quantizer
    # A layer counts only if all below it arrived: 0 there, and -1 from the first that is missing on. So what did not arrive
    # becomes -1, which reads a table's last row.
    missing = g.Max(g.CumSum(g.Min(codes, np.array(0)), np.array(2)), np.array(-1))
    arrived = g.BitwiseOr(codes, missing)
    sizes = [1, config.spectrum_layers - 1, *[1] * config.phase_layers]
    base_column, above, *fine_columns = g.split(arrived, [size for size in sizes if size], axis=2)
    base_index, *fine = (g.Squeeze(column, np.array([2])) for column in (base_column, *fine_columns))
    base = Codebook.of(quantizer.base.entries, eight_bit=g.eight_bit).table(g, lost=True)
    entry = g.Gather(g.integers(np.append(quantizer.entries.numpy(), quantizer.index.n_entries)), base_index)
    table = PitchDecoder.of(quantizer)
    symbol = g.Gather(g.integers(table.symbol), base_index)
    hidden = gru_before(g, g.Gather(memory_table(g, quantizer, base, lost=True), entry), quantizer.memory, "memory")
    place = follow_pitch(g, table, symbol)

    books = [Codebook.of(book.entries, eight_bit=g.eight_bit) for book in quantizer.books]
    found = [look_up(g, books, above)] if books else []
    outward = [book.scale * layer.weight for book, layer in zip(books, quantizer.outward, strict=True)]
    # What the memory foretells and what the upper layers add, in one product.
    weight = torch.cat([quantizer.predict.weight, *outward], 1)
    told = linear(g, g.Concat(hidden, *found, axis=2), weight, quantizer.predict.bias)
    latent, pitch = g.Add(told, g.Gather(base, entry)), g.Gather(g.integers(table.pitch), place)
    phase = dequantize_phase(g, codec, fine, place, table) if fine else None
    lost = g.ReduceSum(missing, np.array([2]), keepdims=0)
    return Received(latent, lost, place, pitch, phase, table)


def look_up(g: Builder, books: Sequence[Codebook], codes: str) -> str:
    """The entries of several codebooks, over their scales, side by side, from codes int64 `[frames, streams, books]`: zeros
    for -1. One table for all of them, each after a row of zeros."""
    numbers = np.concatenate([np.pad(book.numbers, ((1, 0), (0, 0))) for book in books])
    first = 1 + np.cumsum([0, *(1 + len(book.numbers) for book in books[:-1])])
    table = g.Cast(numbers, to=TensorProto.FLOAT) if g.eight_bit else g.value(numbers)
    return g.Reshape(g.Gather(table, g.Add(codes, first)), np.array([0, 0, -1]))


def dequantize_phase(g: Builder, codec: Codec, codes: Sequence[str], place: str, table: PitchDecoder) -> str:
    """The phase's latent `[frames, streams, phase_dim]` from its layers' codes `[frames, streams]`, -1: did not arrive."""
    quantizer: Any = codec.phase.quantizer  # type: ignore[union-attr]
    books = [Codebook.of(book.entries, eight_bit=g.eight_bit) for book in quantizer.codebooks()]
    vectors = [g.Gather(book.table(g, lost=True), code) for book, code in zip(books, codes, strict=True)]
    earlier = gru_before(g, vectors[0], quantizer.memory, "phase_memory")
    told = linear(g, earlier, quantizer.predict.weight, quantizer.predict.bias, exact=True)
    arrived = np.append(np.ones(len(books[0].numbers), np.int8), np.int8(0))[:, None]
    counts = g.Mul(steady(g, table.before, table.pitch, place), g.Gather(g.Cast(arrived, to=TensorProto.FLOAT), codes[0]))
    return g.Sum(g.Mul(told, counts), *vectors)


def follow_pitch(g: Builder, table: PitchDecoder, symbol: str) -> str:
    """The place in the pitch table, from the symbols, int64 `[frames, streams]` -> `[frames, streams]`."""

    def step(inner: Builder, previous: str, what: str) -> tuple[list[str], list[str]]:
        place = inner.Add(previous, what)
        return [inner.Gather(inner.integers(table.pitch * table.n), place)], [place]

    # In units of the table's rows, so that a row and a column only need adding.
    state = g.state("pitch", np.int64, [STREAMS])
    after, place = g.scan(step, [state], [symbol], [np.int64, np.int64], [[STREAMS]])
    g.keep(state, after)
    return place


def network(g: Builder, codec: Codec, fourier: Fourier, received: Received) -> str:
    """The spectrum `[frames, streams, rows, 2 columns]` that the network makes of what was received."""
    decoder, config = codec.decoder, codec.config
    # By minus the number of layers that did not arrive.
    quality = decoder.quality.weight[: config.spectrum_layers + config.phase_layers + 1].roll(1, 0)
    parts = [linear(g, received.latent, decoder.input.weight, decoder.input.bias)]
    if received.phase is not None:
        quality = quality + decoder.phase_input.bias
        parts.append(g.MatMul(received.phase, g.floats(decoder.phase_input.weight.T.contiguous())))
    parts += [g.Gather(g.floats(decoder.pitch.weight), received.pitch), g.Gather(g.floats(quality), received.missing)]
    hidden = layer_norm(g, backbone(g, g.Sum(*parts), decoder.blocks, "decoder"), decoder.norm)
    if config.head == "free":
        return free_spectrum(g, fourier, codec, hidden)
    if received.background:
        return background_spectrum(g, fourier, codec, hidden, received)
    return excited_spectrum(g, fourier, codec, hidden, received)


Head: TypeAlias = "tuple[Tensor, Tensor, Places]"


def stacked(heads: Sequence[Head]) -> tuple[Tensor, Tensor]:
    """Rows by bin (weight `[bins, channels]`, bias) of several heads as rows by the places where they are wanted."""
    weights = [own[torch.from_numpy(places.bins)] * places.scale for own, _, places in heads]
    biases = [own[torch.from_numpy(places.bins)] * places.scale.squeeze(1) for _, own, places in heads]
    return torch.cat(weights), torch.cat(biases)


def at_places(g: Builder, hidden: str, groups: Sequence[Sequence[Head]]) -> tuple[str, ...]:
    """One product for several groups of heads: `[frames, streams, places]` for each group."""
    weights, biases = zip(*map(stacked, groups), strict=True)
    product = linear(g, hidden, torch.cat(weights), torch.cat(biases))
    return g.split(product, [len(bias) for bias in biases], axis=2)


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
        """`[..., own columns]` -> all columns, 0 where there was none."""
        before, after = self.columns[0], columns - 1 - self.columns[-1]
        return g.Pad(x, np.array([before, after]), None, np.array([-1])) if before + after else x


def magnitude(g: Builder, logarithm: str) -> str:
    return g.Exp(g.Clip(logarithm, -14.0, 6.0))


def free_spectrum(g: Builder, fourier: Fourier, codec: Codec, hidden: str) -> str:
    """The spectrum `[frames, streams, rows, 2 columns]` of free magnitudes and phases."""
    (weight, turn_weight), (bias, turn_bias) = (part.chunk(2) for part in (codec.decoder.head.weight, codec.decoder.head.bias))
    everywhere, odd = (Places.of(fourier, fourier.points // 2 + 1, odd=odd) for odd in (False, True))
    heads = [[(weight, bias - _LEVEL, everywhere)], [(turn_weight, turn_bias, odd)]]
    shape = np.array([0, -1, fourier.rows, fourier.columns])
    logarithm, phase = (g.Reshape(part, shape) for part in at_places(g, hidden, heads))
    gain = magnitude(g, logarithm)
    return g.Concat(g.Mul(gain, g.Cos(phase)), g.Mul(gain, g.Sin(phase)), axis=-1)


def background_spectrum(g: Builder, fourier: Fourier, codec: Codec, hidden: str, received: Received) -> str:
    """`excited_spectrum` without a voice: `[frames, streams, rows, 2 columns]` of the noise through its filter."""
    n_bins = fourier.points // 2 + 1
    weight, bias = codec.decoder.head.weight[-n_bins:], codec.decoder.head.bias[-n_bins:]
    (logarithm,) = at_places(g, hidden, [[(weight, bias - _LEVEL, Places.of(fourier, n_bins))]])
    _, counter = clock(g, codec, received)
    ahead = g.Mod(g.Add(counter, np.array(BACKGROUND_AHEAD)), np.array(NOISE_FRAMES))
    gain = g.Reshape(magnitude(g, logarithm), np.array([0, -1, fourier.rows, 1, fourier.columns]))
    spectra = g.Reshape(noise_spectra(g, codec, fourier), np.array([-1, fourier.rows, 2, fourier.columns]))
    return g.Reshape(g.Mul(gain, g.Gather(spectra, ahead)), np.array([0, -1, fourier.rows, 2 * fourier.columns]))


def excited_spectrum(g: Builder, fourier: Fourier, codec: Codec, hidden: str, received: Received) -> str:
    """The spectrum `[frames, streams, rows, 2 columns]` of both sources through their filters, and of the coded low band.

    Its parts are `[frames, streams, rows, 2, columns]`, real and imaginary.
    """
    decoder = codec.decoder
    rows, columns = fourier.rows, fourier.columns
    n_bins, n_turned = fourier.points // 2 + 1, decoder.n_turned
    weights, biases = (part.split([n_bins, n_turned, n_bins]) for part in (decoder.head.weight, decoder.head.bias))
    everywhere, turned = Places.of(fourier, n_bins), Places.of(fourier, n_turned, odd=True)
    heads = [
        [(weights[0], biases[0] - _LEVEL, everywhere), (weights[2], biases[2] - _LEVEL, everywhere)],
        [(weights[1], biases[1], turned)],
    ]
    low = [] if received.phase is None else low_heads(fourier, codec, decoder.phase_head.weight, decoder.phase_head.bias)
    logarithms, turn, *band = at_places(g, hidden, [*heads, low] if low else heads)
    phase, counter = clock(g, codec, received)
    pulse, *rotation = source_sines(g, codec, phase, received.pitch, low)
    spectrum = fourier.forward(g, harmonic_frames(g, codec, fourier, pulse, received.pitch))
    turn = turned.widen(g, g.Reshape(turn, np.array([0, -1, len(turned.columns)])), columns)
    spectrum = rotate(g, g.Reshape(spectrum, np.array([0, -1, 2 * columns])), g.Cos(turn), g.Sin(turn))
    shape = np.array([0, -1, rows, 2, columns])
    spectrum = g.Reshape(spectrum, shape)
    if low:
        spectrum = g.Add(spectrum, low_band(g, fourier, codec, received, band[0], rotation))
    gains = g.Split(magnitude(g, logarithms), outputs=2, axis=2, num_outputs=2)
    gain, noise_gain = (g.Reshape(part, np.array([0, -1, rows, 1, columns])) for part in gains)
    noise = g.Mul(noise_gain, g.Gather(g.Reshape(noise_spectra(g, codec, fourier), shape[1:]), counter))
    return g.Reshape(g.Add(g.Mul(gain, spectrum), noise), np.array([0, -1, rows, 2 * columns]))


def low_heads(fourier: Fourier, codec: Codec, weight: Tensor, bias: Tensor) -> list[Head]:
    """The real and the imaginary parts of the coded low band, in units of the magnitude."""
    return [
        (16 * own, 16 * own_bias, Places.of(fourier, codec.config.phase_bins, odd=odd))
        for own, own_bias, odd in zip(weight.chunk(2), bias.chunk(2), (False, True), strict=True)
    ]


def low_band(
    g: Builder, fourier: Fourier, codec: Codec, received: Received, told: str, rotation: Sequence[str]
) -> str:  # fmt: skip
    """The coded low band over the magnitude, `[frames, streams, rows, 2, columns]`.

    From what the network says of it and the way past the network, told from the harmonic source.
    """
    skip: Tensor = codec.decoder.phase_skip.weight
    heads = low_heads(fourier, codec, skip, torch.zeros(len(skip)))
    places = heads[0][2]
    weight, _ = stacked(heads)
    turned = rotate(g, g.Add(told, g.MatMul(received.phase, g.floats(weight.T.contiguous()))), *rotation)
    parts = g.Reshape(turned, np.array([0, -1, 2, places.rows, len(places.columns)]))
    return places.widen(g, g.Transpose(parts, perm=[0, 1, 3, 2, 4]), fourier.columns)


def clock(g: Builder, codec: Codec, received: Received) -> tuple[str, str]:
    """The source's phase in the middle of each window `[frames, streams, 1]`, and its noise's number `[frames, streams]`."""
    table = received.table
    advance = g.integers(advances(codec, table.before, table.pitch)[:, None])
    # The noise's counter is a second phase.
    phases = g.state("phase", np.int64, [1, STREAMS, 2])
    both = g.Gather(g.Concat(advance, g.integers(np.ones((len(table.pitch), 1), np.int64)), axis=1), received.place)
    both = g.Mod(g.Add(g.CumSum(both, np.array(0)), phases), np.array([_CYCLE, NOISE_FRAMES]))
    g.keep(phases, g.Slice(both, np.array([-1]), np.array([_END])))
    phase, counter = g.Split(both, outputs=2, axis=2, num_outputs=2)
    return phase, g.Squeeze(counter, np.array([2]))


def source_sines(g: Builder, codec: Codec, phase: str, pitch: str, low: Sequence[Head]) -> tuple[str, ...]:
    """Of the pulses' two angles, above and below, sine and cosine each `[frames, streams, 4]`; and what turns the coded low
    band from the source's phase to its own, cosines and sines `[frames, streams, places]`."""
    _, count = harmonics(codec)
    angles = [Angles(np.stack([2 * count + 1, np.ones_like(count)], 1).repeat(2, 1), QUARTER * np.array([0, 1, 0, 1]))]
    if low:
        odd = low[1][2]
        own = reference(codec, odd.bins, odd.scale.numpy()[:, 0], codec.config.window // 2)
        angles += [own.turned(QUARTER), own]
    return sines(g, phase, pitch, angles)


def harmonics(codec: Codec) -> tuple[np.ndarray, np.ndarray]:
    """The source's increment and the number of its harmonics, by 1 + pitch step."""
    increments = codec.decoder.reference.increments.numpy()
    current = np.concatenate([increments[:1], increments])
    return current, _CYCLE // 2 // current - 1


def harmonic_frames(g: Builder, codec: Codec, fourier: Fourier, pulse: str, pitch: str) -> str:
    """The lab's harmonic frames, windowed: `[frames, streams, 1, points / columns, columns]`.

    A quotient of sines, less 1. Both its angles are one of the frame, of which `pulse` has the sine and cosine, and one of the
    sample in the frame. The latter's are a table by pitch, worked out when the graph is loaded; so above and below are one
    product with a row of it. Level and window are in the part above, and so is what makes it the quotient less 1.
    """
    window, shape = codec.config.window, (fourier.points // fourier.columns, fourier.columns)
    current, count = harmonics(codec)
    steps = np.arange(fourier.points).reshape(shape) - window // 2
    multiples = np.stack([2 * count + 1, np.ones_like(count)], 1).repeat(2, 1)[..., None, None]
    # Cosine and sine above, minus cosine and sine below.
    offsets = QUARTER * np.array([1, 0, 3, 2])[:, None, None]
    angle = g.Add(g.Mul(current[:, None, None, None] * multiples, steps), offsets)
    own = g.Cast(g.Sin(radians(g, angle)), to=TensorProto.FLOAT)
    level = np.where(np.arange(len(current)) > 0, np.sqrt(0.5 / count), 0)[:, None, None, None]
    hann = np.pad(codec.decoder.stft.hann.numpy(), (0, fourier.points - window)).reshape(shape)
    loud = g.Mul(level, hann)
    below = np.array([0, 0, -1, -1], np.float32)[:, None, None]
    table = g.Reshape(g.Concat(g.Mul(own, loud), g.Mul(own, below), axis=2), np.array([0, 4, -1]))
    product = g.MatMul(g.Reshape(pulse, np.array([0, -1, 1, 4])), g.Gather(table, pitch))
    above, below = g.Split(g.Reshape(product, np.array([0, -1, 2, *shape])), outputs=2, axis=2, num_outputs=2)
    at_pulse = g.Gather(g.Mul(loud, 2 * _AT_PULSE * count[:, None, None, None]), pitch)
    return g.Div(g.Add(g.Mul(above, below), at_pulse), g.Add(g.Mul(below, below), _AT_PULSE))


def noise_spectra(g: Builder, codec: Codec, fourier: Fourier) -> str:
    """The spectra of all frames of noise there are, `[1, NOISE_FRAMES, rows, 2 columns]`; row n is frame n - 1.

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
    shape = np.array([1, NOISE_FRAMES, -1, fourier.columns])
    return fourier.forward(g, g.Reshape(g.Mul(frames, hann), shape), constant=True)


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
    """Spectra to samples, overlapping with the frames before: the state holds those, `[frames, streams, hops * hop]`."""
    stft, hop = codec.decoder.stft, codec.config.hop
    width = (stft.back + 1) * hop
    rows = -(-width // fourier.columns)
    frames = g.Reshape(fourier.inverse(g, spectrum, rows), np.array([0, -1, rows * fourier.columns]))
    if rows * fourier.columns > width:
        frames = g.Slice(frames, np.array([0]), np.array([width]), np.array([2]))
    synthesis = np.pad(stft.synthesis.numpy(), (0, width - stft.window))
    tails = g.state("tails", np.float32, [stft.back, STREAMS, width])
    joined = g.Concat(tails, g.Mul(frames, synthesis), axis=0)
    g.keep(tails, g.Slice(joined, np.array([-stft.back]), np.array([_END])))
    starts = [(stft.back - k, k * hop) for k in range(stft.back + 1)]
    ends = [(-k or _END, (k + 1) * hop) for k in range(stft.back + 1)]
    parts = [g.Slice(joined, np.array(start), np.array(end), np.array([0, 2])) for start, end in zip(starts, ends, strict=True)]
    return g.Sum(*parts)
