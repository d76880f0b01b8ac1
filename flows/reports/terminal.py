"""What a command prints for people: tables of what was counted and measured, the verdict of a night."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.reports.ranked import beaten_by
from flows.reports.tables import (
    Metrics,
    describe_item_cases,
    evaluation_warnings,
    format_metric,
    item_rows,
    label_rows,
    left_out_rows,
    phase_seconds,
    session_rows,
)
from schemas.artifacts import Manifest

if TYPE_CHECKING:
    from flows.reports.tuning import Trial

NUM_RECOMMENDED = 5  # of each example


def print_night(summary: dict[str, Any], *, recorded: bool = True) -> None:
    """Of a whole run (what `summarise` returns): metrics, verdict, what was left out, examples, where the report is.

    `recorded`: whether Prefect has this run, too.
    """
    print_evaluation(summary["evaluation"] | {"metrics": summary["metrics"]})
    typer.echo(summary["verdict"])
    typer.echo(f"In service: {summary['in_service']}")
    if summary["in_service"] == "none":
        model = f"models/{Path(summary['artifacts']['models']).name}"
        hint = f"`overnight promote {model} --dataset {summary['dataset']}` puts it into service all the same."
        typer.echo(hint)
    _print_left_out(summary)
    _print_examples(summary)
    if summary.get("shown"):
        typer.echo(f"\n{summary['shown']}")
    typer.echo(f"\nReport: {summary['report']}")
    which = "This run" if recorded else "Earlier runs"
    typer.echo(f"{which} in the Prefect UI: `overnight serve`, then http://127.0.0.1:4200/runs")


def print_sessions(sessions: Manifest, page: Path | None) -> None:
    """Where the rows went, what came of them, how long it took, what was left out, what is not as on the days before."""
    facts = sessions.facts
    table = Table(title=f"Sessions up to {facts['test_day'] or 'the end'}")
    table.add_column("what")
    table.add_column("", justify="right")
    for name, value in [*session_rows(facts), ("seconds", phase_seconds(facts))]:
        table.add_row(name, value)
    Console().print(table)
    for warning in facts.get("warnings", []):
        typer.echo(f"Warning, {facts['test_day']}: {warning}")
    _print_left_out(facts)
    if page:
        typer.echo(f"The last day at a glance: {page}")


def print_evaluation(facts: dict[str, Any]) -> None:
    """Facts of an evaluation: tables of model and baselines, on which cases they were measured, what to beware of."""
    print_metrics(facts["metrics"])
    if item_rows(facts["metrics"]):
        typer.echo(describe_item_cases(facts))
    for warning in [*evaluation_warnings(facts), *filter(None, [beaten_by(facts["metrics"])])]:
        typer.echo(f"Warning: {warning}")


def print_metrics(metrics: Metrics) -> None:
    """Model and baselines: a table of ranking metrics at the two largest cut-offs, one of labels; each where there is any."""
    model = next(iter(metrics.values()))
    cutoffs = sorted({int(key.partition("@")[2]) for key in model if "@" in key})[-2:]
    keys = [f"{name}@{k}" for k in cutoffs for name in ("recall", "ndcg")]  # what 80 columns hold
    ranked = [(name, {key: format_metric(row.get(key)) for key in keys}) for name, row in item_rows(metrics)]
    for first, rows in (("scorer", ranked), ("label", label_rows(metrics))):
        if rows:
            table = Table(title="Model (first) and baselines")
            table.add_column(first)
            for key in rows[0][1]:
                table.add_column(key, justify="right")
            for name, row in rows:
                table.add_row(name, *row.values())
            Console().print(table)


def print_comparison(facts: dict[str, Any]) -> None:
    """Facts of a comparison: a table of all that were compared, best first, and what to beware of."""
    from flows.reports.comparison import Total, cells_of, in_order

    metric, folds = facts["metric"], facts["folds"]
    totals = [Total.model_validate(total) for total in facts["totals"]]
    table = Table(title=f"{len(folds)} fold{'s' * (len(folds) > 1)}: {', '.join(folds)}")
    table.add_column("scorer", overflow="fold")
    value, against, verdict, cost = cells_of(totals[0], metric, totals[0].name)
    for key in (value, against, cost):
        table.add_column(key, justify="right")
    for total in in_order(totals, metric):
        cells = cells_of(total, metric, totals[0].name)
        difference = cells[against].replace(" ", f" {cells[verdict]} ", 1)
        table.add_row(total.name, _in_two_lines(cells[value]), _in_two_lines(difference), cells[cost])
    Console().print(table)
    typer.echo("Bounds: 95 %, by user; differences are of the same cases, each pair by itself. CPU seconds: a fold's.")
    left_out = [f"{name} is left out: {why}" for name, why in facts["left_out"].items()]
    for warning in [*facts["warnings"], *left_out]:
        typer.echo(f"Warning: {warning}")


def print_trials(trials: list[Trial]) -> None:
    """Trials of a search: a table, best first."""
    from flows.reports.tuning import cells_of, default_of, in_order, title_of

    table = Table(title=title_of(trials))
    table.add_column("trial", justify="right")
    default, rows = default_of(trials), in_order(trials)
    if not rows:
        return
    for key in cells_of(rows[0], default):
        table.add_column(key, justify="left" if key in ("", "settings") else "right", overflow="fold")
    for trial in rows:
        table.add_row(str(trial.number), *cells_of(trial, default).values())
    Console().print(table)


def _in_two_lines(cell: str) -> str:
    """A value, and its bounds below it."""
    return cell.replace(" (", "\n", 1).replace(")", "")


def _print_left_out(facts: dict[str, Any]) -> None:
    """Lost days and files that were not read; what is in quarantine stands in the table of rows."""
    for what, which in left_out_rows(facts | {"quarantined": {}}):
        typer.echo(f"Warning, {what}: {which}")


def _print_examples(summary: dict[str, Any]) -> None:
    examples = json.loads((Path(summary["artifacts"]["evaluations"]) / "examples.json").read_text())
    if examples:
        day = summary["test_day"] or "the test"
        typer.echo(f"\nTen sessions of {day}, newest item last, and what the model recommends next:")
    for example in examples:
        history = [str(item) if item is not None else "(a new item)" for item in example["history"]]
        recommended = map(str, example["recommended"][:NUM_RECOMMENDED])
        typer.echo(f"  {', '.join(history)}  ->  {', '.join(recommended)}")


def json_line(summary: dict[str, Any]) -> str:
    """One line of JSON; numbers that JSON does not have are null."""
    return json.dumps(_finite(summary), default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
