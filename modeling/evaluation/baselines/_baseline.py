"""What every baseline shares: it scores the whole catalogue at once and lets ranking cut its tiles from that.

N histories, V items of the catalogue (column v is item id v + 3), T items of a tile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from modeling.sessions import Sessions
from modeling.splits import trained_items
from schemas.columns import FIRST_ID

MOST_SCORES = 2**24  # of all histories of a chunk together
Setting = Mapping[str, float]


class Baseline(ABC):
    """Counts instead of gradients. Fit on the training sessions a model is fit on, ranked by the same code.

    `grid` holds the settings that validation cases choose from (`evaluation.choosing`); the first is the default, and a
    baseline without a grid has nothing to choose. `setting` is the one in use. `trial` says that this fit only compares
    settings, so that a costly one may be smaller.
    """

    grid: ClassVar[tuple[Setting, ...]] = ()

    def __init__(
        self,
        train: Sessions,
        last_day: Sessions,
        num_items: int,
        *,
        setting: Setting | None = None,
        trial: bool = False,
    ) -> None:
        self.num_items, self.trial = num_items, trial
        self.setting: Setting = setting or (self.grid[0] if self.grid else {})
        self.chunk = max(1, min(256, MOST_SCORES // max(num_items, 1)))
        self.rankable_V = trained_items(train, num_items)
        self.fit(train, last_day)
        self.use(self.setting)

    def use(self, setting: Setting) -> None:
        """Score by another setting from now on, of what was counted. One whose scores wait for the setting overrides this."""
        self.setting = setting

    @abstractmethod
    def fit(self, train: Sessions, last_day: Sessions) -> None:
        """Count what the scores need; `last_day` holds the newest sessions of `train`, without days it is `train`.

        `use` follows, with a setting.
        """

    @abstractmethod
    def queries(self, histories: Sessions) -> Tensor:
        """Scores of the whole catalogue for each history, float32 of shape [N, V]."""

    def tile(self, queries: Tensor, first: int, last: int, out: Tensor | None = None) -> Tensor:
        """A copy of some columns of the scores, in `out` or a new tensor."""
        return queries[:, first:last].clone() if out is None else out.copy_(queries[:, first:last])

    def scores(self, queries: Tensor, column_NK: Tensor) -> Tensor:
        """The scores of some columns of each history."""
        return queries.gather(1, column_NK)

    def relative(self, queries: Tensor, score_N1: Tensor, rounding_N1: Tensor) -> None:
        """None: no product makes these scores."""
        return

    def rounding(self, queries: Tensor, column_NK: Tensor) -> Tensor:
        """Nothing: equal counts are equal numbers."""
        return torch.zeros(column_NK.shape)

    def popularity(self, sessions: Sessions) -> np.ndarray:
        """How often each item of the catalogue was seen, float32 of shape [V]."""
        return sessions.item_counts(self.num_items).numpy().astype(np.float32)

    def back_off(self, scores_NV: np.ndarray, popularity_V: np.ndarray) -> Tensor:
        """Scores above 0; of items without, popularity between -1 and 0: below all that have a score."""
        share_V = popularity_V / (popularity_V.max(initial=0) + 1) - 1
        return torch.from_numpy(np.where(scores_NV > 0, scores_NV, share_V).astype(np.float32))

    def incidence(self, sessions: Sessions) -> sparse.csr_array:
        """1 where a session holds an item, float32 of shape [sessions, V]."""
        session, event = sessions.event_index()
        columns = sessions.items[event].numpy() - FIRST_ID
        is_item = (columns >= 0) & (columns < self.num_items)
        pairs = (session.numpy()[is_item], columns[is_item])
        seen = sparse.csr_array((np.ones(int(is_item.sum()), np.float32), pairs), shape=(len(sessions), self.num_items))
        seen.sum_duplicates()
        seen.data[:] = 1
        return seen

    def latest(self, histories: Sessions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(history, column, place) of each different item of each history, at its latest event; place 0 is the last event.

        Sorted by history, then by column.
        """
        session, event = (values.numpy() for values in histories.event_index())
        column = histories.items[event].numpy().astype(np.int64) - FIRST_ID
        place = np.repeat(histories.lengths.cumsum(0).numpy(), histories.lengths.numpy()) - np.arange(len(session)) - 1
        is_item = (column >= 0) & (column < self.num_items)
        session, column, place = session[is_item], column[is_item], place[is_item]
        order = np.lexsort((place, column, session))
        key = (session * self.num_items + column)[order]
        first = order[np.flatnonzero(np.diff(key, prepend=-1))]
        return session[first], column[first], place[first]
