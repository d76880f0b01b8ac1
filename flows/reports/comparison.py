"""What a comparison or a backtest measured: a row a fold and scorer, totals with intervals and paired differences, a table.

N cases of all folds that every scorer was measured on, S scorers, M metrics of ranks, U users.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict

from flows.reports.tables import markdown_table
from modeling.evaluation.bootstrap import Bootstrap
from modeling.evaluation.metrics import defined, gains_of, names_at
from modeling.evaluation.rank_table import CASE, RANK, USER, read_ranks
from modeling.evaluation.slices import CONFIDENCE, MOST_GROUPS, RESAMPLES, user_numbers
from schemas.artifacts import Manifest

TABLE = "table.md"
CPU = "cpu_seconds"
TITLES = {  # of metrics whose names do not say it
    CPU: "CPU seconds of training",
    "catalog_coverage": "coverage",
    "mean_inv_user_freq": "novelty",
    "avg_rec_popularity": "average popularity",
    "intra_list_diversity": "diversity",
    "gini_index": "Gini index",
    "repeats": "share of repeats",
}
SHOWN = ("ndcg", "recall", "mrr", "catalog_coverage", "mean_inv_user_freq", "serendipity", "avg_rec_popularity",
         "intra_list_diversity")  # fmt: skip


class Row(BaseModel):
    """One model or baseline on one fold."""

    model_config = ConfigDict(frozen=True)

    name: str
    fold: str
    baseline: bool = False
    scorer: str  # its name in the evaluation
    model: str
    evaluation: str
    cases: int
    cpu_seconds: float | None  # of training; None for what was not trained here
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None] = {}  # of metrics of ranks, as the evaluation has them


class Total(BaseModel):
    """One model or baseline over all folds.

    `metrics` are means over the cases of all folds, `cpu_seconds` over folds; `intervals` the bounds of metrics of ranks;
    `differences` (mean, lower and upper bound) those to the first model, case by case.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    baseline: bool
    cases: int
    cpu_seconds: float | None
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]] = {}
    differences: dict[str, tuple[float, float, float]] = {}


def rows_of(
    name: str, fold: str, model: Manifest, evaluation: Manifest, cost: float | None, baselines: tuple[str, ...]
) -> list[Row]:
    """The row of a model and those of the baselines of its evaluation."""
    facts, of_lists = evaluation.facts, evaluation.facts["lists"]["metrics"]
    bounds = facts.get("intervals", {}).get("metrics", {})
    costs = facts.get("baseline_seconds", {})
    about: dict[str, Any] = {"fold": fold, "model": model.name, "evaluation": evaluation.name, "cases": facts["cases"]}

    def row(name: str, scorer: str, **more: Any) -> Row:
        metrics = facts["metrics"][scorer] | of_lists.get(scorer, {})
        return Row(name=name, scorer=scorer, metrics=metrics, intervals=bounds.get(scorer, {}), **about, **more)

    return [
        row(name, facts["model"], cpu_seconds=cost),
        *(row(baseline, baseline, baseline=True, cpu_seconds=costs.get(baseline)) for baseline in baselines),
    ]


def settings_of(model: Manifest) -> dict[str, str]:
    """The settings a model was trained with, by dotted name, as they are written in YAML."""
    flat: dict[str, str] = {}

    def flatten(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                flatten(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value if isinstance(value, str) else json.dumps(value)

    flatten("", model.parameters.get("model", {}))
    flatten("training", model.parameters.get("training", {}))
    return flat


def totals_of(rows: list[Row], root: Path, cutoffs: tuple[int, ...]) -> tuple[list[Row], list[Total]]:
    """Rows with the metrics of the cases that all scorers share, and a total a scorer, the first model first."""
    names = list(dict.fromkeys(row.name for row in rows))
    metrics, common = names_at(cutoffs), _common_ranks(rows, root)
    gains = {name: _gains(common[name], metrics) for name in names}
    fold_N = common["fold"].to_numpy()
    measured = []
    for row in rows:
        gain_NM = gains[row.name][fold_N == row.fold]
        of_ranks = dict(zip(metrics, map(defined, gain_NM.mean(0).tolist() if len(gain_NM) else []), strict=False))
        stale: dict[str, Any] = (
            {} if len(gain_NM) == row.cases else {"intervals": {}}
        )  # bounds of more cases than these
        cases = {"metrics": row.metrics | of_ranks, "cases": len(gain_NM)}
        measured.append(row.model_copy(update=cases | stale))
    bounds = _bounds(common[USER], gains, metrics)
    return measured, [
        _total(name, [row for row in measured if row.name == name], bounds.get(name, {})) for name in names
    ]


def _gains(ranks: pl.Series, metrics: list[str]) -> np.ndarray:
    rank_N = torch.from_numpy(ranks.to_numpy(writable=True))
    return np.stack([gains_of(metric, rank_N).numpy() for metric in metrics], 1)


def _common_ranks(rows: list[Row], root: Path) -> pl.DataFrame:
    """`fold`, `case`, `user` and by name of scorer the rank of each case that all of a fold's scorers were measured on."""
    parts = []
    for fold in dict.fromkeys(row.fold for row in rows):
        table: pl.DataFrame | None = None
        for row in (row for row in rows if row.fold == fold):
            if not row.cases:
                continue
            ranks = read_ranks(root / row.evaluation, row.scorer)
            own = ranks.select(CASE, pl.col(RANK).alias(row.name))
            about = ranks.select(pl.lit(fold).alias("fold"), CASE, pl.col(USER).cast(pl.String))
            table = (about if table is None else table).join(own, on=CASE, maintain_order="left")
        if table is not None:
            parts.append(table)
    names = dict.fromkeys(row.name for row in rows)
    nothing = pl.DataFrame(
        schema={"fold": pl.String, CASE: pl.Int64, USER: pl.String, **dict.fromkeys(names, pl.Float64)}
    )
    return pl.concat(parts) if parts else nothing


def _bounds(
    users: pl.Series, gains: dict[str, np.ndarray], metrics: list[str]
) -> dict[str, dict[str, dict[str, tuple[float, ...]]]]:
    """By scorer, the fields `intervals` and `differences` of its total; nothing without cases."""
    if not len(users):
        return {}
    bootstrap = Bootstrap(user_numbers(users), RESAMPLES, MOST_GROUPS)
    first_NM = next(iter(gains.values()))
    bounds_of: dict[str, dict[str, dict[str, tuple[float, ...]]]] = {}
    for place, (name, gain_NM) in enumerate(gains.items()):
        bounds_of[name] = {
            "intervals": dict(zip(metrics, zip(*_intervals(bootstrap, gain_NM), strict=True), strict=True))
        }
        if place:
            change_NM = gain_NM - first_NM
            means = change_NM.mean(0).tolist()
            bounds = zip(means, *_intervals(bootstrap, change_NM), strict=True)
            bounds_of[name]["differences"] = dict(zip(metrics, bounds, strict=True))
    return bounds_of


def _intervals(bootstrap: Bootstrap, gain_NM: np.ndarray) -> tuple[list[float], list[float]]:
    sum_UM = np.stack([bootstrap.sums(gain_N) for gain_N in gain_NM.T], 1)
    low_M, high_M = bootstrap.intervals(sum_UM, (1 - CONFIDENCE) / 2)
    return low_M.tolist(), high_M.tolist()


def _total(name: str, rows: list[Row], bounds: dict[str, Any]) -> Total:
    cases = sum(row.cases for row in rows)
    metrics: dict[str, float | None] = {}
    for metric in rows[0].metrics:
        weighed = [(value, row.cases) for row in rows if (value := row.metrics.get(metric)) is not None and row.cases]
        weight = sum(count for _, count in weighed)
        metrics[metric] = sum(value * count for value, count in weighed) / weight if weight else None
    spent = [row.cpu_seconds for row in rows if row.cpu_seconds is not None]
    cost = round(sum(spent) / len(spent), 1) if spent else None
    return Total(name=name, baseline=rows[0].baseline, cases=cases, cpu_seconds=cost, metrics=metrics, **bounds)


def columns(metric: str) -> list[str]:
    """The metrics that tables show: `metric` first, then those of `SHOWN` at its cut-off."""
    cutoff = metric.partition("@")[2]
    return [metric, *(name for shown in SHOWN if (name := f"{shown}@{cutoff}") != metric)]


def title_of(metric: str) -> str:
    """How a metric is called: coverage@20."""
    name, at, cutoff = metric.partition("@")
    return f"{TITLES.get(name, name)}{at}{cutoff}"


def in_order(totals: list[Total], metric: str) -> list[Total]:
    """Best first by a metric; the undefined last."""
    return sorted(totals, key=lambda total: -value if (value := total.metrics.get(metric)) is not None else np.inf)


def describe_difference(total: Total, metric: str) -> tuple[str, str]:
    """A difference to the first with its bounds, and what they say: better, worse, cannot tell; empty for the first itself."""
    if metric not in total.differences:
        return "", ""
    mean, low, high = total.differences[metric]
    verdict = "better" if low > 0 else "worse" if high < 0 else "cannot tell"
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})", verdict


def cells_of(total: Total, metric: str, first: str) -> dict[str, str]:
    """What a table says of a scorer, by column; `first` is the name of the first model."""
    value, bounds = total.metrics.get(metric), total.intervals.get(metric)
    shown = "-" if value is None else f"{value:.4f}"
    difference, verdict = describe_difference(total, metric)
    return {
        title_of(metric): f"{shown} ({bounds[0]:.4f} to {bounds[1]:.4f})" if bounds else shown,
        f"against {first}": difference,
        "": verdict,
        "CPU s": "-" if total.cpu_seconds is None else f"{total.cpu_seconds:.1f}",
    }


def table_of(totals: list[Total], metric: str) -> str:
    """The table of a comparison in Markdown, best first: metric with its interval, difference to the first, CPU seconds."""
    first = totals[0].name
    rows = []
    for total in in_order(totals, metric):
        more = {title_of(name): number(total.metrics.get(name)) for name in columns(metric)[1:]}
        rows.append((total.name, cells_of(total, metric, first) | more))
    return "\n".join(markdown_table("scorer", rows)[1:]) + "\n"


def number(value: float | None) -> str:
    """A metric in a table: four digits that count, `-` for what is undefined."""
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
