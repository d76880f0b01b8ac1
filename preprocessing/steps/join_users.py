"""Give events the columns of their users: country, age group, plan."""

from __future__ import annotations

from typing import Self

import polars as pl
from pydantic import Field, PrivateAttr

from preprocessing.source.lookups import read_users, with_ids_of
from preprocessing.steps import Step
from preprocessing.steps._tables import check_table
from schemas.columns import USER_ID
from schemas.dataset import Dataset


class JoinUsers(Step):
    """Add `columns` of the dataset's user table to every event; null for users the table does not have."""

    columns: tuple[str, ...] = Field(min_length=1, description="Columns of the user table.")

    _users: pl.LazyFrame = PrivateAttr()

    def bind(self, dataset: Dataset) -> Self:
        """Read the user table."""
        check_table(dataset.users, "users", self.columns, {USER_ID})
        bound = self.model_copy()
        bound._users = read_users(dataset).select(USER_ID, *self.columns)
        return bound

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Join on the user's id."""
        self.expect(events, free=self.columns)
        users = with_ids_of(events, self._users, USER_ID)
        return events.join(users, on=USER_ID, how="left", maintain_order="left")
