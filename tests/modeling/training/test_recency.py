"""Recent popularity: what counts half after how many hours, and which sessions are recent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modeling.config import TrainingConfig
from modeling.sessions import Sessions
from modeling.splits import Split, hide_last
from modeling.training.fit import fit, set_popularity
from modeling.training.recency import (
    HOUR_MICROSECONDS,
    USUAL,
    choose_half_life,
    newest_days,
    recent_counts,
)
from schemas.errors import InputError
from tests.conftest import model_of, schema_of, sessions_of


def ended(items: list[list[int]], hours: list[float]) -> Sessions:
    """Sessions of these item ids that ended after so many hours."""
    ends = torch.tensor([round(hour * HOUR_MICROSECONDS) for hour in hours])
    return replace(sessions_of(items), end=ends)


def test_an_event_counts_half_for_every_half_life_of_its_age() -> None:
    sessions = ended([[3, 3], [4, 5], [1, 6]], [8, 10, 12])
    assert recent_counts(sessions, 2.0, 4).tolist() == [0.5, 0.5, 0.5, 1.0]  # twice a quarter, half, half, one
    assert recent_counts(sessions, 1.0, 3).tolist() == [0.125, 0.25, 0.25]  # item 6 is outside the catalogue


def test_no_sessions_count_nothing() -> None:
    nothing = ended([[3, 4]], [1.0]).select(torch.zeros(1, dtype=torch.bool))
    assert recent_counts(nothing, 1.0, 2).tolist() == [0, 0]
    assert choose_half_life(nothing, 2) == USUAL
    assert len(newest_days(nothing, 2)) == 0


def test_items_that_last_for_an_hour_have_a_short_half_life_and_those_that_stay_a_long_one() -> None:
    hours = list(range(24 * 9))
    moving = ended([[3 + hour // 12, 3 + hour // 12] * 40 for hour in hours], [float(hour) for hour in hours])
    staying = ended([[3 + hour % 18, 3 + (hour * 5) % 18] for hour in hours], [float(hour) for hour in hours])
    assert choose_half_life(moving, 18) <= 2
    assert choose_half_life(staying, 18) >= 168


def test_the_newest_day_alone_leaves_the_usual_half_life() -> None:
    assert choose_half_life(ended([[3, 4], [3, 5]], [1.0, 3.0]), 3) == USUAL


def test_recent_days_end_with_the_newest_session() -> None:
    sessions = ended([[3, 4]] * 5, [0, 10, 25, 47, 48])
    assert newest_days(sessions, 1).end.tolist() == [hour * HOUR_MICROSECONDS for hour in (25, 47, 48)]
    assert len(newest_days(sessions, 2)) == 4  # not the one that ended exactly 48 hours before
    assert len(newest_days(sessions, None)) == 5


@pytest.mark.parametrize(("half_life", "first"), [("day", 19), (1.0, 20), ("chosen", 20)])
def test_the_bias_begins_at_what_is_recent(half_life: object, first: int) -> None:
    """Item 19 leads the newest day, item 20 its last hours, and the days before say that hours are what counts."""
    items = [[3 + hour // 12] * 30 for hour in range(24 * 8)] + [[19] * 3] * 20 + [[20] * 4] * 4
    train = ended(items, [float(hour) for hour in range(24 * 9)])
    head = model_of("sasrec", num_items=18, heads={"next_item": {"bias": True, "bias_half_life": half_life}}).next_item
    set_popularity(head, train, newest_days(train, 1))
    assert head.bias_V is not None and int(head.bias_V.argmax()) + 3 == first


@pytest.mark.parametrize("half_life", [0, -1.0, "week"])
def test_a_half_life_that_is_none_is_refused(half_life: object) -> None:
    with pytest.raises(InputError, match="bias_half_life"):
        model_of("sasrec", num_items=4, heads={"next_item": {"bias": True, "bias_half_life": half_life}})


def test_training_reads_the_recent_days_alone(tmp_path: Path) -> None:
    train = ended([[3, 4, 3]] * 6 + [[5, 6, 5]] * 6, [float(hour) for hour in (*range(6), *range(100, 106))])
    nothing = hide_last(train.select(torch.arange(0)))
    split = Split(train, nothing, nothing, train.select(torch.arange(6, 12)))
    settings = model_of("sasrec", num_items=5).settings
    config = TrainingConfig(epochs=1, tokens_per_step=16, threads=1, recent_days=1)
    model, facts = fit(schema_of(5), split, settings, config, tmp_path, lambda line: None)
    assert facts["sessions"] == 6
    assert model.next_item.popularity_V.tolist() == [0, 0, 12, 6, 0]
