"""Bodies that can be trained on each next event beat popularity on the simulated shop within a minute.

The other objectives learn from a sixth of the events and need more of them than a test has time for.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from modeling.config import ModelConfig, TrainingConfig
from modeling.evaluation.baselines.popularity import Popularity
from modeling.evaluation.metrics import metrics_at
from modeling.evaluation.ranking import Scorer, ranks
from modeling.scoring import ModelScorer
from modeling.splits import Split, split_sessions
from modeling.training.fit import fit
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts
from schemas.dataset import read_dataset
from schemas.features import FeatureSchema
from tests.laws.test_models import causal_bodies
from tests.slow import pared

TRAINING = TrainingConfig(
    epochs=4, tokens_per_step=128, learning_rate=5e-3, evaluations=1, validation_sessions=50, threads=1
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureSchema, Split]:
    """Six days of a shop with 400 users and 150 items."""
    folder = tmp_path_factory.mktemp("shop")
    simulate(Shop(days=6, users=400, items=150, seed=5), folder)
    prepared = prepare(Artifacts(folder / "root"), read_dataset("demo").at(folder), progress=lambda line: None)
    schema = FeatureSchema.read(prepared.folder / "schema.json")
    return schema, split_sessions(prepared, schema, TRAINING.validation_sessions)


def ndcg(scorer: Scorer, split: Split) -> float:
    return metrics_at(ranks(scorer, split.test.known()), (20,))["ndcg@20"]


# Attention, recurrence and weights without softmax; each other kind learns a chain in test_models.py.
@pytest.mark.parametrize("body", pared(causal_bodies, lambda body: body in ("sasrec", "gru4rec", "hstu")))
def test_it_beats_popularity(body: str, shop: tuple[FeatureSchema, Split], tmp_path: Path) -> None:
    schema, split = shop
    config = ModelConfig.model_validate({"body": {"name": body, "dim": 32, "dropout": 0.1}})
    begun = time.process_time()
    model, facts = fit(schema, split, config, TRAINING, tmp_path, lambda line: None)
    found, popularity = (
        ndcg(ModelScorer(model), split),
        ndcg(Popularity(split.train, split.last_day, schema.num_items), split),
    )
    assert found > 1.1 * popularity, (found, popularity, facts["tokens"])
    assert time.process_time() - begun < 60
