"""Fitted state of features: read and written, merged with later days, made anew from some days.

Statistics are what rows of each day gave: `day`, `value` if by value, and what the encoder counts. State is what they add up
to over days, without `day`; of a vocabulary, also the ids. Both are tables by the name `Feature.state_name` gives:

    {"item_id": (value, count, id, admitted), "price.1": (count, sum, squares), "popular.0": (value, count)}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from preprocessing.encoders import Encoder
from preprocessing.encoders.category import Category
from preprocessing.features.feature import Feature, FittedFeature
from preprocessing.frames import write
from preprocessing.vocabulary import recount
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import COUNT, DAY, VALUE
from schemas.errors import InputError

FeatureState = dict[str, pl.DataFrame]
Statistics = dict[str, pl.DataFrame]
KIND = "states"
FITTED, STATISTICS, ITEMS, ITEMS_BY_DAY = "fitted", "statistics", "items.parquet", "items_by_day.parquet"


@dataclass(frozen=True)
class State:
    """Everything that the next day needs of the days before it, but for open events."""

    fitted: FeatureState = field(default_factory=dict)
    statistics: Statistics = field(default_factory=dict)
    """Of each day since the state before."""
    items: pl.DataFrame | None = None
    """Of each item id: when it was last seen, and its features then."""
    items_by_day: pl.DataFrame | None = None
    """The same of each day since the state before."""

    def write(self, artifacts: Artifacts, state_id: str, facts: dict[str, Any]) -> Manifest:
        """Keep it as `states/<id>`: JSON and Parquet."""
        with artifacts.write(KIND, state_id) as draft:
            for folder, tables in ((FITTED, self.fitted), (STATISTICS, self.statistics)):
                for name, table in tables.items():
                    write(table, draft.folder / folder / f"{name}.parquet")
            for name, items in ((ITEMS, self.items), (ITEMS_BY_DAY, self.items_by_day)):
                if items is not None:
                    write(items, draft.folder / name)
            draft.facts = facts
        return draft.manifest

    @classmethod
    def read(cls, artifacts: Artifacts, name: str) -> State:
        """The state `states/<id>`; an empty one without a name.

        Raises:
            InputError: when it is missing or damaged.
        """
        if not name:
            return cls()
        folder = artifacts.get(name).folder
        items = [folder / name for name in (ITEMS, ITEMS_BY_DAY)]
        read = [pl.read_parquet(file, glob=False) if file.is_file() else None for file in items]
        return cls(_tables(folder / FITTED), _tables(folder / STATISTICS), *read)

    def statistics_of(self, days: Sequence[date]) -> Statistics:
        """The statistics of these days."""
        return {name: table.filter(pl.col(DAY).is_in(days)) for name, table in self.statistics.items()}


def _tables(folder: Path) -> dict[str, pl.DataFrame]:
    return {file.stem: pl.read_parquet(file, glob=False) for file in sorted(folder.glob("*.parquet"))}


def encoders_by_state(features: Sequence[Feature]) -> dict[str, Encoder]:
    """The encoders that are fit to something, by the name of their state."""
    return {
        name: encoder
        for feature in features
        for place, encoder in enumerate(feature.encoders)
        if (name := feature.state_name(place))
    }


def merge(features: Sequence[Feature], state: FeatureState, statistics: Statistics) -> FeatureState:
    """The state after the statistics, in parts, of later days; what they have nothing of stays as it is.

    {"price.0": count 2, sum 6} and {"price.0": day 2, count 1, sum 9} -> {"price.0": count 3, sum 15}

    Raises:
        InputError: when values are text in one of both and something else in the other, as an item table may become.
    """
    encoders = encoders_by_state(features)
    for name, parts in statistics.items():
        _check_values(name, state.get(name), parts)
    return state | {name: encoders[name].merge(state.get(name), parts) for name, parts in statistics.items()}


def _check_values(name: str, state: pl.DataFrame | None, parts: pl.DataFrame) -> None:
    before, now = (table.schema.get(VALUE, pl.Null) if table is not None else pl.Null for table in (state, parts))
    if pl.Null not in (before, now) and (before == pl.String) != (now == pl.String):
        raise InputError(
            f"Feature {name.partition('.')[0]!r}: its column held {before} on finished days and holds {now} now, so no value "
            "would be the same as before. Write the column as before, or declare its type (items.types or users.types)."
        )


def fit_next(
    features: Sequence[FittedFeature], before: FeatureState, statistics: Statistics, after: FeatureState
) -> list[FittedFeature]:
    """The features with the lookup table of their next encoder, of those that `statistics` has any of.

    `before` is the state before the days of `statistics`, `after` the one after them.
    """
    fitted = []
    for feature in features:
        encoder, name = feature.next_to_fit, feature.state_name
        if encoder and name in statistics:
            feature = feature.with_table(encoder.lookup(before.get(name), statistics[name], after[name]))
        fitted.append(feature)
    return fitted


def state_as_of(
    features: Sequence[Feature],
    day: date,
    statistics: Statistics,
    state_now: FeatureState,
    start: FeatureState | None = None,
) -> FeatureState:
    """The state that `day` is transformed with: that of the days strictly before it.

    Numbers are those of these days in `statistics`. Categories keep the ids of `state_now`, as far as they were admitted
    before `day`; their counts are those of these days. `start` and `state_now` as in `fold`.
    """
    return _fold(features, _days(statistics, pl.col(DAY) < day), state_now, start, before=day)


def without_day(
    features: Sequence[Feature],
    day: date,
    statistics: Statistics,
    state_now: FeatureState,
    start: FeatureState | None = None,
) -> FeatureState:
    """The state of all days of `statistics` but one, which is to be done again; its ids stay. Others as in `fold`."""
    return _fold(features, _days(statistics, pl.col(DAY) != day), state_now, start)


def fold(
    features: Sequence[Feature], statistics: Statistics, state_now: FeatureState, start: FeatureState | None = None
) -> FeatureState:
    """The state of the days in `statistics` alone.

    Ids are those of `state_now`, of values that no day counts too: no id is ever given to another value. What is not kept by
    day, such as when an item was first seen, is that of `state_now`: later days cannot have changed it for earlier events.
    `start` is the state before any day: vocabularies that were taken over, with their counts.

    Of vocabulary (a, count 3, id 3), (b, count 1, id 4) and statistics (day 1, a, 2), (day 2, a, 1), (day 2, b, 1), those of
    day 1 give (a, count 2, id 3), (b, count 0, id 4).
    """
    return _fold(features, statistics, state_now, start)


def _fold(
    features: Sequence[Feature],
    statistics: Statistics,
    state_now: FeatureState,
    start: FeatureState | None,
    before: date | None = None,
) -> FeatureState:
    folded = dict(state_now)
    for name, encoder in encoders_by_state(features).items():
        table = statistics.get(name)
        if not encoder.by_day:
            continue
        if isinstance(encoder, Category) and name in state_now:
            counts = [part.select(VALUE, COUNT) for part in ((start or {}).get(name), table) if part is not None]
            none = state_now[name].select(VALUE, COUNT).clear()
            folded[name] = recount(state_now[name], pl.concat([none, *counts], how="vertical_relaxed"), before)
        elif table is not None and table.height:
            folded[name] = encoder.merge(None, table)
        else:  # no day gave a number: as before the first one
            folded.pop(name, None)
    return folded


def _days(statistics: Statistics, days: pl.Expr) -> Statistics:
    return {name: table.filter(days) for name, table in statistics.items()}
