"""Guards of promotion as a table of the report."""

from __future__ import annotations

from typing import Any

ABOUT = "A model beyond a limit is held. promotion.guards sets limits; those of the day are not asked of a first model."


def guard_rows(comparison: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """A row for each guard that a comparison measured or that has a limit: value, limit, and whether it holds the model."""
    return [
        (row["guard"], {"value": _number(row["value"]), "limit": _number(row["limit"]), "outcome": _outcome(row)})
        for row in comparison.get("guards", [])
        if row["value"] is not None or row["limit"] is not None
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _outcome(row: dict[str, Any]) -> str:
    if row["holds"]:
        return "holds"
    return "off" if row["limit"] is None else "passes" if row["value"] is not None else "not measured"
