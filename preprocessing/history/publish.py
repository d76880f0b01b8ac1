"""Publish finished days: the snapshot `sessions/<id>` of a window of them, with the state before the day tested on."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import polars as pl

from preprocessing import account as accounts
from preprocessing.execution.emptied import in_words
from preprocessing.execution.run import Run
from preprocessing.frames import collect
from preprocessing.history.changes import COUNTED
from preprocessing.history.days import Days
from preprocessing.history.states import state_before
from preprocessing.history.whole import Whole
from preprocessing.output.snapshot import KIND, Snapshot
from preprocessing.sessions import Window
from preprocessing.source.index import ROWS
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
    rows = ledger.between(first, window.last)
    if days.missing:
        rows = rows.filter(~pl.col(DAY).is_in(list(days.missing)))
    state_name, state = state_before(run, ledger, window.last)
    snapshot = Snapshot(
        dataset=run.dataset,
        features=run.plan.features,
        days=rows,
        state=state,
        test_day=str(window.last),
        outside=_rows_outside(days, rows),
        missing_days=tuple(str(day) for day in sorted(days.missing) if first <= day <= window.last),
        left_out=tuple(run.source.files.left_out),
        without_quarantine=tuple(str(day) for day in sorted(days.without_quarantine)),
        held_back=tuple((str(day), why) for day, why in run.source.held_back.items() if day < window.last),
    )
    sessions = dict(rows[[DAY, "sessions"]].rows())
    if not sessions.get(window.last):
        raise InputError(f"No session ends on the test day {window.last}; give another. {_in_words(run, snapshot)}")
    if not any(count for day, count in sessions.items() if day < window.last):
        raise InputError(
            f"No session to train on is left before the test day {window.last}: {_in_words(run, snapshot)}"
        )
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
        if not accounts.total(snapshot.account, accounts.KEPT):
            raise InputError(f"No session is left: {_in_words(run, snapshot)}")
        encoder = snapshot.features[0].encoders[0]
        held_out = " Of a history the last two events are held out and do not count." * (run.dataset.split != "day")
        raise InputError(
            f"No item is seen often enough to be known: features.item_id is {encoder!r}; lower min_count.{held_out}"
        )
    parents = tuple(snapshot.days["artifact"])
    about = {"state": state_name, "missing": snapshot.missing_days, "left_out": snapshot.left_out, **asked}
    if snapshot.without_quarantine:
        about["without_quarantine"] = snapshot.without_quarantine
    if snapshot.held_back:
        about["held_back"] = [day for day, _ in snapshot.held_back]
    snapshot_id = identify(code=line, parents=parents, **about)
    if found := run.artifacts.find(KIND, snapshot_id):
        run.say(f"sessions of {run.dataset.name} are there already: {found.folder}")
        return found
    words = run.dataset.model_dump(mode="json", exclude={"source"}, exclude_defaults=True)
    with run.phase("publish") as said:
        manifest = snapshot.write(run.artifacts, snapshot_id, {"dataset": words, **asked}, run.seconds)
        said(f"{manifest.facts['sessions']:,} sessions of {len(manifest.facts['days']):,} days in {manifest.folder}")
    return manifest


def _rows_outside(days: Days, published: pl.DataFrame) -> int:
    """Rows of the source that none of the published days was made of; of a day, so many are as there are more."""
    rows = days.run.source.index.rows
    made = days.ledger.parts().lazy().join(published.lazy().select(DAY), left_on="finished", right_on=DAY, how="semi")
    there = days.changes.parts.lazy().group_by(COUNTED).agg(pl.col(ROWS).sum().alias("there"))
    of_days = made.group_by("finished").agg(
        pl.col(ROWS).filter("aside").sum().alias("aside"), pl.col(ROWS).filter(~pl.col("aside")).sum()
    )
    both = of_days.join(there, left_on="finished", right_on=COUNTED, how="left")
    inside = pl.min_horizontal(ROWS, pl.col("there").fill_null(0)) + pl.col("aside")
    return max(0, rows - int(collect(both.select(inside.sum())).item()))


def _in_words(run: Run, snapshot: Snapshot) -> str:
    return in_words(run, snapshot.account.with_columns(pl.lit(None, dtype=pl.Date).alias(DAY)))
