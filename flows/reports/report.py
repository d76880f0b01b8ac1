"""The report of a run: one HTML page that stands alone, the same in Markdown for the Prefect UI, and a summary for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.in_service import InService
from flows.reports.charts import draw_curves, read_curves
from flows.reports.disk import disk_of
from flows.reports.guards import ABOUT as ABOUT_GUARDS
from flows.reports.guards import guard_rows
from flows.reports.ranked import (
    Row,
    beaten_by,
    describe_intervals,
    describe_lists,
    interval_rows,
    list_rows,
    rank_rows,
    slice_rows,
)
from flows.reports.tables import (
    Values,
    describe_item_cases,
    describe_label_cases,
    describe_refit,
    describe_training,
    evaluation_warnings,
    example_rows,
    format_metric,
    item_rows,
    label_rows,
    left_out_rows,
    markdown_table,
    session_rows,
    tested_days,
)
from flows.reports.templates import HERE, render
from schemas.artifacts import Artifacts, Manifest, code_version, identify, sha256
from schemas.dataset import Dataset

PAGE = "report.html"
TEMPLATE = "report.html.j2"
VERDICTS = {"promote": "Promote", "keep": "Keep what is in service", "hold": "Hold, what is in service stays"}
OF_NOTHING = {"keep": "Not promoted, nothing is in service", "hold": "Hold, nothing is in service"}
SAME = ("hitrate", "map", "precision")  # with one hidden item a session they are recall, mrr, and recall divided by k


def write_report(
    artifacts: Artifacts,
    dataset: Dataset,
    sessions: Manifest,
    model: Manifest,
    evaluation: Manifest,
    comparison: Manifest,
    day_page: Path | None = None,
    refit: Manifest | None = None,
    late: Sequence[str] = (),
) -> Manifest:
    """The artifact `reports/<id>`: `report.html`, without script or anything loaded from elsewhere, all values escaped.

    `day_page` is the page about the last day, if there is one, `refit` the model in service, if it is this one's refit, and
    `late` what to say of days that were expected. The
    fact `markdown` holds verdict and metrics for the UI.
    """
    parents = (sessions.name, model.name, evaluation.name, comparison.name, *([refit.name] if refit else []))
    refitted = describe_refit(refit.facts | {"name": refit.name} if refit else None)
    about = {"late": list(late)} if late else {}
    artifact_id = identify(code=code_version(HERE), template=sha256(HERE / TEMPLATE), parents=parents, **about)
    if found := artifacts.find("reports", artifact_id):
        return found
    rows, labels = item_rows(evaluation.facts["metrics"]), label_rows(evaluation.facts["metrics"])
    beaten = beaten_by(evaluation.facts["metrics"])
    page = render(
        TEMPLATE,
        dataset=dataset,
        sessions=sessions,
        model=model,
        evaluation=evaluation,
        comparison=comparison,
        rows=rows,
        shown=[key for key in rows[0][1] if key.partition("@")[0] not in SAME] if rows else [],
        bars=_bars(rows),
        about_items=describe_item_cases(evaluation.facts),
        beaten=beaten,
        refitted=refitted,
        tested=tested_days(evaluation.facts),
        about_training=describe_training(model.facts, evaluation.facts),
        beware=evaluation_warnings(evaluation.facts),
        more=[
            ("Intervals", interval_rows(evaluation.facts), describe_intervals(evaluation.facts)),
            ("Ranks of what came next", rank_rows(evaluation.facts), "A rank that so many of the cases reach."),
            ("Lists", list_rows(evaluation.facts), describe_lists(evaluation.facts)),
            ("NDCG by parts of the cases", slice_rows(evaluation.facts), ""),
            ("Guards of promotion", guard_rows(comparison.facts), ABOUT_GUARDS),
        ],
        format_metric=format_metric,
        labels=labels,
        about_labels=describe_label_cases(evaluation.facts),
        curves=draw_curves(read_curves(model)),
        examples=example_rows(json.loads((evaluation.folder / "examples.json").read_text())),
        root=artifacts.root,
        account=session_rows(sessions.facts),
        warnings=[*late, *sessions.facts.get("warnings", [])],
        left_out=left_out_rows(sessions.facts),
        disk=disk_of(artifacts.root),
        day_page=f"../../{'/'.join(day_page.parts[-3:])}"
        if day_page
        else "",  # opens from a disk and from a server alike
    )
    with artifacts.write("reports", artifact_id, parents=parents) as draft:
        (draft.folder / PAGE).write_text(page, encoding="utf-8")
        table = interval_rows(evaluation.facts, brief=True) or [(name, _formatted(row)) for name, row in rows]
        markdown = _markdown(sessions.facts["test_day"], comparison, table, labels, beaten, refitted)
        draft.facts = {"verdict": comparison.facts["reason"], "markdown": markdown}
    return draft.manifest


def summarise(
    dataset: str,
    sessions: Manifest,
    model: Manifest,
    evaluation: Manifest,
    comparison: Manifest,
    in_service: InService,
    report: Manifest,
    late: Sequence[str] = (),
) -> dict[str, Any]:
    """What `--json` prints and what the run leaves as its result."""
    stages = (sessions, model, evaluation, comparison, *([] if late else [report]))  # a report that says so is no work
    tested = (evaluation.facts.get("split") or {}).get("test")
    serves = model.name in (in_service.model, in_service.refit_of)
    clicks = comparison.facts.get("clicks") or {}
    by_clicks = in_service.changed and in_service.model == clicks.get("challenger")
    nothing = all(manifest.reused for manifest in stages) and not in_service.changed
    return {
        "dataset": dataset,
        "verdict": comparison.facts["reason"],
        "nothing_to_do": nothing,
        "test_day": tested[-1] if tested else None,
        "missing_days": sessions.facts.get("missing_days", []),
        "left_out": sessions.facts.get("left_out", []),
        "quarantined": sessions.facts.get("quarantined", {}),
        "warnings": sessions.facts.get("warnings", []),
        "late": list(late),
        "promoted": by_clicks or (serves and (in_service.changed or comparison.facts["promote"])),
        "compared": comparison.facts.get("compared"),
        "in_service": in_service.model,
        "refit_of": in_service.refit_of or None,
        "metrics": evaluation.facts["metrics"],
        "labels": evaluation.facts["labels"],
        "cases": evaluation.facts["cases"],
        "unknown_targets": evaluation.facts["unknown_targets"],
        "filter_seen": evaluation.facts["filter_seen"],
        "evaluation": {key: value for key, value in evaluation.facts.items() if key not in ("metrics", "labels")},
        "training": {key: value for key, value in model.facts.items() if key != "history"},
        "artifacts": {manifest.kind: str(manifest.folder) for manifest in (sessions, model, evaluation, comparison)},
        "report": str(report.folder / PAGE),
    }


def _formatted(row: Values) -> dict[str, str]:
    return {key: format_metric(value) for key, value in row.items() if key.partition("@")[0] not in SAME}


def _bars(rows: list[tuple[str, Values]]) -> list[dict[str, Any]]:
    """NDCG at the largest cut-off where it is defined, as shares of the best."""
    if not rows:
        return []
    key = list(rows[0][1])[-1]
    values = [(name, metrics.get(key)) for name, metrics in rows]
    best = max((value for _, value in values if value is not None), default=0.0) or 1.0
    return [
        {"name": name, "value": value, "share": value / best, "metric": key}
        for name, value in values
        if value is not None
    ]


def _markdown(
    day: str | None,
    comparison: Manifest,
    rows: list[Row],
    labels: list[Row],
    beaten: str,
    refitted: str,
) -> str:
    facts = comparison.facts
    verdict = facts.get("verdict") or ("promote" if facts["promote"] else "keep")
    nothing = facts.get("champion", "") is None and not facts.get("not_compared")
    title = OF_NOTHING.get(verdict, VERDICTS[verdict]) if nothing else VERDICTS[verdict]
    sentences = " ".join(filter(None, [beaten, facts["reason"], refitted]))
    lines = [f"# {title}: {facts['dataset']} {day or ''}".rstrip(), sentences]
    lines += markdown_table("scorer", rows)
    lines += markdown_table("label", labels)
    return "\n".join(lines)
