"""How long each stage of a run may take."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


def _hours(default: float, stage: str, what: str) -> float:
    field: float = Field(default, gt=0, allow_inf_nan=False, title=f"Hours to {stage}", description=what)
    return field


class Limits(BaseModel):
    """Hours after which a stage of a run is stopped, with all processes that it started."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Time limits")

    prepare_hours: float = _hours(12, "prepare", "Events to sessions.")
    train_hours: float = _hours(24, "train", "Sessions to a model. Run again, it goes on from its last checkpoint.")
    evaluate_hours: float = _hours(12, "evaluate", "Measuring a model and its baselines.")
    compare_hours: float = _hours(
        48, "compare", "The verdict, and the trainings that measure the scatter between seeds where these are due."
    )
    promote_hours: float = _hours(24, "promote", "Putting a model into service, and its refit where one is asked for.")
    lists_hours: float = _hours(
        12, "lists", "Lists for every user and vectors of items, each, where serving asks for them."
    )
    report_hours: float = _hours(1, "report", "Writing the report, and recording the run in MLflow.")
