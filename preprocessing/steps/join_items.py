"""Give events the columns of their items: category, brand, price."""

from __future__ import annotations

from typing import Self

import polars as pl
from pydantic import Field, PrivateAttr

from preprocessing.source.lookups import read_items, with_ids_of
from preprocessing.steps import Step
from preprocessing.steps._tables import check_table
from schemas.columns import ITEM_ID, VALID_FROM
from schemas.dataset import Dataset
from schemas.errors import InputError


class JoinItems(Step):
    """Add `columns` of the dataset's item table to every event; null for items the table does not have."""

    columns: tuple[str, ...] = Field(min_length=1, description="Columns of the item table.")

    _items: pl.LazyFrame = PrivateAttr()

    def bind(self, dataset: Dataset) -> Self:
        """Read the item table."""
        check_table(dataset.items, "items", self.columns, {ITEM_ID})
        if dataset.items and VALID_FROM in dataset.items.columns:
            raise InputError("the item table changes over time (it maps valid_from); take the step join_latest")
        bound = self.model_copy()
        bound._items = read_items(dataset).select(ITEM_ID, *self.columns)
        return bound

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Join on the item's id."""
        self.expect(events, free=self.columns)
        items = with_ids_of(events, self._items, ITEM_ID)
        return events.join(items, on=ITEM_ID, how="left", maintain_order="left")
