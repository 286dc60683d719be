"""MACs and parameters of an ONNX graph, read from the graph itself.

The shapes are not inferred but observed: ONNX Runtime runs the graph once with every intermediate value exposed, and
each node is charged for the shapes that it really met. The bodies of Scan, Loop and If become models of their own, run
on the values that they really receive, and count as often as they run. `macs` says what each operator costs.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, inliner

from linnet.evaluate.macs import Array, Call, node_macs

Values = Mapping[str, Any]
FLOATS = frozenset(("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"))
RANDOM = ("Bernoulli", "Multinomial", "Random")  # new in every call, though their inputs are constant
QUANTISED = frozenset(("INT8", "UINT8", "INT4", "UINT4"))
FRAMES = (8, 16, 24)  # of three calls, in equal steps: the first two give the slope, the third says whether it is one


@dataclass(frozen=True)
class Cost:
    """MACs by operator, and the nodes ("operator name") for whose cost there is no rule."""

    by_op: Mapping[str, int] = field(default_factory=dict)
    uncounted: frozenset[str] = frozenset()

    @property
    def macs(self) -> int:
        """MACs of all operators together."""
        return sum(self.by_op.values())

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(Counter(self.by_op) + Counter(other.by_op), self.uncounted | other.uncounted)

    def __mul__(self, times: int) -> "Cost":
        return Cost({op: macs * times for op, macs in self.by_op.items()}, self.uncounted)


@dataclass(frozen=True)
class FrameCost:
    """What one frame costs, as the slope over the number of frames in a call.

    `per_call` is the intercept: MACs that each call pays once, whatever it carries (a kernel built from a state, an
    overlap that is computed again). It is no part of `macs`. `linear` is False when a third point is off the line, as
    it is for attention over everything so far; then `macs` holds from the first to the second of `FRAMES` only.
    """

    macs: float
    by_op: Mapping[str, float]
    uncounted: frozenset[str]
    per_call: float
    linear: bool


@dataclass(frozen=True)
class Weights:
    """The number of trained values in a graph and the bytes they take there."""

    parameters: int
    bytes: int

    def __add__(self, other: "Weights") -> "Weights":
        return Weights(self.parameters + other.parameters, self.bytes + other.bytes)


class _Probe:
    """A graph with every value exposed: call it with its inputs, get every value by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        exposed = onnx.ModelProto()
        exposed.CopyFrom(model)
        del exposed.graph.output[:]
        self.names = [name for node in model.graph.node for name in node.output if name]
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.names)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # keeps the nodes as they are
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(exposed.SerializeToString(), options, ["CPUExecutionProvider"])
        self.constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in self.graph.initializer}

    def __call__(self, feeds: Values) -> dict[str, Any]:
        outputs = self.session.run(self.names, dict(feeds)) if self.names else []
        return {**self.constants, **feeds, **dict(zip(self.names, outputs, strict=True))}


def _free_names(graph: onnx.GraphProto) -> set[str]:
    """Names that a body takes from the graphs around it."""
    own = {value.name for value in (*graph.input, *graph.initializer)}
    own |= {name for node in graph.node for name in node.output}
    used = {value.name for value in graph.output}
    for node in graph.node:
        used |= {name for name in node.input if name}
        used |= {name for body in _bodies(node) for name in _free_names(body)}
    return used - own


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


@dataclass(frozen=True)
class _Body:
    """The body of a Scan, a Loop or a branch, as a model of its own, with the values it captures."""

    model: onnx.ModelProto
    captured: Values
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    probe: _Probe

    @classmethod
    def of(cls, model: onnx.ModelProto, graph: onnx.GraphProto, arguments: Sequence[Any], scope: Values) -> "_Body":
        """`arguments` are values for the body's own inputs: their types and ranks are all that matters here."""
        inputs = tuple(value.name for value in graph.input)
        captured = {name: scope[name] for name in _free_names(graph)}
        feeds = {**captured, **dict(zip(inputs, arguments, strict=True))}
        alone = onnx.ModelProto()
        alone.CopyFrom(model)
        alone.graph.CopyFrom(graph)
        del alone.graph.input[:], alone.graph.value_info[:]
        alone.graph.input.extend(_declare(name, value) for name, value in feeds.items())
        return cls(alone, captured, inputs, tuple(value.name for value in graph.output), _Probe(alone))

    def run(self, arguments: Sequence[Any]) -> tuple[Cost, list[Any]]:
        """One execution: its cost, and the body's outputs."""
        values = self.probe({**self.captured, **dict(zip(self.inputs, arguments, strict=True))})
        return _graph_cost(self.model, values), [values[name] for name in self.outputs]


def _declare(name: str, value: Any) -> onnx.ValueInfoProto:
    array = np.asarray(value)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)


def _graph_cost(model: onnx.ModelProto, values: Values) -> Cost:
    """The cost of one run of the model's main graph, in which the named values appeared.

    What follows from constants alone costs nothing: ONNX Runtime works it out once, when it loads the graph.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer} | {""}
    total = Cost()
    for node in model.graph.node:
        if constants.issuperset(node.input) and not _bodies(node) and not node.op_type.startswith(RANDOM):
            constants.update(node.output)
            continue
        if node.op_type in _CONTROL:
            total += _CONTROL[node.op_type](model, Call(node, values, producers))
            continue
        macs = node_macs(Call(node, values, producers))
        if macs is None:
            total += Cost(uncounted=frozenset([f"{node.op_type} {node.name or node.output[0]}"]))
        elif macs:
            total += Cost({node.op_type: macs})
    return total


def _scan_cost(model: onnx.ModelProto, call: Call) -> Cost:
    """Every step of a Scan has the same shapes, so the first step stands for all."""
    arguments = [np.asarray(call.values[name]) for name in call.node.input]
    states = len(arguments) - int(call.attribute("num_scan_inputs"))
    axes = call.attribute("scan_input_axes", [0] * (len(arguments) - states))
    steps = arguments[states].shape[axes[0]]
    if steps == 0:
        return Cost()
    slices = [np.asarray(np.take(value, 0, axis)) for value, axis in zip(arguments[states:], axes, strict=True)]
    first = [*arguments[:states], *slices]
    cost, _ = _Body.of(model, call.attribute("body"), first, call.values).run(first)
    return cost * steps


def _loop_cost(model: onnx.ModelProto, call: Call) -> Cost:
    """A Loop is run as it would run, every iteration charged for its own shapes."""
    limit = int(call.input(0)) if call.has(0) else np.iinfo(np.int64).max
    condition = bool(call.input(1)) if call.has(1) else True
    carried = [call.values[name] for name in call.node.input[2:]]
    total, trip = Cost(), 0
    body: _Body | None = None
    while condition and trip < limit:
        arguments = [np.array(trip, np.int64), np.array(True), *carried]
        body = body or _Body.of(model, call.attribute("body"), arguments, call.values)
        cost, outputs = body.run(arguments)
        condition, carried = bool(outputs[0]), outputs[1 : 1 + len(carried)]
        total, trip = total + cost, trip + 1
    return total


def _if_cost(model: onnx.ModelProto, call: Call) -> Cost:
    """An If costs its dearer branch, since the budget is for the worst frame."""
    taken = "then_branch" if bool(call.input(0)) else "else_branch"
    costs = []
    for branch in ("then_branch", "else_branch"):
        try:
            cost, _ = _Body.of(model, call.attribute(branch), [], call.values).run([])
        except Exception:  # ONNX Runtime's errors have no closer base
            if branch == taken:
                raise
            cost = Cost(uncounted=frozenset([f"If {call.node.name} ({branch} does not run on these inputs)"]))
        costs.append(cost)
    dearer = max(costs, key=lambda cost: cost.macs)
    return Cost(dearer.by_op, costs[0].uncounted | costs[1].uncounted)


_CONTROL: Mapping[str, Callable[[onnx.ModelProto, Call], Cost]] = {
    "Scan": _scan_cost,
    "Loop": _loop_cost,
    "If": _if_cost,
}


def run_cost(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> Cost:
    """The cost of one call with these inputs, by name."""
    flat = inliner.inline_local_functions(model)
    return _graph_cost(flat, _Probe(flat)(feeds))


def frame_cost(model: onnx.ModelProto, feeds: Callable[[int], Mapping[str, Array]]) -> FrameCost:
    """The cost of a frame, from calls of `FRAMES` frames; `feeds(T)` gives the inputs of T frames.

    The slope is what a frame adds, so that anything paid once a call drops out.
    """
    flat = inliner.inline_local_functions(model)
    probe = _Probe(flat)
    short, middle, long = (_graph_cost(flat, probe(feeds(count))) for count in FRAMES)
    step = FRAMES[1] - FRAMES[0]
    by_op = {op: (macs - short.by_op.get(op, 0)) / step for op, macs in middle.by_op.items()}
    per_frame = (middle.macs - short.macs) / step
    return FrameCost(
        macs=per_frame,
        by_op={op: macs for op, macs in sorted(by_op.items(), key=lambda item: -item[1]) if macs},
        uncounted=short.uncounted | middle.uncounted,
        per_call=short.macs - per_frame * FRAMES[0],
        linear=long.macs - middle.macs == per_frame * (FRAMES[2] - FRAMES[1]),
    )


def weights(model: onnx.ModelProto) -> Weights:
    """Parameters: every float vector or larger in the graph and its bodies, and every 8-bit or 4-bit matrix.

    A graph does not say which of its constants were trained, so windows and transform matrices count too. Integer
    tables of 16 bits and more, scalars, and shapes do not.
    """
    return _graph_weights(inliner.inline_local_functions(model).graph)


def _graph_weights(graph: onnx.GraphProto) -> Weights:
    constants = [
        attribute.t
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.type == onnx.AttributeProto.TENSOR
    ]
    packed = {node.input[1]: node for node in graph.node if node.op_type == "MatMulNBits"}
    total = Weights(0, 0)
    for tensor in (*graph.initializer, *constants):
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        elements = int(np.prod(tensor.dims, dtype=np.int64))
        size = elements * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if tensor.name in packed:  # several weights to a byte
            sizes = {attribute.name: attribute.i for attribute in packed[tensor.name].attribute}
            total += Weights(sizes["K"] * sizes["N"], size)
        elif (kind in FLOATS and tensor.dims) or (kind in QUANTISED and len(tensor.dims) >= 2):
            total += Weights(elements, size // 2 if kind.endswith("INT4") else size)
    for node in graph.node:
        for body in _bodies(node):
            total += _graph_weights(body)
    return total
