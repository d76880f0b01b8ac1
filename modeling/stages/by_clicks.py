"""What people clicked -> whether the second model of `serving.side_by_side` takes over from the one in service.

The difference is that of two click rates, the second model's less the allowed share of the first's: with a margin of 1 per cent
.0300 - .99 x .0305. Its interval holds at all times at once (`tracking.always_valid`), so a night may look each night.

    promote    the lower bound is above 0: no more than the margin is lost
    keep       the upper bound is below 0: more than the margin is lost
    hold       0 lies between the bounds, or there are too few users or clicks to say

Each bound is passed by chance with a probability of 1 - `promotion.confidence`, of all looks together. With
`promotion.min_gain` a gain of so much is asked for in place of the margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from modeling.config import PromotionConfig
from modeling.service.tracking.always_valid import MIN_CLICKS, MIN_USERS, Difference
from modeling.service.tracking.rates import difference_of, pair_counts
from modeling.service.tracking.store import tracked_folder
from modeling.service.tracking.table import in_buckets
from schemas.artifacts import Artifacts
from schemas.serving import SideBySide

WORDS = {"promote": "promote", "keep": "what is in service stays", "hold": "hold, what is in service stays"}


@dataclass(frozen=True)
class Clicks:
    """What people did with the model in service and the second one."""

    champion: str
    challenger: str
    difference: Difference
    verdict: str

    def facts(self, least: float) -> dict[str, Any]:
        """For a comparison: `champion`, `challenger`, `verdict`, `rates`, `users`, `interval` (None: too little), `says`."""
        seen = self.difference
        interval = None if seen.low is None or seen.high is None else [seen.low, seen.high]
        return {
            "champion": self.champion,
            "challenger": self.challenger,
            "verdict": self.verdict,
            "rates": list(seen.rates),
            "users": list(seen.users),
            "interval": interval,
            "says": self._sentence(least),
        }

    def _sentence(self, least: float) -> str:
        seen = self.difference
        rates = (
            f"By clicks {self.challenger}, the second model, is clicked {seen.rates[1]:.2%} of the times, {self.champion} "
            f"{seen.rates[0]:.2%}"
        )
        users = f"of {seen.users[1]:,} and {seen.users[0]:,} users"
        if seen.low is None or seen.high is None:
            return (
                f"{rates} ({users}; {MIN_USERS} users and {MIN_CLICKS} clicks of each are the least): {WORDS['hold']}."
            )
        asked = f"a gain of {least:.1%} asked for" if least > 0 else f"a loss of {-least:.1%} allowed"
        bounds = f"{100 * seen.estimate:+.2f} points, between {100 * seen.low:+.2f} and {100 * seen.high:+.2f}"
        return f"{rates} ({bounds}, {asked}, {users}): {WORDS[self.verdict]}."


def stays(champion: str, challenger: str, says: str) -> dict[str, Any]:
    """Facts as those of `Clicks`, where nothing can be counted."""
    nothing = {"rates": None, "users": None, "interval": None}
    return {"champion": champion, "challenger": challenger, "verdict": "hold", "says": says} | nothing


def clicks_of(
    artifacts: Artifacts, dataset: str, champion: str, wanted: SideBySide | None, promotion: PromotionConfig
) -> dict[str, Any] | None:
    """`Clicks.facts` of the model in service and the second one; None where none is named, or it is in service itself.

    Raises:
        InputError: where a file of what was tracked cannot be read.
    """
    if not promotion.clicks or wanted is None or wanted.model == champion:
        return None
    pair = (pl.col("first") == champion) & (pl.col("second") == wanted.model) & (pl.col("salt") == wanted.salt)
    folder = tracked_folder(artifacts.root, dataset)
    counts = pl.concat([pair_counts(shown.rows).filter(pair) for shown in in_buckets(folder)])
    least = -promotion.margin if promotion.min_gain is None else promotion.min_gain
    seen = difference_of(counts, alpha=2 * (1 - promotion.confidence), times=1 + least)
    verdict = "hold"
    if seen.low is not None and seen.high is not None:
        verdict = "promote" if seen.low > 0 else "keep" if seen.high < 0 else "hold"
    return Clicks(champion, wanted.model, seen, verdict).facts(least)
