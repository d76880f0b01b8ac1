"""Profiles: what each day's events look like, and how they differ from those of the days before.

A profile is a table, `profile.parquet` in the day's artifact, so that later days are compared without reading rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from preprocessing.features.feature import Feature
from preprocessing.frames import write
from preprocessing.output.profile import counts, drift
from preprocessing.sessions import by_day
from schemas.artifacts import Draft
from schemas.columns import COUNT, DAY, LENGTH
from schemas.dataset import Dataset

TABLE = "profile.parquet"
Frames = Callable[[str], list[pl.LazyFrame]]  # the frames of a name that the tasks of a batch left, one a bucket


@dataclass(frozen=True)
class Profiles:
    """The profiles of a batch of days, compared with the days before each."""

    dataset: Dataset
    tables: pl.DataFrame
    compared: pl.DataFrame
    drifts: pl.DataFrame

    @classmethod
    def of(
        cls, frames: Frames, dataset: Dataset, features: list[Feature], earlier: list[Path] | None = None
    ) -> Profiles:
        """Of the days of a batch; `earlier` are the folders of days before it."""
        tables = counts.add_up(frames, dataset, features)
        before = [pl.read_parquet(folder / TABLE, glob=False) for folder in earlier or []]
        compared = drift.compare(tables, pl.concat([pl.DataFrame(schema=counts.SCHEMA), *before]), dataset.profile.days)
        return cls(dataset, tables, compared, drift.drift(compared))

    @cached_property
    def _tables(self) -> dict[Any, pl.DataFrame]:
        """The table of each day: divided once, for a batch may be of a thousand."""
        return dict(by_day(self.tables))

    @cached_property
    def _drifts(self) -> dict[Any, list[tuple[str, float, float]]]:
        """Of each day, the columns that have drifted, how far, and how far they would by chance."""
        of_days: dict[Any, list[tuple[str, float, float]]] = {}
        for day, *found in self.drifts[[DAY, counts.COLUMN, drift.PSI, drift.CHANCE]].iter_rows():
            of_days.setdefault(day, []).append((found[0], found[1], found[2]))
        return of_days

    def lengths(self, day: date) -> pl.Series:
        """The lengths of a day's sessions, in order."""
        of_day = self._tables.get(day, self.tables.clear())
        counted = zip(*(of_day[name].to_list() for name in (counts.COLUMN, counts.AT, COUNT)), strict=True)
        found = [(int(at), count) for column, at, count in counted if column == counts.LENGTHS]
        return pl.Series(LENGTH, np.repeat(*np.array(found, dtype=np.int64).reshape(-1, 2).T).astype(np.int32))

    def write(self, day: date, draft: Draft) -> None:
        """Add a day's table and the facts `drift`, `drift_by_chance` and `warnings` to its artifact."""
        found, limit = self._drifts.get(day, []), self.dataset.profile.warn_above
        far = {name: psi for name, psi, chance in found if psi > limit and psi > chance}
        warned = dict(sorted(far.items(), key=lambda column: -column[1]))
        draft.facts |= {
            "drift": {name: round(psi, 4) for name, psi, _ in found},
            "drift_by_chance": {name: round(chance, 4) for name, _, chance in found},
            "warnings": [
                f"{name} has drifted: population stability index {psi:.2f} against the days before (limit {limit:g})"
                for name, psi in warned.items()
            ],
        }
        write(self._tables.get(day, self.tables.clear()), draft.folder / TABLE)
