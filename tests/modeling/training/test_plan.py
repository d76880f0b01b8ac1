"""When a run logs, saves and validates, and its learning rates."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from modeling.config import TrainingConfig
from modeling.training.plan import Plan


def plan_of(steps_per_epoch: list[int], **settings: object) -> Plan:
    return Plan(steps_per_epoch, TrainingConfig.model_validate({"epochs": len(steps_per_epoch)} | settings))


@pytest.mark.parametrize(
    ("epochs", "evaluations", "ends"),
    [
        (4, 4, [1, 2, 3, 4]),
        (12, 10, [2, 3, 4, 5, 6, 8, 9, 10, 11, 12]),
        (40, 4, [10, 20, 30, 40]),
        (3, 2, [2, 3]),
        (5, 1, [5]),
    ],
)
def test_validations_fall_on_ends_of_epochs(epochs: int, evaluations: int, ends: list[int]) -> None:
    for order in ("time", "random"):
        plan = plan_of([7] * epochs, evaluations=evaluations, order=order)
        assert sorted(plan.validations) == [7 * end for end in ends]


def test_more_validations_than_epochs_fall_between_ends_too_in_random_order() -> None:
    assert sorted(plan_of([10, 10], evaluations=5, order="random").validations) == [5, 10, 14, 17, 20]


def test_amid_an_epoch_in_order_of_time_a_run_is_saved_and_logged_but_not_validated() -> None:
    plan = plan_of([50, 50], evaluations=10, order="time")
    assert plan.validations == {50, 100}
    assert sorted(plan.saves) == list(range(10, 101, 10))
    assert len(plan.logs) == 40 and plan.saves <= plan.logs


def test_long_epochs_are_saved_between_validations() -> None:
    """A half-life makes the first epoch much longer than the others."""
    plan = plan_of([80, 10, 10], evaluations=3)
    assert sorted(plan.validations) == [80, 90, 100]
    assert sorted(plan.saves) == [40, 80, 90, 100]


@pytest.mark.parametrize("evaluations", [1, 3, 10, 1000])
@pytest.mark.parametrize("steps_per_epoch", [[1], [1, 1, 1], [3, 1, 2], [50] * 7])
def test_the_last_step_is_always_logged_validated_and_saved(steps_per_epoch: list[int], evaluations: int) -> None:
    for order in ("time", "random"):
        plan = plan_of(steps_per_epoch, evaluations=evaluations, order=order)
        last = sum(steps_per_epoch)
        assert max(plan.validations) == max(plan.saves) == max(plan.logs) == last
        assert min(plan.logs) >= 1
        assert plan.validations <= plan.saves <= plan.logs


def test_epochs_that_are_over() -> None:
    plan = plan_of([4, 2])
    assert [plan.epoch(step) for step in range(7)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0]


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"schedule": "linear"}, [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ({"warmup_steps": 4}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ({"warmup_steps": 0.5, "schedule": "linear"}, [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]),
        ({"warmup_steps": 4, "schedule": "cosine"}, [0.25, 0.5, 0.75, 1, 1, 0.853553, 0.5, 0.146447]),
        ({"warmup_steps": 16}, [step / 16 for step in range(1, 9)]),
    ],
    ids=str,
)
def test_learning_rates(settings: dict[str, object], shares: list[float]) -> None:
    plan = plan_of([4, 4], learning_rate=0.5, **settings)
    assert [plan.share(step) for step in range(8)] == pytest.approx(shares, abs=1e-6)
    assert plan.rate(2) == 0.5 * plan.share(2)


def test_a_warmup_is_a_number_of_steps_or_a_share() -> None:
    with pytest.raises(ValidationError, match="neither a number of steps"):
        plan_of([4], warmup_steps=1.5)
