"""What an evaluation says of ranked items beyond the table of metrics: intervals, ranks, lists, slices; as rows of tables."""

from __future__ import annotations

from typing import Any

from flows.reports.tables import Metrics, format_metric, item_rows

Row = tuple[str, dict[str, str]]  # name and cells
MISS = "a miss"
SHORT = {
    "catalog_coverage": "coverage",
    "gini_index": "Gini",
    "avg_rec_popularity": "popularity",
    "mean_inv_user_freq": "novelty, bits",
    "intra_list_diversity": "diversity",
    "serendipity": "serendipity",
    "repeats": "repeats",
}


def beaten_by(metrics: Metrics) -> str:
    """A sentence that names the best baseline where it is better than the model, by NDCG at the largest cut-off; else empty."""
    rows = item_rows(metrics)
    if len(rows) < 2:
        return ""
    (model, ours), (name, best) = rows[:2]
    key = f"ndcg@{max(int(key.partition('@')[2]) for key in ours)}"
    own, its = ours.get(key), best.get(key)
    if own is None or its is None or its <= own:
        return ""
    return f"A baseline is better than the model: {name} has {key} {its:.4f}, {model} {own:.4f}."


def interval_rows(facts: dict[str, Any], *, brief: bool = False) -> list[Row]:
    """By scorer its NDCG, recall and MRR at the largest cut-off, each with its interval; `brief` in three digits."""
    intervals = facts.get("intervals", {}).get("metrics", {})
    rows = []
    for name, values in item_rows(facts["metrics"]):
        if name in intervals:
            k = max(int(key.partition("@")[2]) for key in values)
            keys = [f"{metric}@{k}" for metric in ("ndcg", "recall", "mrr")]
            rows.append((name, {key: _with_bounds(values[key], intervals[name][key], brief=brief) for key in keys}))
    return rows


def describe_intervals(facts: dict[str, Any]) -> str:
    """How the intervals were made, a sentence."""
    about = facts.get("intervals")
    if not about or not about["metrics"]:
        return ""
    sure = f"with {about['confidence']:.0%}: {about['method']}."
    return f"Bounds hold the metric of all users like these {about['users']:,} {sure}"


def rank_rows(facts: dict[str, Any]) -> list[Row]:
    """By scorer the rank that half, three quarters and nine tenths of the cases reach."""
    return [
        (name, {f"{key} rank": MISS if value is None else f"{value:,.1f}" for key, value in of.items()})
        for name, of in facts.get("ranks", {}).items()
    ] if facts["cases"] else []  # fmt: skip


def list_rows(facts: dict[str, Any]) -> list[Row]:
    """By scorer what its lists are like at the largest cut-off."""
    rows = []
    for name, values in facts.get("lists", {}).get("metrics", {}).items():
        k = max(int(key.partition("@")[2]) for key in values)
        rows.append((name, {word: format_metric(values[f"{metric}@{k}"]) for metric, word in SHORT.items()}))
    return rows


def describe_lists(facts: dict[str, Any]) -> str:
    """For how many cases lists were made, and what makes items differ."""
    lists = facts.get("lists")
    if not lists or not lists["count"]:
        return ""
    k = max(int(key.partition("@")[2]) for key in next(iter(lists["metrics"].values())))
    return f"Lists of {k} for {lists['count']:,} of {facts['cases']:,} cases; diversity by {lists['diversity']}."


def slice_rows(facts: dict[str, Any]) -> list[Row]:
    """By part of the cases: how many, NDCG of every scorer at the largest cut-off, the model's with its interval."""
    rows = []
    for part in facts.get("slices", []):
        cells = {"cases": f"{part['cases']:,}", "users": f"{part['users']:,}"}
        for place, (name, values) in enumerate(part["metrics"].items()):
            value = next(value for key, value in values.items() if key.startswith("ndcg"))
            cells[name] = format_metric(value) if place else _with_bounds(value, part["interval"])
        rows.append((f"{part['slice']}: {part['part']}", cells))
    return rows


def _with_bounds(value: float | None, bounds: list[float] | None, *, brief: bool = False) -> str:
    if value is None or bounds is None:
        return format_metric(value)
    number, low, high = (_brief(part) if brief else format_metric(part) for part in (value, *bounds))
    return f"{number} ({low} to {high})"


def _brief(value: float) -> str:
    """0.232, and 0.0042 where three decimals would say little."""
    return f"{value:.3f}" if value >= 0.01 or value == 0 else f"{value:#.2g}"
