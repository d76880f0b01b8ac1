"""Evaluations of a new model and of the one in service -> verdict, from the ranks of both."""

from __future__ import annotations

from typing import Any

from modeling.config import PromotionConfig
from modeling.evaluation.compare import KEEP, Rival, judge
from modeling.evaluation.evidence import LEAST_USERS, Difference, Pairs, Verdict, preflights, users_needed, verdict_of
from modeling.evaluation.rank_table import read_ranks
from schemas.artifacts import Manifest
from schemas.errors import InputError

WORDS = {"promote": "promote", "keep": KEEP, "hold": "hold, what is in service stays"}


def weigh(
    candidate: Manifest,
    champion: Manifest,
    promotion: PromotionConfig,
    baseline: tuple[str, float] | None,
    new: float,
    old: float,
    notes: list[str],
) -> dict[str, Any]:
    """The verdict of `evaluation.evidence` on two evaluations of the same sessions, and what it was made of.

    `new` and `old` are the metric in both, `baseline` the best baseline and its metric, `notes` what else to say. Facts:
    `promote`, `verdict`, `old`, `reason`, `interval` (bounds of the relative gain), `users`, `seed_scatter`,
    `users_needed` (to tell; None: none, or not asked), `preflights` (those that failed). Where the ranks cannot be paired, the
    metrics are compared as they are and the reason says so.
    """
    try:
        pairs = Pairs.of(*(read_ranks(made.folder, made.facts["model"]) for made in (candidate, champion)))
    except InputError as error:
        note = f"compared as they are, not case by case: {error}"
        return judge(promotion, new, Rival(old, "the model in service", "; ".join([*notes, note])))
    difference = pairs.difference(promotion.metric, promotion.confidence, promotion.seed_scatter)
    least = -promotion.margin if promotion.min_gain is None else promotion.min_gain
    verdict, why = verdict_of(difference, least), ""
    needed = users_needed(difference, least) if verdict == "hold" else None
    failed: list[str] = []
    if verdict == "hold":
        why = _cannot_tell(difference, needed)
    elif failed := preflights(pairs, promotion, (candidate.facts.get("rules") or candidate.facts)["catalogue"]):
        verdict, why = (
            "hold",
            f"a check of the comparison itself failed: {'; '.join(failed)}. Nothing is promoted by it",
        )
    elif verdict == "promote" and baseline and new < baseline[1] * (1 + min(promotion.min_gain or 0.0, 0.0)):
        verdict, why = "keep", f"{baseline[0]}, the best baseline, is better than the new model"
    reason = _sentence(promotion, new, old, difference, verdict, why, notes)
    facts = {"promote": verdict == "promote", "verdict": verdict, "old": old, "reason": reason}
    bounds = {"interval": [difference.low, difference.high], "users": difference.users}
    bounds["seed_scatter"] = promotion.seed_scatter
    return facts | bounds | {"users_needed": needed, "preflights": failed}


def _cannot_tell(difference: Difference, needed: int | None) -> str:
    if difference.users < LEAST_USERS:
        users = f"{difference.users} user{'' if difference.users == 1 else 's'}"
        return f"{users} cannot tell, {LEAST_USERS} are the least"
    if not difference.differing:
        return "both rank every case alike"
    if needed is None:
        return f"{difference.users:,} users cannot tell, and no number could if the models are as near as here"
    return f"{difference.users:,} users cannot tell, about {max(needed, difference.users + 1):,} could"


def _sentence(
    promotion: PromotionConfig,
    new: float,
    old: float,
    difference: Difference,
    verdict: Verdict,
    why: str,
    notes: list[str],
) -> str:
    """ndcg@20 0.1053 against 0.1000 of the model in service (+5.3%, between +0.4% and +10.1% of 1,234 users...): promote."""
    bounds = [f"{new / old - 1:+.1%}" if old else "from nothing"]
    if difference.old:
        low, high = (f"{bound:+.1%}" for bound in (difference.low, difference.high))
        seeds = f" and a scatter of {promotion.seed_scatter:.1%} between seeds" if difference.seeds else ""
        bounds.append(f"between {low} and {high} of {difference.users:,} users{seeds}")
    asked = f"{promotion.min_gain:.1%} asked for" if promotion.min_gain else ""
    about = ", ".join([*bounds, *([asked] if asked else []), *(["; ".join(notes)] if notes else [])])
    end = f"{WORDS[verdict]}{f': {why}' if why else ''}."
    return f"{promotion.metric} {new:.4f} against {old:.4f} of the model in service ({about}): {end}"
