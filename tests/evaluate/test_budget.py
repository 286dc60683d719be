"""Latency by arithmetic and by measurement, and the budget of a toy codec whose every figure is known."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from linnet.evaluate import budget as budgets
from linnet.evaluate import budget_cli
from linnet.evaluate.latency import LookAhead, analytic_latency, measure, measure_lag, speech_like

RATE, HOP, DELAY, LEVELS = 16000, 64, 32, 255
LATENCY_MS = 1000 * (HOP + DELAY) / RATE


def toy_graph(inputs, outputs, nodes, constants) -> bytes:
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def toy_encoder() -> bytes:
    """Every sample is one code; a product with the unit matrix stands for the network: HOP^2 MACs a frame."""
    nodes = [
        helper.make_node("Reshape", ["samples", "frames"], ["x"]),
        helper.make_node("MatMul", ["x", "unit"], ["turned"]),
        helper.make_node("Mul", ["turned", "scale"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Add", ["rounded", "scale"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["codes"], to=TensorProto.INT64),
    ]
    constants = {
        "frames": np.array([-1, 1, HOP], np.int64),
        "unit": np.eye(HOP, dtype=np.float32),
        "scale": np.array(LEVELS // 2, np.float32),
    }
    inputs = [("samples", TensorProto.FLOAT, ["T", "streams", HOP])]
    return toy_graph(inputs, [("codes", TensorProto.INT64, ["T", 1, HOP])], nodes, constants)


def toy_decoder() -> bytes:
    """The samples again, DELAY later, by way of a state."""
    nodes = [
        helper.make_node("Cast", ["codes"], ["positive"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["positive", "scale"], ["signed"]),
        helper.make_node("Div", ["signed", "scale"], ["x"]),
        helper.make_node("Reshape", ["x", "flat"], ["now"]),
        helper.make_node("Concat", ["state_tail", "now"], ["all"], axis=0),
        helper.make_node("Slice", ["all", "zero", "end"], ["late"]),
        helper.make_node("Reshape", ["late", "frames"], ["samples"]),
        helper.make_node("Slice", ["all", "end", "far"], ["new_state_tail"]),
    ]
    constants = {
        "scale": np.array(LEVELS // 2, np.float32),
        "flat": np.array([-1], np.int64),
        "frames": np.array([-1, 1, HOP], np.int64),
        "zero": np.array([0], np.int64),
        "end": np.array([-DELAY], np.int64),
        "far": np.array([2**31], np.int64),
    }
    inputs = [("codes", TensorProto.INT64, ["T", "streams", HOP]), ("state_tail", TensorProto.FLOAT, [DELAY])]
    outputs = [("samples", TensorProto.FLOAT, ["T", 1, HOP]), ("new_state_tail", TensorProto.FLOAT, [DELAY])]
    return toy_graph(inputs, outputs, nodes, constants)


@pytest.fixture(scope="module")
def toy() -> budgets.Budget:
    return budgets.assess(
        toy_encoder(), toy_decoder(), name="toy", sample_rate=RATE, hop=HOP, latency_ms=LATENCY_MS, n_codes=HOP
    )


def test_toy_compute_and_parameters(toy):
    frame_rate = RATE / HOP
    assert toy.send.mmacs == pytest.approx(HOP**2 * frame_rate / 1e6)
    assert toy.send.mflops == 2 * toy.send.mmacs
    assert toy.send.mmacs_by_op == {"MatMul": pytest.approx(toy.send.mmacs)}
    assert (toy.send.parameters, toy.send.bytes) == (HOP**2, 4 * HOP**2)
    assert (toy.receive.mmacs, toy.receive.parameters) == (0, 0)
    assert toy.send.uncounted == toy.receive.uncounted == ()


def test_toy_latency_is_measured_as_its_card_says(toy):
    assert (toy.measured.lag, toy.measured.lag_exact) == (DELAY, True)
    assert toy.measured.reach == 1 - DELAY
    assert toy.measured_ms == pytest.approx(LATENCY_MS)
    assert (toy.buffering_ms, toy.algorithmic_ms) == (4, 2)


def test_card_that_promises_too_little_is_judged_by_what_was_measured():
    toy = budgets.assess(toy_encoder(), toy_decoder(), name="toy", sample_rate=RATE, hop=HOP, latency_ms=4.0, n_codes=HOP)
    assert toy.judged_ms == pytest.approx(LATENCY_MS)


def test_verdicts(toy):
    roomy = budgets.Limits("roomy", total_mflops=3, receive_mflops=1, latency_ms=LATENCY_MS)
    assert toy.verdict(roomy) == "PASS"
    assert toy.verdict(budgets.Limits("slow", 3, 1, latency_ms=LATENCY_MS - 0.1)) == "FAIL"
    assert toy.verdict(budgets.Limits("dear", 2, 1, LATENCY_MS)) == "FAIL"


def test_what_could_not_be_counted_leaves_the_verdict_open(toy):
    partly = replace(toy, send=replace(toy.send, uncounted=("GridSample warp",)))
    assert {partly.verdict(limits) for limits in budgets.LRAC} == {"OPEN"}
    assert "NOT COUNTED" in budgets.render(partly)


def test_limits_are_the_challenges():
    assert [(limit.total_mflops, limit.receive_mflops, limit.latency_ms) for limit in budgets.LRAC] == [
        (700, 300, 30),
        (2600, 600, 50),
    ]


def test_state_of_free_shape_is_an_error():
    nodes = [helper.make_node("Add", ["x", "state"], ["y"])]
    inputs = [("x", TensorProto.FLOAT, ["T"]), ("state", TensorProto.FLOAT, ["anything"])]
    graph = budgets.Graph(toy_graph(inputs, [("y", TensorProto.FLOAT, ["T"])], nodes, {}))
    with pytest.raises(ValueError, match="state state is"):
        graph.feeds(np.zeros(8, np.float32))


@pytest.fixture
def toy_bundle(tmp_path) -> Path:
    """The toy as a folder by the bundle contract."""
    lines = ["format = 2", 'name = "toy"', 'system = "toy"', f"sample_rate = {RATE}", f"hop = {HOP}"]
    lines += [f"delay = {DELAY}", f"latency_ms = {LATENCY_MS}"]
    for index in range(HOP):
        lines += ["[[columns]]", f'name = "sample_{index}"', "size = 256", f"layer = {1 + index}"]
    for side, graph in (("encoder", toy_encoder()), ("decoder", toy_decoder())):
        (tmp_path / f"{side}.onnx").write_bytes(graph)
        digest = hashlib.sha256(graph).hexdigest()
        lines += [f"[graphs.{side}]", f'file = "{side}.onnx"', f'sha256 = "{digest}"']
    (tmp_path / "card.toml").write_text("\n".join([*lines, "[training]", "[results]", ""]))
    return tmp_path


def test_command_prints_text_and_json(toy_bundle):
    pytest.importorskip("linnet.bundle")
    text = CliRunner().invoke(budget_cli.command, [str(toy_bundle)], catch_exceptions=False)
    assert "LRAC Track 1 (transparency): PASS" in text.output
    printed = CliRunner().invoke(budget_cli.command, [str(toy_bundle), "--json"], catch_exceptions=False)
    report = json.loads(printed.output)
    assert report["send"]["mflops"] == pytest.approx(2 * HOP * RATE / 1e6)
    assert [track["verdict"] for track in report["limits"]] == ["PASS", "PASS"]


def test_analytic_latency():
    assert analytic_latency(192) == 192
    assert analytic_latency(192, window=480) == 480
    assert analytic_latency(240, [LookAhead(6, 12), LookAhead(1, 48)]) == 240 + 72 + 48


def overlap_add(samples: np.ndarray, hop: int = 128) -> np.ndarray:
    """A transform codec: a window of two hops that looks back, coarse magnitudes, overlap-add as a stream gives it."""
    window = np.sin((np.arange(2 * hop) + 0.5) * np.pi / (2 * hop))
    padded = np.concatenate([np.zeros(hop), samples])
    out = np.zeros(samples.size + hop)
    for start in range(0, samples.size, hop):
        spectrum = np.fft.rfft(padded[start : start + 2 * hop] * window)
        out[start : start + 2 * hop] += np.fft.irfft(np.round(spectrum * 50) / 50) * window
    return out[: samples.size]


def test_measured_latency_of_an_overlapping_transform_is_its_window():
    measured = measure(overlap_add, RATE, 128)
    assert (measured.reach, measured.lag, measured.lag_exact) == (128, 128, True)
    assert measured.total(measured.lag) == analytic_latency(128, window=256)


def test_codec_that_keeps_no_waveform_is_aligned_by_its_envelope():
    speech = speech_like(4 * RATE, RATE)
    noise = np.random.default_rng(1).standard_normal(speech.size)
    level = np.convolve(np.abs(speech), np.ones(80) / 80, mode="same")
    lag, exact = measure_lag(speech, np.roll(level * noise, 300), RATE)
    assert not exact
    assert lag == pytest.approx(300, abs=0.003 * RATE)


def test_lag_of_unrelated_noise_is_not_made_up():
    noise = np.random.default_rng(1).standard_normal(4 * RATE)
    assert measure_lag(speech_like(4 * RATE, RATE), noise, RATE) == (None, False)


def test_graph_that_reads_ahead_is_found_out():
    measured = measure(lambda samples: np.roll(samples, -200), RATE, 128)
    assert measured.reach == 201
    assert not measure(lambda samples: np.random.default_rng().permutation(samples), RATE, 128).repeatable
