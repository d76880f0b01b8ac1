"""Read events from any source into our columns: user_id, session_id, item_id, timestamp, position, event_type, others.

A column whose values may not fit its type is accompanied by the values as they were, in a column of its own: checks tell
"was empty" from "cannot be read" by it, and quarantine holds rows as they were found. How files of one source may differ is
said in `canonical`, what types columns have in `column_types`, how times are read in `times`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import polars as pl

from preprocessing.frames import collect
from preprocessing.source.canonical import FILE as FILE
from preprocessing.source.canonical import SourceTable
from preprocessing.source.canonical import as_found as as_found
from preprocessing.source.canonical import frozen as frozen
from preprocessing.source.column_types import TableColumns
from preprocessing.source.files import find
from preprocessing.source.listing import SourceFile
from preprocessing.source.lookups import check_items_match as check_items_match
from preprocessing.source.lookups import read_items as read_items
from preprocessing.source.lookups import read_users as read_users
from preprocessing.source.times import FORMS
from schemas.column_types import IDS
from schemas.columns import POSITION, SESSION_ID, TIMESTAMP, USER_ID
from schemas.dataset import Dataset

REQUIRED = (*IDS, TIMESTAMP, POSITION)
EXAMPLES = 3


class EventFiles:
    """The event files of a dataset, opened only when asked for.

    Raises:
        InputError: when there are none, when formats are mixed, when the path would leave the source; for a computed column
            or a form of times that cannot be read.
    """

    def __init__(self, dataset: Dataset, without: Collection[str] = ()) -> None:
        """`without`: paths of files that are not looked at."""
        source = dataset.events
        found = find(dataset, source.path, "events.path", source.file_options)
        self.files: tuple[SourceFile, ...] = tuple(file for file in found.files if file.path not in without)
        self.options = source.file_options
        self.left_out: tuple[tuple[str, str], ...] = found.left_out
        """Files at the same place that are not read, each with why."""
        self._users = USER_ID in source.columns
        self._table = SourceTable(self.files, TableColumns.of(source, source, "events"), required=REQUIRED)

    def scan(
        self,
        files: Sequence[SourceFile] | None = None,
        *,
        expected: pl.Schema | None = None,
        number: bool = False,
    ) -> pl.LazyFrame:
        """Events of these files (None: all), unchecked, in no particular order.

        `user_id` is the session's id when the source has no users. `expected` is the schema of events read on earlier
        days, `frozen`: these get its columns (null where the files lack one) and its types, and columns of values as found
        where these files need them. `number` adds the Int32 column FILE, the place of the row's file in the list given.

        Raises:
            InputError: for files that cannot be read, lack a column, or do not fit together or what is expected.
        """
        events = self._table.scan(files, expected=expected, number=number)
        return events if self._users else events.with_columns(pl.col(SESSION_ID).alias(USER_ID))

    def names(self) -> dict[str, tuple[str, ...]]:
        """The names of all columns of each file that was opened so far, by where it is."""
        return self._table.names()

    @property
    def wanted(self) -> set[str]:
        """The files' columns that the dataset reads."""
        return self._table.columns.wanted

    def count_without_events(self, files: Sequence[SourceFile] | None = None) -> int:
        """How many rows of these files (None: all) hold an empty list where a row of events or items was to be."""
        return self._table.count_without_elements(files)


def read_events(dataset: Dataset) -> pl.LazyFrame:
    """All events of the source: `EventFiles.scan` of all its files."""
    return EventFiles(dataset).scan()


def unread_times(events: pl.LazyFrame) -> str:
    """What to say when no event has a time that can be used: some of the values as they were found, and what is read.

    Expects events as `EventFiles.scan` gives them.
    """
    columns = events.collect_schema()
    name = as_found(TIMESTAMP) if as_found(TIMESTAMP) in columns else TIMESTAMP
    values: list[Any] = collect(events.select(pl.col(name).drop_nulls().unique().sort().head(EXAMPLES)))[name].to_list()
    examples = f"such as {', '.join(map(repr, map(str, values)))}" if values else "all of them are empty"
    return f"{examples}. Read are {FORMS}."
