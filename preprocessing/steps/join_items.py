"""Give events the columns of their items: category, brand, price."""

from __future__ import annotations

from typing import Self

import polars as pl
from pydantic import Field, PrivateAttr

from preprocessing.events import check_items_match, read_items
from preprocessing.steps import Step
from schemas.columns import ITEM_ID
from schemas.dataset import Dataset
from schemas.errors import InputError, unknown


class JoinItems(Step):
    """Add `columns` of the dataset's item table to every event; null for items the table does not have."""

    columns: tuple[str, ...] = Field(min_length=1)

    _items: pl.LazyFrame = PrivateAttr()

    def bind(self, dataset: Dataset) -> Self:
        """Read the item table."""
        if dataset.items is None:
            raise InputError("the dataset has no item table; add `items: {path: ..., columns: {...}}`")
        for name in self.columns:
            if name not in dataset.items.columns or name == ITEM_ID:
                raise unknown("column of the item table", name, dataset.items.columns.keys() - {ITEM_ID})
            if name in dataset.events.columns:
                raise InputError(f"the events have a column {name!r} already; give the item table's another name")
        bound = self.model_copy()
        bound._items = read_items(dataset).select(ITEM_ID, *self.columns)
        return bound

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Join on the item's id."""
        check_items_match(self._items, events)
        return events.join(self._items, on=ITEM_ID, how="left", maintain_order="left")
