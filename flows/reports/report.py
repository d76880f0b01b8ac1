"""What a run shows a person: tables and curves in the Prefect UI, and one HTML page that stands alone."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, select_autoescape
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.reports import account
from flows.reports.results import about_items, about_labels, item_rows, label_rows, written
from schemas.artifacts import Artifacts, Manifest, code_version, identify
from schemas.dataset import Dataset

PAGE = "report.html"
HERE = Path(__file__).parent
DRAWN = ("ndcg@20", "auc", "rmse")  # of the validations
SHARE = re.compile(r"\((\d+)%\)")


class ProgressBar:
    """Passes progress lines on, and moves a progress artifact by the percentage they hold."""

    def __init__(self, name: str, progress: Any) -> None:
        self.name, self.progress = name, progress
        self.artifact: UUID | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __call__(self, line: str) -> None:
        self.progress(line)
        if found := SHARE.search(line):
            self._move(float(found.group(1)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.artifact and not error:
            self._move(100.0)

    def _move(self, percent: float) -> None:
        if self.artifact:
            update_progress_artifact(self.artifact, percent)
        else:
            created = create_progress_artifact(percent, key=self.name, description=f"{self.name}, per cent")
            assert isinstance(created, UUID)  # a coroutine only in async code
            self.artifact = created


def show_sessions(sessions: Manifest) -> None:
    """A table of what came in, what was set aside and why, what went out."""
    facts = sessions.facts
    table = [{"what": name, "count": value} for name, value in account.told(facts)]
    lines = [f"Sessions {sessions.name}, in seconds: {account.seconds(facts)}."]
    lines += [f"**Warning**: {warning}." for warning in facts["warnings"]]
    lines += [f"The last day at a glance: `{sessions.folder / account.last_profile(facts)}`"]
    create_table_artifact(table, key="sessions", description="\n\n".join(lines))


def show_training(model: Manifest) -> None:
    """The learning curves as a picture."""
    picture = base64.b64encode(draw_curves(read_curves(model)).encode()).decode()
    create_image_artifact(
        f"data:image/svg+xml;base64,{picture}",
        key="learning-curve",
        description=f"Loss and validation, {model.name}",
    )


def show_metrics(evaluation: Manifest) -> None:
    """Model and baselines, a row each; a row for each metric of a label."""
    facts = evaluation.facts
    rows = [
        {"scorer": name} | {key: written(value) for key, value in row.items()}
        for name, row in item_rows(facts["metrics"])
    ]
    if rows:
        create_table_artifact(rows, key="metrics", description=about_items(facts))
    if labels := [{"metric": key} | row for key, row in label_rows(facts["metrics"])]:
        create_table_artifact(labels, key="label-metrics", description=about_labels(facts))


def read_curves(model: Manifest) -> dict[str, list[tuple[float, float]]]:
    """(step, value) points of the loss, and in validation of NDCG@20 and of the first metric of each label."""
    history = json.loads((model.folder / "history.json").read_text())
    known = {key.removeprefix("eval_"): key for row in history for key in row if key.startswith("eval_")}
    keys = {"training loss": "loss"}
    keys |= {f"validation {name}": key for name, key in known.items() if name.rpartition("/")[2] in DRAWN}
    return {title: [(row["step"], row[key]) for row in history if key in row] for title, key in keys.items()}


def draw_curves(curves: dict[str, list[tuple[float, float]]]) -> str:
    """Small line charts, two side by side, as one SVG."""
    return _render("curves.svg.j2", charts=[_chart(title, points) for title, points in curves.items() if points])


def _chart(title: str, points: list[tuple[float, float]]) -> dict[str, Any]:
    """Points scaled into a box of 360 x 160, with the values that its edges stand for."""
    last = max(step for step, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    span = (high - low) or 1.0
    path = " ".join(f"{50 + 300 * step / last:.1f},{150 - 130 * (value - low) / span:.1f}" for step, value in points)
    end = path.rpartition(" ")[2].split(",")
    return {
        "title": title,
        "path": path,
        "end": end,
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "last": f"{last:,.0f}",
    }


def write_report(
    artifacts: Artifacts,
    dataset: Dataset,
    sessions: Manifest,
    model: Manifest,
    evaluation: Manifest,
    comparison: Manifest,
) -> Manifest:
    """The page `reports/<id>/report.html`: no script, nothing loaded from elsewhere, all values escaped."""
    parents = (sessions.name, model.name, evaluation.name, comparison.name)
    artifact_id = identify(code=code_version(HERE), parents=parents)
    if found := artifacts.find("reports", artifact_id):
        return found
    rows, labels = item_rows(evaluation.facts["metrics"]), label_rows(evaluation.facts["metrics"])
    examples = json.loads((evaluation.folder / "examples.json").read_text())
    shown = {
        "dataset": dataset,
        "sessions": sessions,
        "model": model,
        "evaluation": evaluation,
        "comparison": comparison,
        "rows": rows,
        "shown": [key for key in rows[0][1] if key.partition("@")[0] not in ("hitrate", "map")] if rows else [],
        "bars": _bars(rows),
        "about_items": about_items(evaluation.facts),
        "labels": labels,
        "about_labels": about_labels(evaluation.facts),
        "curves": draw_curves(read_curves(model)),
        "examples": examples,
        "root": artifacts.root,
        "account": account.told(sessions.facts),
        "profile": account.last_profile(sessions.facts),
    }
    with artifacts.write("reports", artifact_id, parents=parents) as draft:
        (draft.folder / PAGE).write_text(_render("report.html.j2", **shown))
    create_markdown_artifact(
        _markdown(comparison, rows, labels), key="run-report", description=comparison.facts["reason"]
    )
    return draft.manifest


def _bars(rows: list[tuple[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """NDCG at the largest cut-off, as shares of the best."""
    if not rows:
        return []
    key = list(rows[0][1])[-1]
    best = max(metrics[key] for _, metrics in rows) or 1.0
    return [
        {"name": name, "value": metrics[key], "share": metrics[key] / best, "metric": key} for name, metrics in rows
    ]


def _markdown(
    comparison: Manifest, rows: list[tuple[str, dict[str, float]]], labels: list[tuple[str, dict[str, str]]]
) -> str:
    lines = [f"# {comparison.facts['dataset']}: {comparison.facts['reason']}"]
    lines += _markdown_table("scorer", [(name, {key: written(row[key]) for key in row}) for name, row in rows])
    lines += _markdown_table("label", labels)
    return "\n".join(lines)


def _markdown_table(first: str, rows: list[tuple[str, dict[str, str]]]) -> list[str]:
    if not rows:
        return []
    keys = list(rows[0][1])
    lines = ["", f"| {first} | {' | '.join(keys)} |", "|" + "---|" * (len(keys) + 1)]
    return lines + [f"| {name} | {' | '.join(row[key] for key in keys)} |" for name, row in rows]


def summarise(
    dataset: str,
    sessions: Manifest,
    model: Manifest,
    evaluation: Manifest,
    comparison: Manifest,
    in_service: str,
    page: Manifest,
) -> dict[str, Any]:
    """What `--json` prints and what the run leaves as its result."""
    reused = all(manifest.reused for manifest in (sessions, model, evaluation, comparison, page))
    return {
        "dataset": dataset,
        "verdict": comparison.facts["reason"],
        "nothing_to_do": reused,
        "test_day": sessions.facts["test_day"],
        "promoted": comparison.facts["promote"],
        "in_service": in_service,
        "metrics": evaluation.facts["metrics"],
        "labels": evaluation.facts["labels"],
        "cases": evaluation.facts["cases"],
        "unknown_targets": evaluation.facts["unknown_targets"],
        "filter_seen": evaluation.facts["filter_seen"],
        "training": {key: value for key, value in model.facts.items() if key != "history"},
        "artifacts": {manifest.kind: str(manifest.folder) for manifest in (sessions, model, evaluation, comparison)},
        "report": str(page.folder / PAGE),
    }


def _render(template: str, **values: Any) -> str:
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=select_autoescape(default=True))
    return environment.get_template(template).render(**values)
