"""How lists at midnight are judged."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "midnight.py"


@pytest.fixture(scope="module")
def midnight() -> ModuleType:
    spec = importlib.util.spec_from_file_location("midnight", BENCHMARK)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lists_of(**items: list[str]) -> pl.DataFrame:
    rows = [(user, item, rank) for user, best in items.items() for rank, item in enumerate(best, 1)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "rank"], orient="row")


TARGETS = pl.DataFrame({"user_id": ["u", "u", "v", "w"], "item_id": ["b", "x", "a", "c"]})
POPULAR = lists_of(u=["a", "b", "c"], v=["a", "b", "c"], w=["a", "b", "c"])


def test_each_session_is_a_case_and_users_without_a_list_get_the_popular_items(midnight: ModuleType) -> None:
    found = midnight.judge(lists_of(u=["a", "b"], v=["c", "a"]), POPULAR, TARGETS, None)
    at_two, at_three = 1 / math.log2(3), 1 / math.log2(4)
    assert found["recall@20"] == 3 / 4 and found["without a list"] == 1
    assert found["ndcg@20"] == pytest.approx((at_two + at_two + at_three) / 4)


def test_what_a_user_had_before_is_left_out_and_the_rest_moves_up(midnight: ModuleType) -> None:
    had = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "a"]})
    found = midnight.judge(lists_of(u=["a", "b"], v=["c", "a"]), POPULAR, TARGETS, had)
    assert found["recall@20"] == 2 / 4
    assert found["ndcg@20"] == pytest.approx((1 + 1 / math.log2(4)) / 4)


def test_only_twenty_count_after_some_are_left_out(midnight: ModuleType) -> None:
    long = lists_of(u=[f"i{place}" for place in range(30)])
    target = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["i19", "i20"]})
    assert midnight.judge(long, POPULAR, target, None)["recall@20"] == 0.5
    had = pl.DataFrame({"user_id": ["u"], "item_id": ["i0"]})
    assert midnight.judge(long, POPULAR, target, had)["recall@20"] == 1


def test_lists_of_another_system_are_in_order_of_rank_or_score(midnight: ModuleType, tmp_path: Path) -> None:
    scored = pl.DataFrame({"user_id": ["u", "u", "v"], "item_id": ["a", "b", "c"], "score": [0.1, 0.9, 0.5]})
    scored.write_parquet(tmp_path / "scored.parquet")
    assert midnight.read_lists(tmp_path / "scored.parquet").rows() == [("u", "b", 1), ("u", "a", 2), ("v", "c", 1)]
    ranked = scored.drop("score").with_columns(rank=pl.Series([7, 3, 1]))
    ranked.write_parquet(tmp_path / "ranked.parquet")
    assert midnight.read_lists(tmp_path / "ranked.parquet").rows() == [("u", "b", 1), ("u", "a", 2), ("v", "c", 1)]
    events = pl.DataFrame({"user_id": ["u", "v", "v"], "item_id": ["a", "b", "b"]})
    popular = midnight.popularity(events, pl.Series(["u", "w"]))
    assert popular.sort("user_id", "rank").rows() == [("u", "b", 1), ("u", "a", 2), ("w", "b", 1), ("w", "a", 2)]
