"""Heads on labels: what they learn from, where, and that no label tells itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from modeling import bodies, objectives, parts
from modeling.batches import Batch, make_batch
from modeling.config import EvaluationConfig, ModelConfig, PromotionConfig, TrainingConfig
from modeling.evaluation.metrics import auc
from modeling.model import SequenceModel
from modeling.scoring import ModelScorer, predict
from modeling.sessions import Sessions
from modeling.splits import Cases, Split, hide_last, label_cases
from modeling.training.fit import fit
from modeling.training.schedule import make_schedule
from modeling.training.validation import goal_of, validate
from schemas import plugins
from schemas.errors import InputError
from schemas.features import FeatureSchema, LabelColumn
from tests.conftest import random_sessions, schema_of, sessions_of

NUM_ITEMS = 20
every_objective = pytest.mark.parametrize("objective", plugins.names(objectives))


def schema_with(session: tuple[str, ...] = (), event: tuple[str, ...] = (), **about: Any) -> FeatureSchema:
    labels = [LabelColumn(name=name, per="session", source=name) for name in session]
    labels += [LabelColumn(name=name, per="event", source=name) for name in event]
    return schema_of(NUM_ITEMS).model_copy(update={"labels": tuple(labels)} | about)


def model_with(schema: FeatureSchema, heads: dict[str, Any], objective: str = "causal") -> SequenceModel:
    torch.manual_seed(3)
    body = next(name for name in ("sasrec", *plugins.names(bodies)) if parts.goes_together(name, objective))
    groups = {"body": {"name": body, "dim": 16, "dropout": 0.0}, "heads": heads, "objective": objective}
    return SequenceModel(ModelConfig.model_validate(groups), schema).eval()


def batch_of(model: SequenceModel, sessions: Sessions) -> Batch:
    return make_schedule(model, sessions, TrainingConfig(epochs=1, tokens_per_step=10_000))[0]


def odd(items: torch.Tensor) -> torch.Tensor:
    return (items % 2).float()


def coin_sessions(count: int, seed: int) -> Sessions:
    """Random items; labels of the session are the last item's and the one's before it, of an event its own and the one's
    before it.
    """
    sessions = random_sessions(count, NUM_ITEMS, seed, longest=6)
    before = torch.cat([sessions.items[:1], sessions.items[:-1]])
    return replace(
        sessions,
        labels={"last": odd(sessions.item_from_end(0)), "past": odd(sessions.item_from_end(1))},
        event_labels={"own": odd(sessions.items), "before": odd(before)},
    )


@every_objective
def test_labels_are_foretold_from_what_comes_before_and_from_nothing_else(objective: str, tmp_path: Path) -> None:
    """A label that only the hidden event knows is a coin's flip, in training too: a head that sees it would be right."""
    schema = schema_with(("last", "past"), ("own", "before"))
    heads = {"next_item": {}} | {label.name: "binary" for label in schema.labels}
    train, test = coin_sessions(1200, 0), coin_sessions(1200, 1)
    config = model_with(schema, heads, objective).settings
    training = TrainingConfig(epochs=7, tokens_per_step=256, evaluations=1, learning_rate=1e-2, threads=1)
    split = Split(train, hide_last(test), hide_last(test), train)
    model, _ = fit(schema, split, config, training, tmp_path, lambda line: None)
    found = {}
    for where, sessions in (("test", test), ("train", train)):
        for label in schema.labels:
            histories, value_N = label_cases(hide_last(sessions), label, back=True)
            found[where, label.name] = auc(predict(model, histories)[label.name], value_N)
    for where, tolerance in (("test", 0.05), ("train", 0.1)):
        assert all(abs(found[where, name] - 0.5) < tolerance for name in ("last", "own")), found
        assert all(found[where, name] > 0.9 for name in ("past", "before")), found


def test_a_label_of_the_session_can_be_learned_at_every_place(tmp_path: Path) -> None:
    """Whether the first item is odd is known all along."""
    sessions = random_sessions(600, NUM_ITEMS, longest=5)
    sessions = replace(sessions, labels={"first": odd(sessions.items[sessions.starts])})
    schema, split = schema_with(("first",)), Split(sessions, hide_last(sessions), hide_last(sessions), sessions)
    model = model_with(schema, {"first": {"name": "binary", "at": "every"}})
    batch = batch_of(model, sessions)
    every, last = model.heads["first"], model_with(schema, {"first": "binary"}).heads["first"]
    known_N = ~batch.labels["first"].isnan()
    assert int(known_N.sum()) == sessions.num_events - len(sessions)
    assert int((known_N & batch.is_last_N).sum()) == len(sessions)
    h_BLD = torch.randn(*batch.masked_BL.shape, 16)
    for head, chosen_N in ((every, known_N), (last, known_N & batch.is_last_N)):
        by_hand = F.binary_cross_entropy_with_logits(
            head.decide(batch.states(h_BLD)[chosen_N]).squeeze(-1), batch.labels["first"][chosen_N]
        )
        torch.testing.assert_close(head.loss(h_BLD, batch, model.inputs.items), by_hand)
    training = TrainingConfig(epochs=8, tokens_per_step=256, evaluations=2, learning_rate=1e-2, threads=1)
    _, facts = fit(schema, split, model.settings, training, tmp_path, lambda line: None)
    assert facts["validation_first/auc"] > 0.95


def test_a_batch_says_what_the_event_asked_about_holds() -> None:
    sessions = replace(
        sessions_of([[3, 4, 5], [6, 7]]),
        labels={"bought": torch.tensor([1.0, 0.0])},
        event_labels={"dwell": torch.tensor([10.0, 11.0, torch.nan, 20.0, 21.0])},
    )
    model = model_with(schema_with(("bought",), ("dwell",)), {"bought": "binary", "dwell": "regression"})
    batch = batch_of(model, sessions)
    session_N = batch.layout.session_BL.flatten()[batch.asked_N]
    first_N, second_N = session_N == 0, session_N == 1
    assert batch.target_N[first_N].tolist() == [4, 5] and batch.target_N[second_N].tolist() == [7]
    assert batch.labels["dwell"][first_N].tolist() == pytest.approx([11, torch.nan], nan_ok=True)
    assert batch.labels["bought"][first_N].tolist() == [1, 1]
    assert batch.is_last_N[first_N].tolist() == [False, True]
    assert batch.labels["dwell"][second_N].tolist() == [21]
    assert batch.labels["bought"][second_N].tolist() == [0]
    assert batch.weight_N.tolist() == pytest.approx([1 / 3] * 3)


def test_an_event_in_sight_where_it_is_asked_about_does_not_teach_its_label() -> None:
    """Masking leaves one in ten as it is; with an order of prediction, what lies at a place is not seen from it."""
    sessions = replace(sessions_of([[3, 4, 5]]), event_labels={"dwell": torch.tensor([10.0, 11.0, 12.0])})
    layout = model_with(schema_with(event=("dwell",)), {"dwell": "regression"}).lay_out(sessions)
    event_BL, asked_BL = torch.tensor([[0, -1, 2]]), torch.tensor([[-1, 1, 2]])
    batch = make_batch(sessions, layout, event_BL, asked_BL)
    assert batch.asked_N.tolist() == [1, 2]
    assert batch.labels["dwell"].tolist() == pytest.approx([11, torch.nan], nan_ok=True)
    ordered = make_batch(sessions, replace(layout, order_BL=torch.tensor([[0, 1, 2]])), event_BL, asked_BL)
    assert ordered.labels["dwell"].tolist() == [11, 12]


@every_objective
def test_every_parameter_gets_a_finite_gradient(objective: str) -> None:
    schema = schema_with(("last",), ("own",))
    heads = {"own": "regression", "last": "binary"}
    if plugins.find(objectives, objective).needs_next_item:
        heads |= {"next_item": {"name": "next_item"}}  # type: ignore[dict-item]
    model = model_with(schema, heads, objective).train()
    model(batch_of(model, coin_sessions(100, 0))).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_a_batch_without_labels_costs_nothing() -> None:
    model = model_with(schema_with(("last",), ("own",)), {"own": "regression", "last": "binary"}).train()
    sessions = coin_sessions(20, 0)
    unknown = {"labels": sessions.labels, "event_labels": sessions.event_labels}
    unknown = {
        kind: {name: torch.full_like(v, torch.nan) for name, v in found.items()} for kind, found in unknown.items()
    }
    loss = model(batch_of(model, replace(sessions, **unknown)))
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_losses_of_heads_are_weighted() -> None:
    schema, sessions = schema_with(("last",), ("own",)), coin_sessions(50, 0)
    heads = {"next_item": {"weight": 0.5}, "last": {"name": "binary", "weight": 2.0}, "own": {"name": "regression"}}
    model = model_with(schema, heads)
    batch = batch_of(model, sessions)
    h_BLD = model.encode(batch)
    parts = {label: head.loss(h_BLD, batch, model.inputs.items) for label, head in model.heads.items()}
    torch.testing.assert_close(model(batch), 0.5 * parts["next_item"] + 2 * parts["last"] + parts["own"])


def test_states_do_not_depend_on_labels() -> None:
    model = model_with(schema_with(("last", "past"), ("own", "before")), {"last": "binary", "own": "binary"})
    sessions = coin_sessions(20, 0)
    other = replace(sessions, labels={}, event_labels={})
    with torch.no_grad():
        assert torch.equal(model.states(sessions), model.states(other))
    assert torch.equal(predict(model, sessions)["own"], predict(model, other)["own"])


def test_a_binary_head_begins_at_the_base_rate() -> None:
    head = model_with(schema_with(("bought",)), {"bought": "binary"}).label_heads["bought"]
    sessions = replace(
        sessions_of([[3, 4]] * 20), labels={"bought": torch.tensor([1.0] * 3 + [0.0] * 16 + [torch.nan])}
    )
    head.start(sessions)
    assert head.predict(torch.zeros(1, 16)).item() == pytest.approx(3.5 / 20)
    head.start(replace(sessions, labels={"bought": torch.zeros(20)}))
    assert 0 < head.predict(torch.zeros(1, 16)).item() < 0.05


def test_a_regression_head_learns_standardised_and_answers_in_raw_units(tmp_path: Path) -> None:
    value_N = torch.tensor([10.0, 20.0, 30.0, 40.0])
    sessions = replace(sessions_of([[3, 4]] * 4), labels={"spent": value_N})
    schema, h_ND = schema_with(("spent",)), torch.randn(4, 16)
    for options, to_scale in (({}, lambda x: x), ({"log": True}, torch.log1p)):
        model = model_with(schema, {"spent": {"name": "regression"} | options})
        head = model.label_heads["spent"]
        head.start(sessions)
        scaled_N = to_scale(value_N)
        mean, std = scaled_N.mean(), scaled_N.std(correction=0)
        score_N = head.decide(h_ND).squeeze(-1)
        back = torch.expm1(score_N * std + mean) if options else score_N * std + mean
        torch.testing.assert_close(head.predict(h_ND), back)
        torch.testing.assert_close(head.error(score_N, value_N), (score_N - (scaled_N - mean) / std) ** 2)
        model.save(tmp_path)
        loaded = SequenceModel.load(tmp_path).label_heads["spent"]
        assert torch.equal(loaded.predict(h_ND), head.predict(h_ND))
    constant = replace(sessions, labels={"spent": torch.full((4,), 7.0)})
    head.start(constant)
    assert head.predict(torch.zeros(1, 16)).isfinite().all()


def test_huber_grows_like_the_distance() -> None:
    head = model_with(schema_with(("spent",)), {"spent": {"name": "regression", "loss": "huber"}}).label_heads["spent"]
    found = [float(head.error(torch.tensor([score]), torch.tensor([0.0]))) for score in (0.5, 3.0)]
    assert found == pytest.approx([0.5 * 0.5**2, 3 - 0.5])


@pytest.mark.parametrize(
    ("heads", "labels", "words"),
    [
        (
            {"bought": "binary"},
            [0.0, 1.0, 2.0, 0.5],
            r"heads\.bought: a binary label is 0 or 1, these sessions have 0\.5, 2",
        ),
        ({"bought": "binary"}, [torch.nan] * 4, r"heads\.bought: the label is null"),
        ({"bought": "regression"}, [0.0, torch.inf, 2.0, 3.0], r"heads\.bought: the label has infinite"),
        ({"bought": {"name": "regression", "log": True}}, [0.0, -2.0, 2.0, 3.0], r"from 0 on, these sessions have -2"),
    ],
)
def test_labels_that_cannot_be_learned_are_named(
    heads: dict[str, Any], labels: list[float], words: str, tmp_path: Path
) -> None:
    sessions = replace(sessions_of([[3, 4]] * 4), labels={"bought": torch.tensor(labels)})
    schema, split = schema_with(("bought",)), Split(sessions, hide_last(sessions), hide_last(sessions), sessions)
    config = model_with(schema, heads).settings
    with pytest.raises(InputError, match=words):
        fit(schema, split, config, TrainingConfig(threads=1), tmp_path, lambda line: None)


@pytest.mark.parametrize(
    ("schema", "heads", "objective", "words"),
    [
        (schema_with(("bought",)), {"bougt": "binary"}, "causal", "Unknown label 'bougt'. Did you mean 'bought'?"),
        (schema_of(NUM_ITEMS), {"bought": "binary"}, "causal", "Unknown label 'bought'. Known: none"),
        (schema_with(("bought",)), {"bought": "binry"}, "causal", "Unknown head 'binry'. Did you mean 'binary'"),
        (schema_with(("bought",)), {"bought": {"name": "binary", "att": "last"}}, "causal", "Did you mean 'at'"),
        (schema_with(("items",)), {"items": "binary"}, "causal", "A head cannot be called 'items'"),
        (
            schema_with(("bought",), split="leave_one_out"),
            {"bought": "binary"},
            "causal",
            r"heads.bought: the label is of the session.*\{column: bought, per: event\}",
        ),
        (
            schema_with(("bought",)),
            {"bought": {"name": "binary", "at": "every"}},
            "masked",
            "heads.bought: `at: every` needs objective causal. With masked",
        ),
    ],
)
def test_heads_that_cannot_be_are_refused(
    schema: FeatureSchema, heads: dict[str, Any], objective: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        model_with(schema, heads, objective)


def test_labels_of_events_go_with_histories_and_with_every_objective() -> None:
    for objective in ("causal", "masked"):
        head = {"name": "binary", "at": "every"}
        assert model_with(schema_with(event=("own",), split="leave_one_out"), {"own": head}, objective)


HEADS = {"own": {"name": "regression"}, "past": {"name": "binary"}}
SCHEMA = schema_with(("last", "past"), ("own", "before"))


def test_the_goal_follows_the_heads() -> None:
    assert goal_of(model_with(SCHEMA, {"own": "binary", "next_item": {}})) == "ndcg@20"
    assert goal_of(model_with(SCHEMA, HEADS)) == "past/auc"
    assert goal_of(model_with(SCHEMA, {"own": {"name": "regression"}})) == "own/rmse"


@pytest.mark.parametrize(
    ("heads", "goal", "best"), [(HEADS, "past/auc", max), ({"own": {"name": "regression"}}, "own/rmse", min)]
)
def test_the_best_weights_by_the_goal_are_kept(heads: dict[str, Any], goal: str, best: Any, tmp_path: Path) -> None:
    """A learning rate too high for the last validation to be the best; without a head for items."""
    sessions = coin_sessions(300, 0)
    split = Split(sessions, hide_last(sessions), hide_last(sessions), sessions)
    training = TrainingConfig(
        epochs=8, tokens_per_step=128, evaluations=8, patience=8, learning_rate=0.05, threads=1, order="random"
    )
    lines: list[str] = []
    model, facts = fit(
        SCHEMA, split, model_with(SCHEMA, heads).settings, training, tmp_path, lambda line: lines.append(str(line))
    )
    curve = [row["validation"][goal] for row in facts["history"] if goal in row["validation"]]
    assert facts["goal"] == goal
    assert len(curve) > 4 and facts[f"validation_{goal}"] == best(curve) != curve[-1]
    assert validate(model, split.validation)[goal] == pytest.approx(best(curve), abs=1e-6)
    assert any(f"validation {goal} {curve[0]:.4f}" in line for line in lines)


def test_an_undefined_goal_does_not_stop_a_run(tmp_path: Path) -> None:
    """Labels of validation that are all alike, or none at all: there is nothing to choose by, so the last weights are kept."""
    sessions = coin_sessions(100, 0)
    alike = replace(sessions, labels={"past": torch.ones(100), "last": torch.ones(100)})
    for cases in (hide_last(alike), Cases(alike.select(torch.tensor([], dtype=torch.long)), torch.tensor([]))):
        split = Split(sessions, cases, cases, sessions)
        training = TrainingConfig(epochs=8, tokens_per_step=128, evaluations=8, patience=1, threads=1, order="random")
        folder = tmp_path / str(len(cases.target))
        _, facts = fit(SCHEMA, split, model_with(SCHEMA, {"past": "binary"}).settings, training, folder, lambda _: None)
        assert facts["steps"] == facts["planned_steps"] == facts["best_step"]
        assert (facts["validation_cases"], facts["weights"], facts["validation_past/auc"]) == (0, "last step", None)


def test_a_model_without_a_head_for_items_does_not_rank() -> None:
    model = model_with(SCHEMA, HEADS)
    assert not hasattr(model.heads, "next_item")
    with pytest.raises(InputError, match="predicts own, past, not the next item"):
        ModelScorer(model)


def test_predictions_that_are_not_finite_are_told() -> None:
    model = model_with(SCHEMA, HEADS)
    model.label_heads["own"].decide.weight.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the model has diverged"):
        predict(model, coin_sessions(5, 0))


def test_predictions_are_those_of_each_history_alone() -> None:
    model, sessions = model_with(SCHEMA, HEADS), coin_sessions(1100, 0)  # more than are taken at a time
    together = predict(model, sessions)
    assert {label: len(values) for label, values in together.items()} == {"own": 1100, "past": 1100}
    for place in (0, 511, 512, 1099):
        alone = predict(model, sessions.select(torch.tensor([place])))
        for label in HEADS:
            torch.testing.assert_close(alone[label][0], together[label][place], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("metric", "known"),
    [("ndcg@20", True), ("past/auc", True), ("own/rmse", True), ("own/auc", False), ("auc", False), ("ndcg@7", False)],
)
def test_promotion_knows_the_metrics_of_the_heads(metric: str, known: bool) -> None:
    heads = model_with(SCHEMA, HEADS | {"next_item": {}}).settings.heads
    promotion = PromotionConfig(metric=metric)
    if known:
        promotion.check(EvaluationConfig(), heads)
    else:
        with pytest.raises(
            InputError, match=r"Unknown promotion\.metric .*Known: .*ndcg@20, .*own/mae, own/rmse, past/auc"
        ):
            promotion.check(EvaluationConfig(), heads)
    if metric == "ndcg@20":
        with pytest.raises(InputError, match=r"Unknown promotion\.metric .*Known: own/mae, own/rmse"):
            promotion.check(EvaluationConfig(), model_with(SCHEMA, HEADS).settings.heads)
