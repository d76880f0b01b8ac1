"""Give columns other names."""

from __future__ import annotations

from typing import Self

import polars as pl
from pydantic import Field

from preprocessing.steps import NEEDED, Step
from schemas.dataset import Dataset
from schemas.errors import InputError


class Rename(Step):
    """Rename columns; ids and times keep their names."""

    columns: dict[str, str] = Field(min_length=1, description="Old name: new name.")

    def bind(self, dataset: Dataset) -> Self:
        """Others look for ids and times."""
        for name in self.columns:
            if name in NEEDED:
                raise InputError(f"{name} cannot be renamed; every dataset calls it so")
        return self

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Rename."""
        self.expect(events, there=self.columns, free=self.columns.values())
        return events.rename(self.columns)
