"""Quarantine: bad rows are set aside whole, under the first rule they break; too many of them fail the run."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing import checks
from preprocessing.plan.rules import RULE_CODE, Rules
from preprocessing.source.events import read_events
from schemas import plugins
from schemas.columns import RULE
from schemas.dataset import Dataset
from schemas.errors import InputError
from tests.preprocessing.small import COLUMNS, NOW, at, dataset_of, run, three_days, write

KINDS = ("price", "event_type")


def shop(*rules: Any, source: Path | str = "there", **parts: Any) -> Dataset:
    return dataset_of(source, columns=KINDS, checks=list(rules), **parts)


def events_of(*rows: tuple[Any, ...]) -> pl.LazyFrame:
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us", "UTC")}
    return pl.LazyFrame(rows, schema={**schema, "price": pl.Float64, "event_type": pl.String}, orient="row")


def broken(dataset: Dataset, events: pl.LazyFrame, show: str = "price") -> dict[Any, str]:
    """The rule that each bad row breaks, by its price (or another column)."""
    rules = Rules.of(dataset, events.collect_schema())
    marked = rules.mark(events, NOW).filter(pl.col(RULE_CODE) > 0)
    return dict(rules.as_found(marked).select(show, RULE).collect().rows())


SCHEMA = events_of().collect_schema()
PRICED = events_of(
    ("a", "x", at(0), 1.0, "view"),
    ("a", "x", at(0), -2.0, "view"),
    ("b", "y", at(0), 300.0, "VIEW "),
    ("b", None, at(0), 4.0, "buy"),
    ("b", "z", at(0), None, None),
    ("b", "z", at(0), float("nan"), "view"),
)


def test_the_first_broken_rule_names_the_row(tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            ("a", "x", at(0).isoformat()),
            (None, None, "soon"),
            ("a", None, None),
            ("a", "x", None),
            ("a", "x", "soon"),
            ("a", "x", (NOW + timedelta(seconds=1)).isoformat()),
            ("a", "", at(0).isoformat()),
        ],
    )
    dataset = dataset_of(tmp_path)
    events = read_events(dataset)
    rules = Rules.of(dataset, events.collect_schema())
    marked = rules.mark(events, NOW).collect().lazy()
    good = rules.without_private(marked.filter(pl.col(RULE_CODE) == 0)).collect()
    bad = rules.as_found(marked.filter(pl.col(RULE_CODE) > 0)).collect()
    assert good.rows() == [("a", "x", at(0))]
    assert bad.columns == [*COLUMNS, RULE]
    assert bad[RULE].to_list() == [
        "user_id_null",
        "item_id_null",
        "timestamp_null",
        "timestamp_unparsable",
        "in_future",
        "item_id_null",
    ]
    assert bad["timestamp"].to_list()[:4] == ["soon", None, None, "soon"]


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        ({"not_null": {"column": "price"}}, {None: "not_null(price)"}),
        ({"in_range": {"column": "price", "min": 0}}, dict.fromkeys([-2.0, "nan"], "in_range(price)")),
        ({"in_range": {"column": "price", "max": 1}}, dict.fromkeys([300.0, "nan"], "in_range(price)")),
        ({"known_values": {"column": "event_type", "values": ["view"]}}, {300.0: "known_values(event_type)"}),
        ({"matches": {"column": "event_type", "pattern": "^[a-z]+$"}}, {300.0: "matches(event_type)"}),
        ({"satisfies": {"sql": "price >= 0"}}, {-2.0: "satisfies(price >= 0)"}),
        ({"satisfies": {"sql": "price >= 0", "title": "free"}}, {-2.0: "free"}),
    ],
)
def test_each_rule_finds_its_bad_rows(rule: Any, bad: dict[Any, str]) -> None:
    found = {str(price) if price != price else price: name for price, name in broken(shop(rule), PRICED).items()}
    assert found == {4.0: "item_id_null", **bad}


def test_values_of_tables_are_known(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["x"], "kind": ["view"]}).write_parquet(tmp_path / "items.parquet")
    items = {"columns": {"item_id": "item_id", "kind": "kind"}}
    rule = {"known_values": {"column": "event_type", "table": "items", "table_column": "kind"}}
    assert broken(shop(rule, source=tmp_path, items=items), PRICED)[300.0] == "known_values(event_type)"
    strict = shop(source=tmp_path, items={**items, "unknown": "quarantine"})
    found = broken(strict, PRICED, show="item_id")
    assert found == {"y": "unknown_item", "z": "unknown_item", None: "item_id_null"}


def test_options_of_what_is_always_checked_are_set_in_its_place() -> None:
    events = events_of(("a", "x", NOW + timedelta(minutes=3), 1.0, ""), ("a", "x", NOW + timedelta(minutes=6), 2.0, ""))
    assert broken(shop(), events) == {1.0: "in_future", 2.0: "in_future"}
    dataset = shop({"not_in_future": {"grace_minutes": 5}}, {"not_null": {"column": "item_id", "action": "fail"}})
    assert broken(dataset, events) == {2.0: "in_future"}
    rules = Rules.of(dataset, SCHEMA)
    assert rules.names == ("user_id_null", "item_id_null", "timestamp_null", "too_long_ago", "in_future")
    with pytest.raises(InputError, match="item_id_null"):
        rules.verdict({"item_id_null": 1}, 10, "2024-01-01", lambda name: [None])


def test_rows_after_the_first_few_of_a_local_day_are_bad() -> None:
    rows = [("a", "x", at(0, hour), float(hour), "view") for hour in range(21, 27)]
    events = events_of(*rows, ("a", None, at(0, 20), 20.0, "view"), ("b", "x", at(0, 22), 0.0, "view"))
    rule = {"max_per_user_per_day": {"most": 2}}
    # Midnight is after the third of six; a row without an item takes nobody's place.
    many, none = "max_per_user_per_day", {20.0: "item_id_null"}
    assert broken(shop(rule), events) == {23.0: many, 26.0: many, **none}
    assert broken(shop(rule, time_zone="Europe/Berlin"), events) == {25.0: many, 26.0: many, **none}


def test_an_event_told_again_is_bad() -> None:
    events = events_of(
        ("a", "x", at(0), 3.0, "view"),
        ("a", "x", at(0), 1.0, "view"),
        ("a", "x", at(0), 2.0, "buy"),
        ("b", "x", at(0), 4.0, "view"),
        ("b", "x", at(0), -1.0, "view"),
    )
    price, again = {"in_range": {"column": "price", "min": 0}}, "unique_event"
    assert broken(shop(price, again), events) == {3.0: "unique_event", -1.0: "in_range(price)"}
    anyhow = {"unique_event": {"columns": ["item_id", "timestamp"]}}
    assert broken(shop(price, anyhow), events) == {
        2.0: "unique_event(item_id, timestamp)",
        3.0: "unique_event(item_id, timestamp)",
        -1.0: "in_range(price)",
    }


def test_a_row_counts_under_the_first_rule_and_for_no_later_one() -> None:
    events = events_of(
        ("a", "x", at(0), 1.0, "view"), ("a", "x", at(0), 2.0, "view"), ("a", "y", at(0, 13), 0.0, "view")
    )
    again = {"unique_event": {"columns": ["timestamp", "item_id"]}}
    price, many = {"in_range": {"column": "price", "max": 1}}, {"max_per_user_per_day": {"most": 2}}
    assert broken(shop(many), events) == {0.0: "max_per_user_per_day"}
    for later in (price, many):
        assert broken(shop(again, later), events) == {2.0: "unique_event(timestamp, item_id)"}


rows = st.tuples(
    st.sampled_from(["a", "b", None]),
    st.sampled_from(["x", "y", None]),
    st.sampled_from([at(0), at(0, 23), at(1), None]),
    st.sampled_from([1.0, -1.0, None]),
    st.just("view"),
)


@given(st.lists(rows, max_size=12).flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))))
@settings(deadline=None)
def test_the_order_of_rows_never_matters(orders: tuple[list[Any], list[Any]]) -> None:
    dataset = shop({"in_range": {"column": "price", "min": 0}}, {"max_per_user_per_day": {"most": 2}}, "unique_event")
    given, shuffled = (events_of(*order) for order in orders)
    rules = Rules.of(dataset, given.collect_schema())
    told = [rules.mark(events, NOW).collect() for events in (given, shuffled)]
    assert told[0].sort(told[0].columns).equals(told[1].sort(told[1].columns))


@given(st.lists(rows, max_size=12))
@settings(deadline=None)
def test_marking_users_apart_or_days_apart_changes_nothing(some: list[Any]) -> None:
    events = events_of(*some)
    rules = Rules.of(shop({"max_per_user_per_day": {"most": 2}}, "unique_event"), events.collect_schema())
    whole = rules.mark(events, NOW).collect()
    for key in (pl.col("user_id"), pl.col("timestamp").dt.date()):
        values = events.select(key.alias("key").unique()).collect()["key"]
        parts = [rules.mark(events.filter(key.eq_missing(value)), NOW) for value in values]
        apart = pl.concat(parts).collect() if parts else whole
        assert apart.sort(apart.columns).equals(whole.sort(whole.columns))


@pytest.mark.parametrize(
    ("options", "count", "passes"),
    [
        ({}, 100, True),
        ({"tolerate": 0.02}, 2, True),
        ({"tolerate": 0.02}, 3, False),
        ({"action": "fail"}, 0, True),
        ({"action": "fail"}, 1, False),
        ({"action": "fail", "tolerate": 0.02}, 2, True),
    ],
)
def test_a_day_fails_above_what_a_rule_tolerates(options: Any, count: int, passes: bool) -> None:
    rules = Rules.of(shop({"not_null": {"column": "price", **options}}), SCHEMA)
    counts = {"not_null(price)": count, "in_future": 90}

    said = rf"not_null\(price\): {count} of 100 rows of 2024-01-01 \({count}.00%\)"
    with nullcontext() if passes else pytest.raises(InputError, match=said):
        rules.verdict(counts, 100, "2024-01-01", lambda name: [None])


def test_examples_are_the_smallest_bad_values() -> None:
    dataset = shop(
        {"in_range": {"column": "price", "min": 400, "tolerate": 0.1}}, {"satisfies": {"sql": "price > item_id"}}
    )
    rules = Rules.of(dataset, SCHEMA)
    names = ["in_range(price)"] * 5 + ["satisfies(price > item_id)"]
    bad = pl.LazyFrame({"price": [3.0, 1.0, 1.0, 2.0, 4.0, 0.0], "item_id": list("xxyyyz"), "rule": names})
    assert rules.examples(bad, "in_range(price)") == [1.0, 2.0, 3.0]
    assert rules.examples(bad, "satisfies(price > item_id)") == [{"price": 0.0, "item_id": "z"}]
    with pytest.raises(InputError, match=r"such as 1\.0, 2\.0, 3\.0; it tolerates 10\.00%"):
        rules.verdict({"in_range(price)": 5}, 10, "2024-01-01", lambda name: rules.examples(bad, name))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("not_nul", "Unknown check 'not_nul'. Did you mean 'not_null'?"),
        ({"not_null": {"colum": "price"}}, "Did you mean 'column'"),
        ({"not_null": {"column": "prise"}}, "Did you mean 'price'"),
        ({"not_null": {"column": "price", "tolerate": 2}}, "less than or equal to 1"),
        ({"in_range": {"column": "price"}}, "give min, max or both"),
        ({"in_range": {"column": "price", "min": 2, "max": 1}}, "min 2.0 is above max 1.0"),
        ({"in_range": {"column": "event_type", "min": 2}}, "does not fit event_type (String)"),
        ({"known_values": {"column": "price"}}, "give either values or table"),
        ({"known_values": {"column": "price", "values": ["x", 1]}}, "mix text and numbers"),
        ({"known_values": {"column": "price", "values": ["x"]}}, "does not fit price (Float64)"),
        ({"known_values": {"column": "price", "table": "items"}}, "no table of items"),
        ({"matches": {"column": "event_type", "pattern": "("}}, "not a regular expression"),
        ({"matches": {"column": "price", "pattern": "1"}}, "does not fit price (Float64)"),
        ({"readable": {"column": "prise"}}, "Did you mean 'price'"),
        ({"readable": {"column": "item_id", "unfit": "null"}}, "item_id must have a value"),
        ({"not_before": {"earliest": "0000-01-01"}}, "earliest"),
        ({"satisfies": {"sql": "price >"}}, "no SQL expression"),
        ({"satisfies": {"sql": "prise > 0"}}, "Did you mean 'price'"),
        ({"satisfies": {"sql": "LENGTH(event_type)"}}, "not true or false"),
        ({"satisfies": {"sql": "price > AVG(price)"}}, "an aggregate"),
    ],
)
def test_mistakes_are_explained(rule: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        Rules.of(shop(rule), SCHEMA).mark(PRICED, NOW)
    assert message in str(error.value)


def test_two_rules_need_two_names() -> None:
    low, high = ({"in_range": {"column": "price", "min": 0}}, {"in_range": {"column": "price", "max": 200}})
    with pytest.raises(InputError, match="another `title`"):
        Rules.of(shop(low, high), SCHEMA)
    high["in_range"]["title"] = "too_dear"
    assert broken(shop(low, high), PRICED)[300.0] == "too_dear"


def test_every_rule_is_tried_here() -> None:
    source = Path(__file__).read_text()
    assert [name for name in plugins.names(checks) if f'"{name}"' not in source] == []


def test_bad_rows_are_written_as_they_were(tmp_path: Path) -> None:
    rows = [(1, f"{number}", time) for number, (_, _, time) in enumerate(three_days())]
    write(tmp_path, [*rows, (1, "A-7", at(0))])
    manifest = run(tmp_path, dataset_of(tmp_path, events={"id_type": "integer"}))
    assert manifest.facts["quarantined"] == {"item_id_unparsable": 1}
    (file,) = manifest.folder.glob("quarantine/**/*.parquet")
    assert pl.read_parquet(file, hive_partitioning=False).rows() == [(1, "A-7", at(0), "item_id_unparsable")]


def test_unknown_items_are_quarantined_only_when_asked(tmp_path: Path) -> None:
    write(tmp_path, three_days())
    pl.DataFrame({"item_id": ["x", "y"]}).write_parquet(tmp_path / "items.parquet")
    columns = {"item_id": "item_id"}
    kept = run(tmp_path, dataset_of(tmp_path, items={"columns": columns}))
    assert kept.facts["quarantined"] == {}
    assert not (kept.folder / "quarantine").exists()
    strict = run(tmp_path, dataset_of(tmp_path, items={"columns": columns, "unknown": "quarantine"}))
    assert strict.facts["quarantined"] == {"unknown_item": 3}


def test_given_sessions_need_their_id(tmp_path: Path) -> None:
    columns = ("user_id", "item_id", "timestamp", "session_id")
    write(tmp_path, [(*row, None if n == 0 else n // 5) for n, row in enumerate(three_days())], columns)
    given = dataset_of(tmp_path, columns=("session_id",), sessions={"rule": "given"})
    assert run(tmp_path, given).facts["quarantined"] == {"session_id_null": 1}
    assert run(tmp_path, dataset_of(tmp_path, columns=("session_id",))).facts["quarantined"] == {}
