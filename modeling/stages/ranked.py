"""What an evaluation says of ranked items beyond metrics: percentiles, intervals, slices, and what lists are like."""

from __future__ import annotations

from typing import Any

import polars as pl
import torch
from torch import Tensor

from modeling.config import EvaluationConfig
from modeling.evaluation.list_metrics import Alike, Catalogue, list_metrics, serendipity
from modeling.evaluation.metrics import defined, rank_percentiles
from modeling.evaluation.rank_table import RankTable
from modeling.evaluation.slices import intervals, slices
from modeling.scoring import ModelScorer
from modeling.splits import Cases, Split, trained_items
from modeling.stages.under_rules import Ranker
from schemas.columns import FIRST_ID, ID
from schemas.errors import InputError, unknown


def facts_of_ranks(table: RankTable, cutoffs: tuple[int, ...]) -> dict[str, Any]:
    """`ranks` (percentiles by scorer; None: a miss, or no case), `intervals` and `slices`, as those functions describe."""
    percentiles = {name: rank_percentiles(torch.from_numpy(rank_N)) for name, rank_N in table.ranks.items()}
    return {
        "ranks": {name: {key: defined(value) for key, value in of.items()} for name, of in percentiles.items()},
        "intervals": intervals(table, cutoffs),
        "slices": slices(table, max(cutoffs)),
    }


class Lists:
    """The lists that each scorer makes for some of the cases; `facts` say how many, how items are alike, and the metrics.

    A model with another vocabulary makes none: its items are numbered otherwise than what was counted.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        split: Split,
        cases: Cases,
        scorer: ModelScorer,
        rankable_V: Tensor,
        items: pl.DataFrame,
        *,
        native: bool,
    ) -> None:
        count = min(config.lists, len(cases.target)) if native else 0
        self.config, self.cases = config, cases
        self.facts: dict[str, Any] = {"count": count, "diversity": config.diversity or "item vectors", "metrics": {}}
        if count:
            trained_V = trained_items(split.train, scorer.num_items)
            self.catalogue = Catalogue.of(split.train, trained_V & rankable_V.cpu())
            self.alike = _alike(config, scorer, items)
            self.chosen = torch.arange(count) * len(cases.target) // count
            column_N = cases.target - FIRST_ID
            self.popular_N = self.catalogue.popularity_rank()[column_N]

    def judge(self, name: str, ranker: Ranker, cases: Cases, rank_N: Tensor) -> None:
        """Measure the lists of one scorer: for some of `cases`, on its device; serendipity is that of all ranks."""
        if not self.facts["count"]:
            return
        cutoffs = self.config.cutoffs
        histories = cases.history.select(self.chosen.to(cases.history.starts.device))
        measured = list_metrics(ranker.lists, histories, cutoffs, self.catalogue, self.alike)
        measured |= serendipity(rank_N.cpu(), self.popular_N, self.catalogue.size, cutoffs)
        self.facts["metrics"][name] = {metric: defined(value) for metric, value in measured.items()}


def _alike(config: EvaluationConfig, scorer: ModelScorer, items: pl.DataFrame) -> Alike:
    """What makes items differ: the model's vectors, or a feature of the item table.

    Raises:
        InputError: when no item has that feature, or it is a list.
    """
    if config.diversity is None:
        return Alike.by_vectors(scorer.items_VE)
    features = [name for name in items.columns if name not in (ID, "value", "count", "last_seen")]
    if config.diversity not in features:
        raise unknown("evaluation.diversity", config.diversity, features)
    column = items[config.diversity]
    if column.dtype.is_nested():
        raise InputError(
            f"evaluation.diversity: {config.diversity!r} is a list; name a feature with one value an item."
        )
    codes_V = torch.zeros(scorer.num_items, dtype=torch.long)
    place = torch.from_numpy(items[ID].to_numpy(writable=True)).long() - FIRST_ID
    codes_V[place] = torch.from_numpy(column.rank("dense").fill_null(0).cast(pl.Int64).to_numpy(writable=True))
    return Alike(codes_V=codes_V)
