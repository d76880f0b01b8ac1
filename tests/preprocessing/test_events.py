"""Reading: every format and kind of time becomes the same events; what cannot be read says what to do."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow
import pytest

from preprocessing.source.events import as_found, read_events, read_items, read_users
from preprocessing.source.files import source_files
from schemas.errors import InputError
from tests.preprocessing.small import at, dataset_of, three_days, write

TIME = datetime(2024, 1, 1, 10, 30, tzinfo=UTC)
SECONDS = int(TIME.timestamp())


def timestamps(tmp_path: Path, values: pl.Series, **events: Any) -> list[Any]:
    pl.DataFrame({"user_id": [1] * len(values), "item_id": [1] * len(values), "timestamp": values}).write_parquet(
        tmp_path / "events.parquet"
    )
    return read_events(dataset_of(tmp_path, events=events)).collect()["timestamp"].to_list()


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_naive_datetimes_are_utc(tmp_path: Path, unit: Any) -> None:
    naive = pl.Series([TIME.replace(tzinfo=None)], dtype=pl.Datetime(unit))
    assert timestamps(tmp_path, naive) == [TIME]
    assert timestamps(tmp_path, naive.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")) == [TIME]


@pytest.mark.parametrize("dtype", [pl.Int32, pl.UInt32, pl.Int64, pl.UInt64, pl.Float64])
def test_seconds_of_any_width(tmp_path: Path, dtype: Any) -> None:
    assert timestamps(tmp_path, pl.Series([SECONDS], dtype=dtype)) == [TIME]
    assert timestamps(tmp_path, pl.Series([SECONDS], dtype=dtype), time_unit="s") == [TIME]


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000, 1_000_000_000])
def test_integers_are_read_by_their_size(tmp_path: Path, factor: int) -> None:
    assert timestamps(tmp_path, pl.Series([SECONDS * factor])) == [TIME]
    assert timestamps(tmp_path, pl.Series([str(SECONDS * factor)])) == [TIME]


def test_integers_of_a_stated_unit(tmp_path: Path) -> None:
    early = datetime(1970, 1, 2, tzinfo=UTC)
    assert timestamps(tmp_path, pl.Series([86_400_000]), time_unit="ms") == [early]
    assert timestamps(tmp_path, pl.Series([86_400 * 10**9]), time_unit="ns") == [early]
    assert timestamps(tmp_path, pl.Series([2**64 // 10**6 + 1]), time_unit="s") == [None]
    assert timestamps(tmp_path, pl.Series([SECONDS + 0.5, float("nan")])) == [TIME.replace(microsecond=500_000), None]


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01T10:30:00Z",
        "2024-01-01 10:30:00",
        "2024-01-01T10:30",
        "2024-01-01T12:30:00.000+02:00",
        "2024-01-01 05:00:00-0530",
    ],
)
def test_iso_text(tmp_path: Path, text: str) -> None:
    assert timestamps(tmp_path, pl.Series([text, "2024-01-01", "soon"])) == [
        TIME,
        datetime(2024, 1, 1, tzinfo=UTC),
        None,
    ]


def test_dates(tmp_path: Path) -> None:
    assert timestamps(tmp_path, pl.Series([date(2024, 1, 1)])) == [datetime(2024, 1, 1, tzinfo=UTC)]


@pytest.mark.parametrize("as_text", [False, True])
def test_times_without_a_zone_are_of_the_stated_one(tmp_path: Path, as_text: bool) -> None:
    once, twice, never = datetime(2024, 7, 1, 12, 0), datetime(2024, 10, 27, 2, 30), datetime(2024, 3, 31, 2, 30)
    local: list[Any] = [once, twice, never]
    if as_text:
        local = [*map(str, local), "2024-07-01T12:00:00+00:00"]
    write(tmp_path, [("a", "x", time) for time in local])
    events = read_events(dataset_of(tmp_path, events={"time_zone": "Europe/Berlin"})).collect()
    assert events["timestamp"].to_list()[:3] == [
        datetime(2024, 7, 1, 10, tzinfo=UTC),
        datetime(2024, 10, 27, 0, 30, tzinfo=UTC),  # clocks went back at 03:00: the earlier of two half past twos
        None,  # clocks went forward at 02:00
    ]
    assert events[as_found("timestamp")].to_list()[2] == local[2]
    assert events["timestamp"].to_list()[3:] == [datetime(2024, 7, 1, 12, tzinfo=UTC)] * as_text


def test_types_do_not_depend_on_width(tmp_path: Path) -> None:
    pl.DataFrame(
        {
            "user_id": pl.Series([1], dtype=pl.UInt8),
            "item_id": pl.Series([1], dtype=pl.UInt64),
            "timestamp": [at(0)],
            "price": pl.Series([1.5], dtype=pl.Float32),
            "stock": pl.Series([1], dtype=pl.Int16),
            "since": pl.Series([at(0)]).dt.cast_time_unit("ms"),
        }
    ).write_parquet(tmp_path / "events.parquet")
    schema = read_events(dataset_of(tmp_path, columns=("price", "stock", "since"))).collect().schema
    assert schema["user_id"] == schema["item_id"] == schema["stock"] == pl.Int64
    assert schema["price"] == pl.Float64
    assert schema["since"] == schema["timestamp"] == pl.Datetime("us", "UTC")
    assert as_found("user_id") not in schema and as_found("item_id") in schema  # UInt64 may not fit


def test_what_cannot_be_read_is_kept_as_found(tmp_path: Path) -> None:
    write(tmp_path, [("7", "1", "soon"), ("x7", None, None)])
    events = read_events(dataset_of(tmp_path, events={"id_type": "integer"})).collect()
    assert events["user_id"].to_list() == [7, None]
    assert events[as_found("user_id")].to_list() == ["7", "x7"]
    assert events[as_found("timestamp")].to_list() == ["soon", None]


def test_ids_of_a_stated_type(tmp_path: Path) -> None:
    write(tmp_path, [(7.0, 1, at(0)), (None, 2, at(0))])
    integers = read_events(dataset_of(tmp_path)).collect()
    assert integers["user_id"].to_list() == [7, None]
    strings = read_events(dataset_of(tmp_path, events={"id_type": "string"})).collect()
    assert strings.select("user_id", "item_id").rows() == [("7", "1"), (None, "2")]


def test_the_session_stands_for_a_missing_user(tmp_path: Path) -> None:
    write(tmp_path, [("s1", "x", at(0))], ("session_id", "item_id", "timestamp"))
    dataset = dataset_of(tmp_path, columns={name: name for name in ("session_id", "item_id", "timestamp")})
    assert read_events(dataset).collect()["user_id"].to_list() == ["s1"]


def test_every_format_gives_the_same_events(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        [(user, item, time.isoformat(), 9.5) for user, item, time in three_days()],
        schema=["user_id", "item_id", "timestamp", "price"],
        orient="row",
    )
    rows.write_parquet(tmp_path / "events.parquet")
    rows.write_csv(tmp_path / "events.csv")
    rows.write_ndjson(tmp_path / "events.jsonl")
    for name in ("events.csv", "events.jsonl"):
        plain = (tmp_path / name).read_bytes()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(plain))
        (tmp_path / f"{name}.zst").write_bytes(pyarrow.compress(plain, codec="zstd", asbytes=True))
    names = sorted(file.name for file in tmp_path.iterdir())
    assert len(names) == 7
    read = {
        name: read_events(
            dataset_of(tmp_path, columns=("price",), events={"path": name, "types": {"price": "float"}})
        ).collect()
        for name in names
    }
    for events in read.values():
        assert events.drop(as_found("price"), strict=False).equals(read["events.parquet"])
    assert read["events.csv"].schema["price"] == pl.Float64


def test_folders_and_globs_join_their_files(tmp_path: Path) -> None:
    folder = tmp_path / "log" / "day=1"
    folder.mkdir(parents=True)
    pl.DataFrame({"who": pl.Series([1], dtype=pl.Int32), "what": [1], "when": [at(0)]}).write_parquet(
        folder / "a.parquet"
    )
    pl.DataFrame({"when": ["2024-01-02"], "what": [2], "who": [2], "more": [0]}).write_parquet(folder / "b.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "notes.txt").touch()
    columns = {"user_id": "who", "item_id": "what", "timestamp": "when"}
    for path in ("log", "log/*/*.parquet"):
        events = read_events(dataset_of(tmp_path, columns=columns, events={"path": path})).collect()
        assert events["user_id"].to_list() == [1, 2]
        assert events["timestamp"].to_list() == [at(0), at(1, 0)]


def test_rows_that_do_not_fit_the_first_ones_do_not_stop_the_run(tmp_path: Path) -> None:
    lines = [f"u,{number},2024-01-01,{number}.5" for number in range(20_000)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp,price", *lines, "u,x,2024-01-01,free"]))
    types = {"item_id": "integer", "price": "float"}
    events = read_events(
        dataset_of(tmp_path, columns=("price",), events={"path": "events.csv", "types": types})
    ).collect()
    assert events.height == 20_001
    assert events.row(-1, named=True) | {"timestamp": None} == {
        "user_id": "u",
        "item_id": None,
        as_found("item_id"): "x",
        "timestamp": None,
        as_found("timestamp"): "2024-01-01",
        "price": None,
        as_found("price"): "free",
    }


def refused(tmp_path: Path, **parts: Any) -> str:
    with pytest.raises(InputError) as error:
        read_events(dataset_of(tmp_path, **parts)).collect()
    return str(error.value)


def test_a_missing_column_is_answered_with_the_columns_there(tmp_path: Path) -> None:
    write(tmp_path, [("a", "x", at(0))], ("user", "item_id", "timestamp"))
    message = refused(tmp_path)
    for part in ("events.parquet", "'user_id'", "Did you mean 'user'?", "item_id, timestamp, user"):
        assert part in message


def test_missing_files_say_where_was_looked(tmp_path: Path) -> None:
    (tmp_path / "clicks.parquet").touch()
    message = refused(tmp_path)
    assert str(tmp_path / "events.parquet") in message and "clicks.parquet" in message
    assert "not a folder" in refused(tmp_path / "nowhere")
    assert "*.csv" in refused(tmp_path, events={"path": "*.csv"})


@pytest.mark.parametrize("path", ["../events.parquet", "/etc/passwd", "a/../../b.csv"])
def test_paths_stay_below_the_source(tmp_path: Path, path: str) -> None:
    assert "leaves the source folder" in refused(tmp_path, events={"path": path})


def test_formats_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path, three_days())
    (tmp_path / "more.csv").write_text("user_id,item_id,timestamp\n")
    message = refused(tmp_path, events={"path": "."})
    assert "more.csv" in message and "events.parquet" in message


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "events.parquet").write_text("PAR1 but not really")
    assert "events.parquet (Parquet): cannot be read" in refused(tmp_path)


def test_ids_of_two_types_are_refused(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ["a"], "item_id": [1], "timestamp": [at(0)]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"user_id": [7], "item_id": [1], "timestamp": [at(0)]}).write_parquet(tmp_path / "2.parquet")
    assert "types: {user_id: text}" in refused(tmp_path, events={"path": "*.parquet"})


def test_columns_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [(["a"], "x", at(0))])
    assert "an id is an integer or a string" in refused(tmp_path)
    write(tmp_path, [("a", "x", True)])
    assert "ISO 8601" in refused(tmp_path)


def test_an_item_has_one_row(tmp_path: Path) -> None:
    write(tmp_path, three_days())
    pl.DataFrame({"item_id": ["x", "x", "y", None, None], "category": [1, 2, 3, 4, 5]}).write_parquet(
        tmp_path / "items.parquet"
    )
    dataset = dataset_of(tmp_path, items={"columns": {"item_id": "item_id", "category": "category"}})
    with pytest.raises(InputError, match="item 'x' has 2 rows"):
        read_items(dataset)


def test_an_item_may_change(tmp_path: Path) -> None:
    columns = {"item_id": "item_id", "valid_from": "since", "price": "price"}
    dataset = dataset_of(tmp_path, items={"path": "items.csv", "columns": columns, "types": {"price": "integer"}})
    (tmp_path / "items.csv").write_text("item_id,since,price\nx,2024-01-01,1\nx,2024-01-02T06:00:00+06:00,2\nx,,3\n")
    assert read_items(dataset).sort("valid_from").collect().rows() == [
        ("x", None, 3),
        ("x", at(0, 0), 1),
        ("x", at(1, 0), 2),
    ]
    (tmp_path / "items.csv").write_text("item_id,since,price\nx,2024-01-01,1\nx,2024-01-01T00:00:00Z,2\n")
    with pytest.raises(InputError, match="item 'x' has 2 rows of one moment"):
        read_items(dataset)
    (tmp_path / "items.csv").write_text("item_id,since,price\nx,soon,1\n")
    with pytest.raises(InputError, match=r"valid_from 'soon' is no time .*ISO 8601"):
        read_items(dataset)


def test_a_user_has_one_row(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, users={"path": "users", "columns": {"user_id": "id", "country": "country"}})
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "1.csv").write_text("id,country\n7,NL\n")
    (tmp_path / "users" / "2.csv").write_text("country,id\nDE,8\nFR,\n")
    assert sorted(read_users(dataset).collect().rows()) == [("7", "NL"), ("8", "DE")]
    (tmp_path / "users" / "3.csv").write_text("id,country\n8,AT\n")
    with pytest.raises(InputError, match="user '8' has 2 rows; the user table holds one row for each user"):
        read_users(dataset)


def test_source_files_are_sorted(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).write_text("user_id,item_id,timestamp\n")
    assert [file.path for file in source_files(dataset_of(tmp_path, events={"path": "."}))] == ["a.csv", "b.csv"]
