"""The two tasks that touch rows, each over one bucket of users: clean, and encode.

    clean_bucket    raw rows -> check (quarantine) -> steps -> order, cut -> steps -> lengths -> kept rows, statistics
    encode_bucket   kept rows, fitted state -> encoded -> sessions, a Parquet file a day; the latest of each item

A bucket holds all events of its users, so no task needs another one's rows, and what tasks count adds up. A task leaves what
it made in the spool or, sessions, in `Job.parts`; what is there already is not made again. `fit_bucket` runs at the end of
`clean_bucket`, and between the two where an encoder is fitted to what an earlier one of its feature gives.

Rows go to a GPU once, as they are read, and what is kept of them stays there where all of a run is one bucket: every plan over
them runs where they are, and only small tables come back, one row a session, and the values of lists. Rows of several buckets
wait in the spool, on the host. Meanwhile the CPU hashes rows and packs Parquet; it also works on all small tables.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import polars as pl

from preprocessing import frames
from preprocessing.account import KEPT
from preprocessing.encoders import Encoder
from preprocessing.engines import EngineName, engine_of
from preprocessing.execution.buckets import Spool
from preprocessing.execution.cleaning import (
    COUNTS,
    EARLY,
    EARLY_ROWS,
    NULLED_ROWS,
    OPEN,
    QUARANTINE,
    Cleaning,
)
from preprocessing.execution.flow import account_of
from preprocessing.execution.places import by_day
from preprocessing.features.feature import FittedFeature
from preprocessing.frames import CPU, Rows, collect, collect_all
from preprocessing.output import items, sessions
from preprocessing.output.profile import counts
from preprocessing.plan import Plan, plan_of
from preprocessing.sessions import EVENT_DAY, KEY, is_last, row_key
from preprocessing.source.values import local_day
from schemas.columns import COUNT, DAY, LENGTH, TIMESTAMP, VALUE
from schemas.dataset import Dataset

ROWS_KEPT_DAYS = 35  # days whose rows are known one by one; older ones by file


@dataclass(frozen=True)
class Job:
    """What every task of a batch must know. It is small and can be sent to another process."""

    dataset: str
    """As JSON."""
    columns: tuple[tuple[str, pl.DataType], ...]
    """Of events as they are read."""
    reads: tuple[str, ...]
    """Hashes of the tables and keys that steps use."""
    first: date
    last: date
    now: datetime
    engine: EngineName
    spool: Spool
    parts: Path
    """Where sessions are written: `<parts>/<day>/<bucket>.parquet`."""

    @property
    def plan(self) -> Plan:
        """The plan, built once a process."""
        return plan_of(self.dataset, self.columns, self.reads)

    @property
    def parsed(self) -> Dataset:
        """The dataset, read once a process."""
        return _parsed(self.dataset)


@lru_cache(maxsize=4)
def _parsed(dataset: str) -> Dataset:
    return Dataset.model_validate_json(dataset)


def clean_bucket(job: Job, bucket: int) -> None:
    """Raw rows -> kept rows: good, in sessions that close on the batch's days, in order; what each drops; statistics.

    In: `raw-<bucket>` (events as read, with `event day`), `carried-<bucket>` (open events of the days before).
    Out: `kept-<bucket>` (rows with `day`, `session_index`), `open-<bucket>`, `quarantine-<bucket>`, `account-<bucket>`,
    `counts-<bucket>` (sessions a day), `present-<bucket>` (rows that are not null, by column), `statistics-...-<bucket>`.
    """
    spool = job.spool
    if spool.has(f"account-{bucket}"):
        return
    engine = engine_of(job.engine)
    raw = collect(spool.get(f"raw-{bucket}")).rechunk()  # files of the spool are read by the CPU
    carried = collect(spool.get(f"carried-{bucket}")) if spool.has(f"carried-{bucket}") else None
    pack = engine.target == CPU
    with ExitStack() as stack:
        if pack:  # of two plans on the CPU at a time, each takes longer and both hold memory
            spool.put(f"rows-{bucket}", _rows_made_of(job, raw))
        else:  # by the CPU, while a GPU cleans
            meanwhile = stack.enter_context(ThreadPoolExecutor(1))
            hashed = meanwhile.submit(_rows_made_of, job, raw)
        cleaning = Cleaning.of(
            job.parsed, job.plan, job.last, job.now, frames.on(engine.target, raw), carried, pack=pack
        )
        made, kept, drops = cleaning.run(engine.target)
        account = account_of(raw, made[QUARANTINE], made.get(NULLED_ROWS), made[COUNTS], drops)
        if not pack:
            spool.put(f"rows-{bucket}", hashed.result())
    if job.parsed.own_parts():  # which may look at rows on the CPU
        kept = frames.on(engine.target, frames.to_host(kept))
    columns = dict.fromkeys(feature.column for feature in job.plan.features)
    counted = [
        kept.lazy().group_by(DAY).agg(pl.len().cast(pl.Int64).alias(COUNT)),
        kept.lazy().select(pl.col(name).count() for name in columns),
        sessions.count_sessions(kept.lazy()),
    ]
    days, present, num_sessions = collect_all(counted, engine.target)
    account.add(KEPT, days)
    spool.put(f"present-{bucket}", present)
    spool.put(f"counts-{bucket}", num_sessions)
    for name in (OPEN, QUARANTINE, EARLY_ROWS):
        if name in made:
            spool.put(f"{name}-{bucket}", made[name])
    for one in cleaning.early():
        spool.put(_statistics(one, bucket), made[f"{EARLY}{one.name}"])
    spool.put(f"kept-{bucket}", kept)
    fit_bucket(job, bucket, kept)
    spool.put(f"account-{bucket}", account.table())
    spool.drop(f"raw-{bucket}")


def _rows_made_of(job: Job, raw: pl.DataFrame) -> pl.DataFrame:
    """`event day` and a hash of each row of the batch's last days that is of that day, in order of the day."""
    columns = raw.columns
    if TIMESTAMP not in columns:
        return pl.DataFrame(schema={EVENT_DAY: pl.Date, KEY: pl.UInt64})
    recent = pl.col(EVENT_DAY) > job.last - timedelta(days=ROWS_KEPT_DAYS)
    own = local_day(pl.col(TIMESTAMP), job.parsed.time_zone) == pl.col(EVENT_DAY)
    return by_day(collect(raw.lazy().filter(recent & own).select(EVENT_DAY, row_key(columns))), EVENT_DAY)


def fit_bucket(job: Job, bucket: int, kept: Rows | None = None) -> None:
    """Statistics of this bucket's rows for the next encoder of every feature that is to be fitted: `statistics-...`.

    `kept` are its kept rows, where they are at hand.
    """
    engine, spool = engine_of(job.engine), job.spool
    pending = [one for one in fitted_so_far(job) if one.next_to_fit and not spool.has(_statistics(one, bucket))]
    early = [one for one in pending if one.next_to_fit and not one.next_to_fit.by_day]
    rest = [one for one in pending if one not in early]
    if early:
        _fit(job, bucket, spool.rows(f"early-{bucket}", engine.target), early)
    if rest:
        rows = spool.rows(f"kept-{bucket}", engine.target) if kept is None else kept
        _fit(job, bucket, _fitted_to(job, rows), rest)


def _fit(job: Job, bucket: int, rows: Rows, chosen: list[FittedFeature]) -> None:
    for one, table in zip(chosen, engine_of(job.engine).fit(rows, chosen), strict=True):
        job.spool.put(_statistics(one, bucket), table)


def _fitted_to(job: Job, kept: Rows) -> Rows:
    """The kept rows that encoders may be fitted to: not those that are to be predicted."""
    if job.parsed.split != "leave_one_out":
        return kept
    return frames.keep(kept.lazy().filter(~is_last()), engine_of(job.engine).target)


def statistics_of(job: Job, buckets: range) -> dict[str, pl.DataFrame]:
    """The statistics of all buckets for the next encoders, by the name of the state they go into; rows are in a fixed order.

    Those by value are of numbers, which are summed up: one row for each day and value, however many buckets there are.
    """
    found: dict[str, list[pl.DataFrame]] = {}
    encoders: dict[str, Encoder] = {}
    for one in fitted_so_far(job):
        if one.next_to_fit:
            encoders[one.state_name] = one.next_to_fit
            parts = [collect(job.spool.get(_statistics(one, bucket))) for bucket in buckets]
            found.setdefault(one.state_name, []).extend(parts)
    tables = {name: pl.concat(parts, how="vertical_relaxed") for name, parts in found.items()}
    # Sums of floats depend on the order in their last bits.
    return {
        name: encoders[name].sum_parts(table) if VALUE in table.columns else table.sort(table.columns)
        for name, table in tables.items()
    }


def _statistics(one: FittedFeature, bucket: int) -> str:
    return f"statistics-{one.name}.{one.next_place}-{bucket}"


def put_tables(job: Job, fitted: list[FittedFeature]) -> None:
    """Leave the tables of fitted encoders for the tasks that follow."""
    for one in fitted:
        for place, table in enumerate(one.tables):
            if table is not None:
                job.spool.put(f"table-{one.name}.{place}", table)


def fitted_so_far(job: Job) -> list[FittedFeature]:
    """The features with the tables that are there."""
    found = []
    for feature in job.plan.features:
        one = FittedFeature(feature)
        while one.next_to_fit and job.spool.has(table := f"table-{feature.name}.{one.next_place}"):
            one = one.with_table(collect(job.spool.get(table)))
        found.append(one)
    return found


def encode_bucket(job: Job, bucket: int) -> None:
    """Kept rows -> sessions, a file a day in `Job.parts`; the latest of each item of each day; what profiles count.

    In: `kept-<bucket>`, the tables of fitted encoders, `counts-<bucket>` of the buckets before.
    Out: `items-<bucket>` (day, item_id, last_seen, features), `users-<bucket>` (sessions and users a day), `profile-<bucket>`.
    """
    spool = job.spool
    if spool.has(f"profile-{bucket}"):
        return
    dataset, engine, features = job.parsed, engine_of(job.engine), job.plan.features
    rows = spool.rows(f"kept-{bucket}", engine.target)
    encoded = engine.transform(rows, fitted_so_far(job), sessions.kept_columns(dataset, rows.columns))
    grouped = sessions.group(encoded, dataset, features, engine.target)
    earlier = [collect(spool.get(f"counts-{other}")) for other in range(bucket)]
    spool.put(f"users-{bucket}", sessions.count_users(grouped))
    with sessions.writing(grouped, earlier, dataset, job.parts, bucket):  # Parquet is packed by threads of its own
        latest = items.latest_by_day(_fitted_to(job, encoded), dataset, features, engine.target)
        spool.put(f"items-{bucket}", latest)
        lengths = grouped.table.select(DAY, LENGTH)
        spool.put(f"profile-{bucket}", counts.count(rows, lengths, dataset, features, engine.target))
    spool.drop(f"kept-{bucket}")
