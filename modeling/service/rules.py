"""Rules of what may be recommended, applied to the scores of a model: the same in the service, in bulk and by hand.

item      eligible  boost  group     new
lamp-1    true      0.0    lighting  false
lamp-7    false     0.0    lighting  false       never in a list
sofa-3    true      0.5    seats     true        half a logit up; counts as new

N histories, V items of the catalogue, B candidates of a list, K items of it, P pairs of a history and an item.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from modeling.evaluation.ranking import top_k
from modeling.scoring import ModelScorer
from modeling.service.encoding import Vocabularies
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID, ID, VALUE
from schemas.errors import InputError
from schemas.features import FeatureSchema
from schemas.serving import Bought

ITEM, ELIGIBLE, BOOST, GROUP, NEW = "item", "eligible", "boost", "group", "new"


@dataclass(frozen=True)
class Rules:
    """Rules with the table of items that they were compiled to; None: there is nothing to say of single items.

    Columns that the table lacks say nothing: all are eligible, none is boosted, new, or in a group. An item that it does not
    list is as eligible as `unlisted` says.
    """

    table: pl.DataFrame | None = None
    unlisted: bool = True
    most_per_group: int | None = None
    min_new: int = 0
    hide_seen: bool | None = None
    hide_bought: Bought | None = None


class Ruled:
    """The rules of one model: lists under them."""

    def __init__(
        self, rules: Rules, scorer: ModelScorer, items: pl.DataFrame, schema: FeatureSchema, vocabularies: Vocabularies
    ) -> None:
        """Raises InputError for `hide_bought` where no feature says what was done."""
        self.rules, device = rules, scorer.items_VE.device
        table = _by_column(rules, items, scorer.num_items)
        self.eligible_V = eligible_V = torch.from_numpy(table[ELIGIBLE].to_numpy(writable=True)).to(device)
        boost_V = torch.from_numpy(table[BOOST].to_numpy(writable=True)).to(device)
        self.new_V = torch.from_numpy(table[NEW].to_numpy(writable=True)).to(device)
        self.group_V = torch.from_numpy(table[GROUP].to_numpy(writable=True)).to(device)
        self.scorer = _changed(scorer, scorer.rankable_V & eligible_V, boost_V)
        self.of_new = _changed(scorer, scorer.rankable_V & eligible_V & self.new_V, boost_V) if rules.min_new else None
        self.bought = _bought(rules.hide_bought, schema, vocabularies) if rules.hide_bought else None

    def ranked(self, histories: Sessions, k: int, *, filter_seen: bool) -> tuple[Tensor, Tensor]:
        """As `Recommender.ranked`: the best k items under the rules, and their scores, boosts included."""
        if self.rules.most_per_group is None and self.of_new is None and self.bought is None:
            return top_k(self.scorer, histories, k, filter_seen=filter_seen)
        k = min(k, self.scorer.num_items)
        ids_NK = torch.zeros(len(histories), k, dtype=torch.long, device=self.scorer.items_VE.device)
        scores_NK = torch.full(ids_NK.shape, -torch.inf, device=ids_NK.device)
        row_R, size = torch.arange(len(histories), device=ids_NK.device), 2 * k
        while len(row_R):
            some = histories.select(row_R)
            ids_RB, scores_RB, all_R = self._candidates(some, size, filter_seen)
            ids_RB = self._without_bought(some, ids_RB)
            chosen_RB, enough_R = self._choose(ids_RB, k)
            place_RK = chosen_RB.long().cumsum(1) - 1
            row, column = chosen_RB.nonzero(as_tuple=True)
            ids_NK[row_R] = 0
            scores_NK[row_R] = -torch.inf
            ids_NK[row_R[row], place_RK[row, column]] = ids_RB[row, column]
            scores_NK[row_R[row], place_RK[row, column]] = scores_RB[row, column]
            row_R, size = row_R[~(enough_R | all_R)], 4 * size
        return ids_NK, scores_NK

    def _candidates(self, histories: Sessions, size: int, filter_seen: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The best items of each history, best first, behind them the best new ones; and where that is all there are."""
        ids_RB, scores_RB = top_k(self.scorer, histories, size, filter_seen=filter_seen)
        all_R = (ids_RB[:, -1] < FIRST_ID) | (ids_RB.shape[1] >= self.scorer.num_items)
        if self.of_new is None:
            return ids_RB, scores_RB, all_R
        new_RB, score_of_new_RB = top_k(self.of_new, histories, size, filter_seen=filter_seen)
        new_RB = new_RB.masked_fill((new_RB.unsqueeze(2) == ids_RB.unsqueeze(1)).any(2), 0)
        return torch.cat([ids_RB, new_RB], 1), torch.cat([scores_RB, score_of_new_RB], 1), all_R

    def _without_bought(self, histories: Sessions, ids_RB: Tensor) -> Tensor:
        if self.bought is None:
            return ids_RB
        session_E, item_E = self._bought_pairs(histories)
        width = self.scorer.num_items + FIRST_ID + 1
        row_R1 = torch.arange(len(ids_RB), device=ids_RB.device).unsqueeze(1) * width
        return ids_RB.masked_fill(torch.isin(row_R1 + ids_RB, session_E * width + item_E), 0)

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

    def allowed(self, items: pl.Series, columns: pl.Series) -> pl.Series:
        """Of raw ids, with their columns (null: none) in the catalogue, those that the rules let be recommended."""
        eligible = self.eligible_V.cpu().numpy()[columns.fill_null(0).to_numpy()]
        found = pl.Series("allowed", eligible).set(columns.is_null(), None)
        table = self.rules.table
        if found.null_count() and table is not None and ELIGIBLE in table.columns:
            said = table.select(_as_ids(table[ITEM], items.dtype).alias(ITEM), ELIGIBLE).unique(ITEM, keep="last")
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

        Also which lists have k items, and as many new ones as they should.
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
        return chosen_RB, (chosen_RB.sum(1) == k) & (first_RB.sum(1) >= wanted)

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


def _by_column(rules: Rules, items: pl.DataFrame, num_items: int) -> pl.DataFrame:
    """What the rules say of each item of the catalogue, in order of their columns."""
    defaults = {ELIGIBLE: pl.lit(True), BOOST: pl.lit(0.0), GROUP: pl.lit(None, pl.String), NEW: pl.lit(False)}
    if rules.table is None:
        said = items.select(ID, **defaults)
    else:
        table = rules.table.with_columns(_as_ids(rules.table[ITEM], items.schema[VALUE])).drop_nulls(ITEM)
        further = {name: value for name, value in defaults.items() if name not in table.columns}
        table = table.with_columns(**further).unique(ITEM, keep="last").with_columns(pl.lit(True).alias("listed"))
        said = items.select(ID, VALUE).join(table, left_on=VALUE, right_on=ITEM, how="left")
        eligible = pl.when(pl.col("listed").fill_null(False)).then(pl.col(ELIGIBLE).fill_null(False))
        said = said.with_columns(eligible.otherwise(rules.unlisted).alias(ELIGIBLE))
    said = said.filter(pl.col(ID) >= FIRST_ID).select(
        (pl.col(ID).cast(pl.Int64) - FIRST_ID).alias("column"),
        pl.col(ELIGIBLE),
        pl.col(BOOST).cast(pl.Float32).fill_nan(0.0).fill_null(0.0),
        (pl.col(GROUP).cast(pl.String).rank("dense").cast(pl.Int64)).fill_null(-1),
        pl.col(NEW).fill_null(False),
    )
    columns = pl.DataFrame({"column": pl.int_range(num_items, eager=True)})
    whole = columns.join(said.unique("column"), on="column", how="left", maintain_order="left")
    nothing = {ELIGIBLE: False, BOOST: 0.0, GROUP: -1, NEW: False}
    return whole.with_columns(pl.col(name).fill_null(value) for name, value in nothing.items())


def _as_ids(given: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Ids of a table as the catalogue has them; null for what can be none of its."""
    return given if given.dtype == dtype else given.cast(pl.String).cast(dtype, strict=False)


def _changed(scorer: ModelScorer, rankable_V: Tensor, boost_V: Tensor) -> ModelScorer:
    """The same item vectors, with other items to rank and something added to their scores."""
    changed = copy.copy(scorer)
    changed.rankable_V = rankable_V
    if bool((boost_V != 0).any()):
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
