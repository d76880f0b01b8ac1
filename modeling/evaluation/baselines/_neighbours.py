"""What session-based nearest neighbours share: V-SkNN and VSTAN, as in session-rec, by arrays instead of loops.

1. Possible neighbours of a history: the `sampled` newest training sessions that share an item with it. Only each item's
   `sampled` newest sessions are looked at, which gives the same: a session among the newest that share any item is among the
   newest of each item it shares.
2. Its neighbours: the `neighbours` most similar of these, of equals the newer.
3. score(item) = sum over the neighbours that hold it of similarity * position * distance * (1 + idf_weight * idf(item)), with
   idf = ln(training sessions / events of the item).

Of a history the 20 latest events count, of a training session 50. Items without a score follow, most popular on the newest day
first. Where sessions have no days, their order stands for time.

N histories of a chunk, P pairs of a history and an item it holds, C pairs of a history and a possible neighbour, K pairs of a
history and a neighbour, E pairs of the latter and an item of theirs.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from modeling.evaluation.baselines._baseline import Baseline
from modeling.sessions import DAY_MICROSECONDS, Sessions

LONGEST, LONGEST_HISTORY = 50, 20  # events
SAME = 1e-9  # similarities that differ by less are equal: rounding must not choose neighbours
MOST_CANDIDATES = 2**22  # pairs of a history and a possible neighbour, in a chunk


class Neighbours(Baseline):
    """A baseline that scores items by those of similar sessions; how similar, and how much an item counts, is its own."""

    def fit(self, train: Sessions, last_day: Sessions) -> None:
        some = train.select(train.lengths >= 2)
        recent = some.most_recent(LONGEST)
        session, column, place = self.latest(recent)
        position = recent.lengths.numpy()[session] - place
        self.items_of = sparse.csr_array((position, (session, column)), shape=(len(some), self.num_items))
        self.num_items_S = np.diff(self.items_of.indptr)
        by_item = self.items_of.tocsc()
        self.sessions_of, self.start_V = by_item.indices, by_item.indptr.astype(np.int64)
        self.newest_V = self.popularity(last_day)
        ends_S = np.zeros(len(some)) if last_day is train else some.end.numpy().astype(np.float64)
        self.days_S = (ends_S.max(initial=0) - ends_S) / DAY_MICROSECONDS
        events_V = np.maximum(self.popularity(some), 1)
        self.idf_V = np.log(max(len(some), 1) / events_V).astype(np.float64)
        most = int(max(setting["sampled"] for setting in self.grid)) * LONGEST_HISTORY
        self.chunk = max(1, min(self.chunk, MOST_CANDIDATES // most))

    @abstractmethod
    def item_weight(self, place_P: np.ndarray, length_P: np.ndarray) -> np.ndarray:
        """How much an item of a history counts for similarity, by its place from the end (0: the last) and the length."""

    @abstractmethod
    def similarity(self, shared_C: np.ndarray, weight_P: np.ndarray, pair: tuple[np.ndarray, ...]) -> np.ndarray:
        """Similarity by the sum of weights of shared items; `pair` is (history of P, history of C, session of C)."""

    @abstractmethod
    def position(self, place_K: np.ndarray, length_K: np.ndarray) -> np.ndarray:
        """How much a neighbour counts, by the place from the end of the history's latest item that it shares."""

    def distance(self, apart_E: np.ndarray) -> np.ndarray | float:
        """How much an item counts, by the events between it and the latest shared item in the neighbour."""
        return 1.0

    def queries(self, histories: Sessions) -> Tensor:
        recent = histories.most_recent(LONGEST_HISTORY)
        length_N, held = recent.lengths.numpy(), self.latest(recent)
        history_P, column_P, place_P = held
        weight_P = self.item_weight(place_P, length_N[history_P])
        history_K, session_K, similarity_K = self._neighbours(held, weight_P, len(histories))
        place_NV = np.full((len(histories), self.num_items), LONGEST_HISTORY, dtype=np.int8)  # or not in it
        place_NV[history_P, column_P] = place_P
        scores_NV = self._scores(history_K, session_K, similarity_K, place_NV, length_N)
        return self.back_off(scores_NV, self.newest_V)

    def _neighbours(
        self, held: tuple[np.ndarray, ...], weight_P: np.ndarray, num_histories: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(history, session, similarity) of the neighbours of all histories, sorted by history."""
        history_P, column_P, _ = held
        sampled, neighbours = int(self.setting["sampled"]), int(self.setting["neighbours"])
        end_P, begin_P = self.start_V[column_P + 1], self.start_V[column_P]
        begin_P = np.maximum(begin_P, end_P - sampled)
        which_C, pair_C = _ranges(begin_P, end_P)
        weights = (weight_P[pair_C], (history_P[pair_C], self.sessions_of[which_C]))
        # Summed by (history, session): a history and a session may share several items.
        shared = sparse.csr_array(weights, shape=(num_histories, len(self.num_items_S)))
        shared.sum_duplicates()
        # Sessions are in order of time: the newest are the last of a row.
        end_N, size_N = shared.indptr[1:].astype(np.int64), np.minimum(np.diff(shared.indptr), sampled)
        which_C, history_C = _ranges(end_N - size_N, end_N)
        session_C, shared_C = shared.indices[which_C], shared.data[which_C]
        similarity_C = self.similarity(shared_C, weight_P, (history_P, history_C, session_C))
        order_C = similarity_C * (1 + SAME * session_C / max(len(self.num_items_S), 1))
        kept_C = _largest(order_C, history_C, size_N, neighbours)
        return history_C[kept_C], session_C[kept_C], similarity_C[kept_C]

    def _scores(
        self,
        history_K: np.ndarray,
        session_K: np.ndarray,
        similarity_K: np.ndarray,
        place_NV: np.ndarray,
        length_N: np.ndarray,
    ) -> np.ndarray:
        """Scores of all items, [N, V]."""
        size = place_NV.shape
        if not len(session_K):
            return np.zeros(size)
        starts = self.items_of.indptr.astype(np.int64)
        event_E, pair_E = _ranges(starts[session_K], starts[session_K + 1])
        column_E, position_E = self.items_of.indices[event_E].astype(np.int64), self.items_of.data[event_E]
        cell_E = history_K[pair_E] * size[1] + column_E
        place_E = place_NV.reshape(-1)[cell_E]
        first_K = np.cumsum(self.num_items_S[session_K]) - self.num_items_S[session_K]
        place_K = np.minimum.reduceat(place_E, first_K).astype(np.float64)
        weight_K = similarity_K * self.position(place_K, length_N[history_K])
        latest_K = np.maximum.reduceat(np.where(place_E < LONGEST_HISTORY, position_E, 0), first_K)
        weight_E = weight_K[pair_E] * self.distance(np.abs(position_E - latest_K[pair_E]))
        weight_E = weight_E * (1 + self.setting["idf_weight"] * self.idf_V[column_E])
        return np.bincount(cell_E, weight_E, minlength=size[0] * size[1]).reshape(size)


def _largest(values: np.ndarray, row: np.ndarray, size_N: np.ndarray, count: int) -> np.ndarray:
    """Which values are among the `count` largest of their row; values that tie at the edge are all kept.

    Rows of so many values lie one after the other.
    """
    longest = int(size_N.max(initial=0))
    if longest <= count:
        return np.ones(len(values), dtype=bool)
    table = np.full((len(size_N), longest), -np.inf)
    table[row, np.arange(len(row)) - (np.cumsum(size_N) - size_N)[row]] = values
    # torch, since partition() of NumPy takes twenty times as long where many values are equal.
    largest = torch.topk(torch.from_numpy(table), count, dim=1, sorted=False).values
    kept: np.ndarray = values >= largest.amin(1).numpy()[row]
    return kept


def _ranges(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All integers of begin[i] .. end[i] - 1 for each i in turn, and the i of each."""
    size = end - begin
    which = np.repeat(np.arange(len(size)), size)
    return np.arange(len(which)) - (np.cumsum(size) - size - begin)[which], which
