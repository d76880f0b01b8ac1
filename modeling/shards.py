"""A table of item vectors whose rows are divided over processes: what each has of it, and reading rows that are elsewhere.

Every process asks for the rows it needs; all of them learn what is asked, give what they have, and the sum is the answer. The
gradients go the same way back, so that those of a process's rows are whole, whoever read them.

V rows of the table, R of them here, E width; n ids of this process, N of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """The rows first .. last - 1 of a table of `total`, those of process `rank` of `count`."""

    total: int
    rank: int
    count: int

    @property
    def first(self) -> int:
        """The first row here."""
        return self.bounds(self.rank)[0]

    @property
    def num_rows(self) -> int:
        """R."""
        first, last = self.bounds(self.rank)
        return last - first

    @property
    def most_rows(self) -> int:
        """Of the process that has the most."""
        return -(-self.total // self.count)

    def bounds(self, rank: int) -> tuple[int, int]:
        """The first row of a process, and the first of the next one."""
        return self.total * rank // self.count, self.total * (rank + 1) // self.count

    def read(self, table_RE: Tensor, ids: Tensor, *, sparse: bool = False) -> Tensor:
        """The rows of some ids, [..., E], wherever they are. All processes read at the same time, each its own ids."""
        rows: Tensor = _Read.apply(table_RE, ids.flatten(), self, sparse)
        return rows.view(*ids.shape, -1)


class Gathered:
    """Tensors [n, ...] of all processes, one behind the other: [N, ...]. n differs between processes."""

    def __init__(self, own: Tensor, shard: Shard) -> None:
        counts = torch.zeros(shard.count, dtype=torch.long)
        counts[shard.rank] = len(own)
        dist.all_reduce(counts)  # between the hosts
        self.counts: list[int] = counts.tolist()
        first = sum(self.counts[: shard.rank])
        self.own = slice(first, first + len(own))

    def of(self, own: Tensor) -> Tensor:
        """All of them, without gradients."""
        room = own.new_zeros(max(self.counts), *own.shape[1:])
        room[: len(own)] = own
        received = [torch.empty_like(room) for _ in self.counts]
        dist.all_gather(received, room)
        return torch.cat([part[:count] for part, count in zip(received, self.counts, strict=True)])

    def with_gradients(self, own: Tensor) -> Tensor:
        """All of them; each process's gradients are the sum of what all processes make of them."""
        whole: Tensor = _Gather.apply(own, self)
        return whole


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, gathered: Gathered) -> Tensor:
        ctx.own = gathered.own
        return gathered.of(own)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        summed = grad.contiguous().clone()
        dist.all_reduce(summed)
        return summed[ctx.own], None


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table_RE: Tensor, id_n: Tensor, shard: Shard, sparse: bool) -> Tensor:
        gathered = Gathered(id_n, shard)
        row_N = gathered.of(id_n).long() - shard.first
        here_N = (row_N >= 0) & (row_N < shard.num_rows)
        row_N = row_N.clamp(0, shard.num_rows - 1)
        rows_NE = table_RE[row_N] * here_N.unsqueeze(1)
        dist.all_reduce(rows_NE)
        ctx.save_for_backward(row_N, here_N)
        ctx.gathered, ctx.shape, ctx.sparse = gathered, table_RE.shape, sparse
        return rows_NE[gathered.own]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_nE: Tensor) -> tuple[Tensor, None, None, None]:
        row_N, here_N = ctx.saved_tensors
        grad_NE = ctx.gathered.of(grad_nE.contiguous())
        if ctx.sparse:
            rows, values = row_N[here_N][None], grad_NE[here_N]
            return torch.sparse_coo_tensor(rows, values, ctx.shape, check_invariants=False), None, None, None
        grad_RE = grad_NE.new_zeros(ctx.shape)
        return grad_RE.index_add_(0, row_N, grad_NE * here_N.unsqueeze(1)), None, None, None
