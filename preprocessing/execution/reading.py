"""The events of a source by the day they count to: what a batch reads, from only those files that hold it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import polars as pl

from preprocessing.frames import collect
from preprocessing.sessions import EVENT_DAY, ONE_BATCH, Window
from preprocessing.source.events import FILE, EventFiles, frozen, unread_times
from preprocessing.source.files import content_hash, find_files, reading
from preprocessing.source.index import Index
from preprocessing.source.listing import SourceFile
from preprocessing.source.values import local_day
from schemas.columns import TIMESTAMP
from schemas.dataset import Dataset
from schemas.errors import InputError

NO_LIMIT = Window()
IN_MEMORY_BYTES = 128_000_000  # new files of up to this size are read once and kept


@dataclass
class Source:
    """Event files, the index of them, and the events themselves."""

    dataset: Dataset
    files: EventFiles
    index: Index
    types: pl.Schema
    """Of our columns: frozen when the first days of the line were done."""
    tables: dict[str, str]
    """Content hashes of the item and user tables, by path."""
    now: datetime
    empty_rows: int = 0
    """Rows of new files that hold an empty list where events were to be, and so give none."""
    window: Window = NO_LIMIT
    """Days beyond which events of a dataset that is taken whole are left out."""
    _in_memory: tuple[set[str], pl.LazyFrame] | None = field(default=None, repr=False)

    @classmethod
    def open(
        cls,
        dataset: Dataset,
        kept_in: Path,
        types: pl.Schema | None,
        now: datetime,
        before_reading: Callable[[], object] = lambda: None,
    ) -> Source:
        """List the files and count what is new. `types` are those of the line's first days, if there are any.

        `before_reading` is called before a file is opened.

        Raises:
            InputError: for files that cannot be read, lack a column or differ in type, and when there are no events.
        """
        files = EventFiles(dataset)
        in_memory: list[tuple[set[str], pl.LazyFrame]] = []
        empty: list[int] = []

        def scan(new: list[SourceFile]) -> pl.LazyFrame:
            before_reading()
            empty.append(files.count_without_events(new))
            events = files.scan(new, expected=types, number=True)
            if sum(file.size for file in new) > IN_MEMORY_BYTES:
                return events
            read = collect(events).lazy()
            in_memory.append(({file.path for file in new}, read.drop(FILE)))
            return read

        with reading(dataset.source):
            index = Index.take(dataset, files.files, kept_in, now, scan)
        if not index.rows and types is None:
            raise InputError(f"{dataset.source} holds no events: its files have no rows.")
        if types is None:
            types = frozen((in_memory[0][1] if in_memory else files.scan(number=False)).collect_schema())
        kinds = (("items.path", dataset.items), ("users.path", dataset.users))
        beside = [
            file for key, table in kinds if table for file in find_files(dataset, table.path, key, table.file_options)
        ]
        tables = {file.path: content_hash(file) for file in beside}
        read = in_memory[0] if in_memory else None
        return cls(dataset, files, index, types, tables, now, sum(empty), _in_memory=read)

    def raw(self, paths: set[str], *, numbered: bool = False) -> pl.LazyFrame:
        """All rows of these files, as they are read; `numbered` adds the column FILE, the place in `sorted(paths)`."""
        if self._in_memory and paths <= self._in_memory[0] and not (numbered and len(self._in_memory[0]) > 1):
            return self._in_memory[1]
        files = [file for file in self.files.files if file.path in paths]
        return self.files.scan(files, expected=self.types, number=numbered)

    def events(self, days: Mapping[date, list[str]], undated: Mapping[str, date]) -> pl.LazyFrame:
        """The events of these days, of the files that hold them, with the column `event day`.

        `undated` says of files to which day their rows without a usable day count; of other files these are left out.
        """
        wanted = {path for paths in days.values() for path in paths}
        events = self.raw(wanted, numbered=bool(undated))
        if self.dataset.split != "day":
            whole = events.with_columns(pl.lit(ONE_BATCH).alias(EVENT_DAY)).drop(FILE, strict=False)
            if self.window == NO_LIMIT:
                return whole
            return whole.filter(self.window.holds(local_day(pl.col(TIMESTAMP), self.dataset.time_zone)).fill_null(True))
        day = local_day(pl.col(TIMESTAMP), self.dataset.time_zone)
        usable: pl.Expr = pl.when(day.is_between(self.index.earliest, self.index.today)).then(day)
        if undated:
            usable = pl.coalesce(usable, self._undated(wanted, undated))
        dated = events.with_columns(usable.alias(EVENT_DAY)).drop(FILE, strict=False)
        if set(self.index.days()) == set(days) and self.index.undated() <= undated.keys():
            return dated
        return dated.filter(pl.col(EVENT_DAY).is_in(list(days)))

    def unread_times(self) -> str:
        """What to say when no event has a time that can be used."""
        return unread_times(self.raw({file.path for file in self.files.files}))

    def set_aside(self, path: str, day: date | None, skip: int) -> pl.DataFrame:
        """The rows of a file that are of one day (None: of no usable day), without the first `skip` of them."""
        local = local_day(pl.col(TIMESTAMP), self.dataset.time_zone)
        usable = local.is_between(self.index.earliest, self.index.today).fill_null(False)
        wanted = local == day if day else ~usable
        file = next(file for file in self.files.files if file.path == path)
        with reading(file.url):
            return collect(self.files.scan([file], expected=self.types).filter(wanted)).slice(skip)

    def _undated(self, paths: set[str], undated: Mapping[str, date]) -> pl.Expr:
        days = [undated.get(file.path) for file in self.files.files if file.path in paths]
        if len(set(days)) == 1:
            return pl.lit(days[0], dtype=pl.Date)
        return pl.col(FILE).replace_strict(list(range(len(days))), days, return_dtype=pl.Date)
