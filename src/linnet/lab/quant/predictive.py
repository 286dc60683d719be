"""A predictive residual quantizer: what the base layer's past foretells is not sent again.

Latents of neighbouring frames share most of their energy, and memoryless codebooks pay for it in every frame. Here a small
recurrent network, run on the base layer's codes alone, predicts the next latent; the base codebook quantizes the rest, five
factorised codebooks the rest of that. Every receiver has the base layer, so all run the same predictor whatever layers
they get, and a lost frame is a prediction. Encoding searches in closed loop: the encoder predicts from what it sent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from linnet.lab.dsp.pitch import PitchScale
from linnet.lab.quant.base_index import ONSET, UNVOICED, VOICED, BaseIndex
from linnet.lab.quant.codebook import EmaCodebook


@dataclass(frozen=True)
class Quantized:
    """`codes` int64 `[batch, frames, layers]`, the latent as asked for, the pitch as sent, and the training losses.

    `error` holds mean squared errors in the latent's units: of the prediction, then after each layer, `[1 + layers]`.
    `loss` is their weighted sum with the commitment.
    """

    codes: Tensor
    latent: Tensor
    pitch_steps: Tensor
    error: Tensor
    loss: Tensor


class PredictiveQuantizer(nn.Module):
    """Latents `[batch, frames, dim]` and pitch to codes and back."""

    def __init__(
        self, dim: int, n_layers: int, pitch: PitchScale, *, size: int = 4096, code_dim: int = 16, memory: int = 128
    ):
        super().__init__()
        self.index = BaseIndex(pitch.n_steps, size=size)
        self.base = EmaCodebook(self.index.n_entries, dim)
        self.kind = nn.Embedding(3, dim)
        self.memory = nn.GRU(dim, memory, batch_first=True)
        self.predict = nn.Linear(memory, dim)
        # An untrained predictor says nothing: training starts from plain residual quantization.
        nn.init.zeros_(self.predict.weight)
        nn.init.zeros_(self.predict.bias)
        self.inward = nn.ModuleList(nn.Linear(dim, code_dim, bias=False) for _ in range(n_layers - 1))
        self.outward = nn.ModuleList(nn.Linear(code_dim, dim, bias=False) for _ in range(n_layers - 1))
        self.books = nn.ModuleList(EmaCodebook(size, code_dim) for _ in range(n_layers - 1))
        tables = [torch.from_numpy(table) for table in self.index.tables()]
        for name, table in zip(("kinds", "pitches", "entries"), tables, strict=True):
            self.register_buffer(name, table, persistent=False)
        entry_kind = torch.repeat_interleave(
            torch.arange(3),
            torch.tensor([self.index.unvoiced_entries, self.index.voiced_entries, self.index.onset_entries]),
        )
        self.register_buffer("entry_kind", entry_kind, persistent=False)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.kinds: Tensor
        self.pitches: Tensor
        self.entries: Tensor
        self.entry_kind: Tensor
        self.fitted: Tensor

    def code_pitch(self, wanted: Tensor, previous: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One frame's pitch as the wire can carry it.

        `wanted` and `previous` (as sent) are steps `[batch]`, -1 unvoiced -> class, pitch number (a step from the previous
        or a coarse pitch), and the pitch as sent, all int64 `[batch]`.
        """
        step = wanted - previous
        near = (previous >= 0) & (step.abs() <= self.index.reach)
        kind = torch.where(wanted < 0, UNVOICED, torch.where(near, VOICED, ONSET))
        grain = self.index.onset_grain
        coarse = torch.div(wanted + grain // 2, grain, rounding_mode="floor").clamp(0, self.index.n_coarse - 1)
        number = torch.where(kind == VOICED, step, coarse)
        sent = torch.where(kind == UNVOICED, -1, torch.where(kind == VOICED, wanted, coarse * grain))
        return kind, number, sent

    def base_index(self, kind: Tensor, number: Tensor, entry: Tensor) -> Tensor:
        """The index on the wire from a frame's class, pitch number and codebook entry, int64 of any one shape."""
        index = self.index
        voiced = index.unvoiced_entries + (number + index.reach) * index.voiced_entries + entry - index.first_entries[1]
        onset_start = index.unvoiced_entries + (2 * index.reach + 1) * index.voiced_entries
        onset = onset_start + number * index.onset_entries + entry - index.first_entries[2]
        return torch.where(kind == UNVOICED, entry, torch.where(kind == VOICED, voiced, onset))

    def remember(self, entries: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the predictor over base codebook entries.

        Entries int64 `[batch, frames]` and hidden `[batch, memory]` (after the last frame) -> the entries' vectors, the
        prediction of each frame from those before it, both `[batch, frames, dim]`, and the new hidden.
        """
        vectors = self.base(entries)
        after, last = self.memory(vectors + self.kind(self.entry_kind[entries]), hidden.unsqueeze(0))
        before = torch.cat([hidden.unsqueeze(1), after[:, :-1]], 1)
        return vectors, self.predict(before), last.squeeze(0)

    @torch.no_grad()
    def search_base(self, latent: Tensor, pitch_steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The closed loop, frame by frame -> codes, entries, pitch as sent, int64 `[batch, frames]`."""
        batch, frames = pitch_steps.shape
        hidden = latent.new_zeros(1, batch, self.memory.hidden_size)
        sent = torch.full_like(pitch_steps[:, 0], -1)
        vectors = self.base.entries
        halves = 0.5 * vectors.square().sum(-1)
        rows = []
        for t in range(frames):
            kind, number, sent = self.code_pitch(pitch_steps[:, t], sent)
            rest = latent[:, t] - self.predict(hidden[0])
            scores = rest @ vectors.T - halves
            entry = scores.masked_fill(self.entry_kind != kind.unsqueeze(1), -torch.inf).argmax(-1)
            step = vectors[entry] + self.kind(kind)
            hidden = self.memory(step.unsqueeze(1), hidden)[1]
            rows.append(torch.stack([self.base_index(kind, number, entry), entry, sent], -1))
        return tuple(torch.stack(rows, 1).unbind(-1))  # type: ignore[return-value]

    def forward(self, latent: Tensor, pitch_steps: Tensor, layers: Tensor) -> Quantized:
        """Quantize; `layers` int64 `[batch, 1]` says how many layers the returned latent has.

        The returned latent passes gradients straight through to the input. In training the codebooks gather statistics.
        """
        target = latent.detach()
        codes, entries, sent = self.search_base(target, pitch_steps)
        vectors, predicted, _ = self.remember(entries, latent.new_zeros(len(latent), self.memory.hidden_size))
        if self.training:
            self.base.accumulate((target - predicted.detach()).flatten(0, 1), entries.flatten())
        total = predicted + vectors
        errors = [(target - predicted).square().mean(), (target - total).square().mean()]
        loss = errors[0]
        columns, chosen = [codes], total.detach()
        for number, (inward, outward, book) in enumerate(
            zip(self.inward, self.outward, self.books, strict=True), start=2
        ):
            rest = target - total.detach()
            small = inward(rest)
            indices = book.nearest(small.detach())
            looked_up = book(indices)
            if self.training:
                book.accumulate(small.detach().flatten(0, 1), indices.flatten())
            straight = small + (looked_up - small).detach()
            total = total.detach() + outward(straight)
            errors.append((target - total).square().mean())
            loss = loss + errors[-1] + 0.25 * (small - looked_up.detach()).square().mean()
            columns.append(indices)
            chosen = torch.where((layers >= number).unsqueeze(-1), total.detach(), chosen)
        passed = latent + (chosen - target)
        return Quantized(torch.stack(columns, -1), passed, sent, torch.stack(errors), loss)

    @torch.no_grad()
    def fit(self, latent: Tensor, pitch_steps: Tensor, generator: torch.Generator) -> None:
        """Start the codebooks by k-means, layer by layer, and the projections by the residual's principal directions."""
        codes = self.index
        flat = latent.flatten(0, 1)
        kinds = self._kinds(pitch_steps).flatten()
        for kind, size in enumerate((codes.unvoiced_entries, codes.voiced_entries, codes.onset_entries)):
            book = EmaCodebook(size, flat.shape[1])
            book.fit(flat[kinds == kind], generator=generator)
            span = slice(codes.first_entries[kind], codes.first_entries[kind] + size)
            self.base.sums[span], self.base.usage[span] = book.sums, book.usage
        allowed = self.entry_kind == kinds.unsqueeze(1)
        entries = torch.cat(
            [self.base.nearest(x, mask) for x, mask in zip(flat.split(4096), allowed.split(4096), strict=True)]
        )
        rest = flat - self.base(entries)
        for inward, outward, book in zip(self.inward, self.outward, self.books, strict=True):
            directions = torch.linalg.eigh(rest.T @ rest).eigenvectors[:, -book.dim :]
            inward.weight.copy_(directions.T)
            outward.weight.copy_(directions)
            small = rest @ directions
            book.fit(small, generator=generator)
            rest = rest - book(torch.cat([book.nearest(x) for x in small.split(4096)])) @ directions.T
        self.fitted.fill_(True)

    @torch.no_grad()
    def revive(self, latent: Tensor, pitch_steps: Tensor, generator: torch.Generator) -> None:
        """Replace hardly used entries by residuals of this batch; the base's within their own class of frame."""
        _, entries, _ = self.search_base(latent, pitch_steps)
        vectors, predicted, _ = self.remember(entries, latent.new_zeros(len(latent), self.memory.hidden_size))
        rest = (latent - predicted).flatten(0, 1)
        kinds = self.entry_kind[entries].flatten()
        for kind in range(3):
            rows = (self.entry_kind == kind).nonzero().squeeze(1)
            self.base.revive(rest[kinds == kind], generator, rows)
        rest = rest - vectors.flatten(0, 1)
        for inward, outward, book in zip(self.inward, self.outward, self.books, strict=True):
            small = inward(rest)
            book.revive(small, generator)
            rest = rest - outward(book(book.nearest(small)))

    def _kinds(self, pitch_steps: Tensor) -> Tensor:
        previous = torch.full_like(pitch_steps[:, 0], -1)
        columns = []
        for t in range(pitch_steps.shape[1]):
            kind, _, previous = self.code_pitch(pitch_steps[:, t], previous)
            columns.append(kind)
        return torch.stack(columns, 1)

    def codebooks(self) -> list[EmaCodebook]:
        """All codebooks, base first."""
        return [self.base, *self.books]  # type: ignore[list-item]
