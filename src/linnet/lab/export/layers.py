"""Layers as operators: each takes values of shape `[frames, streams, channels]` unless it says otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from linnet.lab.export.builder import STREAMS, Builder
from linnet.lab.nn.blocks import ConvNeXt, ResidualGru

# Smallest block on which an 8-bit product is at its fastest, and largest for which ONNX Runtime 1.31 gives a row the same
# result, to the bit, in a call of its own and among others.
_BLOCK = 64
# Below so many weights the bytes saved are nothing beside the rounding of the activations.
_WORTH_PACKING = 4096


def linear(g: Builder, x: str, weight: Tensor, bias: Tensor, *, exact: bool = False) -> str:
    """`x @ weight.T + bias`, weight `[out, in]`; `exact` keeps this one's weights from being rounded to 8 bits.

    With 8-bit weights, activations are rounded too, each block of a row by its own largest value, and summed as integers: so
    a frame's result does not depend on how many frames share the call.
    """
    outputs, inputs = weight.shape
    if not g.eight_bit or exact or weight.numel() < _WORTH_PACKING:
        return g.Add(g.MatMul(x, g.floats(weight.T.contiguous())), bias)
    packed, scales = pack_rows(weight.detach().numpy())
    sizes = {"K": inputs, "N": outputs, "bits": 8, "block_size": _BLOCK, "accuracy_level": 4}
    return g.MatMulNBits(x, packed, scales, None, None, bias, **sizes)


def pack_rows(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float `[out, in]` as MatMulNBits wants it: uint8 `[out, blocks, block]` around 128, float scales `[out, blocks]`."""
    outputs, inputs = weight.shape
    blocks = np.pad(weight, ((0, 0), (0, -inputs % _BLOCK))).reshape(outputs, -1, _BLOCK)
    scales = np.maximum(np.abs(blocks).max(-1) / 127, 1e-12).astype(np.float32)
    return (np.round(blocks / scales[..., None]) + 128).astype(np.uint8), scales


def layer_norm(g: Builder, x: str, norm: nn.LayerNorm) -> str:
    return g.LayerNormalization(x, norm.weight, norm.bias, axis=-1, epsilon=norm.eps)


def conv_next(g: Builder, x: str, block: ConvNeXt, state: str) -> tuple[str, str]:
    """The block and its new state, `[streams, channels, history]`."""
    conv: Any = block.depthwise.conv
    channels_first = g.Transpose(x, perm=[1, 2, 0])
    mixed, state = g.CausalConvWithState(channels_first, conv.weight, conv.bias, state, outputs=2, activation="none", ndim=1)
    y = layer_norm(g, g.Transpose(mixed, perm=[2, 0, 1]), block.norm)
    y = g.Gelu(linear(g, y, block.expand.weight, block.expand.bias))
    scaled = block.scale.unsqueeze(1) * block.project.weight
    return g.Add(x, linear(g, y, scaled, block.scale * block.project.bias)), state


def backbone(g: Builder, x: str, chain: Any, name: str) -> str:
    """ConvNeXt blocks and recurrences one after the other, with a state each, which are called after `name`."""
    for number, block in enumerate(chain.blocks):
        if isinstance(block, ResidualGru):
            before = g.state(f"{name}_{number}", np.float32, [STREAMS, block.gru.hidden_size])
            y, after = recurrence(g, layer_norm(g, x, block.norm), block.gru, before)
            x = g.Add(x, y)
        else:
            conv = block.depthwise
            before = g.state(f"{name}_{number}", np.float32, [STREAMS, conv.conv.in_channels, conv.history])
            x, after = conv_next(g, x, block, before)
        g.keep(before, after)
    return x


def gru(g: Builder, x: str, layer: Any, state: str) -> tuple[str, str]:
    """A small GRU as one operator, its weights in float: `[frames, streams, inputs]` -> `[frames, streams, hidden]`.

    State `[1, streams, hidden]`.
    """
    y, state = _gru(g, x, layer, state)
    return g.Squeeze(y, np.array([1])), state


def gru_before(g: Builder, x: str, layer: Any, name: str) -> str:
    """A small GRU's state before each frame `[frames, streams, hidden]`, kept as the state `name`: what it foretells from."""
    before = g.state(name, np.float32, [1, STREAMS, layer.hidden_size])
    y, after = gru(g, x, layer, before)
    g.keep(before, after)
    return g.Slice(g.Concat(before, y, axis=0), np.array([0]), np.array([-1]))


def gru_step(g: Builder, x: str, layer: Any, state: str) -> str:
    """One step of a small GRU with an input `[1, streams, inputs]`: state -> state, `[1, streams, hidden]`."""
    return _gru(g, x, layer, state)[1]


def _gru(g: Builder, x: str, layer: Any, state: str) -> tuple[str, str]:
    weights = [g.floats(_update_first(matrix).unsqueeze(0)) for matrix in (layer.weight_ih_l0, layer.weight_hh_l0)]
    biases = torch.cat([_update_first(bias) for bias in (layer.bias_ih_l0, layer.bias_hh_l0)]).unsqueeze(0)
    return g.GRU(x, *weights, biases, None, state, outputs=2, hidden_size=layer.hidden_size, linear_before_reset=1)


def _update_first(gates: Tensor) -> Tensor:
    """torch's order of gates (reset, update, new) as ONNX has it."""
    reset, update, new = gates.chunk(3)
    return torch.cat([update, reset, new])


def recurrence(g: Builder, x: str, layer: Any, state: str) -> tuple[str, str]:
    """A large GRU as a Scan, its weights in 8 bits as any layer's: ONNX Runtime's own operator knows floats only.

    State `[streams, hidden]`.
    """
    hidden = layer.hidden_size
    sizes = np.array([2 * hidden, hidden])
    series = g.Split(linear(g, x, layer.weight_ih_l0, layer.bias_ih_l0), sizes, outputs=2, axis=-1)

    def step(inner: Builder, before: str, *said: str) -> tuple[list[str], list[str]]:
        own = inner.Split(linear(inner, before, layer.weight_hh_l0, layer.bias_hh_l0), sizes, outputs=2, axis=-1)
        gates = inner.Sigmoid(inner.Add(said[0], own[0]))
        reset, update = inner.Split(gates, outputs=2, axis=-1, num_outputs=2)
        new = inner.Tanh(inner.Add(said[1], inner.Mul(reset, own[1])))
        after = inner.Add(new, inner.Mul(update, inner.Sub(before, new)))
        return [after], [inner.Identity(after)]

    kinds = [np.float32] * 3
    state, y = g.scan(step, [state], series, kinds, [[STREAMS, hidden]])
    return y, state
