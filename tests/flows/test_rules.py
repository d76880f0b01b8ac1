"""`serving.rules` of a dataset's YAML: what is written there becomes of lists, by hand, in bulk and in the service."""

from __future__ import annotations

import json
import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from flows import stages
from flows.api_sources import rules_reader
from flows.rules import reader_of, rules_of
from flows.settings.settings import Data, Settings, resolve
from modeling.config import ModelConfig, TrainingConfig
from modeling.evaluation.pointer import put_in_service
from modeling.service.recommender import Recommender
from modeling.service.rules import Rules
from modeling.stages import train
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts
from schemas.dataset import Dataset, load_dataset, read_dataset
from schemas.errors import InputError, parse
from tests.flows.conftest import overnight_here


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a shop, and a model folder of it."""
    folder = tmp_path_factory.mktemp("rules")
    simulate(Shop(days=4, users=60, seed=2), folder / "shop")
    artifacts = Artifacts(folder / "root")
    sessions = prepare(artifacts, read_dataset("demo").at(folder / "shop"), progress=lambda report: None)
    config = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}})
    training = TrainingConfig(epochs=1, tokens_per_step=256, threads=1)
    return folder / "shop", train(artifacts, sessions, config, training, lambda line: None).folder


def dataset_with(rules: dict[str, Any], shop: Path, **changes: Any) -> Dataset:
    demo = read_dataset("demo")
    written = demo.model_dump(mode="json", exclude_defaults=True) | changes | {"serving": {"rules": rules}}
    return parse(Dataset, written, "demo").at(shop)


def lists(shop: tuple[Path, Path], rules: dict[str, Any], k: int = 8) -> list[list[str]]:
    """Lists for four sessions under rules."""
    reader = reader_of(dataset_with(rules, shop[0]), None)
    recommender = Recommender(shop[1], "cpu", rules=reader.read() if reader else None)
    values = recommender.items["value"].drop_nulls().to_list()
    return recommender.recommend([values[place : place + 3] for place in range(4)], k)


def test_a_night_measures_both_models_under_the_same_rules(shop: tuple[Path, Path], tmp_path: Path) -> None:
    """The stock may change between two stages: what is compared keeps that of the candidate's evaluation."""
    stock, lines = tmp_path / "stock.csv", list[str]()
    names = sorted(item_table(shop[0]))
    stock.write_text("item_id,stock\n" + "".join(f"{name},{number % 4}\n" for number, name in enumerate(names)))
    written = {"stock": {"path": str(stock)}, "group": "category", "most_per_group": 3}
    rules = tmp_path / "shop.yaml"
    demo = read_dataset("demo").model_dump(mode="json", exclude_defaults=True)
    rules.write_text(yaml.safe_dump(demo | {"serving": {"rules": written}}))
    free = tmp_path / "free.yaml"
    free.write_text(yaml.safe_dump(demo | {"items": demo["items"] | {"unknown": "keep"}}))
    given = {
        "training": {"epochs": 1, "tokens_per_step": 256, "threads": 1},
        "body": {"dim": 16, "num_layers": 1},
        "evaluation": {"baselines": ["popularity"], "lists": 20, "rules": True},
    }

    def settings(day: int, dataset: str = str(rules)) -> Settings:
        return resolve(
            Data(dataset=dataset, source=str(shop[0]), root=tmp_path / "root", until=date(2026, 3, day)), None, given
        )

    night = settings(3)
    first = stages.train(night, stages.prepare(night, lines.append), lines.append)
    put_in_service(night.artifacts, "demo", first.name, by="promote")
    night = settings(4)
    sessions = stages.prepare(night, lines.append)
    evaluation = stages.evaluate(night, stages.train(night, sessions, lines.append), sessions, lines.append)
    facts = evaluation.facts["rules"]
    assert facts["written"] == {"stock": {"path": str(stock)}, "group": "category", "most_per_group": 3}
    assert facts["rank"] == "list" and 0 < facts["forbidden_targets"] < evaluation.facts["cases"]
    stock.write_text("item_id,stock\n")
    comparison = stages.compare(night, evaluation, sessions, lines.append)
    assert comparison.facts["compared"]
    kinds = (night.artifacts.root / "evaluations").iterdir()
    measured = [night.artifacts.read_manifest("evaluations", folder.name) for folder in kinds]
    assert {made.parents[0] for made in measured if made} == {first.name, evaluation.parents[0]}
    assert {made.facts["rules"]["digest"] for made in measured if made} == {facts["digest"]}
    page = stages.report(night, sessions, night.artifacts.get(evaluation.parents[0]), evaluation, comparison).folder
    text = (page / "report.html").read_text()
    assert (
        f"{facts['forbidden_targets']:,} of these targets" in text and "A rank is the place in the final list" in text
    )
    again = stages.evaluate(night, night.artifacts.get(evaluation.parents[0]), sessions, lines.append)
    assert again.name != evaluation.name, "another stock is another evaluation"
    with pytest.raises(
        InputError, match=r"evaluation.rules is true, and 'demo' has no rules: write them into its YAML"
    ):
        stages.train(settings(4, str(free)), sessions, lines.append)


def item_table(shop: Path) -> dict[str, dict[str, Any]]:
    rows = pl.read_parquet(shop / "items.parquet")
    return {row["item_id"]: row for row in rows.iter_rows(named=True)}


def test_lists_of_ids_are_allowed_or_denied(shop: tuple[Path, Path]) -> None:
    free = lists(shop, {})
    taken = sorted({name for row in free for name in row})
    assert all(taken[0] not in row for row in lists(shop, {"deny": [taken[0]]}))
    allowed = set(taken[:4])
    assert all(set(row) == allowed for row in lists(shop, {"allow": list(allowed)}))
    assert all(set(row) == allowed - {taken[0]} for row in lists(shop, {"allow": list(allowed), "deny": [taken[0]]}))


def test_expressions_look_at_columns_of_the_item_table(shop: tuple[Path, Path]) -> None:
    items, free = item_table(shop[0]), lists(shop, {})
    category = items[free[0][0]]["category"]
    found = lists(shop, {"eligible": f"category <> '{category}'"})
    assert any(items[name]["category"] == category for row in free for name in row)
    assert not any(items[name]["category"] == category for row in found for name in row)
    up = lists(shop, {"boost": f"CASE WHEN category = '{category}' THEN 100 ELSE 0 END"})
    for row in up:
        of_category = [items[name]["category"] == category for name in row]
        assert of_category[0] and of_category == sorted(of_category, reverse=True)


def test_no_more_of_a_group_than_may_be(shop: tuple[Path, Path]) -> None:
    items = item_table(shop[0])

    def most(rows: list[list[str]]) -> int:
        kinds = [[items[name]["category"] for name in row] for row in rows]
        return max(row.count(kind) for row in kinds for kind in row)

    assert most(lists(shop, {})) > 1
    assert most(found := lists(shop, {"group": "category", "most_per_group": 1})) == 1
    assert all(len(row) == min(8, len({about["category"] for about in items.values()})) for row in found)


def test_some_of_each_list_are_new(shop: tuple[Path, Path]) -> None:
    items = item_table(shop[0])
    rows = [
        [items[name]["brand"] for name in row] for row in lists(shop, {}, len(items))
    ]  # all that may be recommended
    brands = {about["brand"] for about in items.values()} - {brand for row in rows for brand in row[:5]}
    brand = min(name for name in brands if all(row.count(name) >= 2 for row in rows))
    found = lists(shop, {"new": f"brand = '{brand}'", "min_new": 2}, 5)
    assert all(sum(items[name]["brand"] == brand for name in row) == 2 for row in found)
    assert all(len(row) == 5 for row in found)


def test_a_stock_table_is_read_again_when_it_changes(shop: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = sorted({name for row in lists(shop, {}) for name in row})[:2]
    file = tmp_path / "stock.csv"
    file.write_text(f"sku,left\n{first},0\n{second},3\nelsewhere,9\n")
    rules = {"stock": {"path": str(file), "item": "sku", "when": "left > 0"}}
    reader = reader_of(dataset_with(rules, shop[0]), None)
    assert reader is not None
    recommender = Recommender(shop[1], "cpu", rules=reader.read())
    history = [recommender.items["value"].drop_nulls().to_list()[:3]]
    assert recommender.recommend(history) == [[second]] and reader.read() is None
    file.write_text(f"sku,left\n{first},12\n{second},0\n")
    os.utime(file, ns=(time.time_ns(), time.time_ns() + 10**9))
    recommender.set_rules(reader.read())
    assert recommender.recommend(history) == [[first]]
    file.unlink()
    with pytest.raises(InputError, match="stock"):
        reader.read()


def test_a_service_takes_up_what_is_written_later(shop: tuple[Path, Path], tmp_path: Path) -> None:
    """Rules of the YAML itself, and none again; a YAML that cannot be read is said, and changes nothing."""
    file = tmp_path / "demo.yaml"

    def write(text: str) -> None:
        before = file.stat().st_mtime_ns if file.exists() else 0
        file.write_text(text)
        os.utime(file, ns=(before + 10**9, before + 10**9))

    def denied(rules: Rules | None) -> list[str]:
        assert rules is not None
        none = rules.table is None or "eligible" not in rules.table.columns
        return [] if none else rules.table.filter(~pl.col("eligible"))["item"].to_list()

    plain = yaml.safe_dump(dataset_with({}, shop[0]).model_dump(mode="json", exclude_defaults=True))
    ruled = yaml.safe_dump(dataset_with({"deny": ["a"]}, shop[0]).model_dump(mode="json", exclude_defaults=True))
    write(plain)
    read = rules_reader(load_dataset(str(file)), str(file), None)
    read()
    write(ruled)
    assert denied(read()) == ["a"] and read() is None
    write("name: [")
    with pytest.raises(InputError, match="demo"):
        read()
    write(plain)
    assert denied(read()) == []


def test_what_the_catalogue_no_longer_lists_is_recommended_no_more(shop: tuple[Path, Path], tmp_path: Path) -> None:
    """Where a dataset says that its item table lists all items, nobody has to write a rule for it."""
    free = lists(shop, {})
    gone = free[0][0]
    (tmp_path / "shop").mkdir()
    pl.read_parquet(shop[0] / "items.parquet").filter(pl.col("item_id") != gone).write_parquet(
        tmp_path / "shop/items.parquet"
    )
    here = (tmp_path / "shop", shop[1])
    assert any(gone in row for row in free) and not any(gone in row for row in lists(here, {}))
    assert any(gone in row for row in lists(here, {"catalogue": False}))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"elligible": "price > 0"}, "Did you mean 'serving.rules.eligible'"),
        ({"eligible": "prize > 0"}, "serving.rules.eligible: Unknown column of the item table 'prize'"),
        ({"eligible": "in_stock"}, "write it under items.columns, as in `items: {columns: {in_stock: in_stock}}`"),
        ({"eligible": "category"}, "'category' is String; give true or false"),
        ({"eligible": "SUM(1) > 0"}, "an aggregate"),
        ({"boost": "category"}, "give a number"),
        ({"group": "category"}, "group and most_per_group go together"),
        ({"group": "kind", "most_per_group": 2}, "Unknown column of the item table 'kind'"),
        ({"min_new": 2}, "new and min_new go together"),
        ({"allow": "nowhere.txt"}, "serving.rules.allow: .*nowhere.txt cannot be read"),
        ({"stock": {"path": "nowhere.csv"}}, "serving.rules.stock.path"),
        ({"stock": {"path": "items.parquet", "item": "sku"}}, "Unknown column 'sku'"),
    ],
)
def test_what_does_not_fit_is_said(shop: tuple[Path, Path], rules: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        lists(shop, rules)


def test_commands_keep_the_rules(shop: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand and in bulk, of the YAML that is named; not of another dataset's model."""
    recommender = Recommender(shop[1], "cpu")
    history = recommender.items["value"].drop_nulls().to_list()[:3]
    free = recommender.recommend([history], 5, filter_seen=True)[0]
    text = read_dataset("demo").model_dump_json(exclude_defaults=True)
    written = json.loads(text) | {"serving": {"rules": {"deny": [free[0]]}}, "source": str(shop[0])}
    yaml = tmp_path / "demo.yaml"
    yaml.write_text(json.dumps(written))
    one = overnight_here("recommend", *history, "-k", "4", "--dataset", yaml, "--model", shop[1], "--json")
    assert one.returncode == 0, one.stderr
    assert json.loads(one.stdout.splitlines()[-1])["recommended"] == free[1:]
    (tmp_path / "histories.jsonl").write_text(json.dumps({"user_id": "u1", "item_id": history}))
    many = ("--from", tmp_path / "histories.jsonl", "--out", tmp_path / "lists")
    done = overnight_here("recommend", *many, "-k", "4", "--dataset", yaml, "--model", shop[1])
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(tmp_path / "lists/lists.parquet")["item"].to_list() == free[1:]
    assert rules_of(str(yaml), "another") is None
    written["serving"]["rules"] = {"stock": {"path": "stock.csv"}}
    del written["source"]
    yaml.write_text(json.dumps(written))
    monkeypatch.delenv("OVERNIGHT_SOURCE", raising=False)
    nowhere = overnight_here("recommend", *history, "--dataset", yaml, "--model", shop[1])
    assert nowhere.returncode == 2 and "nobody says where that is" in nowhere.stderr
