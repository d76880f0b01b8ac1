"""Measure a model and baselines on the test cases of prepared sessions, by the code that recommends and predicts.

N cases, V items.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import torch
from torch import Tensor

from modeling.config import NEXT_ITEM, EvaluationConfig, SplitConfig
from modeling.evaluation import baselines
from modeling.evaluation.choosing import fit_best
from modeling.evaluation.metrics import defined, metrics_at
from modeling.evaluation.rank_table import RankTable, describe
from modeling.evaluation.ranking import Scorer
from modeling.model import SequenceModel
from modeling.scoring import predict
from modeling.service.encoding import Vocabularies
from modeling.service.recommender import Recommender
from modeling.service.rules import Ruled, Rules
from modeling.splits import Cases, Fold, Split, label_cases, trained_items, training_labels
from modeling.stages.identity import selection_of
from modeling.stages.learned import how_it_learned
from modeling.stages.listed import read_split
from modeling.stages.ranked import Lists, facts_of_ranks
from modeling.stages.under_rules import Ranker
from modeling.vocabularies import translate
from schemas import plugins
from schemas.artifacts import Manifest
from schemas.columns import FIRST_ID
from schemas.errors import InputError
from schemas.features import FeatureSchema, LabelColumn

ITEMS = "items.parquet"
TIES = "an item that ties with the target counts as half a place"
NUM_EXAMPLES = 10
NUM_REASONS = 2  # events named for each recommendation of an example
EXPLAINED = (
    20  # newest events of a history that are left out one by one: what that costs grows with them and its length
)
NUM_RECENT = 5  # events of an example's history that are shown
MODEL, MEAN = "model", "mean"  # mean: the baseline of labels, the mean of those in training for every case
Values = dict[str, float | None]  # by name of metric; None where undefined
Progress = Callable[[str], object]


@dataclass(frozen=True)
class Test:
    """A model and the sessions it is measured on."""

    manifest: Manifest
    sessions: Manifest
    schema: FeatureSchema  # of the sessions
    split: Split
    recommender: Recommender
    config: EvaluationConfig
    progress: Progress

    @property
    def model(self) -> SequenceModel:
        """What is measured."""
        return self.recommender.model

    @property
    def native(self) -> bool:
        """Whether the model was trained on these very sessions, and so reads their ids as they are."""
        return self.manifest.parents == (self.sessions.name,)

    def for_model(self, cases: Cases) -> Cases:
        """Cases in the ids of the model, on its device."""
        if not self.native:
            cases = translate(cases, self.sessions.folder, self.manifest.folder)
        return cases.to(self.model.device)

    @property
    def ranker(self) -> Ranker:
        """Of the model."""
        return self._ranker(self.recommender.scorer, self.recommender.ruled)

    def ranker_of(self, baseline: Scorer) -> Ranker:
        """Of a baseline, under the rules of the model; items and features are those of the sessions."""
        rules, folder = self.recommender.rules, self.sessions.folder
        if rules is None:
            return self._ranker(baseline, None)
        items = pl.read_parquet(folder / ITEMS, glob=False)
        return self._ranker(baseline, Ruled(rules, baseline, items, self.schema, Vocabularies(folder)))

    def _ranker(self, scorer: Scorer, ruled: Ruled | None) -> Ranker:
        return Ranker(scorer, ruled, self.config.filter_seen, max(self.config.cutoffs))


def measure(
    model: Manifest, sessions: Manifest, config: EvaluationConfig, progress: Progress, rules: Rules | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]], RankTable | None]:
    """The facts of an evaluation, example recommendations in raw item ids, and the ranks of models that rank items; under
    `rules`, if there are any.
    """
    schema = FeatureSchema.read(sessions.folder / "schema.json")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recommender = Recommender(model.folder, device, rules=rules)
    loaded = recommender.model
    past = loaded.settings.inputs.past_events
    training = model.parameters["training"]
    newest_days = training.get("validation_days", 1) if training.get("validation") == "days" else 0
    split = read_split(sessions, config.split, training["validation_sessions"], newest_days, past)
    assert split.fold
    if rules is not None and rules.hide_seen is not None:
        config = config.model_copy(update={"filter_seen": rules.hide_seen})
    test = Test(model, sessions, schema, split, recommender, config, progress)
    metrics: dict[str, Values] = {MODEL: {}}
    examples: list[dict[str, Any]] = []
    table: RankTable | None = None
    settings: dict[str, dict[str, float]] = {}
    cases, counts = measurable(split.test, trained_items(split.train, schema.num_items))
    about_ranks: dict[str, Any] = {}
    if NEXT_ITEM in test.model.heads:
        metrics, examples, settings, table, about = _rank_items(test, cases)
        about_ranks = facts_of_ranks(table, config.cutoffs) | about
    labels = {}
    if listed := config.split.rule == "list" and test.model.label_heads:
        progress(f"Not measured on a list, which holds no labels: {', '.join(test.model.label_heads)}.")
    for column in schema.labels:
        if column.name in test.model.label_heads and not listed:
            values, labels[column.name] = _predict_labels(test, column)
            for name, measured in values.items():
                metrics[name] = metrics.get(name, {}) | measured
    body = test.model.settings.body.name
    facts: dict[str, Any] = {
        "metrics": {body if name == MODEL else name: values for name, values in metrics.items()},
        "model": body,
        "labels": labels,
        "baseline_settings": settings,
        **counts,
        "filter_seen": config.filter_seen,
        "learned_from_test_day": learned_from(model, split.fold),
        "split": split.fold.about() | split.fold.counts(),
        "ties": TIES,
        **about_ranks,
    }
    return facts, examples, table


def measurable(test: Cases, trained_V: Tensor) -> tuple[Cases, dict[str, int]]:
    """The test cases that a recommender could get right, and how many there are of which kind.

    cases: these; too_short: sessions of one event, which leave no history; unknown_targets: the target came up after the
    vocabulary; cold_targets: it is in the vocabulary, but has no training event; seen_targets: of `cases`, those whose
    history holds the target; catalogue: items that can be recommended, of so many in the vocabulary.
    """
    short_N = test.history.lengths <= 0
    unknown_N = ~short_N & (test.target < FIRST_ID)
    column_N = (test.target - FIRST_ID).clamp(0, max(len(trained_V) - 1, 0))
    cold_N = ~short_N & ~unknown_N & ~trained_V[column_N]
    cases = test.select(~short_N & ~unknown_N & ~cold_N)
    return cases, {
        "cases": len(cases.target),
        "too_short": int(short_N.sum()),
        "unknown_targets": int(unknown_N.sum()),
        "cold_targets": int(cold_N.sum()),
        "seen_targets": int(cases.seen().sum()),
        "catalogue": int(trained_V.sum()),
        "vocabulary": len(trained_V),
    }


def learned_from(model: Manifest, fold: Fold) -> bool:
    """Whether a model's training sessions hold what it is tested on.

    Not if it was trained on these very sessions with these hidden; else as `stages.learned` says.
    """
    own = SplitConfig.model_validate(model.parameters.get("split", {}))
    same = selection_of(fold.sessions, own) == selection_of(fold.sessions, fold.config)
    if model.parents == (fold.sessions.name,) and same and not model.facts.get("refit_of"):
        return False
    return bool(how_it_learned(model, fold.sessions, fold.test_day))


def fit_baseline(name: str, split: Split, schema: FeatureSchema, config: EvaluationConfig) -> Scorer:
    """The baseline of that name, fit on the sessions the model is fit on, its setting chosen on validation cases."""
    kind = plugins.find(baselines, name)
    return fit_best(kind, split, schema.num_items, cutoff=max(config.cutoffs), filter_seen=config.filter_seen)


def _rank_items(
    test: Test, cases: Cases
) -> tuple[dict[str, Values], list[dict[str, Any]], dict[str, dict[str, float]], RankTable, dict[str, Any]]:
    """Metrics of model and baselines; examples; the settings baselines chose; the ranks; and as facts what lists are like and
    the CPU seconds that fitting baselines took.
    """
    ranker, translated, items = test.ranker, test.for_model(cases), test.recommender.items
    table = RankTable(describe(cases, test.split, test.schema))
    lists = Lists(test.config, test.split, cases, test.recommender.scorer, ranker.rankable_V, items, native=test.native)
    metrics = {MODEL: _rank(MODEL, ranker, translated, test, table, lists)}
    about: dict[str, Any] = {"lists": lists.facts}
    if ranker.ruled is not None:
        without_N = replace(ranker, ruled=None).ranks(translated)
        table.without_rules[test.model.settings.body.name] = without_N.cpu().numpy()
        without = {name: defined(value) for name, value in metrics_at(without_N, test.config.cutoffs).items()}
        about["rules"] = ranker.about(translated) | {"without": without}
    settings: dict[str, dict[str, float]] = {}
    seconds: dict[str, float] = {}
    for name in test.config.baselines:
        began = time.process_time()
        baseline = fit_baseline(name, test.split, test.schema, test.config)
        seconds[name] = round(time.process_time() - began, 2)
        metrics[name] = _rank(name, test.ranker_of(baseline), cases, test, table, lists)
        if setting := getattr(baseline, "setting", None):
            settings[name] = dict(setting)
    about["baseline_seconds"] = seconds
    return metrics, show_examples(test.recommender, translated, test.config), settings, table, about


def _rank(name: str, ranker: Ranker, cases: Cases, test: Test, table: RankTable, lists: Lists) -> Values:
    cutoffs = test.config.cutoffs
    rank_N = ranker.ranks(cases)
    shown = test.model.settings.body.name if name == MODEL else name
    table.ranks[shown] = rank_N.cpu().numpy()
    lists.judge(shown, ranker, cases, rank_N)
    values = {metric: defined(value) for metric, value in metrics_at(rank_N, cutoffs).items()}
    if not len(rank_N):
        test.progress(f"{name}: no test session can be measured, so its metrics are undefined")
        return values
    k = max(cutoffs)
    ndcg, recall = values[f"ndcg@{k}"], values[f"recall@{k}"]
    test.progress(f"{name}: NDCG@{k} {ndcg:.4f}, recall@{k} {recall:.4f} on {len(rank_N):,} cases")
    return values


def _predict_labels(test: Test, column: LabelColumn) -> tuple[dict[str, Values], dict[str, Any]]:
    """The metrics of the model and of the mean on the cases of one label, and what to say about these."""
    head = test.model.label_heads[column.name]
    cases = test.for_model(test.split.test)
    histories, value_N = label_cases(cases, column, back=test.model.schema.split == "day")
    label_N, value_N = training_labels(test.split.train, column), value_N.cpu()
    about = {"cases": len(value_N), "per": column.per, "training_mean": defined(float(label_N.mean()))}
    predicted = {MODEL: predict(test.model, histories)[column.name], MEAN: label_N.mean().expand(len(value_N))}
    try:
        measured = {name: head.measure(predicted_N, value_N) for name, predicted_N in predicted.items()}
    except InputError as error:
        if test.native:
            raise
        test.progress(f"Warning: the model in service cannot be measured on {column.name}: {error}")
        return {}, about
    for name, values in measured.items():
        listed = ", ".join(f"{metric} {value:.4f}" for metric, value in values.items())
        test.progress(f"{name}: {column.name} {listed} on {len(value_N):,} cases")
    named = {
        name: {f"{column.name}/{metric}": defined(value) for metric, value in values.items()}
        for name, values in measured.items()
    }
    return named, about


def show_examples(recommender: Recommender, cases: Cases, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Some histories, what was recommended, what came next, and for each recommendation the events that it leans on most.

    In the raw ids of the item table. `because` has for each recommended item pairs of an event's item and of how much the score
    falls without it, most first; None for a history of one event. Events older than `EXPLAINED` are not left out one by one.
    """
    count = min(NUM_EXAMPLES, len(cases.target))
    if not count:
        return []
    chosen = cases.select(torch.arange(count) * len(cases.target) // count)
    k = max(config.cutoffs)
    reasons = recommender.because(
        chosen.history, k, filter_seen=config.filter_seen, events=NUM_REASONS, newest=EXPLAINED
    )
    recent = chosen.history.most_recent(NUM_RECENT)
    _, event = recent.event_index()
    raw = recommender.raw_items(torch.cat([recent.items[event].long(), chosen.target]))
    ends = recent.lengths.cumsum(0).tolist()
    histories = [raw[end - length : end] for end, length in zip(ends, recent.lengths.tolist(), strict=True)]
    return [
        {
            "history": history,
            "next": target,
            "recommended": [reason.item for reason in of_list],
            "because": [reason.events for reason in of_list],
        }
        for history, target, of_list in zip(histories, raw[-count:], reasons, strict=True)
    ]
