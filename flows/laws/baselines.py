"""What every baseline obeys, fit on a few sessions: a score for each item, the same alone and in a batch.

N histories, V items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flows.laws import Law, require
from flows.laws.models import NUM_ITEMS, chains
from modeling.evaluation import baselines
from modeling.sessions import Sessions
from schemas import plugins
from schemas.columns import FIRST_ID, UNKNOWN

Fit = Callable[[Sessions, Sessions, int], Any]


@dataclass(frozen=True)
class Trial:
    """A baseline by name."""

    name: str

    def fit(self, train: Sessions) -> Any:
        """The baseline, fit on some sessions whose newest are the last ten."""
        kind: Fit = plugins.find(baselines, self.name)
        return kind(train, train.select(torch.arange(len(train))[-10:]), NUM_ITEMS)

    def scores(self, histories: Sessions) -> Tensor:
        """Its scores of all items for some histories, [N, V]."""
        baseline = self.fit(chains(60, NUM_ITEMS))
        whole: Tensor = baseline.tile(baseline.queries(histories), 0, NUM_ITEMS)
        return whole


def every_history_gets_a_score_for_every_item(trial: Trial) -> None:
    """Every history gets a finite float32 score for every item."""
    score_NV = trial.scores(_histories())
    require(
        list(score_NV.shape) == [60, NUM_ITEMS], f"The scores of 60 histories have the shape {list(score_NV.shape)}."
    )
    require(score_NV.dtype == torch.float32, f"They are {score_NV.dtype}.")
    require(bool(score_NV.isfinite().all()), "They are not finite.")


def histories_of_one_event_and_of_unknown_items_are_scored(trial: Trial) -> None:
    """A history of one event, and one of items that training never had, gets finite scores, too."""
    short, strange = chains(10, NUM_ITEMS).drop_last(5), _histories()
    strange.items.fill_(UNKNOWN)
    for histories, what in ((short, "one event"), (strange, "unknown items")):
        score_NV = trial.scores(histories)
        finite = list(score_NV.shape) == [len(histories), NUM_ITEMS] and bool(score_NV.isfinite().all())
        require(finite, f"A history of {what} is not.")


def items_above_the_catalogue_are_unknown(trial: Trial) -> None:
    """An item that came up after the catalogue is read as the unknown item is, in training and in a history."""
    train, strange, unknown = chains(60, NUM_ITEMS), _histories(), _histories()
    for histories, id_ in ((strange, FIRST_ID + NUM_ITEMS), (unknown, UNKNOWN)):
        histories.items[::2] = id_
    strange_NV, unknown_NV = (_scores(trial.fit(train), histories) for histories in (strange, unknown))
    require(torch.equal(strange_NV, unknown_NV), f"Of histories with id {FIRST_ID + NUM_ITEMS} scores differ.")
    strange_NV, unknown_NV = (_scores(trial.fit(histories), train) for histories in (strange, unknown))
    require(torch.equal(strange_NV, unknown_NV), f"Fit on sessions with id {FIRST_ID + NUM_ITEMS} scores differ.")


def what_else_is_ranked_changes_nothing(trial: Trial) -> None:
    """A history is scored alike alone and in a batch, and an item alike in every tile."""
    baseline, histories = trial.fit(chains(60, NUM_ITEMS)), _histories()
    queries = baseline.queries(histories)
    whole = baseline.tile(queries, 0, NUM_ITEMS).clone()
    alone = baseline.tile(baseline.queries(histories.select(torch.tensor([7]))), 0, NUM_ITEMS)
    require(torch.allclose(alone[0], whole[7]), "A history alone is scored otherwise.")
    tile = baseline.tile(queries, 10, 20)
    require(torch.equal(tile, whole[:, 10:20]), "A tile is not those columns of the whole.")
    tile.fill_(-torch.inf)
    require(
        torch.equal(baseline.tile(queries, 0, NUM_ITEMS), whole),
        "Writing into a tile changes the scores: return a copy.",
    )
    rounding_NK = baseline.rounding(queries, torch.arange(60)[:, None] % NUM_ITEMS)
    sound = list(rounding_NK.shape) == [60, 1] and bool((rounding_NK >= 0).all() and rounding_NK.isfinite().all())
    require(sound, "Its `rounding` is no number of 0 or more for each score.")


def items_of_training_can_be_ranked(trial: Trial) -> None:
    """Items with a training event may be ranked, and no item else."""
    train = chains(3, NUM_ITEMS)
    expected_V = torch.zeros(NUM_ITEMS, dtype=torch.bool)
    expected_V[train.items.long() - FIRST_ID] = True
    require(torch.equal(trial.fit(train).rankable_V, expected_V), "`rankable_V` says otherwise.")


def the_same_sessions_give_the_same_scores(trial: Trial) -> None:
    """Fit twice on the same sessions, it scores the same, and leaves the sessions as they are."""
    train, before = chains(60, NUM_ITEMS), chains(60, NUM_ITEMS)
    first = trial.fit(train)
    require(torch.equal(train.items, before.items) and torch.equal(train.lengths, before.lengths), "It changes them.")
    torch.manual_seed(1)
    again = trial.fit(train)
    one, other = (baseline.tile(baseline.queries(_histories()), 0, NUM_ITEMS) for baseline in (first, again))
    require(torch.equal(one, other), "The scores differ.")


LAWS: tuple[Law, ...] = (
    every_history_gets_a_score_for_every_item,
    histories_of_one_event_and_of_unknown_items_are_scored,
    items_above_the_catalogue_are_unknown,
    what_else_is_ranked_changes_nothing,
    items_of_training_can_be_ranked,
    the_same_sessions_give_the_same_scores,
)


def _scores(baseline: Any, histories: Sessions) -> Tensor:
    scores_NV: Tensor = baseline.tile(baseline.queries(histories), 0, NUM_ITEMS)
    return scores_NV


def _histories() -> Sessions:
    return chains(60, NUM_ITEMS).drop_last(1)
