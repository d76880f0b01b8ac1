"""Keep only some types of events, such as views and purchases."""

from __future__ import annotations

from typing import Self

import polars as pl
from pydantic import Field

from preprocessing.steps import Step
from preprocessing.steps._types import types_as
from schemas.columns import EVENT_TYPE
from schemas.dataset import Dataset
from schemas.errors import InputError


class FilterEventTypes(Step):
    """Drop events whose `event_type` is not in `keep`; those without a type are dropped too."""

    keep: tuple[int | str, ...] = Field(min_length=1, description='Types that are kept; 0 and "0" are the same type.')

    def bind(self, dataset: Dataset) -> Self:
        """Needs `event_type` in the events."""
        if EVENT_TYPE not in dataset.events.columns:
            raise InputError("events.columns must map event_type")
        return self

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Filter by type."""
        return events.filter(pl.col(EVENT_TYPE).is_in(types_as(events, self.keep, "filter_event_types").implode()))
