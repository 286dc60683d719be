"""Residual vector quantization with factorised codebooks.

Each layer quantizes what the layers below left over, in a few dimensions of its own: a projection inward, a codebook, a
projection outward (Yu et al., arXiv 2110.04627; Kumar et al., DAC, arXiv 2306.06546, section 3.2). With quantizer dropout
(Zeghidour et al., SoundStream, arXiv 2107.03312, section III.C) one model serves every number of layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from linnet.lab.quant.codebook import EmaCodebook


class FactorisedCodebook(nn.Module):
    """A codebook of `size` entries in `code_dim` dimensions between projections from and to `dim`."""

    def __init__(self, dim: int, size: int, code_dim: int, *, metric: str = "euclidean"):
        super().__init__()
        self.inward = nn.Linear(dim, code_dim, bias=False)
        self.book = EmaCodebook(size, code_dim, metric=metric)
        self.outward = nn.Linear(code_dim, dim, bias=False)

    def search(self, x: Tensor) -> Tensor:
        """`[..., dim]` -> int64 `[...]`."""
        return self.book.nearest(self.inward(x))

    def lookup(self, indices: Tensor) -> Tensor:
        """int64 `[...]` -> `[..., dim]`."""
        return self.outward(self.book(indices))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[..., dim]` -> indices, vectors `[..., dim]`, commitment loss.

        Gradients pass straight through the search into both projections and x. In training mode the codebook gathers
        statistics for its next update.
        """
        small = self.inward(x)
        indices = self.book.nearest(small.detach())
        entry = self.book(indices)
        if self.training:
            self.book.accumulate(small.detach().flatten(0, -2), indices.flatten())
        return indices, self.outward(small + (entry - small).detach()), (small - entry).square().mean()

    @torch.no_grad()
    def fit(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Start from rows `[n, dim]`: projections on their principal directions, the codebook by k-means in these."""
        directions = torch.linalg.eigh(x.T @ x).eigenvectors[:, -self.book.dim :]
        self.inward.weight.copy_(directions.T)
        self.outward.weight.copy_(directions)
        self.book.fit(x @ directions, generator=generator)


@dataclass(frozen=True)
class ResidualQuantized:
    """`codes` int64 `[batch, frames, layers]`, -1 where quantizer dropout left a layer out; `latent` `[batch, frames, dim]`
    with gradients straight through; `error` the mean squared error after each layer `[layers]`; `commitment` a scalar.
    """

    codes: Tensor
    latent: Tensor
    error: Tensor
    commitment: Tensor


class ResidualQuantizer(nn.Module):
    """Latents `[batch, frames, dim]` to codes and back; memoryless, every frame for itself.

    In training, `dropout` of the clips get a random number of layers, as SoundStream and DAC do.
    """

    def __init__(
        self, dim: int, n_layers: int, *, size: int = 1024, code_dim: int = 8, metric: str = "cosine", dropout: float = 0.5
    ):
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(FactorisedCodebook(dim, size, code_dim, metric=metric) for _ in range(n_layers))

    def books(self) -> list[FactorisedCodebook]:
        """The layers, base first."""
        return cast(list, list(self.layers))

    def forward(self, latent: Tensor, generator: torch.Generator | None = None) -> ResidualQuantized:
        """Quantize, in training mode with dropout and statistics; `generator` draws the dropout."""
        n_layers = len(self.layers)
        kept = torch.full((len(latent), 1), n_layers)
        if self.training:
            dropped = torch.rand(len(latent), 1, generator=generator) < self.dropout
            kept = torch.where(dropped, torch.randint(1, n_layers + 1, kept.shape, generator=generator), kept)
        total = torch.zeros_like(latent)
        columns, errors, commitments = [], [], []
        for number, layer in enumerate(self.books()):
            indices, vectors, commitment = layer(latent - total)
            heard = (number < kept).unsqueeze(-1)
            total = total + vectors * heard
            columns.append(torch.where(heard.squeeze(-1), indices, -1))
            errors.append((latent - total).square().mean().detach())
            commitments.append(commitment)
        return ResidualQuantized(torch.stack(columns, -1), total, torch.stack(errors), torch.stack(commitments).mean())

    def dequantize(self, codes: Tensor) -> Tensor:
        """Codes `[batch, frames, layers]` (-1: did not arrive, and what lies above counts no more) -> latent."""
        arrived = (codes >= 0).cumprod(-1).unsqueeze(-1)
        parts = [
            layer.lookup(codes[..., number].clamp(min=0)) * arrived[..., number, :] for number, layer in enumerate(self.books())
        ]
        return torch.stack(parts).sum(0)

    @torch.no_grad()
    def fit(self, latent: Tensor, generator: torch.Generator | None = None) -> None:
        """Start every layer from latents `[batch, frames, dim]`, each on what those below left."""
        rest = latent.flatten(0, -2)
        for layer in self.books():
            layer.fit(rest, generator)
            rest = rest - layer.lookup(layer.search(rest))

    @torch.no_grad()
    def revive(self, latent: Tensor, generator: torch.Generator | None = None) -> None:
        """Replace hardly used entries by residuals of this batch."""
        rest = latent.flatten(0, -2)
        for layer in self.books():
            layer.book.revive(layer.inward(rest), generator)
            rest = rest - layer.lookup(layer.search(rest))
