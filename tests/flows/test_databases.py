"""A dataset whose events are in a database, from the terminal; and lists of recommendations written to one."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sql

from flows import stages
from flows.in_service import newest_sessions
from flows.lists import newest_lists
from flows.night import Stages, finished_night, run_stages
from flows.options import settings_of
from tests.flows.conftest import overnight_here, summary_of

YAML = """
name: shop
database:
  connection: SHOP_DB
  events: {query: select * from log, cursor: timestamp}
  items: {query: select * from goods}
events:
  columns: {user_id: user_id, item_id: item_id, timestamp: timestamp, event_type: event_type}
items:
  columns: {item_id: item_id, category: category}
features:
  item_id: {encode: category, min_count: 3}
defaults: {training: {epochs: 2, threads: 1}, promotion: {min_gain: -0.9}}
"""


@pytest.fixture
def database(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The shop in SQLite, as $SHOP_DB says; shop.yaml is beside it."""
    url = f"sqlite:///{tmp_path}/shop.db"
    events = pl.concat(pl.read_parquet(file) for file in sorted((shop / "events").glob("*.parquet")))
    log = events.with_columns(pl.col("timestamp").dt.to_string("%Y-%m-%d %H:%M:%S"))
    for name, table in (("log", log), ("goods", pl.read_parquet(shop / "items.parquet"))):
        with sql.create_engine(url).begin() as connection:
            columns = ", ".join(f'"{column}"' for column in table.columns)
            connection.exec_driver_sql(f"CREATE TABLE {name} ({columns})")
            places = ", ".join("?" * table.width)
            connection.exec_driver_sql(f"INSERT INTO {name} VALUES ({places})", table.rows())
    (tmp_path / "shop.yaml").write_text(YAML)
    monkeypatch.setenv("SHOP_DB", url)
    return url


def test_a_dataset_of_a_database_is_prepared_and_its_url_is_written_nowhere(
    database: str, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = ("--dataset", tmp_path / "shop.yaml", "--root", tmp_path / "root", "--json")
    done = overnight_here("prepare", *about)
    assert summary_of(done)["sessions"] > 0
    assert "new rows of" in done.stdout + done.stderr
    again = overnight_here("prepare", *about)
    assert summary_of(again)["artifact"] == summary_of(done)["artifact"]
    for file in (tmp_path / "root").rglob("*"):
        assert not file.is_file() or database.encode() not in file.read_bytes(), file
    assert database not in done.stdout + done.stderr + again.stdout
    of_files = overnight_here("prepare", *about, "--source", shop, "--set", "dataset.name=files")
    assert summary_of(of_files)["sessions"] == summary_of(done)["sessions"]
    assert overnight_here("verify", "--root", tmp_path / "root").returncode == 0
    monkeypatch.delenv("SHOP_DB")
    without = overnight_here("prepare", *about)
    assert without.returncode == 2 and "Set the environment variable SHOP_DB" in without.stderr


LISTS = "serving: {lists: {k: 5, to: SHOP_DB, table: site_lists}}\n"


def test_a_night_writes_lists_for_every_user_once(database: str, tmp_path: Path) -> None:
    file, root = tmp_path / "shop.yaml", tmp_path / "root"
    file.write_text(YAML + LISTS)
    settings = settings_of(dataset=str(file), root=root)
    plain = Stages(**{field.name: getattr(stages, field.name) for field in fields(Stages)})
    summary = run_stages(settings, plain)
    newest = newest_lists(settings.artifacts, "shop")
    assert newest and newest.lists == summary["lists"] and newest.table == "table site_lists of SHOP_DB"
    folder = root / newest.lists
    lists, popular = pl.read_parquet(folder / "lists.parquet"), pl.read_parquet(folder / "popular.parquet")
    assert lists.columns == popular.columns == ["user_id", "rank", "item", "score", "source"]
    sessions = pl.read_parquet(newest_sessions(settings.artifacts, "shop") / "sessions" / "*" / "*.parquet")
    assert set(lists["user_id"]) == set(sessions["user_id"])
    last = sessions.sort("end").group_by("user_id").agg(pl.col("item_id").last())
    user, items = last.sort("user_id").row(0)
    alone = overnight_here(
        "recommend", *_raw(folder, root, items), "-k", "5", "--dataset", file, "--root", root, "--json"
    )
    assert lists.filter(pl.col("user_id") == user)["item"].to_list() == summary_of(alone)["recommended"]
    engine = sql.create_engine(database)
    with engine.connect() as connection:
        counts = dict(connection.exec_driver_sql("SELECT source, count(*) FROM site_lists GROUP BY 1").all())  # type: ignore[arg-type]
    assert counts == {"model": lists.height, "popularity": 5}
    assert finished_night(settings, print)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM site_lists")
    (root / "lists" / "shop.json").unlink()
    assert finished_night(settings, print) is None
    assert not run_stages(settings, plain)["nothing_to_do"]
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM site_lists").scalar() == lists.height + 5
    engine.dispose()
    kept = overnight_here("prune", "--root", root, "--keep-days", "0", "--remove", "--json")
    assert "recommendations" not in summary_of(kept)["not_needed"]
    about = ("--everyone", "--to", "SHOP_DB", "--table", "by_hand", "-k", "5", "--dataset", file, "--root", root)
    done = summary_of(overnight_here("recommend", *about, "--json"))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM by_hand").scalar() == done["rows"] == lists.height
    assert not list((root / "unfinished").glob("lists*"))
    both = overnight_here("recommend", *about, "--out", tmp_path / "x")
    assert both.returncode == 2 and "lists go to one of them" in both.stderr


def _raw(folder: Path, root: Path, items: list[int]) -> list[str]:
    """The raw ids of encoded ones."""
    model = json.loads((root / "lists" / "shop.json").read_text())["model"]
    values = dict(pl.read_parquet(root / model / "items.parquet").select("id", "value").rows())
    return [values[item] for item in items if item in values]
