"""Models with several heads, from events to promotion: what is measured, what it is compared with, what is said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from modeling.config import EvaluationConfig, ModelConfig, PromotionConfig, TrainingConfig
from modeling.evaluation.metrics import auc, rmse
from modeling.evaluation.pointer import champion_of
from modeling.heads._label import find_label
from modeling.service.recommender import Recommender
from modeling.sessions import read_sessions
from modeling.splits import label_cases, split_sessions, training_labels
from modeling.stages import compare, evaluate, promote, train
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import read_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema

BOUGHT, DWELL = {"name": "binary"}, {"name": "regression"}
TRAINING = TrainingConfig(epochs=1, tokens_per_step=256, threads=1)
CONFIG = EvaluationConfig(baselines=("popularity", "markov"))


def quiet(line: str) -> None:
    """No progress."""


@dataclass(frozen=True)
class Nights:
    """Two nights of one shop: their sessions, and models of each by name."""

    artifacts: Artifacts
    shop: Path
    sessions: list[Manifest]
    models: list[dict[str, Manifest]]

    def measured(self, night: int, name: str) -> Manifest:
        return evaluate(self.artifacts, self.models[night][name], self.sessions[night], CONFIG, quiet)

    def decide(self, dataset: str, night: int, name: str, **promotion: Any) -> dict[str, Any]:
        """Compare and, if so decided, promote; returns the facts."""
        measured, sessions = self.measured(night, name), self.sessions[night]
        chosen = PromotionConfig(**promotion)
        decision = compare(self.artifacts, dataset, measured, sessions, chosen, CONFIG, quiet)
        promote(self.artifacts, decision)
        return decision.facts


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    folder = tmp_path_factory.mktemp("nights")
    made = Nights(Artifacts(folder / "root"), folder / "shop", [], [])
    heads = {
        "items": {"next_item": {}},
        "all": {"next_item": {}, "bought": BOUGHT, "dwell": DWELL},
        "labels": {"bought": BOUGHT, "dwell": DWELL},
    }
    for days in (4, 5):
        simulate(Shop(days=days, users=250, items=150, share_new=0.1, seed=2), made.shop)
        dataset = read_dataset("demo_purchase").at(made.shop)
        made.sessions.append(prepare(made.artifacts, dataset, progress=quiet))
        made.models.append({})
        for name, chosen in heads.items():
            config = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}, "heads": chosen})
            made.models[-1][name] = train(made.artifacts, made.sessions[-1], config, TRAINING, quiet)
    return made


def test_purchases_are_labels_and_never_inputs(nights: Nights) -> None:
    """Each session knows whether it held a purchase, though no event of it is one."""
    schema = FeatureSchema.read(nights.sessions[1].folder / "schema.json")
    sessions = read_sessions(nights.sessions[1].folder / "sessions", schema)
    actions = pl.read_parquet(nights.sessions[1].folder / "vocabularies" / "action.parquet")
    assert set(actions["value"]) == {"view", "cart"}
    assert int(sessions.events["action"].min()) >= 3, "no event is of a type that is not known"
    raw = pl.concat([pl.read_parquet(path) for path in sorted((nights.shop / "events").glob("*.parquet"))])
    assert {"view", "cart", "purchase"} == set(raw["event_type"].unique())
    bought = float(sessions.labels["bought"].sum())
    assert 0.8 * raw.filter(pl.col("event_type") == "purchase").height < bought, "purchases that are repeats count"
    assert 0.02 < bought / len(sessions) < 0.2
    dwell = sessions.event_labels["dwell"]
    last = sessions.starts + sessions.lengths - 1
    assert dwell[last].isnan().all() and int(dwell.isnan().sum()) == len(sessions)
    assert (dwell[~dwell.isnan()] > 0).all()


def test_all_heads_are_measured_beside_their_baselines(nights: Nights) -> None:
    measured = nights.measured(0, "all")
    metrics = measured.facts["metrics"]
    labels = ["bought/auc", "bought/log_loss", "bought/calibration_error", "dwell/rmse", "dwell/mae"]
    assert list(metrics) == ["sasrec", "popularity", "markov", "mean"]
    assert list(metrics["mean"]) == labels
    assert metrics["sasrec"].keys() == {*metrics["popularity"], *labels}
    assert metrics["mean"]["bought/auc"] == 0.5
    schema = FeatureSchema.read(nights.sessions[0].folder / "schema.json")
    split = split_sessions(nights.sessions[0], schema, TRAINING.validation_sessions)
    recommender = Recommender(nights.models[0]["all"].folder)
    for label, name, metric in (("bought", "bought/auc", auc), ("dwell", "dwell/rmse", rmse)):
        column = find_label(schema, label)
        histories, value_N = label_cases(split.test, column, back=True)
        about = measured.facts["labels"][label]
        mean = training_labels(split.train, column).mean()
        assert (about["cases"], about["training_mean"]) == (len(value_N), pytest.approx(float(mean)))
        assert metrics["sasrec"][name] == pytest.approx(metric(recommender.predict(histories)[label], value_N))
        assert metrics["mean"][name] == pytest.approx(metric(mean.expand(len(value_N)), value_N))
    assert json.loads((measured.folder / "result.json").read_text()) == measured.facts


def test_labels_are_measured_also_where_the_hidden_item_is_new(nights: Nights) -> None:
    facts = nights.measured(1, "all").facts
    assert facts["unknown_targets"] > 0
    assert facts["labels"]["bought"]["cases"] == facts["cases"] + facts["unknown_targets"]


def test_a_model_of_labels_alone_is_measured_but_does_not_rank(nights: Nights) -> None:
    measured = nights.measured(0, "labels")
    assert measured.facts["metrics"]["sasrec"].keys() == measured.facts["metrics"]["mean"].keys()
    assert json.loads((measured.folder / "examples.json").read_text()) == []
    recommender = Recommender(nights.models[0]["labels"].folder)
    histories, _ = recommender.histories([[recommender.items["value"][0]]])
    assert 0 < float(recommender.predict(histories)["bought"][0]) < 1
    with pytest.raises(InputError, match="not the next item"):
        recommender.recommend(histories)


def test_labels_of_raw_histories_are_predicted(nights: Nights) -> None:
    recommender = Recommender(nights.models[0]["all"].folder)
    items = recommender.items["value"].to_list()
    histories, _ = recommender.histories([items[:3], items[3:4]])
    predicted = recommender.predict(histories)
    assert {label: values.shape for label, values in predicted.items()} == {"bought": (2,), "dwell": (2,)}
    assert predicted["dwell"].min() > 0 and predicted["dwell"].max() < 1000, "seconds, not deviations"


def test_a_first_model_must_beat_the_mean_of_the_label(nights: Nights) -> None:
    facts = nights.decide("first", 0, "all", metric="bought/auc", min_gain=-0.999)
    assert facts["promote"] and facts["old"] == 0.5
    assert "against 0.5000 of mean (nothing is in service)" in facts["reason"]
    facts = nights.decide("first, lower", 0, "all", metric="dwell/rmse", min_gain=0.999)
    assert not facts["promote"] and facts["old"] == nights.measured(0, "all").facts["metrics"]["mean"]["dwell/rmse"]
    assert "lower is better, 99.9% asked for): not promoted" in facts["reason"]


@pytest.mark.parametrize("metric", ["bought/log_loss", "dwell/rmse", "dwell/mae", "bought/auc"])
def test_a_second_night_is_compared_in_the_right_direction(nights: Nights, metric: str) -> None:
    """Yesterday's model reads today's sessions in its own vocabulary and is asked for the same labels."""
    dataset = metric.replace("/", "-")
    nights.decide(dataset, 0, "all", metric=metric, min_gain=-0.999 if metric == "bought/auc" else -999)
    assert champion_of(nights.artifacts, dataset)
    old, new = (
        evaluate(
            nights.artifacts, nights.models[night]["all"], nights.sessions[1], EvaluationConfig(baselines=()), quiet
        ).facts["metrics"]["sasrec"][metric]
        for night in (0, 1)
    )
    facts = nights.decide(dataset, 1, "all", metric=metric)
    assert (facts["old"], facts["new"]) == (old, new)
    assert facts["promote"] == (new > old if metric == "bought/auc" else new < old)
    assert "of the model in service" in facts["reason"]
    assert ("lower is better" in facts["reason"]) == (metric != "bought/auc")


def test_a_model_in_service_that_does_not_predict_the_label_is_no_rival(nights: Nights) -> None:
    assert nights.decide("grows", 0, "items", min_gain=-0.999)["promote"]
    facts = nights.decide("grows", 1, "all", metric="bought/auc", min_gain=-0.999)
    assert facts["promote"] and "of mean (the model in service does not predict it)" in facts["reason"]
    nights.decide("shrinks", 0, "labels", metric="bought/auc", min_gain=-0.999)
    facts = nights.decide("shrinks", 1, "items")
    assert "of markov, the best baseline (the model in service does not predict it)" in facts["reason"]


def test_a_metric_that_was_not_computed_is_named(nights: Nights) -> None:
    with pytest.raises(InputError, match=r"Unknown promotion\.metric 'bought/auc'. Known: .*ndcg@20"):
        nights.decide("none", 0, "items", metric="bought/auc")


def test_a_label_with_another_meaning_does_not_stop_the_night(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model in service expects 0 and 1; today the label of that name is a number."""
    from modeling.heads.binary import Binary

    def refuse(head: Binary, value_N: torch.Tensor) -> None:
        raise InputError("a binary label is 0 or 1")

    lines: list[str] = []
    monkeypatch.setattr(Binary, "check", refuse)
    config = EvaluationConfig(baselines=(), cutoffs=(20,))
    found = evaluate(nights.artifacts, nights.models[0]["all"], nights.sessions[1], config, lines.append)
    assert "bought/auc" not in found.facts["metrics"]["sasrec"] and "dwell/rmse" in found.facts["metrics"]["sasrec"]
    assert any("the model in service cannot be measured on bought: a binary label" in line for line in lines)
    with pytest.raises(InputError, match="a binary label"):
        evaluate(nights.artifacts, nights.models[0]["all"], nights.sessions[0], config, quiet)


def test_a_metric_that_is_undefined_is_none_and_promotes_nothing(tmp_path: Path) -> None:
    """No session of the test day bought anything: nothing to tell apart."""
    simulate(Shop(days=4, users=60, items=100, seed=2), tmp_path / "shop")
    for path in sorted((tmp_path / "shop" / "events").glob("*.parquet"))[-1:]:
        events = pl.read_parquet(path)
        events.filter(pl.col("event_type") != "purchase").write_parquet(path)
    artifacts = Artifacts(tmp_path / "root")
    sessions = prepare(artifacts, read_dataset("demo_purchase").at(tmp_path / "shop"), progress=quiet)
    config = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}, "heads": {"bought": BOUGHT}})
    model = train(artifacts, sessions, config, TRAINING, quiet)
    lines: list[str] = []
    measured = evaluate(artifacts, model, sessions, CONFIG, lines.append)
    assert measured.facts["metrics"]["sasrec"]["bought/auc"] is None
    assert measured.facts["metrics"]["sasrec"]["bought/log_loss"] > 0
    json.loads((measured.folder / "result.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    promotion = PromotionConfig(metric="bought/auc", min_gain=-0.999)
    decision = compare(artifacts, "alike", measured, sessions, promotion, CONFIG, lines.append)
    assert not decision.facts["promote"]
    assert (
        decision.facts["reason"]
        == "bought/auc is undefined on these test sessions: not promoted, nothing is in service."
    )
