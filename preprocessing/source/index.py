"""Which days' events every source file holds, so that a night opens only what is new and notices what came late.

A file whose size and stamp are as before is not opened again. Of the others each day's rows are counted and hashed in any
order: a file that grew by a day changes nothing of its earlier days.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from preprocessing.sessions import local_day
from preprocessing.source.canonical import FILE, as_found, frozen
from preprocessing.source.files import SourceFile
from preprocessing.source.values import usable_day
from schemas.artifacts import replace_file
from schemas.columns import DAY, TIMESTAMP
from schemas.dataset import Dataset

_SCHEMA = {
    "path": pl.String,
    "size": pl.Int64,
    "stamp": pl.String,
    DAY: pl.Date,
    "rows": pl.Int64,
    "digest": pl.UInt64,
}

_DAYS, _NO_DAY = 2**32, 2**30  # more days than Polars' dates have, and one that is none


@dataclass(frozen=True)
class Inventory:
    """A row a file and day; `day` is null for rows without a readable time."""

    table: pl.DataFrame
    today: date

    @classmethod
    def take(
        cls,
        dataset: Dataset,
        files: Sequence[SourceFile],
        kept_in: Path,
        now: datetime,
        scan: Callable[[list[SourceFile]], pl.LazyFrame],
        earliest: date,
    ) -> Inventory:
        """The inventory of `files`; `scan` gives the events of those that must be opened, with the column `FILE`."""
        known = pl.read_parquet(kept_in) if kept_in.is_file() else pl.DataFrame(schema=_SCHEMA)
        there = pl.DataFrame(
            [(file.path, file.size, file.stamp) for file in files],
            schema={name: _SCHEMA[name] for name in ("path", "size", "stamp")},
            orient="row",
        )
        same = there.join(known, on=["path", "size", "stamp"], how="inner", maintain_order="left")
        seen = set(same["path"])
        new = [file for file in files if file.path not in seen]
        table = same
        if new:
            numbered = pl.DataFrame(
                {FILE: range(len(new)), "path": [file.path for file in new]}, schema_overrides={FILE: pl.Int32}
            )
            counted = _count(scan(new), dataset, earliest)
            opened = numbered.join(counted, on=FILE, how="left").join(there, on="path")
            # A file without rows is remembered too.
            opened = opened.with_columns(pl.col("rows").fill_null(0), pl.col("digest").fill_null(0))
            table = pl.concat([same.select(list(_SCHEMA)), opened.select(list(_SCHEMA))], how="vertical_relaxed")
        if new or same.height < known.height:
            replace_file(kept_in, table.write_parquet)
        return cls(table, now.astimezone(ZoneInfo(dataset.time_zone)).date())

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return int(self.table["rows"].sum())

    def days(self) -> dict[date, int]:
        """Events of each day up to today."""
        past = self.table.filter(pl.col(DAY) <= self.today)
        return dict(past.group_by(DAY).agg(pl.col("rows").sum()).sort(DAY).rows())

    def misdated(self) -> dict[str, date]:
        """The day to which a file's rows without a time, or of the future, are counted: its last day, else the first of all."""
        sane, first = pl.col(DAY) <= self.today, min(self.days(), default=self.today)
        wrong = self.table.filter(sane.not_().fill_null(True) & (pl.col("rows") > 0)).select("path").unique()
        last = self.table.filter(sane).group_by("path").agg(pl.col(DAY).max())
        return dict(wrong.join(last, on="path", how="left").with_columns(pl.col(DAY).fill_null(first)).rows())

    def whole(self) -> tuple[str, list[str]]:
        """A hash of all events, and all files."""
        told = self.table.sort("path", DAY)
        return _hash(told.select("path", "rows", "digest").rows()), told["path"].unique(maintain_order=True).to_list()

    def contents(self) -> dict[date, tuple[str, list[str]]]:
        """For each day a hash of all that counts to it, and the files that hold it."""
        misdated = pl.DataFrame(
            list(self.misdated().items()), schema={"path": pl.String, "counted to": pl.Date}, orient="row"
        )
        told = self.table.filter(pl.col("rows") > 0).join(misdated, on="path", how="left")
        sane = pl.col(DAY) <= self.today
        told = told.with_columns(pl.when(sane).then(pl.col(DAY)).otherwise("counted to").alias("counted to"))
        parts = told.sort("counted to", "path", DAY).partition_by("counted to", as_dict=True)
        return {
            day: (
                _hash(part.select("path", "rows", "digest").rows()),
                part["path"].unique(maintain_order=True).to_list(),
            )
            for (day,), part in parts.items()
        }


def _count(events: pl.LazyFrame, dataset: Dataset, earliest: date) -> pl.DataFrame:
    schema = events.collect_schema()
    columns = frozen(schema).names()
    day = pl.lit(None, dtype=pl.Date)
    if TIMESTAMP in dataset.events.columns:
        local = local_day(pl.col(TIMESTAMP), dataset.time_zone)
        day = pl.when(usable_day(local, None, earliest)).then(local)
    # The sum of hashes does not depend on the order of rows, and wraps round.
    parts = [pl.col(name).hash(seed) for seed, name in enumerate(columns)]
    # What was found where nothing could be read counts, but not whether a column of it is there: that depends on other files.
    for seed, name in enumerate(columns):
        if as_found(name) in schema:
            parts.append(pl.when(pl.col(name).is_null()).then(pl.col(as_found(name)).cast(pl.String).hash(seed)))
    digest = pl.sum_horizontal(parts)
    # One packed key is found faster than two.
    number = day.cast(pl.Int32).cast(pl.Int64).fill_null(_NO_DAY) + pl.col(FILE).cast(pl.Int64) * _DAYS
    rows = events.select(number.alias("key"), digest.alias("digest"))
    counted = rows.group_by("key").agg(pl.len().cast(pl.Int64).alias("rows"), pl.col("digest").sum())
    number = (pl.col("key") + _DAYS // 2) % _DAYS - _DAYS // 2
    file = ((pl.col("key") - number) // _DAYS).cast(pl.Int32)
    day = pl.when(number != _NO_DAY).then(number).cast(pl.Int32).cast(pl.Date)
    # The streaming engine never holds all rows at once.
    return counted.select(file.alias(FILE), day.alias(DAY), "rows", "digest").collect(engine="streaming")


def _hash(rows: list[tuple[object, ...]]) -> str:
    return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()[:16]
