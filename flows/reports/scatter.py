"""One metric against another, a point for each model and fold: a static chart, as SVG."""

from __future__ import annotations

from typing import Any

import polars as pl

from flows.reports.templates import format_number, render
from schemas.errors import unknown

LEFT, TOP, WIDE, HIGH = 64, 40, 420, 280  # of the plot
LEGEND, FOOT = 200, 48  # right of it and below
TICKS = 5
COLORS = ("#3657c8", "#c8452f", "#2b8a3e", "#b07a00", "#7a3fb0", "#0b8a9c", "#a8326e", "#5b6b1f", "#555f6e", "#1c1f26")


def draw_scatter(table: pl.DataFrame, x: str, y: str, *, name: str = "model") -> str:
    """The columns `x` and `y` of a table of metrics (`Project.results`): small points for its rows, a large one at the
    mean of each `name`. Rows without a number are left out.

    Raises:
        InputError: for a column that is not there.
    """
    for column in (name, x, y):
        if column not in table.columns:
            raise unknown("column", column, table.columns)
    rows = (
        table.select(name, pl.col(x, y).cast(pl.Float64))
        .drop_nulls()
        .filter(pl.all_horizontal(pl.col(x, y).is_finite()))
    )
    across, upward = _Scale(rows[x], LEFT, WIDE), _Scale(rows[y], TOP + HIGH, -HIGH)
    groups: list[dict[str, Any]] = []
    for (group,), part in rows.group_by(name, maintain_order=True):
        points = [(across.place(at), upward.place(height)) for at, height in part.select(x, y).iter_rows()]
        at, height = part[x].to_numpy().mean(), part[y].to_numpy().mean()
        groups.append(
            {
                "name": group,
                "color": COLORS[len(groups) % len(COLORS)],
                "points": points if len(points) > 1 else [],
                "mean": (across.place(at), upward.place(height)),
                "title": f"{group}: {x} {format_number(at)}, {y} {format_number(height)}",
            }
        )
    return render(
        "scatter.svg.j2",
        plot=(LEFT, TOP, WIDE, HIGH),
        width=LEFT + WIDE + LEGEND,
        height=TOP + HIGH + FOOT,
        titles=(x, y),
        across=across.ticks(),
        upward=upward.ticks(),
        groups=groups,
    )


class _Scale:
    """Numbers -> places from `start` on over `length`, with some room at both ends."""

    def __init__(self, values: pl.Series, start: float, length: float) -> None:
        numbers = values.to_list() or [0.0]
        low, high = min(numbers), max(numbers)
        room = 0.08 * (high - low) or abs(high) or 1.0
        self.low, self.span, self.start, self.length = low - room, high - low + 2 * room, start, length

    def place(self, value: float) -> float:
        return round(self.start + self.length * (value - self.low) / self.span, 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Where to write which numbers: about evenly spread, of two digits, each at its place."""
        values = {float(f"{self.low + self.span * (number + 0.5) / TICKS:.2g}") for number in range(TICKS)}
        return [(self.place(value), format_number(value)) for value in sorted(values)]
