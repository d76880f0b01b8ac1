"""What of an event a model reads and how it becomes one vector, by hand on small tensors."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.attention import Layout
from modeling.batches import Batch
from modeling.config import ModelConfig, TrainingConfig
from modeling.features import Category, Feature, MeanNumber, SoftOneHot, default_width
from modeling.inputs import Inputs, swapped
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.training.schedule import make_schedule
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.errors import InputError
from schemas.features import FeatureColumn, FeatureSchema, LabelColumn

NUM_ITEMS, DIM = 30, 8


def categorical(name: str, cardinality: int = 8, **about: object) -> FeatureColumn:
    given = {"source": name, "vocabulary": f"vocabularies/{name}.parquet", "transform": ("category",)} | about
    return FeatureColumn(name=name, kind="categorical", dtype="int32", cardinality=cardinality, **given)


def continuous(name: str, **about: object) -> FeatureColumn:
    return FeatureColumn(name=name, kind="continuous", dtype="float32", **({"source": name} | about))


ITEM = categorical(ITEM_ID, NUM_ITEMS + FIRST_ID)
TYPE = categorical("type", per_item=True)
TAGS = categorical("tags", 9, per_item=True, many=True)
SIZE = continuous("size", per_item=True, transform=("log1p", "standardize"), mean=1.0, std=2.0)
PRICE = continuous("price")
DEVICE = categorical("device", 6, per="session")
BUDGET = continuous("budget", per="session")
ELAPSED = continuous("elapsed", source="timestamp", transform=("elapsed",))
SIDE = (TYPE, TAGS, SIZE, PRICE, DEVICE, BUDGET, ELAPSED)


def schema_of(*side: FeatureColumn, labels: tuple[LabelColumn, ...] = ()) -> FeatureSchema:
    return FeatureSchema(dataset="test", max_length=12, split="day", columns=(ITEM, *side), labels=labels)


def sessions_of(count: int = 20, seed: int = 0) -> Sessions:
    """Sessions with all the columns above; what belongs to items follows from them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (count,), generator=generator)
    total = int(lengths.sum())
    item = torch.randint(FIRST_ID, FIRST_ID + NUM_ITEMS, (total,), generator=generator)
    item[::7] = 2
    return Sessions(
        events={
            ITEM_ID: item.int(),
            "type": (item % 5 + FIRST_ID).int(),
            "tags": torch.stack([item % 6 + FIRST_ID, torch.where(item % 2 == 0, 4, 0)], 1).int(),
            "size": (item % 3).float(),
            "price": torch.rand(total, generator=generator),
            "elapsed": torch.rand(total, generator=generator) * 60,
        },
        starts=lengths.cumsum(0) - lengths,
        lengths=lengths,
        end=torch.arange(count),
        context={"device": torch.arange(count).int() % 3 + FIRST_ID, "budget": torch.rand(count, generator=generator)},
    )


def items_of() -> pl.DataFrame:
    """The item table; one item has never been seen."""
    item = np.arange(FIRST_ID, FIRST_ID + NUM_ITEMS)
    return pl.DataFrame(
        {
            "id": item,
            "value": item * 10,
            "count": item * 0 + 2,
            "type": pl.Series(item % 5 + FIRST_ID, dtype=pl.Int32),
            "tags": [[i % 6 + FIRST_ID, 4] if i % 2 == 0 else [i % 6 + FIRST_ID] for i in item.tolist()],
            "size": pl.Series(item % 3, dtype=pl.Float32),
            "price": pl.Series(item % 3, dtype=pl.Float32),
            "elapsed": pl.Series(item * 0, dtype=pl.Float32),
        }
    ).with_columns(pl.when(pl.col("id") != 32).then(pl.col("type")))


def config_of(inputs: dict[str, object] | None = None, **groups: object) -> ModelConfig:
    body = {"dim": DIM, "num_layers": 1, "dropout": 0.0}
    return ModelConfig.model_validate({"body": body, "inputs": {"positions": "none"} | (inputs or {})} | groups)


def model_of(
    inputs: dict[str, object] | None = None, side: tuple[FeatureColumn, ...] = SIDE, **groups: object
) -> SequenceModel:
    torch.manual_seed(3)
    model = SequenceModel(config_of(inputs, **groups), schema_of(*side))
    model.inputs.items.set_items(items_of(), lambda line: None)
    return model.eval()


def inputs_of(inputs: dict[str, object], *side: FeatureColumn) -> Inputs:
    return model_of(inputs, side).inputs


def batch_of(**columns: Tensor) -> Batch:
    shape = next(iter(columns.values())).shape[:2]
    places = torch.arange(shape[1]).expand(shape)
    ones, none = torch.ones(shape, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    layout = Layout(ones, places, from_end_BL=shape[1] - 1 - places)
    masked_BL = torch.zeros(shape, dtype=torch.bool)
    return Batch(layout, columns, masked_BL, none, none, none.float(), none.bool(), {})


ITEMS_12, PRICES_12, TYPES_12 = torch.tensor([[5, 9]]), torch.tensor([[0.5, -2.0]]), torch.tensor([[4, 7]])


def test_sum_by_hand() -> None:
    inputs = inputs_of({}, TYPE, PRICE)
    x_BLD = inputs(batch_of(item_id=ITEMS_12, type=TYPES_12, price=PRICES_12))
    embed, line = inputs.side[0].value, inputs.side[1].value
    for place in (0, 1):
        expected = inputs.items.table_VE[ITEMS_12[0, place]] + embed.weight[TYPES_12[0, place]]
        expected = expected + line.weight[:, 0] * PRICES_12[0, place] + line.bias
        torch.testing.assert_close(x_BLD[0, place], expected)


def test_concat_begins_as_the_item_alone_and_projects() -> None:
    inputs = inputs_of({"aggregation": "concat"}, TYPE, PRICE)
    widths = [feature.width for feature in inputs.side]
    assert widths == [4, 8]  # 2 * 8^(1/4) = 3.4
    weight = inputs.project.weight
    assert weight.shape == (DIM, DIM + 12) and torch.equal(weight[:, :DIM], torch.eye(DIM))
    assert 0 < weight[:, DIM:].abs().max() < 0.1
    with torch.no_grad():
        weight.normal_()
    x_BLD = inputs(batch_of(item_id=ITEMS_12, type=TYPES_12, price=PRICES_12))
    embed, line = inputs.side[0].value, inputs.side[1].value
    parts = [inputs.items.table_VE[9], embed.weight[7], line.weight[:, 0] * -2.0 + line.bias]
    torch.testing.assert_close(x_BLD[0, 1], weight @ torch.cat(parts))


def test_sum_times_item_by_hand_begins_near_the_item() -> None:
    inputs = inputs_of({"aggregation": "sum_times_item"}, TYPE, DEVICE)
    batch = batch_of(item_id=ITEMS_12, type=TYPES_12, device=TYPES_12 - 3)
    item = inputs.items.table_VE[9]
    assert F.cosine_similarity(inputs(batch)[0, 1], item, dim=0) > 0.99
    with torch.no_grad():
        inputs.scale_D.normal_()
    side = inputs.side[0].value.weight[7] + inputs.side[1].value.weight[4]
    torch.testing.assert_close(inputs(batch)[0, 1], item * (inputs.scale_D + side))


@pytest.mark.parametrize("aggregation", ["sum", "concat", "sum_times_item"])
def test_item_vectors_of_another_width_are_projected(aggregation: str) -> None:
    model = model_of({"aggregation": aggregation, "item_dim": 5}, (TYPE, DEVICE, PRICE))
    assert model.inputs.items.all().shape == (NUM_ITEMS + FIRST_ID, 5)
    assert model.next_item.query(torch.randn(2, DIM)).shape == (2, 5)
    assert model.states(sessions_of()).shape == (20, DIM)
    alone = model_of({"aggregation": aggregation, "item_dim": 5}, ()).inputs
    torch.testing.assert_close(
        alone(batch_of(item_id=ITEMS_12))[0, 0], alone.project.weight @ alone.items.table_VE[5], atol=1e-6, rtol=0
    )


def test_widths_by_rule_and_as_given() -> None:
    assert [default_width(column) for column in (categorical("x", 1000), categorical("x", 16), PRICE)] == [12, 4, 8]
    assert inputs_of({"aggregation": "concat", "dims": {"type": 6}}, TYPE).side[0].width == 6
    narrow = inputs_of({"dims": {"type": 3}}, TYPE).side[0]
    assert narrow.value.weight.shape == (8, 3) and narrow(TYPES_12).shape == (1, 2, DIM)
    torch.testing.assert_close(narrow(TYPES_12)[0, 1], narrow.project.weight @ narrow.value.weight[7])


def test_a_bag_is_the_mean_of_what_is_there_and_zero_when_empty() -> None:
    bag = Category(9, 4, many=True)
    found = bag(torch.tensor([[[3, 5, 0], [0, 0, 0]], [[7, 0, 0], [3, 3, 6]]], dtype=torch.int32))
    weight = bag.weight
    expected = [(weight[3] + weight[5]) / 2, torch.zeros(4), weight[7], (2 * weight[3] + weight[6]) / 3]
    torch.testing.assert_close(found.flatten(0, 1), torch.stack(expected))


def test_many_numbers_are_averaged() -> None:
    found = MeanNumber()(torch.tensor([[[1.0, 3.0, 0.0], [0.0, 0.0, 0.0]]]))
    assert found.tolist() == [[2.0, 0.0]]
    feature = Feature(continuous("sizes", many=True), config_of().inputs, 4)
    one = Feature(continuous("size"), config_of().inputs, 4)
    one.value.load_state_dict(feature.value[1].state_dict())
    torch.testing.assert_close(feature(torch.tensor([[1.0, 3.0, 0.0]])), one(torch.tensor([2.0])))


def test_soft_one_hot_by_its_formula() -> None:
    soft = SoftOneHot(10, 8)
    number, weight, bias = 0.7, soft.weigh.weight[:, 0], soft.weigh.bias
    share = (weight * number + bias).exp()
    expected = (share / share.sum()) @ soft.table_KD
    torch.testing.assert_close(soft(torch.tensor([[number]]))[0, 0], expected)
    chosen = inputs_of({"continuous": "soft_one_hot", "soft_vectors": 4, "aggregation": "concat"}, PRICE).side[0]
    assert isinstance(chosen.value, SoftOneHot) and chosen.value.table_KD.shape == (4, 8)


def test_feature_norm_scales_each_feature_and_the_item() -> None:
    inputs = inputs_of({"feature_norm": True}, TYPE)
    x_BLD = inputs(batch_of(item_id=ITEMS_12, type=TYPES_12))
    item = F.layer_norm(inputs.items.table_VE[5], (DIM,))
    torch.testing.assert_close(x_BLD[0, 0], item + F.layer_norm(inputs.side[0].value.weight[4], (DIM,)))
    with pytest.raises(ValueError, match="leaves nothing of it"):
        config_of({"feature_norm": True, "dims": {"type": 1}})


def test_context_joins_at_every_place() -> None:
    model, sessions = model_of({}, SIDE), sessions_of()
    before = model.states(sessions)
    for name in ("device", "budget"):
        value = sessions.context[name].clone()
        sessions.context[name][0] += 1
        changed = model.states(sessions)
        assert not torch.allclose(before[0], changed[0], atol=1e-4), name
        torch.testing.assert_close(before[1:], changed[1:])
        sessions.context[name][:] = value


def test_features_are_chosen_by_name() -> None:
    assert inputs_of({}, *SIDE).side_names == ["type", "tags", "size", "price", "device", "budget"]
    assert inputs_of({"features": []}, *SIDE).side_names == []
    assert inputs_of({"features": ["price", "type"]}, *SIDE).side_names == ["type", "price"]
    with pytest.raises(InputError, match=r"inputs\.features 'pice'\. Did you mean 'price'\? Known: .*device"):
        inputs_of({"features": ["pice"]}, *SIDE)
    with pytest.raises(InputError, match=r"inputs\.dims 'typ'"):
        inputs_of({"dims": {"typ": 3}}, *SIDE)


def test_the_time_is_not_a_side_feature_unless_named() -> None:
    later = continuous("waited", transform=("elapsed", "log1p"))
    assert inputs_of({}, later, ELAPSED).time == "elapsed"
    assert inputs_of({}, later, ELAPSED).side_names == ["waited"]
    assert inputs_of({"features": ["elapsed"]}, later, ELAPSED).side_names == ["elapsed"]
    given = inputs_of({"time": "waited"}, later, ELAPSED)
    assert given.time == "waited" and given.side_names == ["elapsed"]
    assert inputs_of({}, PRICE).time is None
    for wrong in ("type", "budget", "nothing"):
        with pytest.raises(InputError, match=rf"inputs\.time '{wrong}'.*Known: elapsed, price"):
            inputs_of({"time": wrong}, ELAPSED, PRICE, TYPE, BUDGET)


def test_seconds_count_from_each_session_start() -> None:
    inputs = inputs_of({}, ELAPSED)
    batch = batch_of(elapsed=torch.tensor([[5.0, 10.0, 3.0, 7.0]]))
    batch = replace(batch, layout=replace(batch.layout, positions_BL=torch.tensor([[0, 1, 0, 1]])))
    assert inputs.seconds(batch).tolist() == [[0.0, 10.0, 0.0, 7.0]]


@pytest.mark.parametrize(("source", "refused"), [("bought", "flag"), ("age", "")])
def test_a_feature_made_from_a_label_is_refused(source: str, refused: str) -> None:
    label = LabelColumn(name="bought", per="session", source="bought")
    flag = continuous("flag", source=source)
    schema = schema_of(PRICE, flag, labels=(label,))
    heads = {"next_item": {}, "bought": {"name": "binary"}}
    if refused:
        with pytest.raises(InputError, match=r"Feature 'flag' is made from the column 'bought'.* label 'bought'"):
            Inputs(config_of(heads=heads), schema)
    for config in (config_of({"features": ["price"]}, heads=heads), config_of()):
        Inputs(config, schema)  # not read, or not predicted
    if not refused:
        Inputs(config_of(heads=heads), schema)


def test_swap_noise_swaps_that_share_and_only_events() -> None:
    torch.manual_seed(0)
    values = torch.arange(4000).reshape(4, 1000)
    there = torch.rand(4, 1000) < 0.7
    noisy = swapped(values, there, 0.2)
    changed = noisy != values
    count = int(there.sum())
    assert abs(int(changed.sum()) / count - 0.2) < 4 * (0.2 * 0.8 / count) ** 0.5
    assert not changed[~there].any()
    assert set(noisy[there].tolist()) <= set(values[there].tolist())
    assert torch.equal(values, torch.arange(4000).reshape(4, 1000))
    bags = torch.arange(60).reshape(1, 10, 6)
    noisy = swapped(bags, torch.ones(1, 10, dtype=torch.bool), 0.9)
    assert all(row in bags[0].tolist() for row in noisy[0].tolist()), "an event's values stay together"
    alone = torch.tensor([[7, 0]])
    assert torch.equal(swapped(alone, alone > 0, 0.9), alone), "there is no other"


def test_swap_noise_is_of_training_alone_and_of_each_feature_by_itself() -> None:
    model = model_of({"swap_noise": 0.5}, (TYPE, PRICE), objective="masked")
    batch = make_schedule(model, sessions_of(41), TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    there = batch.layout.inside_BL & ~batch.masked_BL
    assert batch.masked_BL.any() and not batch.layout.inside_BL.all()
    assert torch.equal(model.inputs(batch), model.inputs(batch))
    model.inputs.train()
    seen: dict[str, Tensor] = {}
    original = model.inputs.items.of
    model.inputs.items.of = lambda ids, event: seen.update(event) or original(ids, event)  # type: ignore[method-assign]
    torch.manual_seed(1)
    noisy = model.inputs(batch)
    assert (seen[ITEM_ID][there] > 0).all(), "what is swapped in is never padding, never hidden"
    for name in (ITEM_ID, "price"):
        changed = seen[name] != batch.features[name]
        assert 0.3 < changed[there].float().mean() < 0.7 and not changed[~there].any(), name
    assert ((seen[ITEM_ID] != batch.features[ITEM_ID]) != (seen["price"] != batch.features["price"])).any()
    torch.manual_seed(1)
    assert torch.equal(noisy, model.inputs(batch)), "the global generator decides"


def test_masked_places_are_hidden() -> None:
    for aggregation in ("sum", "concat", "sum_times_item"):
        model = model_of({"aggregation": aggregation, "item_tower": "sum"}, objective="masked")
        batch = make_schedule(model, sessions_of(), TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
        assert batch.masked_BL.any()
        x_BLD = model.inputs(batch)
        assert (x_BLD[batch.masked_BL] == model.inputs.mask_D).all()
        for name in (ITEM_ID, "price", "device", "tags"):
            other = batch.features[name].clone()
            other[batch.masked_BL] = 4
            assert torch.equal(x_BLD, model.inputs(replace(batch, features=batch.features | {name: other}))), name


GRID = list(
    itertools.product(
        ("sum", "concat", "sum_times_item"),
        ("linear", "soft_one_hot"),
        ("none", "sum", "concat"),
        (False, True),
        ({}, {"trained": False}, {"trained": True}, {"replaces_id": True}),
    )
)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of all items but two."""
    file = tmp_path_factory.mktemp("vectors") / "vectors.parquet"
    rows = np.random.default_rng(0).normal(size=(NUM_ITEMS - 2, 6))
    pl.DataFrame({"item_id": items_of()["value"][2:], "vector": rows.tolist()}).write_parquet(file)
    return file


@pytest.mark.parametrize(("aggregation", "numbers", "tower", "norm", "pretrained"), GRID)
def test_every_parameter_gets_a_gradient(
    aggregation: str, numbers: str, tower: str, norm: bool, pretrained: dict[str, object], vectors: Path
) -> None:
    inputs: dict[str, object] = {
        "aggregation": aggregation, "continuous": numbers, "item_tower": tower, "feature_norm": norm, "positions": "end",
        "pretrained": {"path": str(vectors)} | pretrained if pretrained else None, "swap_noise": 0.1, "dims": {"size": 3},
    }  # fmt: skip
    model = model_of(inputs).train()
    batch = make_schedule(model, sessions_of(), TrainingConfig(epochs=1, tokens_per_step=10_000))[0]
    model(batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
