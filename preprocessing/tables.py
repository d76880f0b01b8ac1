"""What preparation writes: sessions by day, the item table, the fitted tables, the schema."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from preprocessing.engine import collect
from preprocessing.features import TRAINING, Fitted, describe, feature_schema
from preprocessing.sessions import SESSION_INDEX
from preprocessing.values import TIME
from schemas.columns import (
    COUNT,
    DAY,
    END,
    FIRST_ID,
    ID,
    ITEM_ID,
    LENGTH,
    SESSION_ID,
    START,
    TIMESTAMP,
    UNDATED,
    USER_ID,
    VALUE,
)
from schemas.dataset import Dataset

LAST_SEEN = "last_seen"


def group(encoded: pl.LazyFrame, dataset: Dataset, features: list[str]) -> pl.LazyFrame:
    """One row a session: who, when it began, how long, and a list for every feature.

    Rows are in order of session and time, and so are the lists.
    """
    given = dataset.sessions.rule == "given"
    dated = TIMESTAMP in dataset.events.columns
    return (
        encoded.set_sorted(SESSION_INDEX)
        .group_by(SESSION_INDEX, maintain_order=True)
        .agg(
            pl.col(SESSION_ID if given else SESSION_INDEX).first().alias(SESSION_ID),
            pl.col(USER_ID).first(),
            (pl.col(TIMESTAMP) if dated else pl.lit(None, dtype=TIME)).first().alias(START),
            pl.len().cast(pl.Int32).alias(LENGTH),
            *(pl.col(name) for name in features),
        )
    )


def in_order_of_time(sessions: pl.LazyFrame, ends: pl.LazyFrame, features: list[str]) -> pl.LazyFrame:
    """Sessions with their day, in order of end, then user. A later day never comes before an earlier one."""
    ended = sessions.join(ends, on=SESSION_INDEX, how="left", maintain_order="left")
    # They come in order of user, which a stable sort keeps among equal ends.
    ordered = ended.sort(END, maintain_order=True)
    return ordered.select(DAY, SESSION_ID, USER_ID, START, END, LENGTH, *features)


def item_table(encoded: pl.LazyFrame, items: Fitted, side: list[str], dated: bool) -> pl.LazyFrame:
    """One row an item id: value, count, when last seen, and each side feature's most recent value, in training rows."""
    vocabulary = items.tables[-1]
    assert vocabulary is not None
    seen = encoded.filter(pl.col(TRAINING) & (pl.col(ITEM_ID) >= FIRST_ID))
    last_seen = pl.lit(None, dtype=TIME).first().alias(LAST_SEEN)
    if dated:
        # Looking up each item's last moment costs half of what sorting all rows by time does.
        last_seen = pl.col(TIMESTAMP).max().alias(LAST_SEEN)
        moments = seen.group_by(ITEM_ID).agg(last_seen)
        seen = seen.join(moments, on=ITEM_ID, how="left", maintain_order="left")
        seen = seen.filter(pl.col(TIMESTAMP) == pl.col(LAST_SEEN))
    latest = seen.group_by(ITEM_ID).agg(last_seen, *(pl.col(name).last() for name in side))
    joined = vocabulary.lazy().join(latest, left_on=ID, right_on=ITEM_ID, how="left", maintain_order="left")
    return joined.select(ID, VALUE, COUNT, LAST_SEEN, *side)


def write_sessions(sessions: pl.DataFrame, folder: Path) -> dict[str, int]:
    """Write one file a day; returns the number of sessions of each day, in order."""
    counts = collect(sessions.lazy().group_by(DAY, maintain_order=True).len()).rows()
    written, start = {}, 0
    for day, count in counts:
        name = str(day or UNDATED)
        part = sessions.slice(start, count).drop(DAY)
        _write(part, folder / "sessions" / f"{DAY}={name}" / "part-0.parquet")
        written[name], start = count, start + count
    return written


def write_quarantine(bad: pl.DataFrame, folder: Path) -> None:
    """Write the bad rows, if there are any."""
    if bad.height:
        _write(bad, folder / "quarantine" / "part-0.parquet")


def write_features(dataset: Dataset, fitted: list[Fitted], items: pl.DataFrame, folder: Path) -> None:
    """Write schema.json, encoders.json, items.parquet and the tables encoders learnt."""
    for one in fitted:
        for place, table in enumerate(one.tables):
            file = one.chain.table_file(place)
            if table is not None and file:
                _write(table, folder / file)
    _write(items, folder / "items.parquet")
    (folder / "encoders.json").write_text(json.dumps(describe(fitted), indent=2) + "\n")
    feature_schema(dataset, fitted).write(folder / "schema.json")


def _write(table: pl.DataFrame, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Level 3 saves 4-9 % of the bytes for a quarter more of the writing time.
    table.write_parquet(file, compression="zstd", compression_level=1)
