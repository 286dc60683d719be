"""A predictive quantizer of what varies fast and matters only at high rates: the latent of the low band's phase.

The phase of a low harmonic, told from the harmonic source's, drifts slowly where voicing is steady, so a small recurrence
over the first layer's codes foretells it as the base layer's does the spectrum. All layers search the full latent.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from linnet.lab.quant.codebook import EmaCodebook
from linnet.lab.quant.residual import Quantized


class PhaseQuantizer(nn.Module):
    """Latents `[batch, frames, dim]` to codes and back.

    `steady` bool `[batch, frames]` says where a frame is voiced or unvoiced as the frame before: what the memory foretells
    is of use only there.
    """

    def __init__(self, dim: int, n_layers: int, *, size: int = 4096, memory: int = 64):
        super().__init__()
        self.books = nn.ModuleList(EmaCodebook(size, dim) for _ in range(n_layers))
        self.memory = nn.GRU(dim, memory, batch_first=True)
        self.predict = nn.Linear(memory, dim)
        nn.init.zeros_(self.predict.weight)
        nn.init.zeros_(self.predict.bias)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.fitted: Tensor

    def initial_state(self, batch: int) -> Tensor:
        """The memory's hidden `[batch, memory]`."""
        return self.predict.weight.new_zeros(batch, self.memory.hidden_size)

    def remember(self, indices: Tensor, steady: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """First codes int64 `[batch, frames]` (-1: did not arrive) and hidden -> their vectors, what was foretold of each frame
        `[batch, frames, dim]`, and the new hidden."""
        arrived = (indices >= 0).unsqueeze(-1)
        vectors = self.codebooks()[0](indices.clamp(min=0)) * arrived
        after, last = self.memory(vectors, hidden.unsqueeze(0))
        before = torch.cat([hidden.unsqueeze(1), after[:, : after.shape[1] - 1]], 1)
        return vectors, self.predict(before) * steady.unsqueeze(-1), last.squeeze(0)

    @torch.no_grad()
    def search_first(self, latent: Tensor, steady: Tensor) -> Tensor:
        """The closed loop from silence, frame by frame -> int64 `[batch, frames]`."""
        hidden, book, indices = self.initial_state(len(latent)), self.codebooks()[0], []
        entries = book.entries
        offsets = -0.5 * entries.square().sum(-1)
        for t in range(latent.shape[1]):
            predicted = self.predict(hidden) * steady[:, t, None]
            indices.append(torch.addmm(offsets, latent[:, t] - predicted, entries.T).argmax(-1))
            hidden = self.memory(entries[indices[-1]].unsqueeze(1), hidden.unsqueeze(0))[1].squeeze(0)
        return torch.stack(indices, 1)

    def forward(self, latent: Tensor, steady: Tensor, arrived: Tensor | None = None) -> Quantized:
        """Quantize with all layers, for training; see `PredictiveQuantizer.forward`."""
        target = latent.detach()
        columns = [self.search_first(target, steady)]
        _, predicted, _ = self.remember(columns[0], steady, self.initial_state(len(latent)))
        total, rest, totals = predicted, target - predicted.detach(), [predicted]
        for number, book in enumerate(self.codebooks()):
            if number > 0:
                columns.append(book.nearest(rest))
            book.accumulate(rest.flatten(0, 1), columns[-1].flatten())
            found = book(columns[-1])
            total, rest = total.detach() + found, rest - found
            totals.append(total)
        errors = [(target - total).square().mean() for total in totals]
        loss = errors[0]
        if arrived is not None:
            heard, told, _ = self.remember(torch.where(arrived, columns[0], -1), steady, self.initial_state(len(latent)))
            loss = loss + 0.5 * (target - told - heard).square().mean()
        commitment = torch.stack([(latent - total.detach()).square().mean() for total in totals]).mean()
        return Quantized(torch.stack(columns, -1), torch.stack(errors), loss, commitment)

    def dequantize(self, codes: Tensor, steady: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `[batch, frames, layers]` (-1: did not arrive) -> latent, zero where not even the first arrived, and hidden."""
        arrived = codes[..., 0] >= 0
        vectors, predicted, hidden = self.remember(codes[..., 0], steady, hidden)
        latent = predicted + vectors
        counts = arrived
        for column, book in enumerate(self.codebooks()[1:], start=1):
            counts = counts & (codes[..., column] >= 0)
            latent = latent + book(codes[..., column].clamp(min=0)) * counts.unsqueeze(-1)
        return latent * arrived.unsqueeze(-1), hidden

    @torch.no_grad()
    def fit(self, latent: Tensor, generator: torch.Generator) -> None:
        """Start the codebooks by k-means, layer by layer."""
        rest = latent.flatten(0, 1)
        for book in self.codebooks():
            book.fit(rest, generator=generator)
            rest = rest - torch.cat([book(book.nearest(part)) for part in rest.split(4096)])
        self.fitted.fill_(True)

    @torch.no_grad()
    def revive(self, latent: Tensor, steady: Tensor, generator: torch.Generator) -> None:
        """Replace hardly used entries by residuals of this batch."""
        indices = self.search_first(latent, steady)
        _, predicted, _ = self.remember(indices, steady, self.initial_state(len(latent)))
        rest = (latent - predicted).flatten(0, 1)
        for book in self.codebooks():
            book.revive(rest, generator)
            rest = rest - book(book.nearest(rest))

    def codebooks(self) -> list[EmaCodebook]:
        """All codebooks, first layer first."""
        return cast(list, list(self.books))
