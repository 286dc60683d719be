"""Writes an ONNX graph: `g.Add(x, y)` appends a node and gives back the name of its output."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

OPSET = 23
STREAMS = "streams"
"""The name of the axis, one in every input, along which streams lie that know nothing of each other."""
MICROSOFT = "com.microsoft"
_CONTRIB = ("CausalConvWithState", "MatMulNBits")
_TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}

Operand: TypeAlias = "str | np.ndarray | Tensor | float"


class Builder:
    """A graph under construction. Any operand that is not the name of a value becomes a constant.

    Every ONNX operator is a method: inputs by position (None where one is left out), attributes by name, `outputs` for the
    number of results, which come as a tuple when there are several, `domain` where ONNX Runtime has its own operator of that
    name. `eight_bit` says how layers store their weights.
    """

    def __init__(self, *, eight_bit: bool, names: Iterator[int] | None = None):
        self.eight_bit = eight_bit
        self.nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._results: dict[str, str] = {}
        self._constants: dict[tuple, onnx.TensorProto] = {}
        self._names = names or itertools.count()
        self._scope = ""

    def __getattr__(self, operator: str) -> Callable[..., Any]:
        if not operator[0].isupper():
            raise AttributeError(operator)

        def append(*operands: Operand | None, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
            inputs = ["" if operand is None else self.value(operand) for operand in operands]
            results = [self._name(operator) for _ in range(outputs)]
            domain = MICROSOFT if operator in _CONTRIB else domain
            self.nodes.append(helper.make_node(operator, inputs, results, results[0], domain=domain, **attributes))
            return results[0] if outputs == 1 else tuple(results)

        return append

    def value(self, operand: Operand) -> str:
        """The name of a value, or of the constant that an array or a number becomes."""
        if isinstance(operand, str):
            return operand
        if isinstance(operand, Tensor):
            operand = operand.detach().numpy()
        array = np.asarray(operand, np.float32 if isinstance(operand, float) else None)
        return self._constant(array.astype(np.float32) if array.dtype == np.float64 else array)

    def double(self, number: float) -> str:
        """A constant in double precision."""
        return self._constant(np.array(number))

    def _constant(self, array: np.ndarray) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, self._name("constant"))
        return self._constants[key].name

    def integers(self, table: np.ndarray) -> str:
        """An int64 table, stored as narrowly as its values allow: ONNX Runtime widens it once, when it loads the graph."""
        kind = next(kind for kind in (np.int8, np.int16, np.int32, np.int64) if (table.astype(kind) == table).all())
        return self.Cast(table.astype(kind), to=TensorProto.INT64)

    def floats(self, table: Tensor) -> str:
        """A float table; with 8-bit weights in half the bytes, widened once at loading."""
        if not self.eight_bit:
            return self.value(table)
        return self.Cast(table.detach().numpy().astype(np.float16), to=TensorProto.FLOAT)

    def split(self, value: str, sizes: Sequence[int], axis: int) -> tuple[str, ...]:
        """Parts of so many places; one part is the value itself."""
        return self.Split(value, np.array(sizes), outputs=len(sizes), axis=axis) if len(sizes) > 1 else (value,)

    def input(self, name: str, kind: type, shape: Sequence[int | str]) -> str:
        """Declare an input."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[np.dtype(kind)], shape))
        return name

    def state(self, name: str, kind: type, shape: Sequence[int | str]) -> str:
        """Declare a state: an input that `keep` pairs with an output."""
        return self.input(f"state_{self._scope}{name}", kind, shape)

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Within it states are called after `name`, so that one network may stand in a graph twice."""
        self._scope = f"{name}_"
        yield
        self._scope = ""

    def keep(self, state: str, value: str) -> None:
        """Let `value` be the state's new value."""
        self._results[f"new_{state}"] = value

    def delay(self, name: str, x: str, count: int, size: int) -> str:
        """The frames of float `x`, `[frames, streams, size]`, `count` of them later; silence comes first."""
        past = self.state(name, np.float32, [count, STREAMS, size])
        joined = self.Concat(past, x, axis=0)
        self.keep(past, self.Slice(joined, np.array([-count]), np.array([np.iinfo(np.int64).max])))
        return self.Slice(joined, np.array([0]), np.array([-count]))

    def output(self, name: str, value: str, kind: type, shape: Sequence[int | str]) -> None:
        """Let `value` be the graph's first output."""
        self._results = {name: value, **self._results}
        self._first = helper.make_tensor_value_info(name, _TYPES[np.dtype(kind)], shape)

    def scan(
        self, body: Callable[..., tuple[Sequence[str], Sequence[str]]], states: Sequence[str], series: Sequence[str],
        kinds: Sequence[type], state_shapes: Sequence[Sequence[int | str]],
    ) -> tuple[str, ...]:  # fmt: skip
        """Run `body` over the first axis of every series: `(g, *states, *slices) -> new states, results`.

        `kinds` are the types of states, then of series. Gives the last states, then each result stacked.
        """
        inner = Builder(eight_bit=self.eight_bit, names=self._names)
        names = [inner._name("each") for _ in (*states, *series)]
        shapes = [*state_shapes, *([None] * len(series))]
        for name, kind, shape in zip(names, kinds, shapes, strict=True):
            inner._inputs.append(helper.make_tensor_value_info(name, _TYPES[np.dtype(kind)], shape))
        after, results = body(inner, *names)
        described = zip(after, kinds, state_shapes, strict=False)
        outputs = [helper.make_tensor_value_info(name, _TYPES[np.dtype(kind)], shape) for name, kind, shape in described]
        outputs += [onnx.ValueInfoProto(name=name) for name in results]
        return self.Scan(
            *states, *series, outputs=len(outputs), body=inner._graph(outputs), num_scan_inputs=len(series)
        )  # fmt: skip

    def finish(self) -> bytes:
        """The graph, serialized and checked."""
        names = {value: name for name, value in self._results.items()}
        for node in self.nodes:
            for field in (node.input, node.output):
                field[:] = [names.get(value, value) for value in field]
        states = [onnx.ValueInfoProto() for _ in self._inputs[1:]]
        for new, old in zip(states, self._inputs[1:], strict=True):
            new.CopyFrom(old)
            new.name = f"new_{old.name}"
        imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(self._graph([self._first, *states]), opset_imports=imports, ir_version=11)
        onnx.checker.check_model(model, full_check=False)
        return model.SerializeToString(deterministic=True)

    def _graph(self, outputs: Sequence[onnx.ValueInfoProto]) -> onnx.GraphProto:
        return helper.make_graph(self.nodes, "linnet", self._inputs, outputs, list(self._constants.values()))

    def _name(self, kind: str) -> str:
        return f"{kind}_{next(self._names)}"
