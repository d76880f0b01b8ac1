"""What a run and the process that does its heavy stages write to each other: one line of JSON each, no pickle.

run -> process    an `Order`: which stage, with which settings, on which artifacts, under which locks
process -> run    `Message`s: lines, progress in numbers, and last the result or the failure
"""

from __future__ import annotations

import json
import traceback
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from flows.settings.limits import Limits
from flows.settings.settings import Data, Settings
from modeling.config import EvaluationConfig, ModelConfig, PromotionConfig, TrainingConfig
from schemas import errors, machine
from schemas.artifacts import Manifest
from schemas.dataset import Dataset
from schemas.errors import AwayError, InputError, StageEndedError
from schemas.lock import Lent, LostLockError, lend
from schemas.progress import Progress, TrainingProgress

StageName = Literal["train", "evaluate", "compare", "refit", "lists", "vectors"]


class Text(BaseModel):
    """One line of text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def line(self) -> str:
        """Itself as JSON. What was not given stays so: some settings mean another thing when they are given."""
        return json.dumps(self.model_dump(exclude_unset=True), default=str) + "\n"

    @classmethod
    def read(cls, line: str | bytes) -> Self:
        """What `line` wrote."""
        return cls.model_validate(json.loads(line))


class Order(Text):
    """A stage to be done. Inputs are artifacts by name."""

    stage: StageName
    inputs: tuple[str, ...]
    locks: tuple[Lent, ...]
    data: Data
    preset: str | None
    dataset: Dataset
    model: ModelConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    promotion: PromotionConfig
    limits: Limits
    due: datetime | None = None

    @classmethod
    def of(cls, stage: str, settings: Settings, inputs: tuple[Manifest, ...]) -> Order:
        """The order to do a stage with these settings; locks are those that this process holds now."""
        groups = {name: getattr(settings, name) for name in cls.model_fields if name in vars(settings)}
        groups["data"] = settings.data.model_copy(update={"root": settings.artifacts.root})
        return cls(stage=stage, inputs=tuple(made.name for made in inputs), locks=lend(), **groups)

    def settings(self) -> Settings:
        """The settings, but for what a run was given before they were put together."""
        groups = {name: getattr(self, name) for name in type(self).model_fields if name in Settings.__annotations__}
        return Settings(given={}, **groups)


class Result(Text):
    """An artifact that a stage made or `reused`; `name` None where there was nothing to make."""

    name: str | None
    reused: bool = False


class Failure(Text):
    """An exception: its class, what it says, the number of an error of the system, and the traceback of what is no mistake."""

    kind: str
    text: str
    errno: int | None = None
    trace: str = ""

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """What is to be said of an exception."""
        number = error.errno if isinstance(error, OSError) else None
        trace = (
            ""
            if isinstance(error, InputError | AwayError | LostLockError)
            else "".join(traceback.format_exception(error))
        )
        return cls(kind=type(error).__name__, text=str(error), errno=number, trace=trace.rstrip())

    def error(self) -> Exception:
        """The exception as the caller of the stage would have had it."""
        kind = getattr(errors, self.kind, None) or getattr(machine, self.kind, None)
        if isinstance(kind, type) and issubclass(kind, InputError) and kind.__init__ is InputError.__init__:
            return kind(self.text)
        if self.kind == errors.OutsideError.__name__:
            return InputError(self.text)
        for alike in (AwayError, LostLockError, StageEndedError, MemoryError):
            if self.kind == alike.__name__:
                return alike(self.text)
        if self.errno is not None:
            return OSError(self.errno, self.text.removeprefix(f"[Errno {self.errno}] "))
        return FailedStageError(f"{self.kind}: {self.text}")


class FailedStageError(RuntimeError):
    """A stage failed in its process, by an exception that is not a person's mistake; its traceback is in the log."""


class Message(Text):
    """What the process says: one of these."""

    text: str | None = None
    progress: dict[str, Any] | None = None
    result: Result | None = None
    failure: Failure | None = None

    @classmethod
    def reporting(cls, report: Progress | str) -> Message:
        """A line, or progress."""
        return cls(text=report) if isinstance(report, str) else cls(progress=asdict(report))

    def report(self) -> Progress | str:
        """What `reporting` was given."""
        if self.progress is None:
            return self.text or ""
        return (TrainingProgress if "epoch" in self.progress else Progress)(**self.progress)
