"""Sessions as a model reads them, from raw item ids or from a table of raw events.

Of item ids alone, features of the item (its category, its brand) are those of the item table; features of the moment (the
action, the hour) are not known. They are read as they were in the last training event with the item: `borrowed` names them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from modeling.features import read_features, stored, time_feature
from modeling.model import SequenceModel
from modeling.service.encoding import Moments, Vocabularies, encoded, typed, why_not
from modeling.service.values import TIME, as_type, item_ids
from modeling.sessions import Sessions, from_table
from schemas.columns import COUNT, END, ID, ITEM_ID, NULL, POSITION, SESSION_ID, TIMESTAMP, USER_ID, VALUE
from schemas.errors import InputError
from schemas.features import FeatureColumn, FeatureSchema

SESSION = "session_index"  # a helper column; no column of events is called so
FEW = 100  # events: so many times fewer than items are looked up one by one, for which a join would read all items


@dataclass(frozen=True)
class Catalogue:
    """What histories are read with: a schema, the item table with its encoded features, the model's folder."""

    schema: FeatureSchema
    items: pl.DataFrame
    folder: Path
    borrow: bool = field(default=True, kw_only=True)
    """Whether features of the moment that are not given are those of the last training event with the item, else unknown."""

    @cached_property
    def vocabularies(self) -> Vocabularies:
        """Those of the folder, each read once."""
        return Vocabularies(self.folder)

    def join(self, items: pl.Series) -> pl.DataFrame:
        """For each raw id its row of the item table; null for items that the model does not have."""
        table = self.items.drop(COUNT, strict=False)
        if len(items) * FEW > self.items.height:
            return items.alias(VALUE).to_frame().join(table, on=VALUE, how="left", maintain_order="left")
        order, values = self._sorted
        place = values.search_sorted(items).clip(0, max(0, len(values) - 1))
        row = pl.Series(order.gather(place) if len(values) else place, dtype=pl.UInt32)
        return table[row.set(~(values.gather(place) == items).fill_null(False), None)].with_columns(items.alias(VALUE))

    @cached_property
    def _sorted(self) -> tuple[pl.Series, pl.Series]:
        """The rows of the item table in order of their raw ids, and these."""
        ids = self.items.select(pl.col(VALUE), pl.int_range(pl.len(), dtype=pl.UInt32).alias("row")).drop_nulls(VALUE)
        ids = ids.sort(VALUE)
        return ids["row"], ids[VALUE]


def features_read(model: SequenceModel) -> tuple[FeatureColumn, ...]:
    """The side features that a model reads, that of time among them."""
    read, time = read_features(model.settings, model.schema), time_feature(model.settings.inputs, model.schema)
    return read if time is None or time in read else (*read, time)


def borrowed(columns: Sequence[FeatureColumn], given: Collection[str] = ()) -> list[str]:
    """Of features, those of the moment that the columns given do not say: ["action", "hour"]."""
    return [column.name for column in columns if not column.per_item and not _is_said(column, given)]


def from_items(raw: Sequence[Sequence[Any]], catalogue: Catalogue) -> tuple[Sessions, list[Any]]:
    """Sessions of raw item ids, oldest first, and the ids among them that the model does not have, as they were given.

    Raises:
        InputError: for ids of another type, and histories that are no lists.
    """
    if not isinstance(raw, Sequence | np.ndarray | pl.Series):
        raise InputError(f"Histories are a list with a list of item ids for each, or a table of events, got {raw!r}.")
    for history in raw:
        if isinstance(history, str | bytes) or not isinstance(history, Sequence | pl.Series | np.ndarray):
            raise InputError(f"A history is a list of item ids, oldest first, got {history!r}.")
    given = [item for history in raw for item in history]
    ids = item_ids(given, catalogue.items.schema[VALUE])
    sizes = pl.Series([len(history) for history in raw], dtype=pl.Int64)
    events = catalogue.join(ids)
    missing = events[ID].is_null()
    return _sessions(events, sizes, {}, catalogue), [item for item, no in zip(given, missing, strict=True) if no]


@dataclass(frozen=True)
class OfEvents:
    """Sessions of raw events; the item ids that the model does not have, and which session each event with one is of; of each
    session its key, its user, when it began and when its last event was (None: without users, without times).
    """

    sessions: Sessions
    missing: list[Any]
    missing_in: list[tuple[int, Any]]
    keys: list[Any]
    users: pl.Series | None
    begins: pl.Series | None
    ends: pl.Series | None


def from_events(table: pl.DataFrame, catalogue: Catalogue) -> OfEvents:
    """A table of raw events as sessions.

    `table` has the columns that the dataset names: `item_id`, and those that features are made of. Rows of one `session_id`, or
    without it of one `user_id`, are one session; without both all rows are. They are ordered by `timestamp` and `position`, as
    far as these are there.
    No step of the dataset is done.

    Raises:
        InputError: without item ids, and for values that do not fit, with their row.
    """
    if ITEM_ID not in table.columns:
        raise InputError(f"Events need the column {ITEM_ID}; there are {', '.join(table.columns) or 'no columns'}.")
    dtype, zone = catalogue.items.schema[VALUE], catalogue.schema.events_time_zone
    table = table.with_columns(as_type(table[ITEM_ID], dtype, "events"))
    if TIMESTAMP in table.columns:
        table = table.with_columns(as_type(table[TIMESTAMP], TIME, "events", zone))
    if POSITION in table.columns:
        table = table.with_columns(as_type(table[POSITION], pl.Int64, "events"))
    for name in (ITEM_ID, *({TIMESTAMP} & set(table.columns))):
        if table[name].null_count():
            raise InputError(f"Column {name!r} of events: row {table[name].is_null().arg_true()[0] + 1} holds nothing.")
    given = [column for column in catalogue.schema.side_features if _is_said(column, table.columns)]
    raw = [
        typed(table[column.source], column, catalogue.vocabularies, "events", zone).alias(f"raw {column.name}")
        for column in given
    ]
    key = next((name for name in (SESSION_ID, USER_ID) if name in table.columns), None)
    table = _in_order(table.with_columns(raw), key)
    starts = table[SESSION].ne_missing(table[SESSION].shift(1)).fill_null(True)
    sizes = table.group_by(SESSION, maintain_order=True).len()["len"].cast(pl.Int64)
    moments = Moments(table[TIMESTAMP] if TIMESTAMP in table.columns else None, table[SESSION])
    encoded_values: dict[str, pl.Series] = {}
    for column in given:
        values = encoded(table[f"raw {column.name}"], column, catalogue.vocabularies, "events", moments)
        encoded_values[column.name] = values.filter(starts) if column.per == "session" else values
    events = catalogue.join(table[ITEM_ID])
    unknown = events[ID].is_null()
    ids = events[VALUE].filter(unknown)
    missing_in = list(zip((starts.cum_sum() - 1).filter(unknown).to_list(), ids.to_list(), strict=True))
    labels = table[key].filter(starts).to_list() if key else [None] * len(sizes)
    users, begins = (table[name].filter(starts) if name in table.columns else None for name in (USER_ID, TIMESTAMP))
    last = starts.shift(-1).fill_null(True)
    ends = table[TIMESTAMP].filter(last) if TIMESTAMP in table.columns else None
    sessions = _sessions(events, sizes, encoded_values, catalogue)
    return OfEvents(sessions, ids.unique(maintain_order=True).to_list(), missing_in, labels, users, begins, ends)


def _in_order(table: pl.DataFrame, key: str | None) -> pl.DataFrame:
    """Sessions in the order in which they first appear, each in order of time; `session_index` says which one a row is of."""
    keys = table[key] if key else pl.repeat(0, table.height, eager=True)
    number = pl.DataFrame({"key": keys}).select(pl.col("key").rank("dense").fill_null(0)).to_series()
    first = pl.DataFrame({"n": number}).with_row_index().select(pl.col("index").min().over("n")).to_series()
    by = [SESSION, *(name for name in (TIMESTAMP, POSITION) if name in table.columns)]
    return table.with_columns(first.alias(SESSION)).sort(by, maintain_order=True)


def _is_said(column: FeatureColumn, given: Collection[str]) -> bool:
    """Whether columns of events are enough to encode a feature."""
    moments = Moments(pl.Series(dtype=TIME) if TIMESTAMP in given else None, pl.Series(dtype=pl.Int64))
    return column.source in given and not why_not(column, moments)


def _sessions(
    events: pl.DataFrame, sizes: pl.Series, encoded_values: dict[str, pl.Series], catalogue: Catalogue
) -> Sessions:
    """Sessions of `sizes` events each. What neither `encoded_values` nor the item table says is unknown, null of a session."""
    offsets = pa.array([0, *sizes.cum_sum().to_list()], pa.int32())
    columns: dict[str, pa.Array] = {END: pa.nulls(len(sizes), pa.timestamp("us"))}
    for column in catalogue.schema.columns:
        values = encoded_values.get(column.name)
        if column.per == "session":
            nothing = NULL if column.kind == "categorical" and not column.many else None
            values = pl.repeat(nothing, len(sizes), eager=True) if values is None else values
            columns[column.name] = stored(values, column)
        else:
            if values is None:
                values = events[ID if column.name == ITEM_ID else column.name]
                if not catalogue.borrow and column.name != ITEM_ID and not column.per_item:
                    values = pl.Series(values.name, [None] * len(values), dtype=values.dtype)
            columns[column.name] = pa.ListArray.from_arrays(offsets, stored(values, column))
    return from_table(pa.table(columns), catalogue.schema)
