"""Encoders: what values become on the first day and after it. Their laws are in tests/laws/test_encoders.py."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from preprocessing.encoders.category import Category
from preprocessing.encoders.hour import Hour
from preprocessing.encoders.log1p import Log1p
from preprocessing.encoders.min_max import MinMax
from preprocessing.encoders.standardize import Standardize
from preprocessing.features.compile import compile_features
from preprocessing.features.feature import FittedFeature
from schemas.errors import InputError
from tests.preprocessing.encoding import encode, encode_days, features_of
from tests.preprocessing.small import at, dataset_of

NAN = float("nan")


def test_category_numbers_new_values_of_a_day_by_count_then_value() -> None:
    values = ["b", "a", "c", "c", None, "d", "d", "d", "a", "b"]
    assert encode({"v": values}, {"column": "v", "encode": "category"}) == [5, 4, 6, 6, 1, 3, 3, 3, 4, 5]
    assert encode({"v": [7, 7, None]}, {"column": "v", "encode": "category"}) == [3, 3, 1]
    assert encode({"v": [NAN, 0.5, NAN]}, {"column": "v", "encode": "category"}) == [1, 3, 1]


def test_category_admits_on_the_day_a_value_is_frequent_enough() -> None:
    feature = {"column": "v", "encode": "category", "min_count": 2}
    assert encode({"v": ["a", "b", "b", "a", "c", "b"]}, feature, [0, 0, 0, 1, 1, 1]) == [2, 3, 3, 4, 2, 3]


def test_category_max_size_counts_the_reserved_ids() -> None:
    feature = {"column": "v", "encode": "category", "max_size": 5}
    assert encode({"v": ["a", "b", "b", "c", "c", "c"]}, feature) == [2, 4, 4, 3, 3, 3]


def test_unknown_buckets_tell_rare_values_apart_until_they_are_admitted() -> None:
    feature = {"column": "v", "encode": "category", "min_count": 2, "unknown_buckets": 20}
    ids = encode({"v": ["a", "b", "c", "c", None, "a"]}, feature, [0, 0, 0, 0, 0, 1])
    assert ids[2:] == [22, 22, 1, 23]
    assert all(2 <= unknown < 22 for unknown in ids[:2]) and ids[0] != ids[1]
    numbers = encode({"v": list(range(100))}, {**feature, "unknown_buckets": 3})
    assert set(numbers) == {2, 3, 4}


def test_categories_of_lists() -> None:
    values = pl.Series([["x", "y"], [], ["y", None], None, [None], ["y", "z"]], dtype=pl.List(pl.String))
    assert encode({"v": values}, {"column": "v", "encode": "category"}) == [[4, 3], [], [3, 1], [], [], [3, 5]]
    with pytest.raises(InputError, match="only category, alone, takes lists"):
        encode({"v": values}, {"column": "v", "encode": "popularity"})


def test_features_share_a_vocabulary() -> None:
    rows = _rows(first=["p", "q", "p"], last=["q", "r", "q"])
    shared = {"encode": "category", "vocabulary": "places"}
    encoded, state = encode_days(features_of(rows, {"first": shared, "last": shared}), rows, [[date(2024, 1, 1)]])
    assert encoded["first"].to_list() == [4, 3, 4] and encoded["last"].to_list() == [3, 5, 3]
    assert state["places"]["count"].to_list() == [3, 2, 1]


def test_ids_become_values_again() -> None:
    values = ["b", "a", "a", None, "c"]
    rows = _rows(v=values, many=[["b"], [], ["a", "b"], ["b", None], ["b"]])
    features = features_of(rows, {"v": {"encode": "category"}, "many": {"encode": "category"}})
    encoded, state = encode_days(features, rows, [[date(2024, 1, 1)]])
    assert Category().inverse_transform(encoded["v"], state["v"]).to_list() == values
    assert Category().inverse_transform(encoded["many"], state["many"]).to_list() == rows["many"].to_list()
    assert Category().inverse_transform(pl.Series([0, 1, 2, 99]), state["v"]).to_list() == [None] * 4


@pytest.mark.parametrize(
    ("encoder", "state", "encoded", "value"),
    [
        (Log1p(), None, math.log(4), 3.0),
        (Standardize(), {"count": 3, "sum": 6.0, "squares": 14.0}, 1.0, 3.0),
        (Standardize(), None, 1.0, 1.0),
        (MinMax(), {"min": 1.0, "max": 5.0}, 0.5, 3.0),
        (MinMax(), {"min": 3.0, "max": 3.0}, 0.5, 3.0),
    ],
)
def test_numbers_become_raw_again(encoder: Any, state: Any, encoded: float, value: float) -> None:
    raw = encoder.inverse_transform(pl.Series([encoded, None]), pl.DataFrame([state]) if state else None)
    assert raw.to_list() == [pytest.approx(value), None]


def test_what_cannot_become_raw_again_is_none() -> None:
    encoded = pl.Series([0.5])
    for encoder in (MinMax(), Category(), Hour()):
        assert encoder.inverse_transform(encoded, None) is None
    assert MinMax().inverse_transform(encoded, pl.DataFrame([{"min": None, "max": None}])) is None


def test_log1p_and_standardize() -> None:
    assert _numbers([0.0, math.e - 1, -1.0, None], "log1p") == pytest.approx([0, 1, 0, 0])
    root = math.sqrt(2)
    assert _numbers([1.0, 3.0, None, NAN], "standardize") == pytest.approx([-1 / root, 1 / root, 0, 0])
    assert _numbers([1.0, 3.0, 100.0], "standardize", [0, 0, 1]) == pytest.approx([-1 / root, 1 / root, 98 / root])
    assert _numbers([0.1] * 7, "standardize") == [0.0] * 7
    assert _numbers([0.0, math.e - 1, -7.0], ["log1p", "standardize"]) == pytest.approx([-1 / root, 1 / root, 0])


def test_min_max_goes_by_the_range_of_the_days_before() -> None:
    assert _numbers([1.0, 5.0, 2.0, None], "min_max") == [0, 1, 0.25, 0]
    assert _numbers([1.0, 5.0, 9.0, 3.0], "min_max", [0, 0, 1, 2]) == [0, 1, 2, 0.25]
    assert _numbers([4.0, 4.0, 0.0, 8.0], "min_max", [0, 0, 1, 1]) == [0.5, 0.5, 0, 0.5]


def test_bucketize() -> None:
    encoder = [{"bucketize": {"boundaries": [0, 10, 20]}}]
    assert _numbers([-5.0, 0.0, 9.9, 10.0, 20.0, 99.0, None, NAN], encoder) == [3, 4, 4, 5, 6, 6, 1, 1]


def test_quantile() -> None:
    assert _numbers([1.0, 2.0, 3.0, 4.0, None], [{"quantile": {"q": 2}}]) == [3, 3, 4, 4, 1]
    assert _numbers([-1e9, 0.0, 0.0, 1e9], [{"quantile": {"q": 4}}]) == [3, 4, 4, 6]
    assert _numbers([1.0, 9.0, 5.0, 0.5, 5.0], [{"quantile": {"q": 2}}], [0, 0, 1, 1, 2]) == [3, 4, 4, 3, 4]


def test_quantiles_of_many_numbers_are_close() -> None:
    values = [math.exp(place / 500) for place in range(-5_000, 5_000)]
    ids = pl.Series(_numbers(values, [{"quantile": {"q": 10}}]))
    highest = [max(value for value, id_ in zip(values, ids, strict=True) if id_ == 3 + place) for place in range(9)]
    assert highest == [pytest.approx(values[1_000 * (place + 1) - 1], rel=0.043) for place in range(9)]


def test_clip_and_fill() -> None:
    assert _numbers([-1.0, 1.0, 5.0, None], [{"clip": {"min": 0.5, "max": 2}}]) == [0.5, 1, 2, 0]
    assert _numbers([-1.0, 5.0], [{"clip": {"max": 2}}]) == [-1, 2]
    assert _numbers([1.0, None, NAN], [{"fill": {"value": 7}}]) == [1, 7, 7]
    assert _numbers([1.0, None, 3.0, 100.0], [{"fill": {"value": "median"}}]) == [1, 3, 3, 100]
    assert _numbers([1.0, None, 3.0], [{"fill": {"value": "median"}}]) == [1, 2, 3]
    assert _numbers([1.0, 2.0, 6.0, None], [{"fill": {"value": "mean"}}]) == [1, 2, 6, 3]
    for what in ("mean", "median"):
        later = _numbers([1.0, 5.0, None, 9.0, None, None], [{"fill": {"value": what}}], [0, 0, 1, 1, 2, 3])
        assert later == [1, 5, 3, 9, 5, 5]


def test_cyclic() -> None:
    times = [datetime(2024, 1, 1, 6, tzinfo=UTC), datetime(2024, 1, 7, 18, tzinfo=UTC), None]  # Monday, Sunday

    def cyclic(**options: Any) -> list[float]:
        return encode(
            {"t": pl.Series(times, dtype=pl.Datetime("us", "UTC"))}, {"column": "t", "encode": [{"cyclic": options}]}
        )

    assert cyclic(period="hour", part="sin") == pytest.approx([1, -1, 0], abs=1e-6)
    assert cyclic(period="hour", part="cos", time_zone="Asia/Tokyo") == pytest.approx([-(0.5**0.5), 0.5**0.5, 0])
    assert cyclic(period="weekday", part="sin")[:2] == pytest.approx(
        [math.sin(2 * math.pi * day / 7) for day in (0.25, 6.75)]
    )
    assert cyclic(period="day_of_year", part="cos")[0] == pytest.approx(math.cos(2 * math.pi * 0.25 / 365.25))
    assert cyclic(period=24 * 3600, part="sin") == pytest.approx([1, -1, 0], abs=1e-6)


def test_hours_and_weekdays_are_local() -> None:
    times = pl.Series([datetime(2024, 1, 7, 23, tzinfo=UTC), None], dtype=pl.Datetime("us", "UTC"))  # Sunday
    found = {
        (encoder, zone): encode({"t": times}, {"column": "t", "encode": encoder}, time_zone=zone)
        for encoder in ("hour", "weekday")
        for zone in ("UTC", "Asia/Tokyo")
    }
    assert found == {
        ("hour", "UTC"): [26, 1],
        ("hour", "Asia/Tokyo"): [11, 1],
        ("weekday", "UTC"): [9, 1],
        ("weekday", "Asia/Tokyo"): [3, 1],
    }


def test_ages_and_pauses() -> None:
    times = [at(0, 10), at(0, 12), at(0, 9), at(0, 9, 30)]
    rows = {"t": times, "item_id": ["x", "y", "x", "y"], "session_index": [1, 1, 2, 2]}
    assert encode(rows, {"column": "t", "encode": "item_age"}) == [1, 2.5, 0, 0]
    assert encode(rows, {"column": "t", "encode": "event_age"}) == [0, 2, 0, 0.5]
    assert encode(rows, {"column": "t", "encode": "elapsed"}) == [0, 7200, 0, 1800]


def test_age_is_in_local_days_and_never_negative() -> None:
    rows = {"since": [date(2023, 12, 30), date(2024, 1, 5), None], "timestamp": [at(0, 20)] * 3}
    assert encode(rows, {"column": "since", "encode": "age"}) == [2, 0, 0]
    assert encode(rows, {"column": "since", "encode": "age"}, time_zone="Asia/Tokyo") == [3, 0, 0]


def test_popularity_is_of_the_days_before() -> None:
    rows = {"v": ["a", "a", "b", "a", "b", None, "c"], "brand": ["k", "k", "k", "k", "l", "k", "l"]}
    days = [0, 0, 0, 1, 2, 2, 2]
    assert encode(rows, {"column": "v", "encode": "popularity"}, days) == [0, 0, 0, 2, 1, 0, 0]
    null_stays = {"column": "v", "encode": ["popularity", {"fill": {"value": 7}}]}
    assert encode(rows, null_stays, days) == [0, 0, 0, 2, 1, 7, 0]
    by_brand = {"column": "v", "encode": [{"popularity": {"by": "brand"}}]}
    assert encode(rows, by_brand, days) == [0, 0, 0, 3, 0, 4, 0]


def test_relative_price() -> None:
    rows = {"price": [2.0, 4.0, 6.0, None, 6.0], "category": ["a", "a", "a", "a", "b"]}
    assert encode(rows, {"column": "price", "encode": "relative_price"}, [0, 0, 1, 1, 1]) == [0, 0, 1, 0, 0]


def test_target_encoding_is_of_the_days_before() -> None:
    rows = {"v": ["a", "a", "b", "a", "c", None, "a"], "bought": [True, False, False, True, True, True, True]}
    feature = {"column": "v", "encode": [{"target_encoding": {"target": "bought", "smoothing": 1}}]}
    first, second, third = 1 / 3, (1 + 1 / 3) / 3, (2 + 3 / 5) / 4
    assert encode(rows, feature, [0, 0, 0, 1, 1, 1, 2]) == pytest.approx([0, 0, 0, second, first, 0, third])


def test_target_encoding_of_one_batch_leaves_each_event_out() -> None:
    rows = _rows(v=["a", "a", "b", "a"], bought=[1, 0, 1, 1], session_index=[1] * 4, day=[date(1970, 1, 1)] * 4)
    feature = features_of(
        rows, {"out": {"column": "v", "encode": [{"target_encoding": {"target": "bought", "smoothing": 1}}]}}
    )[1]
    fitted, encoder = FittedFeature(feature), feature.encoders[0]
    statistics = fitted.partial_fit(rows[:-1].lazy()).collect()
    fitted = fitted.with_table(encoder.lookup(None, statistics, encoder.merge(None, statistics)))
    plan, value = fitted.transform(rows.lazy())
    expected = [(0 + 0.5) / 2, (1 + 1.0) / 2, 0.5, (1 + 2 / 3) / 3]
    assert plan.select(value).collect().to_series().to_list() == pytest.approx(expected)


def test_text_length() -> None:
    assert encode({"v": ["", "ab c", "Öl", None]}, {"column": "v", "encode": "text_length"}) == [0, 4, 2, 0]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"column": "prise", "encode": "log1p"}, "Did you mean 'price'"),
        ({"column": "price", "encode": "log"}, "log1p"),
        ({"column": "price", "encode": "category", "mincount": 2}, "Did you mean 'min_count'"),
        (
            {"column": "user_id", "encode": "log1p"},
            r"log1p takes numbers, but gets text.*TRY_CAST\(user_id AS DOUBLE\)",
        ),
        ({"column": "price", "encode": "hour"}, "hour takes times"),
        ({"column": "price", "encode": "age"}, "age takes dates"),
        ({"column": "price", "encode": "text_length"}, "text_length takes text"),
        ({"column": "price", "encode": ["category", "log1p"]}, "category gives ids|nothing can follow"),
        ({"column": "price", "encode": []}, "no encoder"),
        ({"column": "price", "encode": "clip"}, "give min, max or both"),
        ({"column": "price", "encode": "clip", "min": 2, "max": 1}, "min 2.0 is above max 1.0"),
        ({"column": "price", "encode": "bucketize", "boundaries": [1, 1]}, "must ascend"),
        ({"column": "price", "encode": "fill", "value": "mode"}, "'mean' or 'median'"),
        ({"column": "price", "encode": "relative_price"}, "relative_price: Unknown column 'category'"),
        ({"column": "price", "encode": "popularity", "by": "usr_id"}, "Did you mean 'user_id'"),
        ({"column": "price", "encode": "target_encoding", "target": "item_id"}, "target 'item_id' holds String"),
        (
            {"column": "price", "encode": "category", "unknown_buckets": 2},
            "integers or text to hash, but 'price' holds Float64",
        ),
        ({"column": "user_id", "encode": "category", "unknown_buckets": 9, "max_size": 9}, "leaves no id"),
    ],
)
def test_mistakes_are_explained(feature: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compile_features(dataset_of(".", features={"price": feature}), COLUMNS)


def test_items_do_not_share_ids() -> None:
    with pytest.raises(InputError, match="unknown_buckets would give several items one id"):
        compile_features(dataset_of(".", features={"item_id": {"encode": "category", "unknown_buckets": 9}}), COLUMNS)


COLUMNS = pl.Schema(
    {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), "price": pl.Float64}
)


def _numbers(values: list[float | None], encoder: Any, days: list[int] | None = None) -> list[float]:
    return encode({"v": pl.Series(values, dtype=pl.Float64)}, {"column": "v", "encode": encoder}, days)


def _rows(**columns: list[Any]) -> pl.DataFrame:
    count = len(next(iter(columns.values())))
    base = {"row": list(range(count)), "user_id": [1] * count, "item_id": ["x"] * count, "timestamp": [at(0)] * count}
    return pl.DataFrame({**base, "day": [date(2024, 1, 1)] * count, "session_index": [1] * count, **columns})
