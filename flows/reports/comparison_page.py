"""The page of a comparison: the table with intervals, and a chart of any metric against any other, by Plotly.

The page holds Plotly's script and all that is drawn. Names reach it escaped, or as JSON that is read and never run.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from flows.reports.comparison import (
    CPU,
    SHOWN,
    TABLE,
    Row,
    Total,
    cells_of,
    columns,
    in_order,
    number,
    table_of,
    title_of,
)
from flows.reports.plot import script_file
from flows.reports.templates import render
from modeling.evaluation.list_metrics import NAMES as OF_LISTS
from modeling.evaluation.slices import CONFIDENCE

PAGE = "comparison.html"


def files_of(facts: dict[str, Any], rows: list[Row], totals: list[Total]) -> dict[str, str]:
    """The files of a comparison: its table in Markdown, and its page."""
    return {TABLE: table_of(totals, facts["metric"]), PAGE: page_of(facts["title"], facts, rows, totals)}


def page_of(title: str, facts: dict[str, Any], rows: list[Row], totals: list[Total]) -> str:
    """The page: warnings, the table with intervals, and the chart of any metric against any other."""
    metric, first = facts["metric"], totals[0].name
    shown = columns(metric)
    return render(
        f"{PAGE}.j2",
        title=title,
        facts=facts,
        first=first,
        confidence=CONFIDENCE,
        head=[*cells_of(totals[0], metric, first), *map(title_of, shown[1:])],
        table=[
            (
                total,
                [*cells_of(total, metric, first).values(), *(number(total.metrics.get(name)) for name in shown[1:])],
            )
            for total in in_order(totals, metric)
        ],
        data=chart_data(metric, rows, totals, facts["settings"]),
        plotly=Markup(script_file().read_text(encoding="utf-8")),
    )


def chart_data(
    metric: str, rows: list[Row], totals: list[Total], settings: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """What the chart draws: metrics with their titles, a point a row, a mean a scorer, and settings that differ.

    {"metrics": [["ndcg@20", "ndcg@20"], ...], "points": [{"name", "fold", "baseline", "values"}], "means": [... "bounds"],
    "settings": {"body.dim": {"esasrec": "64"}}, "x": "cpu_seconds", "y": "ndcg@20"}
    """
    keys = list(dict.fromkeys(name for row in rows for name in row.metrics))
    order = [*SHOWN, *OF_LISTS]
    keys.sort(key=lambda key: order.index(n) if (n := key.partition("@")[0]) in order else len(order))
    differ = {
        name: {model: of.get(name, "-") for model, of in settings.items()}
        for name in dict.fromkeys(name for of in settings.values() for name in of)
        if len({of.get(name) for of in settings.values()}) > 1
    }

    def point(of: Row | Total) -> dict[str, Any]:
        return {"name": of.name, "baseline": of.baseline, "values": of.metrics | {CPU: of.cpu_seconds}}

    return {
        "metrics": [[key, title_of(key)] for key in [*keys, CPU]],
        "points": [point(row) | {"fold": row.fold} for row in rows],
        "means": [point(total) | {"bounds": total.intervals} for total in totals],
        "settings": differ,
        "x": CPU,
        "y": metric,
    }
