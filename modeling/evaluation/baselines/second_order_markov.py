"""Second-order Markov chain with back-off: what followed the last two items, then the last one, then popularity.

Interpolated as Witten and Bell do (IEEE Transactions on Information Theory 37, 1991), with nothing to set. With n(x c) the
times that c followed the context x, n(x) their sum and T(x) the number of different items that did,

    P(c | a b) = (n(a b c) + T(a b) P(c | b)) / (n(a b) + T(a b)),    P(c | b) = (n(b c) + T(b) P(c)) / (n(b) + T(b)).

A context that training never had has n = T = 0 and is skipped. P(c) is popularity, of all of training or of its newest day.
"""

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from modeling.evaluation.baselines._baseline import Baseline
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID


class SecondOrderMarkov(Baseline):
    """score(item) = its probability after the last two items, backed off to the last one and to popularity."""

    grid = ({"newest_day": 0.0}, {"newest_day": 1.0})

    def fit(self, train: Sessions, last_day: Sessions) -> None:
        session, event = (values.numpy() for values in train.event_index())
        items = train.items[event].numpy().astype(np.int64) - FIRST_ID
        good = (items >= 0) & (items < self.num_items)
        follows = good[:-1] & good[1:] & (np.diff(session) == 0)
        self.after_one = self._counts(items[:-1][follows], items[1:][follows], self.num_items)
        both_follow = follows[:-1] & follows[1:]
        pair = items[:-2][both_follow] * self.num_items + items[1:-1][both_follow]
        self.pairs, context = np.unique(pair, return_inverse=True)
        self.after_two = self._counts(context, items[2:][both_follow], len(self.pairs))
        # The newest day first, all of training a thousandth of it: items the day never had stay in order.
        overall, newest = (self.popularity(part).astype(np.float64) for part in (train, last_day))
        shares = (_shares(overall), _shares(newest + 1e-3 * _shares(overall)))
        self.prior = [share_V.astype(np.float32) for share_V in shares]

    def _counts(self, context: np.ndarray, following: np.ndarray, num_contexts: int) -> sparse.csr_array:
        shape = (num_contexts, self.num_items)
        counts = sparse.csr_array((np.ones(len(context)), (context, following)), shape=shape)
        counts.sum_duplicates()
        return counts

    def queries(self, histories: Sessions) -> Tensor:
        last, before = (self._from_end(histories, place) for place in (0, 1))
        pair = np.where((last >= 0) & (before >= 0), before * self.num_items + last, -1)
        place = np.minimum(np.searchsorted(self.pairs, pair), len(self.pairs) - 1)
        has = self.pairs[place] == pair if len(self.pairs) else np.zeros(len(pair), dtype=bool)
        # Both back-offs at once: popularity is multiplied by the shares left over, then what followed is added to its cells.
        after_one, share_one = _followed(self.after_one, last)
        after_two, share_two = _followed(self.after_two, np.where(has, place, -1))
        prior_V = self.prior[int(self.setting["newest_day"])]
        scores_NV: np.ndarray = (share_two * share_one).astype(np.float32)[:, None] * prior_V
        for row, column, probability in ((*after_one[:2], after_one[2] * share_two[after_one[0]]), after_two):
            scores_NV[row, column] += probability.astype(np.float32)
        return torch.from_numpy(scores_NV)

    def _from_end(self, histories: Sessions, place: int) -> np.ndarray:
        """The catalogue column of the item `place` places before the last, -1 where there is none."""
        long_enough = histories.lengths > place
        column = histories.select(long_enough).item_from_end(place) - FIRST_ID
        columns = torch.full((len(histories),), -1, dtype=torch.int64)
        columns[long_enough] = torch.where((column >= 0) & (column < self.num_items), column, -1)
        return columns.numpy()


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / max(counts.sum(), 1e-12)


def _followed(
    counts: sparse.csr_array, context: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """(row, column, n(x c) / (n(x) + T(x))) of what followed each row's context x, and T(x) / (n(x) + T(x)) of each row.

    Where the context is -1, nothing and 1.
    """
    rows = np.flatnonzero(context >= 0)
    after = counts[context[rows]].tocoo()
    num_followers = np.bincount(after.row, minlength=len(rows))
    total = np.bincount(after.row, after.data, minlength=len(rows)) + num_followers
    shares = np.ones(len(context))
    shares[rows] = np.where(total > 0, num_followers / np.maximum(total, 1), 1)
    return (rows[after.row], after.col, after.data / total[after.row]), shares
