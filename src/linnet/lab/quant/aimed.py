"""Residual vector quantization whose first streams aim at something else than the latent: PURE Codec's (arXiv 2511.22687)."""

from __future__ import annotations

import torch
from torch import Tensor

from linnet.lab.quant.residual import Quantized, ResidualQuantizer


class AimedQuantizer(ResidualQuantizer):
    """The first `aimed` streams are to say what `aim` is, the others what is then lacking of the latent.

    A sender does not know the aim: the first streams search for `guided`, its best guess, which may be the latent itself, and
    their projections and entries learn to say the aim instead.
    """

    def __init__(self, dim: int, n_layers: int, *, aimed: int, size: int, code_dim: int):
        super().__init__(dim, n_layers, size=size, code_dim=code_dim)
        self.aimed = aimed

    def forward(self, latent: Tensor, guided: Tensor | None = None, aim: Tensor | None = None) -> Quantized:
        """Quantize with all layers, for training; all `[batch, frames, dim]`, without gradients for `guided` and `aim`."""
        searched, aim = self._searched(latent.detach(), guided), latent.detach() if aim is None else aim
        total = torch.zeros_like(aim)
        columns, totals, errors, loss = [], [], [aim.square().mean()], aim.new_zeros(())
        for number, source in enumerate(searched):
            target = aim if number < self.aimed else latent.detach()
            codes, total, cost = self.learn_layer(number, source, target, total)
            columns.append(codes)
            totals.append(total.detach())
            errors.append((target - totals[-1]).square().mean())
            loss = loss + cost
        commitment = torch.stack([(latent - total).square().mean() for total in totals[self.aimed :]]).mean()
        return Quantized(torch.stack(columns, -1), torch.stack(errors), loss, commitment)

    def search(self, latent: Tensor, guided: Tensor | None = None) -> Tensor:
        """Codes of all layers, int64 `[batch, frames, layers]`."""
        columns, total = [], torch.zeros_like(latent)
        for (inward, outward, book), source in zip(self.layers(), self._searched(latent, guided), strict=True):
            columns.append(book.nearest(inward(source - total)))
            total = total + outward(book(columns[-1]))
        return torch.stack(columns, -1)

    @torch.no_grad()
    def revive(self, latent: Tensor, guided: Tensor, generator: torch.Generator) -> None:  # type: ignore[override]
        """Replace hardly used entries by what their layers had to quantize in this batch."""
        total = torch.zeros_like(latent)
        for (inward, outward, book), source in zip(self.layers(), self._searched(latent, guided), strict=True):
            small = inward(source - total)
            book.revive(small.flatten(0, 1), generator)
            total = total + outward(book(book.nearest(small)))

    def _searched(self, latent: Tensor, guided: Tensor | None) -> list[Tensor]:
        """What every layer is to come nearer to, as a sender knows it."""
        first = latent if guided is None else guided
        return [first if number < self.aimed else latent for number in range(len(self.books))]
