"""Scorers whose scores are given."""

from __future__ import annotations

import torch

from modeling.scoring import VectorScorer
from modeling.sessions import Sessions
from modeling.splits import Cases
from tests.conftest import sessions_of


class Table:
    """A scorer that reads the scores of the n-th of `sessions_of` from row n."""

    chunk = 2

    def __init__(self, scores_NV: torch.Tensor, rankable: list[bool] | None = None) -> None:
        self.scores_NV, self.num_items = scores_NV, scores_NV.shape[1]
        self.rankable_V = torch.tensor(rankable or [True] * self.num_items)

    def queries(self, histories: Sessions) -> torch.Tensor:
        return self.scores_NV[histories.end // 1_000_000]

    def tile(self, queries: torch.Tensor, first: int, last: int, out: torch.Tensor | None = None) -> torch.Tensor:
        return queries[:, first:last].clone() if out is None else out.copy_(queries[:, first:last])

    def scores(self, queries: torch.Tensor, column_NK: torch.Tensor) -> torch.Tensor:
        return queries.gather(1, column_NK)

    def relative(self, queries: torch.Tensor, score_N1: torch.Tensor, rounding_N1: torch.Tensor) -> None:
        """None: scores are compared as they are."""

    def rounding(self, queries: torch.Tensor, column_NK: torch.Tensor) -> torch.Tensor:
        return torch.full(column_NK.shape, 1e-6)


def cases_of(histories: list[list[int]], targets: list[int]) -> Cases:
    return Cases(sessions_of(histories), torch.tensor(targets))


class Vectors(VectorScorer):
    """Scores of the n-th of `sessions_of` by query n."""

    def __init__(self, queries_NE: torch.Tensor, items_VE: torch.Tensor) -> None:
        super().__init__(items_VE, None, torch.ones(len(items_VE), dtype=torch.bool))
        self.queries_NE = queries_NE

    def queries(self, histories: Sessions) -> torch.Tensor:
        return self.queries_NE[histories.end // 1_000_000]
