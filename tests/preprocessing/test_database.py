"""Events of a database: read once, in whatever order they come, and kept whatever becomes of them there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import polars as pl
import pytest
import sqlalchemy as sql

from preprocessing.pipeline import prepare
from preprocessing.source.database import imports, rows
from preprocessing.source.database.imports import fetch
from preprocessing.source.database.rows import column_of, widened
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import Dataset
from schemas.errors import AwayError, InputError, parse
from schemas.finished import FinishedArtifacts, WorkToDoError
from tests.databases import postgresql
from tests.preprocessing.small import NOW, at, content, decoded, three_days

TABLE = "CREATE TABLE log (user_id TEXT, item_id TEXT, seen {time}, price NUMERIC(8, 2))"
INSERT = sql.text("INSERT INTO log VALUES (:user, :item, :seen, :price)")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty table `log`."""
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path}/shop.db"
        Path(tmp_path / "shop.db").touch()
    else:
        address = request.getfixturevalue("server")
    time = "TEXT" if request.param == "sqlite" else "TIMESTAMPTZ"
    write(address, "DROP TABLE IF EXISTS log", TABLE.format(time=time))
    return address


def write(url: str, *statements: str, events: list[tuple[Any, ...]] = []) -> None:  # noqa: B006
    engine = sql.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        for user, item, seen, *price in events:
            moment = seen if engine.dialect.name == "postgresql" else seen.isoformat(" ", "seconds")
            values = {"user": user, "item": item, "seen": moment, "price": (price or [None])[0]}
            connection.execute(INSERT, values)
    engine.dispose()


def dataset_of(root: Path, **events: Any) -> Dataset:
    """Of the table `log`, whose rows have the time as cursor."""
    columns = {"user_id": "user_id", "item_id": "item_id", "timestamp": "seen", "price": "price"}
    database = {"connection": "SHOP_DB", "events": {"query": "select * from log", "cursor": "seen"} | events}
    data = {"name": "small", "events": {"columns": columns}, "database": database}
    return Dataset.model_validate(data).at(None, root)


def read(root: Path, url: str, *, lines: list[str] | None = None, now: datetime = NOW, **events: Any) -> None:
    """What is new of the table."""
    said = lines if lines is not None else []
    fetch(Artifacts(root), dataset_of(root, **events), url, lambda progress: said.append(str(progress)), now)


def night(root: Path, url: str, **options: Any) -> Manifest:
    """What is new, then sessions of all days."""
    read(root, url, **options)
    return prepare(Artifacts(root), dataset_of(root), now=NOW, progress=lambda progress: None)


def stored(root: Path) -> pl.DataFrame:
    """All rows that were read."""
    files = sorted((root / "sources" / "small" / "events").rglob("*.parquet"))
    return pl.concat([pl.read_parquet(file) for file in files], how="diagonal_relaxed")


def test_night_by_night_gives_what_files_of_all_rows_give(url: str, tmp_path: Path) -> None:
    events = [(*event, 9.5) for event in three_days()] + [("c", "x", at(3)), ("c", "y", at(3, 12, 9))]
    for day in range(4):
        write(url, events=[event for event in events if event[2].date() == at(day).date()])
        if day:
            by_night = night(tmp_path / "root", url)
    columns = {"user_id": "user_id", "item_id": "item_id", "timestamp": "seen", "price": "price"}
    pl.DataFrame(
        [(*event[:3], *(event[3:] or [None])) for event in events],
        schema=["user_id", "item_id", "seen", "price"],
        orient="row",
    ).write_parquet(tmp_path / "events.parquet")
    data = {"name": "small", "events": {"path": "events.parquet", "columns": columns}}
    files = Dataset.model_validate(data).at(tmp_path)
    whole = prepare(Artifacts(tmp_path / "other"), files, now=NOW, progress=lambda progress: None)
    assert content(by_night) == content(whole)
    assert stored(tmp_path / "root").height == len(events)


def test_rows_deleted_later_touch_nothing_and_the_next_night_has_nothing_to_do(url: str, tmp_path: Path) -> None:
    write(url, events=three_days())
    first, lines = night(tmp_path, url), list[str]()
    write(url, "DELETE FROM log")
    again = night(tmp_path, url, lines=lines)
    assert again.reused and content(again) == content(first)
    assert "Has it been replaced, or emptied?" in lines[0]


def test_a_row_that_comes_late_is_read_and_equal_rows_are_as_many_as_there_are(url: str, tmp_path: Path) -> None:
    twice = ("a", "x", at(1))
    write(url, events=[*three_days(), twice])
    read(tmp_path, url, overlap_hours=48)
    assert stored(tmp_path).height == 16
    write(url, events=[twice, twice, ("a", "z", at(1, 12, 3)), ("late", "z", at(0))])
    with patch.object(rows, "BATCH", 1):
        read(tmp_path, url, overlap_hours=48)
        read(tmp_path, url, overlap_hours=48)
    kept = stored(tmp_path)
    assert kept.height == 19  # without the one that is older than the overlap
    assert kept.filter(pl.col("item_id") == "x", pl.col("user_id") == "a").height == 6
    manifest = night(tmp_path, url, overlap_hours=240)
    assert stored(tmp_path).height == 20
    assert ["x", "z", "y"] in decoded(manifest)


def test_a_night_that_is_killed_between_reading_and_committing_loses_and_doubles_nothing(
    url: str, tmp_path: Path
) -> None:
    write(url, events=three_days())
    for broken in ("write_atomically", "require_held"):  # before its record, and between that and the folder's name
        with (
            patch(f"preprocessing.source.database.files.{broken}", side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            read(tmp_path, url)
    write(url, "DELETE FROM log WHERE user_id = 'b'")
    read(tmp_path, url)
    assert stored(tmp_path).height == 6
    assert not list((tmp_path / "unfinished").glob("import*"))


def test_files_that_are_lost_or_damaged(url: str, tmp_path: Path) -> None:
    write(url, events=three_days())
    read(tmp_path, url)
    newest = tmp_path / "sources" / "small" / "events" / "000001" / "2024-01-03.parquet"
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-40])
    with pytest.raises(InputError, match=r"2024-01-03\.parquet: cannot be read"):
        read(tmp_path, url)
    newest.unlink()
    read(tmp_path, url)
    assert stored(tmp_path).height == 15


def test_to_find_that_all_is_done_nothing_is_written(url: str, tmp_path: Path) -> None:
    write(url, events=three_days())
    with pytest.raises(WorkToDoError):
        fetch(FinishedArtifacts(tmp_path), dataset_of(tmp_path), url, print, NOW)
    assert not (tmp_path / "sources").exists()
    read(tmp_path, url)
    fetch(FinishedArtifacts(tmp_path), dataset_of(tmp_path), url, print, NOW)


def test_a_time_in_the_future_does_not_hide_the_rows_after_it(url: str, tmp_path: Path) -> None:
    write(url, events=[*three_days(), ("b", "x", at(9000))])
    now = at(3)
    read(tmp_path, url, now=now)
    write(url, events=[("c", "x", at(2, 14)), ("c", "y", at(2, 15))])
    read(tmp_path, url, now=now + timedelta(days=1))
    assert stored(tmp_path).height == 18


def test_rows_without_a_cursor_are_counted(url: str, tmp_path: Path) -> None:
    write(url, "INSERT INTO log (user_id, item_id) VALUES ('a', 'x')", events=three_days())
    lines: list[str] = []
    read(tmp_path, url, lines=lines)
    assert "1 rows without seen were left out" in lines[-1]


@pytest.mark.parametrize("overlap", [0, 3])
def test_a_running_number_is_a_cursor(overlap: int, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    Path(tmp_path / "shop.db").touch()
    write(url, TABLE.format(time="TEXT"), events=three_days())
    query = {"query": "select rowid as id, * from log;", "cursor": "id", "overlap_numbers": overlap}
    read(tmp_path / "root", url, **query)
    write(url, events=[("c", "x", at(3)), ("c", "y", at(3, 12, 9))])
    read(tmp_path / "root", url, **query)
    read(tmp_path / "root", url, **query)
    assert sorted(stored(tmp_path / "root")["id"]) == list(range(1, 18))


def test_rows_are_never_held_at_once(url: str, tmp_path: Path) -> None:
    write(url, events=three_days())
    with patch.object(rows, "BATCH", 4), rows.connected(url, "SHOP_DB") as connection:
        assert [rows_.height for rows_ in rows.read_rows(connection, "select * from log", {})] == [4, 4, 4, 3]


def test_a_query_may_hold_per_cents_casts_and_colons(url: str, tmp_path: Path) -> None:
    write(url, events=three_days())
    cast = "" if url.startswith("sqlite") else "::text"
    read(
        tmp_path, url, query=f"select *, item_id{cast} as again from log where user_id like 'a%' and item_id <> '\\:x'"
    )
    assert stored(tmp_path).height == 6


@pytest.mark.parametrize(
    ("column", "overlap"),
    [
        ("\"CreatedAt\" TIMESTAMP DEFAULT '2024-01-01 12:00'", 0),
        ("\"CreatedAt\" TIMESTAMPTZ DEFAULT '2024-01-01 12:00+05'", 1),
        ("\"CreatedAt\" DATE DEFAULT '2024-01-01'", 0),
        ('"CreatedAt" BIGSERIAL', 0),
    ],
)
def test_every_kind_of_cursor_of_postgresql_reads_each_row_once(
    column: str, overlap: float, server: str, tmp_path: Path
) -> None:
    write(server, "DROP TABLE IF EXISTS log", TABLE.format(time="TIMESTAMPTZ").replace("price", f"{column}, price"))
    for _ in range(3):
        write(server, "INSERT INTO log (user_id, item_id) VALUES ('a', 'x'), ('a', 'x'), ('b', 'y')")
        for _ in range(2):
            read(tmp_path, server, cursor="CreatedAt", overlap_hours=overlap, overlap_numbers=overlap)
    assert stored(tmp_path).height == 9


def test_the_query_may_say_since_itself(url: str, tmp_path: Path) -> None:
    write(url, events=three_days())
    query = "with recent as (select * from log where seen >= :since) select * from recent"
    with pytest.raises(InputError, match="give start"):
        read(tmp_path, url, query=query)
    read(tmp_path, url, query=query, start=date(2024, 1, 2))
    read(tmp_path, url, query=query, start=date(2024, 1, 2))
    assert stored(tmp_path).height == 10


def test_a_column_that_is_added_to_the_query_makes_no_row_new(url: str, tmp_path: Path) -> None:
    write(url, events=three_days())
    read(tmp_path, url, query="select user_id, item_id, seen, price from log")
    write(url, events=[("c", "x", at(2, 14), 3)])
    read(tmp_path, url, query="select price as paid, log.* from log")
    assert stored(tmp_path).height == 16


def test_item_tables_are_read_whole_and_written_where_they_differ(url: str, tmp_path: Path) -> None:
    write(url, "DROP TABLE IF EXISTS goods", "CREATE TABLE goods (id TEXT, kind TEXT)", events=three_days())
    data = dataset_of(tmp_path).model_dump(exclude={"source"})
    data["database"]["items"] = {"query": "select * from goods"}
    data |= {"items": {"columns": {"item_id": "id", "kind": "kind"}}, "steps": [{"join_items": {"columns": ["kind"]}}]}
    data["features"] = {"kind": "category"}
    dataset = Dataset.model_validate(data).at(None, tmp_path)
    with pytest.raises(InputError, match=r"database\.items\.query gives no rows"):
        fetch(Artifacts(tmp_path), dataset, url, print, NOW)
    write(url, "INSERT INTO goods VALUES ('y', 'book'), ('x', 'book')")
    fetch(Artifacts(tmp_path), dataset, url, print, NOW)
    file = tmp_path / "sources" / "small" / "items.parquet"
    assert pl.read_parquet(file)["id"].to_list() == ["x", "y"]
    before = file.stat().st_mtime_ns
    fetch(Artifacts(tmp_path), dataset, url, print, NOW)
    assert file.stat().st_mtime_ns == before
    assert prepare(Artifacts(tmp_path), dataset, now=NOW, progress=lambda progress: None).facts


def test_a_database_that_is_away_is_no_mistake_and_its_password_is_in_no_message(server: str, tmp_path: Path) -> None:
    gone = server.replace("127.0.0.1:", "127.0.0.1:1")
    wrong = server.replace("s3cret", "wr0ng")
    for address, error in ((gone[:-9] + "9", AwayError), (wrong, AwayError)):
        with pytest.raises(error) as raised:
            read(tmp_path, address)
        assert "word" not in str(raised.value).replace("password", "") and "SHOP_DB" in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": "select * from nothing"}, "nothing"),
        ({"query": "delete from log"}, "syntax|RETURNING|near"),
        ({"query": "select * from log where a = :b"}, "no place|:b"),
        ({"query": "select user_id, item_id, seen, seen from log"}, "two columns|ambiguous|twice|seen:1"),
        ({"cursor": "item_id"}, "cursor is a time"),
        ({"cursor": "absent"}, "absent"),
        ({"query": "select * from log where 1 = 0"}, "gives no rows"),
    ],
)
def test_a_query_that_does_not_fit_is_named(change: dict[str, str], message: str, url: str, tmp_path: Path) -> None:
    write(url, events=three_days())
    with pytest.raises(InputError, match=message):
        read(tmp_path, url, **change)


def test_a_url_in_the_yaml_is_refused_and_not_repeated() -> None:
    data: dict[str, Any] = {
        "name": "small",
        "events": {"columns": dict.fromkeys(("item_id", "user_id", "timestamp"), "x")},
    }
    secret = "postgresql://me:s3cret@host/shop"
    query = {"query": "select 1", "cursor": "x"}
    for wrong in (secret, {"connection": secret, "events": query}, {"connection": "me:s3cret@host", "events": query}):
        with pytest.raises(InputError) as raised:
            parse(Dataset, data | {"database": wrong}, "small.yaml")
        assert "s3cret" not in str(raised.value) and "not shown" in str(raised.value)
    for url, reason in ((f"x{secret}y", "Expected is|cannot be used"), ("sqlite:////no/such.db", "there is no file")):
        with pytest.raises(InputError, match=reason) as raised, rows.connected(url, "database SHOP_DB"):
            pass
        assert "s3cret" not in str(raised.value)


def test_files_are_read_in_place_of_the_database_where_they_are_named(tmp_path: Path) -> None:
    dataset = Dataset.model_validate(dataset_of(tmp_path).model_dump(exclude={"source"}))
    assert dataset.at(tmp_path).database is None
    assert dataset.at(None, tmp_path).source == str(tmp_path / "sources" / "small")


@pytest.mark.parametrize(
    ("values", "dtype", "kept"),
    [
        ([1, None, 2], pl.Int64(), [1, None, 2]),
        ([Decimal("7"), Decimal("8"), None], pl.Int64(), [7, 8, None]),
        ([Decimal("7.00"), None, Decimal("8.00")], pl.Float64(), [7.0, None, 8.0]),
        ([Decimal("NaN"), Decimal("7")], pl.Float64(), [float("nan"), 7.0]),
        ([Decimal("7"), 1, Decimal("8.5")], pl.Float64(), [7.0, 1.0, 8.5]),
        ([2**70, 3], pl.String(), [str(2**70), "3"]),
        ([True, None], pl.Boolean(), [True, None]),
        ([None, None], pl.Null(), [None, None]),
        ([7, "A-9", None], pl.String(), ["7", "A-9", None]),
        ([UUID(int=1)], pl.String(), ["00000000-0000-0000-0000-000000000001"]),
        ([{"a": [1]}], pl.String(), ['{"a": [1]}']),
        ([at(0)], pl.Datetime("us", "UTC"), [at(0)]),
        ([datetime(2024, 1, 1, 3)], pl.Datetime("us"), [datetime(2024, 1, 1, 3)]),
        ([date(2024, 1, 1)], pl.Date(), [date(2024, 1, 1)]),
    ],
)
def test_values_of_a_driver_have_the_narrowest_type(values: list[Any], dtype: pl.DataType, kept: list[Any]) -> None:
    column = column_of("x", values)
    assert column.equals(pl.Series("x", kept, dtype=dtype)) and column.dtype == dtype


def test_what_has_no_type_is_refused_by_name() -> None:
    for values in ([b"\x00"], [at(0), datetime(2024, 1, 1)]):
        with pytest.raises(InputError, match="'raw'"):
            column_of("raw", values)
    assert widened(pl.Int64(), pl.Float64()) == pl.Float64() and widened(pl.Date(), pl.Int64()) == pl.String()
    assert widened(pl.Null(), pl.Date()) == pl.Date() == widened(pl.Date(), pl.Null())


def test_a_type_that_widens_in_a_later_batch_is_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    Path(tmp_path / "shop.db").touch()
    write(url, "CREATE TABLE log (user_id, item_id, seen, price)")
    events = [("a", item, at(0, 12, place), item) for place, item in enumerate([None, 7, 7.5, 8, "A-9", 9], 1)]
    write(url, events=events)
    with patch.object(rows, "BATCH", 1):
        fetch(Artifacts(tmp_path), dataset_of(tmp_path), url, print, NOW)
        assert [file.name for file in sorted((tmp_path / "sources/small/events/000001").iterdir())] == [
            "2024-01-01-2.parquet", "2024-01-01-3.parquet", "2024-01-01-4.parquet", "2024-01-01.parquet",
        ]  # fmt: skip
        fetch(Artifacts(tmp_path), dataset_of(tmp_path), url, print, NOW)
    fetch(Artifacts(tmp_path), dataset_of(tmp_path), url, print, NOW)
    assert len(list((tmp_path / "sources/small/events").iterdir())) == 1
    assert imports.fetches(tmp_path / "sources/small")[0].when == NOW.astimezone(UTC)
