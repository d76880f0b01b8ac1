"""Read events from any source into our columns: user_id, session_id, item_id, timestamp, position, event_type, others.

A column that had to be interpreted (text to a time, a float to an id) is accompanied by the value as it was, in a column
of its own: checks tell "was empty" from "cannot be read" by it, and quarantine holds rows as they were found. How files
of one source may differ is said in `source_table`; how times are read, in `values`.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from preprocessing.collect import collect
from preprocessing.source.canonical import FILE, IDS, Kind, SourceTable, as_found
from preprocessing.source.files import find, find_files, reading
from preprocessing.source.listing import SourceFile
from preprocessing.source.values import read_id, read_integer, read_other, read_time
from schemas.columns import EVENT_TYPE, ITEM_ID, POSITION, SESSION_ID, TIMESTAMP, USER_ID, VALID_FROM
from schemas.dataset import Dataset, ItemSource, UserSource
from schemas.errors import InputError

INTERPRETED = (*IDS, TIMESTAMP, POSITION)

__all__ = [
    "FILE",
    "EventFiles",
    "as_found",
    "check_ids_match",
    "check_items_match",
    "read_events",
    "read_items",
    "read_users",
]


class EventFiles:
    """The event files of a dataset, opened only when asked for.

    Raises:
        InputError: when there are none, when formats are mixed, when the path would leave the source.
    """

    def __init__(self, dataset: Dataset) -> None:
        source = dataset.events
        found = find(dataset, source.path, "events.path", source.file_options)
        self.files: tuple[SourceFile, ...] = tuple(found.files)
        self.left_out: tuple[tuple[str, str], ...] = found.left_out
        """Files at the same place that are not read, each with why."""
        self._users = USER_ID in source.columns
        self._table = SourceTable(
            self.files,
            source.columns,
            lambda name, kind: _read(dataset, name, kind),
            required=INTERPRETED,
            interpreted=INTERPRETED,
            time_zone=source.time_zone,
            options=source.file_options,
        )

    def scan(
        self,
        files: Sequence[SourceFile] | None = None,
        *,
        expected: pl.Schema | None = None,
        number: bool = False,
    ) -> pl.LazyFrame:
        """Events of these files (None: all), unchecked, in no particular order.

        `user_id` is the session's id when the source has no users. `expected` is the schema of events read on earlier
        days: these get its columns (null where the files lack one) and its types. `number` adds the Int32 column FILE,
        the place of the row's file in the list given.

        Raises:
            InputError: for files that cannot be read, lack a column, or do not fit together or what is expected.
        """
        events = self._table.scan(files, expected=expected, number=number)
        return events if self._users else events.with_columns(pl.col(SESSION_ID).alias(USER_ID))

    def count_without_events(self, files: Sequence[SourceFile] | None = None) -> int:
        """How many rows of these files (None: all) hold an empty list where a row of events or items was to be."""
        return self._table.count_without_elements(files)


def read_events(dataset: Dataset) -> pl.LazyFrame:
    """All events of the source: `EventFiles.scan` of all its files."""
    return EventFiles(dataset).scan()


def read_items(dataset: Dataset) -> pl.LazyFrame:
    """The item table: `item_id` and its columns, one row an item, or one an item and moment when `valid_from` is mapped.

    Rows without an id are ignored.

    Raises:
        InputError: when an item has two rows (of the same moment): which of them is true, nobody can know.
    """
    assert dataset.items is not None
    return _read_table(dataset, dataset.items, "items", ITEM_ID)


def read_users(dataset: Dataset) -> pl.LazyFrame:
    """The user table: `user_id` and its columns, one row a user. Rows without an id are ignored.

    Raises:
        InputError: when a user has two rows.
    """
    assert dataset.users is not None
    return _read_table(dataset, dataset.users, "users", USER_ID)


def check_ids_match(table: pl.LazyFrame, events: pl.LazyFrame, key: str) -> None:
    """Refuse a table whose ids can never equal those of the events, such as 7 and "7"."""
    ours, theirs = events.collect_schema()[key], table.collect_schema()[key]
    if ours.is_integer() != theirs.is_integer():
        kind = key.removesuffix("_id")
        raise InputError(
            f"{key} is {ours} in the events and {theirs} in the {kind} table; set events.id_type to integer or string."
        )


def check_items_match(items: pl.LazyFrame, events: pl.LazyFrame) -> None:
    """`check_ids_match` of the item table."""
    check_ids_match(items, events, ITEM_ID)


def _read(dataset: Dataset, name: str, kind: Kind) -> pl.Expr:
    source = dataset.events
    if name in IDS:
        return read_id(name, kind.stored, kind.seems, source.id_type)
    if name in (TIMESTAMP, VALID_FROM):
        return read_time(name, kind.stored, kind.seems, source.time_unit, source.time_zone)
    if name == POSITION:
        return read_integer(name, kind.stored)
    text = name == EVENT_TYPE and kind.stored == pl.String
    return read_other(name, kind.stored, pl.String() if text else kind.seems, source.time_zone)


def _read_table(dataset: Dataset, source: ItemSource | UserSource, part: str, key: str) -> pl.LazyFrame:
    files = find_files(dataset, source.path, f"{part}.path", source.file_options)
    table = SourceTable(
        files,
        source.columns,
        lambda name, kind: _read(dataset, name, kind),
        required=(key, VALID_FROM),
        interpreted=(VALID_FROM,),
        time_zone=dataset.events.time_zone,
        options=source.file_options,
    )
    place = files[0].url if len(files) == 1 else f"{part}.path {source.path!r}"
    with reading(place):
        rows = collect(table.scan().drop_nulls(key))
    if as_found(VALID_FROM) in rows.columns:
        odd = rows.filter(pl.col(VALID_FROM).is_null())[as_found(VALID_FROM)].drop_nulls()
        if len(odd):
            raise InputError(f"{place}: {VALID_FROM} {odd[0]!r} is no time; write ISO 8601 or set events.time_unit.")
        rows = rows.drop(as_found(VALID_FROM))
    moment = [VALID_FROM] if part == "items" and VALID_FROM in rows.columns else []
    _check_single(rows, key, moment, place)
    return rows.lazy()


def _check_single(rows: pl.DataFrame, key: str, moment: list[str], place: str) -> None:
    counts = rows.lazy().group_by(key, *moment).len().filter(pl.col("len") > 1)
    doubled = collect(counts.sort("len", key, descending=[True, False]).head(1))
    if doubled.is_empty():
        return
    what, count = key.removesuffix("_id"), doubled["len"][0]
    raise InputError(
        f"{place}: {what} {doubled[key][0]!r} has {count} rows{' of one moment' if moment else ''}; "
        f"the {what} table holds one row {'an item and moment' if moment else f'for each {what}'}. "
        "Keep the row that counts, for example the latest."
    )
