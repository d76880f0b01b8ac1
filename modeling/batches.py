"""Batches cut from sessions: laid out side by side in rows, or by length, and the schedule of a whole run.

S sessions, E events, B rows, L places in a row, N events of the sessions at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modeling.data import Sessions

MICROSECONDS_PER_DAY = 86_400_000_000
ROW_LENGTH = 64
STEPS_SORTED = 16  # steps whose sessions are sorted by length together, for bodies that need it
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Places:
    """Where the events of some sessions lie in B rows of L places.

    `event_BL` is the event at a place (-1: none), `session_BL` its session's number among those at hand, `segments_BL` that
    number from 1 (0: padding), `positions_BL` the place within the session from 0, `from_end_BL` counted from its end. With a
    place to ask at, each session ends in one that holds no event.
    """

    event_BL: Tensor
    session_BL: Tensor
    segments_BL: Tensor
    positions_BL: Tensor
    from_end_BL: Tensor

    @property
    def ends_BL(self) -> Tensor:
        """Whether a place is the last of its session."""
        return (self.from_end_BL == 0) & (self.segments_BL > 0)


def lay_out(sessions: Sessions, *, packed: bool, ask: bool = False, row_length: int = ROW_LENGTH) -> Places:
    """Lay sessions side by side in rows of about `row_length` places; not packed, each in a row of its own."""
    lengths = sessions.lengths + int(ask)
    row_S = _rows(lengths, row_length) if packed else torch.arange(len(lengths), device=lengths.device)
    by_row = row_S.argsort(stable=True)
    upto = lengths[by_row].cumsum(0)
    begins = upto - lengths[by_row]  # place of each session if all rows were one
    row_begins = torch.full((int(row_S.max()) + 1,), int(upto[-1]), device=lengths.device)
    row_begins.scatter_reduce_(0, row_S[by_row], begins, "amin")
    first_S = torch.empty_like(lengths)
    first_S[by_row] = begins - row_begins[row_S[by_row]]

    session_N = torch.repeat_interleave(lengths)
    position_N = torch.arange(len(session_N), device=lengths.device) - (lengths.cumsum(0) - lengths)[session_N]
    event_N = sessions.starts[session_N] + position_N
    if ask:
        event_N = torch.where(position_N < sessions.lengths[session_N], event_N, -1)
    row_N, place_N = row_S[session_N], first_S[session_N] + position_N
    shape = (len(row_begins), int(place_N.max()) + 1)

    def lay(values_N: Tensor, empty: int) -> Tensor:
        out = torch.full(shape, empty, dtype=torch.long, device=values_N.device)
        out[row_N, place_N] = values_N
        return out

    from_end_N = lengths[session_N] - 1 - position_N
    return Places(lay(event_N, -1), lay(session_N, 0), lay(session_N + 1, 0), lay(position_N, 0), lay(from_end_N, 0))


def _rows(lengths: Tensor, row_length: int) -> Tensor:
    """A row for each session: the longest begin a row each, the others fill what is left; one goes where its start falls."""
    total, order = int(lengths.sum()), lengths.argsort(descending=True, stable=True)
    num_rows = min(-(-total // max(row_length, int(lengths.max()))), len(lengths))
    first, others = order[:num_rows], order[num_rows:]
    room = (-(-total // num_rows) - lengths[first]).clamp(min=0)
    starts = lengths[others].cumsum(0) - lengths[others]
    row_S = torch.empty_like(lengths)
    row_S[first] = torch.arange(num_rows, device=lengths.device)
    row_S[others] = torch.searchsorted(room.cumsum(0), starts, right=True).clamp(max=num_rows - 1)
    return row_S


def read(sessions: Sessions, places: Places, event_BL: Tensor) -> Batch:
    """What a model reads: the features of `event_BL` at each place, the context of its session, and the layout.

    A place within a session that holds no event (-1) is `masked`: its features are 0 there. `event_BL` need not be the event
    that belongs there.
    """
    there_BL = event_BL >= 0
    batch = {name: _at(values, event_BL, there_BL) for name, values in sessions.events.items()}
    inside_BL = places.segments_BL > 0
    batch |= {name: _at(values, places.session_BL, inside_BL) for name, values in sessions.context.items()}
    return batch | {
        "segments": places.segments_BL,
        "positions": places.positions_BL,
        "from_end": places.from_end_BL,
        "masked": inside_BL & ~there_BL,
    }


def _at(values: Tensor, index_BL: Tensor, there_BL: Tensor) -> Tensor:
    found = values[index_BL.clamp(min=0)]
    return found.masked_fill_(~(there_BL if found.dim() == 2 else there_BL.unsqueeze(-1)), 0)


class Schedule(torch.utils.data.Dataset[Batch]):
    """Every training batch of a whole run, in order: batch i is a function of the seed and i alone, so runs can resume.

    A batch holds whole sessions, about `tokens_per_step` events. `make_batch` receives them and a generator of its own. With
    `by_length`, sessions that are near in the order are sorted by length, and the steps cut from them shuffled.
    """

    def __init__(
        self,
        sessions: Sessions,
        make_batch: Callable[[Sessions, torch.Generator], Batch],
        *,
        epochs: int,
        tokens_per_step: int,
        shuffle: bool,
        by_length: bool,
        half_life_days: float | None,
        seed: int,
    ) -> None:
        self.sessions, self.make_batch = sessions, make_batch
        self.shuffle, self.by_length, self.half_life_days, self.seed = shuffle, by_length, half_life_days, seed
        self.tokens_per_step = tokens_per_step
        self._lengths = sessions.lengths.cpu()
        self._epoch, self._order, self._bounds = -1, torch.empty(0), torch.empty(0)
        self._steps = torch.empty(0)
        self.tokens_per_epoch: list[int] = []
        self.steps_per_epoch: list[int] = []
        for epoch in range(epochs):
            self._open(epoch)
            self.steps_per_epoch.append(len(self._bounds) - 1)
            self.tokens_per_epoch.append(int(self._lengths[self._order].sum()) - len(self._order))
        self._first_step = np.concatenate([[0], np.cumsum(self.steps_per_epoch)])

    def __len__(self) -> int:
        return int(self._first_step[-1])

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < len(self):
            raise IndexError(step)
        epoch = int(np.searchsorted(self._first_step, step, side="right")) - 1
        if epoch != self._epoch:
            self._open(epoch)
        place = self._steps[step - int(self._first_step[epoch])]
        chosen = self.sessions.select(self._order[self._bounds[place] : self._bounds[place + 1]])
        generator = torch.Generator(chosen.starts.device).manual_seed(self.seed * 1_000_003 + 7_919 * step + 1)
        return self.make_batch(chosen, generator)

    def _open(self, epoch: int) -> None:
        """Order the sessions of an epoch and cut them into steps of equal numbers of events."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        count = len(self.sessions)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        if epoch and self.half_life_days:
            age_days = (self.sessions.end.max() - self.sessions.end).cpu() / MICROSECONDS_PER_DAY
            kept = torch.rand(count, generator=generator) < 0.5 ** (age_days / self.half_life_days)
            order = order[kept[order]]
        if self.by_length:
            near = self._lengths[order].cumsum(0) // (self.tokens_per_step * STEPS_SORTED)
            order = order[(near * (self._lengths.max() + 1) + self._lengths[order]).argsort(stable=True)]
        filled = self._lengths[order].cumsum(0)
        steps = max(1, round(int(filled[-1]) / self.tokens_per_step))
        targets = torch.arange(1, steps) * int(filled[-1]) // steps
        bounds = torch.searchsorted(filled, targets)
        self._bounds = torch.cat([torch.tensor([0]), bounds, torch.tensor([len(order)])]).unique()
        self._steps = torch.arange(len(self._bounds) - 1)
        if self.by_length:
            near = self._steps // STEPS_SORTED
            self._steps = self._steps[(near + torch.rand(len(near), generator=generator)).argsort()]
        self._epoch, self._order = epoch, order
