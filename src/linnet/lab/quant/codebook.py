"""A codebook learned by exponential averages.

The averages are kept as sums and counts, and the entries derived from them. The widespread form that stores the entries
themselves divides a fresh centroid by its count in the first step, and overwrites a revived entry from stale averages in
the next; tests hold both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class EmaCodebook(nn.Module):
    """`size` vectors of `dim` dimensions, each the running mean of what it was nearest to.

    A step keeps `decay` of the averages, and of a small batch more: so much that an entry remembers some `memory` vectors, as a
    mean of fewer would be mostly chance. Entries used less than `revive_below` times their fair share are replaced by random
    vectors of the current batch.
    """

    def __init__(self, size: int, dim: int, *, decay: float = 0.99, memory: float = 16.0, revive_below: float = 0.02):
        super().__init__()
        self.size, self.dim, self.decay, self.memory, self.revive_below = size, dim, decay, memory, revive_below
        self.register_buffer("sums", torch.randn(size, dim))
        self.register_buffer("usage", torch.ones(size))
        self.register_buffer("batch_sums", torch.zeros(size, dim), persistent=False)
        self.register_buffer("batch_usage", torch.zeros(size), persistent=False)
        self.sums: Tensor
        self.usage: Tensor
        self.batch_sums: Tensor
        self.batch_usage: Tensor

    @property
    def entries(self) -> Tensor:
        """The vectors, `[size, dim]`."""
        return self.sums / self.usage.clamp(min=1e-5).unsqueeze(1)

    def nearest(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Index of the nearest entry: `[..., dim]` -> int64 `[...]`; `allowed` bool `[..., size]` restricts the choice."""
        return nearest_entry(x, self.entries, allowed)

    def forward(self, indices: Tensor) -> Tensor:
        """Look entries up: int64 `[...]` -> `[..., dim]`."""
        return F.embedding(indices, self.entries)

    @torch.no_grad()
    def neighbours(self, indices: Tensor, draws: Tensor) -> Tensor:
        """Another entry near each of int64 `[n]`: uniform `draws` `[n, k]` choose one of the k nearest, near ones likelier."""
        distances, others = torch.cdist(self(indices), self.entries).topk(draws.shape[1] + 1, largest=False)
        distances, others = distances[:, 1:], others[:, 1:]  # but itself
        odds = torch.exp(-distances / distances.mean(1, keepdim=True))
        # The largest of u ** (1 / odds) falls on each with the share of its odds (Efraimidis and Spirakis, 2006).
        chosen = (draws ** (1 / odds)).argmax(1, keepdim=True)
        return others.gather(1, chosen).squeeze(1)

    def accumulate(self, x: Tensor, indices: Tensor) -> None:
        """In training mode add a batch, `[n, dim]` with the entry of each, to what the next `update` will use.

        Kept apart from `update` so that several processes can sum their batches in between. Without gradients nothing is
        added: no update follows such a pass.
        """
        if not (self.training and torch.is_grad_enabled()):
            return
        self.batch_sums.index_add_(0, indices, x.detach().to(self.batch_sums.dtype))
        self.batch_usage.index_add_(0, indices, torch.ones_like(indices, dtype=self.batch_usage.dtype))

    @torch.no_grad()
    def update(self) -> None:
        """One step of the averages."""
        decay = max(self.decay, math.exp(-float(self.batch_usage.sum()) / (self.memory * self.size)))
        self.sums.mul_(decay).add_(self.batch_sums, alpha=1 - decay)
        self.usage.mul_(decay).add_(self.batch_usage, alpha=1 - decay)
        self.batch_sums.zero_()
        self.batch_usage.zero_()

    @torch.no_grad()
    def revive(self, x: Tensor, generator: torch.Generator | None = None, among: Tensor | None = None) -> int:
        """Replace hardly used entries by random rows of `x` `[n, dim]`; returns how many.

        `among`, int64 `[k]`, restricts both the replacing and the fair share to some entries. A replaced entry enters with
        an average entry's weight, else the next `update` would pull it back at once.
        """
        among = torch.arange(self.size, device=self.usage.device) if among is None else among
        fair = self.usage[among].mean()
        dead = among[self.usage[among] < self.revive_below * fair]
        if len(dead) == 0 or len(x) == 0:
            return 0
        rows = torch.randint(len(x), (len(dead),), generator=generator)
        self.sums[dead] = x[rows].to(self.sums.dtype) * fair
        self.usage[dead] = fair
        return len(dead)

    @torch.no_grad()
    def fit(self, x: Tensor, iterations: int = 10, generator: torch.Generator | None = None) -> None:
        """Start from k-means on `x` `[n, dim]`; few rows serve more than once, and with none nothing changes."""
        if len(x) == 0:
            return
        order = torch.randperm(len(x), generator=generator)
        centroids = x[order.repeat(-(-self.size // len(x)))[: self.size]].clone()
        for _ in range(iterations):
            indices = torch.cat([nearest_entry(part, centroids) for part in x.split(8192)])
            counts = torch.bincount(indices, minlength=self.size)
            sums = torch.zeros_like(centroids).index_add_(0, indices, x)
            spare = x[torch.randint(len(x), (self.size,), generator=generator)]
            centroids = torch.where(counts.unsqueeze(1) > 0, sums / counts.clamp(min=1).unsqueeze(1), spare)
        # Counts of a typical batch, not of the whole fit, so that the averages start moving at once.
        share = counts.clamp(min=1).float() / len(x)
        self.usage.copy_(share * self.size)
        self.sums.copy_(centroids * self.usage.unsqueeze(1))

    def perplexity(self) -> float:
        """The effective number of entries in use: 2 to the entropy of the usage, at most `size`."""
        share = self.usage / self.usage.sum().clamp(min=1e-9)
        return float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))


def nearest_entry(x: Tensor, entries: Tensor, allowed: Tensor | None = None) -> Tensor:
    """`[..., dim]` -> int64 `[...]`: the largest inner product less half the entry's power, which is the least distance."""
    scores = F.linear(x, entries, -0.5 * entries.square().sum(-1))
    return (scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)).argmax(-1)
