"""The decoder's graph: codes to latent and pitch, network, excitation, and the inverse transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from linnet.lab.dsp.excitation import NOISE_FRAMES, NOISE_MULTIPLIERS, NOISE_PRIME
from linnet.lab.export.builder import Builder
from linnet.lab.export.fourier import Fourier
from linnet.lab.export.layers import conv_next, gru_cell, layer_norm, linear, recurrence
from linnet.lab.export.quantizer import Codebook, Memory, PitchDecoder
from linnet.lab.nn.blocks import ResidualGru
from linnet.lab.systems.codec import Codec

_END = np.iinfo(np.int64).max
_CYCLE = 1 << 32
# Near a pulse the closed form of a sum of harmonics is 0 / 0; this much is added below, and in proportion above.
_AT_PULSE = 1e-8


@torch.no_grad()
def export_decoder(codec: Codec, *, eight_bit: bool = True) -> bytes:
    """The decoder's graph: `codes` int64 `[frames, layers]` (-1: did not arrive) and states -> `samples`, new states."""
    codec = codec.eval()
    g = Builder(eight_bit=eight_bit)
    codes = g.input("codes", np.int64, ["frames", codec.config.n_layers])
    latent, count, place, pitch_table = dequantize(g, codec, codes)
    pitch = g.Gather(g.integers(pitch_table.pitch), place)
    controls = network(g, codec, latent, count, pitch)
    fourier = Fourier(codec.decoder.stft.n_fft)
    if codec.config.head == "free":
        spectrum = free_spectrum(g, fourier, controls)
    else:
        spectrum = excited_spectrum(g, fourier, controls, *excitation(g, codec, fourier, pitch_table, place, pitch))
    g.output("samples", overlap_add(g, codec, fourier, spectrum), np.float32, ["samples"])
    return g.finish()


def dequantize(g: Builder, codec: Codec, codes: str) -> tuple[str, str, str, PitchDecoder]:
    """Codes -> latent `[frames, dim]`, layers that arrived `[frames]`, the place in the pitch table `[frames]`, that table."""
    config = codec.config
    quantizer: Any = codec.quantizer
    size, n_above = quantizer.index.size, config.n_layers - 1
    # A layer counts only if all below it arrived. What did not arrive reads a table's last row.
    missing = g.CumSum(g.Cast(g.Less(codes, np.array(0)), to=TensorProto.INT64), np.array(1))
    arrived = g.Equal(missing, np.array(0))
    count = g.ReduceSum(g.Cast(arrived, to=TensorProto.INT64), np.array([1]), keepdims=0)
    rows = np.array([0, *(size * np.arange(n_above))])
    lost = np.array([size, *([size * n_above] * n_above)])
    places = g.Where(arrived, g.Add(codes, rows), lost)
    base_column, above = g.Split(places, np.array([1, n_above]), outputs=2, axis=1)
    base_index = g.Reshape(base_column, np.array([-1]))
    base = Codebook.of(quantizer.base.entries, eight_bit=g.eight_bit).table(g, lost=True)
    entry = g.Gather(g.integers(np.append(quantizer.entries.numpy(), quantizer.index.n_entries)), base_index)
    pitch_table = PitchDecoder.of(quantizer)
    symbol = g.Gather(g.integers(pitch_table.symbol), base_index)
    hidden, place = remember(g, codec, Memory(g, quantizer, base, lost=True), entry, pitch_table, symbol)

    books = [Codebook.of(book.entries, eight_bit=g.eight_bit) for book in quantizer.books]
    numbers = np.concatenate([*(book.numbers for book in books), np.zeros_like(books[0].numbers[:1])])
    table = g.Cast(numbers, to=TensorProto.FLOAT)
    found = g.Reshape(g.Gather(table, above), np.array([-1, numbers.shape[1] * n_above]))
    outward = [book.scale * layer.weight for book, layer in zip(books, quantizer.outward, strict=True)]
    # What the memory foretells and what the upper layers add, in one product.
    weight = torch.cat([quantizer.predict.weight, *outward], 1)
    told = linear(g, g.Concat(hidden, found, axis=1), weight, quantizer.predict.bias)
    return g.Add(told, g.Gather(base, entry)), count, place, pitch_table


def remember(
    g: Builder, codec: Codec, memory: Memory, entry: str, table: PitchDecoder, symbol: str
) -> tuple[str, str]:  # fmt: skip
    """What follows the frames one by one: the memory before each frame `[frames, hidden]`, the place in the pitch table."""
    layer: Any = codec.quantizer.memory

    def step(inner: Builder, hidden: str, previous: str, gates: str, new: str, what: str) -> tuple[list[str], list[str]]:
        recurrent = linear(inner, hidden, layer.weight_hh_l0, layer.bias_hh_l0, exact=True)
        own = inner.Split(recurrent, memory.sizes, outputs=2, axis=-1)
        after = gru_cell(inner, (gates, new), own, hidden)
        place = inner.Add(previous, what)
        return [after, inner.Gather(inner.integers(table.pitch * table.n), place)], [inner.Identity(hidden), place]

    states = g.state("memory", np.float32, [1, layer.hidden_size]), g.state("pitch", np.int64, [1])
    series = [*(g.Gather(each, entry) for each in memory.tables), symbol]
    kinds = [np.float32, np.int64, np.float32, np.float32, np.int64]
    *after, before, place = g.scan(step, states, series, kinds, [[1, layer.hidden_size], [1]])
    for state, value in zip(states, after, strict=True):
        g.keep(state, value)
    return g.Reshape(before, np.array([-1, layer.hidden_size])), g.Reshape(place, np.array([-1]))


def network(g: Builder, codec: Codec, latent: str, count: str, pitch: str) -> str:
    """The head's controls `[frames, parts, rows, columns]` at the places of a spectrum."""
    decoder, config = codec.decoder, codec.config
    x = linear(g, latent, decoder.input.weight, decoder.input.bias)
    x = g.Add(x, g.Gather(g.floats(decoder.pitch.weight), pitch))
    x = g.Add(x, g.Gather(g.floats(decoder.quality.weight), count))
    x = g.Reshape(x, np.array([1, -1, config.decoder_channels]))
    blocks: Any = decoder.blocks.blocks
    for number, block in enumerate(blocks):
        if isinstance(block, ResidualGru):
            before = g.state(f"block_{number}", np.float32, [1, block.gru.hidden_size])
            y, after = recurrence(g, layer_norm(g, x, block.norm), block.gru, before)
            x = g.Add(x, y)
        else:
            before = g.state(f"block_{number}", np.float32, [1, config.decoder_channels, block.depthwise.history])
            x, after = conv_next(g, x, block, before)
        g.keep(before, after)
    fourier = Fourier(decoder.stft.n_fft)
    weight, bias = head_at_places(decoder.head.weight, decoder.head.bias, fourier)
    controls = linear(g, layer_norm(g, x, decoder.norm), weight, bias)
    return g.Reshape(controls, np.array([-1, len(weight) // fourier.size, fourier.rows, fourier.columns]))


def head_at_places(weight: Tensor, bias: Tensor, fourier: Fourier) -> tuple[Tensor, Tensor]:
    """The head's rows by bin (log-magnitude, phase, perhaps log-magnitude of noise) by place: magnitudes first, then phase.

    A mirrored place takes its bin's conjugate.
    """
    n_bins = fourier.points // 2 + 1
    bins = torch.from_numpy(fourier.bins)
    sign = 1 - 2 * torch.from_numpy(fourier.mirrored).float()
    magnitude, phase, *noise = torch.cat([weight, bias.unsqueeze(1)], 1).split(n_bins)
    # Magnitudes are centred at the level of speech.
    centre = torch.cat([torch.zeros(weight.shape[1]), torch.tensor([3.0])])
    magnitudes = [part[bins] - centre for part in (magnitude, *noise)]
    placed = torch.cat([*magnitudes, sign.unsqueeze(1) * phase[bins]])
    return placed[:, :-1].contiguous(), placed[:, -1].contiguous()


def gains(g: Builder, controls: str, parts: int) -> tuple[list[str], str, str]:
    """Controls -> `parts` magnitudes, cosine and sine of the phase, each `[frames, 1, rows, columns]`."""
    logarithms, phase = g.Split(controls, np.array([parts, 1]), outputs=2, axis=1)
    magnitudes = g.Exp(g.Clip(logarithms, -14.0, 6.0))
    each = g.Split(magnitudes, outputs=parts, axis=1, num_outputs=parts) if parts > 1 else (magnitudes,)
    return list(each), g.Cos(phase), g.Sin(phase)


def free_spectrum(g: Builder, fourier: Fourier, controls: str) -> str:
    """The spectrum `[frames, rows, 2 columns]` of free magnitude and phase."""
    (gain,), cosine, sine = gains(g, controls, 1)
    parts = g.Concat(g.Mul(gain, cosine), g.Mul(gain, sine), axis=3)
    return g.Reshape(parts, np.array([-1, fourier.rows, 2 * fourier.columns]))


def excitation(
    g: Builder, codec: Codec, fourier: Fourier, table: PitchDecoder, place: str, pitch: str
) -> tuple[str, str, str]:  # fmt: skip
    """Spectra of the harmonic source, of the same turned by 90 degrees, and of the noise: `[frames, 1, rows, 2, columns]`."""
    config, increments = codec.config, codec.decoder.increments.numpy()
    # By 1 + pitch step; an unvoiced frame's phase runs on at the lowest pitch.
    current = np.concatenate([increments[:1], increments])
    previous, after = np.repeat(np.arange(len(current)), table.n), table.pitch
    before = np.where(previous > 0, current[previous], current[after])
    advance = config.hop // 2 * (before + current[after])
    # The noise's counter is a second phase.
    phases = g.state("phase", np.int64, [1, 2])
    advances = g.Gather(g.Concat(advance[:, None], g.integers(np.ones_like(advance)[:, None]), axis=1), place)
    both = g.Mod(g.Add(g.CumSum(advances, np.array(0)), phases), np.array([_CYCLE, NOISE_FRAMES]))
    g.keep(phases, g.Slice(both, np.array([-1]), np.array([_END])))
    phase, counter = g.Split(both, outputs=2, axis=1, num_outputs=2)
    harmonic = fourier.forward(g, harmonic_frames(g, codec, fourier, phase, pitch), turned=True)
    parts = g.Reshape(harmonic, np.array([-1, 1, fourier.rows, 4, fourier.columns]))
    own, turned = g.Split(parts, outputs=2, axis=3, num_outputs=2)
    noise = g.Gather(noise_spectra(g, codec, fourier), g.Reshape(counter, np.array([-1])))
    return own, turned, noise


def harmonic_frames(g: Builder, codec: Codec, fourier: Fourier, phase: str, pitch: str) -> str:
    """The lab's harmonic frames, windowed: `[frames, 1, points / columns, columns]`.

    A sine of the sum of the phase and of what a sample adds to it: the latter is a table by pitch and sample, made of
    integers when the graph is loaded, so that each frame costs two sines and two cosines.
    """
    window, increments = codec.config.window, codec.decoder.increments.numpy()
    current = np.concatenate([increments[:1], increments])
    voiced = np.arange(len(current)) > 0
    count = _CYCLE // 2 // current - 1
    # Of the quotient's two sides: so many half phases make the angle.
    multiples = np.stack([2 * count + 1, np.ones_like(count)], 1)[..., None]
    steps = np.arange(fourier.points) - window // 2

    def radians(half_phases: str) -> str:
        return g.Mul(g.Cast(g.Mod(half_phases, np.array(2 * _CYCLE)), to=TensorProto.FLOAT), np.pi / _CYCLE)

    level = np.where(voiced, np.sqrt(0.5 / count), 0)[:, None, None]
    loudness = np.concatenate([level, np.ones_like(level)], 1)
    added = radians(g.Mul(current[:, None, None] * multiples, steps))
    cosines, sines = g.Mul(g.Cos(added), loudness), g.Mul(g.Sin(added), loudness)
    angle = radians(g.Mul(g.Reshape(phase, np.array([-1, 1, 1])), g.Gather(multiples, pitch)))
    # In doubles, for a sine's last bits depend on the length of the call, and a pulse would magnify them.
    wide = g.Cast(angle, to=TensorProto.DOUBLE)
    sine, cosine = (g.Cast(part, to=TensorProto.FLOAT) for part in (g.Sin(wide), g.Cos(wide)))
    quotient = g.Add(g.Mul(sine, g.Gather(cosines, pitch)), g.Mul(cosine, g.Gather(sines, pitch)))
    above, below = g.Split(quotient, outputs=2, axis=1, num_outputs=2)
    at_pulse = g.Gather(_AT_PULSE * level * multiples[:, :1], pitch)
    ratio = g.Div(g.Add(g.Mul(above, below), at_pulse), g.Add(g.Mul(below, below), _AT_PULSE))
    hann = np.pad(codec.decoder.stft.hann.numpy(), (0, fourier.points - window))
    frames = g.Mul(g.Sub(ratio, g.Gather(level, pitch)), hann)
    return g.Reshape(frames, np.array([0, 1, -1, fourier.columns]))


def noise_spectra(g: Builder, codec: Codec, fourier: Fourier) -> str:
    """Spectra of all frames of noise there are, `[NOISE_FRAMES, 1, rows, 2, columns]`; row n is frame n - 1.

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
    return g.Reshape(fourier.forward(g, shaped), np.array([0, 1, fourier.rows, 2, fourier.columns]))


def noise(g: Builder, count: int) -> str:
    """The lab's `noise_samples`, in the graph's operators."""
    number = g.Range(np.array(0), np.array(count), np.array(1))
    prime = np.array(NOISE_PRIME)
    mixed = g.Mod(g.Add(g.Mul(number, np.array(48271)), np.array(12345)), prime)
    for multiplier in NOISE_MULTIPLIERS:
        product = g.Mul(g.Mod(g.Mul(mixed, mixed), prime), np.array(multiplier))
        mixed = g.Mod(g.Add(product, number), prime)
    return g.Mul(g.Sub(g.Mul(g.Cast(mixed, to=TensorProto.FLOAT), 1 / NOISE_PRIME), 0.5), 12.0**0.5)


def excited_spectrum(
    g: Builder, fourier: Fourier, controls: str, harmonic: str, turned: str, noise: str
) -> str:  # fmt: skip
    """The spectrum `[frames, rows, 2 columns]` of both sources through their filters."""
    (gain, noise_gain), cosine, sine = gains(g, g.Unsqueeze(controls, np.array([3])), 2)
    voiced = g.Add(g.Mul(g.Mul(gain, cosine), harmonic), g.Mul(g.Mul(gain, sine), turned))
    return g.Reshape(g.Add(voiced, g.Mul(noise_gain, noise)), np.array([-1, fourier.rows, 2 * fourier.columns]))


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
