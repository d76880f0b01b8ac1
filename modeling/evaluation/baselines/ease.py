"""EASE: a linear item-item model in closed form (Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019).

With X of sessions by items, 1 where a session holds an item, and P = (X'X + l2 I)^-1, the weights are B_ij = -P_ij / P_jj and
B_jj = 0; the scores of a history x are x B. It costs a Cholesky factor and an inverse of the items' matrix, so only the 20,000
most popular items are modelled (1.6 GB, twice while it is inverted); the rest are ranked last. l2 is chosen on the 3,000 most
popular.
"""

import numpy as np
import scipy.sparse as sparse
import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.evaluation.baselines._baseline import Baseline, Setting
from modeling.sessions import Sessions

MOST_ITEMS, TRIAL_ITEMS = 20_000, 3_000
LONGEST = 100  # events of a session whose pairs are counted: pairs grow with its square


class EASE(Baseline):
    """score(item) = history . B, the weights by which items of training sessions predict each other best."""

    grid = tuple({"l2": l2} for l2 in (250.0, 10.0, 50.0, 1000.0))

    def fit(self, train: Sessions, last_day: Sessions) -> None:
        counts = self.popularity(train)
        most = TRIAL_ITEMS if self.trial else MOST_ITEMS
        self.columns = np.sort(np.argsort(-counts, kind="stable")[:most])
        self.place_V = np.full(self.num_items, -1)
        self.place_V[self.columns] = np.arange(len(self.columns))
        seen = self.incidence(train.most_recent(LONGEST)).tocsc()[:, self.columns]
        self.together = sparse.csr_array(seen.T @ seen)

    def use(self, setting: Setting) -> None:
        self.setting = setting
        together = torch.from_numpy(self.together.toarray())
        together.diagonal().add_(setting["l2"])
        factor = torch.linalg.cholesky(together)
        del together
        inverse = torch.cholesky_inverse(factor)
        del factor
        self.weights = inverse.div_(-inverse.diagonal().clone())
        self.weights.fill_diagonal_(0)

    def queries(self, histories: Sessions) -> Tensor:
        session, column, _ = self.latest(histories)
        place = self.place_V[column]
        row = torch.from_numpy(session[place >= 0])
        first = torch.searchsorted(row, torch.arange(len(histories)))
        scores = F.embedding_bag(torch.from_numpy(place[place >= 0]), self.weights, first, mode="sum")
        if len(self.columns) == self.num_items:
            return scores
        whole = scores.amin(1, keepdim=True).repeat(1, self.num_items)
        whole[:, torch.from_numpy(self.columns)] = scores
        return whole
