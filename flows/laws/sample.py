"""Events that parts are tried with: few users, some days, ties, gaps and nulls; the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

from flows.laws import NotTriedError, missing_column
from preprocessing.features.uses import with_text_types
from preprocessing.sessions import close, cut, sort_keys
from preprocessing.source.events import as_found, read_events
from schemas.columns import EVENT_TYPE, ITEM_ID, POSITION, SESSION_ID, TIMESTAMP, USER_ID
from schemas.dataset import Dataset
from schemas.errors import InputError

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
NOW = MONDAY + timedelta(days=30)
SEEDS = range(6)
TIME = pl.Datetime("us", "UTC")
Columns = dict[str, Any]  # by name, the type of each column of events
COLUMNS: Columns = {
    USER_ID: pl.String,
    ITEM_ID: pl.String,
    TIMESTAMP: TIME,
    EVENT_TYPE: pl.String,
    "price": pl.Float64,
    "category": pl.String,
}
MOST_MISSING = 4
TYPES = (pl.Float64, pl.String, pl.Boolean, TIME)  # that a column without a known type is tried as


def dataset_of(columns: Columns, **parts: Any) -> Dataset:
    """A dataset with these columns, taken day by day."""
    events = {"columns": {name: name for name in columns}}
    return Dataset.model_validate({"name": "trial", "events": events, **parts})


def columns_of(dataset: Dataset | None) -> Columns:
    """The columns of a dataset's events, of the types they have in its files, where these are there; or usual ones."""
    if dataset is None:
        return COLUMNS
    if dataset.source and (dataset.database is None or Path(dataset.source).is_dir()):
        found = read_events(with_text_types(dataset)).collect_schema()
        return {name: dtype for name, dtype in found.items() if not name.endswith(as_found(""))}
    by_name = {**COLUMNS, SESSION_ID: pl.String, POSITION: pl.Int64}
    return {name: by_name[name] for name in dataset.events.columns if name in by_name}


def events_of(columns: Columns, seed: int) -> pl.DataFrame:
    """Events of five users on three days, in sessions; no two of one user at the same moment."""
    random = Random(seed)
    rows: list[dict[str, Any]] = []
    for user in range(5):
        moment = MONDAY + timedelta(hours=random.randint(0, 30))
        for place in range(random.randint(3, 14)):
            moment += timedelta(minutes=random.choice([0.5, 1, 5, 20, 45, 400]))
            row = {name: value_of(random, dtype, name, seed % 2 == 1) for name, dtype in columns.items()}
            ids = {USER_ID: _id(user, columns[USER_ID])} if USER_ID in columns else {}
            if SESSION_ID in columns:
                ids[SESSION_ID] = _id(100 * user + (moment - MONDAY).days, columns[SESSION_ID])
            rows.append(row | ids | {TIMESTAMP: moment, POSITION: place})
    frame = pl.DataFrame(rows, schema_overrides={POSITION: pl.Int64, TIMESTAMP: TIME}, infer_schema_length=None)
    return frame.select(pl.col(name).cast(dtype) for name, dtype in columns.items())


def sessions_of(events: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """The same in order and cut into sessions, as steps with `needs_sessions` get them."""
    ordered = events.sort(sort_keys(dataset, events.columns))
    return close(cut(ordered.lazy(), dataset), dataset).collect()


def columns_for(attempt: Callable[[Columns], object], columns: Columns) -> Columns:
    """The columns, and those that an attempt says are missing, of types with which it goes well.

    The types of usual columns (a price) are tried otherwise, too; those of a dataset are what they are.

    Raises:
        NotTriedError: when it never goes well.
    """
    missing: list[str] = []
    free = ("price", "category", EVENT_TYPE) if columns is COLUMNS else ()
    while True:
        reason, asked = "", ""
        for wanted in _typed(columns, missing, free):
            try:
                attempt(wanted)
                return wanted
            except (pl.exceptions.PolarsError, InputError) as error:
                reason = reason or str(error).partition("\n")[0]
                asked = missing_column(error) or ""
            if asked and asked not in columns and asked not in missing and len(missing) < MOST_MISSING:
                missing.append(asked)
                break
        else:
            raise NotTriedError(f"{reason.rstrip('.')}. Give --dataset YAML (and --source) with fitting columns.")


def _typed(columns: Columns, missing: list[str], free: tuple[str, ...]) -> Iterator[Columns]:
    """The columns with the missing ones in all types, then with one of the free ones in another type as well."""
    every = [columns | dict(zip(missing, types, strict=True)) for types in product(TYPES, repeat=len(missing))]
    yield from every
    yield from (wanted | {name: dtype} for name in free for dtype in TYPES for wanted in every)


def _id(number: int, dtype: Any) -> Any:
    return number + 1 if pl.Series(dtype=dtype).dtype.is_integer() else f"u{number}"


def value_of(random: Random, dtype: Any, name: str, nan: bool) -> Any:
    """One value; NaN only sometimes, for it hides in every mean what else is wrong."""
    kind = pl.Series(dtype=dtype).dtype
    if isinstance(kind, pl.List):
        return random.choice([None, [value_of(random, kind.inner, "", nan) for _ in range(random.randint(0, 3))]])
    if name != ITEM_ID and random.random() < 0.2:
        return None
    if kind.is_float():
        return random.choice([-2.5, 0.0, 0.25, 1.0, 3.0, 250.0, float("nan") if nan else 7.5])
    if kind.is_integer():
        return random.randint(0, 5)
    if kind == pl.Boolean:
        return random.random() < 0.5
    if kind == pl.Date:
        return date(2023, 12, 20) + timedelta(days=random.randint(0, 20))
    if isinstance(kind, pl.Datetime):
        return MONDAY + timedelta(hours=random.randint(-100, 100))
    return random.choice(["view", "cart", "a", "b", "ab c"]) if name != ITEM_ID else random.choice("vwxyz")
