"""The rows of a database that were read before and may be read again: which of a batch are there already.

there   10:00 a, 10:00 a, 10:05 b          read again   10:00 a, 10:00 a, 10:00 a, 10:05 b, 10:07 c
new     10:00 a (the third), 10:07 c
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from preprocessing.source.database import cursor
from preprocessing.source.database.files import EVENTS, Fetch
from preprocessing.source.files import reading

HASH, PLACE = "overnight hash", "overnight place"


@dataclass
class Imported:
    """The rows that were read before and may be read again: their cursor, a hash, and the how manieth of its equals each is."""

    files: list[Path]
    since: Any
    name: str
    rows: pl.DataFrame | None = None
    _common: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, place: Path, before: list[Fetch], since: Any, name: str) -> Imported:
        """Those of earlier nights whose cursor is not before `since`. Rows of a file that was removed are read anew."""
        files = [
            place / EVENTS / f"{record.number:06}" / file
            for record in before
            for file, last in record.last.items()
            if cursor.read(record.kind, last) >= since
        ]
        return cls([file for file in files if file.is_file()], since, name)

    def hashed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Of rows the cursor, and a hash of the columns that they have in common with those that are there."""
        if self.rows is None:
            self._load(rows.columns)
        return rows.select(self.name, _hash(rows.schema, self._common))

    def between(self, first: Any, last: Any) -> pl.DataFrame:
        """Those with a cursor from `first` to `last`."""
        assert self.rows is not None
        return self.rows.filter(pl.col(self.name).is_between(pl.lit(first), pl.lit(last)))

    @property
    def number(self) -> int:
        """How many there are, once any row was compared with them or none came."""
        if self.rows is None and self.files:
            self._load(list(pl.read_parquet_schema(self.files[0])))
        return 0 if self.rows is None else self.rows.height

    def _load(self, columns: list[str]) -> None:
        schemas = []
        for file in self.files:
            with reading(file):
                schemas.append(pl.Schema(pl.read_parquet_schema(file)))
        self._common = sorted(set(columns).intersection(*(schema.names() for schema in schemas)))
        parts = []
        for file, schema in zip(self.files, schemas, strict=True):
            plan = pl.scan_parquet(file, glob=False, hive_partitioning=False)
            recent = plan.filter(pl.col(self.name) >= pl.lit(self.since))
            with reading(file):
                parts.append(recent.select(self.name, _hash(schema, self._common)).collect(engine="streaming"))
        rows = pl.concat(parts)
        self.rows = rows.with_columns(pl.int_range(pl.len()).over(self.name, HASH).alias(PLACE))


def _hash(schema: pl.Schema, columns: list[str]) -> pl.Expr:
    """A hash of some columns that is the same for equal values of whatever type: 7, 7.0 and "7"."""
    parts = []
    for seed, name in enumerate(columns):
        column, dtype = pl.col(name), schema[name]
        if dtype == pl.Float64:
            whole = pl.when(column.is_finite() & (column == column.floor()) & (column.abs() < 2**53)).then(column)
            column = pl.coalesce(whole.cast(pl.Int64, strict=False).cast(pl.String), column.cast(pl.String))
        elif dtype == pl.Boolean:
            column = column.cast(pl.Int64).cast(pl.String)
        elif dtype == pl.Int64:
            column = column.cast(pl.String)
        elif dtype.is_temporal():
            column = column.to_physical()
        parts.append(pl.when(column.is_null()).then(pl.lit(seed, dtype=pl.UInt64)).otherwise(column.hash(seed)))
    return pl.sum_horizontal(parts).alias(HASH)
