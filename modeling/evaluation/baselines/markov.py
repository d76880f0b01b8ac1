"""First-order Markov chain: what followed the last item in training."""

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from modeling.evaluation.baselines._baseline import Baseline
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID


class Markov(Baseline):
    """score(item) = how often it followed the last item, then its popularity (below one) where that says nothing."""

    def fit(self, train: Sessions, last_day: Sessions) -> None:
        session, event = train.event_index()
        items = train.items[event].numpy() - FIRST_ID
        follows = session.diff().numpy() == 0
        good = (items >= 0) & (items < self.num_items)
        are_items = follows & good[:-1] & good[1:]
        pairs = (items[:-1][are_items], items[1:][are_items])
        size = (self.num_items, self.num_items)
        self.moves = sparse.csr_array((np.ones(len(pairs[0]), np.float32), pairs), shape=size)
        counts = self.popularity(train)
        self.prior = torch.from_numpy(counts / (counts.max() + 1))

    def queries(self, histories: Sessions) -> Tensor:
        last = histories.item_from_end(0).numpy() - FIRST_ID
        is_item = (last >= 0) & (last < self.num_items)  # items that came up after the vocabulary are none
        moves = self.moves[np.where(is_item, last, 0)].toarray()
        moves[~is_item] = 0
        return torch.from_numpy(moves) + self.prior
