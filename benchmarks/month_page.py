"""The page and the picture of a simulated month."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etl_page import commit, machine

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, PICTURE = DOCS / "month.md", DOCS / "month.svg"
WIDTH, HEIGHT, LEFT, TOP = 620, 240, 60, 30
COLORS = {"in service": "#3657c8", "never retrained": "#778", "MB": "#3657c8"}
INTRODUCTION = """# A simulated month

`make month` renews this page: {nights} nights of a shop of {users:,} people by `flows.retrain`, in one process and on one
Prefect server, with the settings of the dataset `demo` and the newest ten days. The source holds two weeks.

**in service** is NDCG@20 on the day's cases of the model that was in service when the day began, **never retrained** that of
the first night's model on the same cases. Seconds and CPU seconds are those of the whole night, but for CPU seconds of the
server and of what is killed. The shop drifts by itself: every day one item in a hundred goes off sale and as many come.
"""
Worth = tuple[float, float, float, int]  # NDCG@20, the bounds of its interval, cases


@dataclass
class Night:
    """What became of a night."""

    day: str
    happened: str
    outcome: str
    verdict: str
    warnings: list[str] = field(default_factory=list)
    champion: Worth | None = None
    """On this day's cases, the model that was in service when the day began; None where there was none, or no cases."""
    frozen: Worth | None = None
    seconds: float = 0.0
    cpu: float = 0.0
    disk: float = 0.0

    def line(self) -> str:
        """A row of the table."""
        worth = [f"{value[0]:.4f}" if value else "" for value in (self.champion, self.frozen)]
        cells = [
            self.day,
            self.happened,
            self.outcome,
            *worth,
            f"{self.seconds:.0f}",
            f"{self.cpu:.0f}",
            f"{self.disk:.1f}",
        ]
        return f"| {' | '.join(cells)} |"


def write_page(rows: list[Night], seconds: float, server: float, users: int, *, whole: bool) -> None:
    """Print the table and what follows from it; of a whole month, write the page and the picture."""
    text = page_of(rows, seconds, server, users)
    print(text)
    if whole:
        PAGE.write_text(text)
        PICTURE.write_text(picture_of(rows))


def page_of(rows: list[Night], seconds: float, server: float, users: int) -> str:
    """The page in Markdown; `server` is the CPU seconds of Prefect's server."""
    both = [(row.champion, row.frozen) for row in rows if row.champion and row.frozen]
    cases = sum(champion[3] for champion, _ in both)
    means = [sum(pair[n][0] * pair[n][3] for pair in both) / max(cases, 1) for n in (0, 1)]
    above = sum(champion[0] > frozen[0] for champion, frozen in both)
    head = ["day", "what happened", "night", "in service", "never retrained", "seconds", "CPU s", "root MB"]
    notes = [
        f"- **{row.day}**{f', {row.happened}' if row.happened else ''}: {row.verdict}" for row in rows if _is_told(row)
    ]
    warned = [f"- **{row.day}**: {line}" for row in rows for line in row.warnings if "drifted" not in line]
    cpu = sum(row.cpu for row in rows)
    return "\n".join(
        [
            INTRODUCTION.format(nights=len(rows), users=users),
            f"Over all days the model in service has NDCG@20 **{means[0]:.4f}**, the one never retrained **{means[1]:.4f}**,",
            f"on {cases:,} cases; it is above on {above} of {len(both)} days. All of it took {seconds / 60:.0f} minutes and "
            f"{cpu:,.0f} CPU seconds, and {server:,.0f} of Prefect's server",
            f"({machine()}, at commit {commit(DOCS.parent)}).",
            "",
            "![NDCG@20 by day of the model in service and of the one never retrained, and the size of the root](month.svg)",
            "",
            f"| {' | '.join(head)} |",
            f"|{'---|' * len(head)}",
            *(row.line() for row in rows),
            "",
            "## What the nights said",
            "",
            *notes,
            "",
            "## Warnings of days",
            "",
            *(warned or ["None but of drift."]),
            "",
        ]
    )


def _is_told(row: Night) -> bool:
    return bool(row.happened) or row.outcome in ("failed", "nothing new") or "Guard" in row.verdict


def picture_of(rows: list[Night]) -> str:
    """Two plots as one SVG: NDCG@20 by day with intervals, and the size of the root."""
    from flows.reports.templates import render

    places = {row.day: round(LEFT + 15 + (WIDTH - 30) * (n + 0.5) / len(rows), 1) for n, row in enumerate(rows)}
    worth = {name: {row.day: value for row in rows if (value := getattr(row, of))} for name, of in _LINES.items()}
    disk = {"MB": {row.day: (row.disk, row.disk, row.disk, 0) for row in rows}}
    plots = [
        _plot("NDCG@20 by day (bars: 95 %)", worth, places, 0, bars=True),
        _plot("Size of the root, MB", disk, places, 1, bars=False),
    ]
    days = [(place, day) for day, place in places.items()]
    size = {"width": LEFT + WIDTH + 110, "height": 2 * (TOP + HEIGHT) + 60}
    return render("days.svg.j2", plots=plots, days=days, plot=(LEFT, TOP, WIDTH, HEIGHT), **size)


_LINES = {"in service": "champion", "never retrained": "frozen"}


def _plot(
    title: str, lines: dict[str, dict[str, Worth]], places: dict[str, float], number: int, *, bars: bool
) -> dict[str, Any]:
    values = [value for line in lines.values() for value in line.values()]
    low, high = (0.0, max(value[2] for value in values)) if values else (0.0, 1.0)

    def y(value: float) -> float:
        return round(TOP + HEIGHT * (1 - (value - low) / ((high - low) or 1.0)), 1)

    drawn = [
        {
            "policy": name,
            "color": COLORS[name],
            "points": [(places[day], y(value[0])) for day, value in line.items()],
            "bars": [(places[day], y(value[1]), y(value[2])) for day, value in line.items()] if bars else [],
        }
        for name, line in lines.items()
    ]
    return {
        "title": title,
        "lines": drawn,
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "offset": number * (TOP + HEIGHT + 20),
    }
