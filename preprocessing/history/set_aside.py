"""Rows that no day is made of, for quarantine: those that come too late, and those of files without a usable day."""

from __future__ import annotations

import polars as pl

from preprocessing.execution.run import Run
from preprocessing.frames import collect
from preprocessing.history.changes import SetAside
from preprocessing.plan import plan_of
from preprocessing.sessions import EVENT_DAY, KEY, ONE_BATCH
from schemas.columns import DAY, RULE

TOO_LATE, NO_DAY = "too_late", "no_usable_day"


def quarantine_rows(run: Run, aside: list[SetAside]) -> pl.DataFrame:
    """These rows as they are in the source, with `rule`."""
    return pl.concat([_rows(run, one) for one in aside], how="diagonal_relaxed")


def _rows(run: Run, aside: SetAside) -> pl.DataFrame:
    raw = aside.frame.drop(KEY) if aside.frame is not None else run.source.set_aside(aside.path, aside.day, aside.skip)
    plan = plan_of(run.dataset.model_dump_json(), tuple(raw.schema.items()), run.reads)
    rows = plan.read(raw.lazy().with_columns(pl.lit(ONE_BATCH).alias(EVENT_DAY)))
    marked = plan.rules.mark(rows, run.source.now)
    named = plan.rules.as_found(marked).drop(EVENT_DAY)
    rule = pl.lit(TOO_LATE) if aside.day else pl.col(RULE).fill_null(NO_DAY)
    return collect(named.with_columns(rule.alias(RULE)))


def hashes(aside: list[SetAside]) -> pl.DataFrame:
    """Of rows that have a day: the day, and the hash of each."""
    known = [
        rows.frame.select(pl.lit(rows.day).alias(DAY), KEY) for rows in aside if rows.day and rows.frame is not None
    ]
    return pl.concat([pl.DataFrame(schema={DAY: pl.Date, KEY: pl.UInt64}), *known])


def in_words(aside: SetAside, *, now: bool) -> str:
    """One line for people; `now`: whether a day is done in whose quarantine they are kept."""
    rows = f"{aside.rows:,} rows of {aside.path}"
    kept = "are kept in quarantine" if now else "will be kept in quarantine with the next new day"
    if aside.day is None:
        return f"{rows} have no usable time; they {kept}."
    return (
        f"{rows} are of {aside.day}, which is finished and which the source no longer holds whole: they come too late, and "
        f"{kept} as {TOO_LATE}."
    )
