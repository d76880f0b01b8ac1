"""Metrics as people read them: who ranks items how well, what is foretold of labels, on which cases."""

from __future__ import annotations

from typing import Any

Values = dict[str, float | None]  # None: undefined on these cases
Metrics = dict[str, Values]  # by scorer, the model first
UNDEFINED = "undefined"


def item_rows(metrics: Metrics) -> list[tuple[str, dict[str, float]]]:
    """(scorer, its metrics as in ndcg@20) of the model, then of the baselines, best NDCG first; none if no item is ranked."""
    rows = []
    for name, values in metrics.items():
        if found := {key: value for key, value in values.items() if "@" in key and value is not None}:
            rows.append((name, found))
    if not rows:
        return []
    k = max(int(key.partition("@")[2]) for key in rows[0][1])
    return [rows[0], *sorted(rows[1:], key=lambda row: -row[1][f"ndcg@{k}"])]


def label_rows(metrics: Metrics) -> list[tuple[str, dict[str, str]]]:
    """(metric as in bought/auc, its value by scorer) of all labels, written out."""
    wanted = [key for key in next(iter(metrics.values())) if "/" in key]
    return [(key, {name: written(row[key]) for name, row in metrics.items() if key in row}) for key in wanted]


def written(value: float | None) -> str:
    """Four decimals."""
    return UNDEFINED if value is None else f"{value:.4f}"


def about_items(facts: dict[str, Any]) -> str:
    """On which cases items were ranked, in one sentence."""
    total = facts["cases"] + facts["unknown_targets"]
    share = facts["cases"] / total if total else 0.0
    seen = "seen items filtered" if facts["filter_seen"] else "seen items kept"
    return (
        f"Last item of {facts['cases']:,} test sessions ({share:.1%} of {total:,}; the others end in an item unknown before "
        f"the test day) ranked among all {facts['catalogue']:,} items, {seen}, {facts['ties']}."
    )


def about_labels(facts: dict[str, Any]) -> str:
    """On which cases labels were foretold, a sentence each."""
    return " ".join(
        f"{label}: {of['cases']:,} test {'sessions' if of['per'] == 'session' else 'events'} that have it, foretold from the "
        f"events before; its mean in training, {written(of['training_mean'])}, is the baseline."
        for label, of in facts["labels"].items()
    )
