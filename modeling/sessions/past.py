"""What users did in earlier sessions: which of their events are read before the current session, without copying any.

    sessions of a user by end     [a b c] [d e] [f g h]
    read before [f g h]              b c   d e              a run of 4 places, with a count of 4

A session is past only if it ended before the current one began. These are the first of a user's sessions by end, so that the
events read are always one run of that order, also where sessions of a user overlap.

S sessions, E events.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GAP = (
    "seconds between sessions"  # a feature of events, named as no dataset may: of a session's first 1 + seconds, else 0
)
IS_PAST = "is past"  # a feature of places: 1 at those of past sessions
ASKED = "seconds until asked"  # a feature of places: 1 + seconds from what is read there to what is asked about; 0: not said
SECOND = 1_000_000  # times are microseconds

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Past:
    """The past of session s are the events order[starts[s]] .. order[starts[s] + lengths[s] - 1], oldest first.

    `order` [E] are all events by user and by end of session. In it the session's own events lie from `own[s]` to `own_end[s]`.
    """

    order: Tensor
    own: Tensor
    own_end: Tensor
    starts: Tensor
    lengths: Tensor

    def select(self, positions: Tensor) -> Past:
        """Those of the sessions at `positions`."""
        of_sessions = ("own", "own_end", "starts", "lengths")
        return replace(self, **{name: getattr(self, name)[positions] for name in of_sessions})

    def at_most(self, count: Tensor | int) -> Past:
        """The newest `count` events of each at most; a tensor gives a count for each."""
        extra = (self.lengths - count).clamp(min=0)
        return replace(self, starts=self.starts + extra, lengths=self.lengths - extra)

    def since(self, left_out: Past) -> Past:
        """Of each the events after the newest session of its past that is one of `left_out`, of the same order."""
        if not len(left_out.own):
            return self
        own, by_place = left_out.own.sort()
        end = self.starts + self.lengths
        newest = (torch.searchsorted(own, end) - 1).clamp(min=0)  # the last that begins before the run ends
        begins_before = own[newest] < end
        first = torch.where(begins_before, left_out.own_end[by_place][newest], self.starts)
        first = first.maximum(self.starts).minimum(end)
        return replace(self, starts=first, lengths=end - first)

    def only(self, keep_E: Tensor) -> Past:
        """The same without events that are not kept, given for all events: each past is as much shorter as it held of them."""
        kept = keep_E[self.order.long()]
        upto = torch.nn.functional.pad(kept.cumsum(0), (1, 0))
        starts, lengths = upto[self.starts], upto[self.starts + self.lengths] - upto[self.starts]
        return Past(self.order[kept], upto[self.own], upto[self.own_end], starts, lengths)

    def index(self) -> tuple[Tensor, Tensor]:
        """(session, event) of every past event of these sessions, session by session, oldest first."""
        session = torch.repeat_interleave(self.lengths)
        first = self.lengths.cumsum(0) - self.lengths
        place = torch.arange(len(session), device=session.device) - first[session]
        return session, self.order[self.starts[session] + place].long()

    def events(self) -> Tensor:
        """Every event that is past of any session, once."""
        edge = torch.zeros(len(self.order) + 1, dtype=torch.long, device=self.order.device)
        edge.scatter_add_(0, self.starts, torch.ones_like(self.starts))
        edge.scatter_add_(0, self.starts + self.lengths, -torch.ones_like(self.starts))
        return self.order[edge[:-1].cumsum(0) > 0].long()

    def to(self, device: torch.device | str) -> Past:
        """The same with its arrays on `device`."""
        return Past(**{about.name: getattr(self, about.name).to(device) for about in fields(self)})


class Timeline:
    """The events of sessions by user and by end of session, to be asked what came before a moment.

    Users are numbers from 0; times are microseconds; events lie session after session.
    """

    def __init__(self, user_S: Ints, start_S: Ints, end_S: Ints, lengths_S: Ints) -> None:
        self.by_end = np.lexsort((start_S, end_S, user_S))
        sorted_lengths = lengths_S[self.by_end]
        self.upto = np.concatenate([[0], np.cumsum(sorted_lengths)])
        self.times = np.unique(end_S)
        self.user, self.end = user_S[self.by_end], end_S[self.by_end]
        self.key = self._key(self.user, self.end)
        begin_S = np.cumsum(lengths_S) - lengths_S
        order = np.repeat(begin_S[self.by_end] - self.upto[:-1], sorted_lengths) + np.arange(self.upto[-1])
        self.order = torch.from_numpy(order.astype(np.int32 if len(order) < 2**31 else np.int64))

    def before(self, user_N: Ints, moment_N: Ints, count: int) -> tuple[Ints, Ints, Ints]:
        """Of each user the newest `count` events at most of sessions that ended before a moment: where they begin in `order`,
        and how many; and the time since the last of these sessions ended, -1 where there is none.
        """
        first = np.searchsorted(self.user, user_N)
        ended = np.searchsorted(self.key, self._key(user_N, moment_N))  # the first that had not ended
        some = ended > first
        lengths = np.where(some, np.minimum(self.upto[ended] - self.upto[first], count), 0)
        gap = np.full(len(user_N), -1, np.int64)
        gap[some] = moment_N[some] - self.end[ended[some] - 1]
        return np.where(some, self.upto[ended] - lengths, 0), lengths, gap

    def _key(self, user_N: Ints, moment_N: Ints) -> Ints:
        """A number that orders by user, then time, of times that are between two of `times` as of the later one."""
        return user_N * (len(self.times) + 1) + np.searchsorted(self.times, moment_N)


def pasts(user_S: Ints, start_S: Ints, end_S: Ints, lengths_S: Ints, count: int) -> tuple[Past, Ints]:
    """The newest `count` past events of each of S sessions, and the time since the last past one ended (-1: there is none)."""
    line = Timeline(user_S, start_S, end_S, lengths_S)
    starts, lengths, gap_S = line.before(user_S, start_S, count)
    own = np.empty_like(lengths_S)
    own[line.by_end] = line.upto[:-1]
    arrays = (torch.from_numpy(values) for values in (own, own + lengths_S, starts, lengths))
    return Past(line.order, *arrays), gap_S
