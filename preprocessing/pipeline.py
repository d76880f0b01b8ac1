"""Prepare a dataset: events in; sessions by day, vocabularies and a feature schema out; only days that are not finished yet.

    index -> plan -> read -> clean -> fit -> encode -> commit -> publish

Every row is accounted for: rows read + carried in = kept + in quarantine + dropped, by name, + still open.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from preprocessing import account as accounts
from preprocessing.engines import EngineName, engine_of
from preprocessing.execution.batch import Run, Workers
from preprocessing.execution.reading import Source
from preprocessing.features.uses import with_text_types
from preprocessing.history import late_items
from preprocessing.history.batches import Days
from preprocessing.history.changes import COUNTED, Changes, find_changes
from preprocessing.history.damage import damaged_days, restore_state
from preprocessing.history.ledger import Ledger
from preprocessing.history.lines import check_source, days_in_words, introduce, line_of
from preprocessing.history.restore import from_snapshots
from preprocessing.history.set_aside import in_words
from preprocessing.history.states import state_before
from preprocessing.history.whole import whole_day
from preprocessing.history.window import Window, choose_window
from preprocessing.output.day import SESSIONS
from preprocessing.output.snapshot import KIND, Snapshot
from preprocessing.plan import build_steps
from preprocessing.source.index import PATH, ROWS
from preprocessing.vocabulary import highest
from schemas.artifacts import Artifacts, Manifest, identify
from schemas.columns import DAY, FIRST_ID, ITEM_ID
from schemas.dataset import Dataset
from schemas.errors import InputError
from schemas.progress import Progress, Report


def prepare(
    artifacts: Artifacts,
    dataset: Dataset,
    *,
    until: date | None = None,
    days: int | None = None,
    redo: tuple[date, date] | None = None,
    verify: bool = False,
    engine: EngineName = "cpu",
    workers: Workers = Workers(),  # noqa: B008  (frozen)
    progress: Report = print,
    now: datetime | None = None,
) -> Manifest:
    """Sessions of `dataset` up to the test day `until` (the last full day if left out), of its last `days` days.

    Days that are finished are not done again unless their events have changed and the source still holds them whole. `redo`
    (first, last) does finished days again on purpose; `verify` reads all that is finished and mends what is damaged, where
    else sizes and times of writing are compared. `now` is for tests.

    Raises:
        InputError: for a source, a dataset or days that do not fit; what was done before stays.
    """
    dataset = with_text_types(dataset)
    engine_of(engine)  # a GPU that is not there is named before any work
    secrets = tuple(step.secret for _, step in build_steps(dataset))
    line = line_of(dataset, secrets)
    with artifacts.unfinished(line) as scratch:
        ledger = Ledger.read(artifacts, line)
        source = _index(artifacts, dataset, line, ledger, now or datetime.now(UTC), progress)
        run = Run(artifacts, dataset, source, scratch, engine, workers, progress, secrets)
        run.plan  # noqa: B018  (what does not fit is said before a row is read)
        if dataset.split != "day":
            return _publish_whole(run, line, until, days)
        changes = find_changes(source.index, ledger, dataset.since)
        check_source(ledger, dataset, changes)
        introduce(artifacts, ledger, dataset, changes, run.say)
        counts = ledger.rows_by_day() | _rows_by_day(changes)
        window = choose_window(counts, source.index.rows, dataset, source.now, until, days, source.unread_times)
        missing = _bring_up_to_date(run, ledger, changes, window, redo, verify)
        return _publish(run, ledger, window, missing)


def _index(
    artifacts: Artifacts, dataset: Dataset, line: str, ledger: Ledger, now: datetime, progress: Report
) -> Source:
    """Which days' events every file holds; only files that are new or changed are opened."""
    progress(Progress("index", 0, 1))
    source = Source.open(dataset, artifacts.root / "inventories" / f"{line}.parquet", ledger.types, now)
    files, rows = len(source.files.files), source.index.rows
    progress(Progress("index", 1, 1, f"{rows:,} rows in {files:,} {'file' if files == 1 else 'files'}"))
    return source


def _bring_up_to_date(
    run: Run, ledger: Ledger, changes: Changes, window: Window, redo: tuple[date, date] | None, verify: bool
) -> dict[date, list[str]]:
    """Read, clean, fit, encode and commit what is to be done; returns the finished days that are lost, source and all."""
    assert window.last
    restore_state(run, ledger, changes)
    work = Days(run, ledger, changes)
    missing = _mend(run, ledger, changes, work, verify)
    again, why = set(changes.changed), dict[date, str]()
    for day, reason in late_items.days_to_do_again(run, ledger, changes).items():
        again.add(day)
        why.setdefault(day, reason)
    if redo:
        asked = _asked_for(ledger, changes, redo)
        again |= asked
        why |= dict.fromkeys(asked, "it was asked for")
    for aside in (*changes.late, *changes.undated):
        run.say(in_words(aside))
    work.do_again(again, why)
    if ledger.about.until is None or window.last > ledger.about.until:
        work.do_new(window.last)
    return missing


def _mend(run: Run, ledger: Ledger, changes: Changes, work: Days, verify: bool) -> dict[date, list[str]]:
    """Put back or do again the finished days whose files are lost or damaged; returns those that can be neither."""
    missing: dict[date, list[str]] = {}
    for day, files in damaged_days(run.artifacts, ledger, contents=verify).items():
        row = ledger.row(day)
        assert row is not None
        if snapshot := from_snapshots(run.artifacts, row, files):
            run.say(f"{day}: its {', '.join(files)} was missing or damaged; put back from {snapshot}.")
        elif day in changes.held:
            work.mend(day, files)
        elif any(path.startswith(SESSIONS) for path in files):
            missing[day] = files
            run.say(
                f"{day}: its {', '.join(files)} is missing or damaged, and the source no longer holds all of its events: the "
                "day is missing from what follows. Restore the file from a backup."
            )
    return missing


def _asked_for(ledger: Ledger, changes: Changes, redo: tuple[date, date]) -> set[date]:
    first, last = redo
    asked = set(ledger.days.filter(pl.col(DAY).is_between(first, last))[DAY])
    if not asked:
        finished = ledger.days[DAY]
        there = (
            f"finished days run from {finished.min()!s} to {finished.max()!s}" if len(finished) else "none is finished"
        )
        raise InputError(f"redo {first}..{last}: no finished day with events lies there; {there}.")
    if gone := sorted(asked - changes.held):
        raise InputError(
            f"redo {first}..{last}: the source no longer holds all that these days were made of, so events would be lost: "
            f"{days_in_words(gone)}. Nothing was done; give days that the source still holds."
        )
    return asked


def _rows_by_day(changes: Changes) -> dict[date, int]:
    dated = changes.parts.drop_nulls(DAY).group_by(COUNTED).agg(pl.col(ROWS).sum()).sort(COUNTED)
    return dict(dated.rows())


def _publish(run: Run, ledger: Ledger, window: Window, missing: dict[date, list[str]]) -> Manifest:
    """The snapshot of the window, up to the day tested on."""
    assert window.last
    first = window.first or date.min
    days = ledger.days.filter(pl.col(DAY).is_between(first, window.last) & ~pl.col(DAY).is_in(list(missing)))
    state_name, state = state_before(run, ledger, window.last)
    lost = tuple(str(day) for day in sorted(missing) if first <= day <= window.last)
    outside = _rows_outside(run.source, ledger, days)
    left_out = tuple(getattr(run.source.files, "left_out", ()))
    snapshot = Snapshot(run.dataset, run.plan.features, days, state, str(window.last), outside, lost, left_out)
    sessions = dict(days.select(DAY, "sessions").rows())
    account = _account_in_words(snapshot)
    if not sessions.get(window.last):
        raise InputError(f"No session ends on the test day {window.last}; give another. {account}")
    if not any(count for day, count in sessions.items() if day < window.last):
        raise InputError(f"No session to train on is left before the test day {window.last}: {account}")
    asked = {"until": str(window.last), "days": [str(first), str(window.last)] if window.first else None}
    return _written(run, snapshot, state_name, ledger.about.line, asked)


def _publish_whole(run: Run, line: str, until: date | None, days: int | None) -> Manifest:
    """The snapshot of a dataset taken as one batch: all its sessions, the last item of each to be tested on."""
    index, dataset = run.source.index, run.dataset
    window = choose_window(index.days(), index.rows, dataset, run.source.now, until, days, run.source.unread_times)
    row, state = whole_day(run, line, window)
    snapshot = Snapshot(
        dataset,
        run.plan.features,
        row,
        state,
        None,
        index.rows - accounts.total(row.select("account").explode("account").unnest("account"), accounts.READ),
    )
    asked = {"until": str(window.last) if window.last else None, "days": days}
    return _written(run, snapshot, str(row["artifact"][0]), line, asked)


def _written(run: Run, snapshot: Snapshot, state_name: str, line: str, asked: dict[str, Any]) -> Manifest:
    if highest(snapshot.state.fitted[ITEM_ID]) < FIRST_ID:
        encoder = snapshot.features[0].encoders[0]
        raise InputError(f"No item is seen often enough to be known: features.item_id is {encoder!r}; lower min_count.")
    parents = tuple(snapshot.days["artifact"])
    snapshot_id = identify(code=line, parents=parents, state=state_name, missing=snapshot.missing_days, **asked)
    if found := run.artifacts.find(KIND, snapshot_id):
        run.say(f"sessions of {run.dataset.name} are there already: {found.folder}")
        return found
    words = run.dataset.model_dump(mode="json", exclude={"source"}, exclude_defaults=True)
    with run.phase("publish") as said:
        manifest = snapshot.write(run.artifacts, snapshot_id, {"dataset": words, **asked}, run.seconds)
        said(f"{manifest.facts['sessions']:,} sessions of {len(manifest.facts['days']):,} days in {manifest.folder}")
    return manifest


def _rows_outside(source: Source, ledger: Ledger, days: pl.DataFrame) -> int:
    """Rows of the source that none of these days was made of."""
    made = ledger.parts().filter(pl.col("finished").is_in(days[DAY].implode()))
    made = made.group_by(PATH, DAY).agg(pl.col(ROWS).sum().alias("made"))
    day = pl.when(source.index.usable).then(DAY).alias(DAY)
    there = source.index.table.select(PATH, day, ROWS).group_by(PATH, DAY).agg(pl.col(ROWS).sum())
    both = there.join(made, on=[PATH, DAY], how="left", nulls_equal=True)
    return int(both.select((pl.col(ROWS) - pl.min_horizontal(ROWS, pl.col("made").fill_null(0))).sum()).item())


def _account_in_words(snapshot: Snapshot) -> str:
    account = snapshot.account.with_columns(pl.lit(None, dtype=pl.Date).alias(DAY))
    return accounts.in_words(account)
