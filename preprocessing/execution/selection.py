"""Which rows of event files are those of a batch, as data: a task in another process applies it to its bucket of them."""

from __future__ import annotations

from datetime import date

import polars as pl
from pydantic import BaseModel, ConfigDict

from preprocessing.sessions import EVENT_DAY, ONE_BATCH, Window
from preprocessing.source.canonical import FILE
from preprocessing.source.values import local_day
from schemas.columns import TIMESTAMP


class Selection(BaseModel):
    """Events as they are read -> those of some days, with the column `event day`, without the column FILE."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_zone: str
    by_day: bool
    """False: a dataset that is taken whole; all rows have the day ONE_BATCH."""
    window: Window
    """Of a dataset that is taken whole: days of events that are left out."""
    earliest: date
    today: date
    days: tuple[date, ...] | None
    """The days wanted; None: all rows are."""
    undated: tuple[date | None, ...]
    """By number of file: to which day its rows without a usable day count. Empty: those are left out, of all files."""

    def of(self, events: pl.LazyFrame) -> pl.LazyFrame:
        """Apply it; `events` have the column FILE where files have days for their undated rows."""
        day = local_day(pl.col(TIMESTAMP), self.time_zone)
        if not self.by_day:
            whole = events.with_columns(pl.lit(ONE_BATCH).alias(EVENT_DAY)).drop(FILE, strict=False)
            return whole if self.window == Window() else whole.filter(self.window.holds(day).fill_null(True))
        usable: pl.Expr = pl.when(day.is_between(self.earliest, self.today)).then(day)
        if self.undated:
            usable = pl.coalesce(usable, self._of_files())
        dated = events.with_columns(usable.alias(EVENT_DAY)).drop(FILE, strict=False)
        return dated if self.days is None else dated.filter(pl.col(EVENT_DAY).is_in(list(self.days)))

    def _of_files(self) -> pl.Expr:
        if len(set(self.undated)) == 1:
            return pl.lit(self.undated[0], dtype=pl.Date)
        return pl.col(FILE).replace_strict(list(range(len(self.undated))), list(self.undated), return_dtype=pl.Date)
