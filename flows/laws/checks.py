"""What every check obeys: a verdict on each row, from the columns it says it looks at, whatever the other rows."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from flows.laws import Law, require
from flows.laws.sample import NOW, SEEDS, Columns, columns_for, dataset_of, events_of
from preprocessing.checks import Check
from preprocessing.checks.base import LOCAL_DAY
from preprocessing.sessions import local_day
from schemas.columns import TIMESTAMP, USER_ID
from schemas.dataset import Dataset

ROW, BAD = "law's row", "bad"


@dataclass(frozen=True)
class Trial:
    """A check as a dataset names it, and the columns of the events it is tried with."""

    check: Check
    dataset: Dataset
    columns: Columns

    @classmethod
    def of(cls, check: Check, columns: Columns, dataset: Dataset | None = None) -> Trial:
        """A check bound to a dataset (else to one with these columns), with the further columns it asks for.

        Raises:
            NotTriedError: when it fits no columns.
        """

        def bound(wanted: Columns) -> Trial:
            ours = dataset or dataset_of(wanted)
            return cls(check.bind(ours, pl.Schema(wanted)), ours, wanted)

        def attempt(wanted: Columns) -> None:
            trial = bound(wanted)
            trial.verdicts(trial.rows(0))

        wanted = columns_for(attempt, columns | {name: pl.Float64 for name in check.looks_at if name not in columns})
        return bound(wanted)

    def rows(self, seed: int) -> pl.DataFrame:
        """Events, numbered, each with the value it is sorted by."""
        return events_of(self.columns, seed).with_row_index(ROW)

    def verdicts(self, rows: pl.DataFrame) -> pl.DataFrame:
        """ROW and whether it is bad, in order of ROW, found as a night does: in the order the check asks for."""
        if self.check.in_order_of:
            day = local_day(pl.col(TIMESTAMP), self.dataset.time_zone) if TIMESTAMP in rows.columns else pl.lit(None)
            others = [name for name, dtype in rows.schema.items() if name != ROW and not dtype.is_nested()]
            keys = dict.fromkeys((USER_ID, LOCAL_DAY, *self.check.in_order_of, *others))
            rows = rows.with_columns(day.alias(LOCAL_DAY)).sort(*keys)
        return rows.lazy().select(ROW, self.check.bad(NOW).fill_null(False).alias(BAD)).collect().sort(ROW)


def says_of_each_row(trial: Trial) -> None:
    """It says of each row whether it is bad: true, or false or null for a good one."""
    for seed in SEEDS:
        rows = trial.rows(seed)
        if not trial.check.in_order_of:
            alone = rows.lazy().select(trial.check.bad(NOW).alias(BAD)).collect()
            require(alone.height == rows.height, f"{alone.height} values for {rows.height} rows; it gives one for all.")
        dtype = trial.verdicts(rows).schema[BAD]
        require(dtype == pl.Boolean, f"It gives {dtype}.")


def says_what_it_looks_at(trial: Trial) -> None:
    """It looks at no column but those of `looks_at`, which are tried before a night and shown of bad rows."""
    sorted_by = {USER_ID, LOCAL_DAY, *trial.check.in_order_of} if trial.check.in_order_of else set()
    others = {*trial.check.bad(NOW).meta.root_names()} - {*trial.check.looks_at} - sorted_by
    require(not others, f"It also looks at {', '.join(sorted(others))}.")


def takes_no_events(trial: Trial) -> None:
    """No events at all are no mistake."""
    require(trial.verdicts(trial.rows(0).clear()).is_empty(), "It makes rows.")


def order_changes_nothing(trial: Trial) -> None:
    """The order in which events come changes nothing."""
    for seed in SEEDS:
        rows = trial.rows(seed)
        shuffled = rows.sample(fraction=1, shuffle=True, seed=1)
        _same(trial, trial.verdicts(rows), trial.verdicts(shuffled), "in another order")


def other_rows_change_nothing(trial: Trial) -> None:
    """Other rows change nothing; with `in_order_of`, rows of other users do not: workers share users out."""
    for seed in SEEDS:
        rows = trial.rows(seed)
        by = USER_ID if trial.check.in_order_of and USER_ID in rows.columns else ROW
        parts = pl.concat([trial.verdicts(part) for part in rows.partition_by(by)]).sort(ROW)
        _same(trial, trial.verdicts(rows), parts, "user by user" if by == USER_ID else "alone")


LAWS: tuple[Law, ...] = (
    says_of_each_row,
    says_what_it_looks_at,
    takes_no_events,
    order_changes_nothing,
    other_rows_change_nothing,
)


def _same(trial: Trial, first: pl.DataFrame, second: pl.DataFrame, how: str) -> None:
    differ = first.join(second, on=ROW, suffix=" then").filter(pl.col(BAD) != pl.col(f"{BAD} then"))
    require(differ.is_empty(), f"{differ.height} of {first.height} rows are judged otherwise {how}.")
