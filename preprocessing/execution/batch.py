"""One batch of days: read and divide its events, clean, fit, encode; each task over all buckets."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from preprocessing import account as accounts
from preprocessing.account import KEPT, NULLED, QUARANTINED, READ
from preprocessing.execution import tasks
from preprocessing.execution.buckets import Spool
from preprocessing.execution.division import PARTS, SAMPLE, Division, boundaries_of
from preprocessing.execution.emptied import in_words, strange_tables
from preprocessing.execution.run import Run, bytes_a_row
from preprocessing.execution.selection import Selection
from preprocessing.execution.tasks import Job
from preprocessing.features.state import FeatureState, State, Statistics, fit_next, merge
from preprocessing.frames import collect
from preprocessing.output import items
from preprocessing.output.sessions import name_of
from preprocessing.sessions import EVENT_DAY, by_day
from preprocessing.source.files import reading
from schemas.columns import DAY, USER_ID, VALUE
from schemas.errors import InputError

LARGER = 2  # how many times the rows that a bucket may have one may have: they are divided by a sample, before they are counted
WHOLE = 600_000_000  # bytes of rows that stay in this process's memory: their tasks hold about 1.5 GB
FEW_ROWS = 250_000  # rows of a bucket of these, at least: fewer cost more than a further thread saves
GPU_THREADS = 3  # tasks in hand: the plans of one bucket run while rows of two more are read or written


@dataclass
class Batch:
    """Days from `first` to `last`; `newest` is the one to be tested on, before which a state is kept.

    Its stages are called in order: `read`, `clean`, `fit`, `encode`. What they leave is there for those who write the days.
    """

    run: Run
    name: str
    """Keeps what is on the way, so that a run that was killed goes on."""
    first: date
    last: date
    newest: date
    files: Mapping[date, list[str]]
    """The files that hold events of each day."""
    undated: Mapping[str, date]
    """To which day a file's rows without a usable day count."""
    carried: pl.DataFrame | None
    """Events of sessions that were open when `first` began."""
    earlier: FeatureState
    """What is fitted to the days before `first`: numbers are encoded with it."""
    others: State
    """What is fitted to all other days: this batch comes on top. It is `earlier` unless a day is done again."""
    job: Job = field(init=False)
    buckets: range = field(init=False)
    account: pl.DataFrame = field(init=False)
    """Where all rows went (`preprocessing.account`), in order of the day."""
    before: State = field(init=False)
    """The state before the newest day, and after it."""
    after: State = field(init=False)

    def read(self) -> None:
        """Divide the events, and those carried over, by user: a bucket holds users that follow each other."""
        run, count = self.run, self._num_buckets()
        folder = run.scratch / self.name
        in_memory = self._fits() or (count == 1 and run.workers.executor is None)
        if in_memory:  # what a run that was killed left may be of other buckets
            shutil.rmtree(folder, ignore_errors=True)
        with run.phase("read") as said:
            with reading(run.dataset.source):
                rows, select, division = run.source.events(self.files, self.undated)
                raw = select.of(rows)
                spool = Spool(None if in_memory else folder)
                self.job = self._job(raw.collect_schema(), spool, folder / "sessions")
                boundaries = self._divide(self.job.plan.read(raw), count, select, division)
            if self.carried is not None and self.carried.height:
                spool.divide("carried", self.carried.lazy(), USER_ID, boundaries)
            self.buckets = range(len(boundaries) + 1)
            said(f"{self._rows():,} events dated {self._days_in_words()}")
            if len(self.buckets) > 1:
                said(f"in {len(self.buckets)} parts")

    def _divide(self, events: pl.LazyFrame, count: int, select: Selection, division: Division | None) -> pl.Series:
        """Leave the events in the spool by bucket, unless they lie divided already; returns the last user of all but one."""
        spool = self.job.spool
        if spool.folder and division and division.largest() <= LARGER * self.run.bucket_rows:
            # A run that was killed may have divided them otherwise; what it has done is of its own buckets.
            if not spool.has("boundaries"):
                spool.put("boundaries", division.boundaries.to_frame())
            if collect(spool.get("boundaries")).to_series().equals(division.boundaries):
                spool.divided, spool.select = division.folder / PARTS, select
                return division.boundaries
        boundaries = self._boundaries(events, count)
        spool.divide("raw", events, USER_ID, boundaries)
        return boundaries

    def clean(self) -> None:
        """Check, step, cut; refuse what a rule does not tolerate.

        Raises:
            InputError: when more rows of a day break a rule than it tolerates, or nothing is left of the first days ever.
        """
        self._each(tasks.clean_bucket, "clean")
        account = accounts.add_up([collect(part) for part in self.frames("account")])
        self.account = account.sort(DAY, maintain_order=True)
        rules = self.job.plan.rules
        for day, of_day in by_day(self.account).items():
            broken, rows = accounts.by_name(of_day, QUARANTINED), accounts.total(of_day, READ)
            broken |= accounts.by_name(of_day, NULLED)
            rules.verdict(broken, rows, name_of(day), partial(self._examples, day))
        if self.others.items is None:
            self._check_first()

    def _examples(self, day: date, rule: str) -> list[Any]:
        """Values of a day that break a rule."""
        bad = pl.concat(self.frames("quarantine"), how="diagonal_relaxed").filter(pl.col(EVENT_DAY) == day)
        return self.job.plan.rules.examples(bad, rule)

    def fit(self) -> None:
        """The states before the newest day and after it, without items; tables of fitted encoders go to the tasks."""
        fitted = tasks.fitted_so_far(self.job)
        self.before, self.after = State(dict(self.others.fitted)), State(dict(self.others.fitted))
        with self.run.phase("fit") as said:
            while any(feature.next_to_fit for feature in fitted):
                self._run(tasks.fit_bucket, lambda done: None)
                statistics = tasks.statistics_of(self.job, self.buckets)
                state = self._merge(statistics)
                fitted = fit_next(fitted, self.earlier, statistics, state)
                tasks.put_tables(self.job, fitted)
            said(self._days_in_words())

    def encode(self) -> None:
        """Sessions, in files by day; and the latest of each item goes into the states."""
        self._each(tasks.encode_bucket, "encode")
        latest = pl.concat([collect(part) for part in self.frames("items")])
        self.before, self.after = self._with_items(latest)

    def frames(self, name: str) -> list[pl.LazyFrame]:
        """The frames of this name that the tasks left, one a bucket."""
        return [self.job.spool.get(f"{name}-{bucket}") for bucket in self.buckets]

    def days(self) -> list[date]:
        """The days that hold anything: rows read, sessions closed."""
        inside = pl.col(DAY).is_between(self.first, self.last)
        return sorted(set(self.account.filter(inside)[DAY]) | set(self.files))

    def session_files(self, day: date) -> list[Path]:
        """The sessions of a day as the tasks wrote them, in order of buckets."""
        return sorted((self.job.parts / name_of(day)).glob("*.parquet"))

    def clean_up(self) -> None:
        """Remove what was only needed on the way."""
        shutil.rmtree(self.job.parts.parent, ignore_errors=True)

    def _job(self, columns: pl.Schema, spool: Spool, parts: Path) -> Job:
        return Job(
            dataset=self.run.dataset.model_dump_json(),
            columns=tuple((name, dtype) for name, dtype in columns.items() if name != EVENT_DAY),
            reads=self.run.reads,
            first=self.first,
            last=self.last,
            now=self.run.source.now,
            engine=self.run.engine,
            spool=spool,
            parts=parts,
        )

    def _rows(self) -> int:
        """How many rows of the files fall on these days."""
        index = self.run.source.index
        if self.run.dataset.split != "day":
            return index.rows
        return sum(count for day, count in index.days().items() if self.first <= day <= self.last)

    def _num_buckets(self) -> int:
        """So many that none is larger than it should be; one where a step needs all rows."""
        run, rows = self.run, self._rows()
        if run.plan.needs_all_rows:
            return 1
        if self._fits():
            return max(1, min(run.workers.threads, rows // FEW_ROWS))
        return max(run.workers.min_buckets, -(-rows // run.bucket_rows))

    def _fits(self) -> bool:
        """Whether what was read into memory stays there, instead of being written to a disk for smaller buckets."""
        run = self.run
        if run.engine != "cpu" or run.source.division is not None or not run.workers.takes_small:
            return False
        if run.workers.threads > 1 and run.dataset.own_parts():  # people's own code need not be one for threads
            return False
        return self._rows() * bytes_a_row(run.source.types) <= WHOLE

    def _boundaries(self, events: pl.LazyFrame, count: int) -> pl.Series:
        """The last user of each bucket but the last, from a sample of rows."""
        spool = self.job.spool
        if not spool.has("boundaries"):
            every = max(1, self._rows() // (SAMPLE * count))
            users = (
                events.select(USER_ID).gather_every(every).drop_nulls() if count > 1 else events.select(USER_ID).clear()
            )
            sample = users.collect(engine="streaming").to_series()
            spool.put("boundaries", boundaries_of(sample, count).to_frame())
        return collect(spool.get("boundaries"))[USER_ID]

    def _check_first(self) -> None:
        """The first rows ever must give every feature something to be fitted to."""
        kept = accounts.total(self.account, KEPT)
        if not kept:
            raise InputError(f"No rows are left: {in_words(self.run, self.account)}{strange_tables(self.run)}")
        present = pl.concat([collect(part) for part in self.frames("present")]).sum()
        for column, count in present.row(0, named=True).items():
            if not count:
                features = ", ".join(feature.name for feature in self.job.plan.features if feature.column == column)
                raise InputError(
                    f"Column {column!r} is empty in all {kept:,} rows that are kept, so feature {features} has nothing to "
                    f"learn; mend the column or take the feature out of the dataset.{strange_tables(self.run)}"
                )

    def _merge(self, statistics: Statistics) -> FeatureState:
        """Enter statistics into the states before and after the newest day; returns the state of encoders after it."""
        state = self.others.fitted
        for kept, newest in ((self.before, False), (self.after, True)):
            chosen = {name: self._of_days(table, newest=newest) for name, table in statistics.items()}
            kept.statistics.update({name: table for name, table in chosen.items() if DAY in table.columns})
            # What no row was fitted to stays as it is.
            new = {name: table for name, table in chosen.items() if table.height or name not in state}
            state = merge(self.job.plan.features, state, new)
            kept.fitted.update({name: state[name] for name in statistics})
        return state

    def _of_days(self, statistics: pl.DataFrame, *, newest: bool) -> pl.DataFrame:
        """Statistics in order of the day -> those of the newest day, the last, or of the days before it; without days, all."""
        if DAY not in statistics.columns:
            return statistics
        if VALUE not in statistics.columns:  # sums of floats depend on how rows lie in memory: filtered, as ever
            return statistics.filter((pl.col(DAY) == self.newest) if newest else (pl.col(DAY) < self.newest))
        place = int(statistics[DAY].search_sorted(self.newest))
        return statistics.slice(place) if newest else statistics.head(place)

    def _with_items(self, latest: pl.DataFrame) -> tuple[State, State]:
        side = items.side_features(self.job.plan.features)
        parts, states = [self.others.items] if self.others.items is not None else [], []
        for state, days in ((self.before, pl.col(DAY) < self.newest), (self.after, pl.col(DAY) == self.newest)):
            of_days = latest.filter(days)
            parts = [items.merge_items([*parts, of_days.drop(DAY)], side)]
            states.append(replace(state, items=parts[0], items_by_day=of_days))
        return states[0], states[1]

    def _each(self, task: Callable[[Job, int], None], phase: str) -> None:
        """Run a task on every bucket and report how many are done."""
        total = len(self.buckets)
        with self.run.phase(phase, total) as said:
            self._run(task, lambda done: self.run.tick(phase, done, total))
            said(self._days_in_words())

    def _run(self, task: Callable[[Job, int], None], tick: Callable[[int], object]) -> None:
        """Here or on the workers; what a worker that died was doing is done by another."""
        executor, in_memory = self.run.workers.executor, self.job.spool.folder is None
        if executor is not None and not in_memory:
            self._run_on(executor, task, tick)
        elif len(self.buckets) > 1 and (in_memory or self.run.engine == "gpu"):
            with ThreadPoolExecutor(len(self.buckets) if in_memory else GPU_THREADS) as threads:
                self._run_on(threads, task, tick)
        else:
            for done, bucket in enumerate(self.buckets, start=1):
                task(self.job, bucket)
                tick(done)

    def _run_on(self, executor: Executor, task: Callable[[Job, int], None], tick: Callable[[int], object]) -> None:
        futures = [executor.submit(task, self.job, bucket) for bucket in self.buckets]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                tick(done)
        finally:  # of a run that fails or is stopped, the buckets that nobody has begun are left for the next
            for future in futures:
                future.cancel()

    def _days_in_words(self) -> str:
        if self.first == self.last:
            return name_of(self.first)
        return f"{self.first} to {self.last}"
