"""The stages: session Parquet + feature schema -> model folder; model folder + sessions -> metrics; metrics -> verdict.

Interrupted anywhere, training goes on where it was. The last item of every test session is hidden and ranked among the whole
catalogue by the code that recommends; labels are foretold for what is hidden by the code that predicts.
"""

from __future__ import annotations

import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from modeling.config import EvaluationConfig, ModelConfig, PromotionConfig, TrainingConfig
from modeling.evaluation.compare import (
    Champion,
    Metrics,
    Rival,
    best_baseline,
    champion_of,
    instead,
    judge,
    pointer_of,
    put_in_service,
    why_withdrawn,
)
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest, identify, sha256
from schemas.closure import code_of
from schemas.errors import InputError, unknown
from schemas.features import FeatureSchema
from schemas.progress import Progress as Numbers

MODELS, EVALUATIONS, COMPARISONS = "models", "evaluations", "comparisons"
RESULT, EXAMPLES = "result.json", "examples.json"
ROOT = Path(__file__).parents[1]
# What stages run: the code of a result is that of these modules, of the parts that were chosen, and of all they import.
TRAINING = ("modeling.splits", "modeling.training.fit")
EVALUATION = ("modeling.splits", "modeling.evaluation.measure")
COMPARISON = ("modeling.stages", "modeling.evaluation.compare")  # the rule, and what it measures by EVALUATION
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

    Of a file of pretrained vectors it is the content that counts, not the name; of code, what training imports and the parts
    that are chosen: another body, baseline or report that changed is no reason to train again. Another number of CPU threads
    adds numbers in another order and gives other bits: it is another model.

    The folder holds config.json, model.safetensors, schema.json, items.parquet and history.json (`HistoryRow`s). Facts:
    parameters, steps, tokens, CPU and wall seconds, tokens per CPU second, validation cases, what chose the weights, the best
    validation score.

    Raises:
        InputError: for one of several processes that were started together; when another process trains the same model.
    """
    config = config.model_copy(update={"threads": config.threads or cpu_threads()})
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

    Cases whose target no model trained on these sessions can recommend are left out and counted: those that came up after
    the vocabulary (`unknown_targets`) or have no training event (`cold_targets`). So are sessions of one event (`too_short`).
    A model with another vocabulary (one trained on another night) is measured on the same cases; targets that it cannot
    recommend count as misses. With `filter_seen` so do targets that the history holds (`seen_targets`). Labels are measured
    on every case that has one, and so is `mean`, the mean of the training labels.

    The facts hold `metrics` by name of model or baseline (None: undefined, such as everything of no cases, or the AUC of labels
    that are all alike), these counts, `catalogue` items that can be recommended of the `vocabulary`, by label `labels`, and
    `learned_from_test_day`: whether the model learned from what it is tested on, which is also warned of.
    """
    artifact_id = identify(
        code=code_of_evaluation(model, config.baselines),
        parents=(model.name, sessions.name),
        evaluation=config.model_dump(),
        made_with=plugins.contents({**_parts_of(model), "baselines": config.baselines}),
    )
    if found := artifacts.find(EVALUATIONS, artifact_id):
        progress(f"Evaluation {found.name} is there already: nothing to measure.")
        _warn(found, progress)
        return found
    from modeling.evaluation.measure import measure  # torch is only loaded when there is something to measure

    facts, examples = measure(model, sessions, config, progress)
    parameters = {"evaluation": config.model_dump()}
    with artifacts.write(EVALUATIONS, artifact_id, parents=(model.name, sessions.name), parameters=parameters) as draft:
        draft.facts = facts
        (draft.folder / RESULT).write_text(json.dumps(facts, indent=2) + "\n")
        (draft.folder / EXAMPLES).write_text(json.dumps(examples, indent=2, default=str) + "\n")
    _warn(draft.manifest, progress)
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


def _warn(evaluation: Manifest, progress: Progress) -> None:
    if evaluation.facts["learned_from_test_day"]:
        progress(f"Warning: {evaluation.parents[0]} learned from what it is tested on here: its metrics are too good.")


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


def compare(
    artifacts: Artifacts,
    dataset: str,
    evaluation: Manifest,
    sessions: Manifest,
    promotion: PromotionConfig,
    config: EvaluationConfig,
    progress: Progress = print,
) -> Manifest:
    """Measure the model in service on the candidate's test cases and decide, by the rule of `evaluation.compare`.

    The model in service never fails a night: one that cannot be compared (its folder or its pointer is damaged, this code does
    not take it, a feature it reads is made another way now, measuring it fails) is named with the reason, and the candidate is
    judged as with nothing in service. A model in service that was trained on the test day, as when a past night is run again,
    stays. Facts: `promote`, `reason`, `metric`, `new`, `old`, `champion`, `compared` (whether it was measured),
    `not_compared` (why not), `read_as` (what it could not read from today's sessions).

    Raises:
        InputError: for a metric that was not computed, with those that were.
    """
    measured = _metrics(evaluation)
    if promotion.metric not in measured:
        raise unknown("promotion.metric", promotion.metric, measured)
    candidate = evaluation.parents[0]
    champion, damage = _in_service(artifacts, dataset)
    put_there_by = champion.comparison if champion and champion.model == candidate else None
    if put_there_by and (known := artifacts.find(*put_there_by.split("/"))):
        progress(f"{candidate} is already in service.")
        return known
    rival = artifacts.find(*champion.model.split("/")) if champion else None
    about = {"dataset": dataset, "promotion": promotion.model_dump(), "damage": damage, "whole": rival is not None}
    code, parents = code_of_comparison(rival), (evaluation.name, champion.model if champion else "")
    artifact_id = identify(code=code, parents=parents, **about)
    withdrawn = why_withdrawn(artifacts, dataset, champion, candidate, f"{COMPARISONS}/{artifact_id}")
    if withdrawn:
        artifact_id = identify(code=code, parents=parents, withdrawn=withdrawn, **about)
    if found := artifacts.find(COMPARISONS, artifact_id):
        progress(found.facts["reason"])
        return found
    facts: dict[str, Any] = {"metric": promotion.metric, "new": measured[promotion.metric], "old": None}
    facts |= {"promote": False, "compared": False, "not_compared": "", "read_as": []}
    facts |= {"dataset": dataset, "candidate": candidate, "champion": champion.model if champion else None}
    if withdrawn:
        facts["reason"] = withdrawn
    elif champion and champion.model == candidate:
        facts["reason"] = f"{candidate} is in service already."
    else:
        facts |= _decide(artifacts, facts, champion, rival, damage, evaluation, sessions, promotion, config, progress)
    progress(facts["reason"])
    with artifacts.write(
        COMPARISONS, artifact_id, parents=(evaluation.name,), parameters=promotion.model_dump()
    ) as draft:
        draft.facts = facts
        (draft.folder / "comparison.json").write_text(json.dumps(facts, indent=2) + "\n")
    return draft.manifest


def promote(artifacts: Artifacts, comparison: Manifest, progress: Progress = print) -> Champion | None:
    """Put the candidate into service when the comparison says so; returns the model in service afterwards.

    A comparison is applied once, and only to the pointer it was made against.
    """
    facts = comparison.facts
    dataset, candidate = facts["dataset"], facts["candidate"]
    champion, _ = _in_service(artifacts, dataset)  # `compare` has said what is wrong with the pointer
    if not facts["promote"] or (champion and champion.model == candidate):
        return champion
    if champion and (champion.model != facts["champion"] or champion.applied(comparison.name)):
        progress(
            f"{comparison.name} is not applied: the model in service has changed since it was made. {champion.model} stays. "
            f"Run the night again, or name a model: `overnight promote MODEL --dataset {dataset}`."
        )
        return champion
    artifacts.get(candidate)  # whole and readable, or the pointer stays
    return put_in_service(artifacts, dataset, candidate, by="comparison", comparison=comparison.name)


def _in_service(artifacts: Artifacts, dataset: str) -> tuple[Champion | None, str]:
    """The model in service, and what is wrong with the pointer (or "")."""
    try:
        return champion_of(artifacts, dataset), ""
    except InputError as error:
        return None, str(error)


def _decide(
    artifacts: Artifacts,
    facts: dict[str, Any],
    champion: Champion | None,
    rival: Manifest | None,
    damage: str,
    evaluation: Manifest,
    sessions: Manifest,
    promotion: PromotionConfig,
    config: EvaluationConfig,
    progress: Progress,
) -> dict[str, Any]:
    """The facts that say what was decided and why."""
    metric, new, test_day = promotion.metric, facts["new"], sessions.facts["test_day"]
    if rival and _learned_from(rival, test_day):
        reason = f"The model in service learned from {test_day}, the test day, and cannot be compared on it: it stays."
        return {"reason": reason}
    if new is None:
        return {"reason": f"{metric} is undefined on these test sessions: keep what is in service."}
    baseline = best_baseline(evaluation.facts["metrics"], evaluation.facts["model"], metric)
    if champion is None and not damage:
        return judge(promotion, new, instead(baseline, "nothing is in service"))
    old, problem, where = None, damage, "What is in service"
    read_as: list[str] = []
    if champion:
        old, read_as, problem = _score_in_service(artifacts, champion, rival, metric, sessions, config, progress)
        where = f"{champion.model}, in service by {pointer_of(artifacts, facts['dataset'])},"
    if problem:
        line = (
            f"{where} cannot be compared: {problem.rstrip('.')}. The new model is judged as with nothing in service, against "
            f"the baselines; to decide otherwise: `overnight promote MODEL --dataset {facts['dataset']}`."
        )
        verdict = judge(promotion, new, instead(baseline, "the model in service cannot be compared"))
        return verdict | {"not_compared": line, "reason": f"{verdict['reason']} {line}"}
    if old is None:
        return judge(promotion, new, instead(baseline, "the model in service does not predict it"))
    beside = [f"best baseline: {baseline[0]} {baseline[1]:.4f}"] if baseline else []
    beside += [f"of the model in service {line}" for line in read_as]
    verdict = judge(promotion, new, Rival(old, "the model in service", "; ".join(beside)))
    return verdict | {"compared": True, "read_as": read_as}


def _score_in_service(
    artifacts: Artifacts,
    champion: Champion,
    rival: Manifest | None,
    metric: str,
    sessions: Manifest,
    config: EvaluationConfig,
    progress: Progress,
) -> tuple[float | None, list[str], str]:
    """Its score (None: it does not predict the metric), what it could not read, and why it cannot be compared (or "")."""
    if rival is None:
        return None, [], f"{artifacts.root / champion.model} is missing or damaged"
    alone = config.model_copy(update={"baselines": ()})
    try:
        score = _metrics(evaluate(artifacts, rival, sessions, alone, progress)).get(metric)
        return score, _read_as(rival, sessions), ""
    except InputError as error:
        return None, [], str(error)
    except Exception as error:  # whatever an older model makes newer code do, the night goes on
        if _will_pass(error):
            raise
        progress(f"Measuring the model in service failed: {traceback.format_exception_only(error)[-1].strip()}")
        frame = traceback.extract_tb(error.__traceback__)[-1]
        progress(f"  at {frame.filename}:{frame.lineno} in {frame.name}: {frame.line}")
        return None, [], f"measuring it failed ({type(error).__name__}: {' '.join(str(error).split())[:300]})"


def _will_pass(error: Exception) -> bool:
    """Whether an error says nothing of the model: a full memory or disk is no reason to replace it."""
    full = type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)
    lost = isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError)
    return full or (isinstance(error, MemoryError | OSError) and not lost)


def _read_as(model: Manifest, sessions: Manifest) -> list[str]:
    if model.parents == (sessions.name,):
        return []
    from modeling.vocabularies import as_read

    return as_read(sessions.folder, model.folder)


def _learned_from(model: Manifest, day: str | None) -> bool:
    """Whether a model's training days, all those before its own test day, hold `day`."""
    until = model.facts.get("test_day")
    return bool(day and until and until > day)


def _metrics(evaluation: Manifest) -> Metrics:
    """What was measured of the model."""
    measured: Metrics = evaluation.facts["metrics"][evaluation.facts["model"]]
    return measured
