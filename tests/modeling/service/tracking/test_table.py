"""Answers and events -> rates, on tables that can be counted by hand."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modeling.service.tracking.rates import Rate, counts_by, pair_counts, pairs_of, rates_of, wilson
from modeling.service.tracking.split import Split
from modeling.service.tracking.store import Store
from modeling.service.tracking.table import Shown, in_buckets, shown_items

NOON = 20_520 * 86_400_000_000 + 43_200_000_000  # 2026-03-08 12:00


def answer(name: str, items: str, user: str | None = "ann", **more: Any) -> dict[str, Any]:
    sources = ["model"] * (len(items) - 1) + ["recent"]
    row = {"recommendation_id": name, "timestamp": NOON, "model": "models/1", "user_id": user}
    return row | {"items": list(items), "sources": sources} | more


def event(kind: str, item: str | None = None, answer: str | None = None, **more: Any) -> dict[str, Any]:
    row = {"event_type": kind, "item_id": item, "recommendation_id": answer, "timestamp": NOON, "received": NOON}
    return row | more


def shown_of(folder: Path, answers: list[dict[str, Any]], events: list[dict[str, Any]]) -> Shown:
    store = Store(folder, "plain")
    store.start()
    store.note(answers)
    store.submit(events).result(60)
    store.stop()
    return shown_items(folder)


def rates_by(rows: pl.DataFrame, column: str) -> list[Rate]:
    return rates_of(counts_by(rows, column), column)


def counted(shown: Shown, column: str) -> dict[str, tuple[int, int]]:
    return {rate.group: (rate.shown, rate.clicked) for rate in rates_by(shown.rows, column)}


def test_an_item_counts_once_for_each_answer(tmp_path: Path) -> None:
    shown = shown_of(
        tmp_path,
        [answer("r1", "abc"), answer("r2", "ab", "ben"), answer("unseen", "abc")],
        [
            event("impression", None, "r1"),  # all of it
            event("impression", "a", "r1"),
            event("click", "a", "r1"),
            event("click", "a", "r1"),  # sent again
            event("impression", "b", "r2", position=7),
            event("click", "a", "r2"),  # what was clicked was shown
        ],
    )
    assert counted(shown, "model") == {"models/1": (5, 2)} and shown.unplaced == 0
    assert counted(shown, "source") == {"model": (3, 2), "recent": (2, 0)}
    assert counted(shown, "position") == {"1": (2, 2), "2": (1, 0), "3": (1, 0), "7": (1, 0)}
    assert shown.events == {"impression": 3, "click": 2}  # the very same row is the same event
    (rate,) = rates_by(shown.rows, "model")
    assert rate.users == 2 and rate.low < 0.4 < rate.high


def test_what_says_nothing_of_an_answer_is_counted_apart(tmp_path: Path) -> None:
    shown = shown_of(
        tmp_path,
        [answer("r1", "ab")],
        [
            event("click", "z", "r1"),  # not of its items
            event("click", "a", "r9"),  # no such answer
            event("impression", None, "r8"),
            event("click", "a"),
            event("click", "z", "r1", model="mine"),  # nor may a client say what made an answer that is here
        ],
    )
    assert shown.rows.height == 0 and shown.unplaced == 5 and rates_by(shown.rows, "model") == []


def test_lists_that_come_from_elsewhere_name_what_made_them(tmp_path: Path) -> None:
    own = {"model": "editors", "user_id": "ann"}
    shown = shown_of(
        tmp_path,
        [],
        [
            event("impression", "a", position=1, source="page", **own),
            event("impression", "b", position=2, source="page", **own),
            event("click", "b", position=2, source="page", **own),
            event("impression", "a", "theirs", model="editors"),
        ],
    )
    assert counted(shown, "model") == {"editors": (4 - 1, 1)} and counted(shown, "position") == {
        "1": (1, 0),
        "2": (1, 1),
    }
    assert shown.unplaced == 0


def test_days_that_are_looked_back(tmp_path: Path) -> None:
    day = 86_400_000_000
    shown_of(
        tmp_path,
        [answer("old", "a", timestamp=NOON - 9 * day), answer("r1", "a")],
        [event("click", "a", "old", timestamp=NOON - 9 * day), event("click", "a", "r1")],
    )
    assert shown_items(tmp_path).rows.height == 2
    assert shown_items(tmp_path, date(2026, 3, 8)).rows["recommendation_id"].to_list() == ["r1"]


def test_intervals_are_wider_where_users_differ() -> None:
    """Wilson's, by hand: 10 of 100; users who click all or nothing are worth one impression each."""
    assert wilson(0.1, 100) == pytest.approx((0.05523, 0.17437), abs=1e-5)
    assert wilson(0.0, 10)[0] == 0.0 and wilson(1.0, 10)[1] == pytest.approx(1.0)


def test_users_are_drawn_alike_every_time() -> None:
    users = [f"u{number}" for number in range(4000)]
    split = Split(0.25, "march")
    arms = [split.arm(user) for user in users]
    assert arms == [Split(0.25, "march").arm(user) for user in users]
    assert arms.count("b") / 4000 == pytest.approx(0.25, abs=0.03)
    more = [Split(0.5, "march").arm(user) for user in users]  # a larger share takes nobody back
    assert all(later == "b" for before, later in zip(arms, more, strict=True) if before == "b")
    april = [Split(0.25, "april").arm(user) for user in users]
    both = sum(a == b == "b" for a, b in zip(arms, april, strict=True)) / 4000
    assert both == pytest.approx(0.25 * 0.25, abs=0.02)


def test_two_models_are_compared_by_users_and_each_pair_apart(tmp_path: Path) -> None:
    split, answers, events = Split(0.5, "s"), [], []
    for number in range(400):
        arm = split.arm(f"u{number}")
        first, second = ("models/1", "models/2") if arm == "a" else ("models/2", "models/1")
        about = {"arm": arm, "model": first, "against": second, "salt": "s"}
        answers.append(answer(f"r{number}", "abcd", f"u{number}", **about))
        events.append(event("impression", None, f"r{number}"))
        if number % 2 or arm == "b":
            events += [event("click", item, f"r{number}") for item in ("ab" if arm == "b" else "a")]
    about = {"arm": "a", "model": "models/3", "against": "models/2", "salt": "s"}
    answers.append(answer("later", "ab", "u1", timestamp=NOON + 5, **about))
    events.append(event("impression", None, "later"))
    later, pair = pairs_of(pair_counts(shown_of(tmp_path, answers, events).rows))
    assert later.models == ("models/3", "models/2") and later.total.low is None and later.total.better == ""
    assert pair.models == ("models/1", "models/2") and sum(pair.total.users) == 400
    assert pair.total.better == "b" and pair.total.estimate == pytest.approx(0.375, abs=0.03)
    parts = list(in_buckets(tmp_path, at_once=100))  # in parts it is the same
    assert len(parts) > 10 and sum(part.unplaced for part in parts) == 0
    assert pairs_of(pl.concat(pair_counts(part.rows) for part in parts)) == [later, pair]
    whole = shown_items(tmp_path).rows
    assert rates_of(pl.concat(counts_by(part.rows, "position") for part in parts), "position") == rates_by(
        whole, "position"
    )
    assert [day for day, _ in pair.days] == ["2026-03-08"] and pair.days[0][1] == pair.total
