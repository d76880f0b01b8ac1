"""Which items of a tile may belong to the best k: groups of items are looked into only where their maximum is high enough.

R histories, T items of a tile, G groups of a tile, S slots, P pairs of a history and a group, B groups or items that are kept.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

GROUP = 16  # items; those of a group stand T / 16 columns apart, so that maxima are taken side by side
SPARE = 16  # kept behind the k-th, for items that tie with it
SLACK = 2.0**-14  # of the limit: more than rounding, so that what ties with the k-th is kept
LEAST = torch.finfo(torch.float32).min


def best_of_tile(scores_RT: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best `count` scores of each row (or all) and their columns, in no order; what is read depends on shapes alone."""
    width = scores_RT.shape[1]
    num_groups = width // GROUP
    if scores_RT.device.type == "cpu" or width % GROUP or num_groups <= 2 * count:
        return scores_RT.topk(min(count, width), sorted=False)
    # An item that is not in the best `count` groups has `count` maxima of groups before it.
    group_RG = scores_RT.view(-1, GROUP, num_groups).amax(1).topk(count, sorted=False).indices
    column_RB = (group_RG.unsqueeze(1) + torch.arange(GROUP, device=group_RG.device)[:, None] * num_groups).flatten(1)
    best_RB, place_RB = scores_RT.gather(1, column_RB).topk(count, sorted=False)
    return best_RB, column_RB.gather(1, place_RB)


class Candidates:
    """Groups of items of R histories that may hold some of their best k, on a CPU.

    Every item is in one of S slots. The k-th best of the slots' maxima is no better than the k-th best item, and not much
    worse: it is the limit that a group's maximum must reach for the group to be kept. Rows are sorted by numpy, which takes
    a tenth of the time that torch takes for rows this short.
    """

    def __init__(self, rows: int, k: int, num_groups: int) -> None:
        self.k, self.kept, self.num_groups, self.room = k, k + SPARE, num_groups, 6 * k + 4 * SPARE
        self.slots_RS = torch.full((rows, -(-2 * k // num_groups) * num_groups), -torch.inf)
        self.most_RB = torch.full((rows, self.room), -torch.inf)  # of each group
        self.scores_RBG = torch.empty(rows, self.room, GROUP)
        self.columns_RB = torch.zeros(rows, self.room, dtype=torch.long)  # of each group's first item
        self.count_R = torch.zeros(rows, dtype=torch.long)
        self.begin_R = torch.arange(rows) * self.room
        self.limit_R1 = torch.full((rows, 1), LEAST)
        self.dropped_R = torch.full(
            (rows,), -torch.inf
        )  # the best maximum of a group that reached the limit and is not kept

    def add(self, groups_RGT: Tensor, most_RG: Tensor, first: int, tile: int) -> None:
        """Keep what may belong to the lists of a tile, the one of that number, which begins at item `first`.

        Scores as [R, 16, G], of which each group's are [:, :, g], and the maximum of each group.
        """
        bank = tile * self.num_groups % self.slots_RS.shape[1]
        slots_RG = self.slots_RS[:, bank : bank + self.num_groups]
        torch.maximum(slots_RG, most_RG, out=slots_RG)
        if tile < 16 or tile % (tile // 8) == 0:  # later the limit rises by little from one tile to the next
            self._raise_limit()
        place_P = (most_RG < self.limit_R1).logical_not_().view(-1).nonzero().view(-1)  # NaN is not lower
        if 4 * len(place_P) > 3 * most_RG.numel():
            self._add_best(groups_RGT, most_RG, first)
        elif len(place_P):
            self._add(groups_RGT, most_RG, first, place_P)

    def _raise_limit(self) -> None:
        limit_R1 = torch.from_numpy(np.sort(self.slots_RS.numpy(), axis=1))[:, -self.k, None]
        limit_R1 = (limit_R1 - limit_R1.abs() * SLACK).nan_to_num_(nan=LEAST, neginf=LEAST)
        torch.maximum(self.limit_R1, limit_R1, out=self.limit_R1)

    def _add(self, groups_RGT: Tensor, most_RG: Tensor, first: int, place_P: Tensor) -> None:
        row_P = place_P // self.num_groups
        num_R = torch.bincount(row_P, minlength=len(most_RG))
        count_R = self.count_R + num_R
        if int(count_R.max()) > self.room:
            self._add_best(groups_RGT, most_RG, first)
            return
        # Pairs are in order of rows, so a pair goes behind what its row holds by its number less that of the row's first.
        begin_R = self.begin_R + count_R - num_R.cumsum(0)
        to_P = begin_R.index_select(0, row_P) + torch.arange(len(row_P))
        group_P = place_P - row_P * self.num_groups
        self.most_RB.view(-1).index_copy_(0, to_P, most_RG.view(-1).index_select(0, place_P))
        self.columns_RB.view(-1).index_copy_(0, to_P, group_P + first)
        self.scores_RBG.view(-1, GROUP).index_copy_(0, to_P, groups_RGT[row_P, :, group_P])
        self.count_R = count_R

    def _add_best(self, groups_RGT: Tensor, most_RG: Tensor, first: int) -> None:
        """Append the best groups of the whole tile; the rest, of which many may tie, are dropped."""
        self._compact()
        size = min(self.kept, self.num_groups)
        most_RB, group_RB = most_RG.topk(size)
        if size < self.num_groups:
            self.dropped_R = torch.maximum(self.dropped_R, most_RB[:, -1])
        new = slice(self.kept, self.kept + size)
        self.most_RB[:, new], self.columns_RB[:, new] = most_RB, group_RB + first
        self.scores_RBG[:, new] = groups_RGT.gather(2, group_RB.unsqueeze(1).expand(-1, GROUP, -1)).transpose(1, 2)
        self.count_R = torch.full_like(self.count_R, self.kept + size)
        self._compact()

    def _compact(self) -> None:
        """Drop all but the best groups and some spare ones."""
        most_RB, place_RB = _best(self.most_RB, self.kept)
        dropped_R = torch.where(self.count_R > self.kept, most_RB.amin(1), -torch.inf)
        self.dropped_R = torch.maximum(self.dropped_R, dropped_R)
        row_R1, kept = torch.arange(len(place_RB)).unsqueeze(1), slice(0, self.kept)
        columns_RB, scores_RBG = self.columns_RB[row_R1, place_RB], self.scores_RBG[row_R1, place_RB]
        self.most_RB.fill_(-torch.inf)
        self.most_RB[:, kept], self.columns_RB[:, kept], self.scores_RBG[:, kept] = most_RB, columns_RB, scores_RBG
        self.count_R.clamp_(max=self.kept)

    def best(self) -> tuple[Tensor, Tensor, Tensor]:
        """The best k items and a few more, best first, their columns, and the score above which none is missing."""
        self._raise_limit()
        self._compact()
        first_RB = self.columns_RB[:, : self.kept]
        scores_RBG = self.scores_RBG[:, : self.kept]
        scores_RBG = scores_RBG.where(self.most_RB[:, : self.kept, None] != -torch.inf, -torch.inf)
        scores_RB, place_RB = _best(scores_RBG.flatten(1), self.kept)
        scores_RB, order_RB = scores_RB.sort(1, descending=True)
        place_RB = place_RB.gather(1, order_RB)
        columns_RB = first_RB.gather(1, place_RB // GROUP) + place_RB % GROUP * self.num_groups
        least_R = torch.maximum(torch.maximum(self.limit_R1.squeeze(1), self.dropped_R), scores_RB[:, -1])
        return scores_RB, columns_RB, least_R


def _best(values_RB: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best values of each row in no order, NaN first, and their places."""
    place_RB = torch.from_numpy(np.argpartition(values_RB.numpy(), -count, axis=1)[:, -count:].copy())
    return values_RB.gather(1, place_RB), place_RB
