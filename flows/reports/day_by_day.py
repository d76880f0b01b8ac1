"""How a backtest is shown: a table of days, a picture, and how policies differ; a policy is a scorer, a day a fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.reports.comparison import Row, Total
from flows.reports.tables import markdown_table
from flows.reports.templates import render

TABLE, PICTURE = "table.md", "days.svg"
Point = tuple[str, str, float | None, tuple[float, float] | None]  # day, policy, value, bounds of the value
COLORS = {"scratch": "#3657c8", "warm": "#c8502f", "frozen": "#778"}
WIDTH, HEIGHT, LEFT, TOP = 620, 240, 60, 30  # of the picture's plots
APART, OF_A_DAY = 6.0, 0.6  # points of policies on a day: so many units apart, over so much of the day at most


def files_of(facts: dict[str, Any], rows: list[Row], totals: list[Total]) -> dict[str, str]:
    """The files of a backtest: its table in Markdown, and its picture."""
    return {TABLE: table_of(rows, totals, facts["metric"]), PICTURE: draw_days(rows, facts["metric"])}


def table_of(rows: list[Row], totals: list[Total], metric: str) -> str:
    """The table in Markdown: a line a day, then all days; a metric with its interval and CPU seconds by policy."""
    policies = [total.name for total in totals]
    cells = {(row.fold, row.name): row for row in rows}
    lines = []
    for day in dict.fromkeys(row.fold for row in rows):
        of_day = [cells[day, policy] for policy in policies]
        values = {f"{row.name} {metric}": _bounded(row, metric) for row in of_day}
        lines.append((day, values | {f"{row.name} CPU s": f"{row.cpu_seconds or 0:.1f}" for row in of_day}))
    values = {f"{total.name} {metric}": _bounded(total, metric) for total in totals}
    lines.append(("all days", values | {f"{name} CPU s": f"{_seconds(rows, name):.1f}" for name in policies}))
    return "\n".join(markdown_table("day", lines)) + "\n"


def differences(facts: dict[str, Any]) -> list[str]:
    """How each policy compares with the first, and which is left out, a sentence each.

    CPU seconds are those after the first day, on which all policies train the same model.
    """
    rows, metric = [Row.model_validate(row) for row in facts["rows"]], facts["metric"]
    base, *rest = [Total.model_validate(total) for total in facts["totals"]]
    later = [row for row in rows if row.fold != rows[0].fold]
    whole, lines = _seconds(later, base.name), []
    for total in rest:
        share = f"{_seconds(later, total.name) / whole:.0%}" if whole else "-"
        mean, low, high = total.differences.get(metric) or (None, None, None)
        change = f"{mean:+.4f} ({low:+.4f} to {high:+.4f})" if mean is not None else "-"
        lines.append(f"{total.name} against {base.name}: {metric} {change}, {share} of its CPU seconds")
    return lines + [f"Warning: {name} is left out: {why}" for name, why in facts["left_out"].items()]


def _seconds(rows: list[Row], name: str) -> float:
    """CPU seconds that a policy's training took on all days."""
    return round(sum(row.cpu_seconds or 0.0 for row in rows if row.name == name), 1)


def _bounded(of: Row | Total, metric: str) -> str:
    value, bounds = of.metrics.get(metric), of.intervals.get(metric)
    if value is None:
        return "-"
    return f"{value:.4f} ({bounds[0]:.4f}-{bounds[1]:.4f})" if bounds else f"{value:.4f}"


def draw_days(rows: list[Row], metric: str) -> str:
    """A metric by day with intervals, and CPU seconds by day, as one SVG; a line a policy."""
    days = list(dict.fromkeys(row.fold for row in rows))
    measured = [(row.fold, row.name, row.metrics.get(metric), row.intervals.get(metric)) for row in rows]
    spent = [(row.fold, row.name, row.cpu_seconds, None) for row in rows]
    return render(
        f"{PICTURE}.j2",
        plots=[
            _plot(f"{metric} by day (bars: 95 %)", measured, 0),
            _plot("CPU seconds of training", spent, 1, low=0.0),
        ],
        days=[(x, day) for x, day in zip(_places(days), days, strict=True)],
        width=LEFT + WIDTH + 110,
        height=2 * (TOP + HEIGHT) + 60,
        plot=(LEFT, TOP, WIDTH, HEIGHT),
    )


def _plot(
    title: str,
    points: Sequence[Point],
    place: int,
    low: float | None = None,
) -> dict[str, Any]:
    """One plot; its values begin at `low`, or at the least of them."""
    values = [value for *_, value, bounds in points for value in (value, *(bounds or ())) if value is not None]
    low, high = min(values, default=0.0) if low is None else low, max(values, default=0.0)
    span = (high - low) or 1.0

    def y(number: float) -> float:
        return round(TOP + HEIGHT * (1 - (number - low) / span), 1)

    days, policies = (list(dict.fromkeys(column)) for column in zip(*(point[:2] for point in points), strict=True))
    lines = []
    for number, policy in enumerate(policies):
        at = dict(zip(days, _places(days, number, len(policies)), strict=True))
        drawn = [
            (at[day], value, bounds) for day, name, value, bounds in points if name == policy and value is not None
        ]
        bars = [(x, y(bounds[0]), y(bounds[1])) for x, _, bounds in drawn if bounds]
        color = COLORS.get(policy, "#283")
        lines.append({"policy": policy, "color": color, "points": [(x, y(v)) for x, v, _ in drawn], "bars": bars})
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
