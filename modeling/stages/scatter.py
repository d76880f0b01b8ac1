"""How much a metric differs between trainings that differ in their seed alone, measured anew every so many days.

    night of 1 March   no measurement yet: the candidate's recipe is trained with two more seeds, ranked on the same cases
    2 to 7 March       what was measured on 1 March widens the bounds of promotion
    8 March            measured again; from then on both are used, pooled

Each measurement is a folder `scatters/<id>` whose manifest names the day and the models. A past night that is run again uses
what had been measured by its day.

What a pair of seeds shows on N cases has two parts: what another N cases would show again, and what falls on these cases by
chance. The second is in the bounds of promotion already (users are drawn again), so it is taken off here:

    s^2 = mean over pairs of (gain^2 - variance of the gain by the choice of users) / 2

It may come out below zero; a mean over measurements is taken first, and what is below zero then is zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from typing import TYPE_CHECKING

from modeling.config import EvaluationConfig, Goal, ModelConfig, PromotionConfig, TrainingConfig
from modeling.evaluation.pointer import champion_of
from modeling.stages.comparing import METRIC_OF_RANKS
from modeling.stages.evaluating import evaluate
from modeling.stages.identity import code_of_comparison
from modeling.stages.training import train
from schemas.artifacts import Artifacts, Manifest, identify
from schemas.errors import InputError
from schemas.progress import Progress as Numbers

if TYPE_CHECKING:
    import polars as pl

SCATTERS, RESULT = "scatters", "scatter.json"
ONE_SIGMA = 0.8413  # the confidence at which a bound is one standard deviation away
POOLED = 8  # measurements: with two more seeds each, they know the scatter to about a fifth
Say = Callable[[Numbers | str], object]


@dataclass(frozen=True)
class Recipe:
    """What is trained with other seeds, and how it is measured."""

    model: ModelConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    promotion: PromotionConfig


def with_scatter(
    artifacts: Artifacts, dataset: str, sessions: Manifest, evaluation: Manifest, recipe: Recipe, say: Say = print
) -> PromotionConfig:
    """The settings of promotion with the scatter between seeds as it was measured, tonight if that is due.

    As they are where nobody asked for measurements (`promotion.seed_scatter_every`), a scatter is given, nothing is in
    service to compare with, or the metric is one of labels, which are compared as they are.
    """
    promotion = recipe.promotion
    if not promotion.seed_scatter_every:
        return promotion
    if promotion.seed_scatter:
        say(
            f"Not used: promotion.seed_scatter_every {promotion.seed_scatter_every}, as promotion.seed_scatter "
            f"{promotion.seed_scatter:g} is given."
        )
        return promotion
    if not METRIC_OF_RANKS.match(promotion.metric):
        say(f"Not used: promotion.seed_scatter_every; {promotion.metric} is compared as it is, without bounds.")
        return promotion
    if not _in_service(artifacts, dataset):
        return promotion
    night = _night(evaluation)
    before = [made for made in _measured(artifacts, dataset, promotion.metric) if _day(made) <= night]
    if not before or (night - _day(before[-1])).days >= promotion.seed_scatter_every:
        before.append(_measure(artifacts, dataset, sessions, evaluation, recipe, say))
    scatter = pooled([made.facts for made in before])
    say(
        f"Scatter between seeds: {scatter:.2%} of {promotion.metric}, measured on "
        f"{', '.join(made.facts['day'] for made in before[-POOLED:])}."
    )
    return promotion.model_copy(update={"seed_scatter": scatter})


def pooled(measurements: Sequence[dict[str, float]]) -> float:
    """The scatter that the newest measurements show together, each with the weight of its seeds.

    `pooled([{"variance": 0.0003, "seeds": 3}, {"variance": -0.0001, "seeds": 3}])` -> 0.01
    """
    newest = measurements[-POOLED:]
    weights = [made["seeds"] - 1 for made in newest]
    mean = sum(weight * made["variance"] for weight, made in zip(weights, newest, strict=True)) / sum(weights)
    return math.sqrt(max(mean, 0.0))


def variance_of(ranks: Sequence[pl.DataFrame], metric: str) -> float:
    """The relative variance of a metric between trainings, from their ranks (`case`, `user`, `rank`) of the same cases.

    Raises:
        InputError: when these are not ranks of the same cases.
    """
    from modeling.evaluation.evidence import Pairs  # torch is only loaded when there is something to measure

    variances = []
    for new, old in combinations(ranks, 2):
        difference = Pairs.of(new, old).difference(metric, ONE_SIGMA)
        spread = (difference.below + difference.above) / 2
        variances.append((difference.gain**2 - spread**2) / 2)
    return sum(variances) / len(variances)


def _measure(
    artifacts: Artifacts, dataset: str, sessions: Manifest, evaluation: Manifest, recipe: Recipe, say: Say
) -> Manifest:
    """Train the candidate's recipe with more seeds, rank the same cases -> `scatters/<id>`."""
    training, promotion = recipe.training, recipe.promotion
    seeds = [(training.seed + more) % 2**32 for more in range(1, promotion.seed_scatter_seeds + 1)]
    many = "s" * (len(seeds) > 1)
    say(
        f"The scatter between seeds is measured: {len(seeds)} more training{many}, of seed{many} "
        f"{', '.join(map(str, seeds))}."
    )
    from modeling.stages.under_rules import rules_kept

    alone = recipe.evaluation.model_copy(update={"baselines": (), "lists": 0})
    goal = Goal(metric=promotion.metric, filter_seen=recipe.evaluation.filter_seen)
    rules = rules_kept(evaluation)
    measured = [evaluation]
    for seed in seeds:
        again = training.model_copy(update={"seed": seed})
        model = train(artifacts, sessions, recipe.model, again, say, recipe.evaluation.split, goal)
        measured.append(evaluate(artifacts, model, sessions, alone, say, rules))
    parents = tuple(made.name for made in measured)
    artifact_id = identify(code=code_of_comparison(None), parents=parents, metric=promotion.metric, dataset=dataset)
    if existing := artifacts.find(SCATTERS, artifact_id):
        return existing
    from modeling.evaluation.rank_table import read_ranks

    ranks = [read_ranks(made.folder, made.facts["model"]) for made in measured]
    facts = {
        "dataset": dataset,
        "day": str(_night(evaluation)),
        "metric": promotion.metric,
        "seeds": len(measured),
        "values": [made.facts["metrics"][made.facts["model"]][promotion.metric] for made in measured],
        "variance": variance_of(ranks, promotion.metric),
    }
    with artifacts.write(SCATTERS, artifact_id, parents=parents, parameters=promotion.model_dump()) as draft:
        draft.facts = facts
        (draft.folder / RESULT).write_text(json.dumps(facts, indent=2) + "\n")
    return draft.manifest


def _measured(artifacts: Artifacts, dataset: str, metric: str) -> list[Manifest]:
    """What was measured for a dataset and a metric, the oldest day first."""
    folders = sorted(path.parent.name for path in (artifacts.root / SCATTERS).glob("*/manifest.json"))
    all_made = [made for name in folders if (made := artifacts.read_manifest(SCATTERS, name))]
    of_metric = [made for made in all_made if (made.facts["dataset"], made.facts["metric"]) == (dataset, metric)]
    return sorted(of_metric, key=lambda made: (made.facts["day"], made.created))


def _night(evaluation: Manifest) -> date:
    """The first day tested on; of histories, whose test has none, the day of the evaluation."""
    tested = evaluation.facts["split"]["test"]
    return date.fromisoformat(tested[0]) if tested else evaluation.created.date()


def _day(measurement: Manifest) -> date:
    return date.fromisoformat(measurement.facts["day"])


def _in_service(artifacts: Artifacts, dataset: str) -> bool:
    try:
        return champion_of(artifacts, dataset) is not None
    except InputError:  # a pointer that cannot be read; `compare` says so
        return False
