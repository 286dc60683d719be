"""A graph of a bundle and the states that streams carry from call to call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import EllipsisType

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _native

from linnet.bits import StateError
from linnet.bundle import BACKGROUND_CUT, BundleError
from linnet.runtime.state import State, taken

BLOCK_FRAMES = 256
"""Frames in one call of a graph, all streams' together: more make no call faster, and an hour needs no more memory."""

SETTINGS = (BACKGROUND_CUT,)
"""States that are no memory of a stream but its listener's choice: the graph leaves them as they are, and nothing resets, saves
or restores them."""

_STREAMS = "streams"  # the name of an input's axis of streams
_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
Arrays = list[npt.NDArray]

RUNTIME_ERRORS = tuple(kind for kind in vars(_native).values() if isinstance(kind, type) and issubclass(kind, Exception))
"""What ONNX Runtime raises; these have no closer base than Exception."""


class Graph:
    """A loaded graph, shared by any number of streams; holds no state itself. BundleError if it is none that runs here."""

    def __init__(self, serialized: bytes, threads: int = 1):
        self._serialized, self._threads = serialized, threads
        self.single = self._session(1)
        _, *states = self.single.get_inputs()
        self.inputs = [value.name for value in self.single.get_inputs()]
        self.outputs = [value.name for value in self.single.get_outputs()]
        self.states = [(tuple(state.shape), _TYPES[state.type]) for state in states]
        result = self.single.get_outputs()[0]
        self.nothing = np.zeros((0, result.shape[-1]), _TYPES[result.type])  # what no frames give

    @cached_property
    def several(self) -> onnxruntime.InferenceSession:
        """What runs several streams; holds the weights once more, and is loaded when it is first asked for."""
        return self._session(None)

    @cached_property
    def axes(self) -> list[int]:
        """Each state's axis of streams."""
        return [state.shape.index(_STREAMS) for state in self.several.get_inputs()[1:]]

    def stream(self) -> GraphStream:
        """A new stream, in the state of silence."""
        return self.streams(1)[0]

    def streams(self, count: int) -> GraphStreams:
        """So many new streams that share their calls."""
        return GraphStreams(self, count)

    def _session(self, streams: int | None) -> onnxruntime.InferenceSession:
        """For a fixed number of streams or any: fixed to one, a call of one frame is 1 to 2 % shorter."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what fails is raised
        # One pattern of memory serves every call, so an arena would only hold more of it.
        options.enable_cpu_mem_arena = False
        if streams is not None:
            options.add_free_dimension_override_by_name(_STREAMS, streams)
        try:
            return onnxruntime.InferenceSession(self._serialized, options, providers=["CPUExecutionProvider"])
        except RUNTIME_ERRORS as error:
            raise BundleError(f"the model's graph cannot be loaded, export it again: {error}") from error


@dataclass(frozen=True)
class _Bound:
    """A call between fixed arrays: preparing one costs more than a frame of a small network, so streams keep their own."""

    data: npt.NDArray
    output: npt.NDArray
    binding: onnxruntime.IOBinding
    # ONNX Runtime writes to these without holding them.
    before: Arrays
    after: Arrays

    @classmethod
    def of(
        cls, graph: Graph, session: onnxruntime.InferenceSession, data: npt.NDArray, output: npt.NDArray, before: Arrays,
        after: Arrays,
    ) -> _Bound:  # fmt: skip
        binding = session.io_binding()
        for name, array in zip(graph.inputs, [data, *before], strict=True):
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name, array in zip(graph.outputs, [output, *after], strict=True):
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        return cls(data, output, binding, before, after)


class GraphStreams:
    """Streams that go through a graph together, so that a call reads its weights once for all. Their states lie side by side.

    `streams[i]` is one of them, as a stream of its own.
    """

    def __init__(self, graph: Graph, count: int):
        self.graph, self.count = graph, count
        self.session = graph.single if count == 1 else graph.several
        shapes = [shape for shape, _ in graph.states]
        if count > 1:
            shapes = [(*shape[:axis], count, *shape[axis + 1 :]) for shape, axis in zip(shapes, graph.axes, strict=True)]
        # Silence before the first frame: zeros, by the bundle contract.
        self.state: Arrays = [np.zeros(shape, kind) for shape, (_, kind) in zip(shapes, graph.states, strict=True)]
        self._shape: tuple[int, ...] | None = None
        self._bound: list[_Bound] = []

    def __getitem__(self, slot: int) -> GraphStream:
        return GraphStream(self, range(self.count)[slot])

    def places(self, slots: Sequence[int]) -> list[tuple[slice | EllipsisType | Sequence[int], ...]]:
        """Where in each state those streams' lie."""
        return [self.place(number, slots) for number in range(len(self.state))]

    def place(self, number: int, slots: Sequence[int]) -> tuple[slice | EllipsisType | Sequence[int], ...]:
        """Where in one state they do."""
        return (...,) if self.count == 1 else (*[slice(None)] * self.graph.axes[number], slots)

    def __call__(self, data: npt.NDArray, slots: Sequence[int] | None = None) -> npt.NDArray:
        """Run the graph on the next frames `[frames, streams, width]`, of all or of those `slots`, and keep the new states."""
        if slots is not None:
            places = self.places(slots)
            output, *after = self._run(data, [array[place] for array, place in zip(self.state, places, strict=True)])
            for array, place, new in zip(self.state, places, after, strict=True):
                array[place] = new
            return output
        if data.shape != self._shape:
            self._shape, self._bound = data.shape, []
            output, *self.state = self._run(data, self.state)
            return output
        if not self._bound:
            # The second call of this shape, hence likely one of many.
            output, *self.state = self._run(data, self.state)
            self._bind(data, output)
            return output
        bound = self._bound[0]
        self._bound.reverse()
        np.copyto(bound.data, data)
        self.session.run_with_iobinding(bound.binding)
        self.state = bound.after
        return bound.output.copy()

    def each(self, data: Sequence[npt.NDArray]) -> Arrays:
        """Every stream's next frames `[frames, width]`, from none to many -> what the graph gives for each of them.

        As many calls as there are different numbers of frames: one where all streams have as many.
        """
        lengths = [len(frames) for frames in data]
        step = max(1, BLOCK_FRAMES // self.count)
        ends = sorted({*lengths, *range(step, max(lengths), step)} - {0})
        parts: list[Arrays] = [[] for _ in data]
        for start, end in zip([0, *ends], ends, strict=False):
            slots = [slot for slot, length in enumerate(lengths) if length >= end]
            frames = np.stack([data[slot][start:end] for slot in slots], 1)
            output = self(frames, slots if len(slots) < self.count else None)
            for place, slot in enumerate(slots):
                parts[slot].append(output[:, place])
        return [joined(own) if own else self.graph.nothing for own in parts]

    def _run(self, data: npt.NDArray, state: Arrays) -> Arrays:
        feeds = dict(zip(self.graph.inputs, [data, *state], strict=True))
        try:
            return self.session.run(self.graph.outputs, feeds)
        except RUNTIME_ERRORS as error:
            raise BundleError(f"the model's graph does not run as its card says, export it again: {error}") from error

    def _bind(self, data: npt.NDArray, output: npt.NDArray) -> None:
        """Two calls in turn, each from the state that the other leaves."""
        own, other = self.state, [np.empty_like(array) for array in self.state]
        data, output = np.empty(data.shape, data.dtype), np.empty_like(output)
        turns = ((own, other), (other, own))
        self._bound = [_Bound.of(self.graph, self.session, data, output, *states) for states in turns]


class GraphStream:
    """One stream through a graph: call it with consecutive frames."""

    def __init__(self, streams: GraphStreams, slot: int):
        self.graph = streams.graph
        self._streams, self._slot = streams, slot
        self._slots = None if streams.count == 1 else [slot]

    def reset(self) -> None:
        """Back to silence."""
        for array, place in self._memory().values():
            array[place] = 0

    def setting(self, name: str) -> float | None:
        """One of `SETTINGS`; None of a graph that has none of this name."""
        if name not in self.graph.inputs:
            return None
        array, place = self._own(name)
        return float(array[place].item())

    def set(self, name: str, value: float) -> None:
        """Change a setting that the graph has."""
        array, place = self._own(name)
        array[place] = value

    def save(self) -> State:
        """The state, by the graph's names of it."""
        return {name: array[place].copy() for name, (array, place) in self._memory().items()}

    def restore(self, state: State) -> None:
        """Go on from a saved state.

        Raises:
            StateError: if it is not of this graph's names and shapes. The stream is then as it was.
        """
        arrays = {}
        for name, (shape, kind) in zip(self.graph.inputs[1:], self.graph.states, strict=True):
            if name in SETTINGS:
                continue
            arrays[name] = taken(state, name, kind, len(shape))
            if arrays[name].shape != shape:
                raise StateError(f"a saved state whose {name!r} has the shape {list(arrays[name].shape)}, not {list(shape)}")
        for name, (array, place) in self._memory().items():
            array[place] = arrays[name]

    def __call__(self, data: npt.NDArray) -> npt.NDArray:
        """Run the graph on the next frames `[frames, width]` and keep the new state."""
        return self._streams(data[:, np.newaxis], self._slots)[:, 0]

    def _memory(self) -> dict[str, tuple[npt.NDArray, tuple]]:
        return {name: self._own(name) for name in self.graph.inputs[1:] if name not in SETTINGS}

    def _own(self, name: str) -> tuple[npt.NDArray, tuple]:
        """A state's array, and where this stream's part of it lies."""
        number = self.graph.inputs.index(name) - 1
        return self._streams.state[number], self._streams.place(number, [self._slot])


def joined(blocks: Arrays) -> npt.NDArray:
    """One block is itself: next to a frame's graph, every call of numpy counts."""
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
