"""What every check obeys, and that a check which breaks a law is told so."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import pytest

from flows.laws import broken, checks
from flows.laws.sample import COLUMNS, dataset_of
from preprocessing import checks as package
from preprocessing.checks import Check
from schemas import plugins
from schemas.errors import parse

OPTIONS: dict[str, dict[str, Any]] = {
    "in_range": {"column": "price", "min": 0, "max": 10},
    "known_values": {"column": "event_type", "values": ["view"]},
    "matches": {"column": "event_type", "pattern": "^a"},
    "max_per_user_per_day": {"most": 3},
    "not_null": {"column": "category"},
    "readable": {"column": "timestamp"},
    "satisfies": {"sql": "price > 0 or category = 'a'"},
}


@pytest.mark.parametrize("name", [name for name in plugins.names(package) if name != "readable"])
def test_every_check_obeys(name: str) -> None:
    """But for readable, which looks at values as they were found in a file."""
    check = parse(plugins.find(package, name), OPTIONS.get(name, {}), name)
    trial = checks.Trial.of(check, COLUMNS, dataset_of(COLUMNS))
    assert broken(checks.LAWS, trial) == []


class Price(Check):
    @property
    def looks_at(self) -> tuple[str, ...]:
        return ("price",)


class Mean(Price):
    def bad(self, now: datetime) -> pl.Expr:
        return pl.col("price").mean() > 1


class AboveMean(Price):
    def bad(self, now: datetime) -> pl.Expr:
        return pl.col("price") > pl.col("price").mean()


class Number(Price):
    def bad(self, now: datetime) -> pl.Expr:
        return pl.col("price") - 1


class Hidden(Price):
    def bad(self, now: datetime) -> pl.Expr:
        return (pl.col("price") > 1) & (pl.col("category") == "a")


class Before(Price):
    def bad(self, now: datetime) -> pl.Expr:
        return pl.col("price") < pl.col("price").shift(1)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (Mean(), "it gives one for all"),
        (AboveMean(), "Other rows change nothing"),
        (Number(), "It says of each row whether it is bad"),
        (Hidden(), "It also looks at category"),
        (Before(), "The order in which events come changes nothing"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Check) else "",
)
def test_a_check_that_breaks_a_law_is_told(check: Check, words: str) -> None:
    lines = broken(checks.LAWS, checks.Trial.of(check, COLUMNS))
    assert any(words in line for line in lines), lines
