"""What every encoder obeys: it is the same whatever the batches, the parts and the order, and uses nothing of the future.

A new encoder is found by its file. Options it cannot do without, and columns other than the one its `takes` asks for, go
into FEATURES.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from preprocessing import encoders
from preprocessing.encoders import Encoder
from preprocessing.encoders.category import Category
from preprocessing.features.feature import FittedFeature
from preprocessing.features.state import encoders_by_state, state_as_of
from preprocessing.sessions import changed, is_last
from schemas import plugins
from schemas.columns import DAY, ID, VALUE
from tests.gpu import untranslatable
from tests.preprocessing.encoding import ROW, encode_batch, encode_days, features_of
from tests.preprocessing.small import MONDAY

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
EXAMPLES = 12
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


def assert_same(rows: pl.DataFrame, others: pl.DataFrame) -> None:
    assert_frame_equal(rows, others, rel_tol=1e-6, abs_tol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@given(rows=ROWS, split=st.sampled_from(DAYS[1:]), buckets=st.integers(2, 4), seed=st.randoms())
@settings(max_examples=EXAMPLES, deadline=None)
def test_batches_parts_and_order_change_nothing(
    name: str, rows: pl.DataFrame, split: date, buckets: int, seed: Any
) -> None:
    features = features_of(rows, tried(name))
    whole, state = encode_days(features, rows, [DAYS])
    order = rows["session_index"].unique().to_list()
    seed.shuffle(order)
    shuffled = pl.concat(rows.filter(session_index=session) for session in order)
    # A night without events does not run.
    there = [[day] for day in DAYS if (rows[DAY] == day).any()]
    halves = [day for (day,) in there if day < split], [day for (day,) in there if day >= split]
    ways = {
        "day by day": encode_days(features, rows, there),
        "in two batches": encode_days(features, rows, [half for half in halves if half]),
        "in parts": encode_days(features, rows, [DAYS], buckets),
        "shuffled": encode_days(features, shuffled, [DAYS]),
        "all of it": encode_days(features, shuffled, there, buckets),
    }
    for encoded, state_then in ways.values():
        assert_same(whole, encoded)
        assert state.keys() == state_then.keys()
        for kept, table in state.items():
            by_value = [VALUE] if VALUE in table.columns else []
            assert_same(table.sort(by_value or table.columns), state_then[kept].sort(by_value or table.columns))


@pytest.mark.parametrize("name", NAMES)
@given(rows=ROWS, last=st.integers(0, 2))
@settings(max_examples=EXAMPLES, deadline=None)
def test_later_days_change_no_earlier_row(name: str, rows: pl.DataFrame, last: int) -> None:
    earlier = rows.filter(pl.col(DAY) <= DAYS[last])
    if earlier.is_empty():
        return
    features = features_of(rows, tried(name))
    encoded, _ = encode_days(features, rows, [DAYS])
    assert_same(encode_days(features, earlier, [DAYS])[0], encoded.filter(pl.col(ROW).is_in(earlier[ROW].to_list())))


@pytest.mark.parametrize("name", NAMES)
@given(rows=ROWS, day=st.sampled_from(DAYS))
@settings(max_examples=EXAMPLES, deadline=None)
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
        elif kept in expected:
            assert table is not None
            assert_same(table, expected[kept])
        else:
            assert table is None or table.is_empty()


@pytest.mark.parametrize("name", NAMES)
@given(rows=ROWS, others=ROWS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_day_is_not_fit_to_itself(name: str, rows: pl.DataFrame, others: pl.DataFrame) -> None:
    encoder: type[Encoder] = plugins.find(encoders, name)
    if encoder is Category or not encoder.by_day:
        pytest.skip("uses the day itself, by design")
    newest = rows[DAY].max()
    others = others.filter(pl.col(DAY) == newest)
    if rows[DAY].n_unique() < 2:
        return
    others = others.with_columns(pl.col("user_id", "session_index", ROW) + 1_000)
    features = features_of(rows, tried(name))
    more, _ = encode_days(features, pl.concat([rows, others], how="vertical_relaxed"), [DAYS])
    assert_same(encode_days(features, rows, [DAYS])[0].drop("item_id"), more.head(rows.height).drop("item_id"))


@pytest.mark.parametrize("name", NAMES)
@given(rows=ROWS.filter(lambda rows: rows[DAY].n_unique() > 1), event=EVENT)
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_session_starts_without_knowing_its_last_event(name: str, rows: pl.DataFrame, event: dict[str, Any]) -> None:
    """So a feature per session, which is its first event's, does not tell what is to be predicted."""
    encoder: type[Encoder] = plugins.find(encoders, name)
    if encoder is Category or not encoder.by_day:
        pytest.skip("uses the day itself, by design")
    first, newest = changed("session_index"), pl.col(DAY) == rows[DAY].max()
    other = {column: pl.lit(value, dtype=SCHEMA[column]) for column, value in event.items() if column in rows.columns}
    other["timestamp"] = pl.col("timestamp") + timedelta(minutes=event["minutes"])
    last = is_last() & ~first & newest
    ends_otherwise = rows.with_columns(
        pl.when(last).then(value).otherwise(column).alias(column) for column, value in other.items()
    )
    features = features_of(rows, tried(name))
    one, two = (
        encode_days(features, each, [DAYS])[0].filter(rows.select(first & newest).to_series()).drop("item_id")
        for each in (rows, ends_otherwise)
    )
    assert_same(one, two)


@pytest.mark.parametrize("name", NAMES)
@given(rows=ROWS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_ids_are_below_the_cardinality_and_numbers_finite(name: str, rows: pl.DataFrame) -> None:
    features = features_of(rows, tried(name))
    encoded, state = encode_days(features, rows, [DAYS])
    for feature in features:
        values = encoded[feature.name].explode() if feature.many else encoded[feature.name]
        if feature.kind == "continuous":
            assert values.dtype == pl.Float32 and values.is_finite().all()
            continue
        table = state.get(feature.state_name(len(feature.encoders) - 1))
        cardinality = feature.encoders[-1].cardinality(table)
        assert values.dtype == pl.Int32 and cardinality is not None
        assert values.drop_nulls().is_between(1, cardinality - 1).all()
        if isinstance(feature.encoders[-1], Category) and table is not None:
            assert table[ID].drop_nulls().is_sorted() and table[ID].max() in (None, cardinality - 1)


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
