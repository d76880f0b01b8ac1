"""Session Parquet + feature schema -> model folder. Interrupted anywhere, it goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from modeling.config import Goal, ModelConfig, SplitConfig, TrainingConfig
from modeling.presets.by_shape import Shape, describe, settings_by_shape
from modeling.stages.identity import code_of_training, selection_of
from modeling.stages.job import Job
from modeling.stages.parent import OF_A_START, Parent, find_parent
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest, identify, sha256
from schemas.errors import InputError
from schemas.progress import Progress as Numbers

MODELS, ITEMS = "models", "items.parquet"
Report = Callable[[Numbers | str], object]
CORES = Path("/sys/devices/system/cpu")
EVENTS_A_THREAD = 512  # of a step; with fewer, threads mostly wait for one another (LOG.md)
TURN = "turn-"  # before a model's id: the folder that is locked while a process trains it, or waits for its own processes to


def train(
    artifacts: Artifacts,
    sessions: Manifest,
    model_config: ModelConfig,
    config: TrainingConfig,
    progress: Report = print,
    split: SplitConfig = SplitConfig(),  # noqa: B008  (frozen)
    goal: Goal = Goal(),  # noqa: B008
) -> Manifest:
    """Fit a model on prepared sessions, or return the one that was fit on them with these settings before.

    `split` says which of the sessions are tested on, and so not read: of several folds the newest one is taken. `goal` is what
    validation chooses by.

    Settings that nobody has given follow the shape of the data (`presets.by_shape`). The settings trained with name the
    model, so whoever writes them out gets the same one.

    Of a file of pretrained vectors it is the content that counts, not the name; of code, what training imports and the parts
    that are chosen: another body, baseline or report that changed is no reason to train again. Another number of CPU threads
    adds numbers in another order and gives other bits: it is another model.

    The folder holds config.json, model.safetensors, schema.json, items.parquet and history.json (`HistoryRow`s). Facts:
    parameters, steps, tokens, CPU and wall seconds, tokens per CPU second, validation cases, what chose the weights, the best
    validation score, and `by_shape`: the settings that followed the shape of the data, by name.

    With `config.devices` processes, or those of torchrun, that train it together: sums are rounded in another order than by
    one process, so their number names the model too. The first one writes; all return the same manifest.

    Raises:
        InputError: for processes that do not fit the settings.
    """
    shape = Shape.of(sessions)
    model_config, config, chosen = settings_by_shape(model_config, config, shape)
    config = _settle(config)
    if config.shard_items:
        from modeling.training.sharding import check_shards

        check_shards(model_config, config)
    days = split.stretches(sessions.facts["days"], sessions.facts["test_day"])
    test_day = days[-1].test[0] if days else None
    parent = find_parent(artifacts, sessions, config, test_day, progress)
    config = _validated(config, bool(days), parent, progress)
    if not config.start_from and (ignored := [name for name in OF_A_START if name in config.model_fields_set]):
        progress(f"Not used without training.start_from: {', '.join(f'training.{name}' for name in ignored)}.")
    if split.folds > 1:
        progress(
            f"Of {split.folds} folds (evaluation.split.folds) the newest is trained on; `overnight compare` takes all."
        )
    artifact_id = _identity(sessions, model_config, config, parent, split, goal)
    existing = artifacts.find(MODELS, artifact_id)
    if existing and not (parent and parent.named and existing.facts["start_from"] is None):  # else it is refused below
        progress(f"Model {existing.name} is there already: nothing to train.")
        return existing
    if chosen:
        progress(describe(chosen, shape))
    if split.path:
        from modeling.stages.listed import check_list  # with torch; said now, not when the model is trained

        check_list(Path(split.path))
    return make(Job(artifacts, artifact_id, sessions, model_config, config, split, goal, parent, chosen), progress)


def make(job: Job, progress: Report) -> Manifest:
    """Do a training, in as many processes as it asks for -> the model's folder. Where another process is at it, its model."""
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:  # torchrun started several, of which one cannot wait for all
        return _do(job, progress)
    waited: list[bool] = []

    def wait() -> None:
        waited.append(True)
        progress(f"Another process is training models/{job.id}, which this one waits for; Ctrl-C gives up.")

    # Not the folder of checkpoints: that is locked by the process that trains, the first of several.
    with job.artifacts.unfinished(f"{TURN}{job.id}", wait):
        if waited:
            if made := job.artifacts.find(MODELS, job.id):
                progress(f"Model {made.name} is there now: nothing to train.")
                return made
            progress(f"The other process has not finished models/{job.id}: going on from its last checkpoint.")
        return _do(job, progress)


def _do(job: Job, progress: Report) -> Manifest:
    """Do a training that no other process is at."""
    if job.training.devices == 1:
        return _fit(job, progress)
    from modeling.training import launch  # torch is only loaded when there is something to train

    launch.together(partial(_take_part, job), job.training.devices, progress)
    trained = job.artifacts.find(MODELS, job.id)
    assert trained
    return trained.model_copy(update={"reused": False})


def _validated(config: TrainingConfig, by_days: bool, parent: Parent | None, say: Report) -> TrainingConfig:
    """The settings with the kind of validation that they mean: none of both where last items are the test."""
    if by_days and not parent:
        return config.model_copy(
            update={"validation": config.validation or ("days" if config.order == "random" else "sample")}
        )
    if config.validation and (config.validation == "days" or not by_days):
        why = "a model that starts from another one does warm_epochs" if by_days else "the last item but one validates"
        say(f"Not used: training.validation {config.validation} ({why}).")
    return config.model_copy(update={"validation": "sample" if by_days else None})


def _settle(config: TrainingConfig) -> TrainingConfig:
    """The settings with the number of processes, and the threads of each, that training will have."""
    started = int(os.environ.get("WORLD_SIZE") or 1)
    if started > 1 and config.devices not in (1, started):
        raise InputError(
            f"torchrun started {started} processes (WORLD_SIZE), but training.devices (--devices) is {config.devices}: "
            "leave it out, or start the command once, without torchrun."
        )
    devices = max(started, config.devices)
    if devices > 1 and config.trainer != "own":
        raise InputError(
            f"training.trainer {config.trainer}: {devices} processes train one model by Overnight's own loop. Set "
            "training.trainer to own, or train in one process."
        )
    side_by_side = int(os.environ.get("LOCAL_WORLD_SIZE") or devices)
    threads = config.threads or cpu_threads(side_by_side, config.tokens_per_step // devices)
    return config.model_copy(update={"threads": threads, "devices": devices})


def _take_part(job: Job, progress: Report) -> None:
    """Fit the model together with other processes, the first of which writes it."""
    from modeling.training.distributed import is_first

    if is_first():
        _fit(job, progress)
    else:
        job.run(progress)


def _fit(job: Job, progress: Report) -> Manifest:
    """Fit the model and write its folder."""
    artifacts, config, sessions = job.artifacts, job.training, job.sessions
    parameters = {"model": job.model.model_dump(), "training": config.model_dump()}
    parameters |= {"split": job.split.model_dump(mode="json"), "goal": job.goal.model_dump()}
    with (
        artifacts.unfinished(job.id) as checkpoints,
        artifacts.write(MODELS, job.id, parents=(sessions.name,), parameters=parameters) as draft,
    ):
        model, facts = job.run(progress)
        model.save(draft.folder)
        if config.start_from and not config.shard_items:
            from modeling.training.moments import keep_moments

            keep_moments(model, checkpoints, facts["best_step"], draft.folder)
        _copy_schema(sessions.folder, draft.folder)
        (draft.folder / "history.json").write_text(json.dumps(facts.pop("history")) + "\n")
        draft.facts = facts | {"by_shape": job.chosen}
    return draft.manifest


def _identity(
    sessions: Manifest,
    model_config: ModelConfig,
    config: TrainingConfig,
    parent: Parent | None,
    split: SplitConfig,
    goal: Goal,
) -> str:
    """A run that starts from no model is named by its own settings, but for whether it keeps the state of its optimizer.

    What validation goes by counts where it chooses.
    """
    pretrained = model_config.inputs.pretrained
    # How a GPU does the same steps, a name for `parent`, and what comes after the training.
    left_out = {"capture", "compile", "start_from", "refit"}
    about: dict[str, Any] = (
        {"parent": parent.name} if parent else {"keeps_optimizer": True} if config.start_from else {}
    )
    if config.validation == "days" or (config.validation is None and config.order == "random"):
        about["goal"] = goal.model_dump()
    return identify(
        code=code_of_training(model_config),
        parents=(sessions.name,),
        model=model_config.model_dump(exclude={"inputs": {"pretrained": {"path"}}}),
        training=config.model_dump(exclude=left_out if parent else {*left_out, *OF_A_START}),
        pretrained=_content(Path(pretrained.path)) if pretrained else None,
        made_with=plugins.contents(model_config.parts),
        split=selection_of(sessions, split),
        **about,
    )


def _copy_schema(sessions: Path, model: Path) -> None:
    """What raw values mean: schema, item table and vocabularies of the sessions' folder, into the model's."""
    for name in ("schema.json", ITEMS):
        shutil.copy(sessions / name, model / name)
    shutil.copytree(sessions / "vocabularies", model / "vocabularies")


def cpu_threads(processes: int = 1, events: int | None = None) -> int:
    """How many threads each of some processes takes where none are set: OMP_NUM_THREADS, or its share of the cores it may use,
    but of a step of so many `events` no more than have `EVENTS_A_THREAD` each.

    Two hardware threads of a core are one; where the machine does not say which those are, each counts.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdigit() and int(asked):
        return int(asked)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in allowed:
        try:
            cores.add((CORES / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text())
        except OSError:
            cores.add(str(cpu))
    most = len(cores) // processes
    return max(1, most if events is None else min(most, events // EVENTS_A_THREAD))


def _content(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"inputs.pretrained.path: {path} cannot be read ({error.strerror}).") from None
