"""Label sessions by what happens in them, such as a purchase: what a model may learn to foresee."""

from __future__ import annotations

from typing import ClassVar, Self

import polars as pl
from pydantic import Field

from preprocessing.sessions import SESSION_INDEX
from preprocessing.steps import Step
from preprocessing.steps._types import types_as
from schemas.columns import EVENT_TYPE
from schemas.dataset import Dataset
from schemas.errors import InputError


class LabelSessions(Step):
    """Add a column that is 1 on all events of sessions with an event of one of `event_types`, 0 on others.

    Named in the dataset's `labels`, it is written with each session.
    """

    needs_sessions: ClassVar[bool] = True

    event_types: tuple[int | str, ...] = Field(min_length=1, description="Types of event that make the label 1.")
    name: str = Field("label", description="The new column.")
    drop: bool = Field(False, description="Drop all events of these types, so that inputs do not tell the label.")

    def bind(self, dataset: Dataset) -> Self:
        """The types must be there to be found."""
        if EVENT_TYPE not in dataset.events.columns:
            raise InputError("events.columns must map event_type")
        for step in dataset.steps:
            if step.name == "label_sessions":  # what comes after it does not change what it sees
                break
            lost = {str(one) for one in self.event_types}.difference(map(str, step.options.get("keep", ())))
            if step.name == "filter_event_types" and lost:
                raise InputError(
                    f"filter_event_types drops {', '.join(sorted(lost))} before it; keep it there or put it after"
                )
        return self

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Look for the types in each session."""
        self.expect(events, there=[EVENT_TYPE], free=[self.name])
        types = types_as(events, self.event_types, "label_sessions")
        of_type = pl.col(EVENT_TYPE).is_in(types.implode()).fill_null(False)
        labels = events.group_by(SESSION_INDEX).agg(of_type.cast(pl.Int8).max().alias(self.name))
        labelled = events.join(labels, on=SESSION_INDEX, how="left", maintain_order="left")
        return labelled.filter(~of_type) if self.drop else labelled
