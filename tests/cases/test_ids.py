"""Ids come back as the files have them: none is rounded, none loses a zero, none is another one's twin."""

from __future__ import annotations

import re
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.source.canonical import as_found
from preprocessing.source.events import EventFiles, read_events
from preprocessing.source.lookups import read_items, with_ids_of
from schemas.errors import InputError
from tests.preprocessing.small import at, dataset_of, decoded, run
from tests.slow import examples

FIRST = 9_007_199_254_740_992  # 2**53: from here on a float stands for several integers


def put(place: Path, items: pl.Series, times: int = 1) -> None:
    count = len(items)
    moments = [at(place.stem.count("n"), 12, minute) for minute in range(count)]
    pl.DataFrame({"user_id": ["a"] * count, "item_id": items, "timestamp": moments}).write_parquet(place)


def items_of(folder: Path, **events: Any) -> pl.DataFrame:
    read = read_events(dataset_of(folder, events={"path": "*.parquet", **events})).collect().sort("timestamp")
    return read.select(name for name in read.columns if name.startswith("item_id"))


@pytest.mark.parametrize(
    ("ids", "read"),
    [
        (pl.Series([FIRST + number for number in range(9)], dtype=pl.Decimal(38, 0)), [FIRST + n for n in range(9)]),
        (pl.Series([Decimal("12.00"), Decimal("-3.00"), None], dtype=pl.Decimal(10, 2)), [12, -3, None]),
        (pl.Series([2**64 - 1, 2**64 - 2, 7], dtype=pl.UInt64), [str(2**64 - 1), str(2**64 - 2), "7"]),
        (pl.Series([2**63 - 1, 7], dtype=pl.UInt64), [2**63 - 1, 7]),
        (pl.Series([2**70, -(2**70)], dtype=pl.Int128), [str(2**70), str(-(2**70))]),
        (pl.Series([Decimal(10**37 + 1), Decimal(5)], dtype=pl.Decimal(38, 0)), [str(10**37 + 1), "5"]),
        (pl.Series([-5, 0, 5], dtype=pl.Int16), [-5, 0, 5]),
        (pl.Series([b"0108", b"108", b"caf\xc3\xa9", b""], dtype=pl.Binary), ["0108", "108", "café", None]),
        (pl.Series(["b", "a", "b", None], dtype=pl.Categorical), ["b", "a", "b", None]),
        (pl.Series(["b", "a", None], dtype=pl.Enum(["a", "b"])), ["b", "a", None]),
        (pl.Series(["0108", "108", ""]), ["0108", "108", None]),
        (pl.Series([7.0, 8.0, None, float("nan")]), [7, 8, None, None]),
    ],
)
def test_parquet_ids_are_exact(tmp_path: Path, ids: pl.Series, read: list[Any]) -> None:
    put(tmp_path / "1.parquet", ids)
    assert items_of(tmp_path)["item_id"].to_list() == read


@pytest.mark.parametrize(
    ("ids", "read", "odd"),
    [
        (pl.Series([7.0, 2.5, 2.0**53 + 2, float("inf")]), [7, None, None, None], [2.5, 2.0**53 + 2, float("inf")]),
        (pl.Series([Decimal("12.00"), Decimal("12.50")], dtype=pl.Decimal(10, 2)), [12, None], [Decimal("12.50")]),
    ],
)
def test_what_is_no_whole_number_is_kept_as_found(
    tmp_path: Path, ids: pl.Series, read: list[Any], odd: list[Any]
) -> None:
    put(tmp_path / "1.parquet", ids)
    events = items_of(tmp_path)
    assert events["item_id"].to_list() == read
    assert events.filter(pl.col("item_id").is_null())[as_found("item_id")].to_list() == odd


@pytest.mark.parametrize("fixed", [False, True])
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, fixed: bool) -> None:
    ids = [b"\xff\xfe" * 8, uuid.UUID(int=2**127 + 255).bytes]
    dtype = pyarrow.binary(16) if fixed else pyarrow.binary()
    table = {"user_id": ["a", "a"], "item_id": pyarrow.array(ids, dtype), "timestamp": [at(0), at(1)]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "1.parquet")
    with pytest.raises(InputError, match="'item_id' holds bytes that are not UTF-8 text"):
        items_of(tmp_path)


def test_bytes_that_are_no_text_later_are_kept_as_found(tmp_path: Path) -> None:
    put(tmp_path / "1.parquet", pl.Series([b"x"], dtype=pl.Binary))
    put(tmp_path / "2n.parquet", pl.Series([b"y", b"\xff"], dtype=pl.Binary))
    files = EventFiles(dataset_of(tmp_path, events={"path": "*.parquet"}))
    first = files.scan(files.files[:1]).collect_schema()
    later = files.scan(files.files[1:], expected=first).collect()
    assert later.select("item_id", as_found("item_id")).rows() == [("y", "y"), (None, "0xff")]


@pytest.mark.parametrize("ids", [pl.Series([True]), pl.Series([[1]]), pl.Series([at(0)])])
def test_what_cannot_be_an_id_is_refused(tmp_path: Path, ids: pl.Series) -> None:
    put(tmp_path / "1.parquet", ids)
    with pytest.raises(InputError, match=r"1\.parquet.*an id is an integer or a string"):
        items_of(tmp_path)


def test_integers_and_text_are_refused_unless_declared(tmp_path: Path) -> None:
    put(tmp_path / "1.parquet", pl.Series([7]))
    put(tmp_path / "2n.parquet", pl.Series(["7"]))
    with pytest.raises(InputError, match=r"Int64 in 1\.parquet, but String in 2n\.parquet.*types: {item_id: text}"):
        items_of(tmp_path)
    assert items_of(tmp_path, types={"item_id": "text"})["item_id"].to_list() == ["7", "7"]
    assert items_of(tmp_path, types={"item_id": "integer"})["item_id"].to_list() == [7, 7]
    assert items_of(tmp_path, id_type="string")["item_id"].to_list() == ["7", "7"]


@pytest.mark.parametrize(
    "stored",
    [
        pl.Series([7, 8], dtype=pl.UInt8),
        pl.Series([7, 8], dtype=pl.Int128),
        pl.Series([7.0, 8.0]),
        pl.Series([7.0, 8.0], dtype=pl.Float32),
        pl.Series([Decimal("7.00"), Decimal("8.00")], dtype=pl.Decimal(20, 2)),
        pl.Series([Decimal(7), Decimal(8)], dtype=pl.Decimal(38, 0)),
        pl.Series(["7", "8"]),
        pl.Series([b"7", b"8"]),
        pl.Series(["7", "8"], dtype=pl.Categorical),
    ],
)
@pytest.mark.parametrize(("declared", "same"), [("text", ["7", "8"]), ("integer", [7, 8])])
def test_an_id_is_the_same_however_it_is_stored(tmp_path: Path, stored: pl.Series, declared: str, same: Any) -> None:
    put(tmp_path / "1.parquet", stored)
    assert items_of(tmp_path, types={"item_id": declared})["item_id"].to_list() == same


@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=5))
@examples(30)
def test_integers_of_any_size_stay_apart(tmp_path_factory: pytest.TempPathFactory, ids: list[int]) -> None:
    folder = tmp_path_factory.mktemp("ids")
    put(folder / "1.parquet", pl.Series(ids, dtype=pl.Int128))
    assert list(map(str, items_of(folder)["item_id"])) == list(map(str, ids))


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_ids_of_text_files_are_text(tmp_path: Path, ending: str) -> None:
    days = [("0108775015", "108775015", "7")] * 3 + [("A-7", "108775015", "7")]
    rows = [
        {"user_id": "01", "item_id": item, "timestamp": at(day, 12, place).isoformat()}
        for day, items in enumerate(days)
        for place, item in enumerate(items)
    ]
    frame = pl.DataFrame(rows)
    place = tmp_path / f"events.{ending}"
    frame.write_csv(place) if ending == "csv" else frame.write_ndjson(place)
    manifest = run(tmp_path, dataset_of(tmp_path, events={"path": place.name}))
    assert decoded(manifest)[0] == ["0108775015", "108775015", "7"]
    assert pl.read_parquet(manifest.folder / "vocabularies" / "item_id.parquet").schema["value"] == pl.String


def test_integers_can_be_declared_for_text_files(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(
        "user_id,item_id,timestamp\n07, 8 ,2024-01-01\n7,8.0,2024-01-01\n7,A-7,2024-01-01\n7,8.5,2024-01-01\n"
    )
    types = {"user_id": "integer", "item_id": "integer"}
    events = read_events(dataset_of(tmp_path, events={"path": "events.csv", "types": types})).collect()
    assert events["user_id"].to_list() == [7] * 4
    assert events["item_id"].to_list() == [8, 8, None, None]
    assert events[as_found("item_id")].to_list()[2:] == ["A-7", "8.5"]


@pytest.mark.parametrize(
    ("in_events", "in_table", "joined"),
    [
        ([7, 8, 9], ["7", "08", "A-9"], [70, None, None]),
        (["7", "08", "A-9"], [7, 8, 9], [70, None, None]),
        ([7, 8, 9], [7.0, 8.0, None], [70, 80, None]),
        (["7", "8", "9"], [7.0, 8.0, 10.0], [70, 80, None]),
        ([7, 8, 9], [b"7", b"8", b"9"], [70, 80, 90]),
    ],
)
def test_tables_are_joined_by_ids_of_the_type_of_the_events(
    tmp_path: Path, in_events: list[Any], in_table: list[Any], joined: list[Any]
) -> None:
    pl.DataFrame({"item_id": in_table, "price": [70, 80, 90]}).write_parquet(tmp_path / "items.parquet")
    columns = {"item_id": "item_id", "price": "price"}
    dataset = dataset_of(tmp_path, items={"columns": columns})
    events = pl.LazyFrame({"item_id": in_events})
    table = with_ids_of(events, read_items(dataset), "item_id")
    assert events.join(table, on="item_id", how="left", maintain_order="left").collect()["price"].to_list() == joined


def test_a_table_of_none_of_the_ids_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["x", "y"]}).write_parquet(tmp_path / "items.parquet")
    items = read_items(dataset_of(tmp_path, items={"columns": {"item_id": "item_id"}}))
    with pytest.raises(InputError, match="item_id is Int64 in the events and String in the item table"):
        with_ids_of(pl.LazyFrame({"item_id": [1]}), items, "item_id")


@pytest.mark.parametrize("unknown", ["quarantine", "keep"])
@pytest.mark.parametrize(("part", "key"), [("items", "item_id"), ("users", "user_id")])
def test_a_table_that_has_none_of_the_ids_is_named_with_one_of_each(
    part: str, key: str, unknown: str, tmp_path: Path
) -> None:
    """It said that no rows are left, or that the column that was to be joined is empty, and nothing of the table."""
    moments = [at(day, 12, place) for day in range(3) for place in range(3)]
    pl.DataFrame({"user_id": ["u1"] * 9, "item_id": ["i7", "i8", "i9"] * 3, "timestamp": moments}).write_parquet(
        tmp_path / "events.parquet"
    )
    pl.DataFrame({"id": ["X7", "X8"], "shelf": ["a", "b"]}).write_parquet(tmp_path / "table.parquet")
    about = {"path": "table.parquet", "columns": {key: "id", "shelf": "shelf"}}
    dataset = dataset_of(
        tmp_path,
        **{part: about | ({"unknown": unknown} if part == "items" else {})},
        steps=[{f"join_{part}": {"columns": ["shelf"]}}],
        features={"shelf": {"encode": "category"}},
    )
    own = {"items": "i7", "users": "u1"}[part]
    words = f"'table.parquet' has none of the events' {key}s, such as '{own}': it has 2 of its own, such as 'X7'"
    with pytest.raises(InputError, match=re.escape(words)):
        run(tmp_path, dataset)


def test_a_table_in_a_text_file_goes_with_integers(tmp_path: Path) -> None:
    moments = [at(day, 12, place) for day in range(3) for place in range(3)]
    frame = {"user_id": [1] * 9, "item_id": [7, 8, 9] * 3, "timestamp": moments}
    pl.DataFrame(frame).write_parquet(tmp_path / "events.parquet")
    (tmp_path / "items.csv").write_text("id,category\n7,1\n8,2\n010,3\n")
    manifest = run(
        tmp_path,
        dataset_of(
            tmp_path,
            items={"path": "items.csv", "columns": {"item_id": "id", "category": "category"}, "unknown": "quarantine"},
            steps=[{"join_items": {"columns": ["category"]}}],
            features={"category": {"encode": "category"}},
        ),
    )
    assert manifest.facts["quarantined"] == {"unknown_item": 3}
    assert decoded(manifest)[0] == [7, 8]


def test_an_item_table_is_read_once_and_anew_when_it_changes(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, items={"path": "items.csv", "columns": {"item_id": "id", "price": "price"}})
    (tmp_path / "items.csv").write_text("id,price\n1,5\n")
    first = read_items(dataset).collect()
    assert read_items(dataset).collect()["price"].to_list() == ["5"]
    (tmp_path / "items.csv").write_text("id,price\n1,50\n")
    assert first["price"].to_list() == ["5"] and read_items(dataset).collect()["price"].to_list() == ["50"]


def test_text_ids_of_a_later_night_are_integers_only_in_their_own_spelling(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, events={"path": "*.parquet"})
    for night in ("n.parquet", "nn.parquet"):
        put(tmp_path / night, pl.Series([7, -7, 9]))
    run(tmp_path, dataset)
    odd = ["007", " 7", "7 ", "7.0", "7e0", "+7", "-0"]
    put(tmp_path / "nnn.parquet", pl.Series(["7", "-7", "9", "9", *odd]))
    manifest = run(tmp_path, dataset)
    assert manifest.facts["quarantined"] == {"item_id_unparsable": len(odd)}
    assert decoded(manifest)[-1] == [7, -7, 9, 9]


@pytest.mark.parametrize(("dtype", "last"), [(pl.Float32, 2**24), (pl.Float64, 2**53)])
def test_floats_that_stand_for_several_ids_are_none(tmp_path: Path, dtype: Any, last: int) -> None:
    put(tmp_path / "1.parquet", pl.Series([last - 1, last, last + 2, -last, 1 - last, 9], dtype=dtype))
    assert items_of(tmp_path)["item_id"].to_list() == [last - 1, None, None, None, 1 - last, 9]


def test_messages_name_the_odd_file(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", pl.Series([b"a", b"b"]))
    put(tmp_path / "b.parquet", pl.Series([b"a", b"\xff"]))
    with pytest.raises(InputError, match=r"b\.parquet: column 'item_id' holds bytes that are not UTF-8"):
        items_of(tmp_path)
    put(tmp_path / "b.parquet", pl.Series([["a"], ["b"]]))
    with pytest.raises(
        InputError, match=r"b\.parquet: .*an id is an integer or a string: take .* items\[\]\.id.* file$"
    ):
        items_of(tmp_path)


def test_the_type_that_does_not_go_with_others_is_named(tmp_path: Path) -> None:
    columns = {"user_id": "user_id", "timestamp": "timestamp", "item_id": "user_id", "event_type": "item_id"}
    for name, types in (("a", [0, 1]), ("b", [0.0, 1.0]), ("c", [True, False])):
        put(tmp_path / f"{name}.parquet", pl.Series(types))
    with pytest.raises(InputError, match=r"c\.parquet: .*Boolean in c\.parquet"):
        read_events(dataset_of(tmp_path, columns=columns, events={"path": "*.parquet"})).collect()
