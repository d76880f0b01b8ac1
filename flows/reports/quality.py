"""The page of what people do with what they are shown: click rates by model, source and place, and two models side by side.

Rows of `modeling.service.tracking.table` -> one page without script, which loads nothing from elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from flows.reports.templates import render
from modeling.service.tracking.always_valid import ALPHA, MIN_CLICKS, MIN_USERS, Difference
from modeling.service.tracking.rates import Pair, Rate, counts_by, pair_counts, pairs_of, rates_of
from modeling.service.tracking.table import Shown

PAGE = "quality.html"
TEMPLATE = "quality.html.j2"
PLACES = 20  # the first ones, a row each
WIDE, HIGH, LEFT = 620, 180, 70  # of the chart of a comparison
GROUPS = {"model": "model", "source": "source", "position": "place in the list", "day": "day"}


@dataclass(frozen=True)
class Quality:
    """What was shown and clicked: by all, model, source, place and day; and the comparisons of two models, newest first."""

    all: Rate | None
    by: dict[str, list[Rate]]
    pairs: list[Pair]
    events: dict[str, int]
    unplaced: int

    def summary(self) -> dict[str, Any]:
        """As JSON has it."""
        pairs = [
            {
                "models": pair.models,
                "salt": pair.salt,
                "says": sentence(pair),
                **asdict(pair.total),
                "better": pair.total.better,
            }
            for pair in self.pairs
        ]
        return {
            "all": asdict(self.all) if self.all else None,
            "by": {name: [asdict(rate) for rate in rates] for name, rates in self.by.items()},
            "side_by_side": pairs,
            "events": self.events,
            "unplaced": self.unplaced,
        }


def quality_of(parts: Iterable[Shown]) -> Quality:
    """Rates and comparisons of what was shown, in parts that are counted one after the other."""
    counts: dict[str, list[pl.DataFrame]] = {name: [] for name in ("all", "pairs", *GROUPS)}
    events: Counter[str] = Counter()
    unplaced = 0
    for shown in parts:
        rows = shown.rows.with_columns(pl.lit("all").alias("all"), pl.col("timestamp").dt.date().alias("day"))
        counts["pairs"].append(pair_counts(rows))
        for name in ("all", *GROUPS):
            some = rows.filter(pl.col("position") <= PLACES) if name == "position" else rows
            counts[name].append(counts_by(some, name))
        events.update(shown.events)
        unplaced += shown.unplaced
    rates = {name: rates_of(pl.concat(counts[name]), name) for name in ("all", *GROUPS)}
    total = rates.pop("all")
    return Quality(total[0] if total else None, rates, pairs_of(pl.concat(counts["pairs"])), dict(events), unplaced)


def page_of(title: str, since: str, quality: Quality) -> str:
    """The page."""
    return render(
        TEMPLATE,
        title=title,
        since=since,
        quality=quality,
        groups=[(GROUPS[name], _bars(rates)) for name, rates in quality.by.items() if rates],
        pairs=[(pair, sentence(pair), _chart(pair)) for pair in quality.pairs],
        alpha=ALPHA,
    )


def sentence(pair: Pair) -> str:
    """What a comparison says, in a line."""
    first, second = pair.models
    total = pair.total
    rates = f"{second} is clicked {total.rates[1]:.2%} of the times, {first} {total.rates[0]:.2%}"
    if total.low is None or total.high is None:
        users = f"{total.users[0]:,} and {total.users[1]:,} users"
        return f"{rates}: too little to compare yet, of {users} ({MIN_USERS} users and {MIN_CLICKS} clicks of each are needed)."
    words = {"b": f"{second} is better", "a": f"{first} is better", "": "which is better is open"}[total.better]
    return f"{rates}: a difference of {points(total)}, so {words}."


def points(total: Difference) -> str:
    """+0.42 points [+0.10, +0.74]."""
    bounds = "" if total.low is None or total.high is None else f" [{100 * total.low:+.2f}, {100 * total.high:+.2f}]"
    return f"{100 * total.estimate:+.2f} points{bounds}"


def _bars(rates: list[Rate]) -> list[dict[str, Any]]:
    """Rates with where their dot and the ends of their interval are, in per cent of the width."""
    most = max(rate.high for rate in rates) or 1.0
    places = [{"at": rate.rate / most, "low": rate.low / most, "high": rate.high / most} for rate in rates]
    return [
        {"rate": rate} | {name: f"{100 * value:.1f}" for name, value in place.items()}
        for rate, place in zip(rates, places, strict=True)
    ]


def _chart(pair: Pair) -> dict[str, Any] | None:
    """The difference by the end of each day with its interval, as points of a picture; None before there is one."""
    days = [(day, total) for day, total in pair.days if total.low is not None and total.high is not None]
    if not days:
        return None
    numbers = [0.0, *(bound for _, total in days for bound in (total.low, total.high) if bound is not None)]
    low, high = min(numbers), max(numbers)

    def up(value: float | None) -> str:
        return f"{10 + (HIGH - 20) * (high - (value or 0.0)) / ((high - low) or 1.0):.1f}"

    step = WIDE / max(1, len(days) - 1)
    across = [f"{LEFT + step * place:.1f}" for place in range(len(days))]
    points = [
        (x, up(total.low), up(total.estimate), up(total.high)) for x, (_, total) in zip(across, days, strict=True)
    ]
    return {
        "points": points,
        "zero": up(0.0),
        "labels": [(up(value), f"{100 * value:+.2f}" if value else "0") for value in {low, 0.0, high}],
        "days": [
            (x, day[5:])
            for place, (x, (day, _)) in enumerate(zip(across, days, strict=True))
            if _is_written(place, len(days))
        ],
    }


def _is_written(place: int, count: int) -> bool:
    """Whether a day is written below its point: about eight are."""
    return place % (count // 8 + 1) == 0
