"""What every step obeys: it drops rows and adds columns, for each user and day alone, whatever the order of rows."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from polars.testing import assert_frame_equal

from flows.laws import Law, require
from flows.laws.sample import SEEDS, Columns, columns_for, dataset_of, events_of, sessions_of
from preprocessing.sessions import SESSION_INDEX, local_day
from preprocessing.steps import NEEDED, Step
from schemas.columns import SESSION_ID, TIMESTAMP, USER_ID
from schemas.dataset import Dataset

DAY_OF_EVENT = "law's day"


@dataclass(frozen=True)
class Trial:
    """A step as a dataset names it, and the columns of the events it is tried with."""

    step: Step
    dataset: Dataset
    columns: Columns

    @classmethod
    def of(cls, step: Step, columns: Columns, dataset: Dataset | None = None) -> Trial:
        """A step bound to a dataset (else to one with these columns), with the further columns it asks for.

        Raises:
            NotTriedError: when it fits no columns.
        """
        whole = {"split": "leave_one_out"} if step.needs_all_rows else {}

        def bound(wanted: Columns) -> Trial:
            ours = dataset or dataset_of(wanted, **whole)
            return cls(step.bind(ours), ours, wanted)

        def attempt(wanted: Columns) -> None:
            trial = bound(wanted)
            trial.apply(trial.rows(0))

        return bound(columns_for(attempt, columns))

    @property
    def keys(self) -> list[str]:
        """The columns no step may change, of those there are; together they tell rows apart."""
        return [name for name in NEEDED if name in self.columns]

    @property
    def user(self) -> str:
        """What rows are divided by."""
        return USER_ID if USER_ID in self.columns else SESSION_ID

    def rows(self, seed: int) -> pl.DataFrame:
        """Events as the step gets them."""
        events = self.step.read(events_of(self.columns, seed).lazy()).collect()
        return sessions_of(events, self.dataset) if self.step.needs_sessions else events

    def apply(self, rows: pl.DataFrame) -> pl.DataFrame:
        """What the step leaves."""
        return self.step.apply(rows.lazy()).collect()

    def same(self, rows: pl.DataFrame, others: pl.DataFrame) -> str:
        """How two results differ, whatever their order; empty where they do not."""
        if rows.height != others.height:
            return f"{others.height:,} rows instead of {rows.height:,}"
        try:
            assert_frame_equal(rows.sort(self.keys), others.sort(self.keys), rel_tol=1e-6, abs_tol=1e-9)
        except AssertionError as difference:
            return str(difference).partition("\n")[0]
        return ""


def keeps_ids_and_times(trial: Trial) -> None:
    """Ids, times and positions stay as they are, in rows that were there before; columns may be added, rows dropped."""
    for seed in SEEDS:
        before = trial.rows(seed)
        after = trial.apply(before)
        for name in trial.keys:
            require(name in after.columns, f"It takes {name} away.")
            require(after.schema[name] == before.schema[name], f"It makes {after.schema[name]} of {name}.")
        new = after.select(trial.keys).join(before.select(trial.keys).unique(), on=trial.keys, how="anti")
        require(new.is_empty(), f"It makes a row {new.head(1).to_dicts()} that was not there.")
        twice = after.height - after.select(trial.keys).n_unique()
        require(not twice, f"It makes {twice} rows more than there were.")


def takes_no_events(trial: Trial) -> None:
    """No events at all give no events with the columns that it gives otherwise."""
    rows = trial.rows(0)
    nothing = trial.apply(rows.clear())
    require(nothing.is_empty(), f"It makes {nothing.height} rows of none.")
    schema = trial.apply(rows).schema
    require(nothing.schema == schema, f"{dict(nothing.schema)} instead of {dict(schema)}.")


def is_the_same_every_time(trial: Trial) -> None:
    """The same events give the same result every time."""
    for seed in SEEDS:
        rows = trial.rows(seed)
        require(not (other := trial.same(trial.apply(rows), trial.apply(rows))), f"The second time it gives {other}.")


def order_changes_nothing(trial: Trial) -> None:
    """The order in which events come changes nothing; after sessions are cut, it stays."""
    for seed in SEEDS:
        rows = trial.rows(seed)
        left = trial.apply(rows)
        if trial.step.needs_sessions:
            there = rows.select(trial.keys).join(left, on=trial.keys, how="semi", maintain_order="left")
            require(left.select(trial.keys).equals(there), "Rows come out in another order than they went in.")
            continue
        for again in (1, 2):
            other = trial.same(left, trial.apply(rows.sample(fraction=1, shuffle=True, seed=again)))
            require(not other, f"In another order: {other}.")


def other_users_change_nothing(trial: Trial) -> None:
    """Events of other users change nothing (or `needs_all_rows` says so): workers share users out."""
    if not trial.step.needs_all_rows:
        _in_parts(trial, pl.col(trial.user), "User by user")


def other_days_change_nothing(trial: Trial) -> None:
    """Events of other days, and after sessions are cut of other sessions, change nothing: nights come one by one."""
    if trial.step.needs_all_rows:
        return
    if trial.step.needs_sessions:
        _in_parts(trial, pl.col(SESSION_INDEX), "Session by session")
    elif TIMESTAMP in trial.columns:
        _in_parts(trial, local_day(pl.col(TIMESTAMP), trial.dataset.time_zone), "Day by day")


def reading_keeps_rows(trial: Trial) -> None:
    """What it does as events are read (`read`) keeps every row in its place."""
    for seed in SEEDS:
        events = events_of(trial.columns, seed)
        read = trial.step.read(events.lazy()).collect()
        require(read.height == events.height, f"It makes {read.height} rows of {events.height}.")
        for name in trial.keys:
            require(name in read.columns, f"It takes {name} away.")
        backwards = trial.step.read(events.reverse().lazy()).collect().reverse()
        require(read.equals(backwards), "Read in another order, rows differ.")


LAWS: tuple[Law, ...] = (
    keeps_ids_and_times,
    takes_no_events,
    is_the_same_every_time,
    order_changes_nothing,
    other_users_change_nothing,
    other_days_change_nothing,
    reading_keeps_rows,
)


def _in_parts(trial: Trial, by: pl.Expr, how: str) -> None:
    for seed in SEEDS:
        rows = trial.rows(seed)
        numbered = rows.with_columns(by.alias(DAY_OF_EVENT))
        groups = numbered.partition_by(DAY_OF_EVENT, maintain_order=True, include_key=False)
        parts = pl.concat([trial.apply(part) for part in groups], how="vertical_relaxed")
        require(not (other := trial.same(trial.apply(rows), parts)), f"{how}: {other}.")
