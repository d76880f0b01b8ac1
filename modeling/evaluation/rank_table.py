"""Ranks that are kept: `ranks.parquet`, a row a test case and scorer; every metric of a ranking can be computed from it again.

    case                 number of the session among those tested on, the same for every model measured on them
    user                 the raw user id; the session's id where the sessions have no users
    scorer               the model's body, or the name of a baseline
    rank                 of the hidden item, from 1, ties as halves; infinity where it can never be recommended
    rank_without_rules   the same without `serving.rules`, where the evaluation keeps them (`evaluation.rules`); of the model
    history_length       events before the hidden one
    target_popularity    training events of the hidden item
    target_age_days      days since the hidden item's first training session; null where no single event has a time
    returning            whether the user has a training session; null where every user has

N cases, V items.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch

from modeling.sessions import DAY_MICROSECONDS, Sessions
from modeling.splits import Cases, Split
from schemas.columns import END, FIRST_ID, SESSION_ID, USER_ID
from schemas.errors import InputError, reason
from schemas.features import FeatureSchema

RANKS = "ranks.parquet"
CASE, USER, SCORER, RANK = "case", "user", "scorer", "rank"
WITHOUT_RULES = "rank_without_rules"
HISTORY, POPULARITY, AGE, RETURNING = "history_length", "target_popularity", "target_age_days", "returning"
ABOUT = (CASE, USER, HISTORY, POPULARITY, AGE, RETURNING)
NEVER = torch.iinfo(torch.int64).max


@dataclass
class RankTable:
    """What is known of N cases, and the ranks of their targets by scorer, the model first: arrays of float64, [N].

    Under rules `without_rules` holds the ranks of some scorers as they are without.
    """

    about: pl.DataFrame
    ranks: dict[str, np.ndarray] = field(default_factory=dict)
    without_rules: dict[str, np.ndarray] = field(default_factory=dict)

    def of(self, scorer: str) -> pl.DataFrame:
        """The rows of one scorer."""
        name, rank = pl.lit(scorer).alias(SCORER), pl.Series(RANK, self.ranks[scorer], dtype=pl.Float64)
        rows = self.about.select(CASE, USER, name, rank, *ABOUT[2:])
        if not self.without_rules:
            return rows
        without = pl.Series(WITHOUT_RULES, self.without_rules.get(scorer, [None] * len(rows)), dtype=pl.Float64)
        return rows.with_columns(without)

    def write(self, path: Path) -> None:
        """Write all rows, a scorer at a time."""
        schema = self.of(next(iter(self.ranks))).to_arrow().schema
        with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as file:
            for scorer in self.ranks:
                file.write_table(self.of(scorer).to_arrow().cast(file.schema))


def read_ranks(folder: Path, scorer: str) -> pl.DataFrame:
    """The rows of one scorer of an evaluation, in order of `case`.

    Raises:
        InputError: when the evaluation has no ranks, or none of that scorer.
    """
    path = folder / RANKS
    try:
        rows = pl.scan_parquet(path, glob=False).filter(pl.col(SCORER) == scorer).sort(CASE).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{path} holds no ranks that can be read ({reason(error)}). Evaluate the model again."
        ) from None
    if not len(rows):
        raise InputError(f"{path} holds no rank of {scorer!r}.")
    return rows


def describe(cases: Cases, split: Split, schema: FeatureSchema) -> pl.DataFrame:
    """What slices and intervals ask of each case, in the order of the cases: all columns of the table but scorer and rank.

    `cases` are some of `split.test`, on a CPU, in the ids of the sessions; `split` was read by a fold.
    """
    fold = split.fold
    assert fold
    row_N = _rows(cases, split.test)
    column_N = (cases.target - FIRST_ID).clamp(0, max(schema.num_items - 1, 0))
    popularity_V = split.train.item_counts(schema.num_items)
    daily = bool(fold.test_days)
    about = pl.DataFrame(
        {
            CASE: pl.Series(row_N.numpy(), dtype=pl.Int64),
            HISTORY: pl.Series(cases.history.lengths.numpy(), dtype=pl.Int64),
            POPULARITY: pl.Series(popularity_V[column_N].numpy(), dtype=pl.Int64),
            AGE: pl.Series(_age(cases, column_N, split.train, schema.num_items), dtype=pl.Float64, nan_to_null=True)
            if daily
            else pl.Series([None] * len(row_N), dtype=pl.Float64),
        }
    )
    users = split.users[row_N.numpy()] if split.users is not None else _users(fold.files(fold.test_days), cases, row_N)
    before = fold.files(fold.train_days) if daily else []
    returning = _returning(users, before) if daily else pl.Series([None] * len(users), dtype=pl.Boolean)
    return about.with_columns(users.alias(USER), returning.alias(RETURNING)).select(ABOUT)


def _rows(cases: Cases, test: Cases) -> torch.Tensor:
    """The number of each case's session among those tested on, in the order of their files: events lie in that order."""
    starts = test.history.starts.sort().values
    return (
        torch.searchsorted(starts, cases.history.starts, right=True) - 1
    )  # an empty history begins where the next does


def _age(cases: Cases, column_N: torch.Tensor, train: Sessions, num_items: int) -> np.ndarray:
    """Days from the end of the first training session with the target to the end of the case, NaN without times."""
    session_E, event_E = train.event_index()
    column_E = train.items[event_E].long() - FIRST_ID
    known_E = (column_E >= 0) & (column_E < num_items) & (train.end[session_E] > 0)
    first_V = torch.full((max(num_items, 1),), NEVER)
    first_V.scatter_reduce_(0, column_E[known_E], train.end[session_E[known_E]], "amin")
    first_N, end_N = first_V[column_N], cases.history.end
    days_N = ((end_N - first_N).clamp(min=0)).double() / DAY_MICROSECONDS
    return np.array(days_N.masked_fill((first_N == NEVER) | (end_N <= 0), torch.nan))


def _users(files: list[Path], cases: Cases, row_N: torch.Tensor) -> pl.Series:
    """The user of each case, or its session's id, from the files of the sessions tested on."""
    names = pq.read_schema(files[0]).names
    name = next((name for name in (USER_ID, SESSION_ID) if name in names), END)
    read = pl.concat([pl.read_parquet(file, columns=[name, END], glob=False) for file in files])
    read = read[row_N.numpy()]
    same = torch.from_numpy(read[END].cast(pl.Int64).fill_null(0).to_numpy(writable=True)) == cases.history.end
    assert bool(same.all()), "cases and session files are not in the same order"
    return read[name]


def _returning(users: pl.Series, before: list[Path]) -> pl.Series:
    """Whether each user is in one of these files; null where sessions, or the cases, have no users."""
    dtype = pl.read_parquet_schema(before[0]).get(USER_ID) if before else None
    if dtype is None or users.name != USER_ID:
        return pl.Series([None] * len(users), dtype=pl.Boolean)
    users = users.cast(dtype, strict=False)  # of a list, ids may be written otherwise
    tested = pl.DataFrame({USER_ID: users}).unique().lazy()
    seen = pl.scan_parquet(before, glob=False).select(USER_ID).join(tested, on=USER_ID, how="semi").unique()
    return users.is_in(seen.collect(engine="streaming")[USER_ID].implode())
