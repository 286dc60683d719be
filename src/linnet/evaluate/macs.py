"""What one node of an ONNX graph costs in multiply-accumulates, by the rules of the LRAC challenge.

Counted: convolutions, matrix products, recurrent layers, transforms and inner products, in floating point and in
integers alike. Free: activations, normalisation, element-wise arithmetic, data movement and table look-ups ("counting
only multiply-accumulate operations", the challenge's baseline page). An operator in neither list has no known cost, so
`node_macs` says None and its caller reports it; nothing is silently zero.

Where the rules leave a choice, this is ours:

- A multiplication by zero padding counts, as does a transposed convolution's output that is trimmed afterwards: the
  graph computes them.
- An FFT of N points (N a power of two) is N/2 log2 N complex multiplications of four real ones, hence 2 N log2 N MACs,
  and N log2 N when the signal on one side is real (Cooley and Tukey 1965; the radix-2 count, not the split-radix one).
  The additions are taken to be the "accumulate". Any other length counts as the dense product with the N basis
  vectors: 4 N^2, or N^2 for a real signal. A transform written as a matrix product or a convolution counts as one.
- An inner product written out as a Mul or a Pow followed by a ReduceSum counts one MAC for each summed element. So a
  codebook search costs its distances however it was written.
- Initial states, biases, peepholes and the scales of quantised weights are additions or element-wise: free.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

Array = np.ndarray


@dataclass(frozen=True)
class Call:
    """One execution of a node: the node, and every value in scope by name."""

    node: onnx.NodeProto
    values: Mapping[str, Any]
    producers: Mapping[str, onnx.NodeProto]

    def has(self, index: int) -> bool:
        """Whether the optional input `index` is connected."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def input(self, index: int) -> Array:
        """The value of the input `index`, which is connected, in the shape that it had."""
        return np.asarray(self.values[self.node.input[index]])

    def output(self, index: int = 0) -> Array:
        """Likewise of an output."""
        return np.asarray(self.values[self.node.output[index]])

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value as `onnx` gives it (text is bytes), `default` if the node does not have it."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                return onnx.helper.get_attribute_value(attribute)
        return default


def fft_macs(points: int, real: bool) -> int:
    """MACs of one discrete Fourier transform of `points` points; `real` when either side of it is real.

    >>> fft_macs(512, real=True), fft_macs(512, real=False), fft_macs(480, real=True)
    (4608, 9216, 230400)
    """
    if points & (points - 1) == 0:
        complex_macs = 2 * points * int(math.log2(points))
        return complex_macs // 2 if real else complex_macs
    return points**2 if real else 4 * points**2


def _conv(weight: int) -> Callable[[Call], int]:
    """Every output sample is an inner product with one filter, [out, in / groups, kernel...]."""
    return lambda call: call.output().size * math.prod(call.input(weight).shape[1:])


def _conv_transpose(call: Call) -> int:
    """Every input sample is spread by one filter, [in, out / groups, kernel...]."""
    return call.input(0).size * math.prod(call.input(1).shape[1:])


def _product(call: Call) -> int:
    """MatMul and its kin, and Gemm: every output is an inner product along the first operand's last axis."""
    axis = -2 if call.attribute("transA", 0) else -1
    return call.output().size * call.input(0).shape[axis]


def _packed_product(call: Call) -> int:
    """MatMulNBits packs its weight, so its inner dimension is the attribute K."""
    return call.output().size * int(call.attribute("K"))


def _recurrent(call: Call) -> int:
    """GRU, LSTM, RNN: every step of every sequence meets the whole of W (input) and R (recurrence), all gates.

    With two directions W and R hold both; `sequence_lens` is ignored, as if every sequence were full.
    """
    steps, batch = call.input(0).shape[:2]
    return steps * batch * (call.input(1).size + call.input(2).size)


def _einsum(call: Call) -> int:
    """One MAC for every combination of indices and every operand after the first, which is exact for two operands."""
    equation = call.attribute("equation").decode().replace(" ", "")
    operands, _, result = equation.partition("->")
    sizes: dict[str, int] = {}
    for index, labels in enumerate(operands.split(",")):
        shape = call.input(index).shape
        if "..." in labels:
            before, after = labels.split("...")
            middle = len(shape) - len(before) - len(after)
            axes = [*before, *(f".{middle - i}" for i in range(middle)), *after]
        else:
            axes = list(labels)
        sizes |= {axis: max(size, sizes.get(axis, 1)) for axis, size in zip(axes, shape, strict=True)}
    summed = set(sizes) - set(result) - {axis for axis in sizes if axis.startswith(".")}
    pairs = len(call.node.input) - 1
    if "->" in equation and not summed:
        return 0  # an outer or element-wise product: nothing is accumulated
    return pairs * math.prod(sizes.values())


def _dft(call: Call) -> int:
    """DFT: `[..., signal, ..., 1 or 2]`, any axis, forward or inverse."""
    signal = call.input(0)
    axis = int(call.input(2)) if call.has(2) else int(call.attribute("axis", -2))
    points = int(call.input(1)) if call.has(1) else signal.shape[axis]
    transforms = signal.size // (signal.shape[axis] * signal.shape[-1])
    real = 1 in (signal.shape[-1], call.output().shape[-1]) or bool(call.attribute("onesided", 0))
    return transforms * fft_macs(points, real)


def _stft(call: Call) -> int:
    """STFT: `[batch, signal, 1 or 2] -> [batch, frames, bins, 2]`."""
    signal = call.input(0)
    points = int(call.input(3)) if call.has(3) else call.input(2).shape[0]
    batch, frames = call.output().shape[:2]
    return batch * frames * fft_macs(points, real=signal.ndim == 2 or signal.shape[-1] == 1)


def _reduce_sum(call: Call) -> int:
    """The sum of a product or of a power is an inner product; any other sum has nothing multiplied."""
    values = call.input(0)
    producer = call.producers.get(call.node.input[0])
    inner = producer is not None and producer.op_type in ("Mul", "Pow")
    summed = call.output().size < values.size
    return values.size if inner and summed and np.issubdtype(values.dtype, np.floating) else 0


def _reduce_squares(call: Call) -> int:
    values = call.input(0)
    return values.size if call.output().size < values.size else 0


def _attention(call: Call) -> int:
    """Attention (opset 23): every query meets every key, then every output element sums over the keys."""
    keys = call.input(1).shape[-2] + (call.input(4).shape[-2] if call.has(4) else 0)
    return (call.input(0).size + call.output().size) * keys


COUNTED: Mapping[str, Callable[[Call], int]] = {
    **dict.fromkeys(("Conv", "FusedConv", "ConvInteger", "CausalConvWithState"), _conv(1)),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "TransposeMatMul"), _product),
    **dict.fromkeys(("MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"), _product),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), _packed_product),
    **dict.fromkeys(("GRU", "LSTM", "RNN", "DynamicQuantizeLSTM"), _recurrent),
    "Einsum": _einsum,
    "DFT": _dft,
    "STFT": _stft,
    "ReduceSum": _reduce_sum,
    **dict.fromkeys(("ReduceSumSquare", "ReduceL2"), _reduce_squares),
    "Attention": _attention,
}
ELEMENTWISE = """
Abs Add And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Clip Div Equal Exp Floor Greater
GreaterOrEqual IsInf IsNaN Less LessOrEqual Log Max Mean Min Mod Mul Neg Not Or Pow Reciprocal Round Sign Sqrt Sub Sum
Where Xor Acos Acosh Asin Asinh Atan Atanh Cos Cosh Sin Sinh Tan Tanh DequantizeLinear DynamicQuantizeLinear
QuantizeLinear RotaryEmbedding
"""
ACTIVATIONS = """
BiasGelu Celu Elu Erf FastGelu Gelu HardSigmoid HardSwish Hardmax LeakyRelu LogSoftmax Mish PRelu QuickGelu Relu Selu Shrink
Sigmoid Softmax Softplus Softsign Swish ThresholdedRelu
"""
NORMALISATION = """
AveragePool BatchNormalization Dropout GlobalAveragePool GlobalMaxPool GroupNormalization InstanceNormalization LRN
LayerNormalization LpNormalization MaxPool MeanVarianceNormalization RMSNormalization SimplifiedLayerNormalization
SkipLayerNormalization SkipSimplifiedLayerNormalization
"""
MOVING_DATA = """
Bernoulli BlackmanWindow Compress Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather
GatherElements GatherND HammingWindow HannWindow Identity Multinomial NonZero OneHot Pad RandomNormal RandomNormalLike
RandomUniform RandomUniformLike Range Reshape ReverseSequence Scatter ScatterElements ScatterND Shape Size Slice
SpaceToDepth Split Squeeze TensorScatter Tile Transpose Trilu Unique Unsqueeze
"""
REDUCTIONS = """
ArgMax ArgMin CumSum ReduceL1 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd TopK
"""
FREE = frozenset(" ".join((ELEMENTWISE, ACTIVATIONS, NORMALISATION, MOVING_DATA, REDUCTIONS)).split())


def node_macs(call: Call) -> int | None:
    """MACs of one execution of a node, 0 for a free operator, None for one whose cost nobody has written down."""
    kind = call.node.op_type
    if kind in COUNTED:
        return COUNTED[kind](call)
    return 0 if kind in FREE else None
