"""JSON files as they come: what is not mapped never matters, lists become rows, keys may come late."""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.source.events import EventFiles, read_events
from preprocessing.source.files import SAMPLE_ROWS
from schemas.errors import InputError
from tests.preprocessing import small
from tests.preprocessing.small import COLUMNS, at, dataset_of

compress = partial(gzip.compress, mtime=0)  # the same bytes in every process that collects tests

ROW = {"user_id": "u", "item_id": "i", "timestamp": "2024-01-01"}
USUAL = {name: name for name in COLUMNS}


def lines(*rows: Any) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def events_of(folder: Path, content: str | bytes, name: str = "a.jsonl", **events: Any) -> pl.DataFrame:
    """What is read of one file in the folder `log`."""
    return small.events_of(folder, content, name, **events)


@pytest.mark.parametrize(
    "odd", [[[], {"a": 1}], [1, {"a": 1}], [None, "x", 1.5, [1, [2]]], [{"a": {"b": 1}}, {"a": []}], [True, 10**30]]
)
def test_fields_that_are_not_mapped_may_hold_anything(tmp_path: Path, odd: list[Any]) -> None:
    assert events_of(tmp_path, lines(*({**ROW, "odd": value} for value in odd)))["item_id"].to_list() == ["i"] * len(
        odd
    )


def test_a_field_of_many_shapes_is_text(tmp_path: Path) -> None:
    shapes: list[Any] = ["x", 1, {"a": 1}, [1, 2], None]
    read = events_of(tmp_path, lines(*({**ROW, "odd": value} for value in shapes)), columns=("odd",))
    assert read["odd"].to_list() == ["x", "1", '{"a": 1}', "[1, 2]", None]


@pytest.mark.parametrize("late", [[7], 7, "x", {"country": "NL"}])
def test_keys_may_come_late(tmp_path: Path, late: Any) -> None:
    text = lines(ROW) * (SAMPLE_ROWS + 1) + lines({**ROW, "late": late})
    columns = {**USUAL, "late": "late.country"} if isinstance(late, dict) else ("late",)
    read = events_of(tmp_path, text, columns=columns)["late"]
    expected = "NL" if isinstance(late, dict) else late if isinstance(late, list) else str(late)
    assert read.null_count() == SAMPLE_ROWS + 1 and read.drop_nulls().to_list() == [expected]


def test_a_key_that_no_row_has_is_a_typing_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'item_id'"):
        events_of(tmp_path, lines(ROW), columns={**USUAL, "item_id": "itm_id"})
    with pytest.raises(InputError, match=r"events\[\].aid"):
        events_of(tmp_path, lines({"session": 1, "events": [{"aid": 5}]}), columns={**USUAL, "item_id": "aid"})


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (lines(ROW, ROW), "a.json"),
        (lines(ROW, ROW), "a.JSONL"),
        (lines(ROW, ROW).replace("\n", "\n\n"), "a.ndjson"),
        ("\ufeff" + lines(ROW, ROW), "a.json"),
        (lines(ROW, ROW).encode("utf-16"), "a.json"),
        (json.dumps([ROW, ROW]), "a.json"),
        (json.dumps([ROW, ROW], indent=2), "a.jsonl"),
        (compress(json.dumps([ROW, ROW]).encode()), "a.json.gz"),
    ],
)
def test_lines_and_lists_give_the_same(tmp_path: Path, content: str | bytes, name: str) -> None:
    assert events_of(tmp_path, content, name)["item_id"].to_list() == ["i", "i"]


def test_one_object_over_many_lines_is_a_row(tmp_path: Path) -> None:
    assert events_of(tmp_path, json.dumps(ROW, indent=2), "a.json").height == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lines(ROW) + '{"user_id": 1', "line 2: is no JSON"),
        (lines(ROW) * SAMPLE_ROWS + lines(ROW) + "[1]\n", f"line {SAMPLE_ROWS + 2}: a row is an object"),
        (lines(ROW) + lines(ROW).strip() * 2, "line 2: is no JSON"),
        (lines(ROW) + "5\n", "line 2: a row is an object"),
        (lines({**ROW, "item_id": "é"}).replace("\\u00e9", "é").encode("latin-1"), "latin-1"),
    ],
)
def test_what_is_no_row_is_refused_with_its_line(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(InputError) as error:
        events_of(tmp_path, content)
    assert words in str(error.value) and "a.jsonl" in str(error.value)


def test_a_list_of_events_gives_a_row_each(tmp_path: Path) -> None:
    columns = {"user_id": "session", "item_id": "events[].aid", "timestamp": "events[].ts", "kind": "events[].type"}
    visits = [
        {
            "session": 1,
            "events": [{"aid": 5, "ts": 1_704_103_200_000, "type": "clicks"}, {"aid": 6, "ts": 1_704_103_260_000}],
        },
        {"session": 2, "events": []},
        {"session": 3, "events": None},
        {"session": 4},
        {"session": 5, "events": {"aid": 7, "ts": 1_704_103_200_000, "type": "carts"}},  # one, where others have lists
        {"session": 6, "events": {}},
    ]
    read = events_of(tmp_path, lines(*visits), columns=columns)
    assert read.select("user_id", "item_id", "kind").rows() == [
        ("1", "5", "clicks"),
        ("1", "6", None),
        ("5", "7", "carts"),
    ]
    assert read["timestamp"].to_list() == [at(0, 10), at(0, 10, 1), at(0, 10)]
    assert EventFiles(dataset_of(tmp_path, columns=columns, events={"path": "log"})).count_without_events() == 4


def test_lists_that_are_all_empty_give_no_rows(tmp_path: Path) -> None:
    columns = {**USUAL, "item_id": "items[].id"}
    row = {**ROW, "items": []}
    assert events_of(tmp_path, lines(row, row), columns=columns).is_empty()


def nested(ending: str, folder: Path) -> None:
    rows = [
        {
            **ROW,
            "geo": {"country": "NL"},
            "orders": [{"id": 1, "lines": [{"sku": "a"}, {"sku": "b"}]}, {"id": 2, "lines": []}],
        },
        {**ROW, "geo": {"country": None}, "orders": [{"id": 3, "lines": [{"sku": "c"}]}]},
    ]
    (folder / "log").mkdir()
    place = folder / "log" / f"a.{ending}"
    pl.DataFrame(rows).write_parquet(place) if ending == "parquet" else place.write_text(lines(*rows))


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_paths_lead_into_objects_and_lists_of_lists(tmp_path: Path, ending: str) -> None:
    nested(ending, tmp_path)
    columns = {
        "user_id": "user_id",
        "timestamp": "timestamp",
        "item_id": "orders[].lines[].sku",
        "position": "orders[].lines[].index()",
        "order": "orders[].id",
        "first": "orders[0].id",
        "country": "geo.country",
    }
    dataset = dataset_of(tmp_path, columns=columns, events={"path": "log", "id_type": "string"})
    read = read_events(dataset).collect().sort("item_id")
    assert [tuple(map(str, row)) for row in read.select(*list(columns)[2:]).rows()] == [
        ("a", "0", "1", "1", "NL"),
        ("b", "1", "1", "1", "NL"),
        ("c", "0", "3", "3", "None"),
    ]
    assert EventFiles(dataset).count_without_events() == 1


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_baskets_and_lists_side_by_side(tmp_path: Path, ending: str) -> None:
    basket = {"u": "a", "t": "2024-01-01", "ids": ["x", "y"], "prices": [1, 2]}
    rows = [basket, {**basket, "ids": [], "prices": []}]
    (tmp_path / "log").mkdir()
    place = tmp_path / "log" / f"a.{ending}"
    pl.DataFrame(rows).write_parquet(place) if ending == "parquet" else place.write_text(lines(*rows))
    columns = {"user_id": "u", "timestamp": "t", "item_id": "ids[]", "price": "prices[]"}
    read = read_events(dataset_of(tmp_path, columns=columns, events={"path": "log"})).collect()
    assert [tuple(map(str, row)) for row in read.select("user_id", "item_id", "price").rows()] == [
        ("a", "x", "1"),
        ("a", "y", "2"),
    ]


def test_an_element_is_found_by_its_key(tmp_path: Path) -> None:
    params = [{"key": "page", "value": {"text": "home"}}, {"key": "id", "value": {"text": "7"}}]
    columns = {**USUAL, "page": "params[key=page].value.text"}
    read = events_of(tmp_path, lines({**ROW, "params": params}, {**ROW, "params": params[1:]}), columns=columns)
    assert read["page"].to_list() == ["home", None]


def test_names_with_dots_go_before_paths(tmp_path: Path) -> None:
    read = events_of(tmp_path, lines({**ROW, "a.b": "whole", "a": {"b": "part"}}), columns={**USUAL, "x": "a.b"})
    assert read["x"].to_list() == ["whole"]


def test_text_in_csv_may_be_json_or_a_list(tmp_path: Path) -> None:
    text = 'user_id,timestamp,items,more\nu,2024-01-01,A B,"{""page"": ""home""}"\nv,2024-01-02,,x\n'
    columns = {"user_id": "user_id", "timestamp": "timestamp", "item_id": 'items.split(" ")[]', "page": "more.page"}
    read = events_of(tmp_path, text, "a.csv", columns=columns)
    assert read.select("user_id", "item_id", "page").rows() == [("u", "A", "home"), ("u", "B", "home")]


def test_a_list_taken_for_an_object_says_what_to_write(tmp_path: Path) -> None:
    nested("parquet", tmp_path)
    dataset = dataset_of(tmp_path, columns={**USUAL, "order": "orders.id"}, events={"path": "log"})
    with pytest.raises(InputError, match=r"a.parquet: .*write orders\[\] for a row an element or orders\[0\]"):
        read_events(dataset)


LISTS = {"user_id": "user_id", "timestamp": "timestamp", "item_id": "items[].id"}


@pytest.mark.parametrize("without", [[None], [], [None, None]])
def test_a_file_in_which_no_row_has_the_list_gives_no_events(tmp_path: Path, without: list[Any]) -> None:
    rows = [{"user_id": "u", "timestamp": "2024-01-02", "items": value} for value in without]
    rows = rows or [{"user_id": "u", "timestamp": "2024-01-02"}] * 2
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "b.jsonl").write_text(lines(*rows))
    full = lines({**ROW, "items": [{"id": "x"}, {"id": "y"}]})
    assert events_of(tmp_path, full, columns=LISTS)["item_id"].to_list() == ["x", "y"]
    files = EventFiles(dataset_of(tmp_path, columns=LISTS, events={"path": "log"}))
    assert files.count_without_events() == len(rows)
    assert files.scan([file for file in files.files if file.path == "log/b.jsonl"]).collect().is_empty()
    assert files.scan(number=True).collect()["item_id"].to_list() == ["x", "y"]


@pytest.mark.parametrize("row", [{"items": None}, {"items": [{"sku": "x"}]}, {"itemz": [{"id": "x"}]}])
def test_a_list_that_no_file_has_is_refused(tmp_path: Path, row: Any) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl: column for 'item_id': Unknown column 'items\[\]\.id'"):
        events_of(tmp_path, lines({**ROW, **row}), columns=LISTS)


@pytest.mark.parametrize("prices", [[1], None, [1, 2, 3]])
def test_lists_of_one_row_that_differ_in_length_are_named(tmp_path: Path, prices: Any) -> None:
    columns = {**LISTS, "item_id": "a[]", "price": "b[]"}
    text = lines({**ROW, "a": ["x", "y"], "b": [1, 2]}, {**ROW, "a": ["x", "y"], "b": prices})
    with pytest.raises(InputError, match=rf"a\.jsonl: a row has 2 in 'a\[\]' and {len(prices or [])} in 'b\[\]'"):
        events_of(tmp_path, text, columns=columns)


def test_the_text_of_a_number_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    numbers = ["1234567890123456.0", "0.00001", "1e16", "1.0", "-0.0", "1E5", "0.1", "1e22", str(2**64), "12.50"]
    rows = "".join(f'{{"user_id":"u","timestamp":"2024-01-01","item_id":{number}}}\n' for number in numbers)
    read = events_of(tmp_path, rows)["item_id"].to_list()
    assert read[:4] == ["1234567890123456", "0.00001", "10000000000000000", "1"]
    beside = '{"user_id":"u","timestamp":"2024-01-01","item_id":"last","x":NaN}\n'
    assert events_of(tmp_path, rows + beside)["item_id"].to_list() == [*read, "last"]


@pytest.mark.parametrize("half", ["\\ud800", "\\uDC00", "x\\udbffx", "\\ude00\\ud83d"])
def test_halves_of_surrogate_pairs_are_refused_with_the_line(tmp_path: Path, half: str) -> None:
    usual = '{"user_id":"u","timestamp":"2024-01-01","item_id":"%s","odd":"%s"}\n'
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: 'item_id' holds half of a surrogate pair"):
        events_of(tmp_path, usual % ("\\ud83d\\ude00", "x") + usual % (half, "x"))
    read = events_of(tmp_path, usual % ("\\ud83d\\ude00", half))  # what is not mapped never matters
    assert read["item_id"].to_list() == ["😀"]
