"""The newest days are held out whole, the number of epochs is chosen on them, and the model is trained again with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.config import EvaluationConfig, Goal, ModelConfig, SplitConfig, TrainingConfig
from modeling.splits import Split, folds
from modeling.stages import evaluate, train
from modeling.training import held_out
from modeling.training.fit import fit
from modeling.training.plan import Plan
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from tests.cases.test_evaluation import quiet, ring
from tests.cases.test_evaluation import shop as ring_shop
from tests.modeling.test_splits import TINY, day, prepared_at
from tests.modeling.training.test_fit import Interrupt

CONFIG = TrainingConfig(epochs=4, tokens_per_step=32, learning_rate=3e-2, threads=1, validation="days", patience=9)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return prepared_at(tmp_path_factory.mktemp("held") / "shop")


def trained(shop: Manifest, config: TrainingConfig = CONFIG, **about: Any) -> tuple[Manifest, list[str]]:
    lines: list[str] = []
    return train(Artifacts(shop.root), shop, TINY, config, lambda line: lines.append(str(line)), **about), lines


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Split, TrainingConfig]]:
    """The sessions and settings of each run that a training does."""
    done: list[tuple[Split, TrainingConfig]] = []

    def noted(schema: Any, split: Split, model: ModelConfig, config: TrainingConfig, *rest: Any, **named: Any) -> Any:
        done.append((split, config))
        return fit(schema, split, model, config, *rest, **named)

    monkeypatch.setattr(held_out, "fit", noted)
    return done


def test_a_whole_day_chooses_and_is_then_trained_on(shop: Manifest, runs: list[tuple[Split, TrainingConfig]]) -> None:
    model, lines = trained(shop)
    (choosing, chooser), (final, last) = runs
    [fold] = folds(shop)
    assert choosing.fold and choosing.fold.train_days == tuple(map(day, range(1, 5)))
    assert (len(choosing.train), len(choosing.validation.target), len(choosing.test.target)) == (24, 6, 0)
    assert (len(final.train), final.fold and final.fold.train_days) == (30, fold.train_days), (
        "all of the days, all sessions"
    )
    choice = model.facts["choice"]
    assert choice["days"] == [day(5)] and choice["cases"] == 6 and choice["of_epochs"] == 4
    assert (chooser.order, chooser.epochs, last.order, last.epochs) == ("random", 4, "time", choice["epochs"])
    best = max(value for _, value in choice["curve"])
    assert choice["epochs"] == max(epoch for epoch, value in choice["curve"] if value == best)
    assert (model.facts["validation_ndcg@20"], model.facts["validation_cases"]) == (best, 6)
    assert model.facts["weights"] == "last step" and model.facts["steps"] == model.facts["planned_steps"]
    assert model.facts["test_day"] == day(6)
    assert model.facts["tokens"] > choice["tokens"] and model.facts["cpu_seconds"] >= round(choice["cpu_seconds"], 1)
    assert any(f"Choosing the number of epochs on {day(5)}" in line for line in lines)
    said = [line for line in lines if "no validation case" in line or "patience is not used" in line]
    assert not said, "the second run has no cases by intention; the first had the patience"


def test_two_days_and_fewer_cases(shop: Manifest, runs: list[tuple[Split, TrainingConfig]]) -> None:
    config = CONFIG.model_copy(update={"validation_days": 2, "validation_sessions": 5})
    model, _ = trained(shop, config)
    assert model.facts["choice"]["days"] == [day(4), day(5)] and model.facts["choice"]["cases"] == 5
    assert len(runs[0][0].train) == 18 and len(runs[1][0].train) == 30


@pytest.mark.parametrize("killed_in", [1, 2])
def test_interrupted_in_either_run_it_goes_on_to_the_same_bits(
    shop: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: int
) -> None:
    whole, _ = trained(shop)
    begun = 0

    def interrupted(*given: Any, **named: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == killed_in:
            named["after_step"] = Interrupt(5 if killed_in == 1 else 3)  # the second may have one epoch, of three steps
        return fit(*given, **named)

    other = shop.model_copy(update={"root": str(tmp_path)})
    (tmp_path / "sessions").mkdir()
    (tmp_path / shop.name).symlink_to(shop.folder)
    monkeypatch.setattr(held_out, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(other)
    again, lines = trained(other)
    assert any("Going on from step" in line for line in lines)
    assert begun == 3, "what was chosen is not chosen again"
    weights = [(model.folder / "model.safetensors").read_bytes() for model in (whole, again)]
    assert weights[0] == weights[1]
    assert again.facts["choice"]["curve"] == whole.facts["choice"]["curve"]
    assert not list((tmp_path / "unfinished").glob("*"))


@pytest.mark.parametrize(
    ("config", "kind"),
    [({}, "sample"), ({"order": "random"}, "days"), ({"order": "random", "validation": "sample"}, "sample")],
)
def test_what_validates_where_nobody_says(shop: Manifest, config: dict[str, Any], kind: str) -> None:
    model, _ = trained(shop, TrainingConfig(epochs=1, tokens_per_step=64, threads=1, learning_rate=1e-3, **config))
    assert model.parameters["training"]["validation"] == kind
    written = TrainingConfig(
        epochs=1, tokens_per_step=64, threads=1, learning_rate=1e-3, **(config | {"validation": kind})
    )
    assert trained(shop, written)[0].name == model.name, "written out it is the same model"


def test_a_sample_of_the_training_day_never_chooses(tmp_path: Path) -> None:
    """Patience 1 at a rate that soon does harm: validation asks about cases of the newest training day, and stops nothing."""
    sessions = prepare(Artifacts(tmp_path / "root"), ring_shop(tmp_path, ring(4)), progress=quiet)
    split = folds(sessions)[-1].read(100)
    assert (split.validates, split.num_validation) == ("watches", 6)
    config = TrainingConfig(
        epochs=8, tokens_per_step=64, threads=1, learning_rate=0.5, order="random", patience=1, evaluations=8,
        validation="sample",
    )  # fmt: skip
    model = train(Artifacts(sessions.root), sessions, TINY, config, quiet)
    curve = [
        row["validation"]["ndcg@20"]
        for row in json.loads((model.folder / "history.json").read_text())
        if row["validation"]
    ]
    assert len(curve) == 8 and sorted(curve) != curve, "it had reason to"
    assert model.facts["weights"] == "last step" and model.facts["steps"] == model.facts["planned_steps"]


def test_without_days_to_train_on_all_epochs_are_done(shop: Manifest) -> None:
    model, lines = trained(shop, CONFIG, split=SplitConfig(train_days=1))
    assert model.facts["choice"] is None and model.facts["split"]["train"] == [day(5), day(5)]
    assert any("No number of epochs is chosen: of 1 training days 1 would validate" in line for line in lines)


def test_it_goes_by_the_metric_cutoff_and_seen_rule_of_promotion(shop: Manifest) -> None:
    names = set()
    for goal in (Goal(), Goal(metric="mrr@3"), Goal(metric="mrr@3", filter_seen=True)):
        model, _ = trained(shop, CONFIG, goal=goal)
        assert model.facts["choice"]["goal"] == goal.metric
        names.add((model.name, tuple(map(tuple, model.facts["choice"]["curve"]))))
    assert len({name for name, _ in names}) == 3
    assert len({curve for _, curve in names}) == 3, "filtering what was seen changes ranks"
    fixed = [trained(shop, TrainingConfig(epochs=1, threads=1), goal=Goal(metric=f"recall@{k}"))[0] for k in (3, 5)]
    assert fixed[0].name == fixed[1].name, "where nothing is chosen, the metric names nothing"


def test_histories_keep_their_rule(tmp_path: Path) -> None:
    histories = prepared_at(tmp_path / "shop", "leave_one_out")
    model, lines = trained(histories)
    assert "choice" not in model.facts and model.parameters["training"]["validation"] is None
    assert any("Not used: training.validation days" in line for line in lines)


def test_baselines_are_fit_on_what_the_model_was_and_choose_by_the_newest_day(shop: Manifest) -> None:
    model, _ = trained(shop)
    whole = folds(shop)[-1].read_whole(1, 100)
    assert len(whole.train) == 30 and len(whole.validation.target) == 6 and whole.validates == "nothing"
    config = EvaluationConfig(baselines=("item_knn",))
    evaluation = evaluate(Artifacts(shop.root), model, shop, config, lambda line: None)
    assert evaluation.facts["cases"] == 5 and not evaluation.facts["learned_from_test_day"]


def test_rates_of_a_run_that_stops_earlier_are_those_of_the_whole() -> None:
    for schedule in ("constant", "linear", "cosine"):
        config = TrainingConfig(epochs=10, schedule=schedule, warmup_steps=0.1)
        whole, part = Plan([7] * 10, config), Plan([7] * 4, config.model_copy(update={"epochs": 4}), 10)
        assert [part.rate(step) for step in range(28)] == [whole.rate(step) for step in range(28)]
        assert torch.tensor([whole.rate(step) for step in range(7)]).diff().min() >= 0
