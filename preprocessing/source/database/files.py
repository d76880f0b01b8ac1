"""The files that rows of a database are written to, and the records that say how far it was read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from preprocessing.source.database import cursor
from preprocessing.source.database.rows import widened
from schemas.artifacts import Artifacts, sync, write_atomically
from schemas.errors import InputError
from schemas.lock import require_held

EVENTS, FETCHES = "events", "fetches"
ROWS_OF_A_FILE = 1_000_000  # where the cursor is a number, and says no day
DAY = "overnight day"


class Fetch(BaseModel):
    """The record of one folder of events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    kind: cursor.Kind
    high: str
    """The newest cursor that was read by then."""
    rows: int
    last: dict[str, str]
    """By file, its newest cursor."""
    when: datetime


def fetches(place: Path) -> list[Fetch]:
    """The records of the folders of events that are there, in order.

    Raises:
        InputError: when the record of one cannot be read.
    """
    records = []
    for folder in sorted((place / EVENTS).iterdir()) if (place / EVENTS).is_dir() else ():
        file = place / FETCHES / f"{folder.name}.json"
        try:
            records.append(Fetch.model_validate_json(file.read_text()))
        except (OSError, ValueError):
            raise InputError(
                f"{file}: it says how far {folder} was read, and cannot be read. Restore it from a backup."
            ) from None
    return records


def put(artifacts: Artifacts, place: Path, draft: Path, record: Fetch) -> None:
    """A folder of events into its place: first its record, which does not count alone, then the folder."""
    for file in (*draft.iterdir(), draft):
        sync(file)
    write_atomically(place / FETCHES / f"{draft.name}.json", record.model_dump_json(indent=2) + "\n")
    (place / EVENTS).mkdir(exist_ok=True)
    require_held(artifacts.root)
    draft.rename(place / EVENTS / draft.name)
    sync(place / EVENTS)


@dataclass
class Writer:
    """Files of rows in order of the cursor, one open at a time: one a day, or a million rows where the cursor is a number."""

    folder: Path
    name: str
    rows: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    """By file, its newest cursor."""
    _open: tuple[str, pl.Schema, pq.ParquetWriter] | None = None

    def write(self, rows: pl.DataFrame) -> None:
        """Add rows, none of whose cursors is before those written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in self._days(rows):
            day = self._day(part[self.name][0])
            if self._open is None or self._open[0] != day or not _fits(part.schema, self._open[1]):
                self._begin(day, part.schema)
            assert self._open
            self._open[2].write_table(part.cast(self._open[1]).to_arrow(compat_level=pl.CompatLevel.oldest()))
            file = Path(self._open[2].where).name
            newest: Any = part[self.name].max()
            self.last[file] = max(self.last.get(file, newest), newest)
            self.rows += part.height

    def close(self) -> None:
        """Finish the file that is open."""
        if self._open:
            self._open[2].close()
            self._open = None

    def _days(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        column = rows[self.name]
        if column.dtype == pl.Int64:
            yield rows
            return
        days = column.str.head(10) if column.dtype == pl.String else column.dt.date()
        yield from rows.with_columns(days.alias(DAY)).partition_by(DAY, maintain_order=True, include_key=False)

    def _day(self, value: Any) -> str:
        if isinstance(value, int):
            return f"part-{self.rows // ROWS_OF_A_FILE:04}"
        return str(value)[:10] if isinstance(value, str) else value.strftime("%Y-%m-%d")

    def _begin(self, day: str, schema: pl.Schema) -> None:
        self.close()
        again = sum(file.startswith(day) for file in self.last)
        file = self.folder / f"{day}{f'-{again + 1}' if again else ''}.parquet"
        arrow = pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        self._open = day, schema, pq.ParquetWriter(file, arrow, compression="zstd", compression_level=1)


def _fits(schema: pl.Schema, into: pl.Schema) -> bool:
    """Whether rows can be written to a file that was begun with other types of the same columns."""
    return schema.names() == into.names() and all(widened(into[name], schema[name]) == into[name] for name in into)
