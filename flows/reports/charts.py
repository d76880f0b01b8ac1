"""Charts as inline SVG: learning curves of a model, and bars of what a day counted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from flows.reports.templates import format_number, render
from schemas.artifacts import Manifest
from schemas.progress import HistoryRow

DRAWN = ("ndcg@20", "auc", "rmse")  # of the validations
WIDTH, HEIGHT, ROOM = 360, 110, 14  # of a bar chart's plot, and above it
MOST_BARS = 30
WIDE = 30  # times the smallest number: beyond, numbers are drawn on a logarithmic scale
Points = list[tuple[float, float]]  # (step, value)
Bars = list[tuple[float, int, int]]  # (where, how many, how many on the days before)


def read_curves(model: Manifest) -> dict[str, Points]:
    """By title: the training loss, and in validation NDCG@20 and the first metric of each label."""
    history = [HistoryRow.model_validate(row) for row in json.loads((model.folder / "history.json").read_text())]
    curves: dict[str, Points] = {"training loss": [(row.step, row.loss) for row in history]}
    for row in history:
        for name, value in row.validation.items():
            if name.rpartition("/")[2] in DRAWN:
                curves.setdefault(f"validation {name}", []).append((row.step, value))
    return curves


def draw_curves(curves: dict[str, Points]) -> str:
    """Small line charts, two a row, as one SVG; a curve without points is left out."""
    return render("curves.svg.j2", charts=[_chart(title, points) for title, points in curves.items() if points])


def _chart(title: str, points: Points) -> dict[str, Any]:
    """Points scaled into a box of 360 x 160, with the values that its edges stand for."""
    last = max(step for step, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    span = (high - low) or 1.0
    path = " ".join(f"{50 + 300 * step / last:.1f},{150 - 130 * (value - low) / span:.1f}" for step, value in points)
    return {
        "title": title,
        "path": path,
        "end": path.rpartition(" ")[2].split(","),
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "last": f"{last:,.0f}",
    }


def draw_histogram(points: Bars) -> dict[str, Any]:
    """`chart`, bars of equal width; or of equal width in the logarithm where positive numbers range widely, and `scale`."""
    low, high = points[0][0], points[-1][0]
    if low > 0 and high > WIDE * low:
        exponents = [(math.log10(at), now, before) for at, now, before in points]
        return {
            "chart": draw_bars(_grouped(exponents), lambda exponent: format_number(10.0**exponent)),
            "scale": "logarithmic",
        }
    return {"chart": draw_bars(_grouped(points))}


def _grouped(points: Bars) -> Bars:
    """Points in groups of equal width, each at its middle; zeros where nothing lies."""
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


def draw_bars(points: Bars, words: Callable[[float], str] = format_number) -> Markup:
    """Bars of equal width for the day, and lines for the days before, both as shares of their own total.

    It is made of numbers alone, so nothing in it needs to be escaped.
    """
    now, before = sum(count for _, count, _ in points), sum(count for _, _, count in points)
    shares = [(share_of(count, now), share_of(other, before)) for _, count, other in points]
    highest = max(max(pair) for pair in shares) or 1.0
    width, ground = WIDTH / len(points), HEIGHT + ROOM
    parts = []
    for place, ((at, count, _), (share, other)) in enumerate(zip(points, shares, strict=True)):
        if share or other:
            x, height = width * place, HEIGHT * share / highest
            line = ground - HEIGHT * other / highest
            before_too = f"; {other:.1%} before" if before else ""
            parts.append(
                f"<g><title>{words(at)}: {count:,} ({share:.1%}{before_too})</title>"
                f'<path d="M{x + width * 0.08:.1f} {ground}v{-height:.1f}h{width * 0.84:.1f}v{height:.1f}z"/>'
                + (f'<path class="before" d="M{x:.1f} {line:.1f}h{width:.1f}"/></g>' if before else "</g>")
            )
    last = len(points) - 1
    for place in sorted({0, last // 4, last // 2, 3 * last // 4, last}):
        anchor = "start" if place == 0 < last else "end" if 0 < place == last else "middle"
        x = {"start": 0.0, "middle": width * (place + 0.5), "end": float(WIDTH)}[anchor]
        parts.append(f'<text x="{x:.1f}" y="{ground + 14}" text-anchor="{anchor}">{words(points[place][0])}</text>')
    parts.append(f'<path class="ground" d="M0 {ground}h{WIDTH}"/><text y="9">{highest:.1%}</text>')
    return Markup(f'<svg viewBox="0 0 {WIDTH} {ground + 20}" role="img">{"".join(parts)}</svg>')


def share_of(part: int, whole: int) -> float:
    """A part of a whole, 0 of nothing."""
    return part / whole if whole else 0.0


def format_month(number: float) -> str:
    """Months since year 0 -> YYYY-MM."""
    return f"{int(number) // 12}-{int(number) % 12 + 1:02}"
