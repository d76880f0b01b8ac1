"""What each objective hides, asks and reads; laws in tests/laws hold for all of them together."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from modeling import objectives, parts
from modeling.attention import Layout
from modeling.batches import Batch, lay_out, make_batch
from modeling.bodies.xlnet import XLNet
from modeling.config import BodyConfig, ModelConfig, ObjectiveConfig
from modeling.heads import next_item
from modeling.model import SequenceModel
from modeling.objectives import LayOut, Objective
from modeling.objectives.causal import Causal
from modeling.objectives.masked import Masked
from modeling.objectives.permuted import Permuted
from modeling.objectives.replaced_token import ReplacedToken, filled
from modeling.sessions import Sessions
from schemas import plugins
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.errors import InputError
from tests.conftest import chain_sessions, model_of, random_sessions, sessions_of
from tests.laws.test_models import trained

PACKED = partial(lay_out, packed=True)
SIDE = ("type", "price")
every_objective = pytest.mark.parametrize("name", plugins.names(objectives))
some_hidden = pytest.mark.parametrize("objective", [Masked(), Permuted(), ReplacedToken()])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def equal_sessions(count: int, length: int) -> Sessions:
    """Sessions of one length; every event has an item of its own."""
    return sessions_of((torch.arange(count * length).view(count, length) + FIRST_ID).tolist())


@dataclass(frozen=True)
class Task:
    """What an objective made a batch of: the events read and asked about at each place, -1: none."""

    places: Layout
    event_BL: Tensor
    asked_BL: Tensor
    batch: Batch


def task_of(objective: Objective, sessions: Sessions, seed: int = 0, lay: LayOut = PACKED) -> Task:
    made: list[tuple[Layout, Tensor, Tensor]] = []

    def make(sessions: Sessions, *given: Any) -> Batch:
        made.append(given)  # type: ignore[arg-type]
        return Objective.make_batch(objective, sessions, *given)

    with mock.patch.object(objective, "make_batch", make):
        batch = objective.batch(sessions, lay, generator(seed))
    return Task(*made[0], batch)


def by_session(task: Task, values_BL: Tensor, count: int) -> Tensor:
    """Values of the places of `count` sessions of one length, [count, length]."""
    places = task.places
    inside_BL = places.inside_BL
    order = (places.session_BL[inside_BL] * 1000 + places.positions_BL[inside_BL]).argsort()
    return values_BL[inside_BL][order].view(count, -1)


def near(share: Tensor, law: Tensor | float, count: int) -> bool:
    """Whether shares of `count` trials are within five standard deviations of their probabilities."""
    law = torch.as_tensor(law, dtype=torch.float64).expand(share.shape)
    return bool(((share.double() - law).abs() <= 5 * (law * (1 - law) / count).sqrt() + 1e-12).all())


@every_objective
def test_a_task_is_a_function_of_the_seed_alone(name: str) -> None:
    objective = parts.build("objective", ObjectiveConfig(name=name))
    sessions, before = random_sessions(50, 30), torch.get_rng_state()
    one, two, other = (task_of(objective, sessions, seed) for seed in (1, 1, 2))
    assert torch.equal(one.event_BL, two.event_BL) and torch.equal(one.asked_BL, two.asked_BL)
    assert all(torch.equal(*both) for both in zip(one.batch.tensors(), two.batch.tensors(), strict=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.asked_BL, other.asked_BL) is (name == "causal")


@every_objective
def test_what_is_asked_at_a_place_is_not_seen_there(name: str) -> None:
    """Causal reads the event before; others hide the event, read one instead, or, permuted, let only later places see it."""
    objective = parts.build("objective", ObjectiveConfig(name=name))
    task = task_of(objective, random_sessions(300, 30))
    asked_BL = task.asked_BL >= 0
    same = (task.event_BL == task.asked_BL)[asked_BL].double().mean()
    assert asked_BL.any()
    assert {"causal": same == 0, "replaced_token": same == 0, "permuted": same == 1}.get(name, near(same, 0.1, 150))
    assert not asked_BL[task.places.segments_BL == 0].any()


@some_hidden
@pytest.mark.parametrize("packed", [True, False])
def test_every_session_has_an_event_to_predict_and_one_that_is_seen(objective: Objective, packed: bool) -> None:
    for probability in (0.02, 0.98):
        objective.probability = probability  # type: ignore[attr-defined]
        for length in (2, 3, 9):
            task = task_of(objective, equal_sessions(500, length), lay=partial(lay_out, packed=packed))
            asked = by_session(task, task.asked_BL >= 0, 500).sum(1)
            assert asked.min() == 1 if probability < 0.5 else asked.max() == length - 1
            assert asked.min() >= 1 and asked.max() <= length - 1


@pytest.mark.parametrize("objective", [Causal(), Masked(), Permuted(), ReplacedToken()])
def test_inference_reads_the_history_and_asks_behind_it(objective: Objective) -> None:
    histories = random_sessions(30, 30)
    batch = objective.query(histories, PACKED)
    places = batch.layout
    assert not batch.target_N.any() and not batch.labels
    ends_BL = places.is_end_BL
    assert torch.equal(batch.asked_N.sort().values, ends_BL.flatten().nonzero().squeeze(1))
    assert places.session_BL.flatten()[batch.asked_N].tolist() == list(range(len(histories)))
    last = (histories.starts + histories.lengths - 1)[places.session_BL]
    read_BL = places.event_BL
    if objective.asks:
        assert bool((read_BL[ends_BL] == -1).all())
        read = places.positions_BL < histories.lengths[places.session_BL]
        assert torch.equal(ends_BL, (places.segments_BL > 0) & ~read)
        expected = (histories.starts[places.session_BL] + places.positions_BL).where(
            read & (places.segments_BL > 0), -1
        )
        assert torch.equal(read_BL, expected)
        assert torch.equal(batch.masked_BL, ends_BL)
    else:
        assert torch.equal(read_BL[ends_BL], last[ends_BL])
    assert (places.order_BL is not None) == isinstance(objective, Permuted)
    assert places.order_BL is None or torch.equal(places.order_BL, ends_BL.long())


@pytest.mark.parametrize(("body", "name"), [("sasrec", "causal"), ("sasrec", "masked"), ("xlnet", "permuted")])
def test_states_of_inference_are_those_of_a_batch_made_by_hand(body: str, name: str) -> None:
    model = model_of(body, objective=name)
    items, asks = [4, 9, 7], int(name != "causal")
    width = len(items) + asks
    ids = torch.tensor([items + [0] * asks])
    features = {ITEM_ID: ids, "type": (ids % 5 + FIRST_ID) * (ids > 0), "price": (ids % 7).float() / 7}
    layout = Layout(
        torch.ones(1, width, dtype=torch.long),
        torch.arange(width)[None],
        model.objective.direction,
        order_BL=(ids == 0).long() if name == "permuted" else None,
        from_end_BL=torch.arange(width - 1, -1, -1)[None],
    )
    none = torch.zeros(0)
    batch = Batch(layout, features, ids == 0, none.long(), none.long(), none, none.bool(), {})
    with torch.no_grad():
        torch.testing.assert_close(model.states(sessions_of([items]))[0], model.encode(batch)[0, -1])


# Causal


def test_causal_asks_at_every_event_for_the_next_or_for_the_last_only() -> None:
    sessions = equal_sessions(20, 5)
    task = task_of(Causal(), sessions)
    every = sessions.starts[:, None] + torch.arange(5)
    assert torch.equal(by_session(task, task.event_BL, 20), every[:, :-1])
    assert torch.equal(by_session(task, task.asked_BL, 20), every[:, 1:])
    task = task_of(Causal(last_only=True), sessions)
    asked = by_session(task, task.asked_BL, 20)
    assert bool((asked[:, :-1] == -1).all()) and torch.equal(asked[:, -1], every[:, -1])


# Masked


def law_of_masks(probability: float, length: int, last: float) -> Tensor:
    """Probability that each event of a session is predicted: by its own draw, or since a session needs one and not all."""
    p, n = probability, length
    law = torch.full((n,), (1 - last) * (p + ((1 - p) ** n - p**n) / n), dtype=torch.float64)
    law[-1] += last
    return law


@pytest.mark.parametrize("length", [2, 3, 8])
@pytest.mark.parametrize(("probability", "last"), [(0.15, 0.0), (0.15, 0.4), (0.6, 0.0), (0.3, 1.0)])
@pytest.mark.parametrize("kind", [Masked, ReplacedToken])
def test_events_are_masked_as_often_as_the_law_says(
    kind: type[Masked | ReplacedToken], probability: float, last: float, length: int
) -> None:
    count = 8000
    task = task_of(kind(probability=probability, last=last), equal_sessions(count, length))
    share = by_session(task, task.asked_BL >= 0, count).double().mean(0)
    assert near(share, law_of_masks(probability, length, last), count)


def test_events_to_predict_are_hidden_swapped_or_left() -> None:
    task = task_of(Masked(last=0.0), equal_sessions(6000, 10))
    asked_BL = task.asked_BL >= 0
    read_N, asked_N = task.event_BL[asked_BL], task.asked_BL[asked_BL]
    assert near((read_N == -1).double().mean(), 0.8, len(read_N))
    assert near((read_N == asked_N).double().mean(), 0.1, len(read_N))
    assert near(((read_N >= 0) & (read_N != asked_N)).double().mean(), 0.1, len(read_N))
    assert torch.equal(task.event_BL[~asked_BL], task.places.event_BL[~asked_BL])


def test_a_session_predicted_at_its_end_only_hides_it_always() -> None:
    task = task_of(Masked(last=1.0), equal_sessions(500, 4))
    assert torch.equal(task.asked_BL >= 0, task.places.is_end_BL)
    assert torch.equal(task.event_BL == -1, (task.asked_BL >= 0) | (task.places.segments_BL == 0))


def test_swapped_events_are_whole_events_of_the_batch() -> None:
    sessions = equal_sessions(3000, 4).select(torch.arange(0, 3000, 3))
    sessions.events["price"] = torch.arange(len(sessions.items)).float()  # tells every event
    task = task_of(Masked(probability=0.6, last=0.0), sessions)
    swapped_BL = (task.event_BL >= 0) & (task.event_BL != task.places.event_BL)
    assert swapped_BL.sum() > 100
    _, event_N = sessions.event_index()
    assert torch.isin(task.event_BL[swapped_BL], event_N).all()
    assert task.event_BL[swapped_BL].unique().numel() > 0.8 * int(swapped_BL.sum())
    read = task.batch.features
    event_N = read["price"][swapped_BL].long()
    assert torch.equal(read[ITEM_ID][swapped_BL], sessions.items[event_N])
    assert torch.equal(read["type"][swapped_BL], sessions.events["type"][event_N])


@pytest.mark.parametrize("name", ["masked", "replaced_token"])
def test_features_of_hidden_events_are_hidden_too(name: str) -> None:
    model, sessions = model_of("sasrec", objective=name), random_sessions(40, 50)
    task = task_of(model.objective, sessions, lay=model.lay_out)
    hidden = task.asked_BL[(task.event_BL == -1) & (task.asked_BL >= 0)]
    batch = task.batch
    for feature in sessions.events:
        assert not batch.features[feature][batch.masked_BL].any()
        sessions.events[feature][hidden] = (
            3 + sessions.events[feature][hidden] % 2
        )  # a swapped event may be hidden elsewhere
    with torch.no_grad():
        before_BLD, after_BLD = (
            model.encode(batch),
            model.encode(task_of(model.objective, sessions, lay=model.lay_out).batch),
        )
    read_elsewhere = torch.isin(task.event_BL, hidden).any(1)
    torch.testing.assert_close(before_BLD[~read_elsewhere], after_BLD[~read_elsewhere], rtol=0, atol=0)
    assert int((~read_elsewhere).sum()) >= 3


# Permuted


def law_of_spans(length: int) -> Tensor:
    """Probability that each place lies in a span of 1 to 5 events, at a random place of stretches of six times its length."""
    begins, law = torch.zeros(length, dtype=torch.float64), torch.zeros(length, dtype=torch.float64)
    begins[0] = 1
    for stretch, span in itertools.product(range(length), range(1, 6)):
        if stretch + 6 * span < length:
            begins[stretch + 6 * span] += begins[stretch] / 5
        for first in range(5 * span + 1):
            law[stretch + first : stretch + first + span] += begins[stretch] / 5 / (5 * span + 1)
    return law


def test_spans_lie_where_the_law_says() -> None:
    count, length = 20_000, 40  # at least one whole stretch: no session needs mending
    task = task_of(Permuted(), equal_sessions(count, length))
    share = by_session(task, task.asked_BL >= 0, count).double().mean(0)
    assert near(share, law_of_spans(length), count)
    assert float(share[15:].mean()) == pytest.approx(1 / 6, abs=0.01)


def test_spans_of_one_event_are_one_in_each_stretch() -> None:
    task = task_of(Permuted(probability=0.25, max_span=1), equal_sessions(2000, 12))
    asked = by_session(task, task.asked_BL >= 0, 2000).unflatten(1, (3, 4))
    assert bool((asked.sum(2) == 1).all())
    assert near(asked.double().mean((0, 1)), 0.25, 6000)


def test_short_sessions_predict_one_event_anywhere() -> None:
    task = task_of(Permuted(), equal_sessions(6000, 2))
    share = by_session(task, task.asked_BL >= 0, 6000).double().mean(0)
    # In a stretch of 6, the one span covers the first place once in 6 and the second once in 6; wider ones likewise.
    first = sum(1 / (5 * span + 1) for span in range(1, 6)) / 5  # spans that begin at the first place
    only_first, only_second = 1 / 6 / 5, first  # of length one at the first place; beginning at the second
    both = first - only_first
    none = 1 - only_first - only_second - both
    assert near(share[0], only_first + (both + none) / 2, 6000)
    assert near(share[1], only_second + (both + none) / 2, 6000)


def test_events_are_predicted_in_any_order_and_stay_readable() -> None:
    count = 3000
    task = task_of(Permuted(probability=0.5, max_span=3), equal_sessions(count, 12))
    assert torch.equal(task.event_BL, task.places.event_BL)
    order_BL = task.places.order_BL
    assert order_BL is not None
    assert torch.equal(order_BL > 0, task.asked_BL >= 0)
    order = by_session(task, order_BL, count)
    sizes = (order > 0).sum(1)
    for row, size in zip(order, sizes.tolist(), strict=True):
        assert sorted(row[row > 0].tolist()) == list(range(1, size + 1))
    of_six = order[sizes == 6]
    seen = of_six[of_six > 0].view(-1, 6)
    first_three = (seen[:, :3].argsort(1) * torch.tensor([9, 3, 1])).sum(1)  # each of six orders
    _, counts = first_three.unique(return_counts=True)
    assert len(counts) == 6 and near(counts / len(seen), 1 / 6, len(seen)) and len(seen) > 500


# What permuted states see, through XLNet


def xlnet(**options: object) -> XLNet:
    torch.manual_seed(3)
    body = XLNet(BodyConfig.model_validate({"name": "xlnet", "dim": 16, "num_layers": 3} | options), False)
    with torch.no_grad():
        for parameter in body.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return body.eval()


def permuted_layout() -> Layout:
    """Row one: a session of seven; row two: sessions of four and three, each with its own order."""
    segments = torch.tensor([[1] * 7, [2] * 4 + [3] * 3])
    positions = torch.tensor([[*range(7)], [*range(4), *range(3)]])
    order = torch.tensor([[0, 3, 0, 1, 2, 0, 4], [2, 0, 1, 0, 0, 1, 2]])
    return Layout(segments, positions, "permuted", None, order)


def test_a_state_sees_what_is_visible_or_predicted_before_it_and_never_itself() -> None:
    body, layout = xlnet(), permuted_layout()
    x_BLD, other_BLD = (torch.randn(2, 7, 16, generator=generator(seed)) for seed in (0, 1))
    assert layout.order_BL is not None
    with torch.no_grad():
        before_BLD = body(x_BLD, layout)
        for row, changed in itertools.product(range(2), range(7)):
            x = x_BLD.clone()
            x[row, changed] = other_BLD[row, changed]
            moved_BL = (body(x, layout) - before_BLD).abs().amax(-1)
            order, segment = layout.order_BL[row], layout.segments_BL[row]
            sees = (segment == segment[changed]) & ((order[changed] == 0) | (order > order[changed]))
            assert bool((moved_BL[row][sees] > 1e-3).all()), (row, changed)
            assert bool((moved_BL[row][~sees] == 0).all()), (row, changed)
            assert bool((moved_BL[1 - row] == 0).all())


def test_no_prediction_of_a_permuted_model_sees_its_event_or_later_ones() -> None:
    model, sessions = model_of("xlnet", objective="permuted"), equal_sessions(6, 7).select(torch.arange(6))
    task = task_of(Permuted(probability=0.5, max_span=2), sessions, seed=3, lay=model.lay_out)
    order_BL = task.places.order_BL
    assert order_BL is not None
    asked_BL = order_BL > 0
    with torch.no_grad():
        before_BLD = model.encode(task.batch)
        for row, place in asked_BL.nonzero().tolist():
            event = int(task.asked_BL[row, place])
            changed = sessions_of([[3 + (item - 3 + 17) % 47] for item in sessions.items.tolist()])
            one = {name: values.clone() for name, values in sessions.events.items()}
            for name, values in one.items():
                values[event] = changed.events[name][event]
            other = Sessions(one, sessions.starts, sessions.lengths, sessions.end)
            moved = make_batch(other, task.places, task.event_BL, task.asked_BL)
            moved_BL = (model.encode(moved) - before_BLD).abs().amax(-1)
            mine_BL = task.places.session_BL == task.places.session_BL[row, place]
            later_BL = mine_BL & asked_BL & (order_BL > order_BL[row, place])
            assert bool((moved_BL[later_BL] > 0).all())
            assert bool((moved_BL[~later_BL] == 0).all())


@pytest.mark.parametrize("direction", ["both", "permuted"])
def test_xlnet_is_the_one_of_transformers(direction: str) -> None:
    body, x_BLD = xlnet(num_heads=4), torch.randn(1, 5, 16, generator=generator())
    layout = Layout(torch.ones(1, 5, dtype=torch.long), torch.arange(5)[None], direction, None, torch.tensor([[0, 2, 0, 0, 1]]))  # type: ignore[arg-type]  # fmt: skip
    theirs: dict[str, Tensor] = {}
    if direction == "permuted":
        hidden = torch.zeros(1, 5, 5)
        hidden[0, [0, 1, 2, 3, 4], 1] = 1  # the last to be predicted is seen by none
        hidden[0, [0, 2, 3, 4], 4] = 1  # the first by the last only
        theirs = {"perm_mask": hidden, "target_mapping": torch.eye(5)[None]}
    with torch.no_grad():
        torch.testing.assert_close(body(x_BLD, layout), body.model(inputs_embeds=x_BLD, **theirs).last_hidden_state)


# Replaced token


def test_proposals_are_drawn_from_the_softmax_of_scores_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = {"next_item": {"bias": True}}
    model = model_of({"name": "sasrec", "dim": 4}, num_items=12, objective="replaced_token", heads=heads)
    h_D = torch.randn(4, generator=generator())
    with torch.no_grad():
        assert model.next_item.bias_V is not None
        model.next_item.bias_V.normal_()
        model.inputs.items.table_VE.normal_(std=0.7)
        law = (model.next_item.catalogue(model.inputs.items) @ h_D + model.next_item.bias_V).softmax(0)
    largest: list[int] = []

    class Sizes(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.is_floating_point() and result.shape[1:] == (12,):
                largest.append(result.numel())
            return result

    monkeypatch.setattr(next_item, "SCORES_AT_ONCE", 7 * 12 + 5)
    torch.manual_seed(0)
    count = 20_000
    with Sizes():
        drawn = model.propose(h_D.expand(count, 4))
    assert drawn.shape == (count,) and drawn.min() == FIRST_ID
    assert near(torch.bincount(drawn - FIRST_ID, minlength=12) / count, law.double(), count)
    assert max(largest) == 7 * 12


def test_proposals_fill_hidden_places_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sessions = model_of("sasrec", objective="replaced_token"), random_sessions(40, 50)
    batch, read = model.training_batch(sessions, generator()), []
    encode, propose = model.encode, model.propose
    monkeypatch.setattr(model, "encode", lambda given, **how: read.append(given) or encode(given, **how))
    proposed: list[Tensor] = []

    def propose_some_right(h_ND: Tensor) -> Tensor:
        drawn = propose(h_ND)
        drawn[::3] = batch.target_N[::3]
        proposed.append(drawn)
        return drawn

    monkeypatch.setattr(model, "propose", propose_some_right)
    objective = model.objective
    assert isinstance(objective, ReplacedToken)
    logit_BL, replaced_BL = objective.judge(model, batch, encode(batch))
    (second,) = read
    hidden_BL = batch.masked_BL
    assert torch.equal(batch.asked_N, hidden_BL.flatten().nonzero().squeeze(1))
    assert not second.masked_BL.any()
    assert torch.equal(second.features[ITEM_ID][hidden_BL].long(), proposed[0])
    assert torch.equal(second.features[ITEM_ID][~hidden_BL], batch.features[ITEM_ID][~hidden_BL])
    assert second.layout is batch.layout and second.features.keys() == batch.features.keys() == {ITEM_ID, *SIDE}
    assert all(not second.features[name].any() and batch.features[name].any() for name in SIDE)
    expected_BL = torch.zeros_like(hidden_BL)
    expected_BL[hidden_BL] = proposed[0] != batch.target_N
    assert torch.equal(replaced_BL, expected_BL)
    assert logit_BL.shape == replaced_BL.shape and 0 < int(replaced_BL.sum()) < int(hidden_BL.sum())


def test_loss_is_the_generators_plus_weight_times_the_discriminators() -> None:
    model = model_of("sasrec", objective={"name": "replaced_token", "weight": 3.0})
    batch = model.training_batch(random_sessions(40, 50), generator())
    assert isinstance(model.objective, ReplacedToken)
    torch.manual_seed(0)
    loss = model(batch)
    h_BLD = model.encode(batch)
    torch.manual_seed(0)
    logit_P, replaced_P = (found_BL[batch.layout.inside_BL] for found_BL in model.objective.judge(model, batch, h_BLD))
    wrong_P = torch.where(replaced_P, 1 - logit_P.sigmoid(), logit_P.sigmoid())
    torch.testing.assert_close(loss, model.heads_loss(h_BLD, batch) - 3 * (1 - wrong_P).log().mean())


def taught(model: SequenceModel) -> set[str]:
    """The parameters that have a gradient."""
    return {name for name, weight in model.named_parameters() if weight.grad is not None and bool(weight.grad.any())}


def test_both_passes_teach_the_body_and_the_draw_does_not() -> None:
    model = model_of("sasrec", objective="replaced_token", heads={"next_item": {"bias": True}}).train()
    batch = model.training_batch(random_sessions(40, 50), generator())
    assert isinstance(model.objective, ReplacedToken) and model.objective_parts is not None
    h_BLD = model.encode(batch)
    model.heads_loss(h_BLD, batch).backward(retain_graph=True)
    by_generator = taught(model)
    model.zero_grad()
    h_BLD.requires_grad_().retain_grad()
    logit_BL, _ = model.objective.judge(model, batch, h_BLD)
    logit_BL[batch.layout.inside_BL].sum().backward()
    everything = {name for name, _ in model.named_parameters()}
    assert everything - by_generator == {name for name in everything if name.startswith("objective_parts")}
    unread = {"inputs.side.1.value.weight"}  # the slope of a price that is 0 everywhere
    assert everything - taught(model) == {"inputs.mask_D", "heads.next_item.bias_V"} | unread
    assert h_BLD.grad is None


def test_the_discriminator_learns(tmp_path: Path) -> None:
    """On sessions that follow a rule, what breaks it is found in sessions never seen, and among hidden places too."""
    objective = {"name": "replaced_token", "probability": 0.3, "weight": 50.0}
    body = {"name": "sasrec", "dropout": 0.0, "dim": 32}
    config = model_of(body, num_items=40, inputs={"features": []}, objective=objective).settings
    model, _ = trained(config, chain_sessions(600, 40), 40, tmp_path, epochs=24, tokens_per_step=256)
    batch = model.training_batch(chain_sessions(500, 40, seed=5), generator(5))
    assert isinstance(model.objective, ReplacedToken)
    with torch.no_grad():
        found = model.objective.judge(model, batch, model.encode(batch))
    logit_P, replaced_P = (found_BL[batch.layout.inside_BL] for found_BL in found)
    right_P, original_P = (logit_P > 0) == replaced_P, ~replaced_P
    assert right_P.double().mean() > original_P.double().mean() + 0.05
    hidden_P = batch.masked_BL[batch.layout.inside_BL]
    replaced, kept = logit_P[hidden_P & replaced_P], logit_P[hidden_P & original_P]
    auc = (replaced[:, None] > kept).double().mean()
    assert auc > 0.8  # of the draws alone: which places were hidden tells nothing here


def test_it_needs_a_head_that_proposes_items() -> None:
    config = ModelConfig.model_validate({"objective": "replaced_token", "heads": {"bought": {"name": "binary"}}})
    with pytest.raises(InputError, match=r"learns from what the head next_item proposes.*bought"):
        parts.check(config)


@pytest.mark.parametrize("swap_noise", [0.0, 0.6])
def test_what_was_swapped_is_not_called_original(swap_noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training with swap noise, the discriminator reads every event but the proposals as it was."""
    inputs = {"swap_noise": swap_noise, "features": []}
    model, sessions = model_of("sasrec", objective="replaced_token", inputs=inputs).train(), random_sessions(40, 50)
    batch, read, labels = model.training_batch(sessions, generator()), [], []
    of, judge = model.inputs.items.of, model.objective.judge  # type: ignore[attr-defined]
    monkeypatch.setattr(model.inputs.items, "of", lambda ids, *event: read.append(ids) or of(ids, *event))
    monkeypatch.setattr(model.objective, "judge", lambda *given: labels.append(judge(*given)[1]) or judge(*given))
    model(batch)
    first_BL, second_BL = read[:2]
    true_BL = filled(batch.features[ITEM_ID], batch, batch.target_N)
    assert torch.equal(labels[0], second_BL != true_BL), "a label for each item that is not the one that was there"
    there_BL = batch.layout.inside_BL & ~batch.masked_BL
    noisy = (first_BL != true_BL)[there_BL].float().mean()
    assert noisy > 0.4 if swap_noise else noisy < 0.05
