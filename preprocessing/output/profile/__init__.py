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

import polars as pl

from preprocessing.features.feature import Feature
from preprocessing.frames import write
from preprocessing.output.profile import counts, drift
from schemas.artifacts import Draft
from schemas.columns import DAY
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
        return {day: part for (day,), part in self.tables.partition_by(DAY, as_dict=True).items()}

    @cached_property
    def _drifts(self) -> dict[Any, pl.DataFrame]:
        return {day: part for (day,), part in self.drifts.partition_by(DAY, as_dict=True).items()}

    def write(self, day: date, draft: Draft) -> None:
        """Add a day's table and the facts `drift`, `drift_by_chance` and `warnings` to its artifact."""
        of_day, found = (parts.get(day) for parts in (self._tables, self._drifts))
        of_day = self.tables.clear() if of_day is None else of_day
        found = self.drifts.clear() if found is None else found
        limit = self.dataset.profile.warn_above
        far = found.filter((pl.col(drift.PSI) > limit) & (pl.col(drift.PSI) > pl.col(drift.CHANCE)))
        warned = dict(far.sort(drift.PSI, descending=True, maintain_order=True).select(counts.COLUMN, drift.PSI).rows())
        draft.facts |= {
            "drift": {name: round(psi, 4) for name, psi in found.select(counts.COLUMN, drift.PSI).rows()},
            "drift_by_chance": {name: round(psi, 4) for name, psi in found.select(counts.COLUMN, drift.CHANCE).rows()},
            "warnings": [
                f"{name} has drifted: population stability index {psi:.2f} against the days before (limit {limit:g})"
                for name, psi in warned.items()
            ],
        }
        write(of_day, draft.folder / TABLE)
