"""Residual vector quantization with factorised codebooks.

Each layer quantizes what the layers below left over, in a few dimensions of its own: a projection inward, a codebook, a
projection outward (Yu et al., arXiv 2110.04627; Kumar et al., DAC, arXiv 2306.06546, section 3.2). The search is by distance:
by angle, as theirs is, the same layers left half as much again (docs/systems/dual_branch.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linnet.lab.quant.codebook import EmaCodebook


@dataclass(frozen=True)
class Quantized:
    """`codes` int64 `[batch, frames, layers]` and the training losses.

    `error` holds mean squared errors in the latent's units: of what is known without any code, then after each layer,
    `[1 + layers]`. `loss` teaches the quantizer; `commitment`, the mean of the errors, teaches the encoder to give latents that
    are easily quantized.
    """

    codes: Tensor
    error: Tensor
    loss: Tensor
    commitment: Tensor


class FactorisedLayers(nn.Module):
    """`n_layers` of `size` entries in `code_dim` dimensions, for latents of `dim`: what residual quantizers share.

    The first `aimed` may be meant to say something else than the latent, as PURE Codec's are. ValueError where a layer
    would have more dimensions than the latent, whose principal directions its projections begin with.
    """

    def __init__(self, dim: int, n_layers: int, *, size: int, code_dim: int, aimed: int = 0):
        super().__init__()
        if code_dim > dim:
            raise ValueError(f"code_dim is {code_dim}; a latent of {dim} numbers has no more directions than that")
        self.dim, self.aimed = dim, aimed
        self.inward = nn.ModuleList(nn.Linear(dim, code_dim, bias=False) for _ in range(n_layers))
        self.outward = nn.ModuleList(nn.Linear(code_dim, dim, bias=False) for _ in range(n_layers))
        self.books = nn.ModuleList(EmaCodebook(size, code_dim) for _ in range(n_layers))

    def layers(self) -> list[tuple[nn.Linear, nn.Linear, EmaCodebook]]:
        """Projection inward, projection outward and codebook of every layer."""
        return cast(list, list(zip(self.inward, self.outward, self.books, strict=True)))

    def look_up(self, layer: int, codes: Tensor) -> Tensor:
        """What codes int64 `[...]` of one layer (from 0) add to the latent, `[..., dim]`: rows of a table of projected entries,
        which a runtime works out once."""
        outward, book = self.layers()[layer][1:]
        return F.embedding(codes, outward(book.entries))

    def by_layer(self, latent: Tensor, first: Tensor | None, layers: int | None = None) -> list[Tensor]:
        """What each layer, or the first `layers`, is to come nearer to: the aimed ones to `first`, if it is given, the others
        to the latent."""
        count = len(self.books) if layers is None else layers
        return [latent if first is None or number >= self.aimed else first for number in range(count)]

    def learn(self, aims: Sequence[tuple[Tensor, Tensor]], total: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Quantize what `total` lacks, `[batch, frames, dim]`, with a layer for each of `aims`: what it searches for and what
        it learns to say, both of that shape -> the codes of each layer, the total after each, with gradients for this
        layer's projections alone, and what they learn from."""
        columns, totals, loss = [], [], total.new_zeros(())
        for number, (searched, target) in enumerate(aims):
            codes, total, cost = self.learn_layer(number, searched, target, total)
            columns.append(codes)
            totals.append(total)
            loss = loss + cost
        return columns, totals, loss

    def learn_layer(self, number: int, searched: Tensor, target: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One layer's codes for what `total` lacks of `searched`, the total with what they say, and its distance from `target`.

        In training mode the codebook gathers statistics for its next update.
        """
        inward, outward, book = self.layers()[number]
        small = inward(searched - total.detach())
        codes = book.nearest(small.detach())
        looked_up = book(codes)
        book.accumulate(small.detach().flatten(0, 1), codes.flatten())
        # Straight through the search, so that the projection inward learns from what comes out.
        total = total.detach() + outward(small + (looked_up - small).detach())
        return codes, total, (target - total).square().mean() + 0.25 * (small - looked_up).square().mean()

    def add(self, codes: Tensor, latent: Tensor, arrived: Tensor) -> tuple[Tensor, Tensor]:
        """Add to a latent `[batch, frames, dim]` what codes `[batch, frames, layers]` say -> latent, how many layers did.

        A layer counts only if all below it arrived, of which `arrived` bool `[batch, frames]` tells.
        """
        count = torch.zeros_like(codes[..., 0])
        for layer, column in enumerate(codes.unbind(-1)):
            arrived = arrived & (column >= 0)
            count = count + arrived
            latent = latent + self.look_up(layer, column.clamp(min=0)) * arrived.unsqueeze(-1)
        return latent, count

    @torch.no_grad()
    def fit_layers(self, rest: Tensor, generator: torch.Generator) -> None:
        """Start from rows `[n, dim]`, layer by layer: projections on their principal directions, codebooks by k-means."""
        for inward, outward, book in self.layers():
            directions = torch.linalg.eigh(rest.T @ rest).eigenvectors[:, -book.dim :]
            inward.weight.copy_(directions.T)
            outward.weight.copy_(directions)
            small = rest @ directions
            book.fit(small, generator=generator)
            rest = rest - book(torch.cat([book.nearest(x) for x in small.split(4096)])) @ directions.T

    @torch.no_grad()
    def revive_layers(self, searched: Sequence[Tensor], total: Tensor, generator: torch.Generator) -> None:
        """Replace hardly used entries by what `total` lacks of what each layer searches for, `[batch, frames, dim]` all."""
        for (inward, outward, book), source in zip(self.layers(), searched, strict=True):
            small = inward(source - total)
            book.revive(small.flatten(0, 1), generator)
            total = total + outward(book(book.nearest(small)))


class ResidualQuantizer(FactorisedLayers):
    """Latents `[batch, frames, dim]` to codes and back; memoryless, every frame for itself."""

    def __init__(self, dim: int, n_layers: int, *, size: int = 1024, code_dim: int = 8, aimed: int = 0):
        super().__init__(dim, n_layers, size=size, code_dim=code_dim, aimed=aimed)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.fitted: Tensor

    def forward(self, latent: Tensor) -> Quantized:
        """Quantize with all layers, for training."""
        target = latent.detach()
        columns, totals, loss = self.learn([(target, target)] * len(self.books), torch.zeros_like(target))
        errors = [target.square().mean(), *((target - total).square().mean() for total in totals)]
        commitment = torch.stack([(latent - total.detach()).square().mean() for total in totals]).mean()
        return Quantized(torch.stack(columns, -1), torch.stack(errors), loss, commitment)

    def search(self, latent: Tensor) -> Tensor:
        """Codes of all layers, int64 `[batch, frames, layers]`."""
        columns, rest = [], latent
        for layer, (inward, _, book) in enumerate(self.layers()):
            columns.append(book.nearest(inward(rest)))
            rest = rest - self.look_up(layer, columns[-1])
        return torch.stack(columns, -1)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Codes `[batch, frames, layers]` (-1: did not arrive, and what lies above counts no more) -> latent."""
        nothing = self.codebooks()[0].sums.new_zeros(*codes.shape[:2], self.dim)
        return self.add(codes, nothing, codes[..., 0] >= 0)[0]

    @torch.no_grad()
    def fit(self, latent: Tensor, generator: torch.Generator) -> None:
        """Start every layer from latents `[batch, frames, dim]`, each on what those below left."""
        self.fit_layers(latent.flatten(0, 1), generator)
        self.fitted.fill_(True)

    @torch.no_grad()
    def revive(self, latent: Tensor, generator: torch.Generator) -> None:
        """Replace hardly used entries by residuals of this batch."""
        self.revive_layers([latent] * len(self.books), torch.zeros_like(latent), generator)

    def codebooks(self) -> list[EmaCodebook]:
        """All codebooks, base first."""
        return cast(list, list(self.books))
