"""Item vectors after a night and after changes by hand: files, and a Milvus whose alias follows the model in service."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import yaml
from pymilvus import MilvusClient

from flows import in_service
from flows.prune import prune
from flows.vectors import ITEMS, after_change, make_vectors, newest_vectors
from modeling.config import ModelConfig, TrainingConfig
from modeling.service.recommender import Recommender
from modeling.service.retrieval import item_vectors
from modeling.stages import train
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import load_dataset, read_dataset
from schemas.errors import InputError
from schemas.finished import FinishedArtifacts, WorkToDoError


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifacts, list[Manifest], str]:
    """Two models of a shop whose dataset asks for vectors in Milvus."""
    folder = tmp_path_factory.mktemp("vectors")
    simulate(Shop(days=3, users=60, seed=2), folder / "shop")
    written = read_dataset("demo").model_dump(mode="json", exclude_unset=True)
    written |= {"source": str(folder / "shop"), "serving": {"vectors": {"milvus": "SHOP_MILVUS"}}}
    (folder / "demo.yaml").write_text(yaml.safe_dump(written))
    artifacts, models = Artifacts(folder / "root"), []
    sessions = prepare(artifacts, load_dataset(str(folder / "demo.yaml")), progress=lambda _: None)
    config = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}})
    for seed in (1, 2):
        training = TrainingConfig(epochs=1, tokens_per_step=256, threads=1, seed=seed)
        models.append(train(artifacts, sessions, config, training, lambda _: None))
    return artifacts, models, str(folder / "demo.yaml")


def test_vectors_follow_the_model_in_service(
    nights: tuple[Artifacts, list[Manifest], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts, (first, second), dataset = nights
    monkeypatch.setenv("SHOP_MILVUS", str(tmp_path / "items.db"))
    loaded, said = load_dataset(dataset), []
    in_service.change(artifacts, dataset, first.name, None, "")
    with pytest.raises(WorkToDoError):
        make_vectors(FinishedArtifacts(artifacts.root), loaded, said.append)
    made = make_vectors(artifacts, loaded, said.append)
    assert not made.reused
    expected = item_vectors(Recommender(first.folder, "cpu"))
    assert pl.read_parquet(made.folder / ITEMS).equals(expected)
    again = make_vectors(FinishedArtifacts(artifacts.root), loaded, said.append)
    assert again.name == made.name and again.reused

    in_service.change(artifacts, dataset, second.name, None, "")
    after_change(artifacts, dataset, said.append)
    in_service.rollback(artifacts, dataset, "")
    after_change(artifacts, dataset, said.append)
    newest = newest_vectors(artifacts, "demo")
    assert newest and (newest.vectors, newest.model) == (made.name, first.name)
    client = MilvusClient(str(tmp_path / "items.db"))
    assert client.list_aliases(f"overnight_demo_{first.id}")["aliases"] == ["overnight_demo"]
    assert client.has_collection(f"overnight_demo_{second.id}"), "for the next change"
    client.close()
    prune(artifacts, 1, 0, remove=True, say=said.append)
    assert (made.folder / ITEMS).is_file() and len(list((artifacts.root / "vectors").iterdir())) == 1

    monkeypatch.setenv("SHOP_MILVUS", "http://me:secret@127.0.0.1:9")
    in_service.change(artifacts, dataset, second.name, None, "")
    with pytest.raises(InputError, match="does not answer"):
        make_vectors(artifacts, loaded, said.append)
    after_change(artifacts, dataset, said.append)
    assert "The next night sends them" in str(said[-1]) and "secret" not in str(said)
    assert newest_vectors(artifacts, "demo") == newest, "the old state is what is said"
