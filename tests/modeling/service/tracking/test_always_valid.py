"""How often two equal models are said to differ by somebody who looks all the time, and how soon unequal ones are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modeling.service.tracking.always_valid import MIN_CLICKS, MIN_USERS, difference, radius, ratio_variance

LOOKS = 40


def looks(draw: np.random.Generator, users: int, concentration: float, gain: float) -> tuple[bool, bool]:
    """Visits of users who come again and click as they are given to: whether any look finds a difference; and whether an
    interval for one look would, at any of them."""
    second = draw.random(users) < 0.5
    activity = draw.gamma(1.0, size=users) + 1e-9
    liking = draw.beta(concentration, concentration * 19, size=users) * np.where(second, 1 + gain, 1)
    who = draw.choice(users, 8000, p=activity / activity.sum())
    shown = draw.integers(4, 12, len(who))
    clicked = draw.binomial(shown, np.clip(liking[who], 0, 1))
    found = once = False
    all_shown, all_clicked = np.zeros(users), np.zeros(users)
    for visits in np.array_split(np.arange(len(who)), LOOKS):
        np.add.at(all_shown, who[visits], shown[visits])
        np.add.at(all_clicked, who[visits], clicked[visits])
        a, b = (all_shown > 0) & ~second, (all_shown > 0) & second
        now = difference(all_shown[a], all_clicked[a], all_shown[b], all_clicked[b])
        variance = sum(ratio_variance(all_shown[arm], all_clicked[arm]) for arm in (a, b))
        found |= now.better != ""
        once |= now.low is not None and abs(now.estimate) > 1.96 * math.sqrt(variance)
    return found, once


@pytest.mark.parametrize(("users", "concentration"), [(1500, 0.5), (1500, 4.0), (20_000, 0.5)])
def test_equal_models_are_seldom_said_to_differ_however_often_one_looks(users: int, concentration: float) -> None:
    draw = np.random.default_rng(11)
    found, once = np.array([looks(draw, users, concentration, 0.0) for _ in range(120)]).sum(0)
    assert found / 120 <= 0.05, "at most alpha, of all looks together"
    assert once / 120 > 0.12, "an interval of one look, looked at again and again, is wrong far more often"


def test_a_better_model_is_found() -> None:
    draw = np.random.default_rng(12)
    assert sum(looks(draw, 3000, 4.0, 0.4)[0] for _ in range(10)) >= 9


def test_the_interval_is_that_of_the_paper() -> None:
    """Theorem 2.2 at t = 100, alpha 0.05, rho chosen for 100: 1.6 times the width of one look."""
    rho2 = (-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / 100
    wanted = math.sqrt(2 * (100 * rho2 + 1) / (100**2 * rho2) * math.log(math.sqrt(100 * rho2 + 1) / 0.05))
    assert radius(100, 1.0, 0.05, 100) == pytest.approx(wanted) == pytest.approx(0.30, abs=0.01)
    assert radius(100, 1.0, 0.05, 100) > radius(200, 1.0, 0.05, 100) > 1.96 / math.sqrt(200)


def test_variance_is_that_of_users() -> None:
    """Users who always or never click: as if each had been asked once, and not as so many coins."""
    shown, clicked = np.full(1000, 10.0), np.tile([10.0, 0.0], 500)
    assert ratio_variance(shown, clicked) == pytest.approx(0.25 / 999)
    assert ratio_variance(np.zeros(0), np.zeros(0)) == math.inf


def test_too_little_is_not_compared() -> None:
    many, few = np.ones(MIN_USERS), np.ones(MIN_USERS - 1)
    half = np.tile([1.0, 0.0], MIN_USERS // 2)
    assert difference(few, few, many, half).low is None
    rare = np.zeros(MIN_USERS)
    rare[: MIN_CLICKS - 1] = 1
    assert difference(many, half, many, rare).low is None
    assert difference(many, half, many, half).low is not None
    nobody = difference(np.zeros(0), np.zeros(0), many, half)
    assert nobody.low is None and nobody.rates == (0.0, 0.5)
