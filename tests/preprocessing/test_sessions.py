"""Cutting: where sessions begin and end, what is kept of them, to which day they belong."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.execution.cleaning import Cleaning, order
from preprocessing.execution.flow import Flow
from preprocessing.execution.ordering import Packing, codes_of, packing_of
from preprocessing.execution.places import Places
from preprocessing.plan import plan_of
from preprocessing.plan.rules import RULE_CODE
from preprocessing.sessions import (
    EVENT_DAY,
    ONE_BATCH,
    SESSION_INDEX,
    close,
    cut,
    long_enough,
    recent,
    sort_keys,
)
from schemas.dataset import Dataset
from tests.preprocessing.small import at, dataset_of


def events_of(rows: list[tuple[Any, ...]], *more: str) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", *more], orient="row")


def ordered(events: pl.DataFrame, dataset: Dataset, packing: Packing | None = None) -> pl.DataFrame:
    for ties in (False, True):
        flow = Flow(events.lazy())
        tied = order(flow, dataset, packing, ties=ties)
        if tied is None or not tied.collect().item():
            break
    return flow.rows.collect()


def index_of(events: pl.DataFrame, dataset: Dataset) -> list[int]:
    return cut(events.lazy(), dataset).collect()[SESSION_INDEX].to_list()


def test_a_gap_ends_a_session() -> None:
    times = [at(0), at(0) + timedelta(minutes=30), at(0) + timedelta(minutes=60, microseconds=1)]
    events = events_of([("a", "x", time) for time in times] + [("b", "x", times[2])])
    assert index_of(events, dataset_of(".")) == [1, 1, 2, 3]
    assert index_of(events, dataset_of(".", sessions={"gap_minutes": 10})) == [1, 2, 3, 4]


def test_given_sessions_may_interleave_and_share_ids() -> None:
    rows = [("a", "x", at(0, 1), 1), ("a", "y", at(0, 2), 2), ("a", "z", at(0, 3), 1), ("b", "x", at(0, 4), 1)]
    dataset = dataset_of(".", columns=("session_id",), sessions={"rule": "given"})
    events = ordered(events_of(rows, "session_id"), dataset)
    assert events["item_id"].to_list() == ["x", "z", "y", "x"]
    assert index_of(events, dataset) == [1, 1, 2, 3]


def test_a_history_is_one_session() -> None:
    events = events_of([("a", "x", at(0)), ("a", "y", at(20)), ("b", "x", at(0))])
    assert index_of(events, dataset_of(".", sessions={"rule": "history"}, split="leave_one_out")) == [1, 1, 2]


def test_exact_repeats_are_one_event_whatever_lies_between() -> None:
    rows = [("a", "x", at(0), "view"), ("a", "x", at(0), "cart"), ("a", "x", at(0), "view"), ("a", "y", at(0), "view")]
    rows_left = ordered(events_of(rows, "event_type"), dataset_of(".", columns=("event_type",)))
    assert rows_left.select("item_id", "event_type").rows() == [("x", "cart"), ("x", "view"), ("y", "view")]


@given(
    st.permutations([("a", "x", at(0), 3.0), ("a", "x", at(0), 2.0), ("a", "y", at(0), 1.0), ("b", "x", at(0), None)])
)
def test_ties_do_not_depend_on_the_order_of_rows(rows: list[tuple[Any, ...]]) -> None:
    rows_left = ordered(events_of(rows, "price"), dataset_of(".", columns=("price",)))
    assert rows_left["price"].to_list() == [2.0, 3.0, 1.0, None]


@given(
    st.permutations([("a", "x", at(0), 3.0), ("a", "x", at(0), 2.0), ("a", "x", at(0), 3.0), ("a", "y", at(0), 3.0)])
)
def test_what_makes_two_rows_the_same_is_said_in_the_dataset(rows: list[tuple[Any, ...]]) -> None:
    expected = {"drop": [2.0, 3.0, 3.0], "keep": [2.0, 3.0, 3.0, 3.0]}
    for duplicates, prices in expected.items():
        dataset = dataset_of(".", columns=("price",), duplicates=duplicates)
        assert ordered(events_of(rows, "price"), dataset)["price"].to_list() == prices
    of_item = dataset_of(".", columns=("price",), duplicates=["user_id", "item_id"])
    on_one_day = events_of(rows, "price").with_columns(pl.lit(at(0).date()).alias(EVENT_DAY))
    assert ordered(on_one_day, of_item)["price"].to_list() == [2.0, 3.0]


@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.integers(5, 9), st.integers(-9, 9), st.sampled_from([0, 1, 1_000])), min_size=1
    )
)
def test_one_integer_orders_as_all_keys_do(rows: list[tuple[int, int, int, int]]) -> None:
    """Times before 1970, of whole seconds or not; ids below 0; what is there twice."""
    events = events_of([(u, i, at(0) + timedelta(days=-20_000, seconds=s, milliseconds=m)) for u, i, s, m in rows])
    dataset = dataset_of(".")
    packing = packing_of(events.lazy(), sort_keys(dataset, events.columns))
    assert packing is not None
    assert ordered(events, dataset, packing).equals(ordered(events, dataset))


PRICES = st.sampled_from([None, float("nan"), -1.0, 2.0])
# An integer of user, time and item holds a row's place, too; holds no place of more than a few rows; holds no item.
ITEMS = {"near": [1, 2, 3], "far": [1, 2, 2**48], "too far": [1, 2, 2**62], "text": ["1", "10", "2"]}


@pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)
@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 2), st.integers(0, 2), st.integers(0, 2), PRICES, st.sampled_from(["a", "b", None])),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from(["drop", "keep"]),
)
def test_places_order_rows_as_all_columns_do(items: list[Any], rows: list[tuple[Any, ...]], duplicates: str) -> None:
    """As a sort by all columns orders them, where only those that tie are ordered by more than the one integer."""
    dataset = dataset_of(".", columns=("price", "kind"), duplicates=duplicates)
    named = [(user, items[item], at(0, second), *rest) for user, item, second, *rest in rows]
    events = events_of(named, "price", "kind").with_columns(pl.lit(at(0).date()).alias(EVENT_DAY))
    packing = packing_of(events.lazy(), sort_keys(dataset, events.columns))
    assert packing is not None
    bad = pl.lit(1, dtype=pl.Int32).alias(RULE_CODE)
    marked = pl.concat([events.with_columns(bad * 0), events.head(1).with_columns(bad)])
    places = Places.of(marked, packing, ["price", "kind", EVENT_DAY], drop=duplicates == "drop")
    expected = ordered(events, dataset)
    assert places.rows.drop(RULE_CODE)[places.places].equals(expected)
    assert len(places.duplicates) == events.height - expected.height
    assert ordered(events, dataset, packing).equals(expected)


TEXTS = st.lists(st.text(max_size=3) | st.sampled_from([None, "", "a", "B", "ä", "10", "9"]))


@given(TEXTS, TEXTS)
def test_codes_of_texts_are_in_their_order(texts: list[str | None], more: list[str | None]) -> None:
    """And without gaps, also where more texts have been numbered before."""
    kept = pl.Series(more, dtype=pl.String).cast(pl.Categorical)
    codes = codes_of(pl.Series("user_id", texts, dtype=pl.String))
    places = {text: place for place, text in enumerate(sorted({*texts} - {None}, key=lambda text: str(text).encode()))}
    assert len(kept) == len(more)
    assert codes.to_list() == [None if text is None else places[text] for text in texts]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "B", "ä", "10", "9"]), st.integers(0, 2), st.integers(0, 2)), min_size=1),
    st.sampled_from(["gap", "given"]),
    st.sampled_from(["drop", "keep"]),
)
def test_users_and_sessions_that_are_text_order_rows_as_places(
    rows: list[tuple[Any, ...]], rule: str, duplicates: str
) -> None:
    columns, sessions = (("session_id",), {"rule": rule}) if rule == "given" else ((), {})
    dataset = dataset_of(".", columns=columns, duplicates=duplicates, sessions=sessions)
    named = [(user, item, at(0, second), *[f"s{item % 2}"] * len(columns)) for user, item, second in rows]
    events = events_of(named, *columns).with_columns(pl.lit(at(0).date()).alias(EVENT_DAY))
    plan = plan_of(dataset.model_dump_json(), tuple(events.drop(EVENT_DAY).schema.items()), ())
    cleaning = Cleaning.of(dataset, plan, at(9).date(), at(9), events, None, pack=True)
    places = cleaning._places()
    assert cleaning.packing is None
    if places is not None:  # of one time and user alone, no integer is made
        assert places.rows[places.places].drop(RULE_CODE).equals(ordered(events, dataset))
    assert places is not None or len(set(named)) == 1


def test_which_keys_one_integer_holds() -> None:
    for name, items in ITEMS.items():
        events = events_of([(user, item, at(0, user)) for user, item in enumerate(items)])
        packing = packing_of(events.lazy(), ["user_id", "timestamp", "item_id"])
        assert packing is not None and packing.names == ["user_id", "timestamp", "item_id"]
        assert packing.left == (("item_id",) if name in ("too far", "text") else ())


@pytest.mark.parametrize(
    "users", [["a", "b"], [None, 1], [-(2**62), 2**62], [1, 2**63 - 2]], ids=["text", "null", "too far", "with times"]
)
def test_keys_of_which_not_two_fit_one_integer_order_by_themselves(users: list[Any]) -> None:
    events = events_of([(user, 1, at(0, second)) for second, user in enumerate(users)])
    assert packing_of(events.lazy(), ["user_id", "timestamp", "item_id"]) is None


def test_position_orders_what_has_no_time() -> None:
    columns = {"user_id": "user_id", "item_id": "item_id", "position": "position"}
    dataset = dataset_of(".", columns=columns, sessions={"rule": "history"}, split="leave_one_out")
    rows = [("a", "x", 2), ("a", "y", 10), ("a", "z", 1)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row")
    assert ordered(events, dataset)["item_id"].to_list() == ["z", "x", "y"]
    closed = close(cut(events.lazy(), dataset), dataset).collect()
    assert closed.select("session_index", "end", "day").unique().rows() == [(1, None, ONE_BATCH)]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(1, 5))
def test_lengths(lengths: list[int], limit: int) -> None:
    index = [number for number, length in enumerate(lengths, start=1) for _ in range(length)]
    place = [place for length in lengths for place in range(length, 0, -1)]
    events = pl.LazyFrame({SESSION_INDEX: pl.Series(index, dtype=pl.Int64), "left": place})
    long = events.filter(long_enough(limit)).collect()[SESSION_INDEX].to_list()
    assert long == [number for number in index if index.count(number) >= limit]
    last = events.filter(recent(limit)).collect()["left"].to_list()
    assert last == [left for left in place if left <= limit]


@pytest.mark.parametrize(
    ("rule", "zone", "end", "day"),
    [
        ("gap", "UTC", at(0, 23, 29), at(0)),
        ("gap", "UTC", at(0, 23, 30), at(1)),
        ("given", "UTC", at(0, 22, 59), at(0)),
        ("given", "UTC", at(0, 23), at(1)),
        ("given", "Asia/Tokyo", at(0, 13, 59), at(0)),
        ("given", "Asia/Tokyo", at(0, 14), at(1)),
    ],
)
def test_the_day_of_a_session(rule: str, zone: str, end: datetime, day: datetime) -> None:
    dataset = dataset_of(".", columns=("session_id",), sessions={"rule": rule, "idle_minutes": 60}, time_zone=zone)
    rows = [("a", "x", end - timedelta(minutes=5), 1), ("a", "y", end, 1)]
    events = cut(events_of(rows, "session_id").lazy(), dataset)
    assert set(close(events, dataset).collect().select("end", "day").rows()) == {(end, day.date())}
