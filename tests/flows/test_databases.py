"""A dataset whose events are in a database, from the terminal; and lists of recommendations written to one."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sql

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
