"""The grid of accuracy runs: what its file asks for, what is chosen of results, and that a failed run leaves the rest alone."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
import yaml

from flows.settings.layers import read_changes
from flows.settings.settings import Data, resolve

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    return importlib.import_module("accuracy_grid")


def result(name: str, validation: float, *settings: str, seed: int = 17, data: str = "ring") -> dict:
    metrics = {"ndcg@10": validation, "recall@10": 2 * validation}
    about = {"data": data, "name": name, "seed": seed, "settings": list(settings), "seconds": 1, "steps": 10}
    return about | {"validation": metrics, "test": {"ndcg@10": 0.5, "recall@10": 0.5}}


def test_every_run_of_the_file_has_settings_that_fit(grid: ModuleType, tmp_path: Path) -> None:
    runs = grid.read_grid().runs(tmp_path)
    assert len({(run.data, run.name, run.seed) for run in runs}) == len(runs)
    for run in runs:
        _, given = read_changes(list(run.given))
        data = Data(dataset=run.dataset, source=str(tmp_path), root=tmp_path, changes=run.changes)
        resolve(data, run.preset, given)


def test_the_best_is_chosen_by_validation_of_the_mean_over_seeds(grid: ModuleType) -> None:
    results = [result("a", 0.3), result("b", 0.5, seed=17), result("b", 0.2, seed=18), result("c", 0.34)]
    results += [result("d", 0.9, data="other"), {"data": "ring", "name": "e", "seed": 17, "error": "failed"}]
    assert sorted(grid.best_of_each(results, str)) == [("other", "d"), ("ring", "b")]
    page = grid.page(results, str)
    assert page.index("ring: b") < page.index("ring: c") < page.index("ring: a") and "ring e 17: failed" in page


def test_settings_that_are_better_alone_are_combined(grid: ModuleType, tmp_path: Path) -> None:
    run = grid.Run(name="base", data="ring", root=tmp_path, dataset="d", settings=("a=1",), metrics=("ndcg@10",))
    results = [result("base", 0.4, "a=1"), result("wide", 0.5, "a=1", "b=2"), result("two", 0.6, "a=1", "b=3", "c=4")]
    results += [result("worse", 0.3, "a=2"), result("alike", 0.401, "a=3"), result("body", 0.9, "a=1", "body.name=x")]
    combined = grid.combine(run, results)
    assert combined.name == "combined" and combined.settings == ("a=1", "b=3", "c=4")
    assert grid.combine(run, results[:2]) is None
    assert grid.combine(run, []) is None


def test_a_failed_run_leaves_the_rest_alone(grid: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(user, (user + place) % 9, place) for user in range(60) for place in range(6)]
    (tmp_path / "data" / "ring").mkdir(parents=True)
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row")
    table.write_parquet(tmp_path / "data" / "ring" / "events.parquet")
    dataset = {
        "name": "ring",
        "events": {"path": "events.parquet", "columns": {name: name for name in table.columns}},
        "sessions": {"rule": "history"},
        "split": "leave_one_out",
    }
    (tmp_path / "ring.yaml").write_text(yaml.safe_dump(dataset))
    small = ["body.dim=8", "body.num_heads=1", "training.epochs=2"]
    file = tmp_path / "grid.yaml"
    ring = {"data": {"ring": {"dataset": str(tmp_path / "ring.yaml"), "folder": "ring"}}}
    groups = [{"data": "ring", "settings": small, "runs": {"odd": ["body.num_heads=3"], "even": []}}]
    file.write_text(yaml.safe_dump(ring | {"final_seeds": [18], "groups": groups}, sort_keys=False))
    monkeypatch.setattr(grid, "SHARED", tmp_path)
    wanted = grid.read_grid(file)
    grid.prepare_all(wanted, tmp_path / "prepared")
    board = grid.Board(tmp_path / "results.jsonl")
    pools = {True: grid.Pool(board, 1, gpu=True), False: grid.Pool(board, 0, gpu=False)}
    grid.run_all(wanted, wanted.runs(tmp_path / "prepared"), board, pools, 1e9, 1e9)
    odd, even, again = grid.read_results(board.out)
    assert "num_heads 3 does not divide dim 8" in odd["error"]
    assert (even["name"], even["seed"], again["name"], again["seed"]) == ("even", 17, "even", 18)
    assert 0 <= even["validation"]["ndcg@10"] <= 1 and even["steps"] > 0
    assert not [run for run in wanted.runs(tmp_path) if run.name == "even" and not board.has(run)]
