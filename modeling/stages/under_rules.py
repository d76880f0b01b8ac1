"""Ranks and lists of a model or a baseline: as the service answers, where `evaluation.rules` asks for it, or without rules.

A rule of single items (allow, deny, stock, catalogue, eligible, boost) changes which items are ranked and by what score, so
ranks stay exact over all that may be recommended. A rule of lists (most per group, new items, what was bought) has no score:
then the rank of a target is its place in the final list, and one that is not in it is a miss.

N cases, K items of a list.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from modeling.evaluation.ranking import Scorer, ranks, top_k
from modeling.service.rules import Ruled, Rules
from modeling.sessions import Sessions
from modeling.splits import Cases
from schemas.artifacts import Manifest
from schemas.columns import FIRST_ID

RULES, TABLE = "rules.json", "rules.parquet"
BY_SCORE, BY_LIST = "score", "list"


def keep_rules(rules: Rules, folder: Path) -> None:
    """Write the rules of an evaluation into its folder."""
    (folder / RULES).write_text(json.dumps(rules.about(), indent=2) + "\n")
    if rules.table is not None:
        rules.table.write_parquet(folder / TABLE)


def rules_kept(evaluation: Manifest) -> Rules | None:
    """The rules under which an evaluation was made, so that another model can be measured under the same; None of none."""
    if not evaluation.facts.get("rules"):
        return None
    about, table = json.loads((evaluation.folder / RULES).read_text()), evaluation.folder / TABLE
    return Rules.read(about, pl.read_parquet(table, glob=False) if table.is_file() else None)


@dataclass(frozen=True)
class Ranker:
    """A scorer with its rules, None without; `most` is the length of the longest list that is judged."""

    scorer: Scorer
    ruled: Ruled | None
    filter_seen: bool
    most: int

    @property
    def by_list(self) -> bool:
        """Whether a rank is a place in the final list."""
        return self.ruled is not None and self.ruled.rules.of_lists

    @property
    def rankable_V(self) -> Tensor:
        """Which items may be recommended, bool."""
        rankable_V: Tensor = self.scorer.rankable_V if self.ruled is None else self.ruled.scorer.rankable_V
        return rankable_V

    def lists(self, histories: Sessions, k: int) -> Tensor:
        """The encoded ids of the k best items of each history, best first, 0 where none is left, [N, K]."""
        if self.ruled is None:
            return top_k(self.scorer, histories, k, filter_seen=self.filter_seen)[0]
        return self.ruled.ranked(histories, k, filter_seen=self.filter_seen)[0]

    def ranks(self, cases: Cases) -> Tensor:
        """The rank of each target, float64 of shape [N], from 1; infinity where it is missed."""
        if self.ruled is None or not self.by_list:
            return ranks(self.ruled.scorer if self.ruled else self.scorer, cases, filter_seen=self.filter_seen)
        rank_N = torch.full(cases.target.shape, torch.inf, dtype=torch.float64, device=cases.target.device)
        if not len(rank_N):
            return rank_N
        hit_NK = self.lists(cases.history, self.most).to(rank_N.device) == cases.target.unsqueeze(1)
        hit_NK &= cases.target.unsqueeze(1) >= FIRST_ID
        row, place = hit_NK.nonzero(as_tuple=True)
        rank_N[row] = (place + 1).double()
        return rank_N

    def about(self, cases: Cases) -> dict[str, Any]:
        """The rules in short, how many items they let be recommended, how many targets they forbid, and what a rank is."""
        assert self.ruled is not None
        forbidden_N = self.ruled.forbidden(cases.history, cases.target - FIRST_ID)
        return {
            "digest": self.ruled.rules.about()["digest"],
            "written": dict(self.ruled.rules.written),
            "catalogue": int(self.rankable_V.sum()),
            "forbidden_targets": int(forbidden_N.sum()),
            "rank": BY_LIST if self.by_list else BY_SCORE,
        }
