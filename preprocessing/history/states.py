"""States of a line: before a day, and folded from the statistics of days."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from preprocessing.encoders.category import Category
from preprocessing.execution.batch import Batch
from preprocessing.execution.run import Run
from preprocessing.features.feature import Feature
from preprocessing.features.state import (
    KIND,
    FeatureState,
    State,
    Statistics,
    encoders_by_state,
    state_as_of,
    without_day,
)
from preprocessing.history.later import Later
from preprocessing.history.ledger import Ledger
from preprocessing.output import items
from preprocessing.vocabulary import recount
from schemas.artifacts import Artifacts, identify
from schemas.columns import COUNT, DAY, VALUE
from schemas.errors import InputError


def write_states(batch: Batch, before: str, after: str, days: Sequence[date], previous: str, later: Later) -> None:
    """Write the states before the newest of a batch's days and after it, by their names; no name, no state before.

    `previous` is the state before the batch.
    """
    listed, artifacts = [str(day) for day in days], batch.run.artifacts
    batch.run.written = {f"{KIND}/{after}": batch.after}
    if before:
        batch.run.written[f"{KIND}/{before}"] = batch.before
        earlier = [day for day in listed if day < str(batch.newest)]
        later(batch.before.write, artifacts, before, {"days": earlier, "previous": previous})
        listed, previous = listed[len(earlier) :], f"{KIND}/{before}"
    later(batch.after.write, artifacts, after, {"days": listed, "previous": previous})


def state_before(run: Run, ledger: Ledger, day: date) -> tuple[str, State]:
    """The state before a day and its name: as it was kept, else as the statistics of the days before it give it.

    Raises:
        InputError: when it was not kept and statistics are lost.
    """
    name = ledger.state_before(day)
    if name in run.written:
        return name, run.written[name]
    if name:
        try:
            return name, State.read(run.artifacts, name)
        except InputError:
            pass  # damaged: folded anew below
    row = ledger.row(day)
    if row is None or not ledger.about.state:
        return "", State()
    earlier = ledger.days.filter(pl.col(DAY) < day)
    name = f"as-of/{identify(code='', day=day, days=earlier['artifact'].to_list())}"
    return name, as_of(run.artifacts, ledger, run.plan.features, day, run.start().fitted)


def as_of(artifacts: Artifacts, ledger: Ledger, features: list[Feature], day: date, start: FeatureState) -> State:
    """What the days before `day` give: ids as they are now, of values that were admitted before `day`."""
    known = State.read(artifacts, ledger.about.state)
    fitted = state_as_of(features, day, all_statistics(artifacts, ledger), known.fitted, start)
    latest = [
        table.filter(pl.col(DAY) < day).drop(DAY)
        for state in ledger.days["statistics"].unique(maintain_order=True)
        if (table := State.read(artifacts, state).items_by_day) is not None
    ]
    return State(fitted, {}, items.merge_items(latest, items.side_features(features)) if latest else None)


def all_statistics(artifacts: Artifacts, ledger: Ledger) -> Statistics:
    """The statistics of every finished day, with the column `day`, by the name of the state they go into."""
    parts: dict[str, list[pl.DataFrame]] = {}
    by_state = ledger.days.group_by("statistics", maintain_order=True).agg(DAY)
    for name, days in by_state.iter_rows():
        for key, table in State.read(artifacts, name).statistics_of(days).items():
            parts.setdefault(key, []).append(table)
    return {key: pl.concat(tables, how="vertical_relaxed") for key, tables in parts.items()}


def states_without(run: Run, ledger: Ledger, day: date, known: State) -> tuple[FeatureState, FeatureState]:
    """What is fitted to the days before a day, and to all days but this one, with the ids of now.

    Raises:
        InputError: when statistics of days are lost.
    """
    features = run.plan.features
    row = ledger.row(day)
    if row and row["before"] and day == ledger.days[DAY].max():
        try:
            before = State.read(run.artifacts, row["before"]).fitted
        except InputError:
            pass  # damaged: folded anew below
        else:
            return before, _with_ids(features, before, known)
    statistics, start = all_statistics(run.artifacts, ledger), run.start().fitted
    earlier = state_as_of(features, day, statistics, known.fitted, start)
    return earlier, without_day(features, day, statistics, known.fitted, start)


def _with_ids(features: list[Feature], fitted: FeatureState, known: State) -> FeatureState:
    """An earlier state with the ids of now, and what does not depend on days as it is now."""
    encoders, now = encoders_by_state(features), dict(known.fitted)
    for name, table in known.fitted.items():
        encoder = encoders.get(name)
        if isinstance(encoder, Category):
            counted = fitted[name].select(VALUE, COUNT) if name in fitted else table.select(VALUE, COUNT).clear()
            now[name] = recount(table, counted)
        elif encoder is not None and encoder.by_day:
            if name in fitted:
                now[name] = fitted[name]
            else:
                now.pop(name)
    return now
