"""Journals -> Parquet, by what it is and by day: clicks/day=2026-03-08/20260308T091500-0a1b2c3d.parquet.

A part is called as its journal is, so that one made again, after a kill in between, takes the place of itself: no event is
there twice. Days are those of the events' own times, in UTC.
"""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl

from modeling.service.tracking.journal import ENDING, Record, Sealed, read, take
from schemas.writing import replace_file, sync

EVENTS, ANSWERS = "events", "answers"  # what a journal holds
JOURNALS = "journals"  # their folder
FOLDERS = {
    EVENTS: {"impression": "impressions", "click": "clicks"},
    ANSWERS: {"": "answers"},
}  # of parts, by type of event
DAMAGED = ".damaged"
TIME = pl.Datetime("us", "UTC")
TEXT = pl.String
SCHEMAS: dict[str, dict[str, pl.DataType | type[pl.DataType]]] = {
    EVENTS: {
        "event_type": TEXT,  # impression or click
        "item_id": TEXT,  # null in an impression of a whole answer
        "user_id": TEXT,
        "session_id": TEXT,
        "timestamp": TIME,  # as it is sent, else `received`
        "received": TIME,
        "recommendation_id": TEXT,
        "position": pl.Int32,
        "model": TEXT,
        "source": TEXT,
    },
    ANSWERS: {
        "recommendation_id": TEXT,
        "timestamp": TIME,
        "model": TEXT,
        "arm": TEXT,  # a, b, or null where no two models are compared
        "against": TEXT,  # the model of the other arm
        "salt": TEXT,
        "user_id": TEXT,
        "session_id": TEXT,
        "items": pl.List(TEXT),
        "sources": pl.List(TEXT),
    },
}
log = logging.getLogger("overnight.api")


def frame(kind: str, records: list[Record]) -> pl.DataFrame:
    """Records of a journal, whose times are microseconds, as a table."""
    schema = SCHEMAS[kind]
    stored = {name: pl.Int64() if dtype == TIME else dtype for name, dtype in schema.items()}
    return pl.DataFrame(records, schema=stored, orient="row").cast(schema)  # type: ignore[arg-type]


def make_parts(folder: Path, sealed: Sealed) -> int:
    """Turn a sealed journal into parts below `folder`, and remove it; how many records it had.

    One with lines that are damaged, or are no such records, stays under another name, for people to look at.
    """
    records, damaged = read(sealed.path)
    try:
        table = frame(sealed.kind, records)
    except (
        pl.exceptions.PolarsError,
        ValueError,
        TypeError,
    ):  # of another version: what comes next is not to wait for it
        table, records, damaged = frame(sealed.kind, []), [], damaged + len(records)
    if records:
        for name, into in FOLDERS[sealed.kind].items():
            of_type = table.filter(pl.col("event_type") == name) if name else table
            for (day,), rows in of_type.group_by(pl.col("timestamp").dt.date(), maintain_order=True):
                _write(rows, folder / into / f"day={day}" / f"{sealed.name}.parquet")
    if damaged:
        kept = sealed.path.with_name(sealed.path.name + DAMAGED)
        log.error("%s: %d lines cannot be read; it stays as %s", sealed.path, damaged, kept.name)
        sealed.path.rename(kept)
    sealed.release(remove=not damaged)
    return len(records)


def recover(folder: Path) -> int:
    """Turn the journals that killed processes left into parts; how many records they had."""
    journals = sorted((folder / JOURNALS).glob(f"*{ENDING}"))
    return sum(make_parts(folder, sealed) for journal in journals if (sealed := take(journal)) is not None)


def _write(rows: pl.DataFrame, file: Path) -> None:
    """A file that is whole or not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, rows.write_parquet)
    sync(file.parent)
    sync(file.parent.parent)
