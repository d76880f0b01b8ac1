"""The model in service: loaded by the pointer, and changed over when that points elsewhere, while requests run.

A request is answered by one model from its first to its last session. The model of before answers until the new one is loaded
and has answered a question of its own; where that fails it stays, and why is said in the log, by /health and by a counter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from modeling.config import NEXT_ITEM
from modeling.service.api.log import Log
from modeling.service.api.metrics import Metrics
from modeling.service.popularity import Popularity
from modeling.service.recommender import Recommender
from modeling.service.rules import Rules
from schemas.columns import FIRST_ID, ITEM_ID, TIMESTAMP
from schemas.errors import InputError

AGAIN_SECONDS = 60.0  # after which a model that did not load is tried again
log = logging.getLogger("overnight.api")


@dataclass(frozen=True)
class Place:
    """Where a model is and what is known of it: its name, when it was made and put into service, how lists of it are shown."""

    name: str
    folder: Path
    created: datetime
    promoted: datetime | None = None
    keep_seen: bool = False
    past: Path | None = None
    recent: Path | None = None  # prepared sessions, whose newest days say what is popular


@dataclass(frozen=True)
class Loaded:
    """A model that answers, and what is popular, for sessions of which it knows nothing."""

    place: Place
    recommender: Recommender
    popularity: Popularity | None
    trained_V: Tensor  # which items have a training event, bool; the rest is known by features alone
    since: datetime
    log_form: Log = field(default_factory=Log)

    @property
    def hide_seen(self) -> bool:
        """Whether what a session holds is not recommended, where nobody says."""
        rules = self.recommender.rules
        return not self.place.keep_seen if rules is None or rules.hide_seen is None else rules.hide_seen

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns of events that it can read; all else in an event is left out."""
        sources = (column.source for column in self.recommender.schema.side_features)
        return frozenset({ITEM_ID, TIMESTAMP, *sources, *self.log_form.needs})


@dataclass(frozen=True)
class Fault:
    """Why the model by the pointer does not answer."""

    model: str
    error: str
    when: datetime
    monotonic: float


class InService:
    """The model that answers. `find` says where the pointer points to, and raises InputError where it cannot."""

    def __init__(
        self,
        find: Callable[[], Place],
        metrics: Metrics,
        *,
        log_form: Log | None = None,
        read_rules: Callable[[], Rules | None] = lambda: None,
        read_items: Callable[[], pl.DataFrame | None] = lambda: None,
        device: str | None = None,
    ) -> None:
        """`read_rules` gives the rules, `read_items` the item table, where it has changed since it was last called."""
        self._find, self._metrics, self._device, self._read_rules = find, metrics, device, read_rules
        self._read_items, self._log = read_items, log_form or Log()
        self.rules: Rules | None = None
        self.items: pl.DataFrame | None = None
        self.loaded: Loaded | None = None
        self.fault: Fault | None = None

    def load(self) -> None:
        """Load the model by the pointer.

        Raises:
            InputError: when there is none, or it cannot be loaded; and for rules that cannot be read, or that it cannot keep.
        """
        self.refresh_rules()
        self.refresh_items()
        self._use(self._loaded(self._find()))

    def refresh(self) -> bool:
        """Change over if the pointer points elsewhere; whether it did. Never raises: what fails is said in `fault`."""
        name = "the pointer"
        try:
            place = self._find()
            name = place.name
            if self.loaded is not None and place.folder == self.loaded.place.folder:
                if place != self.loaded.place:
                    self.loaded = replace(
                        self.loaded, place=place, popularity=_popularity(place, self.loaded.recommender)
                    )
                self._well()
                return False
            if self.fault and self.fault.model == name and time.monotonic() - self.fault.monotonic < AGAIN_SECONDS:
                return False
            self._use(self._loaded(place))
        except Exception as error:  # any error that a damaged folder causes: the model of before goes on
            self._failed(name, error)
            return False
        return True

    def refresh_items(self) -> bool:
        """Know the items that the item table lists by now, by their features, if the model can; whether that changed it.

        Raises:
            InputError: for a table that cannot be read; what was known stays.
        """
        table = self._read_items()
        if table is None:
            return False
        self.items = table
        if self.loaded is None or not self.loaded.recommender.model.inputs.items.stands_without_ids:
            return False
        self._use(self._loaded(self.loaded.place))
        return True

    def refresh_rules(self) -> bool:
        """Keep other rules if these have changed; whether they did.

        Raises:
            InputError: for rules that cannot be read or kept; those of before stay.
        """
        rules = self._read_rules()
        if rules is None:
            return False
        if self.loaded is not None:
            self.loaded.recommender.set_rules(rules)
            log.info("rules have changed")
        self.rules = rules
        return True

    def _loaded(self, place: Place) -> Loaded:
        recommender = Recommender(place.folder, self._device, place.past, borrow=False, rules=self.rules)
        trained_V = torch.zeros(0, dtype=torch.bool)
        if NEXT_ITEM in recommender.model.heads:
            trained_V = recommender.model.next_item.popularity_V.cpu() > 0
            if self.items is not None and recommender.model.inputs.items.stands_without_ids:
                added = _add_items(recommender, self.items)
                trained_V = torch.cat([trained_V, torch.zeros(added, dtype=torch.bool)])
        _try(recommender)
        return Loaded(place, recommender, _popularity(place, recommender), trained_V, datetime.now(UTC), self._log)

    def _use(self, loaded: Loaded) -> None:
        before, self.loaded = self.loaded, loaded
        name = loaded.place.name
        log.info("model %s answers%s", name, f", in place of {before.place.name}" if before else "")
        if before is not None:
            self._metrics.info.remove(before.place.name)
        self._metrics.info.labels(name).set(1)
        self._metrics.created.set(loaded.place.created.timestamp())
        self._metrics.loads.inc()
        self._well()

    def _well(self) -> None:
        self.fault = None
        self._metrics.current.set(1)

    def _failed(self, name: str, error: Exception) -> None:
        text = " ".join(str(error).split()) or type(error).__name__
        new = self.fault is None or (self.fault.model, self.fault.error) != (name, text)
        self.fault = Fault(name, text, datetime.now(UTC), time.monotonic())
        self._metrics.current.set(0)
        if new:
            stays = self.loaded.place.name if self.loaded else "no model"
            log.error("%s cannot be used, %s goes on: %s", name, stays, text)
            self._metrics.failures.inc()


def _add_items(recommender: Recommender, table: pl.DataFrame) -> int:
    """Make the items of a table that the model does not have scorable by their features; how many."""
    try:
        added, _ = recommender.add_items(table)
    except InputError as error:
        log.warning("new items of the item table are not recommended: %s", error)
        return 0
    log.info("%d items of the item table are recommended by their features alone", added)
    return added


def _popularity(place: Place, recommender: Recommender) -> Popularity | None:
    return Popularity(recommender, place.recent) if NEXT_ITEM in recommender.model.heads else None


def _try(recommender: Recommender) -> None:
    """Ask once: what a model cannot answer shows before it is used, and all that is read late is read by then."""
    items = recommender.items.drop_nulls("value")
    if not items.height:
        raise InputError(f"{recommender.folder}: the model has no item.")
    events = items.head(2).select(items["value"].head(2).alias(ITEM_ID))
    for column in recommender.schema.side_features:
        if column.vocabulary:
            recommender.vocabularies.of(column)
    sessions = recommender.sessions_of_events(events)[0]
    if NEXT_ITEM in recommender.model.heads:
        ids_NK, _ = recommender.ranked(sessions, 1)
        if recommender.rules is None and not bool((ids_NK >= FIRST_ID).any()):
            raise InputError(f"{recommender.folder}: the model recommends nothing for a session of two items.")
    if recommender.model.label_heads:
        predicted = recommender.predict(sessions)
        assert all(bool(torch.isfinite(value_N).all()) for value_N in predicted.values())
