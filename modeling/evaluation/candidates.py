"""Which items of a tile may belong to the best k: groups of items are looked into only where their maximum is high enough.

R histories, T items of a tile, G groups of a tile, P pairs of a history and an item, K items of a list, B items that are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modeling.evaluation.scorer import Scorer

GROUP = 21  # items; those of a group stand T / 21 columns apart, so that maxima are taken side by side
SPARE = 16  # items kept behind the k-th, for those that tie with it
LEAST = torch.finfo(torch.float32).min


def best_of_tile(scores_RT: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best `count` scores of each row (or all) and their columns, in no order; what is read depends on shapes alone."""
    width = scores_RT.shape[1]
    num_groups = width // GROUP
    if scores_RT.device.type == "cpu" or width % GROUP or num_groups <= 2 * count:
        return scores_RT.topk(min(count, width), sorted=False)
    # An item that is not in the best `count` groups has `count` maxima of groups before it.
    groups_RGT = scores_RT.view(-1, GROUP, num_groups)
    group_RG = groups_RGT.amax(1).topk(count, sorted=False).indices
    column_RB = (group_RG.unsqueeze(1) + torch.arange(GROUP, device=group_RG.device)[:, None] * num_groups).flatten(1)
    best_RB, place_RB = scores_RT.gather(1, column_RB).topk(count, sorted=False)
    return best_RB, column_RB.gather(1, place_RB)


class Candidates:
    """Items of R histories that may belong to their best k, on a CPU; what can no longer belong to them is dropped."""

    def __init__(self, scorer: Scorer, queries: Tensor, k: int) -> None:
        self.scorer, self.queries, self.k, self.kept = scorer, queries, k, k + SPARE
        rows, room = len(queries), 4 * k + 4 * SPARE
        self.scores_RB = queries.new_full((rows, room), -torch.inf)
        self.columns_RB = torch.zeros(rows, room, dtype=torch.long)
        self.count_R = torch.zeros(rows, dtype=torch.long)
        self.limit_R1 = queries.new_full((rows, 1), LEAST)  # lower scores are not kept
        self.dropped_R = queries.new_full((rows,), -torch.inf)  # the best score that was dropped all the same

    def add(self, scores_RT: Tensor, first: int) -> None:
        """Keep what may belong to the lists of a tile that begins at item `first`."""
        width = scores_RT.shape[1]
        num_groups = width // GROUP
        if width % GROUP or not scores_RT.is_contiguous():
            self._add_best(scores_RT, first)
            return
        groups_RGT = scores_RT.view(-1, GROUP, num_groups)
        most_RG = groups_RGT.amax(1)
        if first == 0 and 3 * self.k < 2 * num_groups:
            self.limit_R1 = most_RG.topk(self.k).values[:, -1:].clamp_(min=LEAST)
        row_P, group_P = (most_RG < self.limit_R1).logical_not_().nonzero(as_tuple=True)  # NaN is not lower
        if len(row_P) * 4 > most_RG.numel():
            self._add_best(scores_RT, first)
            return
        score_PG = groups_RGT[row_P, :, group_P]
        p, place = (score_PG < self.limit_R1[row_P]).logical_not_().nonzero(as_tuple=True)
        self._keep(row_P[p], first + place * num_groups + group_P[p], score_PG[p, place], scores_RT, first)

    def _keep(self, row_P: Tensor, column_P: Tensor, score_P: Tensor, scores_RT: Tensor, first: int) -> None:
        """Append pairs, which are in order of their rows."""
        if not len(row_P):
            return
        num_R = torch.bincount(row_P, minlength=len(self.count_R))
        if int((self.count_R + num_R).max()) > self.scores_RB.shape[1]:
            self.compact()
            if int((self.count_R + num_R).max()) > self.scores_RB.shape[1]:
                self._add_best(scores_RT, first)
                return
        begin_R = self.count_R - (num_R.cumsum(0) - num_R)
        place_P = begin_R[row_P] + torch.arange(len(row_P))
        self.scores_RB[row_P, place_P] = score_P
        self.columns_RB[row_P, place_P] = column_P
        self.count_R += num_R

    def _add_best(self, scores_RT: Tensor, first: int) -> None:
        """Append the best of the whole tile; others, of which there may be many that tie, are dropped."""
        best_RB, column_RB = scores_RT.topk(min(self.kept, scores_RT.shape[1]))
        self.compact()
        size = best_RB.shape[1]
        if size < scores_RT.shape[1]:
            self.dropped_R = torch.maximum(self.dropped_R, best_RB[:, -1])
        self.scores_RB[:, self.kept : self.kept + size] = best_RB
        self.columns_RB[:, self.kept : self.kept + size] = column_RB + first
        self.count_R.fill_(self.kept + size)
        self.compact()

    def compact(self) -> None:
        """Drop all but the best k and a few spare ones; the limit rises to the k-th best, less what may tie with it."""
        best_RB, place_RB = self.scores_RB.topk(self.kept)
        columns_RB = self.columns_RB.gather(1, place_RB)
        full_R = self.count_R > self.kept
        self.dropped_R = torch.where(full_R, torch.maximum(self.dropped_R, best_RB[:, -1]), self.dropped_R)
        self.scores_RB.fill_(-torch.inf)
        self.scores_RB[:, : self.kept], self.columns_RB[:, : self.kept] = best_RB, columns_RB
        self.count_R = (best_RB != -torch.inf).sum(1)
        border_R1 = best_RB[:, self.k - 1 : self.k]
        slack_R1 = 2 * self.scorer.rounding(self.queries, columns_RB[:, self.k - 1 : self.k])
        self.limit_R1 = torch.maximum(self.limit_R1, torch.where(border_R1 > -torch.inf, border_R1 - slack_R1, LEAST))

    def best(self) -> tuple[Tensor, Tensor, Tensor]:
        """The best k and a few more, best first, their columns, and the score above which none is missing."""
        self.compact()
        least_R = torch.maximum(self.limit_R1.squeeze(1), self.dropped_R)
        return self.scores_RB[:, : self.kept], self.columns_RB[:, : self.kept], least_R
