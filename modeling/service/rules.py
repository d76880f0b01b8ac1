"""Rules of what may be recommended, applied to the scores of a model: the same in the service, in bulk and by hand.

item      eligible  boost  group     new
lamp-1    true      0.0    lighting  false
lamp-7    false     0.0    lighting  false       never in a list
sofa-3    true      0.5    seats     true        half a logit up; counts as new

N histories, V items of the catalogue, B candidates of a list, K items of it, P pairs of a history and an item.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import torch
from torch import Tensor

from modeling.evaluation.ranking import Scorer, top_k
from modeling.scoring import VectorScorer
from modeling.service.encoding import Vocabularies
from modeling.service.rule_table import BOOST, ELIGIBLE, GROUP, ITEM, NEW, as_ids, by_column
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID, ID, VALUE
from schemas.errors import InputError
from schemas.features import FeatureSchema
from schemas.serving import Bought

MOST_CANDIDATES = 2**22  # looked through at a time
__all__ = ["BOOST", "ELIGIBLE", "GROUP", "ITEM", "NEW", "Ruled", "Rules"]


@dataclass(frozen=True)
class Rules:
    """Rules with the table of items that they were compiled to; None: there is nothing to say of single items.

    Columns that the table lacks say nothing: all are eligible, none is boosted, new, or in a group. An item that it does not
    list is as eligible as `unlisted` says. `written` are the rules as the YAML has them.
    """

    table: pl.DataFrame | None = None
    unlisted: bool = True
    most_per_group: int | None = None
    min_new: int = 0
    hide_seen: bool | None = None
    hide_bought: Bought | None = None
    written: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_lists(self) -> bool:
        """Whether a rule looks at more than an item and its score: at the list, or at what was bought."""
        return self.most_per_group is not None or self.min_new > 0 or self.hide_bought is not None

    def about(self) -> dict[str, Any]:
        """All but the table, for manifests, with a hash of it all; `read` takes it back."""
        said = {name: getattr(self, name) for name in ("unlisted", "most_per_group", "min_new", "hide_seen")}
        said["hide_bought"] = self.hide_bought.model_dump(mode="json") if self.hide_bought else None
        made = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        if self.table is not None:
            made.update(self.table.select(sorted(self.table.columns)).sort(ITEM).write_csv().encode())
        return said | {"written": dict(self.written), "digest": made.hexdigest()[:16]}

    @classmethod
    def read(cls, about: Mapping[str, Any], table: pl.DataFrame | None) -> Rules:
        """The rules of which `about` said so, and their table."""
        bought = about["hide_bought"]
        said = {name: about[name] for name in ("unlisted", "most_per_group", "min_new", "hide_seen", "written")}
        return cls(table=table, hide_bought=Bought.model_validate(bought) if bought else None, **said)


class Ruled:
    """The rules of one scorer, which is a model or a baseline: lists under them.

    A boost is in units of a model's scores; a baseline counts otherwise, and has none.
    """

    def __init__(
        self, rules: Rules, scorer: Scorer, items: pl.DataFrame, schema: FeatureSchema, vocabularies: Vocabularies
    ) -> None:
        """Raises InputError for `hide_bought` where no feature says what was done."""
        self.rules, device = rules, scorer.rankable_V.device
        table = by_column(rules.table, rules.unlisted, items, scorer.num_items)
        self.eligible_V = eligible_V = torch.from_numpy(table[ELIGIBLE].to_numpy(writable=True)).to(device)
        boost_V = torch.from_numpy(table[BOOST].to_numpy(writable=True)).to(device)
        self.new_V = torch.from_numpy(table[NEW].to_numpy(writable=True)).to(device)
        self.group_V = torch.from_numpy(table[GROUP].to_numpy(writable=True)).to(device)
        self.scorer = _changed(scorer, scorer.rankable_V & eligible_V, boost_V)
        self.of_new = _changed(scorer, scorer.rankable_V & eligible_V & self.new_V, boost_V) if rules.min_new else None
        self.most = self._most()
        self.bought = _bought(rules.hide_bought, schema, vocabularies) if rules.hide_bought else None

    def _most(self) -> int:
        """How many items the longest list can have: of each group as many as may be, as far as there are any."""
        groups = self.group_V[self.scorer.rankable_V]
        if self.rules.most_per_group is None:
            return len(groups)
        _, counts = groups[groups >= 0].unique(return_counts=True)
        return int(counts.clamp(max=self.rules.most_per_group).sum()) + int((groups < 0).sum())

    def ranked(self, histories: Sessions, k: int, *, filter_seen: bool) -> tuple[Tensor, Tensor]:
        """As `Recommender.ranked`: the best k items under the rules, and their scores, boosts included."""
        if not self.rules.of_lists:
            return top_k(self.scorer, histories, k, filter_seen=filter_seen)
        k = min(k, self.scorer.num_items)
        ids_NK = torch.zeros(len(histories), k, dtype=torch.long, device=self.scorer.rankable_V.device)
        scores_NK = torch.full(ids_NK.shape, -torch.inf, device=ids_NK.device)
        row_R, size = torch.arange(len(histories), device=ids_NK.device), 2 * k
        while len(row_R):
            short = []
            for part_R in row_R.split(max(1, MOST_CANDIDATES // size)):
                chosen_RK, score_RK, done_R = self._best(histories.select(part_R), size, k, filter_seen)
                ids_NK[part_R], scores_NK[part_R] = chosen_RK, score_RK
                short.append(part_R[~done_R])
            row_R, size = torch.cat(short), 4 * size
        return ids_NK, scores_NK

    def _best(self, histories: Sessions, size: int, k: int, filter_seen: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The lists that the best `size` candidates make, their scores, and where no further candidate would change them."""
        ids_RB, scores_RB, all_R, all_new_R = self._candidates(histories, size, filter_seen)
        ids_RB = self._without_bought(histories, ids_RB)
        chosen_RB, new_R = self._choose(ids_RB, k)
        place_RB = (chosen_RB.long().cumsum(1) - 1).clamp(min=0)
        ids_RK = ids_RB.new_zeros(len(ids_RB), k)
        scores_RK = torch.full(ids_RK.shape, -torch.inf, device=ids_RK.device)
        row, column = chosen_RB.nonzero(as_tuple=True)
        ids_RK[row, place_RB[row, column]] = ids_RB[row, column]
        scores_RK[row, place_RB[row, column]] = scores_RB[row, column]
        full_R = chosen_RB.sum(1) == min(k, self.most)
        return ids_RK, scores_RK, all_R | (full_R & ((new_R >= min(self.rules.min_new, k)) | all_new_R))

    def _candidates(self, histories: Sessions, size: int, filter_seen: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The best items of each history, best first, behind them the best new ones; where that is all, and all new ones."""
        ids_RB, scores_RB = top_k(self.scorer, histories, size, filter_seen=filter_seen)
        all_R = (ids_RB[:, -1] < FIRST_ID) | (ids_RB.shape[1] >= self.scorer.num_items)
        if self.of_new is None:
            return ids_RB, scores_RB, all_R, torch.ones_like(all_R)
        new_RB, score_of_new_RB = top_k(self.of_new, histories, size, filter_seen=filter_seen)
        all_new_R = (new_RB[:, -1] < FIRST_ID) | (new_RB.shape[1] >= self.scorer.num_items)
        new_RB = new_RB.masked_fill(torch.isin(self._pairs(new_RB), self._pairs(ids_RB)), 0)
        return torch.cat([ids_RB, new_RB], 1), torch.cat([scores_RB, score_of_new_RB], 1), all_R, all_new_R

    def _pairs(self, ids_RB: Tensor) -> Tensor:
        """A number for each row and id."""
        return (
            torch.arange(len(ids_RB), device=ids_RB.device).unsqueeze(1) * (self.scorer.num_items + FIRST_ID) + ids_RB
        )

    def _without_bought(self, histories: Sessions, ids_RB: Tensor) -> Tensor:
        if self.bought is None:
            return ids_RB
        session_E, item_E = self._bought_pairs(histories)
        pair_E = session_E * (self.scorer.num_items + FIRST_ID) + item_E
        return ids_RB.masked_fill(torch.isin(self._pairs(ids_RB), pair_E), 0)

    def _bought_pairs(self, histories: Sessions) -> tuple[Tensor, Tensor]:
        """The session and the item of each event that counts as buying, past ones too."""
        assert self.bought is not None
        name, bought_ids = self.bought
        session_E, event_E = histories.event_index()
        if histories.past is not None:
            session_P, event_P = histories.past.index()
            session_E, event_E = torch.cat([session_P, session_E]), torch.cat([event_P, event_E])
        is_bought_E = torch.isin(histories.events[name][event_E].long(), bought_ids.to(event_E.device))
        return session_E[is_bought_E], histories.items[event_E[is_bought_E]].long()

    def forbidden(self, histories: Sessions, column_N: Tensor) -> Tensor:
        """Whether the rules never let these columns be recommended, one for each history, bool of shape [N]."""
        inside_N = (column_N >= 0) & (column_N < self.scorer.num_items)
        bad_N = inside_N & ~self.eligible_V[column_N.clamp(0, self.scorer.num_items - 1)]
        ids_N1 = (column_N + FIRST_ID).unsqueeze(1)
        return bad_N | (self._without_bought(histories, ids_N1).squeeze(1) != ids_N1.squeeze(1))

    def allowed(self, items: pl.Series, columns: pl.Series) -> pl.Series:
        """Of raw ids, with their columns (null: none) in the catalogue, those that the rules let be recommended."""
        eligible = self.eligible_V.cpu().numpy()[columns.fill_null(0).to_numpy()]
        found = pl.Series("allowed", eligible).set(columns.is_null(), None)
        table = self.rules.table
        if found.null_count() and table is not None and ELIGIBLE in table.columns:
            said = table.select(as_ids(table[ITEM], items.dtype).alias(ITEM), ELIGIBLE).unique(ITEM, keep="last")
            of_table = items.alias(ITEM).to_frame().join(said, on=ITEM, how="left", maintain_order="left")
            found = pl.select(pl.coalesce(found, of_table[ELIGIBLE])).to_series()
        return found.fill_null(self.rules.unlisted)

    def may_follow(self, taken: Collection[int]) -> Callable[[int], bool]:
        """Whether a column may come behind those of a list, asked of one after the other: each that may counts from then on."""
        most = self.rules.most_per_group
        if most is None:
            return lambda column: True
        groups = self.group_V.cpu().numpy()
        count = Counter(int(groups[column]) for column in taken if column >= 0)

        def may(column: int) -> bool:
            group = int(groups[column])
            if group >= 0 and count[group] >= most:
                return False
            count[group] += 1
            return True

        return may

    def bought_in(self, histories: Sessions) -> set[int]:
        """The columns of what was bought in some histories."""
        if self.bought is None:
            return set()
        _, item_E = self._bought_pairs(histories)
        return {item - FIRST_ID for item in item_E.tolist()}

    def _choose(self, ids_RB: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Which candidates are taken: new ones until there are enough, then the best, never too many of a group.

        Also how many were taken because they are new, as far as they are wanted.
        """
        column_RB = (ids_RB - FIRST_ID).clamp(min=0)
        there_RB = ids_RB >= FIRST_ID
        new_RB = self.new_V[column_RB] & there_RB
        wanted = min(self.rules.min_new, k)
        first_RB = self._below_most(new_RB, column_RB)
        first_RB &= first_RB.long().cumsum(1) <= wanted
        order_RB = (~first_RB).long().argsort(dim=1, stable=True)
        taken_RB = self._below_most(there_RB.gather(1, order_RB), column_RB.gather(1, order_RB))
        taken_RB &= taken_RB.long().cumsum(1) <= k
        chosen_RB = torch.zeros_like(taken_RB).scatter_(1, order_RB, taken_RB)
        return chosen_RB, first_RB.sum(1)

    def _below_most(self, there_RB: Tensor, column_RB: Tensor) -> Tensor:
        """Of the candidates that are there, those before which fewer of their group are than may be in a list."""
        most = self.rules.most_per_group
        if most is None:
            return there_RB
        group_RB = torch.where(there_RB, self.group_V[column_RB], -2)
        place_RB = group_RB.argsort(dim=1, stable=True)
        sorted_RB = group_RB.gather(1, place_RB)
        index_RB = torch.arange(group_RB.shape[1], device=group_RB.device).expand_as(group_RB)
        begins_RB = torch.ones_like(there_RB)
        begins_RB[:, 1:] = sorted_RB[:, 1:] != sorted_RB[:, :-1]
        before_RB = index_RB - torch.where(begins_RB, index_RB, 0).cummax(1).values
        before_RB = torch.zeros_like(before_RB).scatter_(1, place_RB, before_RB)
        return there_RB & ((before_RB < most) | (group_RB == -1))


def _changed(scorer: Scorer, rankable_V: Tensor, boost_V: Tensor) -> Any:
    """The same scorer, with other items to rank and, where scores are those of a model, something added to them."""
    changed = copy.copy(scorer)
    changed.rankable_V = rankable_V  # type: ignore[misc]
    if isinstance(scorer, VectorScorer) and isinstance(changed, VectorScorer) and bool((boost_V != 0).any()):
        changed.bias_V = boost_V if scorer.bias_V is None else scorer.bias_V + boost_V
    return changed


def _bought(rule: Bought, schema: FeatureSchema, vocabularies: Vocabularies) -> tuple[str, Tensor]:
    """The feature that says what was done, and its ids that count."""
    for column in schema.side_features:
        if column.source == rule.column and column.vocabulary and column.per == "event" and not column.many:
            vocabulary = vocabularies.of(column)
            ids = vocabulary.filter(pl.col(VALUE).cast(pl.String).is_in(list(rule.values)))[ID]
            if not len(ids):
                known = ", ".join(map(str, vocabulary[VALUE].drop_nulls().head(20)))
                raise InputError(
                    f"serving.rules.hide_bought: {rule.column} is never {' or '.join(rule.values)}; it is {known}."
                )
            return column.name, torch.from_numpy(ids.to_numpy(writable=True)).long()
    raise InputError(
        f"serving.rules.hide_bought: the model has no categorical feature of the column {rule.column!r}, by which it could be "
        f"seen. Add one, such as `action: {{column: {rule.column}, encode: category}}`, and train again."
    )
