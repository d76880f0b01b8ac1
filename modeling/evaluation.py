"""The evaluation stage: a model folder and prepared sessions -> metrics of the model and of the baselines beside it.

The last item of every test session is hidden and ranked among the whole catalogue by the code that recommends.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from modeling import baselines
from modeling.config import EvaluationConfig, TrainingConfig
from modeling.data import Cases, Split, split_sessions
from modeling.metrics import metrics_at
from modeling.ranking import Scorer, ranks
from modeling.recommend import Recommender
from modeling.translation import translate
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest, code_version, identify
from schemas.features import FeatureSchema

KIND = "evaluations"
RESULT, EXAMPLES = "result.json", "examples.json"
TIES = "an item that ties with the target counts as half a place"
NUM_EXAMPLES = 10
Progress = Callable[[str], object]


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
    know count as misses. The facts hold `metrics` by name of model or baseline, `cases` and `unknown_targets`.
    """
    artifact_id = identify(
        code=code_version(Path(__file__).parent, Path(plugins.__file__).parent),
        parents=(model.name, sessions.name),
        evaluation=config.model_dump(),
    )
    if found := artifacts.find(KIND, artifact_id):
        progress(f"Evaluation {found.name} is there already: nothing to measure.")
        return found
    schema = FeatureSchema.read(sessions.folder / "schema.json")
    training = TrainingConfig.model_validate(model.parameters["training"])
    split = split_sessions(sessions, schema, training.validation_sessions)
    cases = split.test.known()
    recommender = Recommender(model.folder)
    native = model.parents == (sessions.name,)
    theirs = cases if native else translate(cases, sessions.folder, model.folder)
    theirs = Cases(theirs.history.to(recommender.device), theirs.target)
    metrics = {recommender.model.settings.body: _measure("model", recommender.scorer, theirs, config, progress)}
    for name in config.baselines:
        baseline = fit_baseline(name, split, schema)
        metrics[name] = _measure(name, baseline, cases, config, progress)
    facts: dict[str, Any] = {
        "metrics": metrics,
        "model": recommender.model.settings.body,
        "cases": len(cases.target),
        "unknown_targets": len(split.test.target) - len(cases.target),
        "catalogue": schema.num_items,
        "filter_seen": config.filter_seen,
        "ties": TIES,
    }
    parameters = {"evaluation": config.model_dump()}
    with artifacts.write(KIND, artifact_id, parents=(model.name, sessions.name), parameters=parameters) as draft:
        draft.facts = facts
        (draft.folder / RESULT).write_text(json.dumps(facts, indent=2) + "\n")
        examples = show_examples(recommender, theirs, config)
        (draft.folder / EXAMPLES).write_text(json.dumps(examples, indent=2, default=str) + "\n")
    return draft.manifest


def fit_baseline(name: str, split: Split, schema: FeatureSchema) -> Scorer:
    """The baseline of that name, fit on the sessions the model is fit on."""
    found: Scorer = plugins.find(baselines, name)(split.train, split.last_day, schema.num_items)
    return found


def _measure(name: str, scorer: Scorer, cases: Cases, config: EvaluationConfig, progress: Progress) -> dict[str, float]:
    rank_N = ranks(scorer, cases, filter_seen=config.filter_seen)
    found = metrics_at(rank_N, config.cutoffs) if len(rank_N) else metrics_at(torch.tensor([torch.inf]), config.cutoffs)
    k = max(config.cutoffs)
    progress(
        f"{name}: NDCG@{k} {found[f'ndcg@{k}']:.4f}, recall@{k} {found[f'recall@{k}']:.4f} on {len(rank_N):,} cases"
    )
    return found


def show_examples(recommender: Recommender, cases: Cases, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Some histories, what was recommended and what came next, in raw item ids."""
    count = min(NUM_EXAMPLES, len(cases.target))
    chosen = torch.arange(count) * len(cases.target) // max(count, 1)
    histories, target = cases.history.select(chosen), cases.target[chosen]
    if not count:
        return []
    lists = recommender.recommend(histories, max(config.cutoffs), filter_seen=config.filter_seen)
    recent = histories.most_recent(5)
    session, event = recent.event_index()
    raw = recommender.raw_items(recent.items[event])
    owner = session.tolist()
    return [
        {
            "history": [item for item, place in zip(raw, owner, strict=True) if place == row],
            "next": recommender.raw_items(target[row : row + 1])[0],
            "recommended": lists[row],
        }
        for row in range(count)
    ]
