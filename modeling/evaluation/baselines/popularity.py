"""Popularity: the same list for everybody, most frequent in training first."""

import torch
from torch import Tensor

from modeling.evaluation.baselines._baseline import Baseline
from modeling.sessions import Sessions


class Popularity(Baseline):
    """score(item) = its events in training."""

    def fit(self, train: Sessions, last_day: Sessions) -> None:
        self.counts = torch.from_numpy(self.popularity(train))

    def queries(self, histories: Sessions) -> Tensor:
        return self.counts.expand(len(histories), -1)
