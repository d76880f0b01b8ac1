"""Fitted state: what encoders are fitted to and what items were like last, after some day. JSON and Parquet only.

states/<id>/learnt/NAME.parquet          after all days: a vocabulary, numbers, numbers by value
states/<id>/statistics/NAME.parquet      of the days since the state before, each apart, with the column `day`
states/<id>/items.parquet                of each item id: when it was last seen, and its features then
states/<id>/items_by_day.parquet         the same of each day since the state before
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from preprocessing.features.chains import Knowledge
from preprocessing.parquet import write
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import DAY

KIND = "states"
FITTED, STATISTICS, ITEMS, ITEMS_BY_DAY = "learnt", "statistics", "items.parquet", "items_by_day.parquet"


@dataclass(frozen=True)
class State:
    """The state at the end of a day; tables by the name of the state of an encoder."""

    fitted: Knowledge = field(default_factory=dict)
    statistics: Knowledge = field(default_factory=dict)
    items: pl.DataFrame | None = None
    items_by_day: pl.DataFrame | None = None

    def write(self, artifacts: Artifacts, state_id: str, facts: dict[str, Any]) -> Manifest:
        """Keep it as `states/<id>`."""
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
        """A state that is there; an empty one without a name.

        Raises:
            InputError: when it is missing or damaged.
        """
        if not name:
            return cls()
        folder = artifacts.get(name).folder
        items = {file: folder / file for file in (ITEMS, ITEMS_BY_DAY)}
        read = {file: pl.read_parquet(path) if path.is_file() else None for file, path in items.items()}
        return cls(_tables(folder / FITTED), _tables(folder / STATISTICS), read[ITEMS], read[ITEMS_BY_DAY])

    def of_days(self, days: list[date]) -> Knowledge:
        """The statistics of these days."""
        return {name: table.filter(pl.col(DAY).is_in(days)) for name, table in self.statistics.items()}


def _tables(folder: Path) -> Knowledge:
    return {file.stem: pl.read_parquet(file) for file in sorted(folder.glob("*.parquet"))}
