"""Seconds that an event lasted, until the next one: known only afterwards, so a label rather than an input."""

from __future__ import annotations

from typing import ClassVar, Self

import polars as pl
from pydantic import Field

from preprocessing.sessions import is_last
from preprocessing.steps import Step
from schemas.columns import TIMESTAMP
from schemas.dataset import Dataset
from schemas.errors import InputError


class DwellTime(Step):
    """Add a column of the seconds until the next event of the session, to the microsecond; null on the last.

    The next event is the next that earlier steps have kept. Named in the dataset's `labels` with `per: event`, the column is
    written with each session.
    """

    needs_sessions: ClassVar[bool] = True

    name: str = Field("dwell", description="The new column.")

    def bind(self, dataset: Dataset) -> Self:
        """Needs times."""
        if TIMESTAMP not in dataset.events.columns:
            raise InputError("events.columns must map timestamp")
        return self

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Look at the row after each."""
        self.expect(events, free=[self.name])
        time = pl.col(TIMESTAMP)
        seconds = (time.shift(-1) - time).dt.total_microseconds() / 1e6
        return events.with_columns(pl.when(~is_last()).then(seconds).alias(self.name))
