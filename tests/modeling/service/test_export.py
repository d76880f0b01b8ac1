"""An exported program gives what the model gives: under onnxruntime, and as a package of torch."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch
from torch import Tensor

from modeling.bodies import Body
from modeling.config import ModelConfig
from modeling.model import SequenceModel
from modeling.scoring import predict, states
from modeling.service.dense import ASKED_AFTER, Dense
from modeling.service.export import ABOUT, Export, export
from modeling.service.recommender import Recommender
from modeling.service.retrieval import ITEM, VECTOR, item_vectors, query_vectors
from modeling.sessions import Sessions
from schemas.errors import InputError
from schemas.features import LabelColumn
from tests.modeling.test_inputs import DEVICE, ELAPSED, PRICE, SIZE, TAGS, TYPE, schema_of, sessions_of
from tests.modeling.test_items import write_folder
from tests.slow import pared

ASKED = "an empty place is asked"
LABEL = LabelColumn(name="bought", source="bought", per="event")
SIDE = (TYPE, TAGS, SIZE, PRICE, DEVICE, ELAPSED)


def model_of(body: str, *side: object, reached: bool = False, **groups: object) -> SequenceModel:
    """A small model with large weights, so that everything that is read shows; with `reached`, as if it had been trained."""
    torch.manual_seed(3)
    config = ModelConfig.model_validate({"body": {"name": body, "dim": 16, "num_heads": 2}} | groups)
    model = SequenceModel(config, schema_of(*side, labels=(LABEL,)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.requires_grad:
                parameter.normal_(std=0.3)
        if "next_item" in model.heads and model.next_item.bias_V is not None:
            model.next_item.bias_V.normal_()
    if reached:
        model.reach(sessions_of(6, seed=1))
    return model.eval()


def dense_of(sessions: Sessions, dense: Dense, num_places: int) -> tuple[Tensor, ...]:
    """What a program outside would be given."""
    place_L = torch.arange(num_places)
    event_NL = (sessions.starts[:, None] + place_L).clamp(max=len(sessions.items) - 1)
    inside_NL = place_L < sessions.lengths[:, None]
    values = []
    for column in dense.columns:
        if column.per == "event":
            value = sessions.events[column.name][event_NL]
            value = value * (inside_NL if value.dim() == 2 else inside_NL[..., None])
        else:
            value = sessions.context[column.name]
        values.append(value.long() if column.kind == "categorical" else value.float())
    return sessions.lengths, *values


CASES = {
    "only ids, of which some were never read": ("sasrec", (), {}),
    "times between events": ("hstu", (ELAPSED,), {}),
    "rows of one length": ("gru4rec", (TYPE, PRICE), {}),
    ASKED: ("bert4rec", SIDE, {"objective": "masked", "inputs": {"item_tower": "sum"}}),
    "cosines, and each feature a part": (
        "gpt2",
        (TYPE, TAGS, DEVICE),
        {"inputs": {"aggregation": "concat", "item_dim": 12}, "heads": {"next_item": {"cosine": True}}},
    ),
    "a label": ("ligr", (PRICE,), {"heads": {"bought": {"name": "binary"}}}),
}


@pytest.mark.parametrize("case", CASES)
def test_dense_arrays_give_what_sessions_give(case: str) -> None:
    body, side, groups = CASES[case]
    model = model_of(body, *side, reached=True, **groups)
    sessions = sessions_of(20, seed=2)
    dense = Dense(model)
    with torch.no_grad():
        got = dict(zip(dense.outputs, dense(*dense_of(sessions, dense, 11)), strict=True))
        if "query" in got:
            wanted = model.next_item.query(torch.cat(list(states(model, sessions))))
            torch.testing.assert_close(got["query"][:, : wanted.shape[1]], wanted, atol=2e-5, rtol=2e-5)
    for label, value_N in predict(model, sessions).items():
        torch.testing.assert_close(got[label], value_N)
    if not side:
        assert bool((~model.inputs.items.reached.reached_V[sessions.items.long()]).any()), "or nothing is left out"
        assert int(sessions.lengths.max()) > model.longest, "or nothing is cut off"


@pytest.mark.parametrize(
    "case", pared(("times between events", "rows of one length", "an empty place is asked"), ASKED.__eq__)
)
def test_onnx_gives_the_lists_of_the_recommender(case: str, tmp_path: Path) -> None:
    body, side, groups = CASES[case]
    bias = {"heads": {"next_item": {"bias": True}}}
    (tmp_path / "model").mkdir()
    folder = write_folder(model_of(body, *side, reached=True, **groups | bias), tmp_path / "model")
    (folder / "schema.json").write_text("{}")
    recommender = Recommender(folder, "cpu")
    about = export(recommender, tmp_path / "out")
    assert about.difference < 1e-4
    assert Export.model_validate_json((tmp_path / "out" / ABOUT).read_text()) == about
    assert (about.length is not None) == (case == "rows of one length")
    sessions = sessions_of(20, seed=2).most_recent(about.length or 99)
    dense = Dense(recommender.model)
    given = [value.numpy() for value in dense_of(sessions, dense, about.length or 11)]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "states.onnx", providers=["CPUExecutionProvider"])
    (query,) = session.run(None, dict(zip(dense.inputs, given, strict=True)))
    np.testing.assert_allclose(query, query_vectors(recommender, sessions).numpy(), atol=1e-4)
    items = pl.read_parquet(tmp_path / "out" / "items.parquet")
    best = (query @ items[VECTOR].to_numpy().T).argsort(1)[:, ::-1][:, :5]
    assert [items[ITEM].gather(row).to_list() for row in best] == recommender.recommend(sessions, 5)
    config = (tmp_path / "out/triton/overnight_test/config.pbtxt").read_text()
    inputs = re.findall(r'^input \[ \{ name: "(\w+)", data_type: (\w+), dims: (\[.*?\])', config, re.MULTILINE)
    assert [name for name, _, _ in inputs] == [port.name for port in about.inputs]
    assert dict(zip(("name", "type", "dims"), inputs[0], strict=True)) == {
        "name": "length",
        "type": "TYPE_INT64",
        "dims": "[1]",
    }
    assert f'output [ {{ name: "query", data_type: TYPE_FP32, dims: [{query.shape[1]}] }} ]' in config


def test_a_package_of_torch_and_when_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    folder = write_folder(model_of("sasrec", ELAPSED, reached=True, inputs={"query_time": True}), tmp_path / "model")
    (folder / "schema.json").write_text("{}")
    about = export(Recommender(folder, "cpu"), tmp_path / "out", "torch")
    assert about.inputs[-1].name == ASKED_AFTER and not (tmp_path / "out" / "triton").exists()
    program = torch.export.load(tmp_path / "out" / "states.pt2").module()
    length, item, elapsed = torch.tensor([2]), torch.tensor([[4, 5]]), torch.tensor([[0.0, 3.0]])
    early, late = (program(length, item, elapsed, torch.tensor([after]).double())[0] for after in (1.0, 1e5))
    assert not torch.allclose(early, late)
    with pytest.raises(InputError, match="is there already"):
        export(Recommender(folder, "cpu"), tmp_path / "out", "torch")


def test_longformer_is_a_package_of_torch_and_no_onnx(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model = model_of("longformer", reached=True, objective="masked")
    folder = write_folder(model, tmp_path / "model")
    (folder / "schema.json").write_text("{}")
    recommender = Recommender(folder, "cpu")
    with pytest.raises(InputError, match=r"longformer is not written as ONNX.*Take --format torch"):
        export(recommender, tmp_path / "out")
    about = export(recommender, tmp_path / "out", "torch")
    assert about.difference < 1e-4 and about.length == about.reads


def test_item_vectors_are_of_items_that_may_be_recommended(tmp_path: Path) -> None:
    model = model_of("sasrec", reached=True)
    model.next_item.popularity_V[:7] = 0
    recommender = Recommender(write_folder(model, tmp_path), "cpu")
    assert item_vectors(recommender).height == len(model.next_item.popularity_V) - 7
    with pytest.raises(InputError, match="without an item"):
        query_vectors(recommender, sessions_of(3).emptied(torch.tensor([True, False, True])))


def test_what_cannot_be_exported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"past_events.*overnight api"):
        Dense(model_of("sasrec", ELAPSED, inputs={"past_events": 4}))

    def asks_the_data(self: Body, x_BLD: Tensor, layout: object) -> Tensor:
        return x_BLD * float(x_BLD.sum())

    recommender = Recommender(write_folder(model_of("sasrec"), tmp_path), "cpu")
    monkeypatch.setattr(type(recommender.model.body), "forward", asks_the_data)
    with pytest.raises(InputError, match=r"body sasrec cannot be exported: .*overnight api"):
        export(recommender, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
