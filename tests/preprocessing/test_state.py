"""Fitted state: merged with later days, made anew as of a day or without one, written and read."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest

from preprocessing import encoders
from preprocessing.encoders import Encoder, Expressions, Fits
from preprocessing.execution.run import Workers
from preprocessing.features.feature import Feature
from preprocessing.features.state import (
    FeatureState,
    State,
    Statistics,
    encoders_by_state,
    fold,
    merge,
    state_as_of,
    without_day,
)
from schemas.artifacts import Artifacts
from schemas.columns import DAY
from tests.preprocessing.encoding import ROW, encode_batch, encode_days, features_of
from tests.preprocessing.small import at, dataset_of, run, write

ONE, TWO, THREE = (date(2024, 1, day) for day in (1, 2, 3))
FEATURES: dict[str, Any] = {
    "price": {"encode": ["log1p", "standardize"]},
    "range": {"column": "price", "encode": "min_max"},
    "popular": {"column": "item_id", "encode": "popularity"},
    "age": {"column": "timestamp", "encode": "item_age"},
}


def events(*rows: tuple[date, str, float | None]) -> pl.DataFrame:
    """Day, item and price of events, each a session of its own, in order."""
    table = pl.DataFrame(rows, schema=[DAY, "item_id", "price"], orient="row", schema_overrides={"price": pl.Float64})
    return table.with_row_index(ROW).select(
        ROW,
        pl.col(ROW).alias("user_id"),
        (pl.col(ROW) + 1).cast(pl.Int64).alias("session_index"),
        pl.col(DAY).cast(pl.Datetime("us", "UTC")).alias("timestamp"),
        DAY,
        "item_id",
        "price",
    )


ROWS = events((ONE, "b", 1.0), (ONE, "a", 3.0), (ONE, "b", 5.0), (TWO, "c", 9.0), (THREE, "a", 2.0))


def fitted(rows: pl.DataFrame, **item_id: Any) -> tuple[list[Feature], FeatureState, Statistics]:
    """Features fit to the rows day by day, the state after them, and the statistics of all days."""
    features = features_of(rows, FEATURES | {"item_id": {"encode": "category", **item_id}})
    state: FeatureState = {}
    parts: dict[str, list[pl.DataFrame]] = {}
    for day in rows[DAY].unique().sort():
        _, state, counted = encode_batch(features, [rows.filter(pl.col(DAY) == day)], state)
        for name, table in counted.items():
            if DAY in table.columns:
                parts.setdefault(name, []).append(table)
    return features, state, {name: pl.concat(tables) for name, tables in parts.items()}


def rows_of(table: pl.DataFrame) -> list[tuple[Any, ...]]:
    return table.rows()


def test_states_are_named_after_features_places_and_vocabularies() -> None:
    shared = {"column": "item_id", "encode": "category", "vocabulary": "items_seen"}
    features = features_of(ROWS, FEATURES | {"first": shared, "last": shared})
    assert {name: type(encoder).__name__ for name, encoder in encoders_by_state(features).items()} == {
        "item_id": "Category",
        "price.1": "Standardize",
        "range.0": "MinMax",
        "popular.0": "Popularity",
        "age.0": "ItemAge",
        "items_seen": "Category",
    }


def test_later_days_are_merged_by_sum_min_and_max() -> None:
    features = features_of(ROWS, FEATURES)
    before = {"range.0": pl.DataFrame({"min": [1.0], "max": [5.0]}), "other": pl.DataFrame()}
    later = pl.DataFrame({DAY: [TWO, THREE], "min": [0.5, 2.0], "max": [4.0, 9.0]})
    after = merge(features, before, {"range.0": later})
    assert rows_of(after["range.0"]) == [(0.5, 9.0)] and "other" in after and rows_of(before["range.0"]) == [(1, 5)]


def test_as_of_a_day_numbers_are_those_of_the_days_before() -> None:
    features, now, statistics = fitted(ROWS)
    assert rows_of(state_as_of(features, TWO, statistics, now)["range.0"]) == [(1.0, 5.0)]
    assert rows_of(state_as_of(features, THREE, statistics, now)["range.0"]) == [(1.0, 9.0)]
    assert rows_of(state_as_of(features, TWO, statistics, now)["popular.0"]) == [("a", 1), ("b", 2)]
    assert state_as_of(features, TWO, statistics, now)["price.1"]["count"].to_list() == [3]


def test_as_of_a_day_only_values_admitted_before_it_have_ids() -> None:
    features, now, statistics = fitted(ROWS)
    assert rows_of(now["item_id"]) == [("b", 2, 3, ONE), ("a", 2, 4, ONE), ("c", 1, 5, TWO)]
    assert rows_of(state_as_of(features, TWO, statistics, now)["item_id"]) == [("b", 2, 3, ONE), ("a", 1, 4, ONE)]
    rare = fitted(ROWS, min_count=2)
    assert rows_of(rare[1]["item_id"]) == [("b", 2, 3, ONE), ("a", 2, 4, THREE), ("c", 1, None, None)]
    features, now, statistics = rare
    as_of_three = [("b", 2, 3, ONE), ("a", 1, None, None), ("c", 1, None, None)]
    assert rows_of(state_as_of(features, THREE, statistics, now)["item_id"]) == as_of_three


def test_as_of_a_day_ids_that_were_given_out_of_order_stay() -> None:
    """Day two was done again after day three: its new value got the last id."""
    features, now, statistics = fitted(ROWS)
    vocabulary = now["item_id"].with_columns(admitted=pl.Series([ONE, THREE, TWO]))
    as_of = state_as_of(features, THREE, statistics, now | {"item_id": vocabulary})["item_id"]
    # Ids have no gap: row i - 3 of a vocabulary is the value of id i.
    assert as_of.drop_nulls("id").rows() == [("b", 2, 3, ONE), ("a", 1, 4, THREE), ("c", 1, 5, TWO)]


def test_as_of_the_first_day_nothing_is_fitted() -> None:
    features, now, statistics = fitted(ROWS)
    for counted in (statistics, {}):
        state = state_as_of(features, ONE, counted, now)
        assert state.keys() == {"item_id", "age.0"} and state["item_id"].is_empty()
        assert state["item_id"].schema == now["item_id"].schema


def test_when_an_item_was_first_seen_is_kept_as_it_is_now() -> None:
    features, now, statistics = fitted(ROWS)
    assert "age.0" not in statistics
    assert state_as_of(features, TWO, statistics, now)["age.0"].equals(now["age.0"])
    assert without_day(features, TWO, statistics, now)["age.0"].equals(now["age.0"])


def test_without_a_day_its_statistics_are_gone_and_its_ids_stay() -> None:
    features, now, statistics = fitted(ROWS)
    state = without_day(features, TWO, statistics, now)
    assert rows_of(state["range.0"]) == [(1.0, 5.0)]
    assert rows_of(state["popular.0"]) == [("a", 2), ("b", 2)]
    assert rows_of(state["item_id"]) == [("b", 2, 3, ONE), ("a", 2, 4, ONE), ("c", 0, 5, TWO)]
    again = merge(features, state, {name: table.filter(pl.col(DAY) == TWO) for name, table in statistics.items()})
    assert rows_of(again["item_id"]) == rows_of(now["item_id"])


def test_without_the_only_day_nothing_but_ids_is_left() -> None:
    features, now, statistics = fitted(ROWS.filter(pl.col(DAY) == ONE))
    state = without_day(features, ONE, statistics, now)
    assert state.keys() == {"item_id", "age.0"}
    assert rows_of(state["item_id"]) == [("b", 0, 3, ONE), ("a", 0, 4, ONE)]


def test_folding_all_days_gives_the_state_there_is() -> None:
    features, now, statistics = fitted(ROWS, min_count=2)
    folded = fold(features, statistics, now)
    assert folded.keys() == now.keys()
    for name, table in now.items():
        assert folded[name].equals(table), name


def test_counts_of_a_vocabulary_that_was_taken_over_stay() -> None:
    start = pl.DataFrame(
        {"value": ["z", "b"], "count": [90, 80], "id": [3, 4], "admitted": [date(1970, 1, 1)] * 2},
        schema_overrides={"id": pl.Int32},
    )
    features = features_of(ROWS, {})
    _, now, statistics = encode_batch(features, [ROWS], {"item_id": start})
    assert now["item_id"].select("value", "count").rows() == [("z", 90), ("b", 82), ("a", 2), ("c", 1)]
    assert fold(features, statistics, now, {"item_id": start})["item_id"].equals(now["item_id"])
    as_of_two = state_as_of(features, TWO, statistics, now, {"item_id": start})["item_id"]
    assert as_of_two.select("value", "count", "id").rows() == [("z", 90, 3), ("b", 82, 4), ("a", 1, 5)]


def test_a_state_that_is_written_is_read_again(tmp_path: Path) -> None:
    _, now, statistics = fitted(ROWS)
    items = pl.DataFrame({"item_id": [3], "last_seen": [at(0)]})
    artifacts = Artifacts(tmp_path)
    by_day = items.with_columns(day=pl.lit(ONE))
    name = State(now, statistics, items, by_day).write(artifacts, "s1", {"days": []}).name
    state = State.read(artifacts, name)
    assert state.fitted.keys() == now.keys() and all(state.fitted[name].equals(now[name]) for name in now)
    assert state.items is not None and state.items.equals(items)
    assert state.items_by_day is not None and state.items_by_day.equals(by_day)
    assert state.statistics_of([TWO])["range.0"].rows() == [(TWO, 9.0, 9.0)]
    assert State.read(artifacts, "") == State()


class Centre(Encoder):
    """The example in the docstring of Encoder."""

    fits: ClassVar[Fits] = "numbers"

    def statistics(self, value: pl.Expr) -> Expressions:
        return {"count": value.count(), "sum": value.sum()}

    def transform(self, value: pl.Expr, state: Expressions) -> pl.Expr:
        return value - state["sum"] / state["count"]


def test_an_encoder_written_for_older_names_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Double: encode is called transform now"):
        type("Double", (Encoder,), {"encode": lambda self, value, learnt: value * 2, "__module__": __name__})


@pytest.mark.parametrize("at_once", [True, False])
def test_the_example_of_the_base_class_is_true(at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = events((ONE, "x", 2.0), (ONE, "x", 4.0), (TWO, "x", 9.0), (THREE, "x", 5.0))
    price = Feature("price", "price", (Centre(),), per_item=False)
    batches = [[ONE, TWO, THREE]] if at_once else [[ONE], [TWO], [THREE]]
    encoded, state = encode_days([price], rows, batches)
    assert encoded["price"].to_list() == [-1.0, 1.0, 6.0, 0.0]
    assert rows_of(state["price.0"]) == [(4, 20.0)]
    assert all(line in str(encoders.Encoder.__doc__) for line in ("count 3, sum 15", "6.0", "-1.0"))


@pytest.mark.parametrize("as_text", [True, False])
def test_statistics_by_value_are_the_same_bytes_however_many_buckets_there_are(as_text: bool, tmp_path: Path) -> None:
    rows = [(user, user * 7 % 11, at(day, 12, user % 3)) for day in range(3) for user in range(40)]
    by_value = {name: {"column": "item_id", "encode": name} for name in ("popularity", "category")}
    found = []
    for number, workers in enumerate([Workers(), Workers(), Workers(min_buckets=3)]):
        source = tmp_path / str(number)
        source.mkdir()
        write(source, [(user, f"item {item}" if as_text else item, time) for user, item, time in rows])
        dataset = dataset_of(source, sessions={"min_length": 1}, features={"item_id": "category"} | by_value)
        root = run(source, dataset, workers=workers).folder.parents[1]
        files = sorted(root.glob("states/*/statistics/*.parquet"))
        found.append([(file.parents[1].name, file.name, file.read_bytes()) for file in files])
    assert len(found[0]) == 6  # of three features, before and after the newest day
    assert found[1] == found[0] and found[2] == found[0]
