"""How often a step of training makes the host wait for the device: never.

A step is a batch, the loss, its gradients and the optimizer's step. What is read is a value that Python asks for, or the size
of a result that depends on data (a mask as an index, repeat_interleave). An upload is a tensor that goes from the host to the
device. Neither may depend on how large a step is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from modeling import losses, objectives
from modeling.batches import Batch
from modeling.config import TrainingConfig
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.training.optimizer import RowAdamW
from modeling.training.schedule import make_schedule
from schemas import plugins
from tests.conftest import model_of, random_sessions
from tests.modeling import test_inputs as wide
from tests.modeling.test_heads import coin_sessions, model_with, schema_with
from tests.modeling.test_items import write_vectors
from tests.modeling.test_past import users
from tests.modeling.test_query_time import model_of as asking_model
from tests.modeling.test_query_time import timed
from tests.second_device import pretended_cuda

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="counts are taken on the pretended device")
SHARES_ROWS = ("sasrec", "hstu", "bst", "bert4rec", "ligr", "gpt2", "llama", "modernbert", "albert")
ONE_A_ROW = ("gru4rec", "xlnet", "mamba2", "reformer", "longformer")
SAMPLED = {"name": "sampled_softmax", "negatives": {"count": 8, "corrected": True}}


def most(model: SequenceModel, sessions: Sessions | None = None) -> tuple[int, int]:
    """The reads and uploads of the second step, or of a far larger one, whichever makes more."""
    counts = []
    for tokens in (64, 512):
        with pretended_cuda() as device:
            model.to("cuda").train()
            config = TrainingConfig(epochs=1, tokens_per_step=tokens, order="random")
            schedule = make_schedule(model, (sessions or random_sessions(200, 50)).to("cuda"), config)
            optimizer = RowAdamW(model.parameters())
            for step in range(2):
                device.reads.clear()
                device.uploads = 0
                model(schedule[step]).backward()
                optimizer.step()
                optimizer.zero_grad()
            counts.append((device.reads.total(), device.uploads))
    reads, uploads = zip(*counts, strict=True)
    return max(reads), max(uploads)


@pytest.mark.parametrize("body", [*SHARES_ROWS, *ONE_A_ROW])
def test_bodies(body: str) -> None:
    objective = {"longformer": "masked"}.get(body, "causal")
    assert most(model_of(body, objective=objective)) == (0, 0)


@pytest.mark.parametrize("objective", [*plugins.names(objectives), {"name": "causal", "last_only": True}], ids=str)
def test_objectives(objective: str | dict[str, Any]) -> None:
    body = "xlnet" if objective == "permuted" else "sasrec"
    assert most(model_of(body, objective=objective)) == (0, 0)


@pytest.mark.parametrize("loss", plugins.names(losses))
def test_losses(loss: str) -> None:
    assert most(model_of("sasrec", loss={"name": loss, "negatives": {"count": 8}})) == (0, 0)


@pytest.mark.parametrize(
    "groups",
    [
        {"loss": {"name": "full_softmax", "options": {"label_smoothing": 0.1}}},
        *({"loss": {**SAMPLED, "negatives": {"count": 8, "source": source}}} for source in ("popularity", "in_batch")),
        {"heads": {"next_item": {"bias": True, "cosine": True, "temperature": 0.1}}, "loss": SAMPLED},
        {"heads": {"next_item": {"table": "separate", "bias": True}}, "loss": "bce"},
        *({"positions": positions} for positions in ("none", "forward", "rotary")),
        {"body": {"name": "gru4rec", "options": {"cell": "lstm"}, "num_layers": 2}},
    ],
    ids=str,
)
def test_options(groups: dict[str, Any]) -> None:
    assert most(model_of(**({"body": "sasrec"} | groups))) == (0, 0)


@pytest.mark.parametrize(
    "inputs",
    [
        {"aggregation": "concat", "continuous": "soft_one_hot", "feature_norm": True},
        {"aggregation": "sum_times_item", "item_tower": "sum", "id_dropout": 0.3, "swap_noise": 0.3},
        {"item_tower": "concat", "pretrained": {"trained": True}},
    ],
    ids=str,
)
def test_features(inputs: dict[str, Any], tmp_path: Path) -> None:
    if "pretrained" in inputs:
        write_vectors(tmp_path / "v.parquet")
        inputs = inputs | {"pretrained": {"path": str(tmp_path / "v.parquet")} | inputs["pretrained"]}
    assert most(wide.model_of(inputs, loss="sampled_softmax"), wide.sessions_of(200)) == (0, 0)


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_past_sessions_and_query_time(objective: str) -> None:
    sessions = timed(users([(place % 7, list(range(3, 6 + place % 5))) for place in range(400)], count=5))
    assert sessions.past is not None and int(sessions.past.lengths.sum()) > 300
    assert most(asking_model(objective, past=5), sessions) == (0, 0)


@pytest.mark.parametrize("body", ["sasrec", "gru4rec"])
def test_places_of_past_events_get_no_room_for_predictions(body: str) -> None:
    """On a device, what is asked of a step is what is asked of it on a CPU, in room for the sessions' own events."""
    sessions = timed(users([(place % 7, list(range(3, 6 + place % 5))) for place in range(400)], count=5))
    config = TrainingConfig(epochs=1, tokens_per_step=256, order="random")
    model = asking_model(body=body, past=5)
    here = [batch.target_N.sort().values for batch in make_schedule(model, sessions, config)]
    with pretended_cuda():
        model.to("cuda")
        schedule = make_schedule(model, sessions.to("cuda"), config)
        batches = [schedule[step] for step in range(len(schedule))]
        asked = [batch.target_N[batch.weight_N > 0].sort().values.cpu() for batch in batches]
        room = [len(batch.target_N) for batch in batches]
        places = [batch.layout.segments_BL.numel() for batch in batches]
    assert all(torch.equal(one, other) for one, other in zip(here, asked, strict=True))
    assert sum(map(len, asked)) == int((sessions.lengths - (sessions.past.lengths == 0).long()).sum())  # type: ignore[union-attr]
    assert all(len(some) <= much < 0.7 * all_places for some, much, all_places in zip(asked, room, places, strict=True))


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_heads_on_labels(objective: str) -> None:
    heads = {"next_item": {}, "own": {"name": "regression", "log": True}, "last": "binary"}
    model = model_with(schema_with(("last",), ("own",)), heads, objective)
    assert most(model, coin_sessions(200, 0)) == (0, 0)


def test_batches_of_a_flat_row_have_one_shape_for_the_whole_run() -> None:
    """Also where epochs are of different sizes."""
    for objective in ("causal", "masked", "replaced_token"):
        with pretended_cuda():
            model = model_of("sasrec", objective=objective).to("cuda")
            config = TrainingConfig(epochs=3, tokens_per_step=128, order="random", half_life_days=1e-3)
            schedule = make_schedule(model, random_sessions(200, 50).to("cuda"), config)
            shapes = {shapes_of(schedule[step]) for step in range(len(schedule))}
            assert len(schedule) > 6 and len(shapes) == 1 and len(set(schedule.steps_per_epoch)) > 1


def shapes_of(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(value.shape) for value in batch.tensors())
