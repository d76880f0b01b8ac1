"""Give events what was true of their items at that time: the price then, the stock then, never a later one.

The item table has a row for each change (`valid_from`). Changes and events are sorted together by item and time, the
changes are counted, and so each event knows the number of the last change before it.
"""

from __future__ import annotations

from typing import Self

import polars as pl
from pydantic import Field, PrivateAttr

from preprocessing.frames import collect
from preprocessing.source.lookups import read_items, with_ids_of
from preprocessing.steps import Step
from preprocessing.steps._tables import check_table
from schemas.columns import ITEM_ID, TIMESTAMP, VALID_FROM
from schemas.dataset import Dataset
from schemas.errors import InputError

IS_CHANGE, CHANGE = "is change", "number of change"


class JoinLatest(Step):
    """Add `columns` of the row of the event's item whose `valid_from` is the latest not after the event.

    Null for items the table does not have, and before an item's first row; a row without `valid_from` holds from ever on.
    """

    columns: tuple[str, ...] = Field(min_length=1, description="Columns of the item table.")

    _changes: pl.DataFrame = PrivateAttr()

    def bind(self, dataset: Dataset) -> Self:
        """Read the item table and number its rows."""
        check_table(dataset.items, "items", self.columns, {ITEM_ID, VALID_FROM})
        assert dataset.items is not None
        if VALID_FROM not in dataset.items.columns:
            raise InputError("items.columns must map valid_from; for a table with one row an item, take join_items")
        if TIMESTAMP not in dataset.events.columns:
            raise InputError("events.columns must map timestamp")
        rows = read_items(dataset).select(ITEM_ID, pl.col(VALID_FROM).alias(TIMESTAMP), *self.columns)
        bound = self.model_copy()
        bound._changes = _numbered(rows)
        return bound

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Count changes, then join by their number; an item's events before its first row have another item's number."""
        self.expect(events, free=self.columns)
        changes = self._changes.lazy()
        if self._changes.schema[ITEM_ID] != events.collect_schema()[ITEM_ID]:  # ids of another type have another order
            changes = _numbered(with_ids_of(events, changes.drop(CHANGE), ITEM_ID)).lazy()
        both = [
            changes.select(ITEM_ID, TIMESTAMP, pl.lit(1, dtype=pl.Int64).alias(IS_CHANGE)),
            events.with_columns(pl.lit(0, dtype=pl.Int64).alias(IS_CHANGE)),
        ]
        ordered = pl.concat(both, how="diagonal_relaxed").sort(
            ITEM_ID, TIMESTAMP, IS_CHANGE, descending=[False, False, True]
        )
        counted = ordered.with_columns(pl.col(IS_CHANGE).cum_sum().alias(CHANGE)).filter(pl.col(IS_CHANGE) == 0)
        joined = counted.join(changes.drop(TIMESTAMP), on=[ITEM_ID, CHANGE], how="left", maintain_order="left")
        return joined.select(*events.collect_schema().names(), *self.columns)


def _numbered(rows: pl.LazyFrame) -> pl.DataFrame:
    """Rows in order of item and moment, numbered from 1."""
    numbered = rows.sort(ITEM_ID, TIMESTAMP).with_row_index(CHANGE, offset=1)
    return collect(numbered.with_columns(pl.col(CHANGE).cast(pl.Int64)))
