"""A graph of a bundle and the state it carries from call to call."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _native

from linnet.bits import StateError
from linnet.bundle import BundleError
from linnet.runtime.state import State, taken

_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
Arrays = list[npt.NDArray]

RUNTIME_ERRORS = tuple(kind for kind in vars(_native).values() if isinstance(kind, type) and issubclass(kind, Exception))
"""What ONNX Runtime raises; these have no closer base than Exception."""


class Graph:
    """A loaded graph, shared by any number of streams; holds no state itself. BundleError if it is none that runs here."""

    def __init__(self, serialized: bytes, threads: int = 1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what fails is raised
        # One pattern of memory serves every call, so an arena would only hold more of it.
        options.enable_cpu_mem_arena = False
        try:
            self.session = onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
        except RUNTIME_ERRORS as error:
            raise BundleError(f"the model's graph cannot be loaded, export it again: {error}") from error
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.states = [(state.shape, _TYPES[state.type]) for state in self.session.get_inputs()[1:]]

    def stream(self) -> GraphStream:
        """A new stream, in the state of silence."""
        return GraphStream(self)

    def initial_state(self) -> Arrays:
        """Silence before the first frame: zeros, by the bundle contract."""
        return [np.zeros(shape, kind) for shape, kind in self.states]


@dataclass(frozen=True)
class _Bound:
    """A call between fixed arrays: preparing one costs more than a frame of a small network, so a stream keeps its own."""

    data: npt.NDArray
    output: npt.NDArray
    binding: onnxruntime.IOBinding
    # ONNX Runtime writes to these without holding them.
    before: Arrays
    after: Arrays

    @classmethod
    def of(cls, graph: Graph, data: npt.NDArray, output: npt.NDArray, before: Arrays, after: Arrays) -> _Bound:
        binding = graph.session.io_binding()
        for name, array in zip(graph.inputs, [data, *before], strict=True):
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name, array in zip(graph.outputs, [output, *after], strict=True):
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        return cls(data, output, binding, before, after)


class GraphStream:
    """One stream through a graph: call it with consecutive data."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.reset()

    def reset(self) -> None:
        """Back to silence."""
        self.state = self.graph.initial_state()
        self._shape: tuple[int, ...] | None = None
        self._bound: list[_Bound] = []

    def save(self) -> State:
        """The state, by the graph's names of it."""
        return {name: array.copy() for name, array in zip(self.graph.inputs[1:], self.state, strict=True)}

    def restore(self, state: State) -> None:
        """Go on from a saved state.

        Raises:
            StateError: if it is not of this graph's names and shapes. The stream is then as it was.
        """
        arrays = []
        for name, (shape, kind) in zip(self.graph.inputs[1:], self.graph.states, strict=True):
            arrays.append(taken(state, name, kind, len(shape)))
            if arrays[-1].shape != tuple(shape):
                raise StateError(f"a saved state whose {name!r} has the shape {list(arrays[-1].shape)}, not {list(shape)}")
        self.reset()
        self.state = arrays

    def __call__(self, data: npt.NDArray) -> npt.NDArray:
        """Run the graph on the next frames and keep the new state."""
        if data.shape != self._shape:
            self._shape, self._bound = data.shape, []
            return self._run(data)
        if not self._bound:
            # The second call of this shape, hence likely one of many.
            output = self._run(data)
            self._bind(data, output)
            return output
        bound = self._bound[0]
        self._bound.reverse()
        np.copyto(bound.data, data)
        self.graph.session.run_with_iobinding(bound.binding)
        self.state = bound.after
        return bound.output.copy()

    def _run(self, data: npt.NDArray) -> npt.NDArray:
        feeds = dict(zip(self.graph.inputs, [data, *self.state], strict=True))
        try:
            output, *self.state = self.graph.session.run(self.graph.outputs, feeds)
        except RUNTIME_ERRORS as error:
            raise BundleError(f"the model's graph does not run as its card says, export it again: {error}") from error
        return output

    def _bind(self, data: npt.NDArray, output: npt.NDArray) -> None:
        """Two calls in turn, each from the state that the other leaves."""
        own, other = self.state, self.graph.initial_state()
        data, output = np.empty(data.shape, data.dtype), np.empty_like(output)
        self._bound = [_Bound.of(self.graph, data, output, *states) for states in ((own, other), (other, own))]
