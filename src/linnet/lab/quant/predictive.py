"""A predictive residual quantizer: what the base layer's past foretells is not sent again.

Latents of neighbouring frames share most of their energy, and memoryless codebooks pay for it in every frame. Here a small
recurrent network, run on the base layer's codes alone, predicts the next latent; the base codebook quantizes the rest, five
factorised codebooks the rest of that. Every receiver has the base layer, so all run the same predictor whatever layers
they get, and a lost frame is a prediction. Encoding searches in closed loop: the encoder predicts from what it sent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linnet.lab.dsp.pitch import PitchScale
from linnet.lab.quant.base_index import ONSET, UNVOICED, VOICED, BaseIndex
from linnet.lab.quant.codebook import EmaCodebook
from linnet.lab.quant.residual import FactorisedLayers, Quantized


class PredictiveQuantizer(FactorisedLayers):
    """Latents `[batch, frames, dim]` and pitch to codes and back; the factorised layers are the second and up.

    Of the `aimed` layers the base is one, whether there is something else to aim at or not.
    """

    def __init__(
        self, dim: int, n_layers: int, pitch: PitchScale, *, size: int = 4096, code_dim: int = 16, memory: int = 128,
        aimed: int = 1,
    ):  # fmt: skip
        super().__init__(dim, n_layers - 1, size=size, code_dim=code_dim, aimed=aimed - 1)
        self.index = BaseIndex(pitch.n_steps, size=size)
        self.base = EmaCodebook(self.index.n_entries, dim)
        self.kind = nn.Embedding(3, dim)
        self.memory = nn.GRU(dim, memory, batch_first=True)
        self.predict = nn.Linear(memory, dim)
        # An untrained predictor says nothing: training starts from plain residual quantization.
        nn.init.zeros_(self.predict.weight)
        nn.init.zeros_(self.predict.bias)
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

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """What both sides remember: the predictor's hidden `[batch, memory]`, and 1 + the last frame's pitch as sent."""
        return self.predict.weight.new_zeros(batch, self.memory.hidden_size), self.kinds.new_zeros(batch)

    def remember(self, entries: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the predictor over base codebook entries.

        Entries int64 `[batch, frames]` (-1: lost) and hidden `[batch, memory]` (after the last frame) -> the entries'
        vectors, the prediction of each frame from those before it, both `[batch, frames, dim]`, and the new hidden.
        """
        arrived = (entries >= 0).unsqueeze(-1)
        known = entries.clamp(min=0)
        vectors = self.base(known) * arrived
        after, last = self.memory(vectors + self.kind(self.entry_kind[known]) * arrived, hidden.unsqueeze(0))
        before = torch.cat([hidden.unsqueeze(1), after[:, : after.shape[1] - 1]], 1)
        return vectors, self.predict(before), last.squeeze(0)

    def search_tables(self) -> tuple[Tensor, Tensor]:
        """What the base search needs of its codebook: entries `[n, dim]`, and by class of frame what to add to the inner
        product with each, `[3, n]`: minus half the entry's power, or minus a lot where the entry is another class's."""
        entries = self.base.entries
        other = self.entry_kind != torch.arange(3, device=entries.device).unsqueeze(1)
        return entries, (-0.5 * entries.square().sum(-1)).masked_fill(other, -1e9)

    def search_frame(
        self, latent: Tensor, wanted: Tensor, state: tuple[Tensor, Tensor], tables: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The base layer of one frame: latent `[batch, dim]`, pitch wanted `[batch]` -> index, state."""
        hidden, previous = state
        kind, number, sent = self.code_pitch(wanted, previous - 1)
        predicted = self.predict(hidden)
        entries, offsets = tables
        entry = ((latent - predicted) @ entries.T + offsets[kind]).argmax(-1)
        hidden = self.memory((entries[entry] + self.kind(kind)).unsqueeze(1), hidden.unsqueeze(0))[1].squeeze(0)
        return self.base_index(kind, number, entry), (hidden, sent + 1)

    @torch.no_grad()
    def search_base(self, latent: Tensor, pitch_steps: Tensor) -> Tensor:
        """The closed loop from silence, frame by frame -> base indices int64 `[batch, frames]`."""
        state, tables = self.initial_state(len(latent)), self.search_tables()
        indices = []
        for t in range(latent.shape[1]):
            index, state = self.search_frame(latent[:, t], pitch_steps[:, t], state, tables)
            indices.append(index)
        return torch.stack(indices, 1)

    def forward(
        self, latent: Tensor, pitch_steps: Tensor, arrived: Tensor | None = None, guided: Tensor | None = None,
        aim: Tensor | None = None, layers: int | None = None,
    ) -> Quantized:  # fmt: skip
        """Quantize with all layers, or the first ones, for training.

        The `aimed` layers search for `guided`, what a sender believes, and learn to say the `aim`; the layers above them say
        what is then lacking of the latent.
        `arrived`, bool `[batch, frames]`, lets the predictor also learn from what a receiver of those frames alone has: to
        conceal the others, and to forget that they were lost. In training mode the codebooks gather statistics for their
        next update.
        """
        target = latent.detach()
        sought = target if guided is None else guided.detach()
        aim = sought if aim is None else aim
        indices = self.search_base(sought, pitch_steps)
        entries = self.entries[indices]
        vectors, predicted, _ = self.remember(entries, self.initial_state(len(latent))[0])
        self.base.accumulate((aim - predicted.detach()).flatten(0, 1), entries.flatten())
        base = predicted + vectors
        upper = None if layers is None else layers - 1
        searched, targets = self.by_layer(target, sought, upper), self.by_layer(target, aim, upper)
        columns, totals, loss = self.learn(list(zip(searched, targets, strict=True)), base)
        errors = [(aim - total).square().mean() for total in (predicted, base)]
        errors += [(own - total).square().mean() for own, total in zip(targets, totals, strict=True)]
        loss = loss + errors[0]
        if arrived is not None:
            heard, told, _ = self.remember(torch.where(arrived, entries, -1), self.initial_state(len(latent))[0])
            loss = loss + 0.5 * (aim - told - heard).square().mean()
        commitment = torch.stack([(latent - total.detach()).square().mean() for total in (predicted, base, *totals)]).mean()
        return Quantized(torch.stack([indices, *columns], -1), torch.stack(errors), loss, commitment)

    def pitch_frame(self, index: Tensor, previous: Tensor) -> Tensor:
        """The receiver's side of one frame's pitch: base index `[batch]` (-1: lost) and 1 + pitch before -> 1 + pitch.

        A lost frame keeps the pitch; a step without a pitch to step from, which only a loss leaves, counts from the middle.
        """
        known = index.clamp(min=0)
        kind, number = self.kinds[known], self.pitches[known]
        start = torch.where(previous > 0, previous, self.index.n_steps // 3)
        stepped = (start + number).clamp(1, self.index.n_steps)
        pitch = torch.where(kind == UNVOICED, 0, torch.where(kind == VOICED, stepped, number + 1))
        return torch.where(index < 0, previous, pitch)

    def decode_pitch(self, indices: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Base indices `[batch, frames]` and 1 + pitch before -> pitch steps `[batch, frames]`, -1 unvoiced, and the last."""
        columns = []
        for index in indices.unbind(1):
            previous = self.pitch_frame(index, previous)
            columns.append(previous)
        return torch.stack(columns, 1) - 1, previous

    def dequantize(self, codes: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes `[batch, frames, layers]` (-1: did not arrive) -> latent, layers that arrived `[batch, frames]`, hidden.

        A layer counts only if all below it arrived.
        """
        entries = torch.where(codes[..., 0] >= 0, self.entries[codes[..., 0].clamp(min=0)], -1)
        vectors, predicted, hidden = self.remember(entries, hidden)
        arrived = codes[..., 0] >= 0
        latent, count = self.add(codes[..., 1:], predicted + vectors, arrived)
        return latent, arrived + count, hidden

    @torch.no_grad()
    def fit(self, latent: Tensor, pitch_steps: Tensor, generator: torch.Generator) -> None:
        """Start the codebooks by k-means, layer by layer, and the projections by the residual's principal directions."""
        codes = self.index
        flat = latent.flatten(0, 1)
        kinds = self._kinds(pitch_steps).flatten()
        for kind, size in enumerate((codes.unvoiced_entries, codes.voiced_entries, codes.onset_entries)):
            if not (kinds == kind).any():
                continue
            part = EmaCodebook(size, flat.shape[1])
            part.fit(flat[kinds == kind], generator=generator)
            span = slice(codes.first_entries[kind], codes.first_entries[kind] + size)
            self.base.sums[span], self.base.usage[span] = part.sums, part.usage
        allowed = self.entry_kind == kinds.unsqueeze(1)
        entries = torch.cat([self.base.nearest(x, mask) for x, mask in zip(flat.split(4096), allowed.split(4096), strict=True)])
        self.fit_layers(flat - self.base(entries), generator)
        self.fitted.fill_(True)

    @torch.no_grad()
    def revive(self, latent: Tensor, pitch_steps: Tensor, sought: Tensor, generator: torch.Generator) -> None:
        """Replace hardly used entries by residuals of this batch, of `sought` where they search for that; the base's within
        their own class of frame."""
        entries = self.entries[self.search_base(sought, pitch_steps)]
        vectors, predicted, _ = self.remember(entries, self.initial_state(len(latent))[0])
        rest = (sought - predicted).flatten(0, 1)
        kinds = self.entry_kind[entries].flatten()
        for kind in range(3):
            rows = (self.entry_kind == kind).nonzero().squeeze(1)
            self.base.revive(rest[kinds == kind], generator, rows)
        self.revive_layers(self.by_layer(latent, sought), predicted + vectors, generator)

    def _kinds(self, pitch_steps: Tensor) -> Tensor:
        previous = torch.full_like(pitch_steps[:, 0], -1)
        columns = []
        for t in range(pitch_steps.shape[1]):
            kind, _, previous = self.code_pitch(pitch_steps[:, t], previous)
            columns.append(kind)
        return torch.stack(columns, 1)

    def codebooks(self) -> list[EmaCodebook]:
        """All codebooks, base first."""
        return [self.base, *(book for _, _, book in self.layers())]
