"""Progress of long work, in numbers: what is being done, how much of it is done, of how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class Progress:
    """One report of progress.

    `phase` is the stage at work, such as `clean`. `done` of `total` units of it are finished; `total` 0 means that there is
    nothing to count, and `done == total > 0` that the phase is over. `message` is one line for people.
    """

    phase: str
    done: int = 0
    total: int = 0
    message: str = ""

    def __str__(self) -> str:
        """The line for a log."""
        return f"{self.phase}: {self.message}" if self.message and self.total else self.message or self.phase

    @property
    def measured(self) -> str:
        """What was measured so far, in short; nothing here."""
        return ""


@dataclass(frozen=True)
class TrainingProgress(Progress):
    """Progress of training: `done` of `total` steps.

    `epoch` counts passes over the sessions, with the share of the one at hand; `loss` is the mean since the last report that
    had another; `validation` is the newest value of `metric`, and `gains` in the report of a validation what each of its cases
    adds, where the metric is a mean over cases; `seconds` since the run began or went on.
    """

    epoch: float = 0.0
    loss: float | None = None
    metric: str = ""
    validation: float | None = None
    seconds: float = 0.0
    gains: tuple[float, ...] = ()

    @property
    def measured(self) -> str:
        """Loss and validation, as far as there are any."""
        parts = [f"loss {self.loss:.3f}"] if self.loss is not None else []
        parts += [f"{self.metric} {self.validation:.4f}"] if self.validation is not None else []
        return ", ".join(parts)


class HistoryRow(BaseModel):
    """One line of a model's `history.json`: what was logged after a step of training.

    `step` and `epoch` are those done, `epoch` with the share of the one at hand; `loss` is the mean over the steps since the
    line before; `learning_rate` that of this step; `validation` the metrics by name, where the model was validated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    epoch: float
    loss: float
    learning_rate: float
    validation: dict[str, float] = {}


Report = Callable[[Progress], object]
