"""Item and user tables: read once as long as their files stay what they are, and joined by ids of the events' type.

A table is kept by the names, sizes and stamps of its files, so a process that lives for many nights reads it anew when it
has changed, and one that binds many steps and checks reads it once.

    item_id of the events Int64, of the table "7", "08", "A-9"  ->  7; no event can have the others' ids
"""

from __future__ import annotations

from functools import lru_cache

import polars as pl

from preprocessing.frames import collect
from preprocessing.source.canonical import SourceTable, as_found
from preprocessing.source.column_types import TableColumns, mends
from preprocessing.source.files import find_files, reading
from preprocessing.source.listing import SourceFile
from preprocessing.source.times import FORMS, TIME, TimeForms
from preprocessing.source.values import convert, plain_name
from schemas.column_types import ColumnType
from schemas.columns import ITEM_ID, USER_ID, VALID_FROM
from schemas.dataset import Dataset, EventSource, ItemSource, UserSource
from schemas.errors import InputError

KEYS = {"items": ITEM_ID, "users": USER_ID}


def read_items(dataset: Dataset) -> pl.LazyFrame:
    """The item table: `item_id` and its columns, one row an item, or one an item and moment when `valid_from` is mapped.

    Rows without an id are ignored.

    Raises:
        InputError: when an item has two rows (of the same moment): which of them is true, nobody can know; and for values
            that do not fit a declared type, unless it says `unfit: null`.
    """
    assert dataset.items is not None
    return _read_table(dataset, dataset.items, "items")


def read_users(dataset: Dataset) -> pl.LazyFrame:
    """The user table: `user_id` and its columns, one row a user. Rows without an id are ignored.

    Raises:
        InputError: when a user has two rows, and for values that do not fit, as in `read_items`.
    """
    assert dataset.users is not None
    return _read_table(dataset, dataset.users, "users")


def with_ids_of(events: pl.LazyFrame, table: pl.LazyFrame, key: str) -> pl.LazyFrame:
    """The table with its ids as the events have them: "7" is 7 where ids are integers, "007" and "A-7" are none.

    Raises:
        InputError: when no id of the table can be one of the events.
    """
    wanted, stored = events.collect_schema()[key], table.collect_schema()[key]
    if stored == wanted:
        return table
    rows = collect(table)
    same = collect(rows.lazy().select(ids_as(pl.col(key), stored, wanted)))[key]
    if rows.height and same.null_count() == rows.height:
        kind = key.removesuffix("_id")
        raise InputError(
            f"{key} is {wanted} in the events and {stored} in the {kind} table, whose ids, such as {rows[key][0]!r}, are "
            f"none of the events'; {mends(key)}"
        )
    return rows.with_columns(same).lazy().drop_nulls(key)


def check_items_match(items: pl.LazyFrame, events: pl.LazyFrame) -> None:
    """Refuse an item table whose ids can never be those of the events, as `with_ids_of` says."""
    with_ids_of(events, items, ITEM_ID)


def ids_as(ids: pl.Expr, stored: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    """Ids of one type as those of another that are the same id; null where there is none."""
    read = convert(ids, stored, wanted, TimeForms())
    if stored == pl.String and wanted == pl.Int64:  # 007 is another id than 7
        return pl.when(read.cast(pl.String) == ids).then(read)
    return read


def _read_table(dataset: Dataset, source: ItemSource | UserSource, part: str) -> pl.LazyFrame:
    files = tuple(find_files(dataset, source.path, f"{part}.path", source.file_options))
    return _rows(part, source.model_dump_json(), dataset.events.model_dump_json(), files).lazy()


@lru_cache(maxsize=2)
def _rows(part: str, source: str, events: str, files: tuple[SourceFile, ...]) -> pl.DataFrame:
    """The rows of a table, given what the dataset says of it and of events, as JSON."""
    of_part = ItemSource if part == "items" else UserSource
    table, key = of_part.model_validate_json(source), KEYS[part]
    columns = TableColumns.of(EventSource.model_validate_json(events), table, part)
    place = files[0].url if len(files) == 1 else f"{part}.path {table.path!r}"
    with reading(place):
        rows = collect(SourceTable(files, columns, required=(key, VALID_FROM)).scan())
    for name, declared in {name: table.types.get(name) for name in columns.sources}.items():
        if as_found(name) in rows.columns:
            _check_read(rows, name, declared, place)
            rows = rows.drop(as_found(name))
    rows = rows.drop_nulls(key)
    moment = [VALID_FROM] if part == "items" and VALID_FROM in rows.columns else []
    _check_single(rows, key, moment, place)
    return rows


def _check_read(rows: pl.DataFrame, name: str, declared: ColumnType | None, place: str) -> None:
    """Refuse values that could not be read, unless the dataset says that they are null."""
    odd = rows.filter(pl.col(name).is_null())[as_found(name)].drop_nulls()
    blank, tolerated = (declared.unfit == "null", declared.tolerate) if declared else (False, None)
    if not len(odd) or (blank and len(odd) <= (1.0 if tolerated is None else tolerated) * rows.height):
        return
    mend = f"forms that are read: {FORMS}." if rows.schema[name] == TIME else mends(name)
    share = f"{len(odd):,} of {rows.height:,} rows" + (f", above the tolerated {tolerated:.2%}" if blank else "")
    raise InputError(f"{place}: {name} {odd[0]!r} is no {plain_name(rows.schema[name])} ({share}); {mend}")


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
