"""What every encoder obeys: it is the same whatever the batches, the parts and the order, and uses nothing of the future.

A new encoder is found by its file. Options it cannot do without, and columns other than the one its `takes` asks for, go
into FEATURES.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from flows.laws import broken
from flows.laws import encoders as laws
from preprocessing import encoders
from preprocessing.encoders import Encoder, Expressions
from preprocessing.features.feature import FittedFeature
from preprocessing.features.state import encoders_by_state, state_as_of
from schemas import plugins
from schemas.columns import DAY
from tests.gpu import untranslatable
from tests.preprocessing.encoding import ROW, encode_batch, features_of
from tests.preprocessing.small import MONDAY
from tests.slow import SLOW, examples

FEATURES: dict[str, list[dict[str, Any]]] = {
    "bucketize": [{"encode": "bucketize", "column": "price", "boundaries": [0.5, 2.0]}],
    "category": [
        {"encode": "category", "column": "category", "min_count": 3},
        {"encode": "category", "column": "category", "max_size": 5},
        {"encode": "category", "column": "category", "min_count": 2, "unknown_buckets": 3},
        {"encode": "category", "column": "category", "vocabulary": "texts"},
        {"encode": "category", "column": "text", "vocabulary": "texts"},
        {"encode": "category", "column": "tags", "min_count": 2},
        {"encode": "category", "column": "price"},
    ],
    "clip": [{"encode": "clip", "column": "price", "min": 0.0, "max": 2.0}],
    "cyclic": [
        {"encode": "cyclic", "column": "timestamp", "period": period, "part": "sin", "time_zone": "Europe/Berlin"}
        for period in ("hour", "weekday", "day_of_year", 5400)
    ],
    "fill": [{"encode": "fill", "column": "price", "value": value} for value in (1.5, "mean", "median")],
    "log1p": [{"encode": ["log1p", "standardize"], "column": "price"}],
    "popularity": [
        {"encode": "popularity", "column": "item_id"},
        {"encode": ["popularity", "log1p", "standardize"], "column": "category"},
    ],
    "quantile": [{"encode": "quantile", "column": "price", "q": 4}],
    "target_encoding": [{"encode": "target_encoding", "column": "category", "target": "bought", "smoothing": 2.0}],
}
DEFAULT = {"anything": "category", "numbers": "price", "times": "timestamp", "dates": "since", "text": "text"}
EXAMPLES = 9
NAMES = plugins.names(encoders)
DAYS = [MONDAY.date() + timedelta(days=day) for day in range(4)]

EVENT = st.fixed_dictionaries(
    {
        "item_id": st.sampled_from("vwxyz"),
        "price": st.none()
        | st.integers(-8, 40).map(lambda eighths: eighths / 8)
        | st.sampled_from([float("nan"), 1e6]),
        "category": st.sampled_from(["a", "b", "c", "d", "e", None]),
        "text": st.none() | st.sampled_from(["", "a", "ab", "b"]),
        "tags": st.none() | st.lists(st.sampled_from(["a", "b", "c", None]), max_size=3),
        "bought": st.none() | st.booleans(),
        "since": st.none() | st.sampled_from([date(2023, 12, 25), date(2024, 1, 2)]),
        "minutes": st.integers(0, 90),
    }
)
SCHEMA = {
    "item_id": pl.String,
    "price": pl.Float64,
    "category": pl.String,
    "text": pl.String,
    "tags": pl.List(pl.String),
    "bought": pl.Boolean,
    "since": pl.Date,
    "minutes": pl.Int64,
    "user_id": pl.Int64,
    DAY: pl.Date,
    "session_index": pl.Int64,
}


@st.composite
def rows_of_days(draw: st.DrawFn) -> pl.DataFrame:
    """Sessions of some of four users on some of four days, in order, every row numbered."""
    events = []
    for user in range(4):
        for day in sorted(draw(st.sets(st.sampled_from(DAYS)))):
            session = {"user_id": user, DAY: day, "session_index": 10 * user + day.day}
            events += [event | session for event in draw(st.lists(EVENT, min_size=1, max_size=4))]
    rows = pl.DataFrame(events, schema=SCHEMA).with_row_index(ROW)
    minutes = pl.col("minutes").cum_sum().over("session_index")
    time = pl.col(DAY).cast(pl.Datetime("us", "UTC")) + pl.duration(minutes=minutes)
    return rows.with_columns(time.alias("timestamp")).drop("minutes")


ROWS = rows_of_days().filter(lambda rows: not rows.is_empty())


def tried(name: str) -> dict[str, Any]:
    """The features an encoder is tried with."""
    takes = plugins.find(encoders, name).takes
    features = FEATURES.get(name, [{"encode": name, "column": DEFAULT[takes]}])
    return {f"{name}_{place}": feature for place, feature in enumerate(features)}


@pytest.mark.parametrize("name", NAMES)
@given(rows=ROWS, others=ROWS, seed=st.integers(0, 1_000))
@examples(EXAMPLES)
def test_every_encoder_obeys(name: str, rows: pl.DataFrame, others: pl.DataFrame, seed: int) -> None:
    """All laws on the same rows: to draw them takes as long as to try a law."""
    encoder: type[Encoder] = plugins.find(encoders, name)
    assert broken(laws.LAWS, laws.Trial(encoder, features_of(rows, tried(name)), rows, others, seed)) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_encoder_obeys_as_checked_in_a_folder(name: str) -> None:
    """By the rows that `overnight check` draws."""
    features = FEATURES.get(name, [{"encode": name}])
    trials = laws.trials_of(plugins.find(encoders, name), name, features, ())
    for trial in trials if SLOW else trials[:2]:  # without and with nulls
        assert broken(laws.LAWS, trial) == []


class KnowsToday(Encoder):
    """Divides by the mean of the day itself."""

    def add_columns(self, events: pl.LazyFrame, value: pl.Expr, name: str) -> tuple[pl.LazyFrame, pl.Expr]:
        return events, value / value.mean().over(DAY)


class Counts(Encoder):
    """Numbers rows as they come."""

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        return pl.int_range(pl.len())


class NoCardinality(Encoder):
    """Ids without an end."""

    kind = "categorical"

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        return value.abs().cast(pl.Int32, strict=False) + 1


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        (KnowsToday, "other events of the same day"),
        (Counts, "Day by day: "),
        (NoCardinality, "gives ids and no cardinality"),
    ],
)
def test_an_encoder_that_breaks_a_law_is_named(encoder: type[Encoder], words: str) -> None:
    rows = laws.rows_of(laws.COLUMNS, 0)
    features = features_of(rows, {"price": {"encode": "clip", "min": 0.0}})
    features = [replace(feature, encoders=(encoder(),)) if feature.name == "price" else feature for feature in features]
    lines = [
        line
        for seed in range(3)
        for line in broken(laws.LAWS, laws.Trial(encoder, features, laws.rows_of(laws.COLUMNS, seed), rows, seed))
    ]
    assert any(words in line for line in lines), lines


@pytest.mark.parametrize("name", NAMES)
@given(rows=ROWS, day=st.sampled_from(DAYS))
@examples(EXAMPLES)
def test_the_state_as_of_a_day_is_that_of_the_days_before_it(name: str, rows: pl.DataFrame, day: date) -> None:
    features = features_of(rows, tried(name))
    _, now, statistics = encode_batch(features, [rows], {})
    as_of = state_as_of(features, day, {name: table for name, table in statistics.items() if DAY in table.columns}, now)
    earlier = rows.filter(pl.col(DAY) < day)
    expected = encode_batch(features, [earlier], {})[1] if earlier.height else {}
    encoders = encoders_by_state(features)
    for kept in as_of.keys() | expected.keys():
        table, encoder = as_of.get(kept), encoders[kept]
        if not encoder.by_day:
            assert table is not None and table.equals(now[kept])
        elif kept in expected and table is None:
            assert expected[kept].is_empty()
        elif kept in expected:
            assert_frame_equal(table, expected[kept], rel_tol=1e-6, abs_tol=1e-6)
        else:
            assert table is None or table.is_empty()


@pytest.mark.gpu_plans
@pytest.mark.parametrize("name", NAMES)
def test_plans_run_on_a_gpu(name: str) -> None:
    events = [
        {"item_id": "x", "price": 1.0, "category": "a", "text": "a", "tags": ["a"], "bought": True, "since": day}
        | {"user_id": 1, DAY: day, "session_index": place, "minutes": 0}
        for place, day in enumerate(DAYS)
    ]
    rows = pl.DataFrame(events, schema=SCHEMA).with_row_index(ROW)
    rows = rows.with_columns(pl.col(DAY).cast(pl.Datetime("us", "UTC")).alias("timestamp")).drop("minutes")
    for feature in features_of(rows, tried(name)):
        fitted = FittedFeature(feature)
        while encoder := fitted.next_to_fit:
            plan = fitted.partial_fit(rows.lazy())
            assert untranslatable(plan) == []
            statistics = plan.collect()
            fitted = fitted.with_table(encoder.lookup(None, statistics, encoder.merge(None, statistics)))
        encoded, value = fitted.transform(rows.lazy())
        assert untranslatable(encoded.select(value)) == []
