"""A bundle's two graphs by tracing: any system whose two sides are pure functions of input and state.

A traced frame takes more operators than one written by hand (`encoder.py`, `decoder.py`), and computes with floats: for systems
to be compared, not to be shipped in an application.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils import parametrize

from linnet.bundle import BACKGROUND_CUT
from linnet.lab.nn.blocks import State, flatten_state, unflatten_state
from linnet.lab.systems.plain import StreamingSystem

# Neither one frame or stream nor a number that a network might have: axes of these lengths are theirs.
_FRAMES, _STREAMS = 7, 3
# Fewer weights are not worth a node.
_WORTH_HALVING = 1024


@torch.no_grad()
def trace_graphs(codec: StreamingSystem, *, halved: bool = False) -> tuple[bytes, bytes]:
    """The encoder's graph, `samples` float32 `[frames, streams, hop]` and states -> `codes` int64 `[frames, streams, layers]`,
    new states; and the decoder's, the other way. With `halved` weights take half the bytes, widened once at loading."""
    codec = _multiplied_out(codec).eval()
    sending, receiving = codec.initial_states(_STREAMS)
    encoder = _Side(codec, lambda x, state: codec.encode_step(x.flatten(1), state), sending)
    decoder = _Side(codec, lambda x, state: _framed(codec, *codec.decode_step(x, state)), receiving)
    samples = torch.zeros(_FRAMES, _STREAMS, codec.config.hop)
    codes = torch.zeros(_FRAMES, _STREAMS, codec.config.n_layers, dtype=torch.int64)
    sender = _trace(encoder.eval(), "samples", samples, "codes")
    receiver = _trace(decoder.eval(), "codes", codes, "samples", BACKGROUND_CUT if codec.mixes else None)
    return (_halved(sender), _halved(receiver)) if halved else (sender, receiver)


def _multiplied_out(codec: StreamingSystem) -> StreamingSystem:
    """A copy whose normalised weights are plain ones."""
    codec = copy.deepcopy(codec)
    for module in codec.modules():
        if parametrize.is_parametrized(module):
            # Torch's own removal would change the class, which the copy shares with the original.
            weight: Any = module.weight
            plain = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            module.__class__ = plain
            module.weight = nn.Parameter(weight)
    return codec


def _framed(codec: StreamingSystem, samples: Tensor, state: State) -> tuple[Tensor, State]:
    return samples.unflatten(1, (-1, codec.config.hop)), state


class _Side(nn.Module):
    """A step over `[frames, streams, width]`, its state as a flat list."""

    def __init__(self, codec: StreamingSystem, step: Callable[[Tensor, State], tuple[Tensor, State]], state: State):
        super().__init__()
        self.codec, self.step, self.state = codec, step, state

    def forward(self, data: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        y, after = self.step(data.transpose(0, 1), unflatten_state(self.state, states))
        return y.transpose(0, 1), *flatten_state(after)


def _trace(side: _Side, taken: str, data: Tensor, given: str, last: str | None = None) -> bytes:
    """States are called by their numbers, but for the `last`, where it has a name."""
    states = flatten_state(side.state)
    names = [f"state_{number}" for number in range(len(states))]
    names[-1] = last or names[-1]
    after = [f"new_{name}" for name in names]
    axes = {name: {0: "frames", 1: "streams"} for name in (taken, given)}
    axes |= {name: {0: "streams"} for name in (*names, *after)}
    file: Any = io.BytesIO()  # whose type the exporter's own annotation forgets
    with warnings.catch_warnings():
        # Of values that tracing takes for constants: the shapes that may change have names, and tests hold them.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            side, (data, *states), file, input_names=[taken, *names], output_names=[given, *after], dynamic_axes=axes,
            opset_version=17, dynamo=False,
        )  # fmt: skip
    return bytes(file.getvalue())


def _halved(graph: bytes) -> bytes:
    """With the large float constants in half precision, each behind a cast."""
    model = onnx.load_from_string(graph)
    casts = []
    for constant in model.graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.dtype == np.float32 and values.size >= _WORTH_HALVING:
            name = constant.name
            constant.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(helper.make_node("Cast", [constant.name], [name], f"{name}_float", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString(deterministic=True)
