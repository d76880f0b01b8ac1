"""Recent popularity: what people took in the last hours or days; the newer, the more it counts.

With half_life H in hours and the end t of an event's session, score(item) = sum over its events of 2^-((T - t) / H), T the end
of the newest training session. A half-life of 0 counts all of training alike. The same list for everybody, as popularity.
"""

import torch
from torch import Tensor

from modeling.evaluation.baselines._baseline import Baseline, Setting
from modeling.sessions import DAY_MICROSECONDS, Sessions
from schemas.columns import FIRST_ID

HOUR = DAY_MICROSECONDS // 24
LEAST = 2.0**-40  # of a weight: enough to put older items in order where newer ones are few


class RecentPopularity(Baseline):
    """score(item) = its events in training, each halved by every so many hours of age, which validation chooses."""

    grid = tuple({"half_life": hours} for hours in (24.0, 1.0, 3.0, 8.0, 72.0, 168.0, 720.0, 0.0))

    def fit(self, train: Sessions, last_day: Sessions) -> None:
        session_E, event_E = train.event_index()
        column_E = train.items[event_E].long() - FIRST_ID
        is_item = (column_E >= 0) & (column_E < self.num_items)
        self.column_E = column_E[is_item]
        # Histories end with what is hidden in them: their ends say nothing of training.
        ends_S = torch.zeros_like(train.end) if last_day is train else train.end
        newest = ends_S.max() if len(ends_S) else 0
        self.hours_E = (newest - ends_S)[session_E[is_item]].double() / HOUR

    def use(self, setting: Setting) -> None:
        self.setting = setting
        half_life = setting["half_life"]
        weight_E = 0.5 ** (self.hours_E / half_life) if half_life else torch.ones_like(self.hours_E)
        score_V = torch.bincount(self.column_E, weight_E.clamp(min=LEAST), minlength=self.num_items)
        self.score_V = score_V.float()

    def queries(self, histories: Sessions) -> Tensor:
        return self.score_V.expand(len(histories), -1)
