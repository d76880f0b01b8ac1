"""States of a line: before a day, and folded from the statistics of days."""

from __future__ import annotations

from datetime import date

import polars as pl

from preprocessing.encoders.category import Category
from preprocessing.execution.batch import Run
from preprocessing.features.chains import Chain, Knowledge, learners
from preprocessing.features.state import State
from preprocessing.history.ledger import Ledger
from preprocessing.output import items
from preprocessing.vocabulary import ADMITTED, recount
from schemas.artifacts import Artifacts, identify
from schemas.columns import COUNT, DAY, ID, VALUE
from schemas.errors import InputError


def state_before(run: Run, ledger: Ledger, day: date) -> tuple[str, State]:
    """The state before a day and its name: as it was kept, else as the statistics of the days before it give it.

    Raises:
        InputError: when it was not kept and statistics are lost.
    """
    name = ledger.state_before(day)
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
    return name, as_of(run.artifacts, ledger, run.plan.chains, day)


def as_of(artifacts: Artifacts, ledger: Ledger, chains: list[Chain], day: date) -> State:
    """What the days before `day` give: ids as they are now, of values that were admitted before `day`."""
    known = State.read(artifacts, ledger.about.state)
    fitted = fold(chains, all_statistics(artifacts, ledger), pl.col(DAY) < day, known.fitted)
    for name, encoder in learners(chains).items():
        if isinstance(encoder, Category):
            # Ids have no gaps: a day that was done again may have been given ids after those of later days.
            is_known = pl.col(ID) <= pl.col(ID).filter(pl.col(ADMITTED) < day).max()
            fitted[name] = (
                fitted[name]
                .filter(is_known | (pl.col(COUNT) > 0))
                .with_columns(pl.when(is_known).then(pl.col(column)) for column in (ID, ADMITTED))
                .sort(ID, VALUE, nulls_last=True)
            )
    latest = [
        table.filter(pl.col(DAY) < day).drop(DAY)
        for state in ledger.days["statistics"].unique(maintain_order=True)
        if (table := State.read(artifacts, state).items_by_day) is not None
    ]
    return State(fitted, {}, items.merge_items(latest, items.side_features(chains)) if latest else None)


def all_statistics(artifacts: Artifacts, ledger: Ledger) -> Knowledge:
    """The statistics of every finished day, with the column `day`, by the name of the state they go into."""
    parts: dict[str, list[pl.DataFrame]] = {}
    by_state = ledger.days.group_by("statistics", maintain_order=True).agg(DAY)
    for name, days in by_state.iter_rows():
        for key, table in State.read(artifacts, name).of_days(days).items():
            parts.setdefault(key, []).append(table)
    return {key: pl.concat(tables, how="vertical_relaxed") for key, tables in parts.items()}


def fold(chains: list[Chain], statistics: Knowledge, days: pl.Expr, known: Knowledge) -> Knowledge:
    """What is fitted to some days together; ids are those of `known`, and what does not depend on days stays."""
    encoders, folded = learners(chains), dict(known)
    for name, table in statistics.items():
        chosen, encoder = table.filter(days), encoders[name]
        if isinstance(encoder, Category):
            folded[name] = recount(known[name], chosen)
        elif chosen.height:
            folded[name] = encoder.merge(None, chosen)
        else:
            folded.pop(name, None)
    return folded
