"""How lists at midnight are judged."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import numpy as np
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


HIT_TWO, HIT_THREE = 1 / math.log2(3), 1 / math.log2(4)


def test_each_session_is_a_case_and_users_without_a_list_get_the_popular_items(midnight: ModuleType) -> None:
    ranks, without = midnight.ranks_of(lists_of(u=["a", "b"], v=["c", "a"]), POPULAR, TARGETS, None)
    assert ranks.tolist() == [2, math.inf, 2, 3] and without == 1
    row = midnight.judge(ranks, ranks, TARGETS["user_id"])
    assert row["recall@20"] == 3 / 4 and row["ndcg@20"] == pytest.approx((HIT_TWO + HIT_TWO + HIT_THREE) / 4)
    assert row["ndcg@20 against"] == (0, 0, 0)


def test_what_a_user_had_before_is_left_out_and_the_rest_moves_up(midnight: ModuleType) -> None:
    had = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "a"]})
    ranks, _ = midnight.ranks_of(lists_of(u=["a", "b"], v=["c", "a"]), POPULAR, TARGETS, had)
    assert ranks.tolist() == [1, math.inf, math.inf, 3]


def test_only_twenty_count_after_some_are_left_out(midnight: ModuleType) -> None:
    long = lists_of(u=[f"i{place}" for place in range(30)])
    target = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["i19", "i20"]})
    assert midnight.ranks_of(long, POPULAR, target, None)[0].tolist() == [20, math.inf]
    had = pl.DataFrame({"user_id": ["u"], "item_id": ["i0"]})
    assert midnight.ranks_of(long, POPULAR, target, had)[0].tolist() == [19, 20]


def test_differences_are_paired_and_over_users(midnight: ModuleType) -> None:
    users = pl.Series([f"u{number // 2}" for number in range(80)])
    row = midnight.judge(np.array([1.0, 1.0, math.inf, math.inf] * 20), np.full(80, math.inf), users)
    mean, low, high = row["recall@20 against"]
    assert mean == 0.5 and high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 40), rel=0.15), (
        "40 users, not 80 cases"
    )


def test_a_baseline_of_whole_histories_lists_what_goes_with_them(midnight: ModuleType) -> None:
    pairs = [(f"{kind}{user}", f"{kind}-{item}") for kind in "ab" for user in range(8) for item in range(30)]
    pairs += [("who", "a-0"), ("who", "a-1")]
    before = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
    lists = midnight.from_histories("ease", before, pl.Series(["who", "nobody"]), filter_seen=True)
    assert set(lists["user_id"]) == {"who"} and lists["rank"].to_list() == list(range(1, 21))
    assert all(item.startswith("a-") for item in lists["item_id"]) and not {"a-0", "a-1"} & set(lists["item_id"])


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
