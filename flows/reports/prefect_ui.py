"""What each stage of a run shows in the Prefect UI, as artifacts of its task run. Each takes settings and a manifest."""

from __future__ import annotations

import base64

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.pages import link
from flows.reports.charts import draw_curves, read_curves
from flows.reports.day_profile import newest_page
from flows.reports.ranked import describe_intervals, interval_rows
from flows.reports.report import PAGE, SAME
from flows.reports.run_names import name_run
from flows.reports.tables import (
    describe_item_cases,
    describe_label_cases,
    format_metric,
    item_rows,
    label_rows,
    left_out_rows,
    phase_seconds,
    session_rows,
)
from flows.settings.settings import Settings
from schemas.artifacts import Manifest


def show_sessions(settings: Settings, sessions: Manifest) -> None:
    """A table of what came in, what was set aside and why, what went out; and the run's name says the day from now on."""
    facts = sessions.facts
    name_run(f"{settings.dataset.name} {facts['test_day'] or 'all'}")
    table = [{"what": name, "count": value} for name, value in session_rows(facts)]
    lines = [f"Sessions {sessions.name}, in seconds: {phase_seconds(facts)}."]
    lines += [f"**Warning**: {warning}." for warning in facts.get("warnings", [])]
    lines += [f"{what}: {which}" for what, which in left_out_rows(facts)]
    if page := newest_page(settings.artifacts, settings.dataset, sessions):
        lines.append(link(page, "The last day at a glance"))
    create_table_artifact(table, key="sessions", description="\n\n".join(lines))


def show_training(settings: Settings, model: Manifest) -> None:
    """The learning curves, drawn."""
    picture = base64.b64encode(draw_curves(read_curves(model)).encode()).decode()
    create_markdown_artifact(
        f"![Learning curves](data:image/svg+xml;base64,{picture})",
        key="learning-curve",
        description=f"Loss and validation, {model.name}",
    )


def show_metrics(settings: Settings, evaluation: Manifest) -> None:
    """Model and baselines, a row each; a row for each metric of a label."""
    facts = evaluation.facts
    bounds = dict(interval_rows(facts, brief=True))
    rows = []
    for name, row in item_rows(facts["metrics"]):
        first = {"scorer": name} | bounds.get(name, {})  # the rest may lie beyond the edge of the window
        rest = {key: value for key, value in row.items() if key not in first and key.partition("@")[0] not in SAME}
        rows.append(first | {key: format_metric(value) for key, value in rest.items()})
    if rows:
        about = [describe_item_cases(facts), describe_intervals(facts)]
        create_table_artifact(rows, key="metrics", description="\n\n".join(filter(None, about)))
    if labels := [{"metric": key} | row for key, row in label_rows(facts["metrics"])]:
        create_table_artifact(labels, key="label-metrics", description=describe_label_cases(facts))


def show_report(settings: Settings, report: Manifest) -> None:
    """Verdict and metrics, in Markdown, with a link to the whole report."""
    verdict, *rest = report.facts["markdown"].split("\n")
    markdown = "\n".join([verdict, "", link(report.folder / PAGE, "The whole report"), "", *rest])
    create_markdown_artifact(markdown, key="run-report", description=report.facts["verdict"])
