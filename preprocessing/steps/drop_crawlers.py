"""Drop crawlers: users with more events on a day than any person makes."""

from __future__ import annotations

from typing import ClassVar, Self

import polars as pl
from pydantic import Field, PrivateAttr

from preprocessing.source.values import local_day
from preprocessing.steps import Step
from schemas.columns import TIMESTAMP, USER_ID
from schemas.dataset import Dataset
from schemas.errors import InputError

LOCAL_DAY = "local day"


class DropCrawlers(Step):
    """Of a user with more than `max_events_per_day` events on a local day, drop all events of that day."""

    needs_open_events: ClassVar[bool] = True

    max_events_per_day: int = Field(2_000, ge=1, description="Most events that a person makes on a day.")

    _time_zone: str = PrivateAttr("UTC")

    def bind(self, dataset: Dataset) -> Self:
        """Needs days."""
        if TIMESTAMP not in dataset.events.columns:
            raise InputError("events.columns must map timestamp; without times, take drop_short_users or sample_users")
        bound = self.model_copy()
        bound._time_zone = dataset.time_zone
        return bound

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Count each user's events of each day."""
        dated = events.with_columns(local_day(pl.col(TIMESTAMP), self._time_zone).alias(LOCAL_DAY))
        people = dated.group_by(USER_ID, LOCAL_DAY).len().filter(pl.col("len") <= self.max_events_per_day)
        return dated.join(people, on=[USER_ID, LOCAL_DAY], how="semi", maintain_order="left").drop(LOCAL_DAY)
