"""One batch of days: read and divide its events, clean, fit, encode; each task over all buckets."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path

import polars as pl

from preprocessing import account as accounts
from preprocessing.account import KEPT, NULLED, QUARANTINED, READ
from preprocessing.collect import collect
from preprocessing.encoders.category import Category
from preprocessing.engines import EngineName
from preprocessing.execution import tasks
from preprocessing.execution.buckets import Spool
from preprocessing.execution.reading import Source
from preprocessing.execution.tasks import Job
from preprocessing.features.state import FeatureState, State, fit_next, merge
from preprocessing.output import items
from preprocessing.output.sessions import name_of
from preprocessing.plan import EVENT_DAY, Plan, plan_of
from preprocessing.source.files import find_files, reading
from preprocessing.vocabulary import from_nvtabular
from schemas.artifacts import Artifacts
from schemas.columns import DAY, ID, USER_ID, VALUE
from schemas.dataset import Dataset
from schemas.errors import InputError
from schemas.plugins import made_with
from schemas.progress import Progress, Report

BUCKET_ROWS = 2_500_000  # rows of a bucket: about half a gigabyte on the way
SAMPLE = 10_000  # rows a bucket of which users are taken to divide them


@dataclass(frozen=True)
class Workers:
    """What runs the tasks of a batch, and into how many buckets users are divided at least."""

    executor: Executor | None = None
    min_buckets: int = 1
    bucket_rows: int = BUCKET_ROWS


@dataclass
class Run:
    """What all batches of one run work with."""

    artifacts: Artifacts
    dataset: Dataset
    source: Source
    scratch: Path
    engine: EngineName
    workers: Workers
    report: Report
    secrets: tuple[str, ...] = ()
    """Hashes of the keys that steps use."""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def reads(self) -> tuple[str, ...]:
        """Hashes of the tables and keys that steps use, and of people's own steps, checks and encoders."""
        return (*self.source.tables.values(), *self.secrets, *made_with(self.dataset).values())

    @property
    def plan(self) -> Plan:
        """The plan for events of the line's types; a batch's own may see values as they were found, too."""
        return plan_of(self.dataset.model_dump_json(), tuple(self.source.types.items()), self.reads)

    def say(self, message: str) -> None:
        """One line for people."""
        self.report(Progress("prepare", message=message))

    def tick(self, phase: str, done: int, total: int) -> None:
        """A part of a phase is done; the end of a phase is reported by itself."""
        if done < total:
            self.report(Progress(phase, done, total, f"part {done} of {total} ({100 * done // total}%)"))

    def start(self) -> State:
        """The state before any day: the NVTabular vocabularies that features start from.

        Raises:
            InputError: for files that are none, and ids that do not fit the encoder.
        """
        fitted = {}
        for feature in self.plan.features:
            encoder = feature.encoders[-1]
            if isinstance(encoder, Category) and encoder.start_from:
                (file, *_) = find_files(self.dataset, encoder.start_from, f"features.{feature.name}.start_from")
                vocabulary = from_nvtabular(Path(file.url))
                first, dtype = int(vocabulary[ID].head(1).sum()), self.plan.columns[feature.column]
                if first != encoder.first_id:
                    raise InputError(
                        f"{file.url}: ids begin at {first}, but those of feature {feature.name} at {encoder.first_id}."
                    )
                if vocabulary.schema[VALUE] != dtype:
                    raise InputError(
                        f"{file.url} holds {vocabulary.schema[VALUE]} values, column {feature.column!r} {dtype}."
                    )
                fitted[feature.state_name(len(feature.encoders) - 1)] = vocabulary
        return State(fitted)

    @contextmanager
    def phase(self, name: str, total: int = 1) -> Iterator[Callable[[str], None]]:
        """Time a phase; call what is given with what came out of it."""
        began = time.perf_counter()
        said: list[str] = []
        self.report(Progress(name, 0, total))
        yield said.append
        took = time.perf_counter() - began
        self.seconds[name] = round(self.seconds.get(name, 0.0) + took, 3)
        self.report(Progress(name, total, total, f"{' '.join(said)} ({took:.1f} s)"))


@dataclass(frozen=True)
class Batch:
    """Days from `first` to `last`; `newest` is the one to be tested on, apart from which the others are known."""

    run: Run
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

    def do(self, name: str) -> Done:
        """Read, clean, fit and encode; `name` keeps what is on the way, so that a run that was killed goes on."""
        job, buckets = self._read(name)
        account = self._clean(job, buckets)
        before, after = self._fit(job, buckets)
        self._each(tasks.encode_bucket, job, buckets, "encode")
        latest = pl.concat([collect(job.spool.get(f"items-{bucket}")) for bucket in buckets])
        return Done(self, job, buckets, account, *self._with_items(before, after, latest))

    def _read(self, name: str) -> tuple[Job, range]:
        """Divide the events, and those carried over, by user: a bucket holds users that follow each other."""
        run, count = self.run, self._num_buckets()
        folder = run.scratch / name
        in_memory = count == 1 and run.workers.executor is None
        if in_memory:  # what a run that was killed left may be of other buckets
            shutil.rmtree(folder, ignore_errors=True)
        spool = Spool(None if in_memory else folder)
        with run.phase("read") as said:
            with reading(run.dataset.source):
                raw = run.source.events(self.files, self.undated)
                columns = pl.Schema({n: dtype for n, dtype in raw.collect_schema().items() if n != EVENT_DAY})
                job = Job(
                    dataset=run.dataset.model_dump_json(),
                    columns=tuple(columns.items()),
                    reads=run.reads,
                    first=self.first,
                    last=self.last,
                    now=run.source.now,
                    engine=run.engine,
                    spool=spool,
                    parts=folder / "sessions",
                )
                events = job.plan.read(raw)
                boundaries = self._boundaries(job, events, count)
                spool.divide("raw", events, USER_ID, boundaries)
            if self.carried is not None and self.carried.height:
                spool.divide("carried", self.carried.lazy(), USER_ID, boundaries)
            buckets = range(len(boundaries) + 1)
            said(f"{self._rows():,} events dated {self._days_in_words()}")
            if len(buckets) > 1:
                said(f"in {len(buckets)} parts")
        return job, buckets

    def _rows(self) -> int:
        """How many rows of the files fall on these days."""
        index = self.run.source.index
        if self.run.dataset.split != "day":
            return index.rows
        return sum(count for day, count in index.days().items() if self.first <= day <= self.last)

    def _num_buckets(self) -> int:
        """So many that none is larger than it should be; one where a step needs all rows."""
        if self.run.plan.needs_all_rows:
            return 1
        return max(self.run.workers.min_buckets, -(-self._rows() // self.run.workers.bucket_rows))

    def _boundaries(self, job: Job, events: pl.LazyFrame, count: int) -> pl.Series:
        """The last user of each bucket but the last, from a sample of rows."""
        spool = job.spool
        if not spool.has("boundaries"):
            every = max(1, self._rows() // (SAMPLE * count))
            users = (
                events.select(USER_ID).gather_every(every).drop_nulls() if count > 1 else events.select(USER_ID).clear()
            )
            sample = users.collect(engine="streaming").sort(USER_ID)
            places = sorted({sample.height * part // count for part in range(1, count)}) if sample.height else []
            spool.put("boundaries", sample[places].unique(maintain_order=True))
        return collect(spool.get("boundaries"))[USER_ID]

    def _clean(self, job: Job, buckets: range) -> pl.DataFrame:
        self._each(tasks.clean_bucket, job, buckets, "clean")
        account = accounts.add_up([collect(job.spool.get(f"account-{bucket}")) for bucket in buckets])
        rules = job.plan.rules
        quarantine = pl.concat([job.spool.get(f"quarantine-{bucket}") for bucket in buckets], how="diagonal_relaxed")
        for (day,), of_day in account.partition_by(DAY, as_dict=True).items():
            broken, rows = accounts.by_name(of_day, QUARANTINED), accounts.total(of_day, READ)
            broken |= accounts.by_name(of_day, NULLED)
            bad = quarantine.filter(pl.col(EVENT_DAY) == day)
            rules.verdict(broken, rows, name_of(day), partial(rules.examples, bad))
        if self.others.items is None:
            self._check_first(job, buckets, account)
        return account

    def _check_first(self, job: Job, buckets: range, account: pl.DataFrame) -> None:
        """The first rows ever must give every feature something to be fitted to."""
        kept = accounts.total(account, KEPT)
        if not kept:
            raise InputError(f"No rows are left: {accounts.in_words(account)}")
        present = pl.concat([collect(job.spool.get(f"present-{bucket}")) for bucket in buckets]).sum()
        for column, count in present.row(0, named=True).items():
            if not count:
                features = ", ".join(feature.name for feature in job.plan.features if feature.column == column)
                raise InputError(
                    f"Column {column!r} is empty in all {kept:,} rows that are kept, so feature {features} has nothing to "
                    "learn; mend the column or take the feature out of the dataset."
                )

    def _fit(self, job: Job, buckets: range) -> tuple[State, State]:
        """The states before the newest day and after it, without items; tables of fitted encoders go to the tasks."""
        features, fitted = job.plan.features, tasks.fitted_so_far(job)
        before, after = State(dict(self.others.fitted)), State(dict(self.others.fitted))
        with self.run.phase("fit") as said:
            while any(one.next_to_fit for one in fitted):
                self._run(tasks.fit_bucket, job, buckets, lambda done: None)
                statistics = tasks.statistics_of(job, buckets)
                known = self.others.fitted
                for state, days in ((before, pl.col(DAY) < self.newest), (after, pl.col(DAY) == self.newest)):
                    chosen = {
                        name: table.filter(days) if DAY in table.columns else table
                        for name, table in statistics.items()
                    }
                    state.statistics.update({name: table for name, table in chosen.items() if DAY in table.columns})
                    # What no row was fitted to stays as it is.
                    new = {name: table for name, table in chosen.items() if table.height or name not in known}
                    known = merge(features, known, new)
                    state.fitted.update({name: known[name] for name in statistics})
                fitted = fit_next(fitted, self.earlier, statistics, known)
                tasks.put_tables(job, fitted)
            said(self._days_in_words())
        return before, after

    def _with_items(self, before: State, after: State, latest: pl.DataFrame) -> tuple[State, State]:
        side = items.side_features(self.run.plan.features)
        parts, states = [self.others.items] if self.others.items is not None else [], []
        for state, days in ((before, pl.col(DAY) < self.newest), (after, pl.col(DAY) == self.newest)):
            of_days = latest.filter(days)
            parts = [items.merge_items([*parts, of_days.drop(DAY)], side)]
            states.append(replace(state, items=parts[0], items_by_day=of_days))
        return states[0], states[1]

    def _each(self, task: Callable[[Job, int], None], job: Job, buckets: range, name: str) -> None:
        """Run a task on every bucket and report how many are done."""
        with self.run.phase(name, len(buckets)) as said:
            self._run(task, job, buckets, lambda done: self.run.tick(name, done, len(buckets)))
            said(self._days_in_words())

    def _run(self, task: Callable[[Job, int], None], job: Job, buckets: range, tick: Callable[[int], object]) -> None:
        """Here or on the workers; what a worker that died was doing is done by another."""
        executor = self.run.workers.executor
        if executor is None:
            for done, bucket in enumerate(buckets, start=1):
                task(job, bucket)
                tick(done)
            return
        for done, future in enumerate(as_completed([executor.submit(task, job, bucket) for bucket in buckets]), 1):
            future.result()
            tick(done)

    def _days_in_words(self) -> str:
        if self.first == self.last:
            return name_of(self.first)
        return f"{self.first} to {self.last}"


@dataclass(frozen=True)
class Done:
    """A batch whose tasks are done: its days, to be written, and the states before and after its newest."""

    batch: Batch
    job: Job
    buckets: range
    account: pl.DataFrame
    before: State
    after: State

    def frames(self, name: str) -> list[pl.LazyFrame]:
        """The frames of this name that the tasks left, one a bucket."""
        return [self.job.spool.get(f"{name}-{bucket}") for bucket in self.buckets]

    def days(self) -> list[date]:
        """The days that hold anything: rows read, sessions closed."""
        inside = pl.col(DAY).is_between(self.batch.first, self.batch.last)
        return sorted(set(self.account.filter(inside)[DAY]) | set(self.batch.files))

    def session_files(self, day: date) -> list[Path]:
        """The sessions of a day as the tasks wrote them, in order of buckets."""
        return sorted((self.job.parts / name_of(day)).glob("*.parquet"))

    def clean_up(self) -> None:
        """Remove what was only needed on the way."""
        shutil.rmtree(self.job.parts.parent, ignore_errors=True)
