"""What every encoder obeys: it is the same whatever the batches, the parts and the order, and knows nothing of the future."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import Any

import polars as pl
from polars.testing import assert_frame_equal

from flows.laws import Law, require
from flows.laws.encoding import ROW, encode_days
from flows.laws.sample import MONDAY, TIME, Columns, columns_for, dataset_of, value_of
from preprocessing.encoders import Encoder
from preprocessing.encoders.category import Category
from preprocessing.features.compile import compile_features
from preprocessing.features.feature import Feature
from preprocessing.features.state import FeatureState
from preprocessing.sessions import SESSION_INDEX, changed, is_last
from schemas.columns import DAY, ID, ITEM_ID, TIMESTAMP, USER_ID, VALUE

DAYS = [MONDAY.date() + timedelta(days=day) for day in range(4)]
BY_TAKES = {"anything": "category", "numbers": "price", "times": "timestamp", "dates": "since", "text": "text"}
COLUMNS: Columns = {
    ITEM_ID: pl.String,
    "price": pl.Float64,
    "category": pl.String,
    "text": pl.String,
    "tags": pl.List(pl.String),
    "bought": pl.Boolean,
    "since": pl.Date,
}
SEEDS = range(4)


@dataclass(frozen=True)
class Trial:
    """Features that an encoder makes, and rows of two nights to try them on; `seed` chooses how they are divided."""

    encoder: type[Encoder]
    features: list[Feature]
    rows: pl.DataFrame
    others: pl.DataFrame
    seed: int = 0

    @property
    def uses_the_day(self) -> bool:
        """Whether it may use the day itself: ids are given to what is new, and an item is as old as it is."""
        return issubclass(self.encoder, Category) or not self.encoder.by_day

    def encode(
        self, rows: pl.DataFrame, batches: Sequence[Sequence[date]] = (DAYS,), buckets: int = 1
    ) -> tuple[pl.DataFrame, FeatureState]:
        """The features of rows, and the state after them."""
        return encode_days(self.features, rows, batches, buckets)


def trials_of(
    encoder: type[Encoder], name: str, features: Iterable[dict[str, Any]], plugins: tuple[str, ...]
) -> list[Trial]:
    """A trial for every seed; a feature without a column is made from the one its encoder's `takes` asks for.

    Raises:
        NotTriedError: when it fits no columns.
    """
    wanted = {f"{name}_{place}": {"column": BY_TAKES[encoder.takes]} | one for place, one in enumerate(features)}

    def built(columns: Columns) -> list[Feature]:
        there = {USER_ID: pl.Int64, **columns, TIMESTAMP: TIME}
        dataset = dataset_of(there, features=wanted, plugins=list(plugins))
        return compile_features(dataset, pl.Schema(there))

    def attempt(columns: Columns) -> None:
        encode_days(built(columns), rows_of(columns, 0), [DAYS])

    columns = columns_for(attempt, COLUMNS)
    return [
        Trial(encoder, built(columns), rows_of(columns, seed), rows_of(columns, seed + 100), seed) for seed in SEEDS
    ]


def rows_of(columns: Columns, seed: int) -> pl.DataFrame:
    """Sessions of some of four users on some of four days, in order, every row numbered."""
    random = Random(seed)
    rows: list[dict[str, Any]] = []
    for user in range(4):
        for day in sorted(random.sample(DAYS, random.randint(1, 4))):
            moment = MONDAY.replace(day=day.day)
            for _ in range(random.randint(1, 4)):
                moment += timedelta(minutes=random.randint(0, 90))
                event = {name: value_of(random, dtype, name, seed % 2 == 1) for name, dtype in columns.items()}
                rows.append(event | {USER_ID: user, DAY: day, SESSION_INDEX: 10 * user + day.day, TIMESTAMP: moment})
    types = {**columns, USER_ID: pl.Int64, DAY: pl.Date, SESSION_INDEX: pl.Int64, TIMESTAMP: TIME}
    return pl.DataFrame(rows, schema=types).with_row_index(ROW)


def batches_parts_and_order_change_nothing(trial: Trial) -> None:
    """Day by day or at once, in parts or whole, in any order of sessions: every row is encoded the same."""
    random, rows = Random(trial.seed), trial.rows
    whole, known = trial.encode(rows)
    order = rows[SESSION_INDEX].unique().to_list()
    random.shuffle(order)
    shuffled = pl.concat(rows.filter(pl.col(SESSION_INDEX) == session) for session in order)
    there = [[day] for day in DAYS if (rows[DAY] == day).any()]  # a night without events does not run
    split, buckets = random.choice(DAYS[1:]), random.randint(2, 4)
    halves = [day for (day,) in there if day < split], [day for (day,) in there if day >= split]
    ways = {
        "Day by day": trial.encode(rows, there),
        "In two batches": trial.encode(rows, [half for half in halves if half]),
        "In parts": trial.encode(rows, buckets=buckets),
        "Shuffled": trial.encode(shuffled),
        "Shuffled, in parts, day by day": trial.encode(shuffled, there, buckets),
    }
    for how, (encoded, known_then) in ways.items():
        _same(whole, encoded, how)
        require(known.keys() == known_then.keys(), f"{how}: it is fit to {list(known_then)}, not {list(known)}.")
        for kept, table in known.items():
            by = [VALUE] if VALUE in table.columns else table.columns
            _same(table.sort(by), known_then[kept].sort(by), f"{how}, the state")


def later_days_change_no_earlier_row(trial: Trial) -> None:
    """What happens on later days changes no earlier row."""
    encoded, _ = trial.encode(trial.rows)
    for last in DAYS[:-1]:
        earlier = trial.rows.filter(pl.col(DAY) <= last)
        if earlier.height:
            before = encoded.filter(pl.col(ROW).is_in(earlier[ROW].to_list()))
            _same(trial.encode(earlier)[0], before, f"With days after {last}")


def a_day_is_not_fit_to_itself(trial: Trial) -> None:
    """A day is encoded with the state of the days before it: other events of the same day change nothing."""
    newest = trial.rows[DAY].max()
    if trial.uses_the_day or trial.rows[DAY].n_unique() < 2:
        return
    others = trial.others.filter(pl.col(DAY) == newest)
    others = others.with_columns(pl.col(USER_ID, SESSION_INDEX, ROW) + 1_000)
    more, _ = trial.encode(pl.concat([trial.rows, others], how="vertical_relaxed"))
    alone, _ = trial.encode(trial.rows)
    _same(alone.drop(ITEM_ID), more.head(trial.rows.height).drop(ITEM_ID), f"With other events of {newest!s}")


def a_session_starts_without_knowing_its_last_event(trial: Trial) -> None:
    """What comes last in a session does not change its first event, which is all that a feature per session holds."""
    rows = trial.rows
    if trial.uses_the_day or rows[DAY].n_unique() < 2:
        return
    first, newest = changed(SESSION_INDEX), pl.col(DAY) == rows[DAY].max()
    own = [name for name in rows.columns if name not in (ROW, USER_ID, DAY, SESSION_INDEX, TIMESTAMP)]
    event = trial.others.row(0, named=True)
    other = {name: pl.lit(event[name], dtype=rows.schema[name]) for name in own}
    other[TIMESTAMP] = pl.col(TIMESTAMP) + timedelta(minutes=17)
    last = is_last() & ~first & newest
    otherwise = rows.with_columns(
        pl.when(last).then(value).otherwise(name).alias(name) for name, value in other.items()
    )
    starts = rows.select(first & newest).to_series()
    before, after = (trial.encode(some)[0].filter(starts).drop(ITEM_ID) for some in (rows, otherwise))
    _same(before, after, "With another last event")


def ids_are_below_the_cardinality_and_numbers_finite(trial: Trial) -> None:
    """Ids are at least 1 and below the cardinality that it gives, and numbers are finite."""
    encoded, known = trial.encode(trial.rows)
    for feature in trial.features:
        values = encoded[feature.name].explode() if feature.many else encoded[feature.name]
        if feature.kind == "continuous":
            require(
                values.dtype == pl.Float32 and values.is_finite().all(), f"{feature.name} holds {values.to_list()}."
            )
            continue
        table = known.get(feature.state_name(len(feature.encoders) - 1))
        cardinality = feature.encoders[-1].cardinality(table)
        if cardinality is None:
            require(False, "It gives ids and no cardinality.")
            return
        inside = values.drop_nulls().is_between(1, cardinality - 1).all()
        require(values.dtype == pl.Int32 and inside, f"Ids {values.to_list()} with cardinality {cardinality}.")
        if isinstance(feature.encoders[-1], Category) and table is not None:
            ids = table[ID].drop_nulls()
            require(ids.is_sorted() and table[ID].max() in (None, cardinality - 1), "Ids of its vocabulary have gaps.")


LAWS: tuple[Law, ...] = (
    ids_are_below_the_cardinality_and_numbers_finite,
    batches_parts_and_order_change_nothing,
    later_days_change_no_earlier_row,
    a_day_is_not_fit_to_itself,
    a_session_starts_without_knowing_its_last_event,
)


def _same(rows: pl.DataFrame, others: pl.DataFrame, how: str) -> None:
    try:
        assert_frame_equal(rows, others, rel_tol=1e-6, abs_tol=1e-6)
    except AssertionError as difference:
        require(False, f"{how}: {' '.join(str(difference).split())[:200]}")
