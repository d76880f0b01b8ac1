"""Lists that a night has made for its users: rows of `user_id`, `rank`, `item`, `score`, and perhaps `source`.

They are held sorted by user, so that a user's rows are found by halving. Rows without a user are for those who have none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from schemas.columns import USER_ID
from schemas.errors import InputError

LISTS = "lists.parquet"
RANK, ITEM, SCORE, SOURCE = "rank", "item", "score", "source"
MODEL = "model"


@dataclass(frozen=True)
class Lists:
    """The lists of one night."""

    name: str
    rows: pl.DataFrame

    def of(self, user: str) -> pl.DataFrame | None:
        """A user's items, best first, with `item`, `score` and `source`; None where there is no list of that user."""
        users = self.rows[USER_ID]
        value = pl.Series([user], dtype=pl.String).cast(users.dtype, strict=False)
        if value.null_count() or not len(users):
            return None
        first, last = (users.search_sorted(value, side=side)[0] for side in ("left", "right"))
        rows = self.rows[first:last]
        return rows.select(ITEM, SCORE, SOURCE) if rows.height else None


class NewestLists:
    """The newest lists, read again when `find` names another folder."""

    def __init__(self, find: Callable[[], Path | None]) -> None:
        self._find = find
        self._folder: Path | None = None
        self.lists: Lists | None = None

    def refresh(self) -> bool:
        """Read the lists that `find` names if it names another folder than the last time; whether it did.

        Raises:
            InputError: when they cannot be read; those of before stay.
        """
        folder = self._find()
        if folder is None or folder == self._folder:
            return False
        self.lists, self._folder = read_lists(folder), folder
        return True


def read_lists(folder: Path) -> Lists:
    """The lists in a folder, or a file of lists.

    Raises:
        InputError: where there are none, or not of users.
    """
    file = folder / LISTS if folder.is_dir() else folder
    try:
        rows = pl.read_parquet(file, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"--lists {folder}: cannot be read ({' '.join(str(error).split())}).") from None
    missing = [name for name in (USER_ID, RANK, ITEM, SCORE) if name not in rows.columns]
    if missing:
        raise InputError(
            f"{file}: lists of users have the columns {USER_ID}, {RANK}, {ITEM} and {SCORE}; there is no {missing[0]} among "
            f"{', '.join(rows.columns)}."
        )
    if SOURCE not in rows.columns:
        rows = rows.with_columns(pl.lit(MODEL).alias(SOURCE))
    rows = rows.drop_nulls(USER_ID).sort(USER_ID, RANK).select(USER_ID, ITEM, SCORE, SOURCE)
    return Lists(f"{folder.parent.name}/{folder.name}", rows)
