"""Session Parquet + feature schema -> model folder. Interrupted anywhere, it goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from modeling.by_size import describe, settings_by_size
from modeling.config import ModelConfig, TrainingConfig
from modeling.stages.identity import code_of_training
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest, identify, sha256
from schemas.errors import InputError
from schemas.features import FeatureSchema
from schemas.progress import Progress as Numbers

MODELS, ITEMS = "models", "items.parquet"
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

    Settings that nobody has given follow the size of the data (`modeling.by_size`); it is the settings trained with that name
    the model, so whoever writes them out gets the same one.

    Of a file of pretrained vectors it is the content that counts, not the name; of code, what training imports and the parts
    that are chosen: another body, baseline or report that changed is no reason to train again. Another number of CPU threads
    adds numbers in another order and gives other bits: it is another model.

    The folder holds config.json, model.safetensors, schema.json, items.parquet and history.json (`HistoryRow`s). Facts:
    parameters, steps, tokens, CPU and wall seconds, tokens per CPU second, validation cases, what chose the weights, the best
    validation score, and `by_size`: the settings that followed the size of the data, by name.

    Raises:
        InputError: for one of several processes that were started together; when another process trains the same model.
    """
    num_events, num_items = sessions.facts["events"], sessions.facts["items"]
    model_config, config, chosen = settings_by_size(model_config, config, num_events, num_items)
    config = config.model_copy(update={"threads": config.threads or cpu_threads()})
    artifact_id = _identity(sessions, model_config, config)
    if existing := artifacts.find(MODELS, artifact_id):
        progress(f"Model {existing.name} is there already: nothing to train.")
        return existing
    _require_one_process()
    if chosen:
        progress(describe(chosen, num_events, num_items))
    import polars as pl

    from modeling.memory import kept_memory
    from modeling.splits import split_sessions  # torch is only loaded when there is something to train
    from modeling.training.fit import fit

    schema = FeatureSchema.read(sessions.folder / "schema.json")
    split = split_sessions(sessions, schema, config.validation_sessions)
    items = pl.read_parquet(sessions.folder / ITEMS, glob=False)
    parameters = {"model": model_config.model_dump(), "training": config.model_dump()}
    with (
        artifacts.unfinished(artifact_id) as checkpoints,
        artifacts.write(MODELS, artifact_id, parents=(sessions.name,), parameters=parameters) as draft,
        kept_memory(),
    ):
        model, facts = fit(schema, split, model_config, config, checkpoints, progress, items)
        model.save(draft.folder)
        _copy_schema(sessions.folder, draft.folder)
        (draft.folder / "history.json").write_text(json.dumps(facts.pop("history")) + "\n")
        # It learned from the days before the test day.
        draft.facts = facts | {"test_day": sessions.facts["test_day"], "by_size": chosen}
    return draft.manifest


def _identity(sessions: Manifest, model_config: ModelConfig, config: TrainingConfig) -> str:
    pretrained = model_config.inputs.pretrained
    return identify(
        code=code_of_training(model_config),
        parents=(sessions.name,),
        model=model_config.model_dump(exclude={"inputs": {"pretrained": {"path"}}}),
        training=config.model_dump(exclude={"capture", "compile"}),  # how a GPU does the same steps
        pretrained=_content(Path(pretrained.path)) if pretrained else None,
        made_with=plugins.contents(model_config.parts),
    )


def _copy_schema(sessions: Path, model: Path) -> None:
    """What raw values mean: schema, item table and vocabularies of the sessions' folder, into the model's."""
    for name in ("schema.json", ITEMS):
        shutil.copy(sessions / name, model / name)
    shutil.copytree(sessions / "vocabularies", model / "vocabularies")


def _require_one_process() -> None:
    if (processes := int(os.environ.get("WORLD_SIZE") or 1)) > 1:
        raise InputError(
            f"{processes} processes were started to train together (WORLD_SIZE={processes}, as torchrun sets it), but a model "
            "is trained by one process on one GPU: all of them would do the same steps. Start it once, without torchrun."
        )


def cpu_threads() -> int:
    """How many threads training takes where none are set: OMP_NUM_THREADS, or the cores that this process may use.

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
    return len(cores)


def _content(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"inputs.pretrained.path: {path} cannot be read ({error.strerror}).") from None
