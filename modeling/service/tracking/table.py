"""Parts and journals -> a row for each item of an answer that was shown, and whether it was clicked.

recommendation_id | item_id   | clicked | position | source  | model       | arm | user | timestamp
Zk3vXq...         | lamp-0012 | true    | 1        | model   | models/1f2e | a   | 9c1e | 2026-03-08 09:00 UTC

An item counts once for each answer, however often it is sent; what was clicked was shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from modeling.service.tracking.journal import ENDING, read
from modeling.service.tracking.parts import ANSWERS, EVENTS, FOLDERS, JOURNALS, SCHEMAS, frame
from schemas.errors import InputError

SHOWN, CLICKED, UNIT = "shown", "clicked", "user"
KEY = ("recommendation_id", "item_id")
LATER = timedelta(days=8)  # after an answer that its items may be clicked
AT_ONCE = 100_000  # answers and events that are read together: about 1 GB of memory
Bucket = tuple[int, int]  # the answers of one hash, of so many; and the events of these


@dataclass(frozen=True)
class Shown:
    """The rows; events as they came; and how many of them say nothing of an answer: no such id, or not of its items."""

    rows: pl.DataFrame
    events: dict[str, int]
    unplaced: int


def read_kind(folder: Path, kind: str, since: date | None = None, bucket: Bucket = (0, 1)) -> pl.DataFrame:
    """All records of a kind, those of journals too: rows that became a part meanwhile are there twice."""
    mine = pl.coalesce("recommendation_id", "user_id", "session_id").fill_null("").hash() % bucket[1] == bucket[0]
    tables = [pl.DataFrame(schema=SCHEMAS[kind])]
    for path in sorted((folder / JOURNALS).glob(f"*.{kind}{ENDING}")):
        try:
            tables.append(frame(kind, read(path)[0]).filter(mine))
        except FileNotFoundError:
            continue  # it has become parts, which are looked for after this
    tables += [read_part(part).filter(mine) for part in _parts(folder, kind, since)]
    rows = pl.concat(tables, how="diagonal")
    return rows if since is None else rows.filter(pl.col("timestamp").dt.date() >= since)


def read_part(part: Path) -> pl.DataFrame:
    """The rows of a file.

    Raises:
        InputError: where it cannot be read.
    """
    try:
        return pl.read_parquet(part, hive_partitioning=False, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{part}: it cannot be read ({reason}). Move it away: all else is counted without it."
        ) from None


def _parts(folder: Path, kind: str, since: date | None) -> Iterator[Path]:
    for day in sorted(day for into in FOLDERS[kind].values() for day in (folder / into).glob("day=*")):
        if since is None or day.name >= f"day={since}":
            yield from sorted(day.glob("[!.]*.parquet"))


def in_buckets(folder: Path, since: date | None = None, at_once: int = AT_ONCE) -> Iterator[Shown]:
    """As `shown_items`, in parts that fit into memory: an answer, and all that became of it, is in one of them.

    Raises:
        InputError: where a file cannot be read.
    """
    try:
        sizes = [pq.read_metadata(part).num_rows for kind in FOLDERS for part in _parts(folder, kind, since)]
    except (OSError, ValueError):
        sizes = []  # what is wrong with which is said when it is read
    count = max(1, math.ceil(sum(sizes) / at_once))
    for number in range(count):
        yield shown_items(folder, since, (number, count))


def shown_items(folder: Path, since: date | None = None, bucket: Bucket = (0, 1)) -> Shown:
    """What was shown of the answers and lists of a dataset, since a day.

    Raises:
        InputError: where a file cannot be read.
    """
    answers = read_kind(folder, ANSWERS, since - LATER if since else None, bucket).unique(
        "recommendation_id", keep="first", maintain_order=True
    )
    events = read_kind(folder, EVENTS, since, bucket).unique(maintain_order=True)
    counts = dict(events["event_type"].value_counts().iter_rows())
    listed = _listed(answers)
    whole = events.filter(pl.col("item_id").is_null())
    named = events.filter(pl.col("item_id").is_not_null())
    every = whole.drop("item_id", "position").join(listed.select(*KEY), on="recommendation_id", how="left")
    every = every.with_columns(pl.lit(None, pl.Int32).alias("position"))
    known = pl.concat([named, every.select(named.columns)])
    placed = known.join(listed, on=KEY, how="inner", suffix="_answer")
    stray = known.join(listed, on=KEY, how="anti")
    of_answers = _rows(
        placed.with_columns(pl.coalesce("position", "position_answer").alias("position")), of_answer=True
    )
    of_lists = _rows(_without_answers(stray, answers), of_answer=False)
    rows = pl.concat([of_answers, of_lists]) if of_lists.height else of_answers
    used = placed.height + stray.filter(_self_described(answers)).height
    return Shown(rows.sort("timestamp"), counts, known.height - used)


def _listed(answers: pl.DataFrame) -> pl.DataFrame:
    """A row for each item of each answer, with its position from 1."""
    rows = answers.with_columns(pl.int_ranges(1, pl.col("items").list.len() + 1, dtype=pl.Int32).alias("position"))
    rows = rows.with_columns(pl.coalesce("user_id", "session_id").alias(UNIT))
    rows = rows.select(
        "recommendation_id",
        pl.col("items").alias("item_id"),
        "position",
        pl.col("sources").alias("source"),
        "model",
        "arm",
        "against",
        "salt",
        UNIT,
        "timestamp",
    ).filter(pl.col("item_id").list.len() > 0)
    return rows.explode("item_id", "position", "source").unique(KEY, keep="first", maintain_order=True)


def _self_described(answers: pl.DataFrame) -> pl.Expr:
    """Events of lists that the service did not make, whose model the client names."""
    ours = pl.col("recommendation_id").is_in(answers["recommendation_id"].implode())
    return pl.col("model").is_not_null() & pl.col("item_id").is_not_null() & ~ours.fill_null(False)


def _without_answers(stray: pl.DataFrame, answers: pl.DataFrame) -> pl.DataFrame:
    """Those, with what the client says in the place of the answer; without an id the items of a user's day are one list."""
    unit = pl.coalesce("user_id", "session_id")
    made = pl.concat_str(unit.fill_null("?"), "model", pl.col("timestamp").dt.date().cast(pl.String), separator=" ")
    return stray.filter(_self_described(answers)).with_columns(
        pl.coalesce("recommendation_id", made).alias("recommendation_id"),
        unit.alias(UNIT),
        *(pl.lit(None, pl.String).alias(name) for name in ("arm", "against", "salt")),
    )


def _rows(events: pl.DataFrame, *, of_answer: bool) -> pl.DataFrame:
    """Events of items -> a row an item; of answers the model, source and time are the answer's."""
    theirs = "_answer" if of_answer else ""
    return events.group_by(KEY, maintain_order=True).agg(
        (pl.col("event_type") == "click").any().alias(CLICKED),
        pl.col("position").drop_nulls().first(),
        pl.col(f"source{theirs}").drop_nulls().first().alias("source"),
        pl.col(f"model{theirs}").first().alias("model"),
        *(pl.col(name).first() for name in ("arm", "against", "salt", UNIT)),
        pl.col(f"timestamp{theirs}").first().alias("timestamp"),
    )
