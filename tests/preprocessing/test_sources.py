"""Sources: folders, globs, partitions, object stores; files that differ, on one day and from day to day."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.source.events import FILE, EventFiles, as_found, frozen
from preprocessing.source.files import SAMPLE_ROWS
from schemas.errors import InputError
from tests.preprocessing.small import COLUMNS, at, dataset_of
from tests.slow import examples

SECRET = "hush-hush"
USUAL = {name: name for name in COLUMNS}


def put(place: Path, dtype: Any = None, **columns: list[Any]) -> None:
    """A Parquet or CSV file of events with these columns beside the usual ones."""
    place.parent.mkdir(parents=True, exist_ok=True)
    length = len(next(iter(columns.values()), [0]))
    usual = {"user_id": ["a"] * length, "item_id": ["x"] * length, "timestamp": [at(0).isoformat()] * length}
    frame = pl.DataFrame({**usual, **columns}, schema_overrides=dtype, strict=False)
    frame.write_parquet(place) if place.suffix == ".parquet" else frame.write_csv(place)


def files_of(source: Path | str, path: str = ".", columns: Any = (), **events: Any) -> EventFiles:
    return EventFiles(dataset_of(source, columns=columns, events={"path": path, **events}))


def refused(files: EventFiles, *asked: Any, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        files.scan(*asked, **options)
    return str(error.value)


def test_columns_missing_in_some_files_are_null(tmp_path: Path) -> None:
    put(tmp_path / "1.parquet", price=[1.5], extra=[0])
    put(tmp_path / "2.parquet", price=[2])
    put(tmp_path / "3.parquet", price=[3.5])
    put(tmp_path / "4.parquet", extra=["?"])
    files = files_of(tmp_path, columns=("price",))
    assert sorted(files.scan().collect()["price"], key=str) == [1.5, 2.0, 3.5, None]
    fourth = files.scan(files.files[3:]).collect()
    assert fourth.schema["price"] == pl.Float64 and fourth["price"].to_list() == [None]
    assert "Did you mean 'price'?" in refused(files_of(tmp_path, columns={**USUAL, "p": "prise"}))


@pytest.mark.parametrize("name", COLUMNS)
def test_required_columns_must_be_in_every_file(tmp_path: Path, name: str) -> None:
    put(tmp_path / "1.parquet")
    put(tmp_path / "2.parquet")
    pl.read_parquet(tmp_path / "2.parquet").drop(name).write_parquet(tmp_path / "2.parquet")
    message = refused(files_of(tmp_path))
    assert str(tmp_path / "2.parquet") in message and f"Unknown column {name!r}" in message


def test_numbers_that_became_text_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "1.parquet", size=[38])
    put(tmp_path / "2.parquet", size=["M"])
    message = refused(files_of(tmp_path, columns=("size",)))
    for part in (
        str(tmp_path / "2.parquet"),
        "'size'",
        "Int64 in 1.parquet, but String in 2.parquet",
        "types: {size: text}",
    ):
        assert part in message
    put(tmp_path / "2.parquet", size=[39], user_id=[7])
    message = refused(files_of(tmp_path, columns=("size",)))
    assert "column 'user_id' (user_id): String in 1.parquet, but Int64 in 2.parquet; declare it" in message
    assert files_of(tmp_path, types={"user_id": "text"}).scan().collect()["user_id"].sort().to_list() == ["7", "a"]
    assert files_of(tmp_path, id_type="string").scan().collect()["user_id"].sort().to_list() == ["7", "a"]


def test_text_files_have_the_types_of_all_their_values(tmp_path: Path) -> None:
    put(tmp_path / "1.csv", size=["38"], price=["1"], stock=[None])
    put(tmp_path / "2.csv", size=["M"], price=["1.5"], stock=["3"])
    columns = ("size", "price", "stock")
    inferred = dict.fromkeys(columns, "inferred")
    events = files_of(tmp_path, columns=columns, text_types=inferred).scan().collect().sort("price")
    assert events.select(columns).rows() == [("38", 1.0, None), ("M", 1.5, 3.0)]
    as_text = files_of(tmp_path, columns=columns).scan().collect().sort("price")
    assert as_text.select(columns).rows() == [("38", "1", None), ("M", "1.5", "3")]


@given(st.lists(st.sampled_from([pl.Int8, pl.Int32, pl.UInt16, pl.Int64, pl.Float32, pl.Null]), min_size=1, max_size=4))
@examples(20)
def test_the_order_of_files_changes_nothing(tmp_path_factory: pytest.TempPathFactory, dtypes: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("files")
    values = [None if dtype == pl.Null else number for number, dtype in enumerate(dtypes)]
    for number, (dtype, value) in enumerate(zip(dtypes, values, strict=True)):
        put(folder / "a" / f"{number}.parquet", {"price": dtype}, price=[value])
        put(folder / "b" / f"{9 - number}.parquet", {"price": dtype}, price=[value])
    one, other = (files_of(folder, path, ("price",)).scan().collect().sort("price") for path in "ab")
    assert one.equals(other) and one.schema == other.schema
    there = {*dtypes} - {pl.Null}
    # Floats that are whole are integers where other files hold integers.
    assert one.schema["price"] == (pl.Null if not there else pl.Float64 if there == {pl.Float32} else pl.Int64)


def test_later_files_are_brought_to_what_is_expected(tmp_path: Path) -> None:
    put(tmp_path / "1.csv", user_id=["1"], price=["1.5"], kind=["new"], size=["L"])
    put(tmp_path / "2.csv", user_id=["x2"], price=["2"], size=["38"])
    files = files_of(tmp_path, columns=("price", "kind", "size"), id_type="integer", types={"price": "float"})
    first, second = files.files
    expected = files.scan([first]).collect_schema()
    later = files.scan([second], expected=expected).collect()
    assert later.schema == expected
    assert later.select("user_id", as_found("user_id"), "price", "kind", "size").row(0) == (None, "x2", 2.0, None, "38")
    put(tmp_path / "3.parquet", {"user_id": pl.Int16}, user_id=[3])
    narrow = files_of(tmp_path, "3.parquet", id_type="integer", types={}).scan(expected=expected).collect()
    assert dict(narrow.schema) == dict(expected)
    assert narrow.select("user_id", as_found("user_id"), "price").row(0) == (3, "3", None)


def test_values_as_found_of_files_that_differ_are_text(tmp_path: Path) -> None:
    put(tmp_path / "1.parquet", user_id=["x1"])
    put(tmp_path / "2.parquet", user_id=[2.5])
    put(tmp_path / "3.parquet", user_id=[3])
    events = files_of(tmp_path, id_type="integer").scan().collect()
    assert sorted(events.select("user_id", as_found("user_id")).rows(), key=str) == [
        (3, "3"),
        (None, "2.5"),
        (None, "x1"),
    ]


def test_later_files_of_another_type_are_cast_without_loss(tmp_path: Path) -> None:
    put(tmp_path / "1.parquet", price=[1])
    put(tmp_path / "2.parquet", price=[1.5, 2.0, None])
    put(tmp_path / "3.parquet", price=["3", "free"])
    put(tmp_path / "4.parquet", price=[[1]])
    files = files_of(tmp_path, columns=("price",))
    expected = frozen(files.scan(files.files[:1]).collect_schema())
    later = files.scan(files.files[1:3], expected=expected).collect()
    assert dict(later.schema) == {**expected, as_found("price"): pl.String, as_found("timestamp"): pl.String}
    assert later.select("price", as_found("price")).rows() == [
        (None, "1.5"),
        (2, "2.0"),
        (None, None),
        (3, "3"),
        (None, "free"),
    ]
    message = refused(files, files.files[3:], expected=expected)
    for part in (str(tmp_path / "4.parquet"), "'price'", "holds List(Int64), of which no value is an integer"):
        assert part in message


def test_rows_know_their_file(tmp_path: Path) -> None:
    put(tmp_path / "a[1] é%20.csv", user_id=["1", "1"])
    put(tmp_path / "b.csv", user_id=["2"], other=[0])
    put(tmp_path / "c.csv", user_id=["3"])
    files = files_of(tmp_path)
    a, _, c = files.files
    events = files.scan([c, a], number=True).collect().sort(FILE)
    assert events.schema[FILE] == pl.Int32
    assert events.select("user_id", FILE).rows() == [("3", 0), ("1", 1), ("1", 1)]
    assert files.scan(number=True).select(FILE, "user_id").collect().sort(FILE).rows() == [
        (0, "1"),
        (0, "1"),
        (1, "2"),
        (2, "3"),
    ]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_folders_can_be_columns(tmp_path: Path, ending: str) -> None:
    put(tmp_path / "log" / "day=2024-01-02" / "shop=7" / f"1.{ending}")
    put(tmp_path / "log" / "day=2024-01-01" / "shop=__HIVE_DEFAULT_PARTITION__" / f"1.{ending}")
    put(tmp_path / "log" / "day=2024-01-01" / "shop=a%2Fb" / f"2.{ending}", shop=["its own"])
    put(tmp_path / "log" / "day=2024-01-03" / "shop=a%2Fb" / f"3.{ending}")
    mapping = {"user_id": "user_id", "item_id": "item_id", "timestamp": "day", "shop": "shop"}
    events = files_of(tmp_path, "log", mapping).scan().collect().sort("timestamp", "shop")
    assert events.select("timestamp", "shop").rows() == [
        (at(0, 0), None),
        (at(0, 0), "its own"),
        (at(1, 0), "7"),
        (at(2, 0), "a/b"),
    ]


def test_partitions_have_one_type(tmp_path: Path) -> None:
    for day, shop in ((1, "07"), (2, "8"), (3, "9")):
        put(tmp_path / f"day={day}" / f"shop={shop}" / "1.parquet")
    files = files_of(tmp_path, ".", {**USUAL, "s": "shop"})
    events = files.scan().collect()
    assert sorted(events["s"]) == ["07", "8", "9"]  # what names of folders hold is text, as in text files
    numbers = files_of(tmp_path, ".", {**USUAL, "s": "shop"}, types={"s": "integer"})
    assert numbers.scan(numbers.files[:1]).collect()["s"].to_list() == [7]


def test_a_file_goes_before_its_folders(tmp_path: Path) -> None:
    put(tmp_path / "price=7" / "1.parquet", price=[5])
    put(tmp_path / "price=8" / "2.parquet")
    events = files_of(tmp_path, columns=("price",)).scan().collect()
    assert events.schema["price"] == pl.Int64 and sorted(events["price"]) == [5, 8]
    put(tmp_path / "price=none" / "3.parquet", price=[9])
    assert files_of(tmp_path, "price=none", ("price",)).scan().collect()["price"].to_list() == [9]


def test_globs_and_hidden_files(tmp_path: Path) -> None:
    for name in ("log/a/1.csv", "log/a/b/2.csv", "log/3.csv", "log/_tmp/4.csv", "log/.5.csv", "other/6.csv"):
        put(tmp_path / name)
    found = {
        path: [file.path for file in files_of(tmp_path, path).files] for path in ("log", "log/*/*.csv", "log/**/*.csv")
    }
    assert found["log"] == found["log/**/*.csv"] == ["log/3.csv", "log/a/1.csv", "log/a/b/2.csv"]
    assert found["log/*/*.csv"] == ["log/a/1.csv"]
    assert [file.path for file in files_of(tmp_path, "log/_tmp/*").files] == ["log/_tmp/4.csv"]
    assert [file.path for file in files_of(tmp_path, "log/.5.csv").files] == ["log/.5.csv"]


def test_links_stay_inside_the_source(tmp_path: Path) -> None:
    source, outside = tmp_path / "source", tmp_path / "outside"
    put(source / "2024" / "1.csv")
    put(outside / "secret.csv")
    (source / "loop").symlink_to(source)
    (source / "latest").symlink_to(source / "2024")
    assert [file.path for file in files_of(source).files] == ["2024/1.csv"]
    assert [file.path for file in files_of(source, "latest").files] == ["latest/1.csv"]
    for link, target in (("folder", outside), ("file.csv", outside / "secret.csv")):
        (source / link).symlink_to(target)
        for path in (".", "**/*.csv", link):
            with pytest.raises(InputError, match="outside the source"):
                files_of(source, path)
        (source / link).unlink()
    (tmp_path / "alias").symlink_to(source)  # the source itself may be a link
    assert len(files_of(tmp_path / "alias").files) == 1


def test_stamps_follow_the_content(tmp_path: Path) -> None:
    put(tmp_path / "1.csv")
    (before,) = files_of(tmp_path).files
    time.sleep(0.01)
    put(tmp_path / "1.csv", user_id=["b"])
    (after,) = files_of(tmp_path).files
    assert before.path == after.path == "1.csv" and before.size == after.size
    assert before.stamp != after.stamp


def test_nothing_is_opened_before_it_is_asked_for(tmp_path: Path) -> None:
    put(tmp_path / "1.parquet")
    (tmp_path / "2.parquet").write_text("damaged")
    files = files_of(tmp_path)
    assert files.scan(files.files[:1]).collect().height == 1
    assert f"{tmp_path / '2.parquet'} (Parquet): cannot be read" in refused(files)


def test_keys_of_json_lines_may_come_late(tmp_path: Path) -> None:
    line = '{"user_id": 1, "item_id": 2, "timestamp": 3'
    (tmp_path / "1.jsonl").write_text(f"{line}}}\n" * SAMPLE_ROWS + f'{line}, "price": 4}}\n')
    (tmp_path / "2.jsonl").write_text(f'{line}, "price": 5}}\n')
    assert files_of(tmp_path, columns=("price",)).scan().collect()["price"].drop_nulls().sort().to_list() == ["4", "5"]


def test_no_files_are_no_rows(tmp_path: Path) -> None:
    put(tmp_path / "1.parquet", price=[1])
    files = files_of(tmp_path, columns=("price",))
    none = files.scan([], number=True).collect()
    assert none.is_empty() and none.schema == files.scan(number=True).collect_schema()


def test_names_of_json_files_may_look_like_globs(tmp_path: Path) -> None:
    for name in ("a[1]*?.jsonl", "a1x.jsonl"):
        (tmp_path / name).write_text('{"user_id": 1, "item_id": 2, "timestamp": 3}\n')
    assert files_of(tmp_path).scan().collect().height == 2


def test_thousands_of_files_open_in_seconds(tmp_path: Path) -> None:
    put(tmp_path / "0.parquet", price=[1])
    content = (tmp_path / "0.parquet").read_bytes()
    for number in range(1, 3_000):
        (tmp_path / f"{number}.parquet").write_bytes(content)
    start = time.process_time()
    files = files_of(tmp_path, columns=("price",))
    plan = files.scan(number=True)
    assert time.process_time() - start < 5
    assert "UNION" not in plan.explain()
    assert plan.collect()[FILE].n_unique() == 3_000
