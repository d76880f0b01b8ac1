"""A model folder alone recommends; another night's model is measured on the same cases."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch

from modeling.config import EvaluationConfig, ModelConfig, PromotionConfig, TrainingConfig
from modeling.data import split_sessions
from modeling.evaluation import evaluate
from modeling.promotion import champion_of, compare, promote
from modeling.recommend import Recommender
from modeling.training import train
from modeling.translation import translate
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import FIRST_ID, ITEM_ID, UNKNOWN
from schemas.dataset import read_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema

SETTINGS = ModelConfig(dim=16, num_layers=1)
TRAINING = TrainingConfig(epochs=1, tokens_per_step=256, threads=1)


def quiet(line: str) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifacts, list[Manifest], list[Manifest]]:
    """Two nights of one shop: sessions and models."""
    folder = tmp_path_factory.mktemp("nights")
    artifacts, prepared, models = Artifacts(folder / "root"), [], []
    for days in (4, 5):
        simulate(Shop(days=days, users=120, seed=2), folder / "shop")
        dataset = read_dataset("demo").at(folder / "shop")
        prepared.append(prepare(artifacts, dataset, progress=quiet))
        models.append(train(artifacts, prepared[-1], SETTINGS, TRAINING, quiet))
    return artifacts, prepared, models


def test_a_copied_folder_recommends(nights: tuple[Artifacts, list[Manifest], list[Manifest]], tmp_path: Path) -> None:
    _, _, models = nights
    shutil.copytree(models[0].folder, tmp_path / "elsewhere")
    recommender = Recommender(tmp_path / "elsewhere")
    known = recommender.items["value"][0]
    histories, unknown = recommender.histories([[known, "ghost"], [known]])
    assert unknown == ["ghost"]
    lists = recommender.recommend(histories, 5, filter_seen=True)
    assert [len(items) for items in lists] == [5, 5]
    assert all(known not in items and len(set(items)) == 5 for items in lists)
    assert set(lists[0]) <= set(recommender.items["value"])
    assert len(recommender.recommend(histories, 10**6)[0]) == recommender.schema.num_items
    with pytest.raises(InputError, match="at least one item"):
        recommender.recommend(recommender.histories([[]])[0])


def test_raw_histories_take_the_side_features_last_seen(
    nights: tuple[Artifacts, list[Manifest], list[Manifest]],
) -> None:
    recommender = Recommender(nights[2][0].folder)
    row = recommender.items.row(3, named=True)
    sessions, _ = recommender.histories([[row["value"], "ghost"]])
    assert sessions.items.tolist() == [row["id"], UNKNOWN]
    for column in recommender.schema.side_features:
        assert sessions.events[column.name][0] == pytest.approx(row[column.name])


def test_a_folder_that_is_no_model_is_refused(
    nights: tuple[Artifacts, list[Manifest], list[Manifest]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="not a model folder"):
        Recommender(tmp_path)
    shutil.copytree(nights[2][0].folder, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(InputError, match="not a model folder"):
        Recommender(tmp_path / "m")


def test_translation_goes_through_raw_values(nights: tuple[Artifacts, list[Manifest], list[Manifest]]) -> None:
    _, prepared, models = nights
    schemas = [FeatureSchema.read(sessions.folder / "schema.json") for sessions in prepared]
    cases = split_sessions(prepared[1], schemas[1], 100).test.known()
    there = translate(cases, prepared[1].folder, models[0].folder)
    back = translate(there, models[0].folder, prepared[1].folder)
    names = [pl.read_parquet(s.folder / "items.parquet").select("id", "value") for s in prepared]
    raw = [dict(zip(table["id"], table["value"], strict=True)) for table in names]
    for new, old in zip(cases.target.tolist(), there.target.tolist(), strict=True):
        assert raw[0].get(old) == (raw[1][new] if old >= FIRST_ID else None)
    known = there.history.items >= FIRST_ID
    assert 0.2 < known.float().mean() < 1, "some items are known to both nights"
    assert torch.equal(back.history.items[known], cases.history.items[known])
    price = schemas[1].column("price")
    assert not torch.equal(there.history.events["price"], cases.history.events["price"]), price
    torch.testing.assert_close(back.history.events["price"], cases.history.events["price"], atol=1e-5, rtol=1e-5)
    same = translate(cases, prepared[1].folder, prepared[1].folder)
    assert torch.equal(same.history.events[ITEM_ID], cases.history.events[ITEM_ID])


def test_the_second_night_is_compared_with_the_first(
    nights: tuple[Artifacts, list[Manifest], list[Manifest]],
) -> None:
    artifacts, prepared, models = nights
    config, promotion = EvaluationConfig(baselines=("popularity",)), PromotionConfig(min_gain=-0.999)
    lines: list[str] = []
    for night in (0, 1):
        measured = evaluate(artifacts, models[night], prepared[night], config, quiet)
        decision = compare(artifacts, "demo", measured, prepared[night], promotion, config, lines.append)
        champion = promote(artifacts, decision)
        assert champion and champion.model == models[night].name
    assert champion.previous == models[0].name
    assert "of the model in service" in lines[-1]
    again = compare(artifacts, "demo", measured, prepared[1], promotion, config, lines.append)
    assert again.name == decision.name
    assert "already in service" in lines[-1]


def test_a_past_night_cannot_unseat_a_model_that_learned_from_its_test_day(
    nights: tuple[Artifacts, list[Manifest], list[Manifest]],
) -> None:
    artifacts, prepared, models = nights
    config, promotion = EvaluationConfig(baselines=("popularity",)), PromotionConfig(min_gain=-0.999)
    for night, expected in ((1, 1), (0, 1)):
        measured = evaluate(artifacts, models[night], prepared[night], config, quiet)
        decision = compare(artifacts, "replayed", measured, prepared[night], promotion, config, quiet)
        champion = promote(artifacts, decision)
        assert champion and champion.model == models[expected].name
    assert "cannot be compared" in decision.facts["reason"]
    assert prepared[0].facts["test_day"] in decision.facts["reason"]


def test_without_popularity_the_reason_does_not_claim_it(
    nights: tuple[Artifacts, list[Manifest], list[Manifest]],
) -> None:
    artifacts, prepared, models = nights
    config = EvaluationConfig(baselines=())
    measured = evaluate(artifacts, models[0], prepared[0], config, quiet)
    decision = compare(artifacts, "bare", measured, prepared[0], PromotionConfig(), config, quiet)
    assert "popularity was not measured" in decision.facts["reason"]


def test_no_gain_no_promotion(nights: tuple[Artifacts, list[Manifest], list[Manifest]]) -> None:
    artifacts, prepared, models = nights
    config = EvaluationConfig(baselines=("popularity",))
    measured = evaluate(artifacts, models[0], prepared[0], config, quiet)
    never = PromotionConfig(min_gain=1e9)
    decision = compare(artifacts, "other", measured, prepared[0], never, config, quiet)
    assert decision.facts["promote"] is False
    assert promote(artifacts, decision) is None
    assert champion_of(artifacts, "other") is None


def test_a_pointer_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "champions").mkdir()
    (tmp_path / "champions" / "demo.json").write_text("{")
    with pytest.raises(InputError, match=r"demo\.json is not a champion pointer"):
        champion_of(Artifacts(tmp_path), "demo")
