"""Last-day popularity: what people took on the newest training day; hard to beat where items age fast."""

import torch
from torch import Tensor

from modeling.evaluation.baselines._baseline import Baseline
from modeling.sessions import Sessions


class LastDayPopularity(Baseline):
    """score(item) = its events on the last training day."""

    def fit(self, train: Sessions, last_day: Sessions) -> None:
        self.counts = torch.from_numpy(self.popularity(last_day))

    def queries(self, histories: Sessions) -> Tensor:
        return self.counts.expand(len(histories), -1)
