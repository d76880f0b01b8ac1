"""Measure a model and baselines on the test cases of prepared sessions, by the code that recommends and predicts.

N cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from modeling.config import NEXT_ITEM, EvaluationConfig
from modeling.evaluation import baselines
from modeling.evaluation.metrics import metrics_at
from modeling.evaluation.ranking import Scorer, ranks
from modeling.service.recommender import Recommender
from modeling.splits import Cases, Split, label_cases, split_sessions, training_labels
from modeling.vocabularies import translate
from schemas import plugins
from schemas.artifacts import Manifest
from schemas.errors import InputError
from schemas.features import FeatureSchema, LabelColumn

TIES = "an item that ties with the target counts as half a place"
NUM_EXAMPLES = 10
MODEL, MEAN = "model", "mean"  # mean: the baseline of labels, the mean of those in training for every case
Found = dict[str, float | None]  # by name of metric; None where undefined
Progress = Callable[[str], object]


def measure(
    model: Manifest, sessions: Manifest, config: EvaluationConfig, progress: Progress
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The facts of an evaluation, and example recommendations in raw item ids."""
    schema = FeatureSchema.read(sessions.folder / "schema.json")
    split = split_sessions(sessions, schema, model.parameters["training"]["validation_sessions"])
    recommender = Recommender(model.folder)
    native = model.parents == (sessions.name,)

    def read(cases: Cases) -> Cases:
        theirs = cases if native else translate(cases, sessions.folder, model.folder)
        return theirs.to(recommender.device)

    cases, examples = split.test.known(), []
    metrics: dict[str, Found] = {MODEL: {}}
    if NEXT_ITEM in recommender.model.heads:
        metrics[MODEL] = _rank(MODEL, recommender.scorer, read(cases), config, progress)
        for name in config.baselines:
            metrics[name] = _rank(name, fit_baseline(name, split, schema), cases, config, progress)
        examples = show_examples(recommender, read(cases), config)
    labels = {}
    for column in schema.labels:
        if column.name in recommender.model.label_heads:
            found, labels[column.name] = _foretell(column, recommender, read(split.test), split, native, progress)
            for name, values in found.items():
                metrics[name] = metrics.get(name, {}) | values
    body = recommender.model.settings.body.name
    facts: dict[str, Any] = {
        "metrics": {body if name == MODEL else name: found for name, found in metrics.items()},
        "model": body,
        "labels": labels,
        "cases": len(cases.target),
        "unknown_targets": len(split.test.target) - len(cases.target),
        "catalogue": schema.num_items,
        "filter_seen": config.filter_seen,
        "ties": TIES,
    }
    return facts, examples


def fit_baseline(name: str, split: Split, schema: FeatureSchema) -> Scorer:
    """The baseline of that name, fit on the sessions the model is fit on."""
    found: Scorer = plugins.find(baselines, name)(split.train, split.last_day, schema.num_items)
    return found


def _rank(name: str, scorer: Scorer, cases: Cases, config: EvaluationConfig, progress: Progress) -> Found:
    rank_N = ranks(scorer, cases, filter_seen=config.filter_seen)
    found = metrics_at(rank_N, config.cutoffs) if len(rank_N) else metrics_at(torch.tensor([torch.inf]), config.cutoffs)
    k = max(config.cutoffs)
    progress(
        f"{name}: NDCG@{k} {found[f'ndcg@{k}']:.4f}, recall@{k} {found[f'recall@{k}']:.4f} on {len(rank_N):,} cases"
    )
    return dict(found)


def _foretell(
    column: LabelColumn, recommender: Recommender, test: Cases, split: Split, native: bool, progress: Progress
) -> tuple[dict[str, Found], dict[str, Any]]:
    """The metrics of the model and of the mean on the cases of one label, and what to say about these."""
    head = recommender.model.label_heads[column.name]
    histories, value_N = label_cases(test, column, back=recommender.schema.split == "day")
    label_N, value_N = training_labels(split.train, column), value_N.cpu()
    about = {"cases": len(value_N), "per": column.per, "training_mean": _defined(float(label_N.mean()))}
    predicted = {MODEL: recommender.predict(histories)[column.name], MEAN: label_N.mean().expand(len(value_N))}
    try:
        measured = {name: head.measure(predicted_N, value_N) for name, predicted_N in predicted.items()}
    except InputError as error:
        if native:
            raise
        progress(f"Warning: the model in service cannot be measured on {column.name}: {error}")
        return {}, about
    for name, values in measured.items():
        told = ", ".join(f"{metric} {value:.4f}" for metric, value in values.items())
        progress(f"{name}: {column.name} {told} on {len(value_N):,} cases")
    found = {
        name: {f"{column.name}/{metric}": _defined(value) for metric, value in values.items()}
        for name, values in measured.items()
    }
    return found, about


def _defined(value: float) -> float | None:
    """A number that JSON knows, or None."""
    return value if math.isfinite(value) else None


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
