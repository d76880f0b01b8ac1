"""The two tasks that touch rows, each over one bucket of users: clean, and encode.

    clean_bucket    raw rows -> check (quarantine) -> steps -> order, cut -> steps -> lengths -> kept rows, statistics
    encode_bucket   kept rows, fitted state -> encoded -> sessions, a Parquet file a day; the latest of each item

A bucket holds all events of its users, so no task needs another one's rows, and what tasks count adds up. A task leaves what
it made in the spool or, sessions, in `Job.parts`; what is there already is not made again. `fit_bucket` runs between the two
where an encoder is fitted to what an earlier one of its feature gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl

from preprocessing.account import CUT, DROPPED, DUPLICATES, KEPT, NULLED, QUARANTINED, READ, SHORT, Account, count_rows
from preprocessing.engines import Engine, EngineName, engine_of
from preprocessing.execution.buckets import Spool
from preprocessing.features.feature import FittedFeature
from preprocessing.frames import collect, collect_all
from preprocessing.output import items, sessions
from preprocessing.output.profile import counts
from preprocessing.plan import Plan, plan_of
from preprocessing.plan.own_steps import apply_through
from preprocessing.plan.rules import RULE_CODE
from preprocessing.sessions import (
    EVENT_DAY,
    KEY,
    SESSION_INDEX,
    close,
    cut,
    drop_duplicates,
    drop_short,
    has_ties,
    in_order,
    is_last,
    keep_recent,
    row_key,
    sort_keys,
)
from preprocessing.source.values import local_day
from preprocessing.steps import Step
from schemas.columns import DAY, END, ITEM_ID, RULE, TIMESTAMP
from schemas.dataset import Dataset
from schemas.errors import InputError

ROWS_KEPT_DAYS = 35  # days whose rows are known one by one; older ones by file
PLACE = "place"  # of a row, while a step runs that may change the order


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
        """The dataset."""
        return Dataset.model_validate_json(self.dataset)


class Rows:
    """Rows on their way through steps; what each drops is entered into an account under the day named by `day`."""

    def __init__(self, rows: pl.DataFrame, day: str, account: Account, engine: Engine) -> None:
        self.rows, self.day, self.account, self.engine = rows, day, account, engine
        self.counts = count_rows(rows, day)

    def through(self, name: str, step: Callable[[pl.LazyFrame], pl.LazyFrame]) -> None:
        """Apply a step."""
        self.keep(name, collect(step(self.rows.lazy()), self.engine.target))

    def keep(self, name: str, left: pl.DataFrame) -> None:
        """Go on with what a step left."""
        if left.height > self.rows.height:
            raise InputError(
                f"step {name} made {left.height:,} rows of {self.rows.height:,}; a step may only drop rows."
            )
        if left.height < self.rows.height:
            counts = count_rows(left, self.day)
            self.account.add(DROPPED, self.counts, name)
            self.account.add(DROPPED, counts, name, sign=-1)
            self.counts = counts
        self.rows = left


def clean_bucket(job: Job, bucket: int) -> None:
    """Raw rows -> kept rows: good, in sessions that close on the batch's days, in order; what each drops; statistics.

    In: `raw-<bucket>` (events as read, with `event day`), `carried-<bucket>` (open events of the days before).
    Out: `kept-<bucket>` (rows with `day`, `session_index`), `open-<bucket>`, `quarantine-<bucket>`, `account-<bucket>`,
    `counts-<bucket>` (sessions a day), `present-<bucket>` (rows that are not null, by column), `statistics-...-<bucket>`.
    """
    spool = job.spool
    if spool.has(f"account-{bucket}"):
        return
    dataset, plan, engine, account = job.parsed, job.plan, engine_of(job.engine), Account()
    rows = Rows(_check(job, bucket, account, engine), EVENT_DAY, account, engine)
    account.add(READ, rows.counts)
    for name, step in plan.row_steps:
        rows.through(name, partial(apply_through, name, step))
    if spool.has(f"carried-{bucket}"):
        carried = collect(spool.get(f"carried-{bucket}")).select(rows.rows.columns)
        rows = Rows(pl.concat([rows.rows, carried], how="vertical_relaxed"), EVENT_DAY, account, engine)
    rows.keep(DUPLICATES, order_events(rows.rows, dataset, engine))
    before_sessions = rows.rows
    closed = collect(close(cut(rows.rows.lazy(), dataset), dataset), engine.target)
    rows = Rows(_set_open_aside(job, bucket, closed, engine), DAY, account, engine)
    for name, step in plan.session_steps:
        rows.through(name, _in_place(name, step))
    rows.through(SHORT, lambda events: drop_short(events, dataset.sessions.min_length))
    rows.through(CUT, lambda events: keep_recent(events, dataset.sessions.max_length))
    account.add(KEPT, rows.counts)
    kept = rows.rows.drop(EVENT_DAY)
    columns = dict.fromkeys(feature.column for feature in plan.features)
    spool.put(f"present-{bucket}", collect(kept.lazy().select(pl.col(name).count() for name in columns)))
    spool.put(f"counts-{bucket}", collect(sessions.count_sessions(kept.lazy())))
    spool.put(f"early-{bucket}", _early(plan, before_sessions))
    spool.put(f"kept-{bucket}", kept)
    fit_bucket(job, bucket)
    spool.put(f"account-{bucket}", account.table())
    spool.drop(f"raw-{bucket}")


def _check(job: Job, bucket: int, account: Account, engine: Engine) -> pl.DataFrame:
    """Good rows; bad ones go to quarantine as they are in the source."""
    rules = job.plan.rules
    raw = collect(job.spool.get(f"raw-{bucket}"))  # files of the spool are read by the CPU
    job.spool.put(f"rows-{bucket}", _rows_made_of(job, raw))
    marked = rules.mark(raw.lazy(), job.now)
    good, bad, nulled = collect_all(
        [
            rules.without_private(marked.filter(pl.col(RULE_CODE) == 0)),
            rules.as_found(marked.filter(pl.col(RULE_CODE) > 0)),
            rules.nulled(marked, job.now, EVENT_DAY),
        ],
        engine.target,
    )
    for (rule,), rows in nulled.partition_by(RULE, as_dict=True).items():
        account.add(NULLED, rows.rename({EVENT_DAY: DAY}), str(rule))
    for (rule,), broken in bad.partition_by(RULE, as_dict=True).items():
        counts = count_rows(broken, EVENT_DAY)
        account.add(READ, counts)
        account.add(QUARANTINED, counts, str(rule))
    job.spool.put(f"quarantine-{bucket}", bad)
    return good


def _rows_made_of(job: Job, raw: pl.DataFrame) -> pl.DataFrame:
    """`event day` and a hash of each row of the batch's last days that is of that day."""
    columns = raw.columns
    if TIMESTAMP not in columns:
        return pl.DataFrame(schema={EVENT_DAY: pl.Date, KEY: pl.UInt64})
    recent = pl.col(EVENT_DAY) > job.last - timedelta(days=ROWS_KEPT_DAYS)
    own = local_day(pl.col(TIMESTAMP), job.parsed.time_zone) == pl.col(EVENT_DAY)
    return collect(raw.lazy().filter(recent & own).select(EVENT_DAY, row_key(columns)))


def order_events(events: pl.DataFrame, dataset: Dataset, engine: Engine) -> pl.DataFrame:
    """Events in order, of those that are the same the first."""
    keys = sort_keys(dataset, events.columns)
    others = [name for name, dtype in events.schema.items() if name not in keys and not dtype.is_nested()]
    compared = keys
    ordered = collect(in_order(events.lazy(), keys), engine.target)
    if others and collect(has_ties(ordered.lazy(), keys, others), engine.target).item():
        ordered = collect(in_order(events.lazy(), keys, others), engine.target)
        compared = [name for name in (*keys, *others) if name != EVENT_DAY]
    return collect(drop_duplicates(ordered.lazy(), dataset, compared), engine.target)


def _in_place(name: str, step: Step) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """A step that leaves rows in order of session and time, also where it was not made for that."""
    if step.needs_sessions:
        return partial(apply_through, name, step)

    def apply(rows: pl.LazyFrame) -> pl.LazyFrame:
        return apply_through(name, step, rows.with_row_index(PLACE)).sort(PLACE).drop(PLACE)

    return apply


def _early(plan: Plan, events: pl.DataFrame) -> pl.DataFrame:
    """What encoders are fitted to that need no sessions: they see the open ones too."""
    wanted = {feature.column for feature in plan.features if not feature.encoders[0].by_day}
    return events.select(name for name in events.columns if wanted and name in wanted | {ITEM_ID})


def _set_open_aside(job: Job, bucket: int, events: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    """Events of sessions that close within the batch; those that wait over a midnight are kept for the day after it."""
    waiting = collect(events.lazy().filter(pl.col(EVENT_DAY) < pl.col(DAY)).drop(SESSION_INDEX, END), engine.target)
    job.spool.put(f"open-{bucket}", waiting)
    if waiting.is_empty():
        return events
    return collect(events.lazy().filter(pl.col(DAY) <= job.last), engine.target)


def fit_bucket(job: Job, bucket: int) -> None:
    """Statistics of this bucket's rows for the next encoder of every feature that is to be fitted: `statistics-...`."""
    engine, spool = engine_of(job.engine), job.spool
    pending = [one for one in fitted_so_far(job) if one.next_to_fit and not spool.has(_statistics(one, bucket))]
    early = [one for one in pending if one.next_to_fit and not one.next_to_fit.by_day]
    others = [one for one in pending if one not in early]
    kept = spool.get(f"kept-{bucket}")
    if job.parsed.split == "leave_one_out":
        kept = kept.filter(~is_last())
    for rows, chosen in ((spool.get(f"early-{bucket}"), early), (kept, others)):
        if chosen:
            for one, table in zip(chosen, engine.fit(collect(rows), chosen), strict=True):
                spool.put(_statistics(one, bucket), table)


def statistics_of(job: Job, buckets: range) -> dict[str, pl.DataFrame]:
    """The statistics of all buckets for the next encoders, by the name of the state they go into."""
    found: dict[str, list[pl.DataFrame]] = {}
    for one in fitted_so_far(job):
        if one.next_to_fit:
            parts = [collect(job.spool.get(_statistics(one, bucket))) for bucket in buckets]
            found.setdefault(one.state_name, []).extend(parts)
    return {name: pl.concat(parts, how="vertical_relaxed") for name, parts in found.items()}


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
    Out: `items-<bucket>` (day, item_id, last_seen, features), `profile-<bucket>`.
    """
    spool = job.spool
    if spool.has(f"profile-{bucket}"):
        return
    dataset, engine, features = job.parsed, engine_of(job.engine), job.plan.features
    rows = collect(spool.get(f"kept-{bucket}"))
    encoded = engine.transform(rows, fitted_so_far(job), sessions.kept_columns(dataset, rows.columns))
    lasting = encoded.lazy()
    if dataset.split == "leave_one_out":
        lasting = lasting.filter(~is_last())
    grouped, latest = collect_all(
        [sessions.group(encoded.lazy(), dataset, features), items.latest_by_day(lasting, dataset, features)],
        engine.target,
    )
    earlier = [collect(spool.get(f"counts-{other}")) for other in range(bucket)]
    sessions.write_parts(grouped, earlier, dataset, job.parts, bucket)
    spool.put(f"items-{bucket}", latest)
    spool.put(f"profile-{bucket}", counts.count(rows, grouped, dataset, features, engine.target))
    spool.drop(f"kept-{bucket}")
