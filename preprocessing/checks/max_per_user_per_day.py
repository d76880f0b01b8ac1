"""A person does only so much in a day; a crawler or a stuck client does more."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import polars as pl
from pydantic import Field

from preprocessing.checks import Check, same_as_before
from schemas.columns import ITEM_ID, TIMESTAMP, USER_ID
from schemas.dataset import Dataset
from schemas.errors import InputError


class MaxPerUserPerDay(Check):
    """Of a user's good events of a local day, in order of time, those after the first `most` are bad.

    To leave out all that such a user did that day, take the step drop_crawlers.
    """

    most: int = Field(2_000, ge=1, description="Events of a user and local day that are good.")

    @property
    def name(self) -> str:
        return self.title or "max_per_user_per_day"

    @property
    def looks_at(self) -> tuple[str, ...]:
        return (USER_ID,)

    @property
    def in_order_of(self) -> tuple[str, ...]:
        return (TIMESTAMP, ITEM_ID)

    def bind(self, dataset: Dataset, columns: pl.Schema) -> Self:
        """Needs days."""
        if TIMESTAMP not in dataset.events.columns:
            raise InputError("events.columns must map timestamp")
        return self

    def bad(self, now: datetime) -> pl.Expr:
        return same_as_before((), rows=self.most)
