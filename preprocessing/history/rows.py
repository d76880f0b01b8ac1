"""Which rows a finished day was made of: a hash of each, so that what a source lost of it and what is new can be told apart.

Counts and sums of hashes say that a day's rows are others; these hashes say which. They are of what makes an event (user,
session, item, time, position, type): a price that was corrected makes no other row. They are kept of recent days only, which
are those that change.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import polars as pl

from preprocessing.execution.run import Run
from preprocessing.frames import collect
from preprocessing.history.ledger import Ledger
from preprocessing.output.day import ASIDE_ROWS, ROWS_FILE
from preprocessing.plan import plan_of
from preprocessing.sessions import EVENT_DAY, KEY, row_key
from preprocessing.source.index import HASH, PATH
from preprocessing.source.values import local_day
from schemas.columns import COUNT, DAY, TIMESTAMP


def rows_of_day(run: Run, paths: Iterable[str], day: date) -> pl.DataFrame:
    """The rows of a day in these files as they are read, with `path` and the hash of each."""
    local = local_day(pl.col(TIMESTAMP), run.dataset.time_zone)
    parts = []
    for path in paths:
        file = next(file for file in run.source.files.files if file.path == path)
        rows = collect(run.source.files.scan([file], expected=run.source.types).filter(local == day))
        if rows.height:
            plan = plan_of(run.dataset.model_dump_json(), tuple(rows.schema.items()), run.reads)
            read = collect(plan.read(rows.lazy().with_columns(pl.lit(day).alias(EVENT_DAY))))
            parts.append(rows.with_columns(pl.lit(path).alias(PATH), read.select(row_key(read.columns)).to_series()))
    return pl.concat(parts, how="diagonal_relaxed") if parts else pl.DataFrame(schema={PATH: pl.String, KEY: pl.UInt64})


def rows_made_of(run: Run, ledger: Ledger, day: date) -> pl.DataFrame | None:
    """The hashes of the rows that a finished day was made of, and of those that came too late for it: `key`, `count`.

    None where they are not there: the day is older than they are kept, or they are of another version of the hash.
    """
    row = ledger.row(day)
    if row is None:
        return None
    folder = run.artifacts.root / row["artifact"]
    homes = ledger.parts().filter((pl.col(DAY) == day) & pl.col("aside"))["finished"].unique()
    try:
        if pl.read_parquet_metadata(folder / ROWS_FILE).get("hash") != HASH:
            return None
        keys = [pl.read_parquet(folder / ROWS_FILE, glob=False)]
        for home in homes:
            aside = pl.read_parquet(run.artifacts.root / (ledger.row(home) or row)["artifact"] / ASIDE_ROWS, glob=False)
            keys.append(aside.filter(pl.col(DAY) == day).select(KEY))
    except (OSError, pl.exceptions.PolarsError):
        return None
    return pl.concat(keys).group_by(KEY).agg(pl.len().cast(pl.Int64).alias(COUNT))


def is_all_there(made_of: pl.DataFrame, rows: pl.DataFrame) -> bool:
    """Whether `rows` hold every row that a day was made of."""
    there = rows.group_by(KEY).agg(pl.len().cast(pl.Int64).alias("there"))
    both = made_of.join(there, on=KEY, how="left").with_columns(pl.col("there").fill_null(0))
    return bool((both["there"] >= both[COUNT]).all())


def beyond(made_of: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Of `rows`, those that are more than a day was made of, in their order."""
    number = pl.int_range(pl.len(), dtype=pl.Int64).over(KEY)
    numbered = rows.with_columns(number.alias("number")).join(made_of, on=KEY, how="left", maintain_order="left")
    return numbered.filter(pl.col("number") >= pl.col(COUNT).fill_null(0)).drop("number", COUNT)
