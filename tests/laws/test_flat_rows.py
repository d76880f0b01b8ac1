"""A flat row of fixed size, as a GPU is given, is the rows of a CPU: the same states, losses and gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from modeling import bodies, objectives, parts
from modeling.attention import Layout
from modeling.batches import Batch, Shape, lay_out, make_batch, make_query
from modeling.model import SequenceModel
from modeling.objectives import Objective
from modeling.objectives.masked import Masked
from modeling.objectives.permuted import Permuted
from modeling.sessions import Sessions
from schemas import plugins
from tests.conftest import model_of, random_sessions
from tests.modeling.test_heads import coin_sessions, model_with, schema_with

EMPTY = 5  # sessions that only fill the room
FLAT = [
    (body, objective)
    for body in plugins.names(bodies)
    for objective in plugins.names(objectives)
    if parts.goes_together(body, objective) and parts.body_class(body).flat and parts.body_class(body).packed
]


def long_sessions(count: int = 40) -> Sessions:
    """Many of which lie in two blocks."""
    return random_sessions(count, 50, longest=20)


def with_empty(sessions: Sessions) -> Sessions:
    """The same with empty sessions behind them, as a step gets that has fewer than the fullest."""
    index = torch.cat([torch.arange(len(sessions)), torch.zeros(EMPTY, dtype=torch.long)])
    more = sessions.select(index)
    return replace(more, lengths=more.lengths * (torch.arange(len(index)) < len(sessions)))


def shape_of(sessions: Sessions, spare: int = 300) -> Shape:
    """Room for more than there is."""
    return Shape(sessions.num_events + spare, int(sessions.lengths.max()), flat=True)


def by_session(layout: Layout, x_BL: Tensor) -> Tensor:
    """What lies at the places of sessions, in their order."""
    inside_BL = layout.inside_BL
    order = (layout.session_BL[inside_BL] * 1000 + layout.positions_BL[inside_BL]).argsort()
    return x_BL[inside_BL][order]


def both_batches(model: SequenceModel, sessions: Sessions, seed: int = 0) -> tuple[Batch, Batch]:
    """Of the same sessions, reading and asking the same: in rows, and in a flat row with padding and empty sessions.

    What an objective draws depends on where places lie, so its draws for the rows are carried over.
    """
    made: list[tuple[Layout, Tensor, Tensor]] = []
    objective = model.objective

    def make(sessions: Sessions, *given: Any) -> Batch:
        made.append(given)  # type: ignore[arg-type]
        return Objective.make_batch(objective, sessions, *given)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(objective, "make_batch", make)
        rows = model.training_batch(sessions, torch.Generator().manual_seed(seed))
    layout, event_BL, asked_BL = made[0]
    more = with_empty(sessions)
    flat = model.lay_out(more.drop_last(objective.drops), shape=shape_of(sessions))
    carried = []
    for values_BL in (event_BL, asked_BL):
        room_BL = torch.full_like(flat.segments_BL, -1)
        room_BL[flat.inside_BL] = by_session(layout, values_BL)
        carried.append(room_BL)
    assert flat.most is not None
    return rows, make_batch(more, flat, *carried, objective.capacity(flat.most, len(more)))


def gradients(model: SequenceModel, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """In evaluation mode: what training forgets of the input is drawn place by place."""
    torch.manual_seed(0)
    model.zero_grad()
    loss = model(batch)
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(("body", "objective"), FLAT)
def test_the_same_states(body: str, objective: str) -> None:
    model, sessions = model_of({"name": body, "dropout": 0.0}, objective=objective), long_sessions()
    rows, flat = both_batches(model, sessions)
    with torch.no_grad():
        one, two = (by_session(batch.layout, model.encode(batch)) for batch in (rows, flat))
        torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-4)
        sessions = sessions.most_recent(18)
        more = Shape(900, 20, flat=True)
        query = model.objective.query(sessions, lambda given, ask: model.lay_out(given, ask=ask, shape=more))
        torch.testing.assert_close(query.states(model.encode(query)), model.states(sessions), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("body", "objective"), [pair for pair in FLAT if pair[1] != "replaced_token"])
def test_the_same_loss_and_gradients(body: str, objective: str) -> None:
    """What `replaced_token` proposes is drawn, and depends on where places lie: see below."""
    model = model_of({"name": body, "dropout": 0.0}, objective=objective, heads={"next_item": {"bias": True}})
    rows, flat = both_batches(model, long_sessions())
    (one, of_one), (two, of_two) = gradients(model, rows), gradients(model, flat)
    assert len(flat.asked_N) > len(rows.asked_N)
    torch.testing.assert_close(two, one)
    torch.testing.assert_close(of_two, of_one, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("groups", [{"inputs": {"positions": "rotary"}}, {"body": {"name": "hstu"}}], ids=str)
def test_the_same_with_rotary_positions_and_times(groups: dict[str, Any]) -> None:
    groups = {"body": {"name": "sasrec"}} | groups
    model = model_of(groups.pop("body") | {"dropout": 0.0}, **groups)
    model.inputs.time = "price"  # a number an event: seconds since the one before
    rows, flat = both_batches(model, long_sessions())
    (one, of_one), (two, of_two) = gradients(model, rows), gradients(model, flat)
    torch.testing.assert_close(two, one)
    torch.testing.assert_close(of_two, of_one, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_the_same_of_labels(objective: str) -> None:
    heads = {"next_item": {}, "own": {"name": "regression"}, "last": "binary", "past": {"name": "binary"}}
    model = model_with(schema_with(("last", "past"), ("own",)), heads, objective)
    rows, flat = both_batches(model, coin_sessions(60, 0))
    (one, of_one), (two, of_two) = gradients(model, rows), gradients(model, flat)
    torch.testing.assert_close(two, one)
    torch.testing.assert_close(of_two, of_one, atol=2e-5, rtol=1e-3)
    for batch in (rows, flat):
        assert float(batch.weight_N.sum()) == pytest.approx(1)


def test_the_second_pass_of_replaced_token_is_the_same_for_the_same_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of({"name": "sasrec", "dropout": 0.0}, objective="replaced_token")
    both = both_batches(model, long_sessions())
    found = []
    for batch in both:
        real_N = batch.weight_N > 0
        session_N = batch.layout.session_BL.flatten()[batch.asked_N]
        item_N = 3 + (batch.target_N + session_N) % 50  # decided by the event alone
        monkeypatch.setattr(model, "propose", lambda h_ND, item_N=item_N: item_N)
        found.append((gradients(model, batch), int(real_N.sum())))
    assert found[0][1] == found[1][1]
    torch.testing.assert_close(found[1][0], found[0][0], atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize(("body", "objective"), FLAT)
def test_padding_and_neighbours_change_nothing(body: str, objective: str) -> None:
    """However much room there is, and whatever lies in it or in the sessions beside."""
    model, sessions = model_of(body, objective=objective), long_sessions(12)
    found = []
    for spare, chosen in ((0, range(12)), (777, range(12)), (130, range(4, 12))):
        some = sessions.select(torch.tensor(list(chosen)))
        batch = make_query(some, model.lay_out(some, shape=replace(shape_of(some, spare), longest=20)))
        padding_BL = ~batch.layout.inside_BL
        batch.features["item_id"][padding_BL] = 7 + spare % 40
        with torch.no_grad():
            found.append(model.encode(batch).flatten(0, 1)[batch.asked_N][-8:])
    torch.testing.assert_close(found[1], found[0][-8:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[2], found[0][-8:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", plugins.names(objectives))
@pytest.mark.parametrize("flat", [True, False])
def test_fixed_room_asks_what_the_objective_asks(name: str, flat: bool) -> None:
    """Every session of a batch with room to spare is laid out whole, and everything asked has its place."""
    objective: Objective = plugins.find(objectives, name)()
    sessions = with_empty(long_sessions(300)) if flat else long_sessions(300)
    shape = replace(shape_of(sessions.drop_last(objective.drops), 0), flat=flat)
    made: list[Tensor] = []

    def make(sessions: Sessions, layout: Layout, event_BL: Tensor, asked_BL: Tensor) -> Batch:
        made.append(asked_BL)
        assert int(layout.inside_BL.sum()) == sessions.drop_last(objective.drops).num_events
        return Objective.make_batch(objective, sessions, layout, event_BL, asked_BL)

    objective.make_batch = make  # type: ignore[method-assign]
    laid = lambda given, ask=False: lay_out(  # noqa: E731
        given, packed=True, ask=ask, direction=objective.direction, shape=shape
    )
    batch = objective.batch(sessions, laid, torch.Generator().manual_seed(0))
    asked_T, real_N = made[0].flatten(), batch.weight_N > 0
    assert torch.equal(batch.asked_N[real_N], (asked_T >= 0).nonzero().squeeze(1))
    assert torch.equal(batch.target_N[real_N], sessions.items[asked_T[asked_T >= 0]].long())
    assert not batch.target_N[~real_N].any()
    assert len(batch.asked_N) <= asked_T.numel() * (1 if name in ("causal", "permuted") else 0.5)


@pytest.mark.parametrize(
    "objective",
    [Masked(probability=0.3), Masked(probability=0.9, last=0.0), Permuted(), Permuted(probability=0.4, max_span=1),
     Permuted(probability=0.5, max_span=9), Permuted(probability=0.8, max_span=3)],
)  # fmt: skip
def test_there_is_room_for_all_that_is_asked(objective: Objective) -> None:
    for length in (2, 3, 7, 20, 60):
        sessions = random_sessions(200, 50, longest=length)
        for seed in range(5):
            layout = partial_lay(objective, sessions)
            batch = objective.batch(sessions, lambda *_, layout=layout: layout, torch.Generator().manual_seed(seed))
            room = objective.capacity(sessions.num_events, len(sessions))
            assert len(batch.asked_N) <= min(room, sessions.num_events)


def partial_lay(objective: Objective, sessions: Sessions) -> Layout:
    return lay_out(sessions, packed=False, direction=objective.direction)


def test_what_finds_no_room_is_left_out_and_the_others_weigh_more() -> None:
    sessions = random_sessions(20, 50)
    layout = lay_out(sessions, packed=True)
    whole = make_batch(sessions, layout, layout.event_BL, layout.event_BL)
    some = make_batch(sessions, layout, layout.event_BL, layout.event_BL, 10)
    assert torch.equal(some.asked_N, whole.asked_N[:10]) and some.weight_N.tolist() == pytest.approx([0.1] * 10)
