"""Every module runs on the device that its model is on, and nothing ever meets a tensor of another one.

On a machine with a GPU that is the device; on any other one a second device is made of tensors of the CPU that refuse to meet
the others, as CUDA's do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from modeling import losses
from modeling.config import EvaluationConfig, ModelConfig, TrainingConfig
from modeling.evaluation import baselines
from modeling.evaluation.ranking import ranks, top_k
from modeling.model import SequenceModel
from modeling.scoring import ModelScorer
from modeling.service.recommender import Recommender
from modeling.sessions import Sessions
from modeling.stages import evaluate, train
from modeling.training import optimizer
from modeling.training.fit import fit
from modeling.training.optimizer import RowAdamW, use_sparse_gradients
from modeling.training.schedule import make_schedule
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import read_dataset
from schemas.features import LabelColumn
from tests.conftest import model_of, random_sessions, schema_of, split_of
from tests.laws.test_models import one_pair_of_each
from tests.modeling import test_inputs as wide
from tests.modeling.test_items import newcomers, write_folder, write_vectors
from tests.modeling.training.test_fit import Interrupt
from tests.second_device import PretendedDevice, pretended_cuda

CONFIG = TrainingConfig(
    epochs=2, tokens_per_step=64, evaluations=3, patience=10, threads=1, order="random", half_life_days=5e-4
)


@pytest.fixture
def device() -> Iterator[PretendedDevice | None]:
    """A CUDA device: None is a real one."""
    if torch.cuda.is_available():
        yield None
    else:
        with pretended_cuda() as pretended:
            yield pretended


def quiet(line: object) -> None:
    """No progress."""


def step(model: SequenceModel, sessions: Sessions, **training: Any) -> None:
    """One step of training on the device."""
    model.to("cuda").train()
    config = CONFIG.model_copy(update=training)
    batch = make_schedule(model, sessions.to("cuda"), config)[0]
    assert all(values.device == model.device for values in batch.tensors())
    optimizer = RowAdamW(model.parameters(), lr=1e-3)
    model(batch).backward()
    optimizer.step()


def predict(model: SequenceModel, sessions: Sessions) -> None:
    """Ranks and recommendations on the device."""
    scorer, cases = ModelScorer(model), split_of(sessions, sessions).test.to("cuda").known()
    for filter_seen in (False, True):
        assert ranks(scorer, cases, filter_seen=filter_seen).device == model.device
        ids_NK, score_NK = top_k(scorer, cases.history, 3, filter_seen=filter_seen)
        assert ids_NK.device == score_NK.device == model.device


@one_pair_of_each
def test_every_body_and_objective(body: str, objective: str, device: PretendedDevice | None) -> None:
    model, sessions = model_of(body, objective=objective), random_sessions(12, 50)
    step(model, sessions)
    predict(model, sessions)


@pytest.mark.parametrize(
    "groups",
    [
        *({"loss": {"name": name, "negatives": {"count": 8}}} for name in plugins.names(losses)),
        {"loss": {"name": "full_softmax", "options": {"label_smoothing": 0.1}}},
        *(
            {"loss": {"name": "sampled_softmax", "negatives": {"count": 8, "source": source, "corrected": True}}}
            for source in ("uniform", "popularity", "in_batch")
        ),
        {"heads": {"next_item": {"bias": True, "cosine": True, "temperature": 0.1}}},
        {"heads": {"next_item": {"table": "separate", "bias": True}}, "loss": "bce"},
        *({"positions": positions} for positions in ("none", "forward", "rotary")),
        {"objective": {"name": "causal", "last_only": True}},
        {"body": {"name": "hstu", "options": {"time_buckets": 4}}},
        {"body": {"name": "gru4rec", "options": {"cell": "lstm"}, "num_layers": 2}},
    ],
    ids=str,
)
def test_every_loss_and_option(groups: dict[str, Any], device: PretendedDevice | None) -> None:
    model, sessions = model_of(**({"body": "sasrec"} | groups)), random_sessions(12, 50)
    step(model, sessions)
    predict(model, sessions)


@pytest.mark.parametrize(
    "inputs",
    [
        {"aggregation": "concat", "continuous": "soft_one_hot", "feature_norm": True, "swap_noise": 0.3},
        {"aggregation": "sum_times_item", "item_tower": "sum", "id_dropout": 0.3},
        {"item_tower": "concat", "pretrained": {"trained": True}},
        {"pretrained": {"replaces_id": True}},
    ],
    ids=str,
)
def test_every_way_to_read_features(inputs: dict[str, Any], device: PretendedDevice | None, tmp_path: Path) -> None:
    if "pretrained" in inputs:
        write_vectors(tmp_path / "v.parquet")
        inputs = inputs | {"pretrained": {"path": str(tmp_path / "v.parquet")} | inputs["pretrained"]}
    model, sessions = wide.model_of(inputs, loss="sampled_softmax"), wide.sessions_of()
    step(model, sessions)
    predict(model, sessions)


def test_sparse_gradients(device: PretendedDevice | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "SPARSE_FROM", {"cuda": 1})
    model = model_of("sasrec", loss="sampled_softmax")
    assert use_sparse_gradients(model, "cuda")
    step(model, random_sessions(12, 50))


def with_labels(sessions: Sessions) -> Sessions:
    odd = (sessions.items % 2).float()
    return replace(sessions, event_labels={"odd": odd}, labels={"size": sessions.lengths.float()})


def run(
    groups: dict[str, Any], folder: Path, after_step: Interrupt | None = None
) -> tuple[SequenceModel, dict[str, Any]]:
    """Fit a small model on the device that there is, validating twice at least."""
    labels = (
        LabelColumn(name="odd", per="event", source="odd"),
        LabelColumn(name="size", per="session", source="size"),
    )
    schema, sessions = schema_of(50).model_copy(update={"labels": labels}), with_labels(random_sessions(40, 50))
    body = {"name": groups.get("body", "sasrec"), "dim": 16, "dropout": 0.2}
    config = ModelConfig.model_validate(groups | {"body": body})
    return fit(schema, split_of(sessions, sessions), config, CONFIG, folder, quiet, after_step=after_step)


ALL_HEADS = {"heads": {"next_item": {"bias": True}, "odd": "binary", "size": {"name": "regression", "log": True}}}


@pytest.mark.parametrize(
    "groups",
    [
        {"heads": {"odd": "binary", "size": "regression"}},
        {"body": "gru4rec", "loss": "gbce"},
        {"body": "bert4rec", "objective": "replaced_token"},
        {"body": "xlnet", "objective": "permuted"},
    ],
    ids=str,
)
def test_fit_through_validation_to_the_best_weights(
    groups: dict[str, Any], device: PretendedDevice | None, tmp_path: Path
) -> None:
    model, facts = run(groups, tmp_path)
    assert {value.device.type for value in model.state_dict().values()} == {"cuda"}
    assert len([row for row in facts["history"] if facts["goal"] in row["validation"]]) >= 2


def test_an_interrupted_run_goes_on_to_the_same_weights(
    device: PretendedDevice | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, facts = run(ALL_HEADS, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(ALL_HEADS, tmp_path / "broken", Interrupt(facts["planned_steps"] * 2 // 3))
    resumed, _ = run(ALL_HEADS, tmp_path / "broken")
    weights = {name: value.cpu() for name, value in whole.state_dict().items()}
    again = {name: value.cpu() for name, value in resumed.state_dict().items()}
    torch.testing.assert_close(
        again, weights, rtol=0, atol=1e-2 if device is None else 0
    )  # a real one adds in any order


@dataclass(frozen=True)
class Nights:
    """The sessions of two nights of one shop, made on the CPU."""

    artifacts: Artifacts
    shop: Path
    sessions: list[Manifest]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    folder = tmp_path_factory.mktemp("nights")
    made = Nights(Artifacts(folder / "root"), folder / "shop", [])
    for days in (3, 4):
        simulate(Shop(days=days, users=60, items=100, share_new=0.1, seed=2), made.shop)
        dataset = read_dataset("demo_purchase").at(made.shop)
        made.sessions.append(prepare(made.artifacts, dataset, progress=quiet))
    return made


def test_from_training_to_evaluation_and_service(nights: Nights, device: PretendedDevice | None) -> None:
    """A model is measured beside every baseline, also on the next night's sessions; its folder recommends and predicts."""
    heads = {"next_item": {}, "bought": "binary", "dwell": "regression"}
    groups = {"body": {"dim": 8, "num_layers": 1}, "inputs": {"item_tower": "sum"}, "heads": heads}
    training = TrainingConfig(epochs=1, tokens_per_step=256, threads=1)
    model = train(nights.artifacts, nights.sessions[0], ModelConfig.model_validate(groups), training, quiet)
    config = EvaluationConfig(baselines=tuple(plugins.names(baselines)), filter_seen=True)
    first, second = (evaluate(nights.artifacts, model, sessions, config, quiet) for sessions in nights.sessions)
    for measured in (first, second):
        assert measured.facts["cases"] > 0
        assert {"dwell/rmse", "bought/log_loss", "ndcg@20"} <= measured.facts["metrics"]["sasrec"].keys()
    recommender = Recommender(model.folder)
    assert recommender.model.device.type == "cuda"
    before = recommender.items.height
    added, _ = recommender.add_items(pl.read_parquet(nights.shop / "items.parquet"))
    histories, _ = recommender.histories(
        [recommender.items["value"][-2:].to_list(), recommender.items["value"][:1].to_list()]
    )
    assert added == recommender.items.height - before > 0
    for filter_seen in (False, True):
        assert [len(items) for items in recommender.recommend(histories, 5, filter_seen=filter_seen)] == [5, 5]
    assert all(values.device.type == "cpu" for values in recommender.predict(histories).values())


def test_new_items_with_features_and_pretrained_vectors(device: PretendedDevice | None, tmp_path: Path) -> None:
    write_vectors(tmp_path / "v.parquet")
    for name, about in (("trained", {"trained": True}), ("frozen", {"replaces_id": True})):
        inputs = {"item_tower": "concat", "pretrained": {"path": str(tmp_path / "v.parquet")} | about}
        (tmp_path / name).mkdir()
        model = wide.model_of(inputs, heads={"next_item": {"bias": True}})
        recommender = Recommender(write_folder(model, tmp_path / name))
        added, _ = recommender.add_items(newcomers(vector=[[0.5] * 6, None]))
        assert added == 2
        assert {value.device.type for value in recommender.model.state_dict().values()} == {"cuda"}
        assert len(recommender.recommend(recommender.histories([["new", "40"]])[0], 5)[0]) == 5
