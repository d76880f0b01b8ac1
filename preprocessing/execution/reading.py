"""The events of a dataset by the day they count to: what a batch reads, from only those files that hold it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import polars as pl

from preprocessing.checks.not_before import earliest_day
from preprocessing.collect import collect
from preprocessing.history.window import Window
from preprocessing.plan import EVENT_DAY, Recipe
from preprocessing.sessions import ONE_BATCH, local_day
from preprocessing.source.events import FILE, EventFiles, frozen, unread_times
from preprocessing.source.files import content_hash, find_files, reading
from preprocessing.source.index import Inventory
from preprocessing.source.listing import SourceFile
from preprocessing.source.values import usable_day
from schemas.columns import TIMESTAMP
from schemas.dataset import Dataset
from schemas.errors import InputError

NO_LIMIT = Window()
IN_MEMORY_BYTES = 128_000_000  # new files of up to this size are read once and kept


@dataclass
class Source:
    """Event files, what is in them, and the events themselves."""

    dataset: Dataset
    files: EventFiles
    inventory: Inventory
    columns: pl.Schema
    """Of events, as they stay from day to day."""
    tables: dict[str, str]
    """Content hashes of the item and user tables, by path."""
    now: datetime
    window: Window = NO_LIMIT
    """Days beyond which events of a dataset that is taken as one batch are left out."""
    _in_memory: tuple[set[str], pl.LazyFrame] | None = field(default=None, repr=False)

    @classmethod
    def open(cls, dataset: Dataset, kept_in: Path, columns: pl.Schema | None, now: datetime) -> Source:
        """List the files and count what is new. `columns` are those of earlier days, if there are any.

        Raises:
            InputError: for files that cannot be read, lack a column or differ in type, and when there are no events.
        """
        files = EventFiles(dataset)
        in_memory: list[tuple[set[str], pl.LazyFrame]] = []

        def scan(new: list[SourceFile]) -> pl.LazyFrame:
            events = files.scan(new, expected=columns, number=True)
            if sum(file.size for file in new) > IN_MEMORY_BYTES:
                return events
            read = collect(events).lazy()
            in_memory.append(({file.path for file in new}, read.drop(FILE)))
            return read

        with reading(dataset.source):
            inventory = Inventory.take(dataset, files.files, kept_in, now, scan, earliest_day(dataset))
        if not inventory.rows:
            raise InputError(f"{dataset.source} holds no events: its files have no rows.")
        if columns is None:
            kept = in_memory[0][1] if in_memory else files.scan(number=False)
            columns = frozen(kept.collect_schema())
        kinds = (("items.path", dataset.items), ("users.path", dataset.users))
        beside = [
            file for key, table in kinds if table for file in find_files(dataset, table.path, key, table.file_options)
        ]
        tables = {file.path: content_hash(file) for file in beside}
        read = in_memory[0] if in_memory else None
        return cls(dataset, files, inventory, columns, tables, now, _in_memory=read)

    def rows_of(self, days: list[date]) -> int:
        """How many rows of the files fall on these days."""
        if self.dataset.split != "day":
            return self.inventory.rows
        return sum(count for day, count in self.inventory.days().items() if day in days)

    def columns_read(self, wanted: set[str]) -> pl.Schema:
        """The columns of the events of these files, those of values as found too."""
        if self._in_memory and wanted <= self._in_memory[0]:
            return self._in_memory[1].collect_schema()
        files = [file for file in self.files.files if file.path in wanted]
        return self.files.scan(files, expected=self.columns).collect_schema()

    def unread_times(self) -> str:
        """What to say when no event has a time that can be used."""
        return unread_times(self._in_memory[1] if self._in_memory else self.files.scan(expected=self.columns))

    def events(self, days: dict[date, list[str]], recipe: Recipe) -> pl.LazyFrame:
        """The events of these days (by day: the files that hold them) with the column `event day`."""
        wanted = {path for paths in days.values() for path in paths}
        misdated = {path: day for path, day in self.inventory.misdated().items() if path in wanted}
        files = [file for file in self.files.files if file.path in wanted]
        if self._in_memory and wanted <= self._in_memory[0] and not (misdated and len(self._in_memory[0]) > 1):
            events = self._in_memory[1]
        else:
            events = self.files.scan(files, expected=self.columns_read(wanted), number=bool(misdated))
        day = self._event_day(files, misdated)
        events = recipe.read(events.with_columns(day.alias(EVENT_DAY)))
        events = events.drop(FILE, strict=False)
        if self.dataset.split != "day" and self.window != NO_LIMIT:
            inside = self.window.holds(local_day(pl.col(TIMESTAMP), self.dataset.time_zone))
            return events.filter(inside.fill_null(True))
        if set(self.inventory.days()) == set(days):
            return events
        return events.filter(pl.col(EVENT_DAY).is_in(list(days)))

    def _event_day(self, files: list[SourceFile], misdated: dict[str, date]) -> pl.Expr:
        if self.dataset.split != "day":
            return pl.lit(ONE_BATCH)
        day = local_day(pl.col(TIMESTAMP), self.dataset.time_zone)
        if not misdated:
            return day
        counted = [misdated.get(file.path) for file in files]
        elsewhere: pl.Expr = pl.lit(counted[0], dtype=pl.Date)
        if len(set(counted)) > 1:
            elsewhere = pl.col(FILE).replace_strict(list(range(len(files))), counted, return_dtype=pl.Date)
        usable = usable_day(day, self.inventory.today, earliest_day(self.dataset))
        return pl.when(usable).then(day).otherwise(elsewhere)
