"""Exported graphs, run as the runtime runs them."""

import numpy as np
import onnxruntime


class Session:
    """A graph with the states of some streams."""

    def __init__(self, graph):
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.reset()

    def reset(self, streams=1):
        kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
        self.data, *states = self.session.get_inputs()
        shapes = [[streams if size == "streams" else size for size in state.shape] for state in states]
        self.states = {state.name: np.zeros(shape, kinds[state.type]) for state, shape in zip(states, shapes, strict=True)}

    def together(self, data):
        """Several streams' frames, `[frames, streams, width]`."""
        output, *states = self.session.run(None, {self.data.name: data, **self.states})
        self.states = dict(zip(self.states, states, strict=True))
        return output

    def __call__(self, data):
        """One stream's samples `[n]` or codes `[frames, layers]`, and the other in return."""
        output = self.together(data.reshape(-1, 1, self.data.shape[-1]))[:, 0]
        return output if output.dtype == np.int64 else output.reshape(-1)
