"""EnCodec's 24 kHz model in shape, with random weights: what our speed is compared with.

Défossez et al. 2022 (arXiv 2210.13438) and github.com/facebookresearch/encodec, `EncodecModel.encodec_model_24khz`:
SEANet with 32 filters, ratios 8 5 4 2, one residual layer of half the width with a convolution beside it, two LSTM
layers, 128 dimensions, causal and weight-normed; 8 codebooks of 1024 at 75 Hz for 6 kbit/s. Every module is
`y, states = module(x, states)`, so that one network runs as a stream and as a file; EnCodec itself has no stream, and
pads by reflection where this starts from silence, which costs the same.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

SAMPLE_RATE = 24000
RATIOS = (8, 5, 4, 2)
FILTERS = 32
DIMENSION = 128
CODEBOOKS = 8
CODEBOOK_SIZE = 1024
HOP = math.prod(RATIOS)

States = list[Tensor]


class Conv(nn.Module):
    """A causal convolution; its state is the input that the next call still sees."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = parametrizations.weight_norm(nn.Conv1d(inputs, outputs, kernel, stride))
        self.context = kernel - stride

    def initial(self) -> Iterator[Tensor]:
        if self.context:
            yield torch.zeros(1, self.conv.in_channels, self.context)

    def forward(self, x: Tensor, states: Iterator[Tensor], new: States) -> Tensor:
        """`[1, inputs, T * stride] -> [1, outputs, T]`."""
        if self.context:
            x = torch.cat([next(states), x], 2)
            new.append(x[:, :, -self.context :])
        return self.conv(x)


class Up(nn.Module):
    """A transposed convolution of twice its stride; its state is the half of the last output yet to be added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = parametrizations.weight_norm(nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride, bias=False))
        self.bias = nn.Parameter(torch.zeros(outputs, 1))  # added once, after the halves
        self.stride = stride

    def initial(self) -> Iterator[Tensor]:
        yield torch.zeros(1, self.conv.out_channels, self.stride)

    def forward(self, x: Tensor, states: Iterator[Tensor], new: States) -> Tensor:
        """`[1, inputs, T] -> [1, outputs, T * stride]`."""
        y = self.conv(x)
        head = y[:, :, : self.stride] + next(states)
        new.append(y[:, :, -self.stride :])
        return torch.cat([head, y[:, :, self.stride : -self.stride]], 2) + self.bias


class Residual(nn.Module):
    """ELU, kernel 3 to half the width, ELU, kernel 1 back, beside a pointwise convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow, self.widen = Conv(width, width // 2, 3), Conv(width // 2, width, 1)
        self.beside = Conv(width, width, 1)

    def initial(self) -> Iterator[Tensor]:
        yield from self.narrow.initial()

    def forward(self, x: Tensor, states: Iterator[Tensor], new: States) -> Tensor:
        inner = self.narrow(nn.functional.elu(x), states, new)
        return self.beside(x, states, new) + self.widen(nn.functional.elu(inner), states, new)


class Memory(nn.Module):
    """Two LSTM layers beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, num_layers=2)

    def initial(self) -> Iterator[Tensor]:
        for _ in ("hidden", "cell"):
            yield torch.zeros(2, 1, self.lstm.hidden_size)

    def forward(self, x: Tensor, states: Iterator[Tensor], new: States) -> Tensor:
        steps = x.permute(2, 0, 1)
        y, memory = self.lstm(steps, (next(states), next(states)))
        new.extend(memory)
        return (steps + y).permute(1, 2, 0)


class Elu(nn.Module):
    def initial(self) -> Iterator[Tensor]:
        return iter(())

    def forward(self, x: Tensor, _states: Iterator[Tensor], _new: States) -> Tensor:
        return nn.functional.elu(x)


class Side(nn.Module):
    """Layers in a row, with the states of all of them in order."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def initial(self) -> States:
        return [state for layer in self.layers for state in layer.initial()]

    def run(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, States]:
        old, new = iter(states), []
        for layer in self.layers:
            x = layer(x, old, new)
        return x, new

    def fold(self) -> "Side":
        """Fold the weight normalisation into the weights, as an export does."""
        for module in self.modules():
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight")
        return self


class Encoder(Side):
    """`samples [T, 1, 320] -> codes [T, 1, 8]`, with the residual quantizer's search."""

    def __init__(self) -> None:
        width = FILTERS
        layers: list[nn.Module] = [Conv(1, width, 7)]
        for ratio in reversed(RATIOS):
            layers += [Residual(width), Elu(), Conv(width, 2 * width, 2 * ratio, ratio)]
            width *= 2
        super().__init__([*layers, Memory(width), Elu(), Conv(width, DIMENSION, 7)])
        self.codebooks = nn.Parameter(torch.randn(CODEBOOKS, CODEBOOK_SIZE, DIMENSION))

    def forward(self, samples: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        latent, new = self.run(samples.reshape(1, 1, -1), states)
        residual, codes = latent[0].transpose(0, 1), []
        for book in self.codebooks.unbind():
            distance = book.pow(2).sum(1) - 2 * residual @ book.transpose(0, 1)
            codes.append(distance.argmin(1))
            residual = residual - nn.functional.embedding(codes[-1], book)
        return torch.stack(codes, 1)[:, None], *new


class Decoder(Side):
    """`codes [T, 1, 8] -> samples [T, 1, 320]`."""

    def __init__(self) -> None:
        width = FILTERS * 2 ** len(RATIOS)
        layers: list[nn.Module] = [Conv(DIMENSION, width, 7), Memory(width)]
        for ratio in RATIOS:
            layers += [Elu(), Up(width, width // 2, ratio), Residual(width // 2)]
            width //= 2
        super().__init__([*layers, Elu(), Conv(width, 1, 7)])
        self.codebooks = nn.Parameter(torch.randn(CODEBOOKS, CODEBOOK_SIZE, DIMENSION))

    def forward(self, codes: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        books = zip(codes[:, 0].unbind(1), self.codebooks.unbind(), strict=True)
        latent = torch.stack([nn.functional.embedding(column, book) for column, book in books]).sum(0)
        samples, new = self.run(latent.transpose(0, 1)[None], states)
        return samples.reshape(-1, 1, HOP), *new
