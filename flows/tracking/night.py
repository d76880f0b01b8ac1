"""The artifacts of a night -> what MLflow is to hold of it: parameters, metrics, curves, versions of data and code, files."""

from __future__ import annotations

import hashlib
import json
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flows.tracking.flat import as_text, flat, metric_name, numbers
from schemas.artifacts import Artifacts, Manifest
from schemas.progress import HistoryRow

DAY_BY_DAY = ("days", "lengths")  # of the facts of sessions: one number a day, for ever more days
COUNTED = ("cases", "too_short", "unknown_targets", "cold_targets", "seen_targets", "catalogue", "vocabulary")
FILES = {"reports": "report.html", "evaluations": "result.json", "comparisons": "comparison.json"}
OF_MODEL = ("config.json", "history.json", "schema.json")
MAKES_WITH = "mlflow.source."  # MLflow's own tags about code

Metric = tuple[str, float, int, int]  # name, value, milliseconds since 1970, step


@dataclass(frozen=True)
class Version:
    """A model folder as a version of the dataset's registered model. `source` says where it lies; it is not copied."""

    model: str
    source: str
    tags: dict[str, str]
    about: str = ""


@dataclass(frozen=True)
class Night:
    """One run: the stages of one report."""

    report: str
    dataset: str
    name: str
    began: int
    ended: int
    version: Version
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    data: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # path -> folder among the run's files


def describe(artifacts: Artifacts, report: Manifest, *, remote: bool) -> Night | None:
    """A night from the manifests its report was made of; None where one of them is not there any more."""
    stages = {"reports": report}
    for name in report.parents[:4]:
        manifest = artifacts.read_manifest(*name.split("/"))
        if manifest is None:
            return None
        stages[manifest.kind] = manifest
    if len(stages) != 5:
        return None
    sessions, model, evaluation, comparison = (
        stages[kind] for kind in ("sessions", "models", "evaluations", "comparisons")
    )
    dataset, day = comparison.facts["dataset"], sessions.facts["test_day"]
    return Night(
        report=report.id,
        dataset=dataset,
        name=f"{day or 'all'} {model.id[:8]}",
        began=_milliseconds(min(_began(stage) for stage in stages.values() if _same_night(stage, report))),
        ended=_milliseconds(report.created),
        version=describe_version(model, remote=remote, verdict=comparison),
        params=_params(sessions, model, evaluation, comparison),
        tags=_tags(stages, dataset, day),
        metrics=[*_measured(sessions, model, evaluation, comparison), *_curves(model)],
        data=_data(sessions, dataset),
        files=_files(stages, model),
    )


def describe_version(model: Manifest, *, remote: bool, verdict: Manifest | None = None) -> Version:
    """A model folder, with what is worth a look in a list of versions.

    `remote`: a server refuses paths of its own machine for what lies on another, so its name and the path are given.
    """
    place = f"overnight://{socket.gethostname()}{quote(str(model.folder))}" if remote else model.folder.as_uri()
    tags = {"overnight.model": model.name, "overnight.sessions": model.parents[0] if model.parents else ""}
    for fact in ("test_day", "refit_of", "start_from"):
        tags[f"overnight.{fact}"] = str(model.facts.get(fact) or "")
    if verdict:
        tags["overnight.verdict"] = verdict.facts.get("verdict", "")
        tags[f"overnight.{metric_name(verdict.facts['metric'])}"] = str(verdict.facts["new"])
    about = f"{model.facts.get('test_day') or 'all'}: {verdict.facts['reason']}" if verdict else ""
    return Version(model.name, place, {name: text for name, text in tags.items() if text}, as_text(about))


def _params(sessions: Manifest, model: Manifest, evaluation: Manifest, comparison: Manifest) -> dict[str, str]:
    dataset = {key: value for key, value in sessions.parameters.items() if key != "dataset"}
    found = flat(sessions.parameters["dataset"], "dataset") | flat(dataset, "data")
    own = dict(model.parameters)
    found |= flat(own.pop("model", {})) | flat(own)
    by_shape = model.facts.get("by_shape")
    found |= {"by_shape": as_text(by_shape)} if by_shape else {}
    return found | flat(evaluation.parameters) | flat(comparison.parameters, "promotion")


def _tags(stages: dict[str, Manifest], dataset: str, day: str | None) -> dict[str, str]:
    sessions, comparison, report = (stages[kind] for kind in ("sessions", "comparisons", "reports"))
    tags = {f"overnight.{kind.removesuffix('s') if kind != 'sessions' else kind}": stages[kind].name for kind in stages}
    days, schema = (
        sorted(sessions.facts["days"]),
        [file.sha256 for file in sessions.files if file.path == "schema.json"],
    )
    tags |= {
        "overnight.dataset": dataset,
        "overnight.test_day": day or "",
        "overnight.first_day": days[0] if days else "",
        "overnight.num_days": str(len(days)),
        "overnight.days_digest": hashlib.sha256("\n".join(sorted(sessions.parents)).encode()).hexdigest()[:16],
        "overnight.schema_sha256": schema[0] if schema else "",
        "overnight.missing_days": ", ".join(map(str, sessions.facts.get("missing_days", []))),
        "overnight.verdict": comparison.facts.get("verdict", ""),
        "overnight.compared_with": comparison.facts.get("champion") or "",
        "overnight.start_from": str(stages["models"].facts.get("start_from") or ""),
        "overnight.version": report.libraries.get("overnight", ""),
        "overnight.libraries": json.dumps(stages["models"].libraries),
        "overnight.prefect_run": report.run_id,
        f"{MAKES_WITH}name": "overnight retrain",
        f"{MAKES_WITH}type": "JOB",
        "mlflow.note.content": as_text(report.facts.get("markdown", "")),
    }
    return {name: text for name, text in tags.items() if text}


def _measured(sessions: Manifest, model: Manifest, evaluation: Manifest, comparison: Manifest) -> list[Metric]:
    """What stands in the manifests, as it stands there. A metric that is undefined is left out."""
    facts, of_sessions = evaluation.facts, {k: v for k, v in sessions.facts.items() if k not in DAY_BY_DAY}
    tested = facts["model"]
    found = numbers(facts["metrics"][tested], "test/")
    found |= numbers(facts.get("intervals", {}).get("metrics", {}).get(tested, {}), "test/")
    for name, row in facts["metrics"].items():
        found |= numbers(row, f"{name}/") if name != tested else {}
    found |= numbers((facts.get("lists") or {}).get("metrics", {}).get(tested, {}), "lists/")
    found |= numbers((facts.get("ranks") or {}).get(tested, {}), "ranks/")
    found |= numbers({name: facts.get(name) for name in COUNTED} | facts["split"], "cases/")
    found |= numbers(comparison.facts, "comparison/")
    found |= numbers({k: v for k, v in model.facts.items() if k not in ("by_shape", "history")}, "training/")
    found |= numbers(of_sessions, "data/")
    when = _milliseconds(evaluation.created)
    return [(name, value, when, 0) for name, value in found.items()]


def _curves(model: Manifest) -> list[Metric]:
    """The rows of history.json by step, their times spread over the training."""
    try:
        rows = [HistoryRow.model_validate(row) for row in json.loads((model.folder / "history.json").read_text())]
    except (OSError, ValueError):
        return []
    ended, seconds = _milliseconds(model.created), float(model.facts.get("wall_seconds") or 0)
    last = max((row.step for row in rows), default=0) or 1
    found = []
    for row in rows:
        when = ended - int(1000 * seconds * (1 - row.step / last))
        values = {"train/loss": row.loss, "train/learning_rate": row.learning_rate, "train/epoch": row.epoch}
        values |= {f"validation/{name}": value for name, value in row.validation.items()}
        found += [(name, value, when, row.step) for name, value in numbers(values).items()]
    return found


def _data(sessions: Manifest, dataset: str) -> dict[str, str]:
    """The sessions as an MLflow dataset: its digest is their id, which names content and settings."""
    facts = sessions.facts
    counts = {key: facts.get(key) for key in ("sessions", "events", "items", "train_sessions", "test_sessions")}
    days = {"first_day": facts.get("first_day"), "test_day": facts["test_day"], "num_days": len(facts["days"])}
    return {
        "name": f"{dataset} sessions",
        "digest": sessions.id,
        "source_type": "local",
        "source": json.dumps({"uri": sessions.folder.as_uri()}),
        "profile": json.dumps(counts | days),
    }


def _files(stages: dict[str, Manifest], model: Manifest) -> dict[str, str]:
    """Pages and tables of the night, and of the model what is not its weights."""
    found = {str(stages[kind].folder / name): "" for kind, name in FILES.items()}
    found |= {str(model.folder / name): "model" for name in OF_MODEL}
    return {path: folder for path, folder in found.items() if Path(path).is_file()}


def _began(stage: Manifest) -> Any:
    return stage.created - timedelta(seconds=float(stage.facts.get("wall_seconds") or 0))


def _same_night(stage: Manifest, report: Manifest) -> bool:
    return stage is report or (stage.token == report.token and stage.run_id == report.run_id)


def _milliseconds(when: Any) -> int:
    return int(when.timestamp() * 1000)
