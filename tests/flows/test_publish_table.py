"""Lists in a table of a database: replaced whole, in one step, whoever reads or is killed meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
import sqlalchemy as sql

from flows import publish_table
from flows.publish_table import Target, publish
from schemas.errors import AwayError, InputError
from tests.databases import postgresql

TARGET = Target("SITE_DB", "lists")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sql.Engine]:
    """An empty database, that $SITE_DB names."""
    url = f"sqlite:///{tmp_path}/site.db" if request.param == "sqlite" else request.getfixturevalue("server")
    (tmp_path / "site.db").touch()
    monkeypatch.setenv("SITE_DB", url)
    monkeypatch.setattr(publish_table, "BATCH", 50)
    engine = sql.create_engine(url)
    run(engine, "DROP TABLE IF EXISTS lists")
    yield engine
    engine.dispose()


def run(engine: sql.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def ask(engine: sql.Engine, query: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def tables(engine: sql.Engine) -> list[str]:
    return sql.inspect(engine).get_table_names()


def lists_of(folder: Path, day: int, users: int = 100) -> list[Path]:
    """Two rows a user, whose score is the day."""
    rows = [(f"u{user}", rank, 10 * rank, float(day)) for user in range(users) for rank in (1, 2)]
    schema = {"user_id": pl.String, "rank": pl.Int32, "item": pl.Int64, "score": pl.Float32}
    files = [folder / f"{day}-lists.parquet", folder / f"{day}-popular.parquet"]
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(files[0])
    pl.DataFrame([(None, 1, 30, None)], schema=schema, orient="row").write_parquet(files[1])
    return files


def test_the_table_holds_the_rows_of_the_newest_files(site: sql.Engine, tmp_path: Path) -> None:
    lines: list[str] = []
    for day in (1, 2):
        assert publish(lists_of(tmp_path, day), TARGET, lambda progress: lines.append(str(progress))) == 201
    assert ask(site, "SELECT * FROM lists WHERE user_id = 'u7' ORDER BY rank") == [
        ("u7", 1, 10, 2.0),
        ("u7", 2, 20, 2.0),
    ]
    assert ask(site, "SELECT item FROM lists WHERE user_id IS NULL") == [(30,)]
    assert tables(site) == ["lists"] and sql.inspect(site).get_indexes("lists")[0]["column_names"] == ["user_id"]
    assert lines[-1] == "publish: 201 rows in table lists of SITE_DB"


def test_readers_never_see_a_table_that_is_empty_or_half(site: sql.Engine, tmp_path: Path) -> None:
    publish(lists_of(tmp_path, 0), TARGET, print)
    seen: set[tuple[object, ...]] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            try:
                seen.update(ask(site, "SELECT count(*), count(DISTINCT score) FROM lists"))
            except sql.exc.OperationalError as error:  # SQLite makes a reader wait, and may tell it so
                assert "locked" in str(error), error

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for day in range(1, 8):
            publish(lists_of(tmp_path, day), TARGET, lambda progress: None)
    finally:
        ended.set()
        thread.join()
    assert seen == {(201, 1)}


@pytest.mark.parametrize("where", ["_insert", "_swap"])
def test_a_run_that_is_killed_leaves_the_old_table_and_what_it_left_is_removed(
    where: str, site: sql.Engine, tmp_path: Path
) -> None:
    publish(lists_of(tmp_path, 1), TARGET, print)
    kept = getattr(publish_table, where)
    calls: list[int] = []

    def killed(*given: object) -> None:
        calls.append(1)
        kept(*given)
        if where == "_swap" or len(calls) == 2:
            raise KeyboardInterrupt

    with patch.object(publish_table, where, killed), pytest.raises(KeyboardInterrupt):
        publish(lists_of(tmp_path, 2), TARGET, lambda progress: None)
    assert ask(site, "SELECT count(*), min(score), max(score) FROM lists") == [(201, 1.0, 1.0)]
    assert len(tables(site)) == 2
    later = time.time() + 2 * publish_table.LEFT_SECONDS
    with patch.object(time, "time", lambda: later):
        publish(lists_of(tmp_path, 3), TARGET, lambda progress: None)
    assert ask(site, "SELECT count(*), min(score), max(score) FROM lists") == [(201, 3.0, 3.0)]
    assert tables(site) == ["lists"]


def test_those_who_may_read_the_table_still_may(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_DB", server)
    engine, target = sql.create_engine(server), Target("SITE_DB", "site.lists")
    run(engine, "CREATE SCHEMA site", 'CREATE ROLE "Web-site" LOGIN')
    publish(lists_of(tmp_path, 1), target, print)
    run(engine, 'GRANT SELECT, UPDATE ON site.lists TO "Web-site"', "GRANT SELECT ON site.lists TO PUBLIC")
    for day in (2, 3):
        publish(lists_of(tmp_path, day), target, print)
    may = "has_table_privilege('Web-site', 'site.lists', '{}')"
    assert ask(engine, f"SELECT {may.format('UPDATE')}, {may.format('DELETE')}") == [(True, False)]
    run(engine, "CREATE VIEW site.best AS SELECT * FROM site.lists WHERE rank = 1")
    with pytest.raises(InputError, match="best"):
        publish(lists_of(tmp_path, 4), target, print)
    assert ask(engine, "SELECT max(score) FROM site.lists") == [(3.0,)]
    run(engine, "DROP SCHEMA site CASCADE", 'DROP OWNED BY "Web-site"', 'DROP ROLE "Web-site"')
    engine.dispose()


def test_a_view_of_sqlite_reads_the_new_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site.db").touch()
    monkeypatch.setenv("SITE_DB", f"sqlite:///{tmp_path}/site.db")
    engine = sql.create_engine(f"sqlite:///{tmp_path}/site.db")
    publish(lists_of(tmp_path, 1), TARGET, print)
    run(engine, "CREATE VIEW best AS SELECT max(score) FROM lists")
    publish(lists_of(tmp_path, 2), TARGET, print)
    assert ask(engine, "SELECT * FROM best") == [(2.0,)]
    engine.dispose()


def test_a_database_that_breaks_off_is_tried_again(site: sql.Engine, tmp_path: Path) -> None:
    kept, calls, lines = publish_table._insert, list[int](), list[str]()

    def breaks_off(*given: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise AwayError("SITE_DB: gone.")
        kept(*given)

    with patch.object(publish_table, "AGAIN", (0.0, 0.0)), patch.object(publish_table, "_insert", breaks_off):
        assert publish(lists_of(tmp_path, 1), TARGET, lambda progress: lines.append(str(progress))) == 201
    assert "SITE_DB: gone. Tried again in 0 seconds." in lines
    assert ask(site, "SELECT count(*) FROM lists") == [(201,)]


def test_what_cannot_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish_table, "AGAIN", ())
    files = lists_of(tmp_path, 1)
    with pytest.raises(InputError, match="Set the environment variable SITE_DB"):
        publish(files, TARGET, print)
    for name in ("lists; drop table x", "a.b.c", "", "x" * 41):
        with pytest.raises(InputError, match="letters, digits and underscores"):
            Target("SITE_DB", name)
    (tmp_path / "locked.db").touch(0o444)
    monkeypatch.setenv("SITE_DB", f"sqlite:///file:{tmp_path}/locked.db?mode=ro&uri=true")
    with pytest.raises((AwayError, InputError), match="readonly"):
        publish(files, TARGET, print)
