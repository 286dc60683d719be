"""The exporter's parts, each run alone in ONNX Runtime."""

import numpy as np
import onnxruntime
import pytest
import torch

from linnet.lab.dsp.pitch import PitchScale
from linnet.lab.export.builder import Builder
from linnet.lab.export.fourier import Fourier
from linnet.lab.export.layers import linear, recurrence
from linnet.lab.export.quantizer import Codebook, PitchCoder, PitchDecoder
from linnet.lab.quant.codebook import nearest_entry
from linnet.lab.quant.predictive import PredictiveQuantizer


def run(make, x, kind=np.float32, *, eight_bit=True):
    """What `make(g, x)` gives for `x`."""
    g = Builder(eight_bit=eight_bit)
    value = make(g, g.input("x", np.float32, [None] * x.ndim))
    g.output("y", value, kind, [None])
    session = onnxruntime.InferenceSession(g.finish(), providers=["CPUExecutionProvider"])
    streams = x.shape[1]
    shapes = {
        state.name: [streams if size == "streams" else size for size in state.shape] for state in session.get_inputs()[1:]
    }
    states = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return session.run(["y"], {"x": x, **states})[0]


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("points", [64, 128, 512, 1024])
def test_a_transform_is_numpys_and_inverts(points):
    fourier = Fourier(points)
    x = noise(3, points)
    shaped = x.reshape(3, 1, -1, fourier.columns)
    spectrum = run(lambda g, x: fourier.forward(g, x), shaped)
    np.testing.assert_allclose(spectrum[:, 0], run(lambda g, x: fourier.forward(g, x, constant=True), shaped[None, :, 0])[0])
    spectrum = spectrum[:, 0]
    expected = np.fft.rfft(x)[:, fourier.bins].reshape(3, fourier.rows, fourier.columns)
    expected = np.where(fourier.mirrored.reshape(expected.shape[1:]), expected.conj(), expected)
    np.testing.assert_allclose(spectrum, np.concatenate([expected.real, expected.imag], 2), atol=1e-6 * points)
    assert set(fourier.bins) == set(range(points // 2 + 1))
    rows = points // fourier.columns
    back = run(lambda g, x: fourier.inverse(g, x, rows + 2), spectrum[:, None])[:, 0]
    np.testing.assert_allclose(back[:, :rows].reshape(3, points), x, atol=1e-5)
    assert not back[:, rows:].any()


@pytest.mark.parametrize(("inputs", "outputs"), [(240, 720), (100, 64)])
def test_an_eight_bit_product_is_close_and_the_same_in_any_call(inputs, outputs):
    weight, bias = torch.from_numpy(noise(outputs, inputs)), torch.from_numpy(noise(outputs))
    x = noise(1, 37, inputs)
    y = run(lambda g, x: linear(g, x, weight, bias), x)
    expected = x @ weight.numpy().T + bias.numpy()
    assert 0 < np.square(y - expected).mean() < 3e-4 * np.square(expected).mean()
    for t in (0, 20, 36):
        np.testing.assert_array_equal(run(lambda g, x: linear(g, x, weight, bias), x[:, t : t + 1])[0, 0], y[0, t])
    np.testing.assert_allclose(run(lambda g, x: linear(g, x, weight, bias), x, eight_bit=False), expected, atol=1e-4)


def test_a_recurrence_is_torchs_gru():
    layer = torch.nn.GRU(20, 12)
    x = noise(9, 3, 20)

    def make(g, x):
        hidden = g.state("hidden", np.float32, ["streams", 12])
        y, after = recurrence(g, x, layer, hidden)
        g.keep(hidden, after)
        return y

    y = run(make, x, eight_bit=False)
    np.testing.assert_allclose(y, layer(torch.from_numpy(x))[0].detach().numpy(), atol=1e-6)


@pytest.mark.parametrize(("size", "dim"), [(4096, 16), (100, 7), (1 << 14, 40)], ids=["packed", "odd", "too large to pack"])
def test_the_nearest_entry_is_found(size, dim):
    entries = torch.from_numpy(noise(size, dim))
    book = Codebook.of(entries, eight_bit=True)
    known = torch.from_numpy(book.numbers * np.float32(book.scale))
    x = torch.randn(50, dim, generator=torch.Generator().manual_seed(0))
    found = run(lambda g, x: g.Cast(book.nearest(g, x), to=7), x.numpy(), np.int64)
    least = (x - known[nearest_entry(x, known)]).square().sum(-1)
    reached = (x - known[torch.from_numpy(found)]).square().sum(-1)
    # Rounding may turn a near tie.
    assert float((reached / least).mean()) < 1.005
    entry = np.arange(0, size, 7)
    np.testing.assert_array_equal(run(lambda g, x: g.Cast(book.nearest(g, x), to=7), known.numpy()[entry], np.int64), entry)


def test_pitch_tables_say_what_the_lab_says():
    quantizer = PredictiveQuantizer(16, 2, PitchScale())
    rng = np.random.default_rng(0)
    n = quantizer.index.n_steps + 1
    coder, decoder = PitchCoder.of(quantizer), PitchDecoder.of(quantizer)
    previous, wanted = rng.integers(0, n, (2, 500))
    kind, number, sent = quantizer.code_pitch(torch.from_numpy(wanted - 1), torch.from_numpy(previous - 1))
    place = previous * coder.n + wanted
    np.testing.assert_array_equal(coder.sent[place], sent + 1)
    np.testing.assert_array_equal(coder.kind[place], kind)
    entry = torch.from_numpy(np.asarray(quantizer.index.first_entries)[kind.numpy()])
    index = quantizer.base_index(kind, number, entry).numpy()
    np.testing.assert_array_equal(coder.first[place] + entry.numpy(), index)
    # What was sent is what is received; the last index is a lost frame, which keeps the pitch.
    np.testing.assert_array_equal(decoder.pitch[previous * decoder.n + decoder.symbol[index]], sent + 1)
    np.testing.assert_array_equal(decoder.pitch[previous * decoder.n + decoder.symbol[-1]], previous)
