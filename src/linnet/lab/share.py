"""One process's share of a step: which clips of the batch are its own, and the random numbers that belong to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """Rows `rank`, `rank + world`, ... of a batch of `total` clips.

    Random numbers are drawn for the whole batch, from a seed that all processes have, and each takes its rows to its device:
    what a clip meets depends neither on the number of processes nor on what they run on.
    """

    generator: torch.Generator
    total: int
    rank: int = 0
    world: int = 1
    device: torch.device | None = None

    def rand(self, *shape: int) -> Tensor:
        """Uniform in [0, 1): `[own clips, *shape]`."""
        return self._own(torch.rand(self.total, *shape, generator=self.generator))

    def randn(self, *shape: int) -> Tensor:
        """Standard normal: `[own clips, *shape]`."""
        return self._own(torch.randn(self.total, *shape, generator=self.generator))

    def randint(self, low: int, high: int, *shape: int) -> Tensor:
        """int64 from `low` to `high - 1`: `[own clips, *shape]`."""
        return self._own(torch.randint(low, high, (self.total, *shape), generator=self.generator))

    def _own(self, drawn: Tensor) -> Tensor:
        own = drawn[self.rank :: self.world]
        return own if self.device is None else own.to(self.device)


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of all elements in all processes' batches, with gradients: a scalar."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x.mean()
    total, count = _Sum.apply(x.sum()), _Sum.apply(x.new_tensor(float(x.numel())))
    return total / count


class _Sum(torch.autograd.Function):
    """The sum over processes; the gradient of a value that all use is the sum of theirs."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # noqa: ARG004
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


def gather_batch(x: Tensor, share: Share) -> Tensor:
    """The whole batch in its order, `[total, ...]`, on every process, from each one's own rows."""
    if share.world == 1:
        return x
    most = -(-share.total // share.world)
    padded = torch.cat([x, x.new_zeros(most - len(x), *x.shape[1:])])
    parts = [torch.empty_like(padded) for _ in range(share.world)]
    dist.all_gather(parts, padded)
    return torch.stack(parts, 1).flatten(0, 1)[: share.total]
