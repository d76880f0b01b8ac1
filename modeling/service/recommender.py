"""Recommend from a model folder alone: the one path by which sessions become ranked items, in service and in evaluation.

Examples that run: docs/recommender.md. N histories, K recommendations, R rows of a table of lists.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from modeling.evaluation.ranking import top_k
from modeling.model import SequenceModel
from modeling.scoring import ModelScorer, predict
from modeling.service.encoding import Vocabularies
from modeling.service.histories import Catalogue, OfEvents, borrowed, features_read, from_events, from_items
from modeling.service.new_items import add_items
from modeling.service.pasts import UserPasts, microseconds, moments
from modeling.service.reading import CosineScorer, Reason, falls, parts_of, reasons, require_items
from modeling.service.rules import Ruled, Rules
from modeling.service.values import as_type
from modeling.sessions import Sessions
from modeling.sessions.past import SECOND, Ints
from modeling.vocabularies import raw_column, raw_items, raw_lists, read_table
from schemas.columns import FIRST_ID, SESSION_ID, USER_ID
from schemas.errors import InputError
from schemas.features import FeatureSchema

ITEMS = "items.parquet"
KEYS = (SESSION_ID, USER_ID)  # whose events are a history, the first that is there
Raw = Sequence[Sequence[Any]] | pl.DataFrame  # lists of raw item ids, oldest first, or a table of raw events


class Recommender:
    """A model folder ready to recommend: it needs nothing of the run that made it.

    Histories are `Sessions`, or raw: a list of item ids for each session, oldest first, or a table of raw events as
    `sessions_of_events` takes it. Items that the model does not have are read as unknown; `histories` names them.

    A model that reads past sessions (`inputs.past_events`) finds those of users in `past`, a folder of prepared sessions such
    as ROOT/sessions/1f2e; without it, it recommends from the current session alone.
    """

    def __init__(
        self,
        folder: Path,
        device: str | None = None,
        past: Path | None = None,
        *,
        borrow: bool = True,
        rules: Rules | None = None,
    ) -> None:
        """Without `borrow`, features of the moment that are not given are read as unknown, never those of another's event.

        Lists keep the `rules`, if there are any. Their `hide_seen` is for whoever calls, as `filter_seen` is.

        Raises:
            InputError: where a folder is not what it should be, and for `past` of a model that reads none.
        """
        self.borrow, self.rules = borrow, rules
        self.folder = folder
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = SequenceModel.load(folder).to(self.device)
        self.schema: FeatureSchema = self.model.schema
        self.items = read_table(folder / ITEMS)
        count = self.model.settings.inputs.past_events
        if past is not None and not count:
            raise InputError(f"{folder}: this model reads no past sessions (inputs.past_events is 0).")
        self.pasts = UserPasts(past, folder, count) if past is not None else None

    @cached_property
    def scorer(self) -> ModelScorer:
        """The model as ranking sees it; raises InputError where it has no head for items."""
        return ModelScorer(self.model)

    @cached_property
    def ruled(self) -> Ruled | None:
        """The rules of this model; raises InputError for those that it cannot keep."""
        if self.rules is None:
            return None
        return Ruled(self.rules, self.scorer, self.items, self.schema, self.vocabularies)

    def allowed(self, items: pl.Series) -> pl.Series:
        """Of raw ids those that rules let be recommended, bool; those that the model does not have, too."""
        if self.ruled is None:
            return pl.repeat(True, len(items), eager=True)
        given = as_type(items, self.items.schema["value"], "lists")
        column = self._catalogue.join(given)["id"].cast(pl.Int64) - FIRST_ID
        return self.ruled.allowed(given, column.set(column < 0, None))

    def set_rules(self, rules: Rules | None) -> None:
        """Keep other rules from now on, in one step: lists that another thread makes keep those of before or these.

        Raises:
            InputError: for rules that this model cannot keep; those of before stay.
        """
        ruled = Ruled(rules, self.scorer, self.items, self.schema, self.vocabularies) if rules else None
        self.rules, self.__dict__["ruled"] = rules, ruled

    @cached_property
    def _by_cosine(self) -> CosineScorer:
        """Made once: it holds all item vectors at length 1."""
        return CosineScorer(self.scorer)

    def predict(self, histories: Sessions | Raw) -> dict[str, Tensor]:
        """What each label head predicts after each history, in the label's own unit; float32 of shape [N], by label."""
        histories = self._sessions(histories)
        _require_events(histories)
        return predict(self.model, histories.to(self.device))

    def recommend(self, histories: Sessions | Raw, k: int = 10, *, filter_seen: bool = False) -> list[list[Any]]:
        """The raw ids of the k best next items per history, best first; fewer where fewer are left.

        Raises:
            InputError: for an empty history (`popular` is for users without one), k below 1, or a model without the head
                next_item.
        """
        ids_NK, _ = self.ranked(self._sessions(histories), k, filter_seen=filter_seen)
        return raw_lists(self.items, ids_NK)

    def recommend_table(self, events: pl.DataFrame, k: int = 10, *, filter_seen: bool = False) -> pl.DataFrame:
        """Raw events -> rows of `session_id` or `user_id` (whichever says whose they are), `rank` from 1, `item` and `score`.

        Raises:
            InputError: as `recommend` does, and for events that do not fit the model.
        """
        histories, _, keys = self.sessions_of_events(events)
        key = next((name for name in KEYS if name in events.columns), None)
        whose = pl.DataFrame({key: pl.Series(keys, dtype=events.schema[key])} if key else {"history": range(len(keys))})
        return self.table_of(whose, *self.ranked(histories, k, filter_seen=filter_seen))

    def table_of(self, whose: pl.DataFrame, ids_NK: Tensor, scores_NK: Tensor) -> pl.DataFrame:
        """What `ranked` gives, a row an item: the columns of `whose`, a row a history, then `rank`, `item` and `score`."""
        ids_NK, scores_NK = ids_NK.cpu(), scores_NK.cpu()
        row_R, place_R = (ids_NK >= FIRST_ID).nonzero(as_tuple=True)
        return whose[row_R.numpy()].with_columns(
            pl.Series("rank", place_R.numpy() + 1, dtype=pl.Int32),
            raw_column(self.items, ids_NK[row_R, place_R]).alias("item"),
            pl.Series("score", scores_NK[row_R, place_R].numpy(), dtype=pl.Float32),
        )

    @property
    def rankable_V(self) -> Tensor:
        """Which items may be recommended, bool: those with a training event or appended, as far as rules allow them."""
        ruled = self.ruled
        return self.scorer.rankable_V if ruled is None else ruled.scorer.rankable_V

    def popular(self, k: int = 10) -> list[Any]:
        """The raw ids of the k items with most training events, most first, of ties the lower id: for users without a history.

        Raises:
            InputError: for k below 1, or a model without the head next_item.
        """
        _require_count(k)
        rankable_V = self.rankable_V.cpu()
        order_V = self.model.next_item.popularity_V.cpu().argsort(descending=True, stable=True)
        return self.raw_items(order_V[rankable_V[order_V]][: int(k)] + FIRST_ID)

    def ranked(self, histories: Sessions, k: int = 10, *, filter_seen: bool = False) -> tuple[Tensor, Tensor]:
        """The encoded ids of the k best next items per history, best first, and their scores, [N, K]; id 0 where none is left.

        Raises:
            InputError: for an empty history, k below 1, or a model without the head next_item.
        """
        _require_count(k)
        _require_events(histories)
        if not len(histories):
            return torch.empty(0, int(k), dtype=torch.long), torch.empty(0, int(k))
        if self.ruled is not None:
            return self.ruled.ranked(histories.to(self.device), int(k), filter_seen=filter_seen)
        return top_k(self.scorer, histories.to(self.device), int(k), filter_seen=filter_seen)

    def similar(self, items: Sequence[Any], k: int = 10) -> list[list[tuple[Any, float]]]:
        """Of each raw item id the k items whose vectors are nearest, and their cosines, nearest first; never the item itself.

        Raises:
            InputError: for an item that is not in the catalogue, with names that are near, or that no training event has.
        """
        if not items:
            _require_count(k)
            return []
        ids_NK, cosine_NK = self._nearest(items, k)
        nearest = raw_lists(self.items, ids_NK)
        return [list(zip(row, cosines, strict=False)) for row, cosines in zip(nearest, cosine_NK.tolist(), strict=True)]

    def similar_table(self, items: pl.Series, k: int = 10) -> pl.DataFrame:
        """As `similar`, for many items: rows of `item_id`, `rank` from 1, `similar_id` and `cosine`."""
        ids_NK, cosine_NK = self._nearest(items.to_list(), k)
        row, place = (ids_NK >= FIRST_ID).nonzero(as_tuple=True)
        return pl.DataFrame(
            {
                "item_id": items.gather(row.cpu().numpy()),
                "rank": pl.Series(place.cpu().numpy() + 1, dtype=pl.Int32),
                "similar_id": raw_column(self.items, ids_NK[row, place]),
                "cosine": cosine_NK[row, place].cpu().numpy(),
            }
        )

    def _nearest(self, items: Sequence[Any], k: int) -> tuple[Tensor, Tensor]:
        """Encoded ids of the k nearest items of each, 0 where none is left, and their cosines, [N, K]."""
        asked, unknown = self.histories([[item] for item in items])
        require_items(items, unknown, self.items["value"].to_list() if unknown else ())
        _require_count(k)
        untrained_N = ~self.scorer.rankable_V.cpu()[asked.item_from_end(0) - FIRST_ID]
        if bool(untrained_N.any()):
            item = items[int(untrained_N.nonzero()[0])]
            raise InputError(f"Item {item!r} has no training event, so that its vector says nothing of it.")
        scorer = self._by_cosine
        if self.ruled is not None:
            scorer = copy.copy(scorer)
            scorer.rankable_V = self.rankable_V
        return top_k(scorer, asked.to(self.device), int(k), filter_seen=True)

    def because(
        self,
        histories: Sessions | Raw,
        k: int = 10,
        *,
        filter_seen: bool = False,
        events: int = 3,
        newest: int | None = None,
    ) -> list[list[Reason]]:
        """The k best next items per history, each with the `events` events of the history that it leans on most.

        Each event that the model reads is left out once; the more an item's score falls, the more it leans on that event. One
        below 0 speaks against it. A score is the logit that lists are ordered by. With `newest` only so many of the newest
        events are left out and named, which bounds what long histories cost.

        Raises:
            InputError: as `ranked` does, and for `events` or `newest` below 1.
        """
        _require_count(events, "events")
        if newest is not None:
            _require_count(newest, "newest")
        histories = self._sessions(histories).to(self.device)
        recent = histories.most_recent(self.model.longest)
        answers: list[list[Reason]] = []
        for part in parts_of(recent.lengths):
            some = recent.select(part)
            ids_NK, _ = self.ranked(histories.select(part), k, filter_seen=filter_seen)  # what was seen long ago counts
            leaning = falls(self.scorer, some, ids_NK, self.model.inputs.time, newest)
            _, event_E = some.event_index()
            raw_E = self.raw_items(some.items[event_E].long())
            answers += reasons(
                some,
                raw_lists(self.items, ids_NK),
                raw_E,
                leaning,
                int(events) if newest is None else min(int(events), int(newest)),
            )
        return answers

    def raw_items(self, ids: Tensor) -> list[Any]:
        """Raw item ids of encoded ones; None for those that are not in the catalogue."""
        return raw_items(self.items, ids)

    def add_items(self, table: pl.DataFrame) -> tuple[int, int]:
        """Make items scorable that nobody clicked yet; how many were added, and how many of `table` were there already.

        `table` holds raw item ids and the raw columns that item features are made from, named as the dataset names them; a
        column of pretrained vectors may be given with them. Items of the catalogue stay. The folder does not change.

        Raises:
            InputError: when the model knows items by their ids alone, or the table lacks what their vectors are made of.
        """
        rows = add_items(self.model, self.items, table, self.folder)
        self.schema, self.scorer = self.model.schema, ModelScorer(self.model)
        for name in ("_by_cosine", "_catalogue", "ruled"):  # these have the items of before
            self.__dict__.pop(name, None)
        self.items = pl.concat([self.items, rows], how="diagonal_relaxed")
        return rows.height, table.height - rows.height

    def histories(
        self,
        raw: Raw,
        users: Sequence[Any] | None = None,
        at: datetime | Sequence[datetime] | None = None,
    ) -> tuple[Sessions, list[Any]]:
        """Sessions, and the item ids among them that the model does not have, which are read as unknown.

        `raw` is a list of item ids, oldest first, for each session; or a table of raw events, as `sessions_of_events` takes it.
        Of ids alone, features of the moment are those of the last training event with the item (`borrowed` names them), or
        without `borrow` unknown.

        With `users`, one for each list, their past sessions are read before it: those that ended before `at`, when the session
        began (left out: now; in UTC where it has no zone). A list may be empty then: what is recommended follows from the past.

        Raises:
            InputError: for ids that do not fit, and `users` without prepared sessions.
        """
        if isinstance(raw, pl.DataFrame):
            if users is not None or at is not None:
                raise InputError(
                    "A table of events says whose they are (user_id) and when (timestamp): leave out users, at."
                )
            return self.sessions_of_events(raw)[:2]
        sessions, unknown = from_items(raw, self._catalogue)
        if users is None:
            return sessions, unknown
        if len(users) != len(sessions):
            raise InputError(f"There are {len(sessions)} histories and {len(users)} users: give one for each.")
        return self.with_past(sessions, pl.Series(users), moments(at, len(sessions))), unknown

    def with_past(self, sessions: Sessions, users: pl.Series, begins: Ints) -> Sessions:
        """Sessions with the past of their users, which ended before they began, in microseconds.

        Raises:
            InputError: where the recommender has no past sessions.
        """
        if self.pasts is None:
            raise InputError(
                f"{self.folder}: past sessions of users are read from prepared sessions: Recommender(folder, past=FOLDER)."
                if self.model.settings.inputs.past_events
                else f"{self.folder}: this model reads no past sessions (inputs.past_events is 0): leave out the users."
            )
        return self.pasts.before(sessions, users, begins)

    def sessions_of_events(
        self, table: pl.DataFrame, asked_at: datetime | Sequence[datetime] | None = None
    ) -> tuple[Sessions, list[Any], list[Any]]:
        """Sessions of raw events with the columns that the dataset names, unknown item ids, and each session's key.

        Rows of one `session_id`, else of one `user_id`, are a session, else all are; in order of `timestamp`, if there is one.
        With `user_id` and prepared sessions, the past of users is read before: what ended before the session's first event.

        A model with `inputs.query_time` reads when it is asked: `asked_at`, for all or for each session, in UTC where it has no
        zone; left out, as long after the last event as was usual in training.

        Raises:
            InputError: for values that do not fit, and `asked_at` of a model that does not read it, without times, or before an
                event.
        """
        read = self.read_events(table, asked_at)
        return read.sessions, read.missing, read.keys

    def read_events(self, table: pl.DataFrame, asked_at: datetime | Sequence[datetime] | None = None) -> OfEvents:
        """As `sessions_of_events`, with all that is said of each session."""
        read = from_events(table, self._catalogue)
        sessions = read.sessions
        if self.pasts is not None and read.users is not None:
            begins = moments(None, len(sessions)) if read.begins is None else microseconds(read.begins)
            sessions = self.with_past(sessions, read.users, begins)
        if asked_at is not None:
            sessions = replace(sessions, asked=self._asked(read, asked_at))
        return replace(read, sessions=sessions)

    def _asked(self, read: OfEvents, asked_at: datetime | Sequence[datetime]) -> Tensor:
        """Seconds from the last event of each session to when it is asked, float64."""
        if not self.model.settings.inputs.query_time:
            raise InputError(
                f"{self.folder}: this model does not read when it is asked (inputs.query_time): leave out asked_at."
            )
        if read.ends is None:
            raise InputError("asked_at needs the column timestamp of events: it is read as seconds after the last one.")
        seconds_N = (moments(asked_at, len(read.ends)) - microseconds(read.ends)) / SECOND
        if len(seconds_N) and seconds_N.min() < 0:
            row = int(seconds_N.argmin())
            raise InputError(f"asked_at is before the last event of session {read.keys[row]!r}, at {read.ends[row]}.")
        return torch.from_numpy(seconds_N)

    def borrowed(self, given: Collection[str] = ()) -> list[str]:
        """The features that the model reads of a moment and that columns of events with these names do not say."""
        return borrowed(features_read(self.model), given)

    @property
    def vocabularies(self) -> Vocabularies:
        """The id maps of its folder."""
        return self._catalogue.vocabularies

    def _sessions(self, histories: Sessions | Raw) -> Sessions:
        return histories if isinstance(histories, Sessions) else self.histories(histories)[0]

    @cached_property
    def _catalogue(self) -> Catalogue:
        return Catalogue(self.schema, self.items, self.folder, borrow=self.borrow)


def _require_count(given: Any, name: str = "k") -> None:
    if isinstance(given, bool) or not isinstance(given, Integral) or given < 1:
        raise InputError(f"{name} must be an integer from 1, got {given!r}.")


def _require_events(histories: Sessions) -> None:
    if not bool((histories.places > 0).all()):
        empty = int((histories.places <= 0).nonzero()[0])
        raise InputError(
            f"A history needs at least one item to recommend from; number {empty + 1} of {len(histories):,} has none. Leave it "
            "out, or take the most popular items (Recommender.popular)."
        )
