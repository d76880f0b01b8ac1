"""Items that the item table lists and nobody clicked yet."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from modeling.config import ModelConfig, TrainingConfig
from modeling.service.api.app import Service
from modeling.service.api.in_service import Place
from modeling.stages import train
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts
from schemas.dataset import read_dataset
from tests.modeling.service.conftest import serving


def test_new_items_are_recommended_by_their_features(tmp_path: Path) -> None:
    simulate(Shop(days=4, users=60, seed=2), tmp_path / "shop")
    artifacts = Artifacts(tmp_path / "root")
    sessions = prepare(artifacts, read_dataset("demo").at(tmp_path / "shop"), progress=lambda report: None)
    inputs = {"item_tower": "sum", "features": ["category", "brand"]}
    config = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}, "inputs": inputs})
    model = train(
        artifacts, sessions, config, TrainingConfig(epochs=1, tokens_per_step=256, threads=1), lambda line: None
    )
    table = pl.read_parquet(tmp_path / "shop/items.parquet").head(3)
    first = table.with_columns(item_id=pl.format("new-{}", pl.int_range(3)))
    tables = [first]
    place = Place(name=model.name, folder=model.folder, created=model.created)
    service = Service(lambda: place, read_items=lambda: tables.pop() if tables else None)
    service.models.load()
    with serving(service) as client:

        def sources() -> dict[str, str]:
            answer = client.post("/recommend", json={"items": [first["item_id"][0]], "k": 1000, "hide_seen": False})
            return {entry["item"]: entry["source"] for entry in answer.json()["sessions"][0]["items"]}

        found = sources()
        assert {found[item] for item in first["item_id"]} == {"features"}
        assert {source for item, source in found.items() if not item.startswith("new-")} == {"model"}
        tables.append(pl.concat([first, table.head(1).with_columns(item_id=pl.lit("new-9"))]))
        assert service.models.refresh_items() and sources()["new-9"] == "features"
        tables.append(first.drop("category"))
        assert service.models.refresh_items() and not any(item.startswith("new-") for item in sources())
