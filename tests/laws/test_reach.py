"""What a model reads in inference, training has reached: no parameter, or row of a table, is read that never had a gradient.

Histories are as long as sessions may be, and longer, with unknown items, items, categories and nulls that training never
saw, and times further apart than any in training.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeling import bodies, objectives, parts
from modeling.config import ModelConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.training.fit import fit
from modeling.training.schedule import make_schedule
from schemas import plugins
from schemas.columns import FIRST_ID, ITEM_ID, NULL, UNKNOWN
from schemas.features import FeatureColumn, FeatureSchema
from tests.conftest import random_sessions, split_of

NUM_ITEMS, NUM_KINDS, LONGEST = 20, 8, 9
UNSEEN_ITEM, UNSEEN_KIND = FIRST_ID + NUM_ITEMS - 1, FIRST_ID + NUM_KINDS - 1
PAIRS = [
    (body, objective)
    for body in plugins.names(bodies)
    for objective in plugins.names(objectives)
    if parts.goes_together(body, objective)
]


def schema_of(split: str) -> FeatureSchema:
    def category(name: str, cardinality: int = NUM_KINDS + FIRST_ID, **about: object) -> FeatureColumn:
        given = {"source": name, "kind": "categorical", "dtype": "int32", "cardinality": cardinality}
        return FeatureColumn(name=name, **(given | about))

    columns = (
        category(ITEM_ID, NUM_ITEMS + FIRST_ID, vocabulary="vocabularies/item_id.parquet"),
        category("kind", per_item=True),
        category("tags", many=True),
        category("device", per="session"),
        FeatureColumn(name="price", kind="continuous", source="price", dtype="float32"),
        FeatureColumn(name="elapsed", kind="continuous", source="timestamp", dtype="float32", transform=("elapsed",)),
    )
    return FeatureSchema(dataset="test", max_length=LONGEST, split=split, columns=columns)


def sessions_of(lengths: list[int], seed: int) -> Sessions:
    """Sessions of what training may see: all items and kinds but the last of each, no null."""
    generator = torch.Generator().manual_seed(seed)
    lengths_S, total = torch.tensor(lengths), sum(lengths)

    def ids(count: int, *shape: int) -> Tensor:
        return torch.randint(FIRST_ID, FIRST_ID + count - 1, shape, generator=generator, dtype=torch.int32)

    return Sessions(
        events={
            ITEM_ID: ids(NUM_ITEMS, total),
            "kind": ids(NUM_KINDS, total),
            "tags": ids(NUM_KINDS, total, 2),
            "price": torch.rand(total, generator=generator),
            "elapsed": 2.0 ** torch.randint(2, 6, (total,), generator=generator),
        },
        starts=lengths_S.cumsum(0) - lengths_S,
        lengths=lengths_S,
        end=torch.arange(len(lengths)),
        context={"device": ids(NUM_KINDS, len(lengths))},
    )


def strange(histories: Sessions) -> Sessions:
    """The same histories with what training did not see, here and there; the first hold nothing else."""
    events = {name: values.clone() for name, values in histories.events.items()}
    device = histories.context["device"].clone()
    for name, ids in (
        (ITEM_ID, (UNKNOWN, UNSEEN_ITEM)),
        ("kind", (NULL, UNKNOWN, UNSEEN_KIND)),
        ("tags", (NULL, UNSEEN_KIND)),
    ):
        for place, odd in enumerate(ids):
            events[name][2 * place :: 7] = odd
    events[ITEM_ID][:6], events["kind"][:6], device[:3] = UNKNOWN, NULL, NULL
    device[3:6] = UNSEEN_KIND
    events["elapsed"][4::9] = 1e6
    return replace(histories, events=events, context={"device": device})


def reached(model: SequenceModel, schema: FeatureSchema, train: Sessions) -> dict[str, Tensor]:
    """Which rows get a gradient in an epoch of training, by parameter."""
    model.reach(train)
    model.train()
    for batch in make_schedule(model, train, TrainingConfig(epochs=1, tokens_per_step=400)):
        model(batch).backward()
    rows = {name: rows_of(parameter.grad) for name, parameter in model.named_parameters()}
    model.zero_grad()
    return rows


def read(model: SequenceModel, histories: Sessions) -> dict[str, Tensor]:
    """Which rows the scores of items that training has seen depend on, by parameter."""
    model.eval()
    head = model.next_item
    items_VE = head.catalogue(model.inputs.items)[: NUM_ITEMS - 1]
    scores_SV = head.query(model.states(histories)) @ items_VE.T
    torch.manual_seed(0)
    (scores_SV * torch.randn_like(scores_SV)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    # What softmax takes away again, such as the bias of keys, has a gradient of rounding alone.
    least = 1e-6 * max(float(gradient.abs().max()) for gradient in gradients.values() if gradient is not None)
    return {name: rows_of(gradient, least) for name, gradient in gradients.items()}


def rows_of(gradient: Tensor | None, least: float = 0.0) -> Tensor:
    if gradient is None:
        return torch.zeros(1, dtype=torch.bool)
    beyond = gradient.to_dense().abs() > least
    return beyond.flatten(1).any(1) if gradient.dim() > 1 else beyond


def unreached(config: dict[str, object], split: str = "day") -> dict[str, list[int]]:
    """The rows that inference reads and training never reached, by parameter; none is right."""
    torch.manual_seed(1)
    body = {"dim": 16, "num_layers": 1, "dropout": 0.0} | dict(config.pop("body"))  # type: ignore[call-overload]
    schema = schema_of(split)
    model = SequenceModel(ModelConfig.model_validate({"body": body} | config), schema)
    count = 400 if model.objective.asks else 150  # what is hidden in an epoch does not count
    train = sessions_of([2 + n % (LONGEST - 1) for n in range(count)], seed=0)
    if split == "leave_one_out":
        train = train.drop_last(2)
        train = train.select(train.lengths >= 2)
    of_training = reached(model, schema, train)
    of_inference = read(model, strange(sessions_of([1 + n % (LONGEST + 4) for n in range(60)], seed=1)))
    missing = {name: (rows & ~of_training[name]).nonzero().flatten().tolist() for name, rows in of_inference.items()}
    return {name: rows for name, rows in missing.items() if rows}


@pytest.mark.parametrize(
    ("body", "objective", "positions"),
    [
        *((body, objective, positions) for body, objective in PAIRS for positions in ("end", "forward")),
        *(("sasrec", objective, "none") for objective in ("causal", "masked", "replaced_token")),
        *((body, "causal", "rotary") for body in plugins.names(bodies) if parts.body_class(body).rotary),
    ],
)
def test_every_body_and_objective(body: str, objective: str, positions: str) -> None:
    config = {"body": {"name": body}, "objective": objective, "inputs": {"positions": positions}}
    assert unreached(config) == {}


@pytest.mark.parametrize("positions", ["end", "forward"])
@pytest.mark.parametrize(("body", "objective"), [("sasrec", "causal"), ("bert4rec", "masked"), ("xlnet", "permuted")])
def test_leave_one_out(body: str, objective: str, positions: str) -> None:
    config = {"body": {"name": body}, "objective": objective, "inputs": {"positions": positions}}
    assert unreached(config, "leave_one_out") == {}


@pytest.mark.parametrize("split", ["day", "leave_one_out"])
@pytest.mark.parametrize(
    "config",
    [
        {"inputs": {"features": []}},
        {"inputs": {"aggregation": "concat"}},
        {"inputs": {"features": ["device", "tags"], "aggregation": "sum_times_item"}},
        {"inputs": {"features": ["kind", "tags"], "item_tower": "sum"}},
        {"inputs": {"item_tower": "concat", "item_dim": 6, "id_dropout": 0}},
        {"heads": {"next_item": {"table": "separate", "bias": True}}},
        {"loss": {"name": "sampled_softmax", "negatives": {"count": 4}}},
        {"loss": {"name": "bce", "negatives": {"count": 4, "source": "in_batch"}}, "inputs": {"features": []}},
    ],
)
@pytest.mark.parametrize(("body", "objective"), [("sasrec", "causal"), ("bert4rec", "masked"), ("hstu", "causal")])
def test_every_input(body: str, objective: str, config: dict[str, object], split: str) -> None:
    assert unreached({"body": {"name": body}, "objective": objective} | config, split) == {}


@pytest.mark.parametrize(("objective", "places"), [("causal", 6), ("masked", 7)])
def test_a_model_reads_as_many_places_as_its_training_did(objective: str, places: int, tmp_path: Path) -> None:
    """Fit on sessions of 7 events at most, where 9 are allowed; and so when it was saved and loaded."""
    config = ModelConfig.model_validate({"body": {"name": "bert4rec", "dim": 16}, "objective": objective})
    train = sessions_of([2, 3, 7, 5] * 10, seed=0)
    settings = TrainingConfig(epochs=1, tokens_per_step=64, evaluations=1, threads=1)
    model, _ = fit(schema_of("day"), split_of(train, train), config, settings, tmp_path / "run", lambda line: None)
    model.save(tmp_path)
    again = SequenceModel.load(tmp_path)
    widths = []
    again.body.register_forward_pre_hook(lambda body, given: widths.append(int(given[1].positions_BL.max()) + 1))
    with torch.no_grad():
        long = sessions_of([9, 20], seed=1)
        assert torch.equal(again.states(long), model.eval().states(long))
        asked = int(again.objective.asks)
        assert torch.equal(again.states(long), again.states(long.most_recent(places - asked)))
    assert model.longest == again.longest == places and set(widths) == {places}


def test_a_folder_that_does_not_say_reads_what_sessions_leave(tmp_path: Path) -> None:
    config = {"body": {"dim": 16}}
    model = SequenceModel(ModelConfig.model_validate(config), schema_of("leave_one_out"))
    model.save(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"longest"', '"more"'))
    assert SequenceModel.load(tmp_path).longest == LONGEST - 3  # two held out, and the last one read by nobody


def test_an_unknown_event_is_left_out_where_nothing_else_tells_of_it() -> None:
    """Histories that differ in unknown events alone have the same state, and that of what is left."""
    for features, same in (([], True), (["device"], True), (["kind"], False)):
        torch.manual_seed(1)
        config = ModelConfig.model_validate({"body": {"dim": 16}, "inputs": {"features": features}})
        model = SequenceModel(config, schema_of("day")).eval()
        model.reach(sessions_of([5] * 50, seed=0))
        histories = sessions_of([4, 4, 1], seed=1)
        histories.items[[1, 6]] = torch.tensor([UNKNOWN, UNSEEN_ITEM], dtype=torch.int32)
        histories.items[8] = UNKNOWN
        kept = torch.ones(9, dtype=torch.bool)
        kept[[1, 6]] = False
        with torch.no_grad():
            states, left = model.states(histories), model.states(histories.keep(kept, since="elapsed"))
        assert torch.equal(states[:2], left[:2]) is same
        assert torch.equal(states[2], left[2]), "a history of nothing else is read as it is"


def test_seconds_go_on_where_an_event_is_left_out() -> None:
    sessions = random_sessions(2, 10)
    sessions = replace(
        sessions,
        events={"item_id": torch.arange(5), "elapsed": torch.tensor([9.0, 1.0, 2.0, 9.0, 4.0])},
        starts=torch.tensor([0, 3]),
        lengths=torch.tensor([3, 2]),
    )
    kept = sessions.keep(torch.tensor([True, False, True, True, True]), since="elapsed")
    assert kept.items.tolist() == [0, 2, 3, 4] and kept.lengths.tolist() == [2, 2]
    assert kept.events["elapsed"].tolist()[1::2] == [3.0, 4.0]
    assert sessions.most_apart("elapsed") == 4.0 and kept.most_apart("elapsed") == 4.0
