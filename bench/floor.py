"""The least time that a frame can take on this core: its products at the core's rate, or its weights at its bandwidth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from linnet.evaluate.graph_cost import frame_cost, weights

_INPUTS = 1024


@dataclass(frozen=True)
class Work:
    """What one frame of a graph must at least do; its weights count as they are stored, tables of which it reads a row too."""

    macs: float
    weight_bytes: int

    def seconds(self, macs_per_second: float, bytes_per_second: float) -> float:
        """Whichever takes longer."""
        return max(self.macs / macs_per_second, self.weight_bytes / bytes_per_second)


def work(serialized: bytes, feeds: Callable[[int], Mapping[str, np.ndarray]]) -> Work:
    """Of a bundle's graph, for which `feeds(frames)` gives the inputs by name."""
    model = onnx.load_from_string(serialized)
    return Work(frame_cost(model, feeds).macs, weights(model).bytes)


class Product:
    """An 8-bit product of a vector and a matrix of so many columns, in ONNX Runtime."""

    def __init__(self, outputs: int) -> None:
        rng = np.random.default_rng(0)
        self.macs = _INPUTS * outputs
        weight = rng.integers(-127, 128, (_INPUTS, outputs)).astype(np.int8)
        constants = {"weight": weight, "middle": np.array(128, np.uint8)}
        graph = helper.make_graph(
            [helper.make_node("MatMulInteger", ["x", "weight", "middle"], ["y"])],
            "product",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, _INPUTS])],
            [helper.make_tensor_value_info("y", TensorProto.INT32, [1, outputs])],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.x = rng.integers(0, 256, (1, _INPUTS)).astype(np.uint8)
        self.binding = self.session.io_binding()
        self.binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(self.x))
        self.binding.bind_output("y")

    def __call__(self) -> None:
        """Once."""
        self.session.run_with_iobinding(self.binding)


def products() -> tuple[Product, Product]:
    """A small one and one that just fits in a core's own cache: between them, the cost of a call drops out."""
    return Product(64), Product(768)


class Reading:
    """Reading as many bytes as the weights have, again and again: from the cache that holds them, if one does."""

    def __init__(self, size: int) -> None:
        self.bytes = size
        self.array = np.ones(size // 4, np.float32)

    def __call__(self) -> None:
        """All of them once."""
        self.array.max()
