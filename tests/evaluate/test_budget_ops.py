"""MACs of single operators and of control flow, against counts made by hand."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from linnet.evaluate.graph_cost import FrameCost, frame_cost, run_cost, weights
from linnet.evaluate.macs import FREE, fft_macs

Array = np.ndarray
BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64
MICROSOFT = helper.make_opsetid("com.microsoft", 1)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Array],
    outputs: Sequence[str],
    constants: dict[str, Array] | None = None,
    opset: int = 20,
) -> onnx.ModelProto:
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
        for name, value in inputs.items()
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(list(nodes), "test", declared, results, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), MICROSOFT], ir_version=10)


def macs_of(
    op: str, inputs: dict[str, Array], constants: dict[str, Array] | None = None, domain: str = "", **attributes
) -> int:
    """MACs of one node that takes the inputs, then the constants, in order."""
    names = [*inputs, *(constants or {})]
    node = helper.make_node(op, names, ["y"], domain=domain, **attributes)
    cost = run_cost(model_of([node], inputs, ["y"], constants), inputs)
    assert not cost.uncounted
    return cost.macs


def ones(*shape: int, dtype: type = np.float32) -> Array:
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("weight", "attributes", "expected"),
    [
        ((16, 8, 5), {}, 16 * 8 * 5 * 96),
        ((16, 8, 5), {"strides": [2]}, 16 * 8 * 5 * 48),
        ((16, 8, 5), {"dilations": [3], "pads": [6, 6]}, 16 * 8 * 5 * 100),
        ((16, 2, 5), {"group": 4}, 16 * 2 * 5 * 96),
        ((8, 1, 5), {"group": 8}, 8 * 5 * 96),
    ],
    ids=["plain", "strided", "dilated", "grouped", "depthwise"],
)
def test_conv_counts_a_filter_for_every_output(weight, attributes, expected):
    assert macs_of("Conv", {"x": ones(1, 8, 100)}, {"w": ones(*weight)}, **attributes) == expected


def test_causal_conv_counts_as_a_conv():
    inputs, constants = {"x": ones(1, 8, 100)}, {"w": ones(8, 1, 5), "b": ones(8), "past": ones(1, 8, 4)}
    node = helper.make_node(
        "CausalConvWithState", [*inputs, *constants], ["y", "new"], domain="com.microsoft", activation="none", ndim=1
    )
    assert run_cost(model_of([node], inputs, ["y"], constants), inputs).macs == 8 * 5 * 100


def test_conv_2d():
    assert macs_of("Conv", {"x": ones(2, 3, 10, 12)}, {"w": ones(4, 3, 3, 5)}) == 2 * 4 * 8 * 8 * (3 * 3 * 5)


@pytest.mark.parametrize(("group", "expected"), [(1, 20 * 8 * 4 * 10), (2, 20 * 8 * 4 * 10), (8, 20 * 8 * 4 * 10)])
def test_conv_transpose_counts_a_filter_for_every_input(group, expected):
    """The weight is [in, out / groups, kernel]: the same filters an input, fed to fewer inputs each."""
    x, w = {"x": ones(1, 8, 20)}, {"w": ones(8, 4, 10)}
    assert macs_of("ConvTranspose", x, w, strides=[5], group=group) == expected


def test_conv_transpose_is_not_cheaper_when_its_output_is_trimmed():
    x, w = {"x": ones(1, 8, 20)}, {"w": ones(8, 4, 10)}
    assert macs_of("ConvTranspose", x, w, strides=[5], pads=[2, 3]) == 20 * 8 * 4 * 10


def test_matrix_products():
    assert macs_of("MatMul", {"x": ones(3, 7, 5)}, {"w": ones(5, 11)}) == 3 * 7 * 5 * 11
    assert macs_of("MatMul", {"x": ones(3, 7, 5), "z": ones(3, 5, 2)}) == 3 * 7 * 5 * 2
    assert macs_of("MatMul", {"x": ones(5)}, {"w": ones(5, 11)}) == 5 * 11
    assert macs_of("Gemm", {"x": ones(7, 5)}, {"w": ones(11, 5), "b": ones(11)}, transB=1) == 7 * 5 * 11
    assert macs_of("Gemm", {"x": ones(5, 7)}, {"w": ones(5, 11)}, transA=1) == 7 * 5 * 11


def test_integer_products_cost_what_their_float_twins_cost():
    eight_bit = ones(7, 5, dtype=np.uint8)
    assert macs_of("MatMulInteger", {"x": eight_bit}, {"w": ones(5, 11, dtype=np.int8)}) == 7 * 5 * 11
    sound = ones(1, 8, 100, dtype=np.uint8)
    assert macs_of("ConvInteger", {"x": sound}, {"w": ones(16, 8, 5, dtype=np.uint8)}) == 16 * 8 * 5 * 96
    scale, zero = np.array(0.1, np.float32), np.array(0, np.uint8)
    quantised = {"xs": scale, "xz": zero, "w": ones(5, 11, dtype=np.uint8), "ws": scale, "wz": zero}
    quantised |= {"ys": scale, "yz": zero}
    assert macs_of("QLinearMatMul", {"x": eight_bit}, quantised) == 7 * 5 * 11
    quantised["w"] = ones(16, 8, 5, dtype=np.uint8)
    assert macs_of("QLinearConv", {"x": sound}, quantised) == 16 * 8 * 5 * 96
    dynamic = {"w": ones(5, 11, dtype=np.uint8), "s": np.ones(1, np.float32)}
    assert macs_of("DynamicQuantizeMatMul", {"x": ones(7, 5)}, dynamic, "com.microsoft") == 7 * 5 * 11


def test_four_bit_product_counts_its_weights_unpacked():
    attributes = {"K": 64, "N": 11, "bits": 4, "block_size": 32}
    constants = {"w": ones(11, 2, 16, dtype=np.uint8), "s": ones(22)}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **attributes)
    model = model_of([node], {"x": ones(7, 64)}, ["y"], constants)
    assert run_cost(model, {"x": ones(7, 64)}).macs == 7 * 64 * 11
    assert weights(model).parameters == 64 * 11 + 22
    assert weights(model).bytes == 64 * 11 // 2 + 22 * 4


@pytest.mark.parametrize(("op", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers(op, gates, directions):
    constants = {"w": ones(directions, gates * 6, 4), "r": ones(directions, gates * 6, 6)}
    direction = "bidirectional" if directions == 2 else "forward"
    macs = macs_of(op, {"x": ones(10, 3, 4)}, constants, hidden_size=6, direction=direction)
    assert macs == 10 * 3 * directions * gates * (6 * 4 + 6 * 6)


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        ("btd, cd -> btc", [(2, 3, 4), (5, 4)], 2 * 3 * 4 * 5),
        ("...d,cd->...c", [(2, 3, 4), (5, 4)], 2 * 3 * 4 * 5),
        ("i,j->ij", [(3,), (4,)], 0),
        ("ij->ji", [(3, 4)], 0),
    ],
)
def test_einsum(equation, shapes, expected):
    inputs = {f"x{index}": ones(*shape) for index, shape in enumerate(shapes)}
    assert macs_of("Einsum", inputs, equation=equation) == expected


def test_fft_formula():
    """N/2 log2 N butterflies of four real multiplications; half of that for a real signal; dense when not 2^k."""
    assert fft_macs(512, real=False) == 4 * 256 * 9
    assert fft_macs(512, real=True) == 2 * 256 * 9
    assert fft_macs(480, real=False) == 4 * 480**2
    assert fft_macs(480, real=True) == 480**2


def test_dft_and_stft():
    axis = {"n": np.array(64, np.int64), "axis": np.array(1, np.int64)}
    assert macs_of("DFT", {"x": ones(3, 64, 1)}, axis, onesided=1) == 3 * fft_macs(64, real=True)
    assert macs_of("DFT", {"x": ones(3, 64, 2)}, axis) == 3 * fft_macs(64, real=False)
    step, window = np.array(16, np.int64), ones(64)
    frames = (256 - 64) // 16 + 1
    macs = macs_of("STFT", {"x": ones(2, 256, 1)}, {"step": step, "window": window}, onesided=1)
    assert macs == 2 * frames * fft_macs(64, real=True)


def test_dft_in_the_older_form_with_its_axis_as_an_attribute():
    node = helper.make_node("DFT", ["x"], ["y"], axis=1, onesided=1)
    x = {"x": ones(3, 64, 1)}
    assert run_cost(model_of([node], x, ["y"], opset=17), x).macs == 3 * fft_macs(64, real=True)


def test_inner_product_written_out_counts_and_a_plain_sum_does_not():
    nodes = [
        helper.make_node("Sub", ["x", "codes"], ["difference"]),
        helper.make_node("Mul", ["difference", "difference"], ["square"]),
        helper.make_node("ReduceSum", ["square", "axes"], ["distance"], keepdims=0),
        helper.make_node("ReduceSum", ["distance", "axes"], ["sum"], keepdims=0),
    ]
    x = {"x": ones(7, 1, 5)}
    constants = {"codes": ones(11, 5), "axes": np.array([-1], np.int64)}
    assert run_cost(model_of(nodes, x, ["sum"], constants), x).by_op == {"ReduceSum": 7 * 11 * 5}


def test_elementwise_normalisation_and_lookups_are_free():
    assert macs_of("Mul", {"x": ones(4, 5)}, {"w": ones(4, 5)}) == 0
    assert macs_of("LayerNormalization", {"x": ones(4, 5)}, {"w": ones(5)}) == 0
    assert macs_of("Gather", {"table": ones(9, 5), "index": ones(3, dtype=np.int64)}) == 0
    assert "Conv" not in FREE


def test_unknown_operator_is_listed_and_never_silently_zero():
    grid = {"grid": np.zeros((1, 4, 4, 2), np.float32)}
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], name="warp")
    x = {"x": ones(1, 2, 8, 8)}
    assert run_cost(model_of([node], x, ["y"], grid), x).uncounted == {"GridSample warp"}


def body_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[str],
    outputs: Sequence[str],
    scalars: dict[str, int] | None = None,
) -> onnx.GraphProto:
    """The body of a control operator; its values are floats of any shape, or scalars of the types given."""

    def declare(name: str) -> onnx.ValueInfoProto:
        scalar = (scalars or {}).get(name)
        return helper.make_tensor_value_info(name, scalar or TensorProto.FLOAT, None if scalar is None else [])

    return helper.make_graph(nodes, "body", [declare(name) for name in inputs], [declare(name) for name in outputs])


def test_scan_counts_its_body_for_every_step_with_captured_weights():
    step = [
        helper.make_node("MatMul", ["state", "w"], ["turned"]),
        helper.make_node("Add", ["turned", "slice"], ["next"]),
        helper.make_node("Identity", ["next"], ["out"]),
    ]
    body = body_of(step, ["state", "slice"], ["next", "out"])
    node = helper.make_node("Scan", ["s", "x"], ["last", "y"], body=body, num_scan_inputs=1)
    inputs = {"s": ones(1, 6), "x": ones(13, 1, 6)}
    assert run_cost(model_of([node], inputs, ["y"], {"w": ones(6, 6)}), inputs).by_op == {"MatMul": 13 * 36}


def test_loop_runs_to_its_condition():
    step = [
        helper.make_node("MatMul", ["state", "w"], ["next"]),
        helper.make_node("ReduceMax", ["next"], ["peak"], keepdims=0),
        helper.make_node("Less", ["peak", "ceiling"], ["more"]),
    ]
    body = body_of(step, ["i", "go", "state"], ["more", "next"], {"i": INT64, "go": BOOL, "more": BOOL})
    node = helper.make_node("Loop", ["limit", "", "s"], ["y"], body=body)
    constants = {"w": 2 * np.eye(3, dtype=np.float32), "ceiling": np.array(30, np.float32)}
    constants["limit"] = np.array(100, np.int64)
    x = {"s": ones(1, 3)}  # 2, 4, 8, 16, 32: five steps
    assert run_cost(model_of([node], x, ["y"], constants), x).by_op == {"MatMul": 5 * 9}


def test_if_costs_its_dearer_branch_even_when_the_other_is_taken():
    cheap = body_of([helper.make_node("Identity", ["x"], ["a"])], [], ["a"])
    dear = body_of([helper.make_node("MatMul", ["x", "w"], ["b"])], [], ["b"])
    node = helper.make_node("If", ["lost"], ["y"], then_branch=cheap, else_branch=dear)
    inputs = {"lost": np.array(True), "x": ones(2, 4)}
    assert run_cost(model_of([node], inputs, ["y"], {"w": ones(4, 4)}), inputs).macs == 2 * 16


def test_scan_inside_scan_sees_values_of_both_graphs_around_it():
    inner = body_of([helper.make_node("MatMul", ["t", "w"], ["u"]), helper.make_node("Add", ["u", "row"], ["v"])], ["t"], ["v"])
    outer = body_of(
        [helper.make_node("Scan", ["row"], ["z"], body=inner, num_scan_inputs=1, scan_input_axes=[0])], ["row"], ["z"]
    )
    node = helper.make_node("Scan", ["x"], ["y"], body=outer, num_scan_inputs=1)
    x = {"x": ones(3, 5, 4)}
    assert run_cost(model_of([node], x, ["y"], {"w": ones(4, 4)}), x).by_op == {"MatMul": 3 * 5 * 16}


def per_frame(nodes: Sequence[onnx.NodeProto], constants: dict[str, Array], hop: int = 10) -> FrameCost:
    state = {"state": ones(4, 1, 3)}
    model = model_of(nodes, {"x": ones(1, 1, hop), **state}, ["y"], constants)
    return frame_cost(model, lambda frames: {"x": ones(1, 1, frames * hop), **state})


@pytest.mark.parametrize(("source", "per_call"), [("state", 4 * 3 * 10), ("constant", 0)])
def test_frame_cost_drops_what_a_call_pays_once_and_what_is_paid_at_loading(source, per_call):
    nodes = [
        helper.make_node("MatMul", [source, "b"], ["kernel"]),
        helper.make_node("Conv", ["x", "kernel"], ["y"], strides=[10]),
    ]
    cost = per_frame(nodes, {"b": ones(3, 10), "constant": ones(4, 1, 3)})
    assert (cost.macs, cost.per_call, cost.linear) == (4 * 10, per_call, True)


def test_cost_that_grows_with_the_call_is_said_to_be_so():
    nodes = [
        helper.make_node("Transpose", ["x"], ["keys"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["keys", "x"], ["y"]),
    ]
    assert not per_frame(nodes, {}).linear


def test_parameters_are_floats_and_small_integers_in_all_graphs():
    body = body_of([helper.make_node("MatMul", ["x", "inner"], ["b"])], [], ["b"])
    body.initializer.append(numpy_helper.from_array(ones(4, 4), "inner"))
    other = body_of([helper.make_node("Identity", ["x"], ["a"])], [], ["a"])
    node = helper.make_node("If", ["lost"], ["y"], then_branch=body, else_branch=other)
    inputs = {"lost": np.array(True), "x": ones(2, 4)}
    constants = {
        "half": ones(3, 5, dtype=np.float16),
        "eight": ones(6, 7, dtype=np.int8),
        "table": ones(9, 9, dtype=np.int64),
        "scalar": np.array(1.0, np.float32),
    }
    counted = weights(model_of([node], inputs, ["y"], constants))
    assert (counted.parameters, counted.bytes) == (16 + 15 + 42, 64 + 30 + 42)
