"""Rows that no day is made of, for quarantine: those that come too late, and those of files without a usable day."""

from __future__ import annotations

from datetime import date

import polars as pl

from preprocessing.execution.run import Run
from preprocessing.frames import collect
from preprocessing.history.changes import SetAside
from preprocessing.plan import plan_of
from preprocessing.sessions import EVENT_DAY, ONE_BATCH
from schemas.columns import RULE

TOO_LATE, NO_DAY = "too_late", "no_usable_day"


def quarantine_rows(run: Run, aside: list[SetAside]) -> pl.DataFrame:
    """These rows as they are in the source, with `rule`."""
    return pl.concat([_rows(run, one) for one in aside], how="diagonal_relaxed")


def _rows(run: Run, aside: SetAside) -> pl.DataFrame:
    raw = run.source.set_aside(aside.path, aside.day, aside.skip)
    plan = plan_of(run.dataset.model_dump_json(), tuple(raw.schema.items()), run.reads)
    rows = plan.read(raw.lazy().with_columns(pl.lit(ONE_BATCH).alias(EVENT_DAY)))
    marked = plan.rules.mark(rows, run.source.now)
    named = plan.rules.as_found(marked).drop(EVENT_DAY)
    rule = pl.lit(TOO_LATE) if aside.day else pl.col(RULE).fill_null(NO_DAY)
    return collect(named.with_columns(rule.alias(RULE)))


def in_words(aside: SetAside) -> str:
    """One line for people."""
    rows = f"{aside.rows:,} rows of {aside.path}"
    if aside.day is None:
        return f"{rows} have no usable time; they are counted and kept in quarantine with the next day that is done."
    return (
        f"{rows} are of {_day(aside.day)}, which is finished and which the source no longer holds whole: they come too late, "
        f"and are kept in quarantine as {TOO_LATE}."
    )


def _day(day: date) -> str:
    return day.isoformat()
