"""Every batch of a run, in order: a function of the seed and the step alone.

On a GPU the order of an epoch lies on the device and the host knows all lengths, so that making a batch asks the device for
nothing. A flat row has one shape for the whole run: that of the fullest step, and of the step with the most sessions. There
the batch is a function of a step number on the device, too, so that a captured step makes its own: tensors that stay where
they are hold the order of the epoch at hand and where each of its steps begins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from modeling.batches import Batch, Shape
from modeling.config import TrainingConfig
from modeling.model import SequenceModel
from modeling.sessions import DAY_MICROSECONDS, Sessions

STEPS_SORTED = 16  # steps whose sessions are sorted by length together, for bodies that need it
MakeBatch = Callable[[Sessions, torch.Generator, Shape | None], Batch]


def make_schedule(model: SequenceModel, sessions: Sessions, config: TrainingConfig) -> Schedule:
    """All batches of a run: inputs and the targets of the objective."""
    cpu = sessions.lengths.device.type == "cpu"
    return Schedule(
        sessions,
        model.training_batch,
        epochs=config.epochs,
        tokens_per_step=config.tokens_per_step,
        shuffle=config.order == "random",
        by_length=not (model.body.packed if cpu else model.flat),
        flat=model.flat,
        dropped=model.objective.drops,
        half_life_days=config.half_life_days,
        seed=config.seed,
    )


class Schedule(torch.utils.data.Dataset[Batch]):
    """Every training batch of a whole run, in order: batch i is a function of the seed and i alone, so runs can resume.

    A batch holds whole sessions, about `tokens_per_step` events. Without `shuffle`, the last epoch is in order of time.
    `make_batch` receives them, a generator of its own, and on a GPU the shape to make it in: `dropped` events of each session
    need no place. With `by_length`, sessions that are near in the order are sorted by length, and the steps cut from them
    shuffled.
    """

    def __init__(
        self,
        sessions: Sessions,
        make_batch: MakeBatch,
        *,
        epochs: int,
        tokens_per_step: int,
        shuffle: bool,
        by_length: bool,
        flat: bool,
        dropped: int,
        half_life_days: float | None,
        seed: int,
    ) -> None:
        self.sessions, self.make_batch, self.flat = sessions, make_batch, flat
        self.shuffle, self.by_length, self.half_life_days, self.seed = shuffle, by_length, half_life_days, seed
        self.tokens_per_step, self.epochs = tokens_per_step, epochs
        self._on_cpu = sessions.lengths.device.type == "cpu"
        self._lengths = sessions.lengths.cpu()
        self._age_days = (sessions.end.max() - sessions.end).cpu() / DAY_MICROSECONDS
        self._places = (sessions.places.cpu() - dropped).clamp(min=0)
        self._asked = self._lengths if sessions.past is not None else None  # places that may be asked about, at most
        self.fixed = flat and not self._on_cpu  # whether all batches have one shape
        self.generator = torch.Generator(sessions.starts.device)  # what batches draw from, seeded at each step
        self._epoch, self._order, self._bounds = -1, torch.empty(0), torch.empty(0)
        self._steps = torch.empty(0)
        self._most_sessions = self._most_places = 0
        self._most_asked: int | None = None
        self.tokens_per_epoch: list[int] = []
        self.steps_per_epoch: list[int] = []
        for epoch in range(epochs):
            self._open(epoch)
            self.steps_per_epoch.append(len(self._bounds) - 1)
            self.tokens_per_epoch.append(int(self._lengths[self._order].sum()) - len(self._order))
            upto = torch.cat([torch.zeros(1, dtype=torch.long), self._places[self._order].cumsum(0)])
            self._most_sessions = max(self._most_sessions, int(self._bounds.diff().max()))
            self._most_places = max(self._most_places, int(upto[self._bounds].diff().max()))
            if self._asked is not None:
                asked = torch.cat([torch.zeros(1, dtype=torch.long), self._asked[self._order].cumsum(0)])
                self._most_asked = max(self._most_asked or 0, int(asked[self._bounds].diff().max()))
        self._epoch = -1
        longest = max(int(self._places.max()), 1)
        self._room = Shape(self._most_places, longest, flat=True, num_asked=self._most_asked)  # of a flat row
        self._first_step = np.concatenate([[0], np.cumsum(self.steps_per_epoch)])
        room = sessions.starts.new_zeros  # int64, where the sessions are
        self._order_here = room(
            len(sessions) + self._most_sessions
        )  # behind its end, there is room for the largest step
        self._begin_here, self._end_here = room(2, max(self.steps_per_epoch))
        self._first_here = room(1)  # step of the epoch

    def __len__(self) -> int:
        return int(self._first_step[-1])

    def __getitem__(self, step: int) -> Batch:
        self.seek(step)
        if self.fixed:
            return self.batch(torch.full((1,), step, device=self.sessions.starts.device))
        place = self._steps[step - int(self._first_step[self._epoch])]
        first, end = int(self._bounds[place]), int(self._bounds[place + 1])
        return self.make_batch(
            self.sessions.select(self._order_here[first:end]), self.generator, self._shape(first, end)
        )

    def seek(self, step: int) -> None:
        """Make ready for the batch of a step: what it draws, and where the sessions are, the order of its epoch."""
        if not 0 <= step < len(self):
            raise IndexError(step)
        epoch = int(np.searchsorted(self._first_step, step, side="right")) - 1
        if epoch != self._epoch:
            self._open(epoch)
            self._bring_order()
        self.generator.manual_seed(self.seed * 1_000_003 + 7_919 * step + 1)

    def batch(self, step_1: Tensor) -> Batch:
        """The batch of a step whose number, [1], lies on the device; `seek` has been called with the same number.

        As many sessions as the largest step has, those behind its own empty.
        """
        place_1 = step_1 - self._first_here
        begin_1, end_1 = self._begin_here[place_1], self._end_here[place_1]
        place_S = begin_1 + torch.arange(self._most_sessions, device=step_1.device)
        chosen = self.sessions.select(self._order_here[place_S])
        return self.make_batch(chosen.emptied(place_S < end_1), self.generator, self._room)

    @property
    def places_per_step(self) -> int:
        """The places that the fullest step needs."""
        return self._most_places

    def _shape(self, first: int, end: int) -> Shape | None:
        """The room for a batch that has one session a row."""
        if self._on_cpu:
            return None
        places_S = self._places[self._order[first:end]]
        asked = None if self._asked is None else int(self._asked[self._order[first:end]].sum())
        return Shape(int(places_S.sum()), max(int(places_S.max()), 1), flat=False, num_asked=asked)

    def _bring_order(self) -> None:
        """The order of the epoch at hand, and where its steps begin and end in it, to where the sessions are."""
        begins, ends = self._bounds[self._steps], self._bounds[self._steps + 1]
        for here, values in ((self._order_here, self._order), (self._begin_here, begins), (self._end_here, ends)):
            values = values.pin_memory() if torch.backends.cuda.is_built() and here.is_cuda else values
            here[: len(values)].copy_(values, non_blocking=True)
        self._first_here.fill_(int(self._first_step[self._epoch]))

    def _open(self, epoch: int) -> None:
        """Order the sessions of an epoch and cut them into steps of equal numbers of events."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        count = len(self.sessions)
        last = epoch == self.epochs - 1  # one that began anew at the oldest sessions would forget the newest
        order = torch.arange(count) if last and not self.shuffle else torch.randperm(count, generator=generator)
        if epoch and self.half_life_days:
            kept = torch.rand(count, generator=generator) < 0.5 ** (self._age_days / self.half_life_days)
            order = order[kept[order]]
        if self.by_length:
            near = self._lengths[order].cumsum(0) // (self.tokens_per_step * STEPS_SORTED)
            order = order[(near * (self._places.max() + 1) + self._places[order]).argsort(stable=True)]
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
