"""Publish finished days: the snapshot `sessions/<id>` of a window of them, with the state before the day tested on."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import polars as pl

from preprocessing import account as accounts
from preprocessing.execution.run import Run
from preprocessing.history.days import Days
from preprocessing.history.ledger import Ledger, files_of
from preprocessing.history.states import state_before
from preprocessing.history.whole import Whole
from preprocessing.output.day import QUARANTINE
from preprocessing.output.snapshot import KIND, Snapshot
from preprocessing.sessions import Window
from preprocessing.source.index import PATH, ROWS
from preprocessing.vocabulary import highest
from schemas.artifacts import Manifest, identify
from schemas.columns import DAY, FIRST_ID, ITEM_ID
from schemas.errors import InputError


def publish_days(days: Days, window: Window) -> Manifest:
    """The days of a window, up to the one tested on.

    Raises:
        InputError: when no session is there to test on, or none to train on.
    """
    assert window.last
    run, ledger, first = days.run, days.ledger, window.first or date.min
    rows = ledger.days.filter(pl.col(DAY).is_between(first, window.last) & ~pl.col(DAY).is_in(list(days.missing)))
    state_name, state = state_before(run, ledger, window.last)
    snapshot = Snapshot(
        dataset=run.dataset,
        features=run.plan.features,
        days=rows,
        state=state,
        test_day=str(window.last),
        outside=_rows_outside(run, ledger, rows),
        missing_days=tuple(str(day) for day in sorted(days.missing) if first <= day <= window.last),
        left_out=tuple(run.source.files.left_out),
        without_quarantine=_without_quarantine(run, rows),
    )
    sessions = dict(rows.select(DAY, "sessions").rows())
    if not sessions.get(window.last):
        raise InputError(f"No session ends on the test day {window.last}; give another. {_in_words(snapshot)}")
    if not any(count for day, count in sessions.items() if day < window.last):
        raise InputError(f"No session to train on is left before the test day {window.last}: {_in_words(snapshot)}")
    asked = {"until": str(window.last), "days": [str(first), str(window.last)] if window.first else None}
    return _written(run, snapshot, state_name, ledger.about.line, asked)


def publish_whole(whole: Whole, window: Window) -> Manifest:
    """All sessions of a dataset that is taken whole: the last item of each is to be tested on."""
    run = whole.run
    left_out = tuple(run.source.files.left_out)
    snapshot = Snapshot(run.dataset, run.plan.features, whole.row, whole.state, None, 0, left_out=left_out)
    snapshot = replace(snapshot, outside=run.source.index.rows - accounts.total(snapshot.account, accounts.READ))
    asked = {"first": str(window.first) if window.first else None, "last": str(window.last) if window.last else None}
    return _written(run, snapshot, str(whole.row["artifact"][0]), whole.line, asked)


def _written(run: Run, snapshot: Snapshot, state_name: str, line: str, asked: dict[str, Any]) -> Manifest:
    if highest(snapshot.state.fitted[ITEM_ID]) < FIRST_ID:
        encoder = snapshot.features[0].encoders[0]
        raise InputError(f"No item is seen often enough to be known: features.item_id is {encoder!r}; lower min_count.")
    parents = tuple(snapshot.days["artifact"])
    about = {"state": state_name, "missing": snapshot.missing_days, "left_out": snapshot.left_out, **asked}
    if snapshot.without_quarantine:
        about["without_quarantine"] = snapshot.without_quarantine
    snapshot_id = identify(code=line, parents=parents, **about)
    if found := run.artifacts.find(KIND, snapshot_id):
        run.say(f"sessions of {run.dataset.name} are there already: {found.folder}")
        return found
    words = run.dataset.model_dump(mode="json", exclude={"source"}, exclude_defaults=True)
    with run.phase("publish") as said:
        manifest = snapshot.write(run.artifacts, snapshot_id, {"dataset": words, **asked}, run.seconds)
        said(f"{manifest.facts['sessions']:,} sessions of {len(manifest.facts['days']):,} days in {manifest.folder}")
    return manifest


def _without_quarantine(run: Run, days: pl.DataFrame) -> tuple[str, ...]:
    """The days whose quarantine is lost or damaged, and could not be put back; the run says so."""
    lost = []
    for row in days.iter_rows(named=True):
        file = next((file for file in files_of(row) if file.path == QUARANTINE), None)
        place = run.artifacts.root / row["artifact"] / QUARANTINE
        if file and not file.is_at(place):
            lost.append(str(row[DAY]))
            run.say(
                f"{row[DAY]}: its {QUARANTINE} is missing or damaged, and the source no longer holds all of its events: what "
                f"is published has the day without its bad rows. Restore {place} from a backup."
            )
    return tuple(lost)


def _rows_outside(run: Run, ledger: Ledger, days: pl.DataFrame) -> int:
    """Rows of the source that none of these days was made of."""
    index = run.source.index
    made = ledger.parts().filter(pl.col("finished").is_in(days[DAY].implode()))
    made = made.group_by(PATH, DAY).agg(pl.col(ROWS).sum().alias("made"))
    day = pl.when(index.usable).then(DAY).alias(DAY)
    there = index.table.select(PATH, day, ROWS).group_by(PATH, DAY).agg(pl.col(ROWS).sum())
    both = there.join(made, on=[PATH, DAY], how="left", nulls_equal=True)
    return int(both.select((pl.col(ROWS) - pl.min_horizontal(ROWS, pl.col("made").fill_null(0))).sum()).item())


def _in_words(snapshot: Snapshot) -> str:
    return accounts.in_words(snapshot.account.with_columns(pl.lit(None, dtype=pl.Date).alias(DAY)))
