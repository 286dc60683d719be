"""A graph of a bundle and the state it carries from call to call."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnxruntime

_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class Graph:
    """A loaded graph, shared by any number of streams; holds no state itself."""

    def __init__(self, serialized: bytes, threads: int = 1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
        data, *states = self.session.get_inputs()
        self.data_name = data.name
        self._initial = {state.name: np.zeros(state.shape, _TYPES[state.type]) for state in states}

    def stream(self) -> GraphStream:
        """A new stream, in the state of silence."""
        return GraphStream(self)

    def initial_state(self) -> dict[str, npt.NDArray]:
        """Silence before the first frame: zeros, by the bundle contract."""
        return dict(self._initial)


class GraphStream:
    """One stream through a graph: call it with consecutive data."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.state = graph.initial_state()

    def __call__(self, data: npt.NDArray) -> npt.NDArray:
        """Run the graph on the next frames and keep the new state."""
        output, *states = self.graph.session.run(None, {self.graph.data_name: data, **self.state})
        self.state = dict(zip(self.state, states, strict=True))
        return output

    def reset(self) -> None:
        """Back to silence."""
        self.state = self.graph.initial_state()
