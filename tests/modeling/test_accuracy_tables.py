import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
import yaml

from flows.settings import listing
from schemas.errors import InputError

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy", PROJECT / "benchmarks" / "accuracy.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "accuracy", module)
    monkeypatch.syspath_prepend(str(PROJECT))
    spec.loader.exec_module(module)
    return module


def _table(folder: Path) -> dict:
    """A ring of nine items; the last item of two of sixty histories is in no other, and so is cold."""
    rows = [(f"u{user}", f"i{(user + place) % 9}", place) for user in range(60) for place in range(6)]
    rows += [("v", "i1", 0), ("v", "i2", 1), ("v", "i3", 2), ("v", "new", 3)]
    (folder / "data" / "ring").mkdir(parents=True)
    pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row").write_parquet(
        folder / "data" / "ring" / "events.parquet"
    )
    dataset = {
        "name": "ring",
        "events": {"path": "events.parquet", "columns": {name: name for name in ("user_id", "item_id", "position")}},
        "sessions": {"rule": "history"},
        "split": "leave_one_out",
    }
    (folder / "ring.yaml").write_text(yaml.safe_dump(dataset))
    return {
        "title": "A ring",
        "dataset": str(folder / "ring.yaml"),
        "folder": "ring",
        "protocol": "Leave-one-out.",
        "metrics": ["recall@5", "ndcg@5"],
        "seeds": [17],
        "published": [{"who": "nobody", "source": "nowhere", "metrics": {"recall@5": 0.5}}],
        "models": [{"name": "defaults", "settings": ["body.dim=8", "training.epochs=2"]}],
        "differences": ["It is a toy."],
    }


def test_a_table_is_run_by_the_ordinary_stages_and_cold_targets_are_misses(
    accuracy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "SHARED", tmp_path)
    table = accuracy.Table.model_validate(_table(tmp_path))
    (record,) = accuracy.run("ring", table, None, None, tmp_path / "root")
    assert (record.cases, record.cold) == (60, 1)
    hits = record.metrics["recall@5"] * 61
    assert hits == pytest.approx(round(hits), abs=1e-3) and round(hits) > 0
    assert record.baselines["popularity"].keys() == {"recall@5", "ndcg@5"}
    text = accuracy.section("ring", table, [record])
    assert "| published: nobody | 0.5000 |  |" in text and "- Differs: It is a toy." in text
    assert "60 cases, and 1 more whose target no training event holds." in text
    assert "not run" in accuracy.section("ring", table, [])


def test_what_fails_says_which_command_and_why(
    accuracy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "SHARED", tmp_path)
    table = accuracy.Table.model_validate(
        _table(tmp_path) | {"models": [{"name": "wrong", "settings": ["body.dim=seven"]}]}
    )
    with pytest.raises(InputError, match=r"evaluate.* failed: .*body\.dim"):
        accuracy.run("ring", table, None, None, tmp_path / "root")


def test_a_share_of_cases_counts_cold_and_unknown_targets(accuracy: ModuleType) -> None:
    assert accuracy.share_of_cases({"cases": 90, "cold_targets": 6, "unknown_targets": 4}) == (0.9, 10)
    assert accuracy.share_of_cases({"cases": 0}) == (0.0, 0)


def test_newer_records_take_the_place_of_older_ones(
    accuracy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "RECORDS", tmp_path / "accuracy.json")
    record = accuracy.Record(
        table="ring",
        model="defaults",
        seed=17,
        metrics={"recall@5": 0.1},
        baselines={},
        cases=1,
        cold=0,
        cpu_seconds=1,
        steps=1,
        commit="",
    )
    accuracy.keep([record, record.model_copy(update={"seed": 18})])
    accuracy.keep([record.model_copy(update={"metrics": {"recall@5": 0.2}})])
    assert [(kept.seed, kept.metrics["recall@5"]) for kept in accuracy.read_records()] == [(17, 0.2), (18, 0.1)]


def test_every_table_that_is_shipped_is_of_a_dataset_that_is_there(accuracy: ModuleType) -> None:
    names = sorted(path.stem for path in accuracy.TABLES.glob("*.yaml"))
    assert {"beauty", "globo", "lastfm", "ml1m"} <= set(names)
    assert {accuracy.read_table(name).dataset for name in names} <= set(listing.datasets())
    assert "not run" in accuracy.page(names, [])
