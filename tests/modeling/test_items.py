"""Item vectors of ids, features and pretrained vectors; items that nobody clicked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from modeling.config import PretrainedConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.service.recommender import Recommender
from modeling.training.schedule import make_schedule
from schemas.columns import FIRST_ID, ITEM_ID, UNKNOWN
from schemas.errors import InputError
from schemas.features import FeatureColumn
from tests.modeling.test_inputs import (
    NUM_ITEMS,
    PRICE,
    SIDE,
    SIZE,
    TAGS,
    TYPE,
    config_of,
    continuous,
    items_of,
    model_of,
    schema_of,
    sessions_of,
)

OF_ITEMS = (TYPE, TAGS, SIZE)


def quiet(line: str) -> None:
    """No progress."""


def write_folder(model: SequenceModel, folder: Path) -> Path:
    """A model folder whose raw values are text made of the ids."""
    model.save(folder)
    items_of().with_columns(pl.col("value").cast(pl.String)).write_parquet(folder / "items.parquet")
    (folder / "vocabularies").mkdir()
    for name, cardinality in (("type", 8), ("tags", 9), ("device", 6)):
        ids = list(range(FIRST_ID, cardinality))
        values = [f"{name}{one}" for one in ids]
        table = pl.DataFrame({"value": values, "id": pl.Series(ids, dtype=pl.Int32)})
        table.write_parquet(folder / "vocabularies" / f"{name}.parquet")
    return folder


def newcomers(**columns: object) -> pl.DataFrame:
    given = {
        "item_id": ["new", "old"],
        "type": ["type4", None],
        "tags": [["tags5", "tags4"], None],
        "size": [3.0, None],
    }
    return pl.DataFrame(given | columns, strict=False)


def test_a_summed_vector_by_hand() -> None:
    items = model_of({"item_tower": "sum"}).inputs.items
    kind, tags, size = (feature.vector.value for feature in items.tower.features)
    expected = items.table_VE[8] + kind.weight[8 % 5 + 3] + (tags.weight[8 % 6 + 3] + tags.weight[4]) / 2
    expected = expected + size.weight[:, 0] * (8 % 3) + size.bias
    torch.testing.assert_close(items.of(torch.tensor([[8]]))[0, 0], expected)
    unseen = items.table_VE[32] + kind.weight[UNKNOWN] + (tags.weight[32 % 6 + 3] + tags.weight[4]) / 2
    torch.testing.assert_close(items.of(torch.tensor(32)), unseen + size.weight[:, 0] * (32 % 3) + size.bias)


def test_an_mlp_takes_id_and_features_and_begins_near_the_id() -> None:
    items = model_of({"item_tower": "concat"}).inputs.items
    ids = torch.arange(FIRST_ID, FIRST_ID + NUM_ITEMS)
    assert F.cosine_similarity(items.of(ids), items.table_VE[ids]).min() > 0.8
    parts = [feature(ids, None) for feature in items.tower.features]
    expected = items.table_VE[ids] + items.tower.mix(torch.cat([items.table_VE[ids], *parts], 1))
    torch.testing.assert_close(items.of(ids), expected)
    assert items.tower.mix[1].in_features == 8 + 4 + 4 + 8


@pytest.mark.parametrize("tower", ["none", "sum", "concat"])
def test_input_and_output_share_the_vectors(tower: str) -> None:
    model = model_of({"item_tower": tower})
    items = model.inputs.items
    every = torch.arange(NUM_ITEMS + FIRST_ID)
    torch.testing.assert_close(items.all(), items.of(every))
    assert torch.equal(model.next_item.catalogue(items), items.all()[FIRST_ID:])
    batch = make_schedule(model, sessions_of(), TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    model.inputs.side_names, model.inputs.side = [], torch.nn.ModuleList()
    item_BL = batch.features[ITEM_ID].long()
    there = item_BL >= FIRST_ID
    torch.testing.assert_close(model.inputs(batch)[there], items.all()[item_BL][there])


def test_features_of_items_come_from_the_item_and_others_from_the_event() -> None:
    model = model_of({"item_tower": "sum"})
    assert model.inputs.side_names == ["price", "device", "budget"]
    assert [column.name for column in model.inputs.items.columns] == ["type", "tags", "size"]
    batch = make_schedule(model, sessions_of(), TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    given = batch.features
    x_BLD, item = model.inputs(batch), given[ITEM_ID] >= FIRST_ID
    changed = model.inputs(replace(batch, features=given | {"type": given["type"] % 5 + 3}))
    assert torch.equal(changed[item], x_BLD[item])
    unknown = given[ITEM_ID] == UNKNOWN
    assert (changed[unknown] != x_BLD[unknown]).any(1).all(), "of an unknown item, the event tells what is known"
    wide = F.pad(given["tags"], (0, 3))
    assert torch.equal(model.inputs(replace(batch, features=given | {"tags": wide})), x_BLD)
    chosen = model_of({"item_tower": "sum", "features": ["tags", "price"]}).inputs
    assert ([column.name for column in chosen.items.columns], chosen.side_names) == (["tags"], ["price"])


def test_a_tower_needs_features_of_items_and_the_item_table() -> None:
    with pytest.raises(InputError, match="none of the features that are read belongs to items"):
        model_of({"item_tower": "sum"}, (PRICE,))
    model = SequenceModel(config_of({"item_tower": "sum"}), schema_of(*SIDE))
    with pytest.raises(InputError, match=r"need the item table"):
        model.inputs.items.set_items(None, quiet)


def test_values_beyond_the_vocabulary_are_unknown() -> None:
    model = SequenceModel(config_of({"item_tower": "sum"}), schema_of(*OF_ITEMS))
    model.inputs.items.set_items(items_of().with_columns(type=pl.lit(99, pl.Int32)), quiet)
    assert (model.inputs.items.tower.features[0].values_V[FIRST_ID:] == UNKNOWN).all()


def test_ids_are_dropped_at_their_rate_in_training_alone() -> None:
    torch.manual_seed(0)
    items = model_of({"item_tower": "sum", "id_dropout": 0.3}).inputs.items
    ids = torch.full((4000,), 9)
    assert torch.equal(items.of(ids), items.of(ids[:1]).expand(4000, -1))
    items.train()
    without = items.tower(items.table_VE[UNKNOWN], torch.tensor(9), None)
    dropped = torch.isclose(items.of(ids), without).all(1)
    assert abs(dropped.float().mean() - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5
    torch.testing.assert_close(items.of(ids)[~torch.isclose(items.of(ids), without).all(1)][0], items.eval().of(ids)[0])
    plain = model_of({"id_dropout": 0.3}).inputs.items.train()
    assert torch.equal(plain.of(ids), plain.table_VE[ids]), "an id alone is never dropped"


def test_with_an_id_dropout_of_one_items_are_their_features_alone(tmp_path: Path) -> None:
    model = model_of({"item_tower": "sum", "id_dropout": 1})
    items, ids = model.inputs.items, torch.arange(FIRST_ID, FIRST_ID + NUM_ITEMS)
    expected = items.tower(items.table_VE[UNKNOWN].expand(NUM_ITEMS, -1), ids, None)
    torch.testing.assert_close(items.of(ids), expected)
    items.train().of(ids).sum().backward()
    assert not items.table_VE.grad[FIRST_ID:].any() and items.table_VE.grad[UNKNOWN].any(), "nor are ids trained"
    recommender = Recommender(write_folder(model.eval(), tmp_path), "cpu")
    torch.testing.assert_close(recommender.scorer.items_VE, model.next_item.catalogue(items))
    with pytest.raises(ValidationError, match="id_dropout"):
        model_of({"item_tower": "sum", "id_dropout": 1.1})


@pytest.mark.parametrize("tower", ["sum", "concat"])
@pytest.mark.parametrize("pretrained", [None, "frozen", "trained"])
def test_a_saved_tower_needs_no_item_table(tower: str, pretrained: str | None, tmp_path: Path) -> None:
    inputs: dict[str, object] = {"item_tower": tower}
    if pretrained:
        write_vectors(tmp_path / "v.parquet")
        inputs["pretrained"] = {"path": str(tmp_path / "v.parquet"), "trained": pretrained == "trained"}
    model = model_of(inputs)
    (tmp_path / "m").mkdir()
    model.save(tmp_path / "m")
    (tmp_path / "v.parquet").unlink(missing_ok=True)
    loaded = SequenceModel.load(tmp_path / "m")
    assert torch.equal(loaded.inputs.items.all(), model.inputs.items.all())
    assert torch.equal(loaded.states(sessions_of()), model.states(sessions_of()))
    names = [dict(one.named_parameters()).keys() for one in (model, loaded)]
    assert names[0] == names[1] and ("inputs.items.pretrained.vectors_VP" in names[0]) == (pretrained == "trained")


def write_vectors(path: Path, width: int = 6, scale: float = 5.0) -> np.ndarray:
    """Vectors of all items but the first two; those of other items are ignored."""
    rows = np.random.default_rng(0).normal(size=(NUM_ITEMS, width)) * scale
    keys = [*items_of()["value"][2:].to_list(), 777, 778]
    pl.DataFrame({"item_id": keys, "vector": rows.tolist()}).write_parquet(path)
    return rows[:-2]


def config_for(path: Path, **about: object) -> PretrainedConfig:
    return PretrainedConfig.model_validate({"path": str(path)} | about)


@pytest.mark.parametrize("tower", ["sum", "concat"])
def test_new_items_are_scored_by_what_is_known_of_them(tower: str, tmp_path: Path) -> None:
    model = model_of({"item_tower": tower}, heads={"next_item": {"bias": True}})
    with torch.no_grad():
        model.next_item.bias_V.copy_(torch.randn(NUM_ITEMS))
    recommender = Recommender(write_folder(model, tmp_path), "cpu")
    histories, _ = recommender.histories([["30", "40"], ["50"]])
    before = recommender.scorer.tile(recommender.scorer.queries(histories), 0, NUM_ITEMS)
    table = newcomers(item_id=["new", "50"])
    assert recommender.add_items(table) == (1, 1)
    assert recommender.add_items(table) == (0, 2), "the same again adds nothing"
    scorer, items = recommender.scorer, recommender.model.inputs.items
    assert recommender.schema.num_items == scorer.num_items == NUM_ITEMS + 1
    after = scorer.tile(scorer.queries(histories), 0, NUM_ITEMS + 1)
    assert torch.equal(after[:, :NUM_ITEMS], before), "what was known is scored as before"
    kind, tags, size = items.tower.features
    number = torch.tensor((np.log1p(3.0) - 1.0) / 2.0).float()
    parts = [kind.vector(torch.tensor(4)), tags.vector(torch.tensor([5, 4])), size.vector(number)]
    unknown = items.table_VE[UNKNOWN]
    if tower == "sum":
        expected = sum(parts, unknown)
    else:
        expected = unknown + items.tower.mix(torch.cat([unknown, *parts]))
    torch.testing.assert_close(scorer.items_VE[NUM_ITEMS], expected)
    assert scorer.bias_V[NUM_ITEMS] == model.next_item.bias_V.median()
    with torch.no_grad():
        scorer.bias_V[NUM_ITEMS] = 1e6
    assert [row[0] for row in recommender.recommend(histories, 3)] == ["new", "new"]
    read, unknown_ids = recommender.histories([["30", "new"]])
    assert unknown_ids == [] and read.items.tolist() == [3, NUM_ITEMS + FIRST_ID]
    assert len(recommender.recommend(read, 100, filter_seen=True)[0]) == NUM_ITEMS - 1


def test_what_is_not_known_of_a_new_item_is_null_or_unknown(tmp_path: Path) -> None:
    recommender = Recommender(write_folder(model_of({"item_tower": "sum"}), tmp_path), "cpu")
    table = newcomers(
        item_id=["a", "b", "c", "a"],
        type=[None, "never seen", "type3", "type7"],
        tags=[None, ["never seen", "tags3", None], [None], ["tags8"]],
        size=[None, -3.0, 0.0, float("nan")],
    )
    assert recommender.add_items(table) == (3, 1)
    kind, tags, size = (feature.values_V[-3:] for feature in recommender.model.inputs.items.tower.features)
    assert kind.tolist() == [2, 3, 7], "of two rows of an item the last counts"
    assert tags.tolist() == [[2, 3, 1], [0, 0, 0], [8, 0, 0]]
    assert size.tolist() == [0.0, -0.5, 0.0]


def test_vectors_of_new_items_stand_beside_them(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v.parquet")
    model = model_of({"pretrained": {"path": str(tmp_path / "v.parquet")}}, ())
    recommender = Recommender(write_folder(model, tmp_path), "cpu")
    vector = [3.0, 0.0, 4.0, 0.0, 0.0, 0.0]
    table = pl.DataFrame({"item_id": ["x", "y"], "vector": [vector, None]})
    assert recommender.add_items(table) == (2, 0)
    assert recommender.add_items(pl.DataFrame({"item_id": ["z"]})) == (1, 0)
    items = recommender.model.inputs.items
    expected = items.table_VE[UNKNOWN] + items.pretrained.project.weight @ (torch.tensor(vector) / 5)
    torch.testing.assert_close(recommender.scorer.items_VE[NUM_ITEMS], expected)
    assert torch.equal(recommender.scorer.items_VE[NUM_ITEMS + 1 :], items.table_VE[UNKNOWN].expand(2, -1))
    with pytest.raises(InputError, match=r"new items: all vectors must be of width 6, got 2"):
        recommender.add_items(pl.DataFrame({"item_id": ["w"], "vector": [[1.0, 2.0]]}))


@pytest.mark.parametrize(
    ("inputs", "side", "head", "table", "told"),
    [
        ({}, OF_ITEMS, {}, newcomers(), "knows an item by its id alone"),
        ({"item_tower": "sum"}, OF_ITEMS, {"table": "separate"}, newcomers(), "table of its own"),
        ({"item_tower": "sum"}, OF_ITEMS, {}, newcomers().drop("tags"), "there is no tags among item_id, type, size"),
        (
            {"item_tower": "sum"},
            OF_ITEMS,
            {},
            newcomers(size=["x", "y"]),
            "'size' of new items takes numbers, but row 1 holds 'x'",
        ),
        (
            {"item_tower": "sum"},
            (continuous("size", per_item=True, transform=("quantile",)),),
            {},
            newcomers(),
            "made by quantile, and the model's older schema.json does not say with which options",
        ),
    ],
)
def test_new_items_that_cannot_be_scored_are_refused(
    inputs: dict[str, object],
    side: tuple[FeatureColumn, ...],
    head: dict[str, object],
    table: pl.DataFrame,
    told: str,
    tmp_path: Path,
) -> None:
    model = model_of(inputs, side, heads={"next_item": head})
    recommender = Recommender(write_folder(model, tmp_path), "cpu")
    with pytest.raises(InputError, match=told):
        recommender.add_items(table)
    assert recommender.scorer.num_items == NUM_ITEMS
