"""Run the tasks of one batch of days over all buckets, and put each day together."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl

from preprocessing.collect import collect
from preprocessing.encoders.category import Category
from preprocessing.engines import EngineName
from preprocessing.execution import tasks as batch
from preprocessing.execution.buckets import Spool
from preprocessing.execution.reading import Source
from preprocessing.execution.tasks import DROPPED, EVENTS, NAME, NULLED, QUARANTINED, ROWS_IN, Job
from preprocessing.features.chains import Knowledge, fit_next, merge
from preprocessing.features.state import State
from preprocessing.output import sessions as tables
from preprocessing.output.profile import Profiles
from preprocessing.plan import EVENT_DAY, Recipe, recipe_of
from preprocessing.sessions import sort_keys
from preprocessing.source.files import find_files, reading
from preprocessing.vocabulary import from_nvtabular
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import COUNT, DAY, ID, ITEM_ID, LENGTH, RULE, USER_ID, VALUE
from schemas.dataset import Dataset
from schemas.errors import InputError

KIND = "days"
SESSIONS, OPEN, QUARANTINE = "sessions.parquet", "open.parquet", "quarantine.parquet"
BUCKET_ROWS = 2_500_000  # rows of a bucket: about half a gigabyte on the way
SAMPLE = 10_000  # rows a bucket of which users are taken to divide them
Progress = Callable[[str], object]
Contents = dict[date, tuple[str, list[str]]]  # of each day: a hash of its events, and the files that hold them


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
    progress: Progress
    secrets: tuple[str, ...] = ()
    """Hashes of the keys that steps use."""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[tuple[str, pl.DataType], ...]:
        """Of events as they are read."""
        return tuple(self.source.columns.items())

    @property
    def recipe(self) -> Recipe:
        """The dataset's rules, steps and features."""
        return recipe_of(self.dataset.model_dump_json(), self.columns, self.beside)

    @property
    def beside(self) -> tuple[str, ...]:
        """Hashes of the tables and keys that steps use."""
        return (*self.source.tables.values(), *self.secrets)

    def start(self) -> State:
        """What is known before anything is learnt: the NVTabular vocabularies that features start from.

        Raises:
            InputError: for files that are none, and ids that do not fit the encoder.
        """
        learnt = {}
        for chain in self.recipe.chains:
            encoder = chain.encoders[-1]
            if isinstance(encoder, Category) and encoder.start_from:
                (file, *_) = find_files(self.dataset, encoder.start_from, f"features.{chain.name}.start_from")
                vocabulary = from_nvtabular(Path(file.url))
                first, dtype = int(vocabulary[ID].head(1).sum()), self.recipe.columns[chain.column]
                if first != encoder.first_id:
                    raise InputError(
                        f"{file.url}: ids begin at {first}, but those of feature {chain.name} at {encoder.first_id}."
                    )
                if vocabulary.schema[VALUE] != dtype:
                    raise InputError(
                        f"{file.url} holds {vocabulary.schema[VALUE]} values, column {chain.column!r} {dtype}."
                    )
                learnt[chain.keeps(len(chain.encoders) - 1)] = vocabulary
        return State(learnt)

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time a phase; call what is given with what came out of it."""
        began = time.perf_counter()
        told: list[str] = []
        yield told.append
        took = time.perf_counter() - began
        self.seconds[name] = round(self.seconds.get(name, 0.0) + took, 3)
        self.progress(f"{name}: {' '.join(told)} ({took:.1f} s)")


@dataclass(frozen=True)
class Batch:
    """Days from `first` to `last`; `newest` is the one to be tested on, apart from which the others are known."""

    run: Run
    first: date
    last: date
    newest: date
    contents: Contents
    carried: pl.DataFrame | None
    """Events of sessions that were open when `first` began."""
    earlier: Knowledge
    """What days before `first` taught: numbers are encoded with it."""
    others: State
    """What all other days taught: what this batch teaches comes on top. It is `earlier` unless a day is done again."""

    def do(self, name: str) -> Done:
        """Read, clean, learn and encode; `name` keeps what is on the way, so that a run that was killed goes on."""
        job = self._job(name)
        buckets = self._read(job)
        account = self._clean(job, buckets)
        states = self._learn(job, buckets)
        self._each(batch.encode, job, buckets, "encode")
        return Done(self, job, buckets, account, *states)

    def _job(self, name: str) -> Job:
        run = self.run
        many = self._num_buckets() > 1 or run.workers.executor is not None
        return Job(
            dataset=run.dataset.model_dump_json(),
            columns=tuple(
                run.source.columns_read({path for _, paths in self.contents.values() for path in paths}).items()
            ),
            beside=run.beside,
            first=self.first,
            last=self.last,
            newest=self.newest,
            now=run.source.now,
            engine=run.engine,
            spool=Spool(run.scratch / name if many else None),
        )

    def _num_buckets(self) -> int:
        """So many that none is larger than it should be; one where a step needs all rows."""
        if any(step.needs_all_rows for _, step in self.run.recipe.steps):
            return 1
        rows = self.run.source.rows_of(list(self.contents))
        return max(self.run.workers.min_buckets, -(-rows // self.run.workers.bucket_rows))

    def _read(self, job: Job) -> range:
        """Divide the events, and those carried over, by user: a bucket holds users that follow each other."""
        run = self.run
        with run.phase("read") as told:
            with reading(run.dataset.source):
                events = run.source.events({day: files for day, (_, files) in self.contents.items()}, run.recipe)
                boundaries = self._boundaries(job, events)
                job.spool.divide("raw", events, USER_ID, boundaries)
            if self.carried is not None and self.carried.height:
                job.spool.divide("carried", self.carried.lazy(), USER_ID, boundaries)
            buckets = range(len(boundaries) + 1)
            told(f"{run.source.rows_of(list(self.contents)):,} events dated {self._days_told()}")
            if len(buckets) > 1:
                told(f"in {len(buckets)} parts")
        return buckets

    def _boundaries(self, job: Job, events: pl.LazyFrame) -> pl.Series:
        """The last user of each bucket but the last, told from a sample of rows."""
        spool, count = job.spool, self._num_buckets()
        if not spool.has("boundaries"):
            every = max(1, self.run.source.rows_of(list(self.contents)) // (SAMPLE * count))
            users = (
                events.select(USER_ID).gather_every(every).drop_nulls() if count > 1 else events.select(USER_ID).clear()
            )
            sample = users.collect(engine="streaming").sort(USER_ID)
            places = sorted({sample.height * part // count for part in range(1, count)}) if sample.height else []
            spool.put("boundaries", sample[places].unique(maintain_order=True))
        return collect(spool.get("boundaries"))[USER_ID]

    def _clean(self, job: Job, buckets: range) -> pl.DataFrame:
        self._each(batch.clean, job, buckets, "clean")
        account = batch.add_up([collect(job.spool.get(f"account-{bucket}")) for bucket in buckets])
        rules = job.recipe.rules
        quarantine = pl.concat([job.spool.get(f"quarantine-{bucket}") for bucket in buckets], how="diagonal_relaxed")
        for (day,), rows in account.partition_by(DAY, as_dict=True).items():
            counts = dict(rows.select(NAME, COUNT).rows())
            broken = _of_kind(counts, QUARANTINED) | _of_kind(counts, NULLED)
            bad = quarantine.filter(pl.col(EVENT_DAY) == day)
            rules.verdict(broken, counts.get(ROWS_IN, 0), tables.name_of(day), partial(rules.examples, bad))
        kept = int(account.filter(pl.col(NAME) == EVENTS)[COUNT].sum())
        if self.others.items is None:
            self._check_first(job, buckets, kept, account)
        return account

    def _check_first(self, job: Job, buckets: range, kept: int, account: pl.DataFrame) -> None:
        """The first rows ever must give every feature something to learn."""
        if not kept:
            raise InputError(f"No rows are left: {told_account(account)}")
        present = pl.concat([collect(job.spool.get(f"present-{bucket}")) for bucket in buckets]).sum()
        for column, count in present.row(0, named=True).items():
            if not count:
                features = ", ".join(chain.name for chain in job.recipe.chains if chain.column == column)
                raise InputError(
                    f"Column {column!r} is empty in all {kept:,} rows that are kept, so feature {features} has nothing to "
                    "learn; mend the column or take the feature out of the dataset."
                )

    def _learn(self, job: Job, buckets: range) -> tuple[State, State]:
        """What is known before the newest day, and after it; of items nothing yet."""
        chains, fitted = job.recipe.chains, batch.fitted_so_far(job)
        before, after = State(dict(self.others.learnt)), State(dict(self.others.learnt))
        while any(one.next for one in fitted):
            self._each(batch.learn, job, buckets, "learn")
            learnt = batch.what_was_learnt(job, buckets)
            known = self.others.learnt
            for state, these in ((before, pl.col(DAY) < self.newest), (after, pl.col(DAY) == self.newest)):
                taught = {
                    name: table.filter(these) if DAY in table.columns else table for name, table in learnt.items()
                }
                state.taught.update({name: table for name, table in taught.items() if DAY in table.columns})
                # What was taught nothing stays as it is.
                known = merge(
                    chains, known, {name: new for name, new in taught.items() if new.height or name not in known}
                )
                state.learnt.update({name: known[name] for name in learnt})
            fitted = fit_next(fitted, self.earlier, learnt, known)
            batch.put_tables(job, fitted)
        return before, after

    def _each(self, task: Callable[[Job, int], None], job: Job, buckets: range, name: str) -> None:
        """Run a task on every bucket, here or on the workers; what a worker that died was doing is done by another."""
        executor = self.run.workers.executor
        with self.run.phase(name) as told:
            if executor is None:
                for done, bucket in enumerate(buckets, start=1):
                    task(job, bucket)
                    self._tick(name, done, len(buckets))
            else:
                for done, future in enumerate(
                    as_completed([executor.submit(task, job, bucket) for bucket in buckets]), 1
                ):
                    future.result()
                    self._tick(name, done, len(buckets))
            told(self._days_told())

    def _tick(self, name: str, done: int, all_: int) -> None:
        if all_ > 1:
            self.run.progress(f"{name}: part {done} of {all_} ({100 * done // all_}%)")

    def _days_told(self) -> str:
        if self.first == self.last:
            return tables.name_of(self.first)
        return f"{self.first} to {self.last}"


@dataclass(frozen=True)
class Done:
    """A batch whose tasks are done: its days, to be written, and what they taught."""

    batch: Batch
    job: Job
    buckets: range
    account: pl.DataFrame
    before: State
    after: State

    @cached_property
    def _places(self) -> list[dict[date, tuple[int, int]]]:
        """In each bucket's sessions, which come in order of days: where a day begins, and how many it has."""
        found = []
        for bucket in self.buckets:
            counts = collect(self.job.spool.get(f"sessions-{bucket}").group_by(DAY, maintain_order=True).len()).rows()
            starts = accumulate((count for _, count in counts), initial=0)
            found.append({day: (start, count) for (day, count), start in zip(counts, starts, strict=False)})
        return found

    def days(self) -> list[date]:
        """The days that hold anything: rows read, sessions closed."""
        inside = (pl.col(DAY) >= self.batch.first) & (pl.col(DAY) <= self.batch.last)
        return sorted(set(self.account.filter(inside)[DAY]) | set(self.batch.contents))

    def states(self) -> tuple[State, State]:
        """What is known before the newest day, and after it, items too."""
        side = [chain.name for chain in self.job.recipe.chains[1:] if chain.per == "event"]
        items, states = [self.batch.others.items] if self.batch.others.items is not None else [], []
        for name, state in (("before", self.before), ("newest", self.after)):
            items += [collect(self.job.spool.get(f"items {name}-{bucket}")) for bucket in self.buckets]
            items = [tables.merge_items(items, side)]
            states.append(replace(state, items=items[0], columns=self.batch.run.source.columns))
        return states[0], states[1]

    def profiles(self, earlier: list[Path]) -> Profiles:
        """Those of its days, compared with days before it, whose folders are given."""
        return Profiles.of(self.job.spool, self.buckets, self.batch.run.dataset, self.job.recipe.chains, earlier)

    def write_day(
        self, artifacts: Artifacts, day: date, day_id: str, carried_in: int, after: State, profiles: Profiles
    ) -> Manifest:
        """The artifact `days/<id>`: sessions, open sessions, quarantine, profile, facts."""
        dataset, spool = self.batch.run.dataset, self.job.spool

        def parts(name: str) -> list[pl.LazyFrame]:
            return [spool.get(f"{name}-{bucket}") for bucket in self.buckets]

        slices = [self._places[bucket].get(day, (0, 0)) for bucket in self.buckets]
        cut_out = [part.slice(*place) for part, place in zip(parts("sessions"), slices, strict=True)]
        sessions = tables.of_day(cut_out, day, dataset)
        waiting = pl.concat(parts("open")).filter((pl.col(EVENT_DAY) <= day) & (pl.col(DAY) > day))
        still_open = collect(waiting.sort(sort_keys(dataset, waiting.collect_schema().names())))
        bad = collect(pl.concat(parts("quarantine"), how="diagonal_relaxed").filter(pl.col(EVENT_DAY) == day))
        flat = [name for name, dtype in bad.schema.items() if not dtype.is_nested()]
        bad = bad.sort(RULE, *flat).drop(EVENT_DAY)  # the same however users were divided
        with artifacts.write(KIND, day_id) as draft:
            tables.write(sessions, draft.folder / SESSIONS)
            tables.write(still_open, draft.folder / OPEN)
            if bad.height:
                tables.write(bad, draft.folder / QUARANTINE)
            draft.facts = self._facts(day, sessions, carried_in, still_open.height, after)
            profiles.write(day, draft)
        return draft.manifest

    def _facts(
        self, day: date, sessions: pl.DataFrame, carried_in: int, still_open: int, after: State
    ) -> dict[str, Any]:
        counts = dict(self.account.filter(pl.col(DAY) == day).select(NAME, COUNT).rows())
        broken = _of_kind(counts, QUARANTINED)
        length = sessions[LENGTH]
        admitted = after.learnt[ITEM_ID].filter(pl.col("admitted") == day)[ID].len()
        return {
            "day": tables.name_of(day),
            "rows_in": counts.get(ROWS_IN, 0),
            "carried_in": carried_in,
            "quarantined": dict(sorted(broken.items(), key=lambda entry: (-entry[1], entry[0]))),
            "nulled": _of_kind(counts, NULLED),
            "dropped": {name: counts.get(DROPPED + name, 0) for name in self.job.recipe.names_of_steps},
            "still_open": still_open,
            "events": counts.get(EVENTS, 0),
            "sessions": sessions.height,
            "users": sessions[USER_ID].n_unique(),
            "lengths": {f"p{q}": length.quantile(q / 100, "nearest") for q in (50, 90, 99, 100)}
            if sessions.height
            else {},
            "new_items": admitted,
        }

    def clean_up(self) -> None:
        """Remove what was only needed on the way."""
        if self.job.spool.folder:
            shutil.rmtree(self.job.spool.folder, ignore_errors=True)


def _of_kind(counts: dict[str, int], kind: str) -> dict[str, int]:
    return {name.removeprefix(kind): count for name, count in counts.items() if name.startswith(kind)}


def told_account(account: pl.DataFrame) -> str:
    """Where all rows went, in one line."""
    counts = dict(account.group_by(NAME, maintain_order=True).agg(pl.col(COUNT).sum()).rows())
    rows = counts.pop(ROWS_IN, 0)
    told = [f"{name.partition(': ')[2] or name} {count:,}" for name, count in counts.items() if count]
    return f"of {rows:,} rows: {', '.join(told) or 'none was dropped'}."
