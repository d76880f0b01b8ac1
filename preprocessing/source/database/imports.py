"""Read what is new in a database into Parquet files below the root, once: a row that was read stays, whatever becomes of it.

    <root>/sources/shop/events/000001/2024-05-01.parquet   rows by the day of their cursor, as the first night read them
                        events/000002/...                  what the second night found: new rows, and rows that came late
                        fetches/000002.json                how far that went
                        items.parquet, users.parquet       as they were last read

Every night reads on from the newest cursor less the overlap, in order of the cursor, and leaves out rows that are there
already: as many equal rows as were read before. A folder of events gets its name in one step, and its record counts only with
it, so a night that is killed has read nothing, and the next reads the same rows again. What is held are one batch of rows, and
a hash of each row of the overlap.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sql

from preprocessing.source.database import cursor
from preprocessing.source.database.files import Fetch, Writer, fetches, put
from preprocessing.source.database.overlap import HASH, PLACE, Imported
from preprocessing.source.database.rows import connected, read_rows, widened
from schemas.artifacts import Artifacts, replace_file
from schemas.dataset import Dataset
from schemas.errors import InputError
from schemas.progress import Progress, Report
from schemas.sources import EventQuery, Query

IMPORT = "import"  # the phase, in progress
SAY_EVERY = 500_000  # rows


def fetch(artifacts: Artifacts, dataset: Dataset, url: str, progress: Report, now: datetime | None = None) -> None:
    """Bring `<root>/sources/<dataset>`, which is the dataset's source, up to date with the database at `url`.

    Raises:
        InputError: for a query or a cursor that does not fit, and tables without rows.
        AwayError: when the database does not answer.
    """
    assert dataset.database is not None
    place, name = Path(dataset.source), f"database {dataset.database.connection}"
    with artifacts.unfinished(f"import-{dataset.name}") as scratch, connected(url, name) as connection:
        if scratch.is_dir():
            for left in scratch.iterdir():
                shutil.rmtree(left)
        _Events(artifacts, place, scratch, dataset.database.events, now or datetime.now(UTC), progress).fetch(
            connection
        )
        for table in ("items", "users"):
            if query := getattr(dataset.database, table):
                _fetch_table(artifacts, place / f"{table}.parquet", query, connection, progress)


@dataclass
class _Events:
    """One night's reading of new events."""

    artifacts: Artifacts
    place: Path
    scratch: Path
    query: EventQuery
    now: datetime
    progress: Report
    read: int = 0
    without: int = 0
    high: Any = None
    kind: cursor.Kind | None = None
    _equal: pl.DataFrame | None = field(default=None, repr=False)
    """Hashes of the rows so far whose cursor is the newest of them: more of the same may follow in the next batch."""

    def fetch(self, connection: sql.Connection) -> None:
        """Write the folder of what is new, if anything is."""
        before = fetches(self.place)
        number = before[-1].number + 1 if before else 1
        since = cursor.first(self.query)
        if before:
            self.kind, self.high = before[-1].kind, cursor.read(before[-1].kind, before[-1].high)
            since = cursor.since(self.kind, self.high, self.query)
        there = Imported.of(self.place, before, since, self.query.cursor)
        statement, values = _statement(connection, self.query, since)
        writer = Writer(self.scratch / f"{number:06}", self.query.cursor)
        for rows in read_rows(connection, statement, values):
            new = self._new(rows, there)
            if new.height:
                self.artifacts.begin_work()
                writer.write(new)
        writer.close()
        self._say(writer.rows, there)
        if not writer.rows:
            if not before:
                raise InputError("database.events.query gives no rows" + (f" from {since} on." if since else "."))
            return
        assert self.kind is not None
        high = cursor.newest(self.kind, self.high, self.now)
        last = {name: cursor.written(value) for name, value in writer.last.items()}
        record = Fetch(
            number=number, kind=self.kind, high=cursor.written(high), rows=writer.rows, last=last, when=self.now
        )
        put(self.artifacts, self.place, writer.folder, record)

    def _new(self, rows: pl.DataFrame, there: Imported) -> pl.DataFrame:
        """The rows of a batch that no earlier night has read."""
        name = self.query.cursor
        if name not in rows.columns:
            raise InputError(
                f"database.events.cursor: the query has no column {name!r}; it has {', '.join(rows.columns)}."
            )
        if (kept := rows.drop_nulls(name)).is_empty():
            self.without += rows.height
            return kept
        self.without += rows.height - kept.height
        kind = cursor.kind_of(kept[name][0], name)
        if self.kind not in (None, kind):
            raise InputError(
                f"database.events.cursor: {name} is a {kind}, such as {kept[name][0]!r}, and was a {self.kind!s}. Make it "
                "that again in the query, or take another name for the dataset."
            )
        self.kind, highest = kind, kept[name].max()
        self.high = highest if self.high is None else max(self.high, highest)
        before = self.read // SAY_EVERY
        self.read += kept.height
        if self.read // SAY_EVERY > before:
            self.progress(Progress(IMPORT, message=f"{self.read:,} rows read, up to {name} {highest!s}"))
        return self._beyond(kept, there)

    def _beyond(self, rows: pl.DataFrame, there: Imported) -> pl.DataFrame:
        """Without as many of equal rows as are there; rows come in order of the cursor, so equal ones follow each other."""
        if not there.files:
            return rows
        name = self.query.cursor
        keys = there.hashed(rows)
        earlier = self._equal if self._equal is not None else keys.head(0)
        placed = pl.concat([earlier, keys]).with_columns(pl.int_range(pl.len()).over(name, HASH).alias(PLACE))
        self._equal = placed.filter(pl.col(name) == placed[name].max()).select(name, HASH)
        of_rows = placed.slice(earlier.height).with_row_index("row")
        new = of_rows.join(there.between(keys[name].min(), keys[name].max()), on=[name, HASH, PLACE], how="anti")
        return rows[new["row"].sort()]

    def _say(self, new: int, there: Imported) -> None:
        name = self.query.cursor
        if not self.read and there.number:
            self.progress(
                Progress(
                    IMPORT,
                    message=f"The database has no row from {name} {there.since} on, of which {there.number:,} were read "
                    "before. Has it been replaced, or emptied? What was read stays.",
                )
            )
        without = f"; {self.without:,} rows without {name} were left out" if self.without else ""
        message = f"{new:,} new rows of {self.read:,} read" + (f", up to {name} {self.high}" if self.read else "")
        self.progress(Progress(IMPORT, 1, 1, message + without))


def _statement(connection: sql.Connection, query: EventQuery, since: Any) -> tuple[str, dict[str, Any]]:
    """The query, its rows from `since` on, in order of the cursor; and the values in it."""
    name = connection.dialect.identifier_preparer.quote(query.cursor)
    if connection.dialect.name == "sqlite" and not isinstance(since, int | None):
        since = str(since)  # there is no type for times
    if since is None and ":since" in query.query:
        raise InputError(
            "database.events.query says :since, which is nothing the first time; give start, such as 2024-01-01."
        )
    where = "" if since is None else f"\nWHERE {name} >= :since"
    inner = query.query.strip().rstrip(";")
    return f"SELECT * FROM (\n{inner}\n) AS overnight_rows{where}\nORDER BY {name}", {"since": since}


def _fetch_table(artifacts: Artifacts, file: Path, query: Query, connection: sql.Connection, progress: Report) -> None:
    """Read a table whole, and replace its file where it says anything else."""
    parts = list(read_rows(connection, query.query.strip().rstrip(";"), {}))
    types: dict[str, pl.DataType] = {}
    for name, dtype in (pair for part in parts for pair in part.schema.items()):
        types[name] = widened(types.get(name, dtype), dtype)
    table = pl.concat(part.cast(types) for part in parts)  # type: ignore[arg-type]
    if table.is_empty():
        raise InputError(f"database.{file.stem}.query gives no rows; a table that is empty is not taken.")
    table = table.sort(table.columns, nulls_last=True)
    if file.is_file() and pl.read_parquet(file, glob=False).equals(table):
        return
    artifacts.begin_work()
    replace_file(file, table.write_parquet)
    progress(Progress(IMPORT, message=f"{file.stem}: {table.height:,} rows"))
