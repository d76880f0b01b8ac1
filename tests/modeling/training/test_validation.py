"""Which metric judges a run, on how many cases, which weights it chooses, and when it stops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from modeling.splits import Cases, hide_last
from modeling.training.checkpoints import State
from modeling.training.log import describe_cases
from modeling.training.validation import Judge, goal_of, judge_of, validate
from tests.conftest import model_of, random_sessions, sessions_of
from tests.modeling.test_heads import SCHEMA, coin_sessions, model_with

NOTHING = Cases(sessions_of([[5]]), torch.tensor([], dtype=torch.long))


def judge(goal: str = "ndcg@20", count: int = 1000) -> Judge:
    return Judge(NOTHING, goal, count, chooses=True)


def considered(judge: Judge, values: list[float], patience: int = 3) -> tuple[State, list[int]]:
    """The state after validations, one a step, until it stops, and the steps at which a collapse was found."""
    state, collapses = State(), []
    for value in values:
        state.step += 1
        if judge.consider(state, value, patience):
            collapses.append(state.step)
        if state.stopped:
            break
    return state, collapses


@pytest.mark.parametrize(
    ("goal", "values", "best", "stopped_at"),
    [
        ("ndcg@20", [0.1, 0.3, 0.2, 0.2, 0.4], 5, None),
        ("ndcg@20", [0.1, 0.3, 0.2, 0.2, 0.2, 0.4], 2, 5),
        ("own/rmse", [3.0, 1.0, 2.0, 2.0, 2.0, 0.5], 2, 5),
        ("own/auc", [0.5, 0.9, 0.8, 0.8, 0.8], 2, 5),
        ("ndcg@20", [0.1, 0.3, 0.3, 0.2, 0.2], 3, 5),  # as good, and has read more; but no better
        ("ndcg@20", [0.0, 0.0, 0.0, 0.0], 4, 4),
    ],
)
def test_the_best_weights_and_the_patience(goal: str, values: list[float], best: int, stopped_at: int | None) -> None:
    state, _ = considered(judge(goal), values)
    assert state.best_step == state.chosen_step == best
    assert (state.step if state.stopped else None) == stopped_at


@pytest.mark.parametrize(
    ("goal", "values", "collapses"),
    [
        ("ndcg@20", [0.2, 0.11, 0.09, 0.01], [3]),
        ("ndcg@20", [0.2, 0.11, 0.12], []),
        ("own/auc", [0.8, 0.66, 0.6], [3]),  # of what is above .5
        ("own/rmse", [1.0, 1.9, 2.1], [3]),
    ],
)
def test_a_collapse_is_found_once(goal: str, values: list[float], collapses: list[int]) -> None:
    state, steps = considered(judge(goal), values, patience=10)
    assert steps == collapses
    assert state.collapsed_step == (collapses or [None])[0]


def test_in_order_of_time_validation_watches_and_chooses_nothing() -> None:
    model, cases = model_of("sasrec"), hide_last(random_sessions(100, 50))
    assert judge_of(model, cases, "random").chooses
    watching = judge_of(model, cases, "time")
    assert watching.count == 100 and not watching.chooses
    state, collapses = considered(watching, [0.3, 0.1, 0.1, 0.1, 0.2], patience=1)
    assert (state.step, state.best, state.chosen_step, collapses) == (5, 0.3, None, [2])


def test_cases_whose_target_training_does_not_know_are_no_cases() -> None:
    model = model_of("sasrec")
    known, unknown = hide_last(sessions_of([[5, 6], [7, 8]])), hide_last(sessions_of([[5, 2], [7, 1]]))
    assert judge_of(model, known, "random").count == 2
    nothing = judge_of(model, unknown, "random")
    assert nothing.count == 0
    assert "no validation case has a ndcg@20" in describe_cases(nothing)
    assert validate(model, unknown) == {}
    assert set(validate(model, known)) == {"ndcg@20", "recall@20"}
    judge = judge_of(model, known, "random")
    assert judge.validate(model)["ndcg@20"] == pytest.approx(sum(judge.gains) / 2) and len(judge.gains) == 2


def test_few_cases_choose_and_that_is_said() -> None:
    model = model_of("sasrec")
    few, many = (judge_of(model, hide_last(random_sessions(count, 50)), "random") for count in (99, 100))
    assert "Only 99 validation cases" in describe_cases(few)
    assert describe_cases(many) == ""


def test_the_goal_is_one_that_the_cases_define() -> None:
    """Labels that are all alike have no AUC: the next head judges, and with none left nobody does."""
    heads = {"past": "binary", "own": {"name": "regression"}}
    sessions = coin_sessions(50, 0)
    model = model_with(SCHEMA, heads)
    assert judge_of(model, hide_last(sessions), "random").goal == goal_of(model) == "past/auc"
    alike = replace(sessions, labels=sessions.labels | {"past": torch.ones(50)})
    chosen = judge_of(model, hide_last(alike), "random")
    assert chosen.goal == "own/rmse" and chosen.count > 0
    assert "past/auc" not in validate(model, hide_last(alike))
    only = model_with(SCHEMA, {"past": "binary"})
    assert judge_of(only, hide_last(alike), "random").count == 0
    missing = replace(sessions, labels=sessions.labels | {"past": torch.full((50,), torch.nan)})
    assert judge_of(only, hide_last(missing), "random").count == 0
