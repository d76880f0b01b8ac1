"""Gives MLflow what it lacks: one JSON object on standard input, what was done as lines of JSON on standard output.

    python -P client.py < job

A process of its own, so that MLflow's import costs a night nothing when there is nothing to say, and a server that hangs is
left by ending it. It imports MLflow and the standard library alone, and never loads or stores a model: a version of a
registered model points to a folder.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

ALIAS = "champion"
REPORT, MODEL, HOLD = "overnight.report", "overnight.model", "overnight.hold"
PRUNED = "overnight.pruned"  # the day on which a version's folder was removed
KIND = {"mlflow.experimentKind": "custom_model_development"}  # of the UI's two faces, the one for trained models
LINES, VALUES = 100, 1000  # parameters or tags, and metrics, that MLflow takes at once
Json = dict[str, Any]


def main() -> None:
    """Do what the job says, and tell of each part as it is done, or why it was not."""
    job = json.load(sys.stdin)
    try:
        client = MlflowClient(job["uri"], job["registry"])
    except Exception as error:
        tell(failed=_in_words(error))
        return
    try:
        record_all(client, job["missed"], job["files"])
    except Exception as error:  # whatever it is, tonight's comes next
        tell(failed=_in_words(error))
    try:
        record_all(client, job["tonight"], job["files"])
        for dataset, wanted in job["champions"].items():
            tell(champion=dataset, **follow(client, dataset, wanted))
        for dataset, models in job.get("pruned", {}).get("models", {}).items():
            tell(pruned=mark_pruned(client, dataset, models, job["pruned"]["day"]))
    except Exception as error:
        tell(failed=_in_words(error))


def record_all(client: MlflowClient, nights: list[Json], files: str) -> None:
    """Nights in order, so that the versions of their models are in order, too."""
    for night in nights:
        run, experiment = record(client, night, files)
        tell(night=night["report"], run=run, experiment=experiment)


def tell(**about: Any) -> None:
    """One line for whoever started this."""
    print(json.dumps(about), flush=True)


def record(client: MlflowClient, night: Json, files: str) -> tuple[str, str]:
    """The run of a night and its experiment, made or finished; the model of the night as a version.

    A run that was left half done is gone on with: the same values at the same times are the same rows.
    """
    experiment = experiment_of(client, night["dataset"], files)
    made = f"reports/{night['report']}"
    found = client.search_runs([experiment], f"tags.`{REPORT}` = '{made}'", max_results=1)
    if found and found[0].info.status == "FINISHED":
        run = found[0]
    else:
        run = found[0] if found else client.create_run(
            experiment, start_time=night["began"], tags={REPORT: made, MODEL: night["version"]["model"]}, run_name=night["name"]
        )  # fmt: skip
        fill(client, run, night)
    register(client, night["dataset"], night["version"], run.info.run_id)
    return run.info.run_id, experiment


def experiment_of(client: MlflowClient, dataset: str, files: str) -> str:
    """The experiment of a dataset; `files` is where its runs keep files, empty where the server says."""
    found = client.get_experiment_by_name(dataset)
    if found is None:
        location = f"{files}/{dataset}" if files else None
        return str(client.create_experiment(dataset, artifact_location=location, tags=KIND))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def fill(client: MlflowClient, run: Any, night: Json) -> None:
    """Everything that a run holds, then its end."""
    name, metrics = run.info.run_id, [Metric(*metric) for metric in night["metrics"]]
    params = [Param(key, value) for key, value in night["params"].items() if key not in run.data.params]
    tags = [RunTag(key, value) for key, value in night["tags"].items()]
    for part in _parts(params, LINES):
        client.log_batch(name, params=part)
    for part in _parts(tags, LINES):
        client.log_batch(name, tags=part)
    for part in _parts(metrics, VALUES):
        client.log_batch(name, metrics=part)
    data = DatasetInput(Dataset(**night["data"]), [InputTag("mlflow.data.context", "training")])
    client.log_inputs(name, datasets=[data])
    for path, folder in night["files"].items():
        try:
            _keep(client, run, Path(path), folder)
        except (
            Exception
        ) as error:  # a server may keep files where this machine cannot write: the rest is recorded all the same
            tell(failed=f"{Path(path).name}: {_in_words(error)}")
            break
    client.set_terminated(name, "FINISHED", end_time=night["ended"])


def register(client: MlflowClient, dataset: str, version: Json, run: str | None) -> int:
    """The number of the version that stands for a model folder, made where there is none."""
    _registered(client, dataset)
    found = client.search_model_versions(f"name = '{dataset}' and tags.`{MODEL}` = '{version['model']}'")
    if found:
        return min(int(each.version) for each in found)
    made = client.create_model_version(
        dataset,
        version["source"],
        run_id=run,
        tags=version["tags"],
        description=version["about"],
        await_creation_for=None,
    )
    return int(made.version)


def follow(client: MlflowClient, dataset: str, wanted: Json) -> Json:
    """Put the alias where the pointer file points; where it was before, and what it is now."""
    held = _registered(client, dataset)
    was = int(held.aliases[ALIAS]) if ALIAS in held.aliases else None
    before = _model_of(client, dataset, was)
    number = None
    if wanted["version"]:
        number = register(client, dataset, wanted["version"], _run_of(client, dataset, wanted["version"]))
        if number != was:
            client.set_registered_model_alias(dataset, ALIAS, str(number))
    elif was is not None:
        client.delete_registered_model_alias(dataset, ALIAS)
    if wanted["hold"] != held.tags.get(HOLD, ""):
        client.set_registered_model_tag(dataset, HOLD, wanted["hold"])
    return {"version": number, "was": was, "was_model": before}


def mark_pruned(client: MlflowClient, dataset: str, models: list[str], day: str) -> int:
    """How many versions stand for folders that were removed on that day, and are tagged so."""
    found = [
        version
        for model in models
        for version in client.search_model_versions(f"name = '{dataset}' and tags.`{MODEL}` = '{model}'")
    ]
    for version in found:
        client.set_model_version_tag(dataset, version.version, PRUNED, day)
    return len(found)


def _registered(client: MlflowClient, dataset: str) -> Any:
    try:
        return client.get_registered_model(dataset)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    about = "Models of the nights of this dataset. The alias follows Overnight's pointer file; change it there."
    return client.create_registered_model(dataset, description=about)


def _model_of(client: MlflowClient, dataset: str, version: int | None) -> str:
    if version is None:
        return ""
    try:
        return str(client.get_model_version(dataset, str(version)).tags.get(MODEL, ""))
    except MlflowException:
        return ""


def _run_of(client: MlflowClient, dataset: str, version: Json) -> str | None:
    """The run that made a model, or the one that it is the refit of."""
    experiment = client.get_experiment_by_name(dataset)
    model = version["tags"].get("overnight.refit_of") or version["model"]
    found = (
        client.search_runs([experiment.experiment_id], f"tags.`{MODEL}` = '{model}'", max_results=1)
        if experiment
        else []
    )
    return str(found[0].info.run_id) if found else None


def _keep(client: MlflowClient, run: Any, path: Path, folder: str) -> None:
    """A file of a run: a second name for the same bytes where both lie on one disk, else a copy."""
    place = urlparse(run.info.artifact_uri)
    if place.scheme not in ("", "file"):
        client.log_artifact(run.info.run_id, str(path), folder or None)
        return
    target = Path(unquote(place.path)) / folder / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _parts(rows: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


if __name__ == "__main__":
    main()
