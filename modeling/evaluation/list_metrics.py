"""What lists of recommendations are like beyond their hits. Names and formulas are those of RecTools 0.19, but where said.

N lists, K their length, V items of the catalogue, E width of item vectors. A list that holds fewer than k items counts with
those that it has. Popularity is counted in training: events of an item, and sessions that hold it, which stand for RecTools'
users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.sessions import Sessions
from schemas.columns import FIRST_ID

NAMES = (
    "catalog_coverage",
    "gini_index",
    "avg_rec_popularity",
    "mean_inv_user_freq",
    "intra_list_diversity",
    "repeats",
)
MOST_VALUES = 2**22  # of the item vectors of all lists looked at together
MOST_LISTS = 4096
MOST_SESSIONS = 2**17  # whose items are counted at a time


@dataclass(frozen=True)
class Catalogue:
    """What is known of V items in training."""

    rankable_V: Tensor  # bool
    events_V: Tensor  # int64
    sessions_V: Tensor  # int64: training sessions that hold the item
    num_sessions: int

    @classmethod
    def of(cls, train: Sessions, rankable_V: Tensor) -> Catalogue:
        """Counted from training sessions."""
        num_items = len(rankable_V)
        sessions_V = torch.zeros(num_items, dtype=torch.int64)
        for part in torch.arange(len(train)).split(MOST_SESSIONS):
            session, event = train.select(part).event_index()
            column = train.items[event].long() - FIRST_ID
            known = (column >= 0) & (column < num_items)
            pairs = (session[known] * num_items + column[known]).unique()
            sessions_V += torch.bincount(pairs % max(num_items, 1), minlength=num_items)
        return cls(rankable_V, train.item_counts(num_items), sessions_V, int((train.lengths > 0).sum()))

    @property
    def size(self) -> int:
        """Items that can be recommended."""
        return int(self.rankable_V.sum())

    def popularity_rank(self) -> Tensor:
        """The place of each item among the most popular, from 1; items seen equally often share one. int64 of shape [V]."""
        _, place_V = (-self.events_V).unique(return_inverse=True)
        return place_V + 1


@dataclass(frozen=True)
class Alike:
    """What makes two items differ: vectors [V, E] of length 1, or codes [V] that are the same or not."""

    vectors_VE: Tensor | None = None
    codes_V: Tensor | None = None

    @classmethod
    def by_vectors(cls, items_VE: Tensor) -> Alike:
        """By the angle between item vectors."""
        return cls(vectors_VE=F.normalize(items_VE.detach().float().cpu(), dim=1))

    @property
    def width(self) -> int:
        """Values of an item."""
        return 1 if self.vectors_VE is None else self.vectors_VE.shape[1]

    def distance(self, column_NK: Tensor, filled_NK: Tensor) -> Tensor:
        """The mean distance of two items of a list, [N]: 1 - cosine, or the share of pairs that differ; 0 of fewer than two."""
        if self.vectors_VE is not None:
            vectors_NKE = self.vectors_VE[column_NK] * filled_NK.unsqueeze(2)
            # The sum of all products of pairs is the square of the sum.
            alike_N = vectors_NKE.sum(1).square().sum(1) - vectors_NKE.square().sum((1, 2))
        else:
            assert self.codes_V is not None
            code_NK = self.codes_V[column_NK]
            same_NKK = (code_NK.unsqueeze(2) == code_NK.unsqueeze(1)) & filled_NK.unsqueeze(2) & filled_NK.unsqueeze(1)
            alike_N = same_NKK.sum((1, 2)).float() - filled_NK.sum(1)
        count_N = filled_NK.sum(1)
        pairs_N = (count_N * (count_N - 1)).float()
        return torch.where(pairs_N > 0, 1 - alike_N / pairs_N.clamp(min=1), 0.0)


@torch.no_grad()
def list_metrics(
    lists: Callable[[Sessions, int], Tensor],
    histories: Sessions,
    cutoffs: tuple[int, ...],
    catalogue: Catalogue,
    alike: Alike,
) -> dict[str, float]:
    """Metrics of the lists of some histories, at each cut-off, named as in `gini_index@20`; NaN of none.

    `lists` makes them: histories and k -> the encoded ids of the k best items, [N, K], 0 where none is left.

    catalog_coverage: distinct items of all lists / items that can be recommended (CatalogCoverage, normalised).
    gini_index: sum_i (2 i - C - 1) n_i / (C sum_i n_i), n_i how often an item is recommended, the rarest of C first: 0 where
        all items are recommended equally often, near 1 where few are (RecBole's GiniIndex).
    avg_rec_popularity: mean over lists of the mean number of training events of their items (AvgRecPopularity).
    mean_inv_user_freq: mean over lists of the mean of -log2(sessions that hold the item / sessions), in bits: the item's
        self-information, which is called novelty (MeanInvUserFreq; Zhou et al., doi.org/10.1073/pnas.1000488107).
    intra_list_diversity: mean over lists of the mean distance of two of their items, see `Alike` (IntraListDiversity).
    repeats: share of the recommended items that the history holds (1 - RePlay's Novelty).
    """
    if not len(histories):
        return {f"{name}@{cutoff}": float("nan") for cutoff in cutoffs for name in NAMES}
    num_items = len(catalogue.rankable_V)
    k = min(max(cutoffs), num_items)
    rows = max(1, min(MOST_LISTS, MOST_VALUES // (k * max(alike.width, k if alike.codes_V is not None else 1))))
    sums = {f"{name}@{cutoff}": 0.0 for cutoff in cutoffs for name in NAMES[2:]}
    counts = {cutoff: torch.zeros(num_items, dtype=torch.int64) for cutoff in cutoffs}
    surprise_V = -(catalogue.sessions_V.clamp(min=1) / max(catalogue.num_sessions, 1)).log2()
    for part in torch.arange(len(histories)).split(rows):
        chosen = histories.select(part.to(histories.starts.device))
        id_NK = lists(chosen, k).cpu()
        seen_NK = _seen(chosen.to("cpu"), id_NK)
        column_NK, filled_NK = (id_NK - FIRST_ID).clamp(min=0), id_NK >= FIRST_ID
        for cutoff in cutoffs:
            column, filled = column_NK[:, :cutoff], filled_NK[:, :cutoff]
            count_N = filled.sum(1).clamp(min=1)
            counts[cutoff] += torch.bincount(column[filled], minlength=num_items)
            by_item = (catalogue.events_V[column].double(), surprise_V[column].double(), seen_NK[:, :cutoff].double())
            names = ("avg_rec_popularity", "mean_inv_user_freq", "repeats")
            for name, value_NK in zip(names, by_item, strict=True):
                sums[f"{name}@{cutoff}"] += float(((value_NK * filled).sum(1) / count_N).sum())
            sums[f"intra_list_diversity@{cutoff}"] += float(alike.distance(column, filled).double().sum())
    metrics: dict[str, float] = {}
    for cutoff in cutoffs:
        count_C = counts[cutoff][catalogue.rankable_V]
        metrics[f"catalog_coverage@{cutoff}"] = float((count_C > 0).sum()) / max(catalogue.size, 1)
        metrics[f"gini_index@{cutoff}"] = gini_index(count_C)
        metrics |= {f"{name}@{cutoff}": sums[f"{name}@{cutoff}"] / len(histories) for name in NAMES[2:]}
    return metrics


def gini_index(count_C: Tensor) -> float:
    """How unevenly items are recommended, of how often each is: see `list_metrics`; NaN where none is."""
    sorted_C, size = count_C.double().sort().values, len(count_C)
    place_C = torch.arange(1, size + 1, dtype=torch.double)
    total = float(sorted_C.sum())
    return float(((2 * place_C - size - 1) * sorted_C).sum()) / (size * total) if total else float("nan")


def serendipity(rank_N: Tensor, popularity_rank_N: Tensor, size: int, cutoffs: tuple[int, ...]) -> dict[str, float]:
    """Hits that popularity would not have made, from ranks: mean of [r <= k] max(p - r, 0) / (C k), named `serendipity@20`.

    r is the rank of the target, p its place among the most popular items, C the size of the catalogue. RecTools' Serendipity
    with one relevant item: p(r) - pu(r) there is (p - r) / C.
    """
    ahead_N = (popularity_rank_N - rank_N.double()).clamp(min=0) / max(size, 1)
    return {f"serendipity@{k}": float(((rank_N <= k) * ahead_N).mean() / k) for k in cutoffs}


def _seen(histories: Sessions, id_NK: Tensor) -> Tensor:
    """Which recommended items the history holds, bool of shape [N, K]."""
    session, event = histories.event_index()
    most = int(max(id_NK.max(), histories.items[event].max() if len(event) else 0)) + 1 if id_NK.numel() else 1
    row_N1 = torch.arange(len(id_NK)).unsqueeze(1)
    return torch.isin(row_N1 * most + id_NK, session * most + histories.items[event].long()) & (id_NK >= FIRST_ID)
