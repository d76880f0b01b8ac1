"""Drop columns that later steps and features do not need."""

from __future__ import annotations

from typing import Self

import polars as pl
from pydantic import Field

from preprocessing.steps import NEEDED, Step
from schemas.dataset import Dataset
from schemas.errors import InputError


class DropColumns(Step):
    """Drop columns; ids and times stay."""

    columns: tuple[str, ...] = Field(min_length=1, description="Columns that go.")

    def bind(self, dataset: Dataset) -> Self:
        """Others look for ids and times."""
        for name in self.columns:
            if name in NEEDED:
                raise InputError(f"{name} cannot be dropped; every dataset has it")
        return self

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Drop."""
        self.expect(events, there=self.columns)
        return events.drop(self.columns)
