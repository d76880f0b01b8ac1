"""Which days' events every source file holds, so that a night opens only what is new and sees what has changed.

    path | size | stamp | day | rows | digest

A row a file and day; `day` is null for rows without a readable time. `digest` is a sum of hashes of rows: it depends neither
on their order nor on the files they are spread over. A file whose size and stamp are as before is not opened again. The index
is a cache: one that is lost, damaged or of another version of the hash is taken anew.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from preprocessing.source.canonical import FILE, as_found, frozen
from preprocessing.source.files import SourceFile
from preprocessing.source.values import local_day
from schemas.artifacts import replace_file
from schemas.columns import DAY, TIMESTAMP
from schemas.dataset import Dataset

PATH, ROWS, DIGEST = "path", "rows", "digest"
HASH = f"polars {pl.__version__}"  # hashes are the same within a version only
NOT_BEFORE, EARLIEST = "not_before", date(1971, 1, 1)  # after all that is 0, or a few thousand, in any unit and zone
CHECKSUM = "checksum"
_SCHEMA = {PATH: pl.String, "size": pl.Int64, "stamp": pl.String, DAY: pl.Date, ROWS: pl.Int64, DIGEST: pl.UInt64}
_DAYS, _NO_DAY = 2**32, 2**30  # more days than Polars' dates have, and one that is none


@dataclass(frozen=True)
class Index:
    """The index of one source at one moment."""

    table: pl.DataFrame
    today: date
    earliest: date = EARLIEST

    @classmethod
    def take(
        cls,
        dataset: Dataset,
        files: Sequence[SourceFile],
        kept_in: Path,
        now: datetime,
        scan: Callable[[list[SourceFile]], pl.LazyFrame],
    ) -> Index:
        """The index of `files`; `scan` gives the events of those that must be opened, with the column FILE."""
        known = _read(kept_in)
        table = known
        if known.height:
            same = _described(files).join(known, on=[PATH, "size", "stamp"], how="inner", maintain_order="left")
            table = same.select(list(_SCHEMA))
        seen = set(table[PATH])
        new = [file for file in files if file.path not in seen]
        if new:
            table = table.vstack(_opened(new, _count(scan(new), dataset)))
        if new or table.height < known.height:
            _keep(table, kept_in)
        return cls(table, now.astimezone(ZoneInfo(dataset.time_zone)).date(), earliest_of(dataset))

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return int(self.table[ROWS].sum())

    @property
    def usable(self) -> pl.Expr:
        """Whether a row of the table is of a day that events can be of: from the earliest to today."""
        return pl.col(DAY).is_between(self.earliest, self.today).fill_null(False)

    def days(self) -> dict[date, int]:
        """Events of each usable day, in order."""
        return dict(self._days)

    @cached_property
    def _days(self) -> dict[date, int]:
        rows = self.table.filter(self.usable).group_by(DAY).agg(pl.col(ROWS).sum()).sort(DAY)
        return dict(rows.rows())

    def undated(self) -> set[str]:
        """The files that hold rows without a usable day."""
        return set(self.table.filter(~self.usable & (pl.col(ROWS) > 0))[PATH])

    def files(self) -> list[str]:
        """All files that hold rows, in order."""
        return self.table.filter(pl.col(ROWS) > 0)[PATH].unique().sort().to_list()


def new_files(files: Sequence[SourceFile], kept_in: Path) -> list[SourceFile]:
    """Those that `Index.take` would open: new, or not as they were when the index was kept."""
    known = set(_read(kept_in).select(PATH, "size", "stamp").rows())
    return [file for file in files if (file.path, file.size, file.stamp) not in known]


def earliest_of(dataset: Dataset) -> date:
    """The first day that events can be of: what the check `not_before` of their times says, or its default."""
    for check in dataset.checks:
        if check.name == NOT_BEFORE and check.options.get("column", TIMESTAMP) == TIMESTAMP:
            with suppress(ValueError):  # the check itself says what is wrong with it
                return date.fromisoformat(str(check.options.get("earliest", EARLIEST)))
    return EARLIEST


def _keep(table: pl.DataFrame, file: Path) -> None:
    """Write the cache, with a checksum of what it says: a byte that a disk loses is not taken for a change of the source."""
    if file.is_dir():
        shutil.rmtree(file)
    about = {"hash": HASH, CHECKSUM: _checksum(table)}
    replace_file(file, lambda path: table.write_parquet(path, metadata=about))


def _read(file: Path) -> pl.DataFrame:
    empty = pl.DataFrame(schema=_SCHEMA)
    if not file.is_file():  # Polars would read a folder's files
        return empty
    try:
        table = pl.read_parquet(file, glob=False)
        about = pl.read_parquet_metadata(file)
    except (OSError, pl.exceptions.PolarsError):
        return empty
    whole = table.schema == empty.schema and about.get("hash") == HASH and about.get(CHECKSUM) == _checksum(table)
    return table if whole else empty


def _checksum(table: pl.DataFrame) -> str:
    """Hex digits of what a table says, in its order."""
    return hashlib.sha256(table.write_csv().encode()).hexdigest()[:16]


def _described(files: Sequence[SourceFile]) -> pl.DataFrame:
    """`path`, `size` and `stamp` of files, in their order."""
    about = {
        PATH: [file.path for file in files],
        "size": [file.size for file in files],
        "stamp": [file.stamp for file in files],
    }
    return pl.DataFrame(about, schema={name: _SCHEMA[name] for name in about})


def _opened(files: list[SourceFile], counts: pl.DataFrame) -> pl.DataFrame:
    """Rows of the table for files that were opened; a file without rows has one, with 0 rows, so that it stays shut.

    `counts` has the columns FILE, `day`, `rows`, `digest`.
    """
    without = [number for number in range(len(files)) if number not in set(counts[FILE])]
    if without:
        none = {FILE: without, DAY: None, ROWS: 0, DIGEST: 0}
        counts = pl.concat([counts, pl.DataFrame(none, schema=counts.schema)])
    counts = counts.sort(FILE, DAY)
    return _described(files)[counts[FILE]].hstack(counts[[DAY, ROWS, DIGEST]])


def _count(events: pl.LazyFrame, dataset: Dataset) -> pl.DataFrame:
    schema = events.collect_schema()
    hashed = frozen(schema).names()
    day = pl.lit(None, dtype=pl.Date)
    if TIMESTAMP in dataset.events.columns:
        local = local_day(pl.col(TIMESTAMP), dataset.time_zone)
        day = pl.when(local.is_between(date.min, date.max)).then(local)  # of the year 1 in the west, say, or of none
    parts = [pl.col(name).hash(seed) for seed, name in enumerate(hashed)]
    # What was found where nothing could be read counts, but not whether a column of it is there: that depends on other files.
    for seed, name in enumerate(hashed):
        if as_found(name) in schema:
            parts.append(pl.when(pl.col(name).is_null()).then(pl.col(as_found(name)).cast(pl.String).hash(seed)))
    # The sum of hashes does not depend on the order of rows, and wraps round.
    digest = pl.sum_horizontal(parts)
    # Grouping by one packed key costs less than by two.
    number = day.cast(pl.Int32).cast(pl.Int64).fill_null(_NO_DAY) + pl.col(FILE).cast(pl.Int64) * _DAYS
    rows = events.select(number.alias("key"), digest.alias(DIGEST))
    counted = rows.group_by("key").agg(pl.len().cast(pl.Int64).alias(ROWS), pl.col(DIGEST).sum())
    number = (pl.col("key") + _DAYS // 2) % _DAYS - _DAYS // 2
    file = ((pl.col("key") - number) // _DAYS).cast(pl.Int32)
    day = pl.when(number != _NO_DAY).then(number).cast(pl.Int32).cast(pl.Date)
    # The streaming engine never holds all rows at once.
    return counted.select(file.alias(FILE), day.alias(DAY), ROWS, DIGEST).collect(engine="streaming")
