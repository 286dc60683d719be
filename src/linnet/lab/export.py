"""From a trained codec to a bundle's two graphs.

The networks are traced by torch's exporter. Two things run frame by frame because each frame needs the last one's outcome:
the closed-loop search of the base layer, and the pitch. Each is traced for one frame and becomes the body of a Scan.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import onnx
import torch
from onnx import TensorProto, compose, helper
from torch import Tensor, nn

from linnet.lab.nn.blocks import flatten_state, unflatten_state
from linnet.lab.systems.codec import Codec

_OPSET = 20


class _Analysis(nn.Module):
    """Samples `[n]` and states -> latent `[frames, dim]`, pitch wanted `[frames]`, new states."""

    def __init__(self, codec: Codec):
        super().__init__()
        self.encoder, self.tracker = codec.encoder, codec.tracker
        self.template = (codec.encoder.initial_state(1), codec.tracker.initial_state(1))

    def forward(self, samples: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        encoder, tracker = unflatten_state(self.template, states)
        batch = samples.unsqueeze(0)
        logits, tracker = self.tracker(batch, tracker)
        pitch = self.tracker.steps(logits)
        latent, encoder = self.encoder(batch, pitch, encoder)
        return latent[0], pitch[0], *flatten_state((encoder, tracker))


class _SearchFrame(nn.Module):
    def __init__(self, codec: Codec):
        super().__init__()
        self.quantizer = codec.quantizer
        # As constants: a Scan would work them out again in every frame.
        entries, offsets = codec.quantizer.search_tables()
        self.register_buffer("entries", entries.detach().clone())
        self.register_buffer("offsets", offsets.detach().clone())
        self.entries: Tensor
        self.offsets: Tensor

    def forward(self, hidden: Tensor, previous: Tensor, latent: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
        state, tables = (hidden, previous), (self.entries, self.offsets)
        index, base, state = self.quantizer.search_frame(latent.unsqueeze(0), wanted.unsqueeze(0), state, tables)
        hidden, previous = state
        return hidden, previous, index[0], base[0]


class _SearchRest(nn.Module):
    def __init__(self, codec: Codec):
        super().__init__()
        self.quantizer = codec.quantizer

    def forward(self, latent: Tensor, index: Tensor, base: Tensor) -> Tensor:
        return torch.cat([index.unsqueeze(1), self.quantizer.search_rest(latent, base)], 1)


class _PitchFrame(nn.Module):
    def __init__(self, codec: Codec):
        super().__init__()
        self.quantizer = codec.quantizer

    def forward(self, previous: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        pitch = self.quantizer.pitch_frame(code[:1], previous)
        # A copy, because a Scan's body may not give one value out twice.
        return pitch, (pitch - 1)[0]


class _Synthesis(nn.Module):
    """Codes `[frames, layers]`, pitch `[frames]` and states -> samples `[n]`, new states."""

    def __init__(self, codec: Codec):
        super().__init__()
        self.quantizer, self.decoder = codec.quantizer, codec.decoder
        self.template = (codec.quantizer.initial_state(1)[0], codec.decoder.initial_state(1))

    def forward(self, codes: Tensor, pitch: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        hidden, *decoder = states
        latent, count, hidden = self.quantizer.dequantize(codes.unsqueeze(0), hidden)
        samples, decoder = self.decoder(latent, pitch.unsqueeze(0), count, unflatten_state(self.template[1], decoder))
        return samples[0], hidden, *flatten_state(decoder)


def export_encoder(codec: Codec) -> bytes:
    """The encoder's graph: `samples` float32 `[frames * hop]` and states -> `codes` int64 `[frames, layers]`, new states."""
    codec = codec.eval()
    hop, dim = codec.config.hop, codec.config.latent_dim
    analysis = _Analysis(codec)
    states = flatten_state(analysis.template)
    names = _state_names(len(states))
    frames = torch.export.Dim("frames", min=1, max=1 << 20)
    head = _trace(
        analysis, (torch.zeros(4 * hop), *states), ["samples", *names], ["latent", "pitch", *_new(names)], ({0: hop * frames},)
    )
    quantizer_states = codec.quantizer.initial_state(1)
    body = _trace(
        _SearchFrame(codec), (*quantizer_states, torch.zeros(dim), torch.tensor(0)),
        ["hidden", "previous", "latent", "wanted"], ["new_hidden", "new_previous", "index", "base"], (),
    )  # fmt: skip
    tail = _trace(
        _SearchRest(codec), (torch.zeros(4, dim), torch.zeros(4, dtype=torch.long), torch.zeros(4, dim)),
        ["latent", "index", "base"], ["codes"], ({0: frames}, {0: frames}, {0: frames}),
    )  # fmt: skip
    scan = _scan(
        body,
        2,
        ["state_search", "state_pitch", "head_latent", "head_pitch"],
        ["new_state_search", "new_state_pitch", "index", "base"],
    )
    return _assemble(
        [(head, "head_"), (tail, "tail_")], scan,
        {"tail_latent": "head_latent", "tail_index": "index", "tail_base": "base"},
        inputs={"samples": "head_samples", **{name: f"head_{name}" for name in names}},
        outputs={"codes": "tail_codes", **{name: f"head_{name}" for name in _new(names)}},
        scan_states=dict(zip(("state_search", "state_pitch"), quantizer_states, strict=True)),
    )  # fmt: skip


def export_decoder(codec: Codec) -> bytes:
    """The decoder's graph: `codes` int64 `[frames, layers]` (-1: did not arrive) and states -> `samples`, new states."""
    codec = codec.eval()
    synthesis = _Synthesis(codec)
    states = flatten_state(synthesis.template)
    names = _state_names(len(states))
    frames = torch.export.Dim("frames", min=1, max=1 << 20)
    codes = torch.zeros(4, codec.config.n_layers, dtype=torch.long)
    tail = _trace(
        synthesis, (codes, torch.zeros(4, dtype=torch.long), *states),
        ["codes", "pitch", *names], ["samples", *_new(names)], ({0: frames}, {0: frames}),
    )  # fmt: skip
    previous = codec.quantizer.initial_state(1)[1]
    body = _trace(_PitchFrame(codec), (previous, codes[0]), ["previous", "code"], ["new_previous", "pitch"], ())
    scan = _scan(body, 1, ["state_pitch", "tail_codes"], ["new_state_pitch", "tail_pitch_steps"])
    return _assemble(
        [(tail, "tail_")], scan, {"tail_pitch": "tail_pitch_steps"},
        inputs={"codes": "tail_codes", **{name: f"tail_{name}" for name in names}},
        outputs={"samples": "tail_samples", **{name: f"tail_{name}" for name in _new(names)}},
        scan_states={"state_pitch": previous},
    )  # fmt: skip


def _state_names(count: int) -> list[str]:
    return [f"state_{number}" for number in range(count)]


def _new(names: Sequence[str]) -> list[str]:
    return [f"new_{name}" for name in names]


def _trace(module: nn.Module, arguments: tuple, inputs: list[str], outputs: list[str], dynamic: tuple) -> onnx.ModelProto:
    shapes = (*dynamic, *({} for _ in arguments[len(dynamic) :]))
    signature = (shapes[0], shapes[1:]) if isinstance(module, _Analysis) else shapes
    if isinstance(module, _Synthesis):
        signature = (shapes[0], shapes[1], shapes[2:])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, arguments, input_names=inputs, output_names=outputs, opset_version=_OPSET, dynamo=True,
            dynamic_shapes=signature, verbose=False,
        )  # fmt: skip
    assert program is not None
    return program.model_proto


def _scan(body: onnx.ModelProto, n_states: int, inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
    graph = compose.add_prefix(body, "scan_").graph
    return helper.make_node("Scan", inputs, outputs, body=graph, num_scan_inputs=len(inputs) - n_states)


def _assemble(
    parts: list[tuple[onnx.ModelProto, str]], scan: onnx.NodeProto, joints: dict[str, str], *,
    inputs: dict[str, str], outputs: dict[str, str], scan_states: dict[str, Tensor],
) -> bytes:  # fmt: skip
    """Parts and a Scan as one graph; `joints` names, for an input of a part, the value that feeds it.

    `inputs` and `outputs` map the finished graph's names to the parts'; the Scan's states come last on both sides.
    """
    prefixed = [compose.add_prefix(model, prefix).graph for model, prefix in parts]
    after = [node for graph in prefixed for node in graph.node]
    # The Scan stands behind whatever feeds it and before whatever it feeds: ONNX wants nodes in topological order.
    split = len(prefixed[0].node) if len(parts) > 1 else 0
    nodes = [*after[:split], scan, *after[split:]]
    rename = {**joints, **{inner: name for name, inner in inputs.items()}, **{inner: name for name, inner in outputs.items()}}
    for node in nodes:
        _rename(node, rename)
    values = {value.name: value for graph in prefixed for value in (*graph.input, *graph.output)}
    graph_inputs = [_named(values[inner], name) for name, inner in inputs.items()]
    graph_outputs = [_named(values[inner], name) for name, inner in outputs.items()]
    # The tracer declares the length it saw; the first input and output take any number of frames.
    for value in (graph_inputs[0], graph_outputs[0]):
        dimension = value.type.tensor_type.shape.dim[0]
        dimension.Clear()
        dimension.dim_param = value.name if len(value.type.tensor_type.shape.dim) == 1 else "frames"
    for name, state in scan_states.items():
        kind = TensorProto.FLOAT if state.is_floating_point() else TensorProto.INT64
        graph_inputs.append(helper.make_tensor_value_info(name, kind, list(state.shape)))
        graph_outputs.append(helper.make_tensor_value_info(f"new_{name}", kind, list(state.shape)))
    initializers = [tensor for graph in prefixed for tensor in graph.initializer]
    graph = helper.make_graph(nodes, "linnet", graph_inputs, graph_outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=False)
    return model.SerializeToString()


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for field in (node.input, node.output):
        for position, name in enumerate(field):
            field[position] = names.get(name, name)


def _named(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy
