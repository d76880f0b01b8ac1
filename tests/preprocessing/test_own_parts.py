"""People's own steps, checks and encoders in a night: found by every worker, and as their files are now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.execution import batch, tasks
from preprocessing.execution.run import Workers
from preprocessing.execution.workers import workers_of
from schemas.dataset import Dataset, read_dataset
from tests.preprocessing.small import COLUMNS, run, sessions_of, three_days, write
from tests.schemas.own import STEP, part

CHECK = """
import polars as pl
from preprocessing.checks import Check


class NotDear(Check):
    @property
    def looks_at(self):
        return ("price",)

    def bad(self, now):
        return pl.col("price") > 7
"""
ENCODER = """
from preprocessing.encoders import Encoder


class Halve(Encoder):
    def transform(self, value, state):
        return value / 2
"""
SHOP = """name: shop
plugins: mine
events:
  path: events.parquet
  columns: {user_id: user_id, item_id: item_id, timestamp: timestamp, price: price}
checks: [not_dear]
steps: [drop_samples]
features: {price: {encode: halve}}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Dataset:
    """Three days, of which each has a sample (0.5) and something dear (8)."""
    part(tmp_path, "mine/steps/drop_samples.py", STEP.replace("= 0.5", "= 0.6"))
    part(tmp_path, "mine/checks/not_dear.py", CHECK)
    part(tmp_path, "mine/encoders/halve.py", ENCODER)
    part(tmp_path, "shop.yaml", SHOP)
    rows = [(*row, price) for row, price in zip(three_days(), [0.5, 2.0, 4.0, 6.0, 8.0] * 3, strict=True)]
    write(tmp_path, rows, (*COLUMNS, "price"))
    return read_dataset(str(tmp_path / "shop.yaml")).at(tmp_path)


def outcome(tmp_path: Path, dataset: Dataset, **options: Any) -> tuple[Any, ...]:
    manifest = run(tmp_path, dataset, **options)
    facts = manifest.facts
    return facts["dropped"].get("drop_samples", 0), facts["quarantined"], sessions_of(manifest)["price"].to_list()[-1]


def test_they_are_called_by_one_thread_of_a_process(
    tmp_path: Path, shop: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are workers, each is a process: what a step keeps for itself is no other bucket's."""
    spools: list[Path | None] = []
    clean = tasks.clean_bucket
    monkeypatch.setattr(
        tasks, "clean_bucket", lambda job, bucket: (spools.append(job.spool.folder), clean(job, bucket))[1]
    )
    monkeypatch.setattr(batch, "FEW_ROWS", 1)
    run(tmp_path, shop, workers=Workers(min_buckets=2, threads=2))
    assert len(spools) == 2 and None not in spools
    built_in = shop.model_copy(update={"checks": (), "steps": (), "features": {}})
    run(tmp_path, built_in, workers=Workers(min_buckets=2, threads=2))
    assert spools[2:] == [None, None]


def test_a_night_takes_them_as_their_files_are(tmp_path: Path, shop: Dataset) -> None:
    assert outcome(tmp_path, shop) == (3, {"not_dear(price)": 3}, [2.0, 3.0])
    before = shop.own_parts()
    part(tmp_path, "mine/steps/drop_samples.py", STEP.replace("= 0.5", "= 0.1"))
    part(tmp_path, "mine/encoders/halve.py", ENCODER.replace("/ 2", "/ 4"))
    (tmp_path / "artifacts").rename(tmp_path / "before")
    assert outcome(tmp_path, shop) == (0, {"not_dear(price)": 3}, [1.0, 1.5])
    changed = {name for name, content in shop.own_parts().items() if content != before[name]}
    assert changed == {"steps/drop_samples", "encoders/halve"}


def test_workers_find_them_also_when_they_changed(tmp_path: Path, shop: Dataset) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed: pip install distributed")
    with workers_of("cpu", workers=1) as workers:
        assert outcome(tmp_path, shop, workers=workers) == (3, {"not_dear(price)": 3}, [2.0, 3.0])
        part(tmp_path, "mine/encoders/halve.py", ENCODER.replace("/ 2", "/ 4"))
        (tmp_path / "artifacts").rename(tmp_path / "before")
        assert outcome(tmp_path, shop, workers=workers) == (3, {"not_dear(price)": 3}, [1.0, 1.5])


def test_columns_of_text_files_that_only_own_code_looks_at_are_numbers_where_they_can_be(
    tmp_path: Path, shop: Dataset
) -> None:
    """The YAML names no column that the step and the check look at."""
    rows = [(*row, price) for row, price in zip(three_days(), [0.5, 2.0, 4.0, 6.0, 8.0] * 3, strict=True)]
    pl.DataFrame(rows, schema=[*COLUMNS, "price"], orient="row").write_csv(tmp_path / "events.csv")
    text = SHOP.replace("events.parquet", "events.csv").replace("features: {price: {encode: halve}}\n", "")
    part(tmp_path, "shop.yaml", text)
    facts = run(tmp_path, read_dataset(str(tmp_path / "shop.yaml")).at(tmp_path)).facts
    assert (facts["dropped"]["drop_samples"], facts["quarantined"]) == (3, {"not_dear(price)": 3})
