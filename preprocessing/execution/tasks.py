"""The tasks of a batch of days, each over one bucket of users: clean, learn, encode.

    raw rows of some users -> check (quarantine) -> steps -> sort, cut -> steps -> lengths -> kept rows
    kept rows -> what each day teaches; kept rows, what is known -> encoded -> sessions

A bucket holds all events of its users, so no task needs to know of another, and what they count and learn adds up. A task
leaves what it made in the spool; what is there already is not made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from preprocessing.collect import collect
from preprocessing.engines import Engine, EngineName, engine_of
from preprocessing.execution.buckets import Spool
from preprocessing.features.chains import Fitted
from preprocessing.output import sessions as tables
from preprocessing.output.profile import counts
from preprocessing.plan import CUT, DUPLICATES, EVENT_DAY, SHORT, Recipe, recipe_of
from preprocessing.rules import RULE_CODE
from preprocessing.sessions import (
    SESSION_INDEX,
    close,
    cut,
    drop_short,
    is_last,
    keep_recent,
    sort_and_deduplicate,
)
from schemas.columns import COUNT, DAY, END, ITEM_ID, RULE
from schemas.dataset import Dataset
from schemas.errors import InputError

ROWS_IN, EVENTS, QUARANTINED, DROPPED = "rows in", "events", "quarantined: ", "dropped: "
NULLED = "nulled: "  # rows that stay without a value that did not fit: no part of the balance
NAME = "name"


@dataclass(frozen=True)
class Job:
    """What every task of a batch must know. It is small and can be sent to another process."""

    dataset: str
    """As JSON."""
    columns: tuple[tuple[str, pl.DataType], ...]
    """Of events as they are read."""
    beside: tuple[str, ...]
    """Hashes of the tables and keys that steps use."""
    first: date
    last: date
    newest: date
    """The day that is tested on: what items were like before it is kept apart."""
    now: datetime
    engine: EngineName
    spool: Spool

    @property
    def recipe(self) -> Recipe:
        """The recipe, built once a process."""
        return recipe_of(self.dataset, self.columns, self.beside)

    @property
    def parsed(self) -> Dataset:
        """The dataset."""
        return Dataset.model_validate_json(self.dataset)


class Account:
    """How many rows of each day went where. Accounts of buckets add up."""

    def __init__(self) -> None:
        self.parts = [pl.DataFrame(schema={DAY: pl.Date, NAME: pl.String, COUNT: pl.Int64})]

    def add(self, name: str, counts: pl.DataFrame, sign: int = 1) -> None:
        """Enter counts by day."""
        self.parts.append(counts.select(DAY, pl.lit(name).alias(NAME), pl.col(COUNT) * sign))

    def table(self) -> pl.DataFrame:
        """`day`, `name`, `count`."""
        return add_up(self.parts)


def count(rows: pl.DataFrame, day: str) -> pl.DataFrame:
    """Rows by their column `day`."""
    return collect(rows.lazy().group_by(pl.col(day).alias(DAY)).agg(pl.len().cast(pl.Int64).alias(COUNT)))


class Rows:
    """Rows on their way through steps; what each drops is entered into an account under the day named by `day`."""

    def __init__(self, rows: pl.DataFrame, day: str, account: Account, engine: Engine) -> None:
        self.rows, self.day, self.account, self.engine = rows, day, account, engine
        self.counts = count(rows, day)

    def through(self, name: str, step: Callable[[pl.LazyFrame], pl.LazyFrame]) -> None:
        """Apply a step."""
        self.keep(name, self.engine.collect(step(self.rows.lazy())))

    def keep(self, name: str, left: pl.DataFrame) -> None:
        """Go on with what a step left."""
        if left.height > self.rows.height:
            raise InputError(
                f"step {name} made {left.height:,} rows of {self.rows.height:,}; a step may only drop rows."
            )
        if left.height < self.rows.height:
            counts = count(left, self.day)
            self.account.add(DROPPED + name, self.counts)
            self.account.add(DROPPED + name, counts, -1)
            self.counts = counts
        self.rows = left


def add_up(accounts: list[pl.DataFrame]) -> pl.DataFrame:
    """One account of several."""
    return pl.concat(accounts).group_by(DAY, NAME, maintain_order=True).agg(pl.col(COUNT).sum())


def clean(job: Job, bucket: int) -> None:
    """Raw rows to kept rows: good, in sessions that close on the batch's days, in order."""
    spool = job.spool
    if spool.has(f"account-{bucket}"):
        return
    dataset, recipe, engine, account = job.parsed, job.recipe, engine_of(job.engine), Account()
    events = Rows(_check(job, bucket, account, engine), EVENT_DAY, account, engine)
    account.add(ROWS_IN, events.counts)
    for name, step in recipe.before:
        events.through(name, step.apply)
    if spool.has(f"carried-{bucket}"):
        carried = collect(spool.get(f"carried-{bucket}")).select(events.rows.columns)
        events = Rows(pl.concat([events.rows, carried], how="vertical_relaxed"), EVENT_DAY, account, engine)
    events.keep(DUPLICATES, sort_and_deduplicate(events.rows, dataset, engine))
    spool.put(f"timeless-{bucket}", _for_timeless(recipe, events.rows))
    closed = engine.collect(close(cut(events.rows.lazy(), dataset), dataset))
    events = Rows(_set_open_aside(job, bucket, closed, engine), DAY, account, engine)
    for name, step in recipe.after:
        events.through(name, step.apply)
    events.through(SHORT, lambda rows: drop_short(rows, dataset.sessions.min_length))
    events.through(CUT, lambda rows: keep_recent(rows, dataset.sessions.max_length))
    account.add(EVENTS, events.counts)
    sources = dict.fromkeys(chain.column for chain in recipe.chains)
    spool.put(f"present-{bucket}", collect(events.rows.lazy().select(pl.col(name).count() for name in sources)))
    spool.put(f"kept-{bucket}", events.rows.drop(EVENT_DAY))
    spool.put(f"account-{bucket}", account.table())
    spool.drop(f"raw-{bucket}")


def _check(job: Job, bucket: int, account: Account, engine: Engine) -> pl.DataFrame:
    """Good rows; bad ones go to quarantine as they were found."""
    rules = job.recipe.rules
    raw = collect(job.spool.get(f"raw-{bucket}"))  # files of the spool are read by the CPU
    marked = rules.mark(raw.lazy(), job.now)
    good, bad, nulled = engine.collect_all(
        [
            rules.without_private(marked.filter(pl.col(RULE_CODE) == 0)),
            rules.as_found(marked.filter(pl.col(RULE_CODE) > 0)),
            rules.nulled(marked, job.now, EVENT_DAY),
        ]
    )
    for (rule,), rows in nulled.partition_by(RULE, as_dict=True).items():
        account.add(
            f"{NULLED}{rule}", rows.select(pl.col(EVENT_DAY).alias(DAY), pl.col("len").cast(pl.Int64).alias(COUNT))
        )
    for (rule,), broken in bad.partition_by(RULE, as_dict=True).items():
        counts = count(broken, EVENT_DAY)
        account.add(ROWS_IN, counts)
        account.add(f"{QUARANTINED}{rule}", counts)
    job.spool.put(f"quarantine-{bucket}", bad)
    return good


def _for_timeless(recipe: Recipe, events: pl.DataFrame) -> pl.DataFrame:
    """What timeless encoders learn from: they need no sessions, so they see the open ones too."""
    wanted = {chain.column for chain in recipe.chains if chain.encoders[0].timeless}
    return events.select(name for name in events.columns if wanted and name in wanted | {ITEM_ID})


def _set_open_aside(job: Job, bucket: int, events: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    """Events of sessions that close within the batch; those that wait over a midnight are kept for the day after it."""
    waiting = engine.collect(events.lazy().filter(pl.col(EVENT_DAY) < pl.col(DAY)).drop(SESSION_INDEX, END))
    job.spool.put(f"open-{bucket}", waiting)
    if waiting.is_empty():
        return events
    return engine.collect(events.lazy().filter(pl.col(DAY) <= job.last))


def learn(job: Job, bucket: int) -> None:
    """What the next encoder of every feature learns from this bucket's rows."""
    engine, spool = engine_of(job.engine), job.spool
    pending = [one for one in fitted_so_far(job) if one.next and not spool.has(_learnt(one, bucket))]
    timeless = [one for one in pending if one.next and one.next.timeless]
    others = [one for one in pending if one not in timeless]
    kept = spool.get(f"kept-{bucket}")
    if job.parsed.split == "leave_one_out":
        kept = kept.filter(~is_last())
    for rows, features in ((spool.get(f"timeless-{bucket}"), timeless), (kept, others)):
        if features:
            for one, table in zip(features, engine.learn(collect(rows), features), strict=True):
                spool.put(_learnt(one, bucket), table)


def what_was_learnt(job: Job, buckets: range) -> dict[str, pl.DataFrame]:
    """What all buckets taught the next encoders, by the name under which it is kept."""
    found: dict[str, list[pl.DataFrame]] = {}
    for one in fitted_so_far(job):
        if one.next:
            parts = [collect(job.spool.get(_learnt(one, bucket))) for bucket in buckets]
            found.setdefault(one.keeps, []).extend(parts)
    return {name: pl.concat(parts, how="vertical_relaxed") for name, parts in found.items()}


def _learnt(one: Fitted, bucket: int) -> str:
    return f"learnt-{one.chain.name}.{one.place}-{bucket}"


def put_tables(job: Job, fitted: list[Fitted]) -> None:
    """Leave the tables of fitted encoders for the tasks that follow."""
    for one in fitted:
        for place, table in enumerate(one.tables):
            if table is not None:
                job.spool.put(f"table-{one.chain.name}.{place}", table)


def fitted_so_far(job: Job) -> list[Fitted]:
    """The features with the tables that are there."""
    found = []
    for chain in job.recipe.chains:
        one = Fitted(chain)
        while one.next and job.spool.has(table := f"table-{chain.name}.{one.place}"):
            one = one.with_table(collect(job.spool.get(table)))
        found.append(one)
    return found


def encode(job: Job, bucket: int) -> None:
    """Kept rows to sessions, and what each item's latest event says of it."""
    spool = job.spool
    if spool.has(f"sessions-{bucket}"):
        return
    dataset, engine, fitted = job.parsed, engine_of(job.engine), fitted_so_far(job)
    rows = collect(spool.get(f"kept-{bucket}"))
    encoded = engine.encode(rows, fitted, tables.kept_columns(dataset, rows.columns))
    teaching = encoded.lazy()
    if dataset.split == "leave_one_out":
        teaching = teaching.filter(~is_last())
    before, newest = teaching.filter(pl.col(DAY) < job.newest), teaching.filter(pl.col(DAY) == job.newest)
    chains = job.recipe.chains
    sessions, *latest = engine.collect_all(
        [
            tables.group(encoded.lazy(), dataset, chains),
            *(tables.latest_of_items(part, dataset, chains) for part in (before, newest)),
        ]
    )
    for name, part in zip(("before", "newest"), latest, strict=True):
        spool.put(f"items {name}-{bucket}", part)
    spool.put(f"profile-{bucket}", counts.count(rows, sessions, dataset, chains, engine))
    spool.put(f"sessions-{bucket}", sessions)
    spool.drop(f"kept-{bucket}")
