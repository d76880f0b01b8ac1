"""A model folder alone recommends; another night's model is measured on the same cases."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch

from modeling.config import EvaluationConfig, ModelConfig, PromotionConfig, TrainingConfig
from modeling.evaluation.pointer import champion_of
from modeling.service.recommender import Recommender
from modeling.sessions import Sessions
from modeling.splits import Cases, split_sessions
from modeling.stages import compare, evaluate, promote, train
from modeling.vocabularies import translate
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import FIRST_ID, ITEM_ID, NULL, UNKNOWN
from schemas.dataset import read_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema
from tests.modeling.test_inputs import categorical, continuous, items_of, model_of
from tests.modeling.test_items import write_folder

SETTINGS = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}})
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
    trained = recommender.model.next_item.popularity_V > 0
    assert len(recommender.recommend(histories, 10**6, filter_seen=False)[0]) == int(trained.sum()) < len(trained)
    with pytest.raises(InputError, match=r"at least one item.*number 2 of 2 has none"):
        recommender.recommend(recommender.histories([[known], []])[0])


def test_raw_histories_do_for_sessions_and_tables_hold_what_lists_hold(tmp_path: Path) -> None:
    recommender = Recommender(write_folder(model_of(), tmp_path), "cpu")
    raw = [["40", "ghost"], ["320"]]
    lists = recommender.recommend(raw, 3)
    assert lists == recommender.recommend(recommender.histories(raw)[0], 3)
    events = pl.DataFrame(
        {"item_id": ["40", "320", "ghost"], "user_id": [7, 9, 7]}, schema_overrides={"user_id": pl.Int16}
    )
    table = recommender.recommend_table(events, 3)
    assert table.schema["user_id"] == pl.Int16 and table["rank"].to_list() == [1, 2, 3] * 2
    assert table["item"].to_list() == [item for best in recommender.recommend(events, 3) for item in best]
    assert table["user_id"].to_list() == [7, 7, 7, 9, 9, 9]
    assert table["score"].to_list() == sorted(table["score"][:3], reverse=True) + sorted(
        table["score"][3:], reverse=True
    )
    by_session = recommender.recommend_table(events.with_columns(session_id=pl.Series(["a", "b", "a"])), 1)
    assert by_session.columns == ["session_id", "rank", "item", "score"] and by_session["session_id"].to_list() == [
        "a",
        "b",
    ]
    assert recommender.recommend_table(events[:2].drop("user_id"), 2)["history"].to_list() == [0, 0]
    assert recommender.recommend_table(events[:0], 2).height == 0


def test_popular_items_are_those_with_most_training_events(
    nights: tuple[Artifacts, list[Manifest], list[Manifest]],
) -> None:
    _, prepared, models = nights
    recommender = Recommender(models[0].folder)
    schema = FeatureSchema.read(prepared[0].folder / "schema.json")
    counts = split_sessions(prepared[0], schema, TRAINING.validation_sessions).train.item_counts(schema.num_items)
    best = recommender.popular(5)
    ids = recommender.items.filter(pl.col("value").is_in(best))["id"].to_numpy() - FIRST_ID
    assert sorted(counts[ids].tolist(), reverse=True) == counts.topk(5).values.tolist() and len(set(best)) == 5
    everything = recommender.popular(10**6)
    assert everything[:5] == best and len(everything) == int((counts > 0).sum()) < schema.num_items
    with pytest.raises(InputError, match="k must be an integer"):
        recommender.popular(0)


def test_raw_histories_take_the_side_features_last_seen(
    nights: tuple[Artifacts, list[Manifest], list[Manifest]],
) -> None:
    recommender = Recommender(nights[2][0].folder)
    row = recommender.items.row(3, named=True)
    sessions, _ = recommender.histories([[row["value"], "ghost"]])
    assert sessions.items.tolist() == [row["id"], UNKNOWN]
    for column in recommender.schema.side_features:
        assert sessions.events[column.name][0] == pytest.approx(row[column.name])


def test_raw_histories_have_all_columns(tmp_path: Path) -> None:
    recommender = Recommender(write_folder(model_of(), tmp_path), "cpu")
    items = items_of()
    sessions, unknown = recommender.histories([["40", "ghost"], ["320"]])
    assert (unknown, sessions.items.tolist()) == (["ghost"], [4, UNKNOWN, 32])
    assert sessions.events["type"].tolist() == [items["type"][1], UNKNOWN, UNKNOWN], "the last was never seen"
    assert sessions.events["tags"].tolist() == [[7, 4], [0, 0], [5, 4]]
    assert sessions.events["size"].tolist() == [1.0, 0.0, 2.0]
    assert sessions.context["device"].tolist() == [NULL, NULL]
    assert sessions.context["budget"].tolist() == [0.0, 0.0]
    assert len(recommender.recommend(sessions, 5)) == 2


def test_context_of_many_values_is_empty(tmp_path: Path) -> None:
    interests = categorical("interests", per="session", many=True)
    recommender = Recommender(write_folder(model_of(side=(interests,)), tmp_path), "cpu")
    assert recommender.histories([["40"], ["50"]])[0].context["interests"].tolist() == [[0], [0]]


def test_a_tower_of_the_first_night_takes_up_the_items_of_the_second(
    nights: tuple[Artifacts, list[Manifest], list[Manifest]],
) -> None:
    artifacts, prepared, _ = nights
    settings = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}, "inputs": {"item_tower": "sum"}})
    manifest = train(artifacts, prepared[0], settings, TRAINING, quiet)
    recommender = Recommender(manifest.folder)
    source = Path(prepared[0].root).parent / "shop" / "items.parquet"
    table, known = pl.read_parquet(source), recommender.items
    added, ignored = recommender.add_items(table)
    assert (added, ignored) == (table.height - known.height, known.height) and added > 0
    assert recommender.items.height == table.height == recommender.schema.num_items
    fresh = table.join(known, left_on="item_id", right_on="value", how="anti")
    vocabulary = pl.read_parquet(manifest.folder / "vocabularies" / "brand.parquet")
    brand = dict(vocabulary.select("value", "id").rows())
    rows = recommender.items.tail(added)
    assert rows["value"].to_list() == fresh["item_id"].to_list()
    assert rows["brand"].to_list() == [brand.get(name, UNKNOWN) for name in fresh["brand"]]
    everything = recommender.recommend(recommender.histories([[fresh["item_id"][0]]])[0], 10**6)[0]
    assert sorted(everything) == sorted(table["item_id"])


def test_a_model_depends_on_the_content_of_its_pretrained_vectors(
    nights: tuple[Artifacts, list[Manifest], list[Manifest]], tmp_path: Path
) -> None:
    artifacts, prepared, _ = nights
    items = pl.read_parquet(prepared[0].folder / "items.parquet")["value"]

    def trained(file: str, value: float) -> Manifest:
        pl.DataFrame({"item_id": items, "vector": [[value, 1.0]] * len(items)}).write_parquet(tmp_path / file)
        inputs = {"pretrained": {"path": str(tmp_path / file)}}
        settings = ModelConfig.model_validate({"body": {"dim": 8, "num_layers": 1}, "inputs": inputs})
        return train(artifacts, prepared[0], settings, TRAINING, quiet)

    first, same, other = trained("a.parquet", 1.0), trained("b.parquet", 1.0), trained("a.parquet", 2.0)
    assert same.reused and same.name == first.name
    assert not other.reused and other.name != first.name
    (tmp_path / "a.parquet").unlink()
    recommender = Recommender(other.folder)
    vectors = recommender.model.inputs.items.pretrained.vectors_VP
    assert torch.allclose(vectors[FIRST_ID:], torch.tensor([2.0, 1.0]) / 5**0.5)
    assert len(recommender.recommend(recommender.histories([[items[0]]])[0], 5)[0]) == 5
    with pytest.raises(InputError, match=r"inputs\.pretrained\.path: .*a\.parquet cannot be read"):
        train(artifacts, prepared[0], recommender.model.settings, TRAINING, quiet)


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


def test_translation_of_context_and_of_many_values(tmp_path: Path) -> None:
    folders = []
    for name, order, mean in (("given", "abc", 1.0), ("wanted", "cxa", 3.0)):
        folder = tmp_path / name
        (folder / "vocabularies").mkdir(parents=True)
        columns = (
            categorical(ITEM_ID, 6),
            categorical("tags", 6, many=True),
            categorical("device", 6, per="session"),
            categorical("hour", 27, per="session", vocabulary=None),
            continuous("budget", per="session", mean=mean, std=2.0),
            continuous("sizes", many=True, mean=mean),
        )
        FeatureSchema(dataset="t", max_length=9, split="day", columns=columns).write(folder / "schema.json")
        for column in columns:
            if column.vocabulary:
                ids = pl.Series([3, 4, 5], dtype=pl.Int32)
                pl.DataFrame({"value": list(order), "id": ids}).write_parquet(folder / column.vocabulary)
        folders.append(folder)
    history = Sessions(
        events={
            ITEM_ID: torch.tensor([3, 5]),
            "tags": torch.tensor([[3, 4], [5, 0]]),
            "sizes": torch.tensor([[1.0, 0.0], [0.5, 2.0]]),
        },
        starts=torch.tensor([0]),
        lengths=torch.tensor([2]),
        end=torch.tensor([0]),
        context={"device": torch.tensor([5]), "hour": torch.tensor([9]), "budget": torch.tensor([0.5])},
    )
    found = translate(Cases(history, torch.tensor([4])), *folders)
    assert found.target.tolist() == [UNKNOWN] and found.history.items.tolist() == [5, 3]
    assert found.history.events["tags"].tolist() == [[5, UNKNOWN], [3, 0]]
    assert found.history.events["sizes"].tolist() == [[-1.0, 0.0], [-1.5, 0.0]], "a 0 is none; the last became one"
    assert {name: value.tolist() for name, value in found.history.context.items()} == {
        "device": [3], "hour": [9], "budget": [-0.5],
    }  # fmt: skip
    schema = FeatureSchema.read(folders[1] / "schema.json")
    changed = tuple(c.model_copy(update={"per": "event"}) if c.name == "device" else c for c in schema.columns)
    schema.model_copy(update={"columns": changed}).write(folders[1] / "schema.json")
    with pytest.raises(InputError, match="'device', which is made another way now"):
        translate(Cases(history, torch.tensor([4])), *folders)


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
    assert decision.facts["verdict"] == "promote" and decision.facts["users"] > 10 and not decision.facts["preflights"]
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


def test_without_baselines_the_reason_does_not_claim_any(
    nights: tuple[Artifacts, list[Manifest], list[Manifest]],
) -> None:
    artifacts, prepared, models = nights
    config = EvaluationConfig(baselines=())
    measured = evaluate(artifacts, models[0], prepared[0], config, quiet)
    decision = compare(artifacts, "bare", measured, prepared[0], PromotionConfig(), config, quiet)
    assert "no baseline was measured" in decision.facts["reason"]


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
