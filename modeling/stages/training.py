"""Session Parquet + feature schema -> model folder. Interrupted anywhere, it goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling.config import ModelConfig, TrainingConfig
from modeling.presets.by_shape import Shape, describe, settings_by_shape
from modeling.stages.identity import code_of_training
from modeling.stages.parent import OF_A_START, Parent, find_parent, warmed
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest, identify, sha256
from schemas.errors import InputError
from schemas.features import FeatureSchema
from schemas.progress import Progress as Numbers

if TYPE_CHECKING:
    from modeling.model import SequenceModel

MODELS, ITEMS, UNFINISHED = "models", "items.parquet", "unfinished"
Report = Callable[[Numbers | str], object]
CORES = Path("/sys/devices/system/cpu")


def train(
    artifacts: Artifacts,
    sessions: Manifest,
    model_config: ModelConfig,
    config: TrainingConfig,
    progress: Report = print,
) -> Manifest:
    """Fit a model on prepared sessions, or return the one that was fit on them with these settings before.

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
        InputError: when another process trains the same model; for processes that do not fit the settings.
    """
    shape = Shape.of(sessions)
    model_config, config, chosen = settings_by_shape(model_config, config, shape)
    config = _settle(config)
    if config.shard_items:
        from modeling.training.sharding import check_shards

        check_shards(model_config, config)
    parent = find_parent(artifacts, sessions, config, progress)
    if not config.start_from and (ignored := [name for name in OF_A_START if name in config.model_fields_set]):
        progress(f"Not used without training.start_from: {', '.join(f'training.{name}' for name in ignored)}.")
    artifact_id = _identity(sessions, model_config, config, parent)
    existing = artifacts.find(MODELS, artifact_id)
    if existing and not (parent and parent.named and existing.facts["start_from"] is None):  # else it is refused below
        progress(f"Model {existing.name} is there already: nothing to train.")
        return existing
    if chosen:
        progress(describe(chosen, shape))
    if config.devices == 1:
        return _fit(artifacts, artifact_id, sessions, model_config, config, parent, chosen, progress)
    from modeling.training import launch  # torch is only loaded when there is something to train

    work = partial(_take_part, artifacts, artifact_id, sessions, model_config, config, parent, chosen)
    launch.together(work, config.devices, progress)
    trained = artifacts.find(MODELS, artifact_id)
    assert trained
    return trained.model_copy(update={"reused": False})


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
    return config.model_copy(update={"threads": config.threads or cpu_threads(side_by_side), "devices": devices})


def _take_part(
    artifacts: Artifacts,
    artifact_id: str,
    sessions: Manifest,
    model_config: ModelConfig,
    config: TrainingConfig,
    parent: Parent | None,
    chosen: dict[str, Any],
    progress: Report,
) -> None:
    """Fit the model together with other processes, the first of which writes it."""
    from modeling.training.distributed import is_first

    if is_first():
        _fit(artifacts, artifact_id, sessions, model_config, config, parent, chosen, progress)
    else:
        _run(sessions, model_config, config, parent, artifacts.root / UNFINISHED / artifact_id, progress)


def _fit(
    artifacts: Artifacts,
    artifact_id: str,
    sessions: Manifest,
    model_config: ModelConfig,
    config: TrainingConfig,
    parent: Parent | None,
    chosen: dict[str, Any],
    progress: Report,
) -> Manifest:
    """Fit the model and write its folder."""
    parameters = {"model": model_config.model_dump(), "training": config.model_dump()}
    with (
        artifacts.unfinished(artifact_id) as checkpoints,
        artifacts.write(MODELS, artifact_id, parents=(sessions.name,), parameters=parameters) as draft,
    ):
        model, facts = _run(sessions, model_config, config, parent, checkpoints, progress)
        model.save(draft.folder)
        if config.start_from and not config.shard_items:
            from modeling.training.warm_start import keep_moments

            keep_moments(model, checkpoints, facts["best_step"], draft.folder)
        _copy_schema(sessions.folder, draft.folder)
        (draft.folder / "history.json").write_text(json.dumps(facts.pop("history")) + "\n")
        # It learned from the days before the test day.
        draft.facts = facts | {"test_day": sessions.facts["test_day"], "by_shape": chosen}
    return draft.manifest


def _run(
    sessions: Manifest,
    model_config: ModelConfig,
    config: TrainingConfig,
    parent: Parent | None,
    checkpoints: Path,
    progress: Report,
) -> tuple[SequenceModel, dict[str, Any]]:
    """Sessions and settings -> the model, and facts about the run."""
    import polars as pl

    from modeling.splits import split_sessions  # torch is only loaded when there is something to train
    from modeling.stages.memory import kept_memory
    from modeling.training.fit import fit

    schema = FeatureSchema.read(sessions.folder / "schema.json")
    split = split_sessions(sessions, schema, config.validation_sessions, model_config.inputs.past_events)
    items = pl.read_parquet(sessions.folder / ITEMS, glob=False)
    about: dict[str, Any] = {"start_from": None}
    start = parent.start(sessions, split, model_config, config, items, progress) if parent else None
    if parent and start:
        config, first_day = warmed(config), parent.first_day(sessions, config)
        about = {"start_from": parent.name, "first_day": first_day, "read_sessions": int(start.read_S.sum())}
        progress(
            f"Starting from {parent.name}: {about['read_sessions']:,} of {len(start.read_S):,} sessions, all from {first_day} "
            f"on and {config.replay:.0%} of those before."
        )
    with kept_memory():
        model, facts = fit(schema, split, model_config, config, checkpoints, progress, items, start=start)
    return model, facts | about


def _identity(sessions: Manifest, model_config: ModelConfig, config: TrainingConfig, parent: Parent | None) -> str:
    """A run that starts from no model is named by its own settings, but for whether it keeps the state of its optimizer."""
    pretrained = model_config.inputs.pretrained
    left_out = {"capture", "compile", "start_from"}  # how a GPU does the same steps; and a name for `parent`
    about = {"parent": parent.name} if parent else {"keeps_optimizer": True} if config.start_from else {}
    return identify(
        code=code_of_training(model_config),
        parents=(sessions.name,),
        model=model_config.model_dump(exclude={"inputs": {"pretrained": {"path"}}}),
        training=config.model_dump(exclude=left_out if parent else {*left_out, *OF_A_START}),
        pretrained=_content(Path(pretrained.path)) if pretrained else None,
        made_with=plugins.contents(model_config.parts),
        **about,
    )


def _copy_schema(sessions: Path, model: Path) -> None:
    """What raw values mean: schema, item table and vocabularies of the sessions' folder, into the model's."""
    for name in ("schema.json", ITEMS):
        shutil.copy(sessions / name, model / name)
    shutil.copytree(sessions / "vocabularies", model / "vocabularies")


def cpu_threads(processes: int = 1) -> int:
    """How many threads each of some processes takes where none are set: OMP_NUM_THREADS, or its share of the cores it may use.

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
    return max(1, len(cores) // processes)


def _content(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"inputs.pretrained.path: {path} cannot be read ({error.strerror}).") from None
