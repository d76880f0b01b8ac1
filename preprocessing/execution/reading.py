"""The events of a source by the day they count to: what a batch reads, from only those files that hold it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import polars as pl

from preprocessing.execution.division import Division
from preprocessing.execution.selection import Selection
from preprocessing.frames import collect
from preprocessing.sessions import Window
from preprocessing.source.events import EventFiles, frozen, unread_times
from preprocessing.source.files import content_hash, find_files, reading
from preprocessing.source.index import Index
from preprocessing.source.listing import SourceFile
from preprocessing.source.values import local_day
from schemas.columns import TIMESTAMP
from schemas.dataset import Dataset
from schemas.errors import InputError

NO_LIMIT = Window()


@dataclass(frozen=True)
class Room:
    """Where new files go as they are read."""

    scratch: Path
    bytes: int
    """Files of up to this size together are kept in memory; more are divided by user, in the scratch folder."""
    bucket_rows: int
    min_buckets: int
    divides: bool
    """Whether tasks take rows as they are in the files, and by bucket: else files are read once more for them."""


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
    held_back: Mapping[date, str] = field(default_factory=dict)
    """Days that are not to be done yet, as a file of theirs cannot be read, and what to say of it."""
    division: Division | None = field(default=None, repr=False)
    """New files that are too large to be kept in memory."""
    _in_memory: tuple[tuple[str, ...], pl.LazyFrame] | None = field(default=None, repr=False)

    @classmethod
    def open(
        cls,
        dataset: Dataset,
        kept_in: Path,
        types: pl.Schema | None,
        now: datetime,
        room: Room,
        before_reading: Callable[[], object] = lambda: None,
        without: frozenset[str] = frozenset(),
    ) -> Source:
        """List the files and read what is new, once. `types` are those of the line's first days, if there are any.

        `before_reading` is called before a file is opened; paths of `without` are not.

        Raises:
            InputError: for files that cannot be read, lack a column or differ in type, and when there are no events.
        """
        files = EventFiles(dataset, without)
        read = _NewFiles(files, types, room, before_reading)
        with reading(dataset.source):
            index = Index.take(dataset, files.files, kept_in, now, read.scan)
        if not index.rows and types is None:
            raise InputError(f"{dataset.source} holds no events: its files have no rows.")
        division = read.division or Division.left(room.scratch, files.files, types)
        if types is None:
            whole = read.in_memory[1] if read.in_memory else division.scan() if division else files.scan()
            types = frozen(whole.collect_schema())
        kinds = (("items.path", dataset.items), ("users.path", dataset.users))
        beside = [
            file for key, table in kinds if table for file in find_files(dataset, table.path, key, table.file_options)
        ]
        tables = {file.path: content_hash(file) for file in beside}
        return cls(
            dataset, files, index, types, tables, now, read.empty_rows, division=division, _in_memory=read.in_memory
        )

    def raw(self, paths: set[str], *, numbered: bool = False) -> tuple[pl.LazyFrame, list[str]]:
        """All rows of these files, and perhaps of more, as they are read; and the files, which FILE numbers if asked for."""
        if self._in_memory and paths <= {*self._in_memory[0]}:
            return self._in_memory[1], list(self._in_memory[0])
        if self.division and paths <= {*self.division.paths}:
            return self.division.scan(), list(self.division.paths)
        files = [file for file in self.files.files if file.path in paths]
        return self.files.scan(files, expected=self.types, number=numbered), [file.path for file in files]

    def events(
        self, days: Mapping[date, list[str]], undated: Mapping[str, date]
    ) -> tuple[pl.LazyFrame, Selection, Division | None]:
        """The rows of files that hold these days; what of them is of these days; and where they lie divided, if they do.

        `undated` says of files to which day their rows without a usable day count; of other files these are left out.
        """
        wanted = {path for paths in days.values() for path in paths}
        rows, paths = self.raw(wanted, numbered=bool(undated))
        every = set(self.index.days()) == set(days) and self.index.undated() <= undated.keys()
        if every:  # nobody else needs the rows, which those who asked let go of as they work on them
            self._in_memory = None
        selection = Selection(
            time_zone=self.dataset.time_zone,
            by_day=self.dataset.split == "day",
            window=self.window,
            earliest=self.index.earliest,
            today=self.index.today,
            days=None if every else tuple(days),
            undated=tuple(undated.get(path) for path in paths) if undated else (),
        )
        divided = self.division if self.division and tuple(paths) == self.division.paths else None
        return rows, selection, divided

    def unread_times(self) -> str:
        """What to say when no event has a time that can be used."""
        return unread_times(self.raw({file.path for file in self.files.files})[0])

    def set_aside(self, path: str, day: date | None, skip: int) -> pl.DataFrame:
        """The rows of a file that are of one day (None: of no usable day), without the first `skip` of them."""
        local = local_day(pl.col(TIMESTAMP), self.dataset.time_zone)
        usable = local.is_between(self.index.earliest, self.index.today).fill_null(False)
        wanted = local == day if day else ~usable
        file = next(file for file in self.files.files if file.path == path)
        with reading(file.url):
            return collect(self.files.scan([file], expected=self.types).filter(wanted)).slice(skip)


@dataclass
class _NewFiles:
    """Files that the index opens: read once, into memory or, divided, into scratch."""

    files: EventFiles
    types: pl.Schema | None
    room: Room
    before_reading: Callable[[], object]
    empty_rows: int = 0
    in_memory: tuple[tuple[str, ...], pl.LazyFrame] | None = None
    division: Division | None = None

    def scan(self, new: list[SourceFile]) -> pl.LazyFrame:
        """Their rows, with FILE."""
        self.before_reading()
        room = self.room
        self.empty_rows = self.files.count_without_events(new)
        if sum(file.size for file in new) <= room.bytes:
            # Rows are gathered from several chunks at four times the cost.
            read = collect(self.files.scan(new, expected=self.types, number=True)).rechunk().lazy()
            self.in_memory = tuple(file.path for file in new), read
            return read
        if not room.divides:
            return self.files.scan(new, expected=self.types, number=True)
        self.division = Division.make(room.scratch, self.files, new, self.types, room.bucket_rows, room.min_buckets)
        return self.division.scan()
