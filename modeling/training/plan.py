"""When a run logs, saves and validates, and its learning rate at each step: functions of the settings, known before it starts.

Steps are counted from 1 where something happens after them, and from 0 where they are about to be done.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

from modeling.config import TrainingConfig

LOGS_PER_SAVE = 4  # points of the loss curve between two checkpoints


class Plan:
    """`validations`, `saves` and `logs` are the steps after which each happens; the last step is in all three.

    Validations fall on ends of epochs: `evaluations` of them, evenly spread. Where `evaluations` exceeds the epochs, each epoch
    is validated within, too, but not in order of time, where a model amid the last epoch has just read old sessions and
    validation asks about the newest. Checkpoints are written at validations, and between those that are far apart.
    """

    def __init__(self, steps_per_epoch: list[int], config: TrainingConfig, of_epochs: int | None = None) -> None:
        """With `of_epochs` the learning rate goes as in a run of so many epochs, of which this one does the first."""
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.ends = list(accumulate(steps_per_epoch))
        self.steps = self.ends[-1]
        self.rate_steps = round(self.steps * (of_epochs or len(self.ends)) / len(self.ends))
        count = min(config.evaluations, len(self.ends)) if config.order == "time" else config.evaluations
        self.validations = _spread(self.ends, count)
        usual = self.steps / config.evaluations
        self.saves = frozenset(
            step
            for start, end in pairwise([0, *sorted(self.validations)])
            for step in _cut(start, end, round((end - start) / usual))
        )
        self.logs = frozenset(
            step for start, end in pairwise([0, *sorted(self.saves)]) for step in _cut(start, end, LOGS_PER_SAVE)
        )
        self.warmup_steps = config.warmup_steps if config.warmup_steps >= 1 else config.warmup_steps * self.rate_steps

    def epoch(self, step: int) -> float:
        """How many epochs are over after `step` steps, with the share of the one at hand."""
        epoch = sum(end <= step for end in self.ends)
        if epoch == len(self.ends):
            return float(epoch)
        return round(epoch + (step - ([0, *self.ends])[epoch]) / self.steps_per_epoch[epoch], 3)

    def share(self, step: int) -> float:
        """The learning rate at a step (from 0), as a share of `learning_rate`: up to 1 in the warm-up, then the schedule."""
        warmup = self.warmup_steps
        if step + 1 < warmup:
            return (step + 1) / warmup
        if self.config.schedule == "constant":
            return 1.0
        done = min(max(step - warmup, 0) / max(self.rate_steps - warmup, 1), 1.0)
        return 1.0 - done if self.config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))

    def rate(self, step: int) -> float:
        """The learning rate at a step, from 0."""
        return self.config.learning_rate * self.share(step)


def _spread(ends: list[int], count: int) -> frozenset[int]:
    """About `count` steps of a run whose epochs end at `ends`: ends of epochs evenly spread, or all and steps between."""
    epochs = len(ends)
    if count <= epochs:
        return frozenset(ends[math.ceil((place + 1) * epochs / count) - 1] for place in range(count))
    return frozenset(
        step
        for epoch, (start, end) in enumerate(pairwise([0, *ends]))
        for step in _cut(start, end, count * (epoch + 1) // epochs - count * epoch // epochs)
    )


def _cut(start: int, end: int, parts: int) -> set[int]:
    """The steps that end `parts` equal parts, one at least, of those after `start` up to `end`."""
    parts = max(parts, 1)
    return {start + math.ceil((end - start) * part / parts) for part in range(1, parts + 1)}
