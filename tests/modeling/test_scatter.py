"""The scatter between seeds: what it is made of, when it is measured, and what it does to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from modeling.config import EvaluationConfig, ModelConfig, PromotionConfig, TrainingConfig
from modeling.evaluation.pointer import pointer_of, put_in_service
from modeling.stages import compare, evaluate, train
from modeling.stages.scatter import SCATTERS, Recipe, pooled, variance_of, with_scatter
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import read_dataset

METRIC = "ndcg@20"
EVERY_OTHER = PromotionConfig(seed_scatter_every=2)
DAYS = ("2026-03-04", "2026-03-05", "2026-03-06")


def quiet(line: object) -> None:
    """No progress."""


def ranks_of(rng: np.random.Generator, shared_N: np.ndarray, noise: float, moved: float) -> pl.DataFrame:
    """Ranks of one training: what all have in common, what falls on each case by chance, and what is the training's own."""
    rank_N = np.exp(shared_N + rng.normal(size=len(shared_N)) * noise - moved)
    case_N = np.arange(len(shared_N))
    return pl.DataFrame({"case": case_N, "user": case_N // 2, "rank": np.maximum(rank_N.round(), 1.0)})


def mean_variance(noise: float, scatter: float, draws: int = 24) -> float:
    rng, found = np.random.default_rng(4), []
    for _ in range(draws):
        shared_N = rng.normal(size=600) + 2.5
        found.append(variance_of([ranks_of(rng, shared_N, noise, rng.normal() * scatter) for _ in range(3)], METRIC))
    return float(np.mean(found))


def test_what_falls_on_cases_by_chance_is_no_scatter() -> None:
    assert abs(mean_variance(noise=0.5, scatter=0.0)) < 0.015**2
    small, large = mean_variance(noise=0.5, scatter=0.1), mean_variance(noise=0.0, scatter=0.1)
    assert small > 0.02**2
    assert small == pytest.approx(large, rel=0.5)


def test_measurements_are_pooled_before_the_root_is_taken() -> None:
    assert pooled([{"variance": 0.0003, "seeds": 3}, {"variance": -0.0001, "seeds": 3}]) == pytest.approx(0.01)
    assert pooled([{"variance": 0.0004, "seeds": 2}, {"variance": 0.0001, "seeds": 4}]) == pytest.approx(0.000175**0.5)
    assert pooled([{"variance": -0.0004, "seeds": 3}]) == 0.0
    old = [{"variance": 1.0, "seeds": 3}]
    assert pooled(old + [{"variance": 0.0001, "seeds": 3}] * 8) == pytest.approx(0.01), "of many, the newest"


@dataclass(frozen=True)
class Nights:
    """A shop's sessions up to each of three days, a model of each night and its evaluation."""

    artifacts: Artifacts
    sessions: tuple[Manifest, ...]
    models: tuple[Manifest, ...]
    evaluations: tuple[Manifest, ...]
    recipe: Recipe

    def scatter(self, night: int, promotion: PromotionConfig = EVERY_OTHER) -> tuple[PromotionConfig, list[str]]:
        lines: list[str] = []
        recipe = replace(self.recipe, promotion=promotion)
        say: Callable[[object], None] = lambda line: lines.append(str(line))  # noqa: E731
        about = self.artifacts, "demo", self.sessions[night], self.evaluations[night], recipe
        return with_scatter(*about, say), lines

    def measured(self) -> list[dict[str, Any]]:
        names = [path.name for path in (self.artifacts.root / SCATTERS).glob("*")]
        found = [self.artifacts.get(f"{SCATTERS}/{name}").facts for name in names]
        return sorted(found, key=lambda facts: str(facts["day"]))


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    folder: Path = tmp_path_factory.mktemp("scatter")
    simulate(Shop(days=5, users=150, items=120, seed=5), folder)
    artifacts, dataset = Artifacts(folder / "root"), read_dataset("demo").at(folder)
    sessions = tuple(prepare(artifacts, dataset, until=date.fromisoformat(day), progress=quiet) for day in DAYS)
    model = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}})
    training = TrainingConfig(epochs=1, tokens_per_step=64, learning_rate=3e-3, threads=1)
    judged = EvaluationConfig(baselines=(), lists=0)
    models = tuple(train(artifacts, night, model, training, quiet) for night in sessions)
    made = tuple(evaluate(artifacts, of, night, judged, quiet) for of, night in zip(models, sessions, strict=True))
    return Nights(artifacts, sessions, models, made, Recipe(model, training, judged, EVERY_OTHER))


@pytest.fixture
def in_service(nights: Nights) -> Iterator[None]:
    put_in_service(nights.artifacts, "demo", nights.models[0].name, by="promote")
    yield
    pointer_of(nights.artifacts, "demo").unlink()


def test_nothing_is_trained_where_nothing_would_use_it(nights: Nights) -> None:
    assert nights.scatter(0)[0].seed_scatter == 0.0, "nothing is in service"
    put_in_service(nights.artifacts, "demo", nights.models[0].name, by="promote")
    try:
        assert nights.scatter(0, PromotionConfig()) == (PromotionConfig(), [])
        given, lines = nights.scatter(0, PromotionConfig(seed_scatter=0.02, seed_scatter_every=7))
        assert given.seed_scatter == 0.02 and "promotion.seed_scatter 0.02 is given" in lines[0]
        labels = PromotionConfig(metric="bought/auc", seed_scatter_every=7)
        assert nights.scatter(0, labels)[0] == labels and "is compared as it is" in nights.scatter(0, labels)[1][0]
    finally:
        pointer_of(nights.artifacts, "demo").unlink()
    assert nights.measured() == []


def test_it_is_measured_when_it_is_due_and_used_until_then(nights: Nights, in_service: None) -> None:
    first, lines = nights.scatter(0)
    assert any("2 more trainings, of seeds 18, 19" in line for line in lines)
    (measured,) = nights.measured()
    assert measured["day"] == DAYS[0] and measured["seeds"] == len(set(measured["values"])) == 3
    assert first.seed_scatter == pooled([measured])
    second, lines = nights.scatter(1)
    assert len(nights.measured()) == 1 and f"measured on {DAYS[0]}." in lines[-1]
    assert second.seed_scatter == first.seed_scatter
    third, lines = nights.scatter(2)
    assert [facts["day"] for facts in nights.measured()] == [DAYS[0], DAYS[2]]
    assert third.seed_scatter == pooled(nights.measured())
    assert nights.scatter(2)[0] == third and len(nights.measured()) == 2, "a night that is run again measures nothing"
    assert nights.scatter(1)[0] == second, "a past night uses what was measured by then"
    other = PromotionConfig(metric="recall@10", seed_scatter_every=2)
    assert nights.scatter(2, other)[1] and len(nights.measured()) == 3, "another metric has a scatter of its own"


def test_it_widens_the_bounds_of_a_verdict_and_is_named_in_it(nights: Nights, in_service: None) -> None:
    def verdict(scatter: float) -> dict[str, Any]:
        promotion = PromotionConfig(seed_scatter=scatter)
        about = nights.evaluations[2], nights.sessions[2], promotion, nights.recipe.evaluation
        return compare(nights.artifacts, "demo", *about, quiet).facts

    without, wide = verdict(0.0), verdict(0.1)
    assert wide["interval"][0] < without["interval"][0] < without["interval"][1] < wide["interval"][1]
    assert wide["seed_scatter"] == 0.1 and without["seed_scatter"] == 0.0
    assert "users and a scatter of 10.0% between seeds" in wide["reason"]
    assert "between seeds" not in without["reason"]
