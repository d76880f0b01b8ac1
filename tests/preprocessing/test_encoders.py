"""Encoders: what values become, what is learnt, and that test rows teach nothing."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.encoders.standardise import Standardise
from preprocessing.features import build_chains, fit, transform
from preprocessing.vocabulary import count_values, number_values
from schemas.errors import InputError
from tests.preprocessing.small import at, dataset_of, run, write


def encode(column: pl.Series, encoder: Any, training: list[bool] | None = None, **more: Any) -> list[Any]:
    """The column's values after the encoder, fit on the training rows."""
    name = "timestamp" if isinstance(column.dtype, pl.Datetime) else "value"
    rows: dict[str, Any] = {"item_id": ["x"] * len(column), "session_index": [1] * len(column), name: column} | more
    events = pl.LazyFrame(rows | {"training": training or [True] * len(column)})
    dataset = dataset_of(
        ".",
        columns=("value",),
        time_zone=more.pop("zone", "UTC"),
        features={"out": {"column": name, "encode": encoder}},
    )
    chains = build_chains(dataset, events.collect_schema())
    return transform(events, fit(events, chains), []).collect()["out"].to_list()


def test_vocabulary_is_by_count_then_value() -> None:
    rows = pl.LazyFrame({"v": ["b", "a", "c", "c", None, "d", "d", "d", "a", "b"]})
    counts = count_values(rows, pl.col("v"))
    assert number_values(counts).collect().rows() == [(3, "d", 3), (4, "a", 2), (5, "b", 2), (6, "c", 2)]
    assert number_values(counts, 3).collect().rows() == [(3, "d", 3)]


def test_category_ids() -> None:
    values = pl.Series(["a", "b", "b", None, "c"])
    assert encode(values, "category", [True, True, True, True, False]) == [4, 3, 3, 1, 2]
    assert encode(values, [{"category": {"min_count": 2}}]) == [2, 3, 3, 1, 2]
    assert encode(pl.Series([7, 7, None]), "category") == [3, 3, 1]


def test_log1p_and_standardise() -> None:
    assert encode(pl.Series([0.0, math.e - 1, -1.0, None]), "log1p") == pytest.approx([0, 1, 0, 0])
    scaled = encode(pl.Series([1.0, 3.0, None, float("nan"), 100.0]), "standardise", [True] * 4 + [False])
    assert scaled == pytest.approx([-1, 1, 0, 0, 98])
    assert encode(pl.Series([0.1] * 7), "standardise") == [0.0] * 7
    chained = encode(pl.Series([0.0, math.e - 1, -7.0]), ["log1p", "standardise"])
    assert chained == pytest.approx([-1, 1, 0])


def test_moments_add_up() -> None:
    values = pl.Series("v", [1.0, 5.0, 2.0, 8.0])
    whole, *parts = (
        Standardise().fit(pl.LazyFrame([part]), pl.col("v")).collect() for part in (values, values[:1], values[1:])
    )
    assert pl.concat(parts).sum().row(0) == pytest.approx(whole.cast(pl.Float64).row(0))


def test_hours_and_weekdays_are_local() -> None:
    sunday = datetime(2024, 1, 7, 23, tzinfo=UTC)
    times = pl.Series([sunday, None], dtype=pl.Datetime("us", "UTC"))
    assert encode(times, "hour") == [26, 1]
    assert encode(times, "weekday") == [9, 1]
    assert encode(times, "hour", zone="Asia/Tokyo") == [3 + 8, 1]
    assert encode(times, "weekday", zone="Asia/Tokyo") == [3, 1]


def test_ages() -> None:
    times = pl.Series([at(0, 10), at(0, 12), at(0, 9), at(0, 9, 30)])
    items, sessions = ["x", "y", "x", "y"], [1, 1, 2, 2]
    training = [True, True, False, False]
    assert encode(times, "item_age", training, item_id=items) == [1, 2.5, 0, 0]
    assert encode(times, "event_age", training, session_index=sessions) == [0, 2, 0, 0.5]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"column": "prise", "encode": "log1p"}, "Did you mean 'price'"),
        ({"column": "price", "encode": "log"}, "log1p"),
        ({"column": "price", "encode": "category", "mincount": 2}, "Did you mean 'min_count'"),
        ({"column": "user_id", "encode": "log1p"}, "log1p takes numbers"),
        ({"column": "price", "encode": "hour"}, "hour takes times"),
        ({"column": "price", "encode": ["category", "log1p"]}, "category gives ids|nothing can follow"),
        ({"column": "price", "encode": []}, "no encoder"),
    ],
)
def test_mistakes_are_explained(feature: dict[str, Any], message: str) -> None:
    columns = pl.Schema(
        {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), "price": pl.Float64}
    )
    with pytest.raises(InputError, match=message):
        build_chains(dataset_of(".", features={"price": feature}), columns)


def test_nothing_is_learnt_from_the_test_day(tmp_path: Path) -> None:
    columns = ("user_id", "item_id", "timestamp", "price")
    dataset = dataset_of(
        tmp_path,
        columns=("price",),
        features={"price": {"encode": ["standardise"]}, "kind": {"column": "price", "encode": "category"}},
    )
    rows = [(user, item, at(day), price) for day in (0, 1) for user, item, price in [(1, "x", 1.0), (2, "y", 3.0)]]
    rows += [(user, "z", time.replace(minute=1), 2.0) for user, _, time, _ in rows]
    learnt = []
    for test_day in ([], [(1, "new", at(1, 12, 2), 1e6)]):
        write(tmp_path, rows + test_day, columns)
        folder = run(tmp_path, dataset).folder
        names = (
            "schema.json",
            "encoders.json",
            "items.parquet",
            "vocabularies/item_id.parquet",
            "vocabularies/kind.parquet",
        )
        learnt.append([(folder / name).read_bytes() for name in names])
    assert learnt[0] == learnt[1]
