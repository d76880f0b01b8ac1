"""Read events from any source into our columns: user_id, session_id, item_id, timestamp, position, event_type, others.

A column that had to be interpreted (text to a time, a float to an id) is accompanied by the value as it was, in a column
of its own: checks tell "was empty" from "cannot be read" by it, and quarantine holds rows as they were found.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from preprocessing.engine import collect
from preprocessing.files import find_files, open_file, reading, source_files
from preprocessing.values import read_id, read_integer, read_other, read_time
from schemas.columns import EVENT_TYPE, ITEM_ID, POSITION, SESSION_ID, TIMESTAMP, USER_ID
from schemas.dataset import Dataset
from schemas.errors import InputError

IDS = (USER_ID, SESSION_ID, ITEM_ID)
INTERPRETED = (*IDS, TIMESTAMP, POSITION)


def as_found(column: str) -> str:
    """The name of the column that keeps another's values as the file has them."""
    return f"{column} as found"


def read_events(dataset: Dataset) -> pl.LazyFrame:
    """All events of the source, unchecked, in no particular order.

    `user_id` is the session's id when the source has no users. Times are Datetime("us", "UTC").

    Raises:
        InputError: for files or columns that are not there or do not fit together.
    """
    files = source_files(dataset)
    frames = {file: _read(file, dataset) for file in files}
    _check_ids_agree(frames)
    events = pl.concat(frames.values(), how="diagonal_relaxed") if len(frames) > 1 else frames[files[0]]
    if USER_ID not in dataset.events.columns:
        events = events.with_columns(pl.col(SESSION_ID).alias(USER_ID))
    return events


def read_items(dataset: Dataset) -> pl.LazyFrame:
    """The item table: `item_id` and its columns, one row an item. Rows without an id are ignored.

    Raises:
        InputError: when an item has more than one row: which of them is true, nobody can know.
    """
    assert dataset.items is not None
    files = find_files(dataset, dataset.items.path, "items.path")
    frames = []
    for file in files:
        frame, seems = open_file(file, dataset.items.columns)
        stored = frame.collect_schema()
        reads = {name: read_other(name, stored[name], seems[name]) for name in stored}
        reads[ITEM_ID] = read_id(ITEM_ID, stored[ITEM_ID], seems[ITEM_ID], dataset.events.id_type)
        frames.append(frame.select(**reads).drop_nulls(ITEM_ID))
    with reading(files[0]):
        items = collect(pl.concat(frames, how="vertical_relaxed"))
    doubled = (
        items.lazy().group_by(ITEM_ID).len().filter(pl.col("len") > 1).sort("len", ITEM_ID, descending=[True, False])
    )
    first = collect(doubled.head(1)).rows()
    if first:
        raise InputError(
            f"{files[0]}: item {first[0][0]!r} has {first[0][1]} rows; the item table holds one row an item. "
            "Keep the row that counts, for example the latest."
        )
    return items.lazy()


def check_items_match(items: pl.LazyFrame, events: pl.LazyFrame) -> None:
    """Refuse an item table whose ids can never equal those of the events, such as 7 and "7"."""
    ours, theirs = events.collect_schema()[ITEM_ID], items.collect_schema()[ITEM_ID]
    if ours.is_integer() != theirs.is_integer():
        raise InputError(
            f"item_id is {ours} in the events and {theirs} in the item table; set events.id_type to integer or string."
        )


def _read(file: Path, dataset: Dataset) -> pl.LazyFrame:
    source = dataset.events
    frame, seems = open_file(file, source.columns)
    stored = frame.collect_schema()
    try:
        reads = {name: _reader(name, dtype, seems[name], dataset) for name, dtype in stored.items()}
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    became = frame.select(**reads).collect_schema()
    interpreted = [name for name in INTERPRETED if name in became and _may_fail(stored[name], became[name])]
    return frame.select(**reads, **{as_found(name): pl.col(name) for name in interpreted})


def _reader(name: str, stored: pl.DataType, seems: pl.DataType, dataset: Dataset) -> pl.Expr:
    if name in IDS:
        return read_id(name, stored, seems, dataset.events.id_type)
    if name == TIMESTAMP:
        return read_time(name, stored, seems, dataset.events.time_unit)
    if name == POSITION:
        return read_integer(name, stored)
    return read_other(name, stored, pl.String() if name == EVENT_TYPE else seems)


def _may_fail(stored: pl.DataType, became: pl.DataType) -> bool:
    """Whether some values of the one type have no counterpart in the other."""
    return stored != became and not stored.is_temporal() and not isinstance(stored, pl.Categorical | pl.Enum | pl.Null)


def _check_ids_agree(frames: dict[Path, pl.LazyFrame]) -> None:
    for name in IDS:
        kinds: dict[bool, Path] = {}
        for file, frame in frames.items():
            schema = frame.collect_schema()
            if name in schema:
                kinds.setdefault(schema[name].is_integer(), file)
        if len(kinds) > 1:
            raise InputError(
                f"{name} is an integer in {kinds[True].name} and text in {kinds[False].name}; "
                "set events.id_type to integer or string."
            )
