"""The history of every user of prepared sessions: what lists for all of them are made from, night by night.

A model that reads past sessions reads those; for others a user's history is the last session. Lists of users without a row are
the most popular items: `popular_table`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch

from modeling.service.bulk import MODEL as MODEL
from modeling.service.bulk import POPULARITY, SOURCE, Histories, from_parquet, of_everyone, parquet_files
from modeling.service.recommender import Recommender
from modeling.service.rules import Rules
from schemas.columns import END, USER_ID

PLACE = "place"


def histories_of_users(
    folder: Path, prepared: Path, device: str | None = None, rules: Rules | None = None
) -> tuple[Recommender, int, Iterator[Histories]]:
    """A model folder and the folder of prepared sessions -> the model, the number of users, and the history of each.

    Raises:
        InputError: where they are not of one dataset.
    """
    recommender = Recommender(folder, device, rules=rules)
    if recommender.model.settings.inputs.past_events:
        recommender = Recommender(folder, device, past=prepared, rules=rules)
        assert recommender.pasts is not None
        return recommender, len(recommender.pasts.users), of_everyone(recommender)
    files = parquet_files(prepared)
    is_last = _last_sessions(files)
    _, histories = from_parquet(recommender, files)
    return recommender, int(is_last.sum()), _chosen(histories, is_last)


def popular_table(recommender: Recommender, k: int, user_type: pl.DataType) -> pl.DataFrame:
    """The most popular items, for users who have no list: rows as those of lists, `user_id` and `score` null."""
    items = recommender.popular(k)
    return pl.DataFrame(
        {
            USER_ID: pl.Series([None] * len(items), dtype=user_type),
            "rank": pl.Series(range(1, len(items) + 1), dtype=pl.Int32),
            "item": pl.Series(items, dtype=recommender.items.schema["value"]),
            "score": pl.Series([None] * len(items), dtype=pl.Float32),
            SOURCE: pl.Series([POPULARITY] * len(items), dtype=pl.String),
        }
    )


def _last_sessions(files: list[Path]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Of every session of the files, in their order, whether it is its user's last; of two that end together, the later row."""
    rows = pl.scan_parquet(files, glob=False, hive_partitioning=False).select(USER_ID, END).with_row_index(PLACE)
    last = rows.sort(END, PLACE).group_by(USER_ID).agg(pl.col(PLACE).last())
    number, places = pl.collect_all([rows.select(pl.len()), last.select(PLACE)])
    is_last = np.zeros(number.item(), dtype=np.bool_)
    is_last[places[PLACE].to_numpy()] = True
    return is_last


def _chosen(histories: Iterator[Histories], is_last: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[Histories]:
    """Of histories that are all rows of files in their order, those that are marked, by their user."""
    begin = 0
    for batch in histories:
        chosen = is_last[begin : begin + len(batch.sessions)].nonzero()[0]
        begin += len(batch.sessions)
        if len(chosen):
            keys = batch.keys[chosen].select(USER_ID)
            yield Histories(batch.sessions.select(torch.from_numpy(chosen)), keys)
