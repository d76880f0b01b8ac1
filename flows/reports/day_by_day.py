"""What a backtest measured: a row a day and policy, totals with intervals, a table and a picture.

N cases of a policy, U users.
"""

from __future__ import annotations

from typing import Any

import polars as pl
import torch
from pydantic import BaseModel, ConfigDict

from flows.reports.tables import markdown_table
from flows.reports.templates import render
from modeling.evaluation.bootstrap import Bootstrap
from modeling.evaluation.metrics import gains_of
from modeling.evaluation.rank_table import CASE, RANK, USER, read_ranks
from modeling.evaluation.slices import CONFIDENCE, user_numbers
from schemas.artifacts import Artifacts, Manifest

TABLE, PICTURE = "table.md", "days.svg"
NDCG, RECALL = "ndcg@20", "recall@20"
COLORS = {"scratch": "#3657c8", "warm": "#c8502f", "frozen": "#778"}
WIDTH, HEIGHT, LEFT, TOP = 620, 240, 60, 30  # of the picture's plots
APART, OF_A_DAY = 6.0, 0.6  # points of policies on a day: so many units apart, over so much of the day at most


class Row(BaseModel):
    """One policy on one day."""

    model_config = ConfigDict(frozen=True)

    day: str
    policy: str
    model: str
    evaluation: str
    body: str
    ndcg: float | None
    recall: float | None
    cases: int
    sessions: int
    cpu_seconds: float
    low: float | None = None
    high: float | None = None


class Total(BaseModel):
    """One policy over all days: the mean over cases with its interval, and the difference to the first policy with its own."""

    model_config = ConfigDict(frozen=True)

    policy: str
    ndcg: float
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    cpu_seconds: float
    later_cpu_seconds: float  # without the first day, where all policies train the same model


def measured(day: str, policy: str, model: Manifest, evaluation: Manifest, cpu_seconds: float) -> Row:
    """A row of an evaluation; with the interval of its metric."""
    body = evaluation.facts["model"]
    metrics = evaluation.facts["metrics"][body]
    low, high = evaluation.facts.get("intervals", {}).get("metrics", {}).get(body, {}).get(NDCG) or (None, None)
    return Row(
        day=day,
        policy=policy,
        model=model.name,
        evaluation=evaluation.name,
        body=body,
        ndcg=metrics.get(NDCG),
        recall=metrics.get(RECALL),
        cases=evaluation.facts["cases"],
        sessions=model.facts["sessions"],
        cpu_seconds=cpu_seconds,
        low=low,
        high=high,
    )


def total_rows(rows: list[Row], policies: tuple[str, ...], artifacts: Artifacts) -> list[Total]:
    """One a policy, over all days; differences are of the same cases."""
    first_day, totals = rows[0].day, []
    gains = {policy: _all_gains([row for row in rows if row.policy == policy], artifacts) for policy in policies}
    for policy in policies:
        own = [row for row in rows if row.policy == policy and row.ndcg is not None]
        cases = sum(row.cases for row in own)
        ndcg = sum((row.ndcg or 0.0) * row.cases for row in own) / max(cases, 1)
        bounds: dict[str, Any] = {}
        mine, base = gains[policy], gains[policies[0]]
        if mine is not None and base is not None:
            bounds["low"], bounds["high"] = interval(mine)
            if policy != policies[0]:
                both = mine.join(base, on=("day", CASE), suffix="_base", maintain_order="left")
                both = both.with_columns(pl.col("gain") - pl.col("gain_base"))
                bounds["difference"] = both["gain"].mean()
                bounds["difference_low"], bounds["difference_high"] = interval(both)
        spent = {row.day: row.cpu_seconds for row in own}
        later = sum(seconds for day, seconds in spent.items() if day != first_day)
        cpu = round(sum(spent.values()), 1)
        totals.append(Total(policy=policy, ndcg=ndcg, cpu_seconds=cpu, later_cpu_seconds=round(later, 1), **bounds))
    return totals


def interval(gains: pl.DataFrame) -> tuple[float, float]:
    """The bounds of the mean of `gain` over cases, as an evaluation's: users (`user`) are drawn again."""
    bootstrap = Bootstrap(user_numbers(gains[USER]))
    low_M, high_M = bootstrap.intervals(bootstrap.sums(gains["gain"].to_numpy())[:, None], (1 - CONFIDENCE) / 2)
    return float(low_M[0]), float(high_M[0])


def _all_gains(rows: list[Row], artifacts: Artifacts) -> pl.DataFrame | None:
    """`day`, `case`, `user` and the NDCG of each case; None where no day has a case."""
    parts = []
    for row in rows:
        if row.ndcg is not None:
            ranks = read_ranks(artifacts.root / row.evaluation, row.body)
            gain = gains_of(NDCG, torch.from_numpy(ranks[RANK].to_numpy(writable=True))).numpy()
            parts.append(ranks.select(pl.lit(row.day).alias("day"), CASE, USER, pl.Series("gain", gain)))
    return pl.concat(parts, how="vertical_relaxed") if parts else None


def table_of(rows: list[Row], totals: list[Total]) -> str:
    """The table of a backtest in Markdown: a line a day, then all days; NDCG@20 with its interval and CPU seconds by policy."""
    policies = [total.policy for total in totals]
    cells = {(row.day, row.policy): row for row in rows}
    lines = []
    for day in dict.fromkeys(row.day for row in rows):
        mine = [cells[day, policy] for policy in policies]
        values = {f"{row.policy} {NDCG}": _bounded(row.ndcg, row.low, row.high) for row in mine}
        lines.append((day, values | {f"{row.policy} CPU s": f"{row.cpu_seconds:.1f}" for row in mine}))
    values = {f"{total.policy} {NDCG}": _bounded(total.ndcg, total.low, total.high) for total in totals}
    lines.append(("all days", values | {f"{total.policy} CPU s": f"{total.cpu_seconds:.1f}" for total in totals}))
    return "\n".join(markdown_table("day", lines)) + "\n"


def differences(totals: list[Total]) -> list[str]:
    """How each policy compares with the first, a sentence each; CPU seconds are those after the first day."""
    base, *rest = totals
    lines = []
    for total in rest:
        share = f"{total.later_cpu_seconds / base.later_cpu_seconds:.0%}" if base.later_cpu_seconds else "-"
        change = total.ndcg - base.ndcg
        bounds = (
            f" ({total.difference_low:+.4f} to {total.difference_high:+.4f})" if total.difference is not None else ""
        )
        lines.append(f"{total.policy} against {base.policy}: {NDCG} {change:+.4f}{bounds}, {share} of its CPU seconds")
    return lines


def _bounded(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} ({low:.4f}-{high:.4f})"


def draw_days(rows: list[Row], policies: tuple[str, ...]) -> str:
    """NDCG@20 by day with intervals, and CPU seconds by day, as one SVG; a line a policy."""
    days = list(dict.fromkeys(row.day for row in rows))
    bounds = [value for row in rows for value in (row.ndcg, row.low, row.high) if value is not None] or [0.0]
    return render(
        f"{PICTURE}.j2",
        plots=[
            _plot(f"{NDCG} by day (bars: 95 %)", days, policies, rows, "ndcg", min(bounds), max(bounds), 0),
            _plot(
                "CPU seconds of training", days, policies, rows, "cpu_seconds", 0.0, max(r.cpu_seconds for r in rows), 1
            ),
        ],
        days=[(x, day) for x, day in zip(_places(days), days, strict=True)],
        width=LEFT + WIDTH + 110,
        height=2 * (TOP + HEIGHT) + 60,
        plot=(LEFT, TOP, WIDTH, HEIGHT),
    )


def _plot(
    title: str,
    days: list[str],
    policies: tuple[str, ...],
    rows: list[Row],
    value: str,
    low: float,
    high: float,
    place: int,
) -> dict[str, Any]:
    span = (high - low) or 1.0

    def y(number: float) -> float:
        return round(TOP + HEIGHT * (1 - (number - low) / span), 1)

    lines = []
    for number, policy in enumerate(policies):
        own = {row.day: row for row in rows if row.policy == policy}
        places = _places(days, number, len(policies))
        shown = [(x, own[day]) for x, day in zip(places, days, strict=True) if getattr(own[day], value) is not None]
        points = [(x, y(getattr(row, value))) for x, row in shown]
        bars = [
            (x, y(row.low), y(row.high)) for x, row in shown if value == "ndcg" and row.low is not None and row.high
        ]
        lines.append({"policy": policy, "color": COLORS.get(policy, "#283"), "points": points, "bars": bars})
    return {
        "title": title,
        "lines": lines,
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "offset": place * (TOP + HEIGHT + 20),
    }


def _places(days: list[str], number: int = 0, count: int = 1) -> list[float]:
    """The x of each day for one of `count` policies, side by side, so that no bar hides another."""
    room = (WIDTH - 30) / len(days)
    aside = (number - (count - 1) / 2) * min(APART, OF_A_DAY * room / count)
    return [round(LEFT + 15 + room * (place + 0.5) + aside, 1) for place in range(len(days))]
