"""Measure a model and baselines on the test cases of prepared sessions, by the code that recommends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from modeling import baselines
from modeling.config import EvaluationConfig
from modeling.data import Cases, Split, split_sessions
from modeling.metrics import metrics_at
from modeling.ranking import Scorer, ranks
from modeling.recommend import Recommender
from modeling.translation import translate
from schemas import plugins
from schemas.artifacts import Manifest
from schemas.features import FeatureSchema

TIES = "an item that ties with the target counts as half a place"
NUM_EXAMPLES = 10
Progress = Callable[[str], object]


def measure(
    model: Manifest, sessions: Manifest, config: EvaluationConfig, progress: Progress
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The facts of an evaluation, and example recommendations in raw item ids."""
    schema = FeatureSchema.read(sessions.folder / "schema.json")
    split = split_sessions(sessions, schema, model.parameters["training"]["validation_sessions"])
    cases = split.test.known()
    recommender = Recommender(model.folder)
    native = model.parents == (sessions.name,)
    theirs = cases if native else translate(cases, sessions.folder, model.folder)
    theirs = Cases(theirs.history.to(recommender.device), theirs.target)
    metrics = {recommender.model.settings.body.name: _measure("model", recommender.scorer, theirs, config, progress)}
    for name in config.baselines:
        baseline = fit_baseline(name, split, schema)
        metrics[name] = _measure(name, baseline, cases, config, progress)
    facts: dict[str, Any] = {
        "metrics": metrics,
        "model": recommender.model.settings.body.name,
        "cases": len(cases.target),
        "unknown_targets": len(split.test.target) - len(cases.target),
        "catalogue": schema.num_items,
        "filter_seen": config.filter_seen,
        "ties": TIES,
    }
    return facts, show_examples(recommender, theirs, config)


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
