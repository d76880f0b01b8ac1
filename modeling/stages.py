"""The stages: session Parquet + feature schema -> model folder; model folder + sessions -> metrics.

Interrupted anywhere, training goes on where it was. The last item of every test session is hidden and ranked among the whole
catalogue by the code that recommends; labels are foretold for what is hidden by the code that predicts.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from modeling.config import EvaluationConfig, ModelConfig, TrainingConfig
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest, code_version, identify, sha256
from schemas.errors import InputError
from schemas.features import FeatureSchema
from schemas.progress import Progress as Numbers

MODELS, EVALUATIONS = "models", "evaluations"
RESULT, EXAMPLES = "result.json", "examples.json"
ROOM = Path(__file__).parent
Progress = Callable[[str], object]
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

    Of a file of pretrained vectors it is the content that counts, not the name. Another number of CPU threads adds numbers in
    another order and gives other bits: it is another model.

    The folder holds config.json, model.safetensors, schema.json, items.parquet and history.json (`HistoryRow`s). Facts:
    parameters, steps, tokens, CPU and wall seconds, tokens per CPU second, validation cases, what chose the weights, the best
    validation score.

    Raises:
        InputError: for one of several processes that were started together; when another process trains the same model.
    """
    config = config.model_copy(update={"threads": config.threads or cpu_threads()})
    pretrained = model_config.inputs.pretrained
    artifact_id = identify(
        code=code_version(ROOM, Path(plugins.__file__).parent),
        parents=(sessions.name,),
        model=model_config.model_dump(exclude={"inputs": {"pretrained": {"path"}}}),
        training=config.model_dump(),
        pretrained=_content(Path(pretrained.path)) if pretrained else None,
        made_with=plugins.contents(_parts(model_config)),
    )
    if found := artifacts.find(MODELS, artifact_id):
        progress(f"Model {found.name} is there already: nothing to train.")
        return found
    if (processes := int(os.environ.get("WORLD_SIZE") or 1)) > 1:
        raise InputError(
            f"{processes} processes were started to train together (WORLD_SIZE={processes}, as torchrun sets it), but a model "
            "is trained by one process on one GPU: all of them would do the same steps. Start it once, without torchrun."
        )
    import polars as pl

    from modeling.service.recommender import ITEMS
    from modeling.splits import split_sessions  # torch is only loaded when there is something to train
    from modeling.training.fit import fit

    schema = FeatureSchema.read(sessions.folder / "schema.json")
    split = split_sessions(sessions, schema, config.validation_sessions)
    items = pl.read_parquet(sessions.folder / ITEMS, glob=False)
    parameters = {"model": model_config.model_dump(), "training": config.model_dump()}
    with (
        artifacts.unfinished(artifact_id) as checkpoints,
        artifacts.write(MODELS, artifact_id, parents=(sessions.name,), parameters=parameters) as draft,
    ):
        model, facts = fit(schema, split, model_config, config, checkpoints, progress, items)
        model.save(draft.folder)
        for name in ("schema.json", ITEMS):
            shutil.copy(sessions.folder / name, draft.folder / name)
        shutil.copytree(sessions.folder / "vocabularies", draft.folder / "vocabularies")
        (draft.folder / "history.json").write_text(json.dumps(facts.pop("history")) + "\n")
        draft.facts = facts | {"test_day": sessions.facts["test_day"]}  # it learned from the days before
    return draft.manifest


def evaluate(
    artifacts: Artifacts,
    model: Manifest,
    sessions: Manifest,
    config: EvaluationConfig,
    progress: Progress = print,
) -> Manifest:
    """Measure a model on the test cases of prepared sessions, or return the measurement made before.

    Cases whose target is not in the sessions' training vocabulary cannot be hit by anybody: they are left out and counted.
    A model with another vocabulary (one trained on another night) is measured on the same cases; targets that it does not
    know count as misses. Labels are measured on every case that has one, beside `mean`, the mean of the training labels. The
    facts hold `metrics` by name of model or baseline (None: undefined, such as the AUC of labels that are all alike), `cases`,
    `unknown_targets` and, by label, `labels`.
    """
    artifact_id = identify(
        code=code_version(ROOM, Path(plugins.__file__).parent),
        parents=(model.name, sessions.name),
        evaluation=config.model_dump(),
        made_with=plugins.contents({"baselines": config.baselines}),
    )
    if found := artifacts.find(EVALUATIONS, artifact_id):
        progress(f"Evaluation {found.name} is there already: nothing to measure.")
        return found
    from modeling.evaluation.measure import measure  # torch is only loaded when there is something to measure

    facts, examples = measure(model, sessions, config, progress)
    parameters = {"evaluation": config.model_dump()}
    with artifacts.write(EVALUATIONS, artifact_id, parents=(model.name, sessions.name), parameters=parameters) as draft:
        draft.facts = facts
        (draft.folder / RESULT).write_text(json.dumps(facts, indent=2) + "\n")
        (draft.folder / EXAMPLES).write_text(json.dumps(examples, indent=2, default=str) + "\n")
    return draft.manifest


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


def _parts(config: ModelConfig) -> dict[str, list[str]]:
    """The names a model is put together from, by kind: of people's own files it is the content that counts, too."""
    heads = [head.name for head in config.heads.values()]
    one_each = {"bodies": config.body, "objectives": config.objective, "losses": config.loss}
    return {kind: [choice.name] for kind, choice in one_each.items()} | {"heads": heads}


def _content(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"inputs.pretrained.path: {path} cannot be read ({error.strerror}).") from None
