"""Which items of a tile may belong to the best k: groups of items are looked into only where their maximum is high enough.

N histories of a chunk, R of them taken at a time, T items of a tile, W tiles whose scores are held, G groups of a tile,
S slots, P pairs of a history and a group or an item, B items that are kept of a history.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

GROUP = 16  # items; those of a group stand T / 16 columns apart, so that maxima are taken side by side
SPARE = 16  # kept behind the k-th, for items that tie with it
SLACK = 2.0**-14  # of the limit: more than rounding, so that what ties with the k-th is kept
LEAST = torch.finfo(torch.float32).min
SLOTS = 4  # times k: fewer make the limit lower, so that more groups are opened; more take time to be sorted
HELD = 2**23  # scores, 32 MB: the more tiles are held, the fewer groups are opened before the limit is high
MOST_OPENED = 3  # times what is kept: groups of a history opened at a time, on average; more are a sign of many ties
SCARCE = 8  # of so many groups one is opened at most, on average, where they are opened tile by tile


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


class Room:
    """Where the scores of W tiles and the maxima of their groups lie until groups are opened; one for all chunks."""

    def __init__(self, rows: int, width: int, num_tiles: int) -> None:
        num_tiles = max(1, min(HELD // (rows * width), num_tiles))
        # Memory of numpy is in huge pages where the system lets it: half the time for the first pass over it.
        self.scores_WNT = torch.from_numpy(np.empty((num_tiles, rows, width), np.float32))
        self.most_WNG = torch.empty(num_tiles, rows, width // GROUP)


class Candidates:
    """Items of N histories that may belong to their best k, on a CPU.

    Every item is in one of S slots. The k-th best of the slots' maxima is no better than the k-th best item, and not much
    worse: it is the limit that a group's maximum, and then an item, must reach to be kept. Groups of the first tiles are opened
    when the room is full, by the limit of that moment. Those of later tiles, of which few reach it, are opened `at_once`, while
    the tile's scores are in the second cache: then only maxima lie in the room until it is full and the limit is raised. Rows
    are sorted and flags listed by numpy, in a tenth to a third of torch's time.
    """

    def __init__(self, room: Room, rows: int, k: int) -> None:
        self.scores_WNT, self.most_WNG = room.scores_WNT[:, :rows], room.most_WNG[:, :rows]
        if rows < room.scores_WNT.shape[1]:  # tiles of fewer rows lie behind each other, too
            self.scores_WNT, self.most_WNG = (_front(of, rows) for of in (room.scores_WNT, room.most_WNG))
        self.k, self.kept, self.num_rows, self.num_groups = k, k + SPARE, rows, room.most_WNG.shape[2]
        self.num_banks = -(-SLOTS * k // self.num_groups)
        self.slots_NS = torch.full((rows, self.num_banks * self.num_groups), -torch.inf)
        self.limit_N = np.full(rows, LEAST, np.float32)
        # The best item, or group, that reached the limit and is not kept.
        self.dropped_N = np.full(rows, -np.inf, np.float32)
        self.firsts: list[int] = []  # the first items of the tiles that the room holds
        self.at_once = False
        self.num_tiles = self.num_opened = self.num_waiting = self.num_held = 0
        # Of P groups opened: row, the column of the first item, scores. Then of P items: row, column, score.
        self.waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.held: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def next_tile(self, first: int) -> int:
        """The place in the room of the tile whose first item that is."""
        if len(self.firsts) == len(self.most_WNG):
            self._empty()
        self.firsts.append(first)
        return len(self.firsts) - 1

    def open(self, begin: int, scores: np.ndarray, most_RG: np.ndarray) -> None:
        """Open groups of the newest tile: `most_RG` are the maxima of those of rows from `begin` on, `scores` all in a row."""
        place_P = np.flatnonzero(most_RG >= self.limit_N[begin : begin + len(most_RG), None])
        if len(place_P):
            row_P, group_P = _divided(place_P, self.num_groups)
            place_P = row_P * self.scores_WNT.shape[2] + group_P
            self._take(scores, place_P, row_P + begin, group_P + self.firsts[-1])
            if self.num_waiting > MOST_OPENED * self.kept * self.num_rows:
                self._sift()

    def best(self) -> tuple[Tensor, Tensor, Tensor]:
        """The best k items and a few more, best first, their columns, and the score above which none is missing.

        A row with a score that is no number or infinite has a NaN or an infinity.
        """
        self._empty()
        row_P, column_P, score_P, place_P = self._best_held()
        scores_NB = np.full((self.num_rows, self.kept), -np.inf, np.float32)
        columns_NB = np.zeros((self.num_rows, self.kept), np.int64)
        scores_NB[row_P, place_P], columns_NB[row_P, place_P] = score_P, column_P
        most_N1 = self.slots_NS.amax(1, keepdim=True)
        best_NB = torch.from_numpy(scores_NB).where(most_N1 < torch.inf, most_N1)
        return best_NB, torch.from_numpy(columns_NB), torch.from_numpy(np.maximum(self.limit_N, self.dropped_N))

    def _empty(self) -> None:
        """Raise the limit by the tiles that the room holds, keep what may belong to the lists of them, and empty it."""
        most_WNG = self.most_WNG[: len(self.firsts)]
        self._raise_limit(most_WNG)
        if not self.at_once:
            limit_N1 = self.limit_N[:, None]
            place_P = np.flatnonzero(most_WNG.numpy() >= limit_N1)
            self.num_opened = len(place_P)
            if len(place_P) > MOST_OPENED * self.kept * self.num_rows:
                place_P = self._best_groups(most_WNG)
            self._keep(place_P)
        self._sift()
        self.at_once = self.num_opened * SCARCE <= most_WNG.numel()
        self.firsts, self.num_opened = [], 0

    def _raise_limit(self, most_WNG: Tensor) -> None:
        for bank in range(self.num_banks):
            some_WNG = most_WNG[(bank - self.num_tiles) % self.num_banks :: self.num_banks]
            if len(some_WNG):
                slots_NG = self.slots_NS[:, bank * self.num_groups : (bank + 1) * self.num_groups]
                torch.maximum(slots_NG, some_WNG.amax(0), out=slots_NG)
        self.num_tiles += len(most_WNG)
        limit_N = np.sort(self.slots_NS.numpy(), axis=1)[:, -self.k]
        np.fmax(self.limit_N, limit_N - np.abs(limit_N) * np.float32(SLACK), out=self.limit_N)  # fmax passes over NaN

    def _keep(self, place_P: np.ndarray) -> None:
        """Open groups, given by their places among the maxima of all held tiles."""
        line_P, group_P = _divided(place_P, self.num_groups)  # a line is a row of a tile
        tile_P, row_P = _divided(line_P, self.num_rows)
        place_P = line_P * self.scores_WNT.shape[2] + group_P
        self._take(self.scores_WNT.view(-1).numpy(), place_P, row_P, np.array(self.firsts)[tile_P] + group_P)

    def _take(self, scores: np.ndarray, place_P: np.ndarray, row_P: np.ndarray, column_P: np.ndarray) -> None:
        """Open groups, given by where their first scores lie."""
        # A group is 16 scores from its first on, num_groups apart.
        shape, strides = (len(scores) - (GROUP - 1) * self.num_groups, GROUP), (4, 4 * self.num_groups)
        groups_PG = np.ndarray(shape, np.float32, scores, 0, strides)
        self.waiting.append((row_P, column_P, groups_PG[place_P]))
        self.num_waiting += len(row_P)
        self.num_opened += len(row_P)

    def _sift(self) -> None:
        """Of the groups that are open, hold the items that reach the limit."""
        if not self.waiting:
            return
        row_P, column_P, scores_PG = (np.concatenate(of) for of in zip(*self.waiting, strict=True))
        item_P = np.flatnonzero(scores_PG.reshape(-1) >= np.repeat(self.limit_N[row_P], GROUP))
        pair_P, member_P = _divided(item_P, GROUP)
        column_P = column_P[pair_P] + member_P * self.num_groups
        self.held.append((row_P[pair_P], column_P, scores_PG.reshape(-1)[item_P]))
        self.num_held += len(item_P)
        self.waiting, self.num_waiting = [], 0
        if self.num_held > 2 * MOST_OPENED * self.kept * self.num_rows:
            row_P, column_P, score_P, _ = self._best_held()
            self.held, self.num_held = [(row_P, column_P, score_P)], len(row_P)

    def _best_groups(self, most_WNG: Tensor) -> np.ndarray:
        """The places of each row's best groups in the room; the rest, of which many may tie, are dropped."""
        most_NB = most_WNG.transpose(0, 1).flatten(1)
        if most_NB.shape[1] > self.kept:
            most_NB, group_NB = most_NB.topk(self.kept)
            np.maximum(self.dropped_N, most_NB[:, -1].numpy(), out=self.dropped_N)
        else:
            group_NB = torch.arange(most_NB.shape[1]).expand_as(most_NB)
        tile_NB, group_NB = group_NB // self.num_groups, group_NB % self.num_groups
        return (
            ((tile_NB * self.num_rows + torch.arange(self.num_rows)[:, None]) * self.num_groups + group_NB)
            .view(-1)
            .numpy()
        )

    def _best_held(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The best items of each row that are held and reach the limit: row, column, score, place in the row, in that order."""
        row_P, column_P, score_P = (np.concatenate(of) for of in zip(*self.held, strict=True))
        high_P = np.flatnonzero(score_P >= self.limit_N[row_P])
        row_P, column_P, score_P = row_P[high_P], column_P[high_P], score_P[high_P]
        bits_P = score_P.view(np.int32)
        order_P = (row_P << 32) - (bits_P ^ ((bits_P >> 31) & 0x7FFFFFFF))  # floats in the order of these integers
        order_P = np.argsort(order_P)
        row_P, column_P, score_P = row_P[order_P], column_P[order_P], score_P[order_P]
        num_N = np.bincount(row_P, minlength=self.num_rows)
        place_P = np.arange(len(row_P)) - (num_N.cumsum() - num_N)[row_P]
        first_out = place_P == self.kept
        out_N = row_P[first_out]
        self.dropped_N[out_N] = np.maximum(self.dropped_N[out_N], score_P[first_out])
        kept_P = place_P < self.kept
        return row_P[kept_P], column_P[kept_P], score_P[kept_P], place_P[kept_P]


def _divided(number_P: np.ndarray, by: int) -> tuple[np.ndarray, np.ndarray]:
    """np.divmod, in a fifth of its time."""
    whole_P = number_P // by
    return whole_P, number_P - whole_P * by


def _front(room_WNX: Tensor, rows: int) -> Tensor:
    """The room's tiles with fewer rows, contiguous."""
    num_tiles, _, width = room_WNX.shape
    return room_WNX.view(-1)[: num_tiles * rows * width].view(num_tiles, rows, width)
