"""Building blocks that stream: each is a pure function of an input and a state, for any number of frames.

Every block has `initial_state(batch)`, the state of silence before the first frame, and `forward(x, state) -> (y, state)`
with x `[batch, frames, channels]`. A state is a tensor or a tuple of states. Calling a block on a whole signal or on its
frames one by one gives the same output: there is no second, streaming version.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

State: TypeAlias = "Tensor | tuple[State, ...]"


def flatten_state(state: State) -> list[Tensor]:
    """The tensors of a state in a fixed order, as an exported graph takes them."""
    return [state] if isinstance(state, Tensor) else [leaf for part in state for leaf in flatten_state(part)]


def unflatten_state(template: State, leaves: Iterable[Tensor]) -> State:
    """The inverse of `flatten_state`, in the shape of `template`."""
    supply = iter(leaves)

    def build(part: State) -> State:
        return next(supply) if isinstance(part, Tensor) else tuple(build(inner) for inner in part)

    return build(template)


class CausalConv(nn.Module):
    """One-dimensional convolution over time that sees the past only; `dilation` spreads its taps, `stride` thins them.

    Shape: `[batch, frames, channels]` -> `[batch, frames / stride, out_channels]`; frames is a multiple of the stride.
    """

    def __init__(self, channels: int, out_channels: int, kernel: int, *, dilation: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        if (kernel - 1) * dilation + 1 < stride:
            raise ValueError("a kernel shorter than its stride would skip samples")
        self.conv = nn.Conv1d(channels, out_channels, kernel, stride=stride, dilation=dilation, groups=groups)
        self.history = (kernel - 1) * dilation + 1 - stride

    def initial_state(self, batch: int) -> Tensor:
        return self.conv.weight.new_zeros(batch, self.history, self.conv.in_channels)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([state.to(x.dtype), x], 1)
        y = self.conv(joined.transpose(1, 2)).transpose(1, 2)
        return y, joined[:, joined.shape[1] - self.history :]


class CausalConvTranspose(nn.Module):
    """Transposed convolution over time: `[batch, frames, channels]` -> `[batch, frames * stride, out_channels]`.

    What a frame adds beyond its own stride is carried in the state, so no output waits for a later input.
    """

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int):
        super().__init__()
        if kernel < stride:
            raise ValueError("a kernel shorter than its stride would leave gaps")
        self.conv = nn.ConvTranspose1d(channels, out_channels, kernel, stride=stride, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.stride, self.overlap = stride, kernel - stride

    def initial_state(self, batch: int) -> Tensor:
        return self.bias.new_zeros(batch, self.conv.out_channels, self.overlap)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.conv(x.transpose(1, 2))
        length = raw.shape[2] - self.overlap
        total = raw + F.pad(state.to(raw.dtype), (0, length))
        return total[:, :, :length].transpose(1, 2) + self.bias, total[:, :, length:]


class ConvNeXt(nn.Module):
    """Depthwise causal convolution, normalisation, a pointwise layer and back, added to the input.

    Liu et al., A ConvNet for the 2020s (arXiv 2201.03545), in one dimension as Vocos uses it (arXiv 2306.00814). Each
    channel's branch is scaled by a learned factor, small at first, so that a deep stack starts as the identity.
    """

    def __init__(self, channels: int, hidden: int, kernel: int = 7, scale: float = 0.2):
        super().__init__()
        self.depthwise = CausalConv(channels, channels, kernel, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def initial_state(self, batch: int) -> Tensor:
        return self.depthwise.initial_state(batch)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.depthwise(x, state)
        y = self.project(F.gelu(self.expand(self.norm(y))))
        return x + self.scale * y, state


class ResidualGru(nn.Module):
    """A gated recurrent unit over time, its output added to its input."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.gru = nn.GRU(channels, channels, batch_first=True)

    def initial_state(self, batch: int) -> Tensor:
        return self.norm.weight.new_zeros(batch, self.gru.hidden_size)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, last = self.gru(self.norm(x), state.unsqueeze(0).to(x.dtype))
        return x + y, last.squeeze(0)


class ResidualLstm(nn.Module):
    """A long short-term memory over time, its output added to its input."""

    def __init__(self, channels: int):
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, batch_first=True)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        zeros = next(self.parameters()).new_zeros(batch, self.lstm.hidden_size)
        return zeros, zeros

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, cell = (part.unsqueeze(0).to(x.dtype) for part in state)
        y, (hidden, cell) = self.lstm(x, (hidden, cell))
        return x + y, (hidden.squeeze(0), cell.squeeze(0))


class WindowedAttention(nn.Module):
    """Self-attention over the present frame and the `window - 1` before it, added to its input.

    Relative positions enter as a learned bias per head and distance, or with `rotary` as the angle between queries and keys
    that are turned by their places (Su et al., RoFormer, arXiv 2104.09864), so a frame's place in the stream does not matter.
    The state holds keys and values of the last `window - 1` frames and one more column: 1 where a frame has been.
    """

    def __init__(self, channels: int, heads: int, window: int, *, rotary: bool = False):
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.distance_bias = None if rotary else nn.Parameter(torch.zeros(heads, window))

    def initial_state(self, batch: int) -> Tensor:
        return self.query.weight.new_zeros(batch, self.window - 1, 2 * self.query.in_features + 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        normed = self.norm(x)
        present = self.key_value(normed)
        present = torch.cat([present, torch.ones_like(present[..., :1])], -1)
        memory = torch.cat([state.to(present.dtype), present], 1)
        n_frames, n_memory = x.shape[1], memory.shape[1]
        keys, values = memory[..., :-1].unflatten(-1, (2, self.heads, -1)).unbind(2)
        queries = self.query(normed).unflatten(-1, (self.heads, -1))
        # Frame t stands at place t + window - 1 of the memory.
        place = torch.arange(n_frames, device=x.device) + self.window - 1
        memory_place = torch.arange(n_memory, device=x.device)
        distance = place.unsqueeze(1) - memory_place
        visible = ((distance >= 0) & (distance < self.window)) & (memory[:, None, None, :, -1] > 0.5)
        if self.distance_bias is None:
            queries, keys = turned(queries, place), turned(keys, memory_place)
        scores = torch.einsum("bthc,bshc->bhts", queries, keys) / queries.shape[-1] ** 0.5
        if self.distance_bias is not None:
            scores = scores + self.distance_bias[:, distance.clamp(0, self.window - 1)]
        weights = torch.softmax(scores.masked_fill(~visible, -1e4).float(), -1).to(values.dtype)
        mixed = torch.einsum("bhts,bshc->bthc", weights, values).flatten(-2)
        return x + self.out(mixed), memory[:, n_memory - self.window + 1 :]


def turned(x: Tensor, place: Tensor) -> Tensor:
    """Pairs of channels as complex numbers, turned by their place times a frequency of their own (RoFormer, section 3.2.2):
    `[batch, n, heads, channels]` at the places int64 `[n]`."""
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-torch.arange(half, device=x.device) / half)
    angles = (place.unsqueeze(1) * frequencies)[:, None]
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    real, imaginary = x.chunk(2, -1)
    return torch.cat([real * cosine - imaginary * sine, real * sine + imaginary * cosine], -1)


class FeedForward(nn.Module):
    """Normalisation, a pointwise layer and back, added to the input: the other half of a transformer's layer."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)

    def initial_state(self, batch: int) -> tuple[()]:  # noqa: ARG002 (every block has this signature)
        return ()

    def forward(self, x: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return x + self.project(F.gelu(self.expand(self.norm(x)))), state


class Snake(nn.Module):
    """x + sin(a x)^2 / a with a learned per channel: an activation with a period (Ziyin et al., arXiv 2006.08195, eq. 3)."""

    def __init__(self, channels: int):
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(channels))

    def initial_state(self, batch: int) -> tuple[()]:  # noqa: ARG002 (every block has this signature)
        return ()

    def forward(self, x: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        alpha = self.log_alpha.exp()
        return x + torch.sin(alpha * x) ** 2 / alpha, state


class Chain(nn.Module):
    """Blocks one after the other; its state is the tuple of theirs."""

    def __init__(self, *blocks: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def initial_state(self, batch: int) -> tuple[State, ...]:
        return tuple(cast(Any, block).initial_state(batch) for block in self.blocks)

    def forward(self, x: Tensor, state: tuple[State, ...]) -> tuple[Tensor, tuple[State, ...]]:
        after = []
        for block, before in zip(self.blocks, state, strict=True):
            x, new = block(x, before)
            after.append(new)
        return x, tuple(after)


class Stateless(nn.Module):
    """A layer that remembers nothing (an activation, a product, another shape), as a block."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def initial_state(self, batch: int) -> tuple[()]:  # noqa: ARG002 (every block has this signature)
        return ()

    def forward(self, x: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return self.layer(x), state


class NewAxis(nn.Module):
    """A layer that makes `[batch, n]` a single channel, `[batch, n, 1]`, or with `axis` 2 a frame a single bin."""

    def __init__(self, axis: int = -1):
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(self.axis)


class Delay(nn.Module):
    """The input, `frames` late (one or more)."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.frames = frames
        self.register_buffer("silence", torch.zeros(1, frames, channels), persistent=False)
        self.silence: Tensor

    def initial_state(self, batch: int) -> Tensor:
        return self.silence.repeat(batch, 1, 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([state.to(x.dtype), x], 1)
        return joined[:, : -self.frames], joined[:, -self.frames :]


class Residual(nn.Module):
    """What blocks in a row make of the input, added to the input.

    Blocks that look ahead by `lookahead` frames answer so much late, and the input waits for them. A convolution that is
    centred on its output, of kernel k and dilation d, is a `CausalConv` that is (k - 1) d / 2 frames late, weights and all.
    """

    def __init__(self, channels: int, *blocks: nn.Module, lookahead: int = 0):
        super().__init__()
        self.branch = Chain(*blocks)
        self.identity = Delay(channels, lookahead) if lookahead else Chain()

    def initial_state(self, batch: int) -> tuple[State, State]:
        return self.branch.initial_state(batch), self.identity.initial_state(batch)

    def forward(self, x: Tensor, state: tuple) -> tuple[Tensor, tuple[State, State]]:
        y, branch = self.branch(x, state[0])
        identity, waiting = self.identity(x, state[1])
        return identity + y, (branch, waiting)


def weight_normalised(block: Chain) -> Chain:
    """The block itself, with the weights of its convolutions and products split into length and direction (Salimans and Kingma,
    arXiv 1602.07868). An exported graph has them multiplied out."""
    for module in list(block.modules()):
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d, nn.Linear)):
            weight_norm(module)
    return block


def without_biases(block: nn.Module) -> None:
    """Let every bias of a block begin at zero. Beside torch's the small samples of speech are nothing, and what networks that
    work on samples then say is a constant, from which they hardly find a waveform."""
    for name, parameter in block.named_parameters():
        if "bias" in name.rpartition(".")[2]:
            nn.init.zeros_(parameter)
