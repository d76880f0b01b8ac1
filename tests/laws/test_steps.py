"""What every step obeys, and that a step which breaks a law is told so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.laws import NotTriedError, broken, steps
from flows.laws.sample import COLUMNS, dataset_of
from preprocessing import steps as package
from preprocessing.plan import build_steps
from preprocessing.steps import Step
from schemas import plugins
from schemas.dataset import Step as Entry

OPTIONS: dict[str, list[Any]] = {
    "anonymise": [{"columns": ["user_id"]}],
    "derive": [{"columns": {"dear": "price > 1"}}],
    "drop_columns": [{"columns": ["price"]}],
    "drop_crawlers": [{"max_events_per_day": 4}],
    "drop_duplicates": [{"keep": "first"}, {"keep": "last"}],
    "drop_rare_items": [{"min_count": 3}],
    "drop_repeats": [{"keep": "first"}, {"keep": "last"}],
    "drop_short_users": [{"min_events": 4}],
    "filter_event_types": [{"keep": ["view", "cart"]}],
    "join_items": [{"columns": ["brand"]}],
    "join_latest": [{"columns": ["brand"]}],
    "join_users": [{"columns": ["country"]}],
    "k_core": [{"min_per_item": 2, "min_per_user": 3}],
    "label_sessions": [{"event_types": ["cart"]}, {"event_types": ["cart"], "drop": True}],
    "rename": [{"columns": {"price": "cost"}}],
    "sample_users": [{"share": 0.5}],
}
TABLES = {
    "join_items": {"items": {"columns": {"item_id": "item_id", "brand": "brand"}}},
    "join_latest": {"items": {"columns": {"item_id": "item_id", "brand": "brand", "valid_from": "since"}}},
    "join_users": {"users": {"columns": {"user_id": "user_id", "country": "country"}}},
}


@pytest.mark.parametrize("name", plugins.names(package))
def test_every_step_obeys(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_ANONYMISE_KEY", "a key of tests, long enough to be one")
    days = pl.datetime_range(pl.datetime(2023, 12, 31), pl.datetime(2024, 1, 2), "1d", eager=True)
    items = pl.DataFrame({"item_id": ["v", "v", "w"], "brand": ["old", "new", "acme"], "since": days})
    if name == "join_items":
        items = items.unique("item_id")
    items.write_parquet(tmp_path / "items.parquet")
    pl.DataFrame({"user_id": ["u0", "u3"], "country": ["de", "at"]}).write_parquet(tmp_path / "users.parquet")
    for options in OPTIONS.get(name, [{}]):
        entry = Entry(name=name, options=options)
        kind = plugins.find(package, name)
        whole = {"split": "leave_one_out"} if kind.needs_all_rows else {}
        dataset = dataset_of(COLUMNS, steps=[entry], source=str(tmp_path), **TABLES.get(name, {}), **whole)
        step = build_steps(dataset)[0][1]
        assert broken(steps.LAWS, steps.Trial.of(step, COLUMNS, dataset)) == []


class _Sessions(Step):
    needs_sessions = True


class NewIds(Step):
    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        return events.with_columns(pl.col("item_id").str.to_uppercase())


class Forgets(Step):
    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        return events.select("user_id", "item_id")


class Doubles(Step):
    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        return pl.concat([events, events])


class FirstRow(Step):
    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        return events.unique("item_id", keep="first", maintain_order=True)


class Rare(Step):
    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        return events.filter(pl.len().over("item_id") > 6)


class Busy(Step):
    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        return events.filter(pl.len().over("user_id") > 6)


class Backwards(_Sessions):
    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        return events.reverse()


class Luck(Step):
    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        return events.filter(pl.int_range(pl.len()).shuffle() % 2 == 0)


class ReadsLess(Step):
    def read(self, events: pl.LazyFrame) -> pl.LazyFrame:
        return events.filter(pl.col("price") > 0)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (NewIds(), "Ids, times and positions stay as they are"),
        (Forgets(), "It takes timestamp away"),
        (Doubles(), "rows more than there were"),
        (FirstRow(), "The order in which events come changes nothing"),
        (Rare(), "Events of other users change nothing"),
        (Busy(), "Day by day"),
        (Backwards(), "Rows come out in another order"),
        (Luck(), "The same events give the same result every time"),
        (ReadsLess(), "keeps every row in its place"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Step) else "",
)
def test_a_step_that_breaks_a_law_is_told(step: Step, words: str) -> None:
    lines = broken(steps.LAWS, steps.Trial.of(step, COLUMNS))
    assert any(words in line for line in lines), lines


class Brand(Step):
    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        twice = (pl.col("quantity") * 2).alias("twice")
        return events.with_columns(pl.col("brand").str.to_lowercase(), twice).filter(
            pl.col("price").str.len_chars() > 1
        )


def test_columns_a_step_asks_for_are_made_in_types_that_fit() -> None:
    trial = steps.Trial.of(Brand(), COLUMNS)
    assert (trial.columns["brand"], trial.columns["price"]) == (pl.String, pl.String)
    assert trial.columns["quantity"] == pl.Float64 and broken(steps.LAWS, trial) == []


def test_a_step_that_fits_no_columns_is_not_tried() -> None:
    with pytest.raises(NotTriedError, match="Give --dataset YAML"):
        steps.Trial.of(Brand(), dict(COLUMNS))  # of a dataset, whose price is a number
