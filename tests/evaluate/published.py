"""Networks whose compute and latency are published, as plain torch modules: what the budget is tested against.

The LRAC 2025 baselines are built from the organisers' own configuration (github.com/cisco-open/espnet,
egs2/lrac/track{1,2}/conf/train.yaml), PhoenixCodec's decoder from its authors' page (arXiv 2510.21196). Offline and
with zero padding, since only shapes matter; weight normalisation is left out, as it folds into the weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from linnet.evaluate.latency import LookAhead

LRAC_RATE = 24000


@dataclass(frozen=True)
class Residual:
    """One residual sub-block: `[kernel, dilation, causal]` for each of its two convolutions."""

    kernels: tuple[int, int]
    dilation: int
    causal: tuple[bool, bool] = (True, True)

    def look_ahead(self, step: int) -> Iterator[LookAhead]:
        for kernel, dilation, causal in zip(self.kernels, (self.dilation, 1), self.causal, strict=True):
            if not causal:
                yield LookAhead.of_conv(kernel, dilation, step)


@dataclass(frozen=True)
class Baseline:
    """An LRAC baseline. Sequences run from the input of each side to its output, one entry a block."""

    encoder_channels: tuple[int, ...]
    encoder_strides: tuple[int, ...]
    encoder_blocks: tuple[tuple[Residual, ...], ...]
    decoder_channels: tuple[int, ...]
    decoder_strides: tuple[int, ...]
    decoder_blocks: tuple[tuple[Residual, ...], ...]
    codebook_dim: int
    hop: int = 240
    codebooks: int = 6
    codebook_size: int = 1024

    def encoder_look_ahead(self) -> Iterator[LookAhead]:
        """The encoder's layers that are not causal, in samples of the audio."""
        step = 1
        for stride, block in zip(self.encoder_strides, self.encoder_blocks, strict=True):
            for residual in block:
                yield from residual.look_ahead(step)
            step *= stride

    def decoder_look_ahead(self) -> Iterator[LookAhead]:
        """The decoder's layers that are not causal, in samples of the audio."""
        step = self.hop
        for stride, block in zip(self.decoder_strides, self.decoder_blocks, strict=True):
            step //= stride
            for residual in block:
                yield from residual.look_ahead(step)


def _block(kernels: str, dilations: str, ahead: dict[int, tuple[bool, bool]] | None = None) -> tuple[Residual, ...]:
    """`_block("51 73", "3 9")`: sub-blocks with kernels (5, 1) and (7, 3), dilations 3 and 9; `ahead` by index."""
    pairs = [(int(pair[0]), int(pair[1])) for pair in kernels.split()]
    return tuple(
        Residual(pair, int(dilation), (ahead or {}).get(index, (True, True)))
        for index, (pair, dilation) in enumerate(zip(pairs, dilations.split(), strict=True))
    )


FIRST_AHEAD = (False, True)
TRACK_1 = Baseline(
    encoder_channels=(8, 16, 32, 64, 160),
    encoder_strides=(3, 4, 4, 5),
    encoder_blocks=(
        _block("51 51 51", "3 9 27"),
        _block("51 51 51", "3 9 27"),
        _block("51 51 51", "3 7 27", {0: FIRST_AHEAD, 1: FIRST_AHEAD}),
        _block("51 73 73", "3 9 27"),
    ),
    decoder_channels=(160, 64, 32, 16, 8),
    decoder_strides=(5, 4, 3, 4),
    decoder_blocks=(
        _block("31 51 53", "5 5 25", {0: FIRST_AHEAD}),
        _block("51 51 51", "4 5 25"),
        _block("51 51 51", "3 5 25"),
        _block("51 51 51", "4 5 25"),
    ),
    codebook_dim=12,
)
TRACK_2 = Baseline(
    encoder_channels=(8, 16, 32, 64, 128, 320),
    encoder_strides=(2, 2, 3, 4, 5),
    encoder_blocks=(
        _block("73 73 73 73", "3 9 27 81"),
        _block("73 73 73 53", "3 9 27 81"),
        _block("73 73 73", "3 9 27"),
        _block("73 73 73", "3 9 27", {0: FIRST_AHEAD, 1: FIRST_AHEAD}),
        _block("73 73 73", "3 9 27", {0: (True, False)}),
    ),
    decoder_channels=(320, 96, 48, 24, 12, 8),
    decoder_strides=(5, 4, 3, 2, 2),
    decoder_blocks=(
        _block("31 31 51", "5 5 25", {0: FIRST_AHEAD, 1: FIRST_AHEAD}),
        _block("31 51 51", "4 5 25"),
        _block("51 51 51", "3 5 25"),
        _block("31 51 51", "2 5 25"),
        _block("51 51 51", "2 5 25"),
    ),
    codebook_dim=24,
)


class PaddedConv(nn.Module):
    """A convolution that keeps T * stride samples as T: zeros on the left, or on both sides when not causal."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, stride: int = 1, causal: bool = True):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, dilation=dilation)
        total = (kernel - 1) * dilation - (stride - 1)
        right = 0 if causal else total // 2
        self.padding = (total - right, right)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs, T * stride] -> [batch, outputs, T]`."""
        return self.conv(functional.pad(x, self.padding))


class ResidualBlock(nn.Module):
    """ELU, convolution, ELU, convolution, beside the identity. `[batch, channels, T]` in and out."""

    def __init__(self, channels: int, shape: Residual) -> None:
        super().__init__()
        convs = [
            PaddedConv(channels, channels, kernel, dilation, causal=causal)
            for kernel, dilation, causal in zip(shape.kernels, (shape.dilation, 1), shape.causal, strict=True)
        ]
        self.branch = nn.Sequential(nn.ELU(), convs[0], nn.ELU(), convs[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def lrac_encoder(shape: Baseline) -> nn.Sequential:
    """`[1, 1, T * hop] -> [1, latent, T]`."""
    layers: list[nn.Module] = [PaddedConv(1, shape.encoder_channels[0], 7)]
    for index, (stride, block) in enumerate(zip(shape.encoder_strides, shape.encoder_blocks, strict=True)):
        inputs, outputs = shape.encoder_channels[index : index + 2]
        layers += [ResidualBlock(inputs, residual) for residual in block]
        layers += [nn.ELU(), PaddedConv(inputs, outputs, 2 * stride, stride=stride)]
    return nn.Sequential(*layers)


def lrac_decoder(shape: Baseline) -> nn.Sequential:
    """`[1, latent, T] -> [1, 1, T * hop]`."""
    layers: list[nn.Module] = []
    for index, (stride, block) in enumerate(zip(shape.decoder_strides, shape.decoder_blocks, strict=True)):
        inputs, outputs = shape.decoder_channels[index : index + 2]
        layers += [nn.ELU(), nn.ConvTranspose1d(inputs, outputs, stride, stride)]
        layers += [ResidualBlock(outputs, residual) for residual in block]
    return nn.Sequential(*layers, nn.ELU(), PaddedConv(shape.decoder_channels[-1], 1, 21), nn.Tanh())


class ResidualSearch(nn.Module):
    """A residual quantizer's search: project down, compare with every code, take away the best.

    The codes' projections back to the latent are tables (`codebook @ W_out`, made once), so that taking them away is a
    look-up: the published figure holds the projection down and the search, nothing else.
    """

    def __init__(self, shape: Baseline) -> None:
        super().__init__()
        latent, books = shape.encoder_channels[-1], shape.codebooks
        self.down = nn.Parameter(torch.randn(books, latent, shape.codebook_dim))
        self.codes = nn.Parameter(torch.randn(books, shape.codebook_dim, shape.codebook_size))
        self.tables = nn.Parameter(torch.randn(books, shape.codebook_size, latent))
        self.register_buffer("norms", (self.codes.detach() ** 2).sum(1))

    def forward(self, latent: Tensor) -> Tensor:
        """`[1, latent, T] -> codes [T, codebooks]`."""
        residual = latent[0].transpose(0, 1)
        codes = []
        for index, (down, book, table) in enumerate(zip(self.down, self.codes, self.tables, strict=True)):
            distance = self.norms[index] - 2 * (residual @ down @ book)
            codes.append(distance.argmin(1))
            residual = residual - functional.embedding(codes[-1], table)
        return torch.stack(codes, 1)


# PhoenixCodec: the decoder at 16 kHz, from a latent of 335 at 83.33 Hz.
PHOENIX_HOP = 192
PHOENIX_CHANNELS = (117, 58, 29, 14, 7)
PHOENIX_STRIDES = (3, 4, 4, 4)
PHOENIX_KERNELS = (7, 9, 9, 11)
PHOENIX_LAST_KERNEL = 7


class Snake(nn.Module):
    """`x + sin(alpha x)^2 / alpha`, with an alpha for each channel (Ziyin et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(0.5 + torch.rand(channels, 1))  # equal ones would be merged by the exporter

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x) ** 2 / self.alpha


class SnakeUnit(nn.Module):
    """BigCodec's residual unit: Snake, a wide convolution, Snake, a pointwise one. `[batch, channels, T]`."""

    def __init__(self, channels: int, kernel: int, dilation: int, causal: bool) -> None:
        super().__init__()
        wide = PaddedConv(channels, channels, kernel, dilation, causal=causal)
        self.branch = nn.Sequential(Snake(channels), wide, Snake(channels), nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class PhoenixDecoder(nn.Module):
    """`[1, 335, T] -> [1, 1, T * 192]`; transposed kernels of twice the stride, dilations 1, 3, 9 as in BigCodec."""

    def __init__(self) -> None:
        super().__init__()
        width = PHOENIX_CHANNELS[0]
        self.first = nn.Conv1d(335, width, 1)
        self.lstm = nn.LSTM(width, width)
        layers: list[nn.Module] = []
        for index, (stride, kernel) in enumerate(zip(PHOENIX_STRIDES, PHOENIX_KERNELS, strict=True)):
            inputs, outputs = PHOENIX_CHANNELS[index : index + 2]
            up = nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride, (stride + 1) // 2, stride % 2)
            layers += [Snake(inputs), up]
            layers += [SnakeUnit(outputs, kernel, dilation, causal=dilation > 1) for dilation in (1, 3, 9)]
        last = PaddedConv(PHOENIX_CHANNELS[-1], 1, PHOENIX_LAST_KERNEL, causal=False)
        self.synthesis = nn.Sequential(*layers, Snake(PHOENIX_CHANNELS[-1]), last, nn.Tanh())

    def forward(self, latent: Tensor) -> Tensor:
        x = self.first(latent)
        memory, _ = self.lstm(x.permute(2, 0, 1))
        return self.synthesis(x + memory.permute(1, 2, 0))


def phoenix_look_ahead() -> list[LookAhead]:
    """In samples at 16 kHz: the first wide convolution of each stage, then the last convolution."""
    step = PHOENIX_HOP
    layers = []
    for stride, kernel in zip(PHOENIX_STRIDES, PHOENIX_KERNELS, strict=True):
        step //= stride
        layers.append(LookAhead.of_conv(kernel, 1, step))
    return [*layers, LookAhead.of_conv(PHOENIX_LAST_KERNEL, 1, 1)]
