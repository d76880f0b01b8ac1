"""The page that shows a day's profile: charts are inline SVG, values are escaped, there is no script."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from jinja2 import Environment, FileSystemLoader, Template, select_autoescape
from markupsafe import Markup

from preprocessing.output.profile.counts import AT, COLUMN, HOURS, KIND, LENGTHS
from preprocessing.output.profile.drift import BEFORE
from schemas.columns import COUNT, ITEM_ID, VALUE
from schemas.dataset import Dataset

WIDTH, HEIGHT, ROOM = 360, 110, 14  # of a chart's plot, and above it
MOST_BARS, TOP_VALUES, TOP_ITEMS = 30, 10, 15
WIDE = 30  # times the smallest number: beyond, numbers are drawn on a logarithmic scale
Points = list[tuple[float, int, int]]  # where, how many, how many on the days before


class Row(NamedTuple):
    """What was counted of one column."""

    column: str
    kind: str
    value: str | None
    at: float | None
    num: int
    num_before: int


def render(dataset: Dataset, facts: dict[str, Any], compared: pl.DataFrame, warned: set[str]) -> str:
    """One page of a day's facts and counts; `compared` holds the day's rows of `drift.compare`, `warned` what drifted."""
    columns: dict[str, list[Row]] = {}
    for row in map(Row._make, compared.select(COLUMN, KIND, VALUE, AT, COUNT, BEFORE).rows()):
        columns.setdefault(row.column, []).append(row)
    hours, lengths, items = (columns.pop(name, []) for name in (HOURS, LENGTHS, ITEM_ID))
    return _template().render(
        dataset=dataset,
        facts=facts,
        warned=warned,
        account=_account(facts),
        hours=_chart(_places(_points(hours), 0, 23)) if hours else "",
        hours_name=HOURS,
        lengths=_chart(_lengths(_points(lengths))) if lengths else "",
        lengths_name=LENGTHS,
        items=_values(items, TOP_ITEMS) | _said_of(ITEM_ID, items),
        columns=[_column(name, columns[name]) for name in sorted(columns)],
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _told
    return environment.get_template("profile.html.j2")


def _account(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Where the rows went, each with its share of what came in."""
    came = facts["rows_in"] + facts["carried_in"]
    parts = [("events in sessions", "kept", facts["events"]), ("in sessions still open", "open", facts["still_open"])]
    parts += [(f"quarantined: {rule}", "bad", count) for rule, count in facts["quarantined"].items()]
    parts += [(f"dropped: {step}", "dropped", count) for step, count in facts["dropped"].items()]
    return [{"name": name, "kind": kind, "count": count, "share": _share(count, came)} for name, kind, count in parts]


def _column(name: str, rows: list[Row]) -> dict[str, Any]:
    points = _points(rows)
    if any(row.kind == "month" for row in rows):
        shown: dict[str, Any] = {"chart": _chart(_places(points, int(points[0][0]), int(points[-1][0])), _month)}
    elif points:
        shown = _histogram(points)
    else:
        shown = _values(rows, TOP_VALUES)
    return shown | _said_of(name, rows)


def _said_of(name: str, rows: list[Row]) -> dict[str, Any]:
    """What is said of every column in a line."""
    counts = {row.kind: row.num for row in rows if row.kind in ("missing", "distinct")}
    missing, total = counts.get("missing", 0), sum(row.num for row in rows if row.kind != "distinct")
    return {"name": name, "missing": missing, "share": _share(missing, total), "distinct": counts.get("distinct")}


def _values(rows: list[Row], most: int) -> dict[str, Any]:
    """The most frequent values as bars, then all others as one."""
    counted = [row for row in rows if row.kind in ("value", "rest")]
    now, before = sum(row.num for row in counted), sum(row.num_before for row in counted)
    top = sorted((-row.num, row.value or "", row.num_before) for row in counted if row.kind == "value" and row.num)[
        :most
    ]
    shown = [(value, -count, _share(-count, now), _share(other, before)) for count, value, other in top]
    highest = max((max(share, other) for _, _, share, other in shown), default=1.0)
    bars = [
        {
            "name": value,
            "count": count,
            "share": share,
            "width": share / highest,
            "before": other / highest if before else None,
        }
        for value, count, share, other in shown
    ]
    others = now - sum(count for _, count, _, _ in shown)
    return {"bars": bars, "others": others, "others_share": _share(others, now)}


def _points(rows: list[Row]) -> Points:
    return sorted((row.at, row.num, row.num_before) for row in rows if row.at is not None)


def _places(points: Points, first: int, last: int) -> Points:
    """Whole numbers one after the other, also those that nothing lies at."""
    there = {at: (now, before) for at, now, before in points}
    return [(float(at), *there.get(float(at), (0, 0))) for at in range(first, last + 1)]


def _lengths(points: Points) -> Points:
    """From 1 on; all that are longer than a chart is wide in the last place."""
    longer = [point for point in points if point[0] >= MOST_BARS]
    shown = _places(points, 1, min(int(points[-1][0]), MOST_BARS))
    if longer:
        shown[-1] = (float(MOST_BARS), sum(now for _, now, _ in longer), sum(before for _, _, before in longer))
    return shown


def _histogram(points: Points) -> dict[str, Any]:
    """Bars of equal width; of equal width in the logarithm where positive numbers range widely."""
    low, high = points[0][0], points[-1][0]
    if low > 0 and high > WIDE * low:
        exponents = [(math.log10(at), now, before) for at, now, before in points]
        return {"chart": _chart(_grouped(exponents), lambda exponent: _told(10.0**exponent)), "scale": "logarithmic"}
    return {"chart": _chart(_grouped(points))}


def _grouped(points: Points) -> Points:
    """Points in groups of equal width, each told by its middle; zeros where nothing lies."""
    low, high = points[0][0], points[-1][0]
    if low == high:
        return points
    width = (high - low) / MOST_BARS
    counts = [[0, 0] for _ in range(MOST_BARS)]
    for at, now, before in points:
        place = min(int((at - low) / width), MOST_BARS - 1)
        counts[place][0] += now
        counts[place][1] += before
    return [(low + (place + 0.5) * width, now, before) for place, (now, before) in enumerate(counts)]


def _chart(points: Points, told: Callable[[float], str] | None = None) -> Markup:
    """Bars of equal width, and lines for the days before, both as shares of their own total.

    It is made of numbers alone, so nothing in it needs to be escaped.
    """
    told = told or _told
    now, before = sum(count for _, count, _ in points), sum(count for _, _, count in points)
    shares = [(_share(count, now), _share(other, before)) for _, count, other in points]
    highest = max(max(pair) for pair in shares) or 1.0
    width, ground = WIDTH / len(points), HEIGHT + ROOM
    parts = []
    for place, ((at, count, _), (share, other)) in enumerate(zip(points, shares, strict=True)):
        if share or other:
            x, height = width * place, HEIGHT * share / highest
            line = ground - HEIGHT * other / highest
            told_before = f"; {other:.1%} before" if before else ""
            parts.append(
                f"<g><title>{told(at)}: {count:,} ({share:.1%}{told_before})</title>"
                f'<path d="M{x + width * 0.08:.1f} {ground}v{-height:.1f}h{width * 0.84:.1f}v{height:.1f}z"/>'
                + (f'<path class="before" d="M{x:.1f} {line:.1f}h{width:.1f}"/></g>' if before else "</g>")
            )
    last = len(points) - 1
    for place in sorted({0, last // 4, last // 2, 3 * last // 4, last}):
        anchor = "start" if place == 0 < last else "end" if 0 < place == last else "middle"
        x = {"start": 0.0, "middle": width * (place + 0.5), "end": float(WIDTH)}[anchor]
        parts.append(f'<text x="{x:.1f}" y="{ground + 14}" text-anchor="{anchor}">{told(points[place][0])}</text>')
    parts.append(f'<path class="ground" d="M0 {ground}h{WIDTH}"/><text y="9">{highest:.1%}</text>')
    return Markup(f'<svg viewBox="0 0 {WIDTH} {ground + 20}" role="img">{"".join(parts)}</svg>')


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _month(number: float) -> str:
    return f"{int(number) // 12}-{int(number) % 12 + 1:02}"


def _told(number: float) -> str:
    """A number as people read it: 12,400 or 0.0312."""
    if 1000 <= abs(number) < 1e12 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.3g}"
