"""Rows on their way through a plan, counted by day wherever some may be dropped; and the account made of these counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from preprocessing.account import DROPPED, NULLED, QUARANTINED, READ, Account, count_rows
from preprocessing.frames import collect
from preprocessing.sessions import EVENT_DAY
from schemas.columns import COUNT, DAY, RULE
from schemas.errors import InputError

STAGE, PASSES, STAYS = "stage", "passes all", "stays"


@dataclass(frozen=True)
class Drop:
    """What may drop rows, and the stages at which these are counted."""

    name: str
    before: int
    after: int | None
    """None: `before` counts what is dropped."""


class Flow:
    """Rows on their way, and plans that count them by day wherever some may be dropped."""

    def __init__(self, rows: pl.LazyFrame, *, eager: bool = False) -> None:
        """`eager`: rows that several plans go on from are made at once, on a CPU, where threads would wait for each other."""
        self.rows = rows
        self._eager = eager
        self.day = EVENT_DAY  # the column that says to which day a row counts
        self.counts: list[pl.LazyFrame] = []
        self.drops: list[Drop] = []
        self._stage: int | None = None  # of the rows as they are, if they are counted

    def change(self, rows: pl.LazyFrame, day: str) -> None:
        """Go on with other rows, which count to other days."""
        # Several plans go on from here, and the optimiser does not see that they all begin alike.
        self.rows, self.day, self._stage = self._shared(rows), day, None

    def through(self, name: str, step: Callable[[pl.LazyFrame], pl.LazyFrame]) -> None:
        """Apply what may drop rows or change columns."""
        before = self._stage if self._stage is not None else self._count(self.rows)
        self.rows = self._shared(step(self.rows))
        self._stage = self._count(self.rows)
        self.drops.append(Drop(name, before, self._stage))

    def dropped(self, name: str, days: pl.DataFrame) -> None:
        """Enter rows that were dropped already, by their days."""
        stage = pl.lit(len(self.counts), dtype=pl.Int32).alias(STAGE)
        self.drops.append(Drop(name, len(self.counts), None))
        self.counts.append(count_rows(days, self.day).lazy().select(stage, DAY, COUNT))

    def keep(self, filters: dict[str, pl.Expr], inside: pl.Expr | None = None, drop: tuple[str, ...] = ()) -> None:
        """Keep rows that pass all filters, in one go; what a filter drops is counted for it if those before let it pass.

        Rows that are not `inside` are dropped uncounted. Columns `drop` are needed no longer.
        """
        passed = inside if inside is not None else pl.lit(True)
        columns: dict[str, pl.Expr] = {}
        stages: dict[int, str] = {}
        for name, kept in filters.items():
            stages[len(self.counts) + len(stages)] = name
            columns[f"drops {name}"] = passed & ~kept
            passed = passed & kept
        # Columns of their own: a filter that looks at neighbours must see rows before any filter is done.
        rows = self.rows.with_columns(**columns, **{PASSES: passed})
        if filters:
            rows = self._shared(rows)
            for stage, name in stages.items():
                # Few are dropped: to count them costs less than to sum up what all rows say of themselves by day.
                dropped = rows.filter(f"drops {name}").group_by(pl.col(self.day).alias(DAY))
                number = pl.lit(stage, dtype=pl.Int32).alias(STAGE)
                self.counts.append(dropped.agg(pl.len().cast(pl.Int64).alias(COUNT)).select(number, DAY, COUNT))
                self.drops.append(Drop(name, stage, None))
        if self._eager:  # column by column: of a filter over rows, each thread leaves a part
            left = rows.select(pl.exclude(PASSES, *columns, *drop).filter(PASSES))
        else:  # Polars 1.44 panics where a filter is all that follows upon rows that are shared; here it is not
            left = rows.with_columns(pl.col(PASSES).alias(STAYS)).filter(STAYS).drop(PASSES, STAYS, *columns, *drop)
        self.change(left, self.day)

    def _shared(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        # A shift leaves a column in two parts, and what is compared with it or filtered by it is cut likewise, at many times
        # the cost.
        return collect(rows).rechunk().lazy() if self._eager else rows.cache()

    def _count(self, rows: pl.LazyFrame) -> int:
        stage = pl.lit(len(self.counts), dtype=pl.Int32).alias(STAGE)
        counts = rows.group_by(pl.col(self.day).alias(DAY)).agg(pl.len().cast(pl.Int64).alias(COUNT))
        self.counts.append(counts.select(stage, DAY, COUNT))
        return len(self.counts) - 1


def account_of(
    raw: pl.DataFrame, bad: pl.DataFrame, nulled: pl.DataFrame | None, counts: pl.DataFrame, drops: list[Drop]
) -> Account:
    """Where the rows of a bucket went, but for those that are kept.

    Raises:
        InputError: when a step made more rows than there were.
    """
    account = Account()
    account.add(READ, count_rows(raw, EVENT_DAY))
    for (rule,), rows in bad.partition_by(RULE, as_dict=True).items():
        account.add(QUARANTINED, count_rows(rows, EVENT_DAY), str(rule))
    for (rule,), rows in (nulled.partition_by(RULE, as_dict=True) if nulled is not None else {}).items():
        account.add(NULLED, rows.rename({EVENT_DAY: DAY}), str(rule))
    of_stage = {stage: rows for (stage,), rows in counts.partition_by(STAGE, as_dict=True).items()}
    none = counts.clear()
    for drop in drops:
        before = of_stage.get(drop.before, none)
        after = none if drop.after is None else of_stage.get(drop.after, none)
        was, left = (int(rows[COUNT].sum()) for rows in (before, after))
        if left > was:
            raise InputError(f"step {drop.name} made {left:,} rows of {was:,}; a step may only drop rows.")
        if left < was:
            account.add(DROPPED, before, drop.name)
            account.add(DROPPED, after, drop.name, sign=-1)
    return account
