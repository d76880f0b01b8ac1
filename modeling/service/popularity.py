"""What is recommended where a model knows nothing of a session, and behind its list where that is short.

The chain, first to last; each item says by `source` which of them it comes from:

category   what is taken most of the category of the session's newest event that has one
hour       what was taken most at this hour of the day, on the newest days
recent     what was taken most on the newest days
popular    what has most training events

An item that may not be recommended, by rules or because no training event has it, comes from none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from modeling.model import SequenceModel
from modeling.service.recommender import ITEMS, Recommender
from modeling.sessions import Sessions
from modeling.vocabularies import read_table
from schemas.columns import COUNT, END, FIRST_ID, ID, ITEM_ID, VALUE
from schemas.features import FeatureColumn

CATEGORY, HOUR, RECENT, POPULAR = "category", "hour", "recent", "popular"
DAYS = 7  # newest days that are counted
MOST = 2000  # items held of each category and hour
PART = 4096  # items looked at together
SESSIONS = "sessions"
Columns = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
NOTHING: Columns = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Moment:
    """What is known of a session: its category's id, and when it is asked for."""

    category: int | None = None
    when: datetime | None = None


class Popularity:
    """The chain for one model. Items are columns of its catalogue."""

    def __init__(self, recommender: Recommender, recent: Path | None = None, days: int = DAYS) -> None:
        """`recent` is a folder of prepared sessions, such as ROOT/sessions/1f2e, whose newest days are counted."""
        self.column = category_of(recommender)
        self.zone = ZoneInfo(recommender.schema.time_zone)
        head = recommender.model.next_item
        self._all: Columns = head.popularity_V.cpu().argsort(descending=True, stable=True).numpy()
        counts = _counts(recommender, recent, days) if recent else None
        self._recent = _most(counts.group_by("column").agg(pl.col(COUNT).sum())) if counts is not None else NOTHING
        self._by_hour = _lists(counts, HOUR) if counts is not None else {}
        self._by_category = _of_categories(recommender, self.column, counts)

    def fill(
        self, moment: Moment, count: int, without: Collection[int], allowed_V: Mask, may_follow: Callable[[int], bool]
    ) -> list[tuple[int, str]]:
        """`count` columns and their sources, or as many as there are.

        None of them is in `without` or not among the `allowed_V`, and `may_follow` is true of each when it is taken.
        """
        taken: dict[int, str] = {}
        for source, order in self._chain(moment):
            for first in range(0, len(order), PART):
                part = order[first : first + PART]
                for column in part[allowed_V[part]].tolist():
                    if len(taken) == count:
                        return list(taken.items())
                    if column not in taken and column not in without and may_follow(column):
                        taken[column] = source
        return list(taken.items())

    def _chain(self, moment: Moment) -> Iterator[tuple[str, Columns]]:
        if moment.category is not None:
            yield CATEGORY, self._by_category.get(moment.category, NOTHING)
        when = moment.when or datetime.now(UTC)
        local = when.astimezone(self.zone) if when.tzinfo else when
        yield HOUR, self._by_hour.get(local.hour, NOTHING)
        yield RECENT, self._recent
        yield POPULAR, self._all


def readable(model: SequenceModel, sessions: Sessions) -> Tensor:
    """Of which sessions a model knows anything, bool: an item, a past, or features of unknown items that it can stand on."""
    session_E, event_E = sessions.event_index()
    known_N = torch.zeros(len(sessions), dtype=torch.bool)
    known_N[session_E[sessions.items[event_E] >= FIRST_ID]] = True
    if sessions.past is not None:
        known_N |= sessions.past.lengths > 0
    return known_N | (sessions.places > 0) if model.inputs.items.stands_without_ids else known_N


@dataclass(frozen=True)
class Filling:
    """Fills lists of sessions with what is popular, under the rules of the recommender."""

    recommender: Recommender
    popularity: Popularity
    hide_seen: bool

    def fill(
        self, sessions: Sessions, place: int, count: int, taken: set[int], when: datetime | None
    ) -> list[tuple[int, str]]:
        """`count` columns and their sources for the session at a place whose list holds the columns `taken` already."""
        ruled, allowed_V = self.recommender.ruled, self.recommender.rankable_V.cpu().numpy()
        without = taken | (_columns_of(sessions, place) if self.hide_seen else set())
        if ruled is not None:
            without |= ruled.bought_in(sessions.select(torch.tensor([place])))
        may_follow = ruled.may_follow(taken) if ruled is not None else _any
        moment = Moment(self._category(sessions, place), when)
        return self.popularity.fill(moment, count, without, allowed_V, may_follow)

    def _category(self, sessions: Sessions, place: int) -> int | None:
        """The category of the newest event that has one."""
        column = self.popularity.column
        if column is None or column.name not in sessions.events:
            return None
        first, length = int(sessions.starts[place]), int(sessions.lengths[place])
        ids = [number for number in sessions.events[column.name][first : first + length].tolist() if number >= FIRST_ID]
        return int(ids[-1]) if ids else None


def popular_ids(
    filling: Filling, sessions: Sessions, places: Tensor, k: int, times: Sequence[datetime] | None = None
) -> Tensor:
    """The encoded ids of what is popular for each of these sessions, [N, k], 0 behind the last; `times` are of all sessions."""
    ids_NK = torch.zeros(len(places), k, dtype=torch.long)
    for row, place in enumerate(places.tolist()):
        columns = [column for column, _ in filling.fill(sessions, place, k, set(), times[place] if times else None)]
        ids_NK[row, : len(columns)] = torch.tensor(columns, dtype=torch.long) + FIRST_ID
    return ids_NK


def _any(column: int) -> bool:
    return True


def _columns_of(sessions: Sessions, place: int) -> set[int]:
    first, length = int(sessions.starts[place]), int(sessions.lengths[place])
    return {item - FIRST_ID for item in sessions.items[first : first + length].tolist()}


def category_of(recommender: Recommender) -> FeatureColumn | None:
    """The feature that says of which category an item is: the one of that name, else the first that is the item's own."""
    ours = [
        column
        for column in recommender.schema.side_features
        if column.kind == "categorical"
        and not column.many
        and column.per == "event"
        and column.name in recommender.items
    ]
    named = [column for column in ours if column.name == CATEGORY]
    return next((column for column in (*named, *ours) if column.per_item), None)


def _counts(recommender: Recommender, prepared: Path, days: int) -> pl.DataFrame:
    """How often each item was taken at each hour of the newest days: column, hour, count."""
    folders = sorted(folder for folder in (prepared / SESSIONS).glob("day=*") if any(folder.glob("*.parquet")))[-days:]
    nothing = pl.DataFrame(schema={"column": pl.Int64, HOUR: pl.Int8, COUNT: pl.UInt32})
    if not folders:
        return nothing
    files = [file for folder in folders for file in sorted(folder.glob("*.parquet"))]
    rows = pl.scan_parquet(files, glob=False, hive_partitioning=False)
    if END not in rows.collect_schema().names():
        return nothing
    zone = recommender.schema.time_zone
    hour = pl.col(END).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").dt.convert_time_zone(zone).dt.hour()
    taken = (
        rows.select(pl.col(ITEM_ID), hour.alias(HOUR))
        .explode(ITEM_ID)
        .group_by(ITEM_ID, HOUR)
        .agg(pl.len().alias(COUNT))
    )
    ids = read_table(prepared / ITEMS).select(pl.col(ID).cast(pl.Int64).alias(ITEM_ID), VALUE)
    ours = recommender.items.filter(pl.col(ID) >= FIRST_ID).select(
        VALUE, (pl.col(ID).cast(pl.Int64) - FIRST_ID).alias("column")
    )
    named = taken.collect().with_columns(pl.col(ITEM_ID).cast(pl.Int64)).join(ids, on=ITEM_ID)
    return named.join(ours, on=VALUE).select("column", HOUR, COUNT)


def _most(counts: pl.DataFrame) -> Columns:
    """Columns by their counts, most first, of equal ones the lower first."""
    order = counts.sort(COUNT, "column", descending=[True, False])
    return order["column"].cast(pl.Int64).to_numpy()


def _lists(counts: pl.DataFrame, key: str) -> dict[int, Columns]:
    return {int(name[0]): _most(rows)[:MOST] for name, rows in counts.drop_nulls(key).group_by([key])}


def _of_categories(
    recommender: Recommender, category: FeatureColumn | None, counts: pl.DataFrame | None
) -> dict[int, Columns]:
    """The items of each category, by how often they were taken on the newest days, then in training."""
    if category is None:
        return {}
    items = recommender.items.filter(pl.col(ID) >= FIRST_ID).select(
        (pl.col(ID).cast(pl.Int64) - FIRST_ID).alias("column"), pl.col(category.name).alias(CATEGORY)
    )
    popularity_V = recommender.model.next_item.popularity_V.cpu().double().numpy()
    trained = pl.DataFrame(
        {"column": range(len(popularity_V)), "trained": popularity_V}, schema_overrides={"column": pl.Int64}
    )
    items = items.join(trained, on="column", how="left")
    if counts is not None:
        items = items.join(counts.group_by("column").agg(pl.col(COUNT).sum()), on="column", how="left")
    else:
        items = items.with_columns(pl.lit(0).alias(COUNT))
    # The counts of the newest days decide; training events are a fraction behind the point.
    behind = pl.col("trained").fill_null(0.0) / (1.0 + pl.col("trained").max())
    return _lists(items.with_columns(pl.col(COUNT).fill_null(0) + behind), CATEGORY)
