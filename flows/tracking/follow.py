"""Nights and the model in service -> MLflow. Nothing here fails a night."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.tracking.about import About
from flows.tracking.glance import UnknownError, version_of_alias
from flows.tracking.moved import move
from flows.tracking.night import Night, describe, describe_version
from flows.tracking.start import PATIENCE, in_short, run_client
from flows.tracking.state import Followed, Recorded, State, alone, read_state, write_state
from flows.tracking.target import FILES, SWITCH, Target, is_installed, target_of
from modeling.evaluation.pointer import Champion, champion_of
from schemas.artifacts import Artifacts, Manifest
from schemas.errors import InputError

if TYPE_CHECKING:
    from flows.settings.settings import Settings

CAUGHT_UP = 30  # nights that were missed, and are recorded by one that was not
REPORTS = "reports"
Say = Callable[[str], object]


def record(settings: Settings, report: Manifest, say: Say = print) -> str:
    """Record a night and those before it that are missing, put the alias where the pointer is; the address of the run's page.

    Empty where no server shows it. Where MLflow has all of it, nothing is started.
    """
    artifacts, dataset = settings.artifacts, settings.dataset.name
    return _safely(lambda target: _bring(target, artifacts, dataset, say, report, settings), artifacts, say)


def follow(artifacts: Artifacts, dataset: str, say: Say = print) -> None:
    """Put the alias of a dataset where its pointer is, after a change by hand."""
    _safely(lambda target: _bring(target, artifacts, dataset, say), artifacts, say)


def _safely(bring: Callable[[Target], str], artifacts: Artifacts, say: Say) -> str:
    target = target_of(artifacts.root)
    if target is None:
        return ""
    if not is_installed():
        say(
            f"MLflow is not installed: nothing is recorded at {target.name}. Install overnight[mlflow], or set {SWITCH}=off."
        )
        return ""
    try:
        return bring(target)
    except Exception as error:  # a record that cannot be kept is no reason for a night to fail
        say(
            f"MLflow: nothing was recorded ({in_short(f'{type(error).__name__}: {error}', target)}); the next night does it."
        )
        return ""


def _bring(
    target: Target,
    artifacts: Artifacts,
    dataset: str,
    say: Say,
    report: Manifest | None = None,
    settings: Settings | None = None,
) -> str:
    champions = {dataset: _champion(artifacts, dataset)}
    state = _state_of(target)
    if not _settled(target, state, artifacts, champions, report):
        with alone(target.folder, PATIENCE) as held:
            if not held:
                say("MLflow: another process records for this root and does not end; the next night does it.")
                return ""
            state = _give(target, artifacts, _state_of(target), champions, say, report, settings)
    run = state.nights.get(report.id, Recorded()) if report else Recorded()
    page = target.page_of(run.experiment, run.run)
    if page:
        say(f"MLflow: {page}")
    return page


def _state_of(target: Target) -> State:
    gone = target.database is not None and not target.database.is_file()
    return State(target=target.key) if gone else read_state(target.folder, target.key)


def _settled(
    target: Target,
    state: State,
    artifacts: Artifacts,
    champions: dict[str, Followed | None],
    report: Manifest | None,
) -> bool:
    """Whether MLflow has every night, and each alias is where the pointer is."""
    if report and (report.id not in state.nights or _missing(artifacts, state)):
        return False
    if target.database and state.place not in ("", str(artifacts.root)):
        return False
    for dataset, wanted in champions.items():
        if wanted is None:  # a pointer that cannot be read says nothing
            continue
        last = state.champions.get(dataset)
        if last is None or (last.model, last.hold) != (wanted.model, wanted.hold):
            return False
        try:
            if version_of_alias(target, dataset) != last.version:
                return False
        except UnknownError:  # it was right when it was put there
            continue
    return True


def _missing(artifacts: Artifacts, state: State) -> list[str]:
    """Reports that no run stands for, whatever dataset they are of."""
    try:
        names = os.listdir(artifacts.root / REPORTS)  # noqa: PTH208  (names alone: there may be many)
    except OSError:
        return []
    return sorted(set(names) - set(state.nights))


def _give(
    target: Target,
    artifacts: Artifacts,
    state: State,
    champions: dict[str, Followed | None],
    say: Say,
    report: Manifest | None,
    settings: Settings | None,
) -> State:
    """Start the client with all that MLflow lacks, and note down what it did."""
    nights, gone = _nights(target, artifacts, state, report, settings) if report else ([], [])
    for night in nights:
        champions.setdefault(night.dataset, _champion(artifacts, night.dataset))
    jobs = {name: _job_of(artifacts, where, target.is_server) for name, where in champions.items() if where}
    job = {
        "uri": target.uri,
        "registry": target.registry,
        "files": "" if target.is_server else (target.folder / FILES).as_uri(),
        "missed": [asdict(night) for night in nights if not report or night.report != report.id],
        "tonight": [asdict(night) for night in nights if report and night.report == report.id],
        "champions": {name: about_it for name, about_it in jobs.items() if about_it},
    }
    if not nights and not job["champions"]:
        return state
    if target.database and state.place:
        move(target.database, Path(state.place), artifacts.root)
    done, failure = run_client(target, job)
    recorded = {
        line["night"]: Recorded(run=line["run"], experiment=line["experiment"]) for line in done if "night" in line
    }
    followed = dict(state.champions)
    for line in done:
        if dataset := line.get("champion"):
            where = champions[dataset] or Followed()
            _say_moved(dataset, where, state.champions.get(dataset), line, say)
            followed[dataset] = where.model_copy(update={"version": line["version"]})
    skipped = {name: Recorded() for name in gone}
    state = state.model_copy(
        update={
            "nights": state.nights | skipped | recorded,
            "champions": followed,
            "place": str(artifacts.root),
        }
    )
    write_state(target.folder, state)
    if report and report.id in recorded:
        more = f", and {len(recorded) - 1} that were missing" if len(recorded) > 1 else ""
        say(f"MLflow: this night is run {recorded[report.id].run} of {nights[-1].dataset}{more}, at {target.name}.")
    elif len(recorded) > 0:
        say(f"MLflow: {len(recorded)} nights that were missing are recorded, at {target.name}.")
    if failure:
        say(f"MLflow at {target.name} could not be given all of this: {failure}. The next night catches up.")
    return state


def _nights(
    target: Target, artifacts: Artifacts, state: State, report: Manifest, settings: Settings | None
) -> tuple[list[Night], list[str]]:
    """The newest of those that are missing, in order, tonight's last; and the reports of which artifacts are gone."""
    read = {name: artifacts.read_manifest(REPORTS, name) for name in _missing(artifacts, state) if name != report.id}
    reports = sorted((manifest for manifest in read.values() if manifest), key=lambda manifest: manifest.created)
    tonight = [report] if report.id not in state.nights else []
    found, gone = [], [name for name, manifest in read.items() if manifest is None]
    for manifest in [*reports[-CAUGHT_UP:], *tonight]:
        night = describe(artifacts, manifest, remote=target.is_server)
        if night is None:
            gone.append(manifest.id)
            continue
        if manifest is report and settings:
            about = About.of(settings)
            night.params.update(about.params)
            night.tags.update(about.tags)
        found.append(night)
    return found, gone


def _champion(artifacts: Artifacts, dataset: str) -> Followed | None:
    """Where the alias is to be; None where the pointer cannot be read."""
    try:
        champion: Champion | None = champion_of(artifacts, dataset)
    except InputError:
        return None
    return Followed(model=champion.model, hold=str(champion.hold or "")) if champion else Followed()


def _job_of(artifacts: Artifacts, wanted: Followed, remote: bool) -> dict[str, Any] | None:
    """What the client needs to put an alias; None where the manifest of the model cannot be read."""
    if not wanted.model:
        return {"hold": wanted.hold, "version": None}
    manifest = artifacts.read_manifest(*wanted.model.split("/"))
    return {"hold": wanted.hold, "version": asdict(describe_version(manifest, remote=remote))} if manifest else None


def _say_moved(dataset: str, wanted: Followed, last: Followed | None, line: dict[str, Any], say: Say) -> None:
    """One line where the alias moved: with the pointer, or back to it."""
    number, was = line["version"], line["was"]
    if number == was:
        return
    now = f"version {number} ({wanted.model})" if number is not None else "nothing"
    if (last is None and was is None) or (last is not None and last.version == was):
        say(f"MLflow: champion of {dataset} is {now}, as the pointer says.")
        return
    before = f"at version {was} ({line['was_model'] or 'no model of ours'})" if was is not None else "gone"
    say(f"MLflow: the alias champion of {dataset} was {before}, which the pointer does not say: it is at {now} again.")
