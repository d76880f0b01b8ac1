"""Prepare a dataset: events in; sessions by day, vocabularies and a feature schema out; only days that are not finished yet.

    index -> plan -> read -> clean -> fit -> encode -> commit -> publish

Every row is accounted for: rows read + carried in = kept + in quarantine + dropped, by name, + still open.
"""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import polars as pl

from preprocessing.engines import EngineName, engine_of
from preprocessing.execution.buckets import since_boot
from preprocessing.execution.reading import Room, Source
from preprocessing.execution.run import Run, Workers, room_of
from preprocessing.features.uses import with_text_types
from preprocessing.frames import collect
from preprocessing.history.changes import COUNTED, Changes, find_changes
from preprocessing.history.days import Days
from preprocessing.history.ledger import Ledger
from preprocessing.history.lines import check_source, introduce, line_of, place_of
from preprocessing.history.publish import publish_days, publish_whole
from preprocessing.history.unreadable import require_readable, without_unreadable
from preprocessing.history.whole import Whole
from preprocessing.history.window import choose_window
from preprocessing.plan import build_steps
from preprocessing.source.index import ROWS, new_files
from schemas.artifacts import Artifacts, Manifest, identify
from schemas.columns import DAY
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
    engine_of(engine)  # a GPU that is not there is named before any work
    as_written, dataset = dataset, with_text_types(dataset)
    steps = [step for _, step in build_steps(dataset)]
    secrets = tuple(step.secret for step in steps)
    line = line_of(as_written, secrets)  # what encoders take is code, which is no part of a line
    if dataset.split == "day":
        Ledger.require(artifacts, line)
    with artifacts.unfinished(line) as folder:
        ledger = Ledger.read(artifacts, line)
        scratch = since_boot(folder)
        room = room_of(scratch, engine, workers, steps)
        kept_in = _index_of(artifacts, dataset, ledger)
        take = partial(index, artifacts, dataset, ledger, kept_in, now or datetime.now(UTC), progress, room)
        is_new = partial(new_files, kept_in=kept_in)
        source = without_unreadable(
            dataset, ledger, take, is_new, lambda line: progress(Progress("index", message=line))
        )
        require_readable(source, until)
        run = Run(artifacts, dataset, source, line, scratch, engine, workers, progress, secrets)
        try:
            run.plan  # noqa: B018  (compiled now: what does not fit is said before a row is cleaned)
        except (
            InputError
        ):  # the dataset that is mended has another line, and would never find what was divided for this one
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        if dataset.split == "day":
            changes = find_changes(run, ledger)
            check_source(ledger, dataset, changes)
            introduce(artifacts, ledger, dataset, changes, run.say)
            window = choose_window(_rows_by_day(ledger, changes), source, until, days)
            assert window.last
            require_readable(source, until, window.last)
            history: Days | Whole = (finished := Days(run, ledger, changes))
            to_do = finished.work(window.last, redo, used_from=window.first, verify=verify)
        else:
            source.window = window = choose_window(source.index.days(), source, until, days)
            history = (whole := Whole(run, line))
            to_do = whole.work()
        for work in to_do:
            if not history.finds(work):
                artifacts.begin_work()
                work.batch.read()
                work.batch.clean()
                work.batch.fit()
                work.batch.encode()
                history.write(work)
            history.enter(work)
        return publish_days(history, window) if isinstance(history, Days) else publish_whole(history, window)


def index(
    artifacts: Artifacts,
    dataset: Dataset,
    ledger: Ledger,
    kept_in: Path,
    now: datetime,
    progress: Report,
    room: Room,
    without: frozenset[str] = frozenset(),
) -> Source:
    """Which days' events every file of the source holds; only files that are new or changed are opened, none of `without`."""
    progress(Progress("index", 0, 1))
    source = Source.open(dataset, kept_in, ledger.types, now, room, artifacts.begin_work, without)
    files, left_out = len(source.files.files), source.files.left_out
    message = f"{source.index.rows:,} rows in {files:,} {'file' if files == 1 else 'files'}"
    if source.empty_rows:
        message += f"; {source.empty_rows:,} rows of new files hold an empty list, and so no event"
    if left_out:
        listed = ", ".join(f"{path} ({reason})" for path, reason in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        message += f"; left out: {listed}{more}"
    progress(Progress("index", 1, 1, message))
    return source


def _index_of(artifacts: Artifacts, dataset: Dataset, ledger: Ledger) -> Path:
    """Where the index is kept, for each place: other files elsewhere may have the same names and times."""
    place = identify(code="", place=place_of(dataset.source))[:8]
    return artifacts.root / "inventories" / f"{ledger.about.line}-{place}.parquet"


def _rows_by_day(ledger: Ledger, changes: Changes) -> dict[date, int]:
    """Rows of each day: those in the source or, where they are more, those that the finished day was made of."""
    most = ledger.rows_by_day()
    there = changes.parts.lazy().drop_nulls(DAY).group_by(COUNTED).agg(pl.col(ROWS).sum())
    for day, rows in collect(there).iter_rows():
        most[day] = max(rows, most.get(day, 0))
    return most
