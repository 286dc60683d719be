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

    def forward(self, latent: Tensor, guided: Tensor | None = None, aim: Tensor | None = None) -> Quantized:
        """Quantize with all layers, for training; all `[batch, frames, dim]`, without gradients for `guided` and `aim`."""
        target = latent.detach()
        targets = self.by_layer(target, aim)
        columns, totals, loss = self.learn(
            list(zip(self.by_layer(target, guided), targets, strict=True)), torch.zeros_like(target)
        )  # fmt: skip
        errors = [
            targets[0].square().mean(),
            *((own - total).square().mean() for own, total in zip(targets, totals, strict=True)),
        ]
        commitment = torch.stack([(latent - total.detach()).square().mean() for total in totals[self.aimed :]]).mean()
        return Quantized(torch.stack(columns, -1), torch.stack(errors), loss, commitment)

    def search(self, latent: Tensor, guided: Tensor | None = None) -> Tensor:
        """Codes of all layers, int64 `[batch, frames, layers]`."""
        columns, total = [], torch.zeros_like(latent)
        for (inward, outward, book), source in zip(self.layers(), self.by_layer(latent, guided), strict=True):
            columns.append(book.nearest(inward(source - total)))
            total = total + outward(book(columns[-1]))
        return torch.stack(columns, -1)

    @torch.no_grad()
    def revive(self, latent: Tensor, guided: Tensor, generator: torch.Generator) -> None:  # type: ignore[override]
        """Replace hardly used entries by what their layers had to quantize in this batch."""
        self.revive_layers(self.by_layer(latent, guided), torch.zeros_like(latent), generator)
