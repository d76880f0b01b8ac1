"""Seconds as vectors: one for each power of two.

B rows, L places, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BUCKETS = 40  # bucket 0 holds what is below a second, bucket b seconds from 2^(b-1) to 2^b, the last has no end


class Seconds(nn.Module):
    """A learned vector for each power of two of seconds. One that training never read is read as the nearest shorter one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table_KD = nn.Parameter(torch.empty(BUCKETS, width).normal_(std=0.02))
        self.read_as_K: Tensor
        self.register_buffer("read_as_K", torch.arange(BUCKETS))

    def reach(self, seconds: Tensor) -> None:
        """Take all seconds that training reads, in any shape."""
        reached_K = torch.zeros(BUCKETS, dtype=torch.bool)
        reached_K[bucket_of(seconds).unique()] = True
        place_K = torch.arange(BUCKETS).masked_fill(~reached_K, -1).cummax(0).values
        lowest = int(reached_K.long().argmax())
        self.read_as_K.copy_(place_K.masked_fill(place_K < 0, lowest))

    def forward(self, seconds: Tensor) -> Tensor:
        """[...] to [..., D]."""
        vector: Tensor = self.table_KD[self.read_as_K[bucket_of(seconds)]]
        return vector


def bucket_of(seconds: Tensor) -> Tensor:
    """The bucket of each number of seconds, int64."""
    return seconds.frexp().exponent.clamp(0, BUCKETS - 1).long()


class PastVectors(nn.Module):
    """What tells past sessions from the current one: a vector at past places, and one where a session begins, by the time since
    the one before has ended.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.past_D = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.begins = Seconds(width)

    def forward(self, is_past_BL: Tensor | None, gap_BL: Tensor) -> Tensor:
        """[B, L, D] of whether a place is past (None: nowhere), and of GAP, as `modeling.sessions.past` makes them."""
        begins_BL1 = (gap_BL > 0).unsqueeze(-1)
        x_BLD: Tensor = self.begins((gap_BL - 1).clamp(min=0)) * begins_BL1
        return x_BLD if is_past_BL is None else x_BLD + is_past_BL.unsqueeze(-1) * self.past_D


class AskedWhen(nn.Module):
    """A vector by how long after what is read it is asked; and what training says of that: the usual time, and the most from
    a session's first event to any that is predicted.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.after = Seconds(width)
        self.usual: Tensor
        self.most_seconds: Tensor
        self.register_buffer("usual", torch.zeros(()))
        self.register_buffer("most_seconds", torch.tensor(torch.inf))

    def reach(self, seconds_N: Tensor, most_seconds: float) -> None:
        """Take the seconds that were between events and those predicted from them."""
        self.after.reach(seconds_N)
        if len(seconds_N):
            self.usual.fill_(float(seconds_N.median()))
        self.most_seconds.fill_(most_seconds)

    def forward(self, asked_BL: Tensor) -> Tensor:
        """[B, L, D] of the feature ASKED; zero where it says nothing."""
        said_BL1 = (asked_BL > 0).unsqueeze(-1)
        x_BLD: Tensor = self.after((asked_BL - 1).clamp(min=0)) * said_BL1
        return x_BLD
