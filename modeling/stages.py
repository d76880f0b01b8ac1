"""The stages: session Parquet + feature schema -> model folder; model folder + sessions -> metrics.

Interrupted anywhere, training goes on where it was. The last item of every test session is hidden and ranked among the whole
catalogue by the code that recommends; labels are foretold for what is hidden by the code that predicts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from modeling.config import EvaluationConfig, ModelConfig, TrainingConfig
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest, identify, sha256
from schemas.closure import code_of
from schemas.errors import InputError
from schemas.features import FeatureSchema

MODELS, EVALUATIONS = "models", "evaluations"
RESULT, EXAMPLES = "result.json", "examples.json"
ROOT = Path(__file__).parents[1]
# What stages run: the code of a result is that of these modules, of the parts that were chosen, and of all they import.
TRAINING = ("modeling.splits", "modeling.training.fit")
EVALUATION = ("modeling.splits", "modeling.evaluation.measure")
COMPARISON = ("modeling.stages", "modeling.evaluation.compare")  # the rule, and what it measures by EVALUATION
Progress = Callable[[str], object]


def train(
    artifacts: Artifacts,
    sessions: Manifest,
    model_config: ModelConfig,
    config: TrainingConfig,
    progress: Progress = print,
) -> Manifest:
    """Fit a model on prepared sessions, or return the one that was fit on them with these settings before.

    Of a file of pretrained vectors it is the content that counts, not the name; of code, what training imports and the parts
    that are chosen: another body, baseline or report that changed is no reason to train again.

    The folder holds config.json, model.safetensors, schema.json, items.parquet and history.json. Facts: parameters, steps,
    tokens, CPU and wall seconds, tokens per CPU second, the best validation score and the curves.
    """
    pretrained = model_config.inputs.pretrained
    artifact_id = identify(
        code=code_of_training(model_config),
        parents=(sessions.name,),
        model=model_config.model_dump(exclude={"inputs": {"pretrained": {"path"}}}),
        training=config.model_dump(),
        pretrained=_content(Path(pretrained.path)) if pretrained else None,
        made_with=plugins.contents(model_config.parts),
    )
    if found := artifacts.find(MODELS, artifact_id):
        progress(f"Model {found.name} is there already: nothing to train.")
        return found
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
        code=code_of_evaluation(model, config.baselines),
        parents=(model.name, sessions.name),
        evaluation=config.model_dump(),
        made_with=plugins.contents({**_parts_of(model), "baselines": config.baselines}),
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


def code_of_training(config: ModelConfig) -> str:
    """A hash of the code that fits a model of these parts."""
    return _code_of(TRAINING, config.parts)


def code_of_evaluation(model: Manifest, baselines: Iterable[str]) -> str:
    """A hash of the code that measures a model and these baselines."""
    return _code_of(EVALUATION, {**_parts_of(model), "baselines": baselines})


def code_of_comparison(rival: Manifest | None) -> str:
    """A hash of the code that compares a measured model with a rival, which it measures first."""
    return _code_of(EVALUATION, _parts_of(rival) if rival else {}, alone=COMPARISON)


def _code_of(modules: tuple[str, ...], parts: Mapping[str, Iterable[str]], alone: tuple[str, ...] = ()) -> str:
    packages = {kind: f"modeling.{'evaluation.' * (kind == 'baselines')}{kind}" for kind in parts}
    chosen = tuple((packages[kind], name) for kind, names in parts.items() for name in sorted(names))
    own = tuple(file for files in plugins.own_files(parts).values() for file in files)
    return code_of(ROOT, modules, chosen, own, alone)


def _parts_of(model: Manifest) -> Mapping[str, tuple[str, ...]]:
    """The parts of a model by kind; none where this code cannot read what it was made with, and so cannot load it either."""
    try:
        return ModelConfig.model_validate(model.parameters.get("model")).parts
    except ValidationError:
        return {}


def _content(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"inputs.pretrained.path: {path} cannot be read ({error.strerror}).") from None
