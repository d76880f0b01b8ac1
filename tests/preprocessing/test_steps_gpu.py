"""Steps and checks keep to what Polars' GPU engine takes; each plan is translated as for a GPU, none is needed.

Runs beside cudf-polars without torch: `python -m pytest --noconftest tests/preprocessing/test_steps_gpu.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing import checks, steps
from preprocessing.plan import build_steps
from preprocessing.plan.rules import RULE_CODE, Rules
from preprocessing.source.events import as_found
from schemas import plugins
from schemas.dataset import Dataset
from tests.gpu import untranslatable

# The small tables of other tests come with the pipeline, which needs more than is installed beside cudf-polars.
MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
EVENTS = pl.DataFrame(
    {
        "user_id": ["a", "b"],
        "item_id": ["x", "y"],
        "timestamp": [MONDAY, MONDAY],
        "event_type": ["view", "buy"],
        "price": [1.0, None],
        "session_index": [1, 2],
    }
)
STEPS: list[Any] = [
    {"filter_event_types": {"keep": ["view"]}},
    "drop_repeats",
    {"drop_repeats": {"keep": "last"}},
    "drop_duplicates",
    {"drop_duplicates": {"keep": "last"}},
    "drop_crawlers",
    "drop_rare_items",
    "drop_short_users",
    "k_core",
    {"join_items": {"columns": ["brand"]}},
    {"join_users": {"columns": ["country"]}},
    {"join_latest": {"columns": ["brand"]}},
    {"sample_users": {"share": 0.5}},
    {"anonymise": {"columns": ["event_type"]}},
    {"rename": {"columns": {"price": "cost"}}},
    {"drop_columns": {"columns": ["price"]}},
    {"derive": {"columns": {"hour": "EXTRACT(hour FROM timestamp)", "dear": "COALESCE(ABS(price), 0) > 1"}}},
    {"label_sessions": {"event_types": ["buy"], "drop": True}},
    "dwell_time",
]
CHECKS: list[Any] = [
    {"not_null": {"column": "price"}},
    {"readable": {"column": "timestamp"}},
    {"in_range": {"column": "price", "min": 0, "max": 3}},
    {"not_before": {"earliest": "2024-01-02"}},
    {"known_values": {"column": "event_type", "values": ["view"]}},
    {"known_values": {"column": "user_id", "table": "users"}},
    {"not_in_future": {"grace_minutes": 3}},
    {"matches": {"column": "event_type", "pattern": "^[a-z]+$"}},
    {"satisfies": {"sql": "price > 0 OR event_type <> 'buy'"}},
    {"max_per_user_per_day": {"most": 3}},
    "unique_event",
]


def shop(folder: Path, **parts: Any) -> Dataset:
    pl.DataFrame({"item_id": ["x"], "brand": ["acme"], "since": [MONDAY]}).write_parquet(folder / "items.parquet")
    pl.DataFrame({"user_id": ["a"], "country": ["DE"]}).write_parquet(folder / "users.parquet")
    columns = {"item_id": "item_id", "brand": "brand"}
    if "join_latest" in str(parts):
        columns |= {"valid_from": "since"}
    events = ("user_id", "item_id", "timestamp", "event_type", "price")
    return Dataset.model_validate(
        {
            "name": "small",
            "source": str(folder),
            "time_zone": "Europe/Berlin",
            "events": {"columns": {name: name for name in events}},
            "items": {"columns": columns, "unknown": "quarantine"},
            "users": {"columns": {"user_id": "user_id", "country": "country"}},
            **parts,
        }
    )


@pytest.mark.gpu_plans
@pytest.mark.parametrize("entry", STEPS, ids=str)
def test_the_gpu_takes_every_step(entry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_ANONYMISE_KEY", "sixteen bytes...")
    ((_, step),) = build_steps(shop(tmp_path, steps=[entry], split="leave_one_out"))
    events = step.read(EVENTS.lazy()).collect()
    assert untranslatable(step.apply(events.lazy())) == []


@pytest.mark.gpu_plans
@pytest.mark.parametrize("entry", CHECKS, ids=str)
def test_the_gpu_takes_every_check(entry: Any, tmp_path: Path) -> None:
    events = EVENTS.with_columns(pl.col("item_id", "timestamp").cast(pl.String).name.map(as_found))
    rules = Rules.of(shop(tmp_path, checks=[entry]), events.collect_schema())
    marked = rules.mark(events.lazy(), MONDAY)
    bad = rules.as_found(marked.filter(pl.col(RULE_CODE) > 0))
    assert [untranslatable(plan) for plan in (marked, bad, rules.without_private(marked))] == [[], [], []]


def test_all_of_them_are_here() -> None:
    for package, entries in ((steps, STEPS), (checks, CHECKS)):
        assert {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries} == {
            *plugins.names(package)
        }
