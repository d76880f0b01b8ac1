"""Verdicts on two models by their ranks for the same cases: what is promoted, what stays, what cannot be decided."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from modeling.config import PromotionConfig
from modeling.evaluation.evidence import Difference, Pairs, preflights, users_needed, verdict_of
from modeling.stages import weighing
from schemas.errors import InputError

METRIC = "ndcg@20"
RULE = PromotionConfig()


def ranks(size: int, moved: float = 0.0, seed: int = 1, alike: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of a new and an old model; the new one's are lower by a factor of e to the `moved`."""
    rng = np.random.default_rng(seed)
    shared, own = rng.normal(size=size), rng.normal(size=(2, size))
    logs = 4 + 2 * (alike**0.5 * shared + (1 - alike) ** 0.5 * own)
    new, old = np.exp(logs[0] - moved), np.exp(logs[1])
    return np.maximum(new.round(), 1), np.maximum(old.round(), 1)


def verdict(pairs: Pairs, least: float = -0.01, **about: Any) -> str:
    return verdict_of(pairs.difference(METRIC, RULE.confidence, **about), least)


def test_a_clear_gain_is_promoted_and_a_clear_loss_keeps() -> None:
    new, old = ranks(2000, moved=0.5)
    assert verdict(Pairs(new, old, np.arange(2000))) == "promote"
    assert verdict(Pairs(old, new, np.arange(2000))) == "keep"


def test_near_equality_holds_and_says_how_many_users_could_tell() -> None:
    new, old = ranks(300, moved=0.05)
    difference = Pairs(new, old, np.arange(300)).difference(METRIC, RULE.confidence)
    needed = users_needed(difference, -RULE.margin)
    assert verdict_of(difference, -RULE.margin) == "hold" and needed and needed > 300
    many_new, many_old = ranks(4 * needed, moved=0.05)
    assert verdict(Pairs(many_new, many_old, np.arange(4 * needed))) != "hold"


def test_the_same_ranks_hold_with_every_margin() -> None:
    rank_N, _ = ranks(500)
    for least in (-0.9, -0.01, 0.0, 0.1):
        assert verdict(Pairs(rank_N, rank_N, np.arange(500)), least) == "hold"


def test_few_users_hold_however_many_their_cases_are() -> None:
    new, old = np.ones(900), np.full(900, 15.0)
    assert verdict(Pairs(new, old, np.arange(900) % 9)) == "hold"
    assert verdict(Pairs(new, old, np.arange(900) % 10)) == "promote"


def test_a_gain_that_one_user_makes_is_none() -> None:
    """A hundred cases of one user out of thirty are one observation."""
    new, old = ranks(130, moved=0.0)
    new[:100], old[:100] = 1, 15
    user_N = np.concatenate([np.zeros(100, int), np.arange(1, 31)])
    assert verdict(Pairs(new, old, user_N), 0.0) == "hold"
    assert verdict(Pairs(new, old, np.arange(130)), 0.0) == "promote"


def test_seeds_that_scatter_hold_what_users_alone_would_promote() -> None:
    new, old = ranks(2000, moved=0.2)
    pairs = Pairs(new, old, np.arange(2000))
    difference = pairs.difference(METRIC, RULE.confidence, 0.2)
    assert verdict(pairs) == "promote" and verdict_of(difference, -RULE.margin) == "hold"
    assert users_needed(difference, -RULE.margin) is None, "more users do not make seeds scatter less"
    assert difference.high - difference.low > 2 * 2.326 * 2**0.5 * 0.2


def test_false_alarms_and_detections_on_simulated_pairs() -> None:
    """Equal models: next to none is found better or worse. A gain of a third of the log rank: nearly all are."""
    shares = {}
    for moved in (0.0, 0.4):
        found = [verdict(Pairs(*ranks(400, moved, seed), np.arange(400)), 0.0) for seed in range(100)]
        shares[moved] = {name: found.count(name) for name in ("promote", "keep", "hold")}
    assert shares[0.0]["promote"] <= 4 and shares[0.0]["keep"] <= 4 and shares[0.4]["promote"] >= 90, shares


def test_a_model_in_service_that_is_always_wrong_is_replaced_by_what_is_right_at_times() -> None:
    never, once = np.full(200, np.inf), np.where(np.arange(200) % 8 == 0, 3.0, np.inf)
    assert verdict(Pairs(once, never, np.arange(200))) == "promote"
    assert verdict(Pairs(never, once, np.arange(200))) == "keep"


def test_where_nearly_any_loss_is_allowed_few_users_are_enough() -> None:
    """Relative losses are never more than all of it."""
    new, old = ranks(20, moved=-0.5, seed=3)
    new[0] = old[1] = 4
    difference = Pairs(new, old, np.arange(20)).difference(METRIC, RULE.confidence)
    assert difference.low > -1 and verdict_of(difference, -0.999) == "promote"


def test_preflights_pass_of_a_model_that_is_nearly_always_right() -> None:
    new, old = np.ones(50), np.full(50, 9.0)
    new[0] = 2
    for margin in (0.0, 0.01):
        assert preflights(Pairs(new, old, np.arange(50)), PromotionConfig(metric=METRIC, margin=margin), 100) == []


def test_preflights_pass_of_models_that_rank_and_fail_of_chance() -> None:
    new, old = ranks(400)
    user_N = np.arange(400)
    assert preflights(Pairs(new, old, user_N), PromotionConfig(metric=METRIC), 5000) == []
    best = np.ones(400)
    assert preflights(Pairs(best, old, user_N), PromotionConfig(metric=METRIC), 5000) == [], "always right already"
    worst = np.full(400, np.inf)
    (line,) = preflights(Pairs(worst, old, user_N), PromotionConfig(metric=METRIC), 50)
    assert "drawn by chance from 50 items are no worse" in line


def test_a_comparison_turned_round_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks are there for mistakes of ours: with new and old exchanged, chance wins and the oracle loses."""
    right = Pairs.difference

    def turned(pairs: Pairs, *given: Any, **about: Any) -> Difference:
        return right(pairs.against(pairs.old_N, pairs.new_N), *given, **about)

    new, old = ranks(400)
    monkeypatch.setattr(Pairs, "difference", turned)
    failed = preflights(Pairs(new, old, np.arange(400)), PromotionConfig(metric=METRIC), 5000)
    assert len(failed) == 2 and "always right ends with keep" in failed[1]


def table(rank_N: np.ndarray, first: int = 0) -> pl.DataFrame:
    cases = np.arange(first, first + len(rank_N))
    return pl.DataFrame({"case": cases, "user": [f"u{case}" for case in cases], "rank": rank_N})


def test_pairs_are_cases_of_both() -> None:
    new, old = ranks(50)
    pairs = Pairs.of(table(new), table(old[20:], 20).reverse())
    assert pairs.new_N.tolist() == new[20:].tolist() and pairs.old_N.tolist() == old[20:].tolist()
    for other in (table(old, 50), table(old).with_columns(pl.lit("someone").alias("user"))):
        with pytest.raises(InputError, match="not measured on the same test cases"):
            Pairs.of(table(new), other)


def weighed(
    monkeypatch: pytest.MonkeyPatch, new: np.ndarray, old: np.ndarray, baseline: float = 0.0, **rule: Any
) -> dict[str, Any]:
    """The facts of `weigh` on these ranks, without the folders that hold them."""

    class Measured:
        def __init__(self, name: str) -> None:
            self.folder, self.facts = name, {"model": "sasrec", "catalogue": 5000}

    monkeypatch.setattr(weighing, "read_ranks", lambda name, _: table({"new": new, "old": old}[name]))
    promotion = PromotionConfig(metric=METRIC, **rule)
    scores = [float(np.where(of <= 20, 1 / np.log2(1 + of), 0).mean()) for of in (new, old)]
    note = [f"best baseline: markov {baseline:.4f}"]
    return weighing.weigh(Measured("new"), Measured("old"), promotion, ("markov", baseline), *scores, note)  # type: ignore[arg-type]


def test_reasons_say_what_was_decided_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = ranks(2000, moved=0.5)
    facts = weighed(monkeypatch, new, old)
    assert facts["promote"] and facts["verdict"] == "promote" and facts["interval"][0] > 0
    assert "of 2,000 users, best baseline: markov 0.0000): promote." in facts["reason"]
    facts = weighed(monkeypatch, old, new)
    assert not facts["promote"] and facts["reason"].endswith("keep what is in service.")
    facts = weighed(monkeypatch, *ranks(300, moved=0.05))
    assert facts["verdict"] == "hold" and facts["users_needed"] > 300
    assert f"300 users cannot tell, about {facts['users_needed']:,} could." in facts["reason"]
    facts = weighed(monkeypatch, new, new)
    assert facts["verdict"] == "hold" and facts["reason"].endswith("both rank every case alike.")


def test_a_model_below_a_baseline_keeps_what_is_in_service(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = ranks(2000, moved=0.5)
    facts = weighed(monkeypatch, new, old, baseline=0.9)
    assert facts["verdict"] == "keep" and not facts["promote"]
    assert facts["reason"].endswith("keep what is in service: markov, the best baseline, is better than the new model.")
    assert weighed(monkeypatch, new, old, baseline=0.9, min_gain=-0.999)["promote"], "any loss was allowed"


def test_a_gain_that_is_asked_for_must_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = ranks(2000, moved=0.2)
    below, above = weighed(monkeypatch, new, old)["interval"]
    assert weighed(monkeypatch, new, old, min_gain=below - 0.001)["verdict"] == "promote"
    assert weighed(monkeypatch, new, old, min_gain=(below + above) / 2)["verdict"] == "hold"
    facts = weighed(monkeypatch, new, old, min_gain=above + 0.001)
    assert facts["verdict"] == "keep" and "asked for" in facts["reason"]


def test_a_failed_check_promotes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = ranks(2000, moved=0.5)
    monkeypatch.setattr(weighing, "preflights", lambda *given: ["chance wins"])
    facts = weighed(monkeypatch, new, old)
    assert facts["verdict"] == "hold" and not facts["promote"] and facts["preflights"] == ["chance wins"]
    assert "a check of the comparison itself failed: chance wins. Nothing is promoted by it." in facts["reason"]
