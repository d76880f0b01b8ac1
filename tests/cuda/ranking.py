"""Ranks and lists on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from modeling.evaluation import fused
from modeling.evaluation.ranking import ranks, top_k
from modeling.scoring import VectorScorer
from modeling.sessions import Sessions
from modeling.splits import Cases
from schemas.columns import FIRST_ID, ITEM_ID


class Given(VectorScorer):
    """Random queries and items of a device."""

    def __init__(self, queries_NE: torch.Tensor, items_VE: torch.Tensor, rankable_V: torch.Tensor) -> None:
        super().__init__(items_VE, None, rankable_V)
        self.queries_NE = queries_NE

    def queries(self, histories: Sessions) -> torch.Tensor:
        """By the sessions' numbers."""
        return self.queries_NE[histories.end]


def ranks_and_lists(folder: Path) -> Any:
    """Kernels, torch's own operations on the GPU and the CPU rank alike, with ties, seen items and items never to rank."""
    generator = torch.Generator().manual_seed(0)
    about: dict[str, Any] = {"kernels": fused.takes(torch.device("cuda"))}
    assert about["kernels"], "Triton cannot be used"
    for num_items, num_histories, k in ((40, 50, 60), (5000, 300, 20), (70_000, 200, 100), (1_200_000, 64, 20)):
        items_VE = torch.randn(num_items, 16, generator=generator)
        items_VE[::7] = items_VE[0]  # many tie
        queries_NE = torch.randn(num_histories, 16, generator=generator)
        rankable_V = torch.rand(num_items, generator=generator) > 0.1
        seen = torch.randint(
            FIRST_ID, num_items + FIRST_ID, (num_histories * 20,), generator=generator, dtype=torch.int32
        )
        number = torch.arange(num_histories)
        history = Sessions({ITEM_ID: seen}, number * 20, torch.full_like(number, 20), number)
        cases = Cases(history, torch.randint(FIRST_ID, num_items + FIRST_ID, (num_histories,), generator=generator))
        answers = {}
        for where in ("cpu", "cuda", "kernels"):
            device = "cpu" if where == "cpu" else "cuda"
            plain, fused.takes = fused.takes, fused.takes if where == "kernels" else lambda device: False
            try:
                scorer = Given(*(some.to(device) for some in (queries_NE, items_VE, rankable_V)))
                rank_N = ranks(scorer, cases.to(device), filter_seen=True).cpu()
                ids_NK, scores_NK = (of.cpu() for of in top_k(scorer, history.to(device), k, filter_seen=True))
            finally:
                fused.takes = plain
            answers[where] = rank_N, ids_NK, scores_NK
        for where in ("cuda", "kernels"):
            (rank_N, ids_NK, _), (other_N, other_NK, _) = answers["cpu"], answers[where]
            # Products are rounded differently: of a million scores some lie nearer to the target's than that.
            same = [((rank_N - other_N).abs() <= num_items / 100_000), ids_NK == other_NK]
            shares = [float(these.double().mean()) for these in same]
            about[f"{num_items} {where}"] = [round(share, 5) for share in shares]
            assert min(shares) > 0.999, (num_items, where, shares)
    return about
