"""States of knowledge: what encoders have learnt and what items were like last, after some day. JSON and Parquet only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from preprocessing.features.chains import Knowledge
from preprocessing.output.sessions import write
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import DAY

KIND = "states"
LEARNT, TAUGHT, ITEMS, EVENTS = "learnt", "taught", "items.parquet", "events.parquet"


@dataclass(frozen=True)
class State:
    """What is known at the end of a day."""

    learnt: Knowledge = field(default_factory=dict)
    taught: Knowledge = field(default_factory=dict)
    """What the days since the state before taught, each apart: knowledge with the column `day`."""
    items: pl.DataFrame | None = None
    """Of each item id: when it was last seen, and its features then."""
    columns: pl.Schema | None = None
    """Of events as they were read."""

    def write(self, artifacts: Artifacts, state_id: str, facts: dict[str, Any]) -> Manifest:
        """Keep it as `states/<id>`."""
        with artifacts.write(KIND, state_id) as draft:
            for folder, tables in ((LEARNT, self.learnt), (TAUGHT, self.taught)):
                for name, table in tables.items():
                    write(table, draft.folder / folder / f"{name}.parquet")
            if self.items is not None:
                write(self.items, draft.folder / ITEMS)
            write(pl.DataFrame(schema=self.columns), draft.folder / EVENTS)
            draft.facts = facts
        return draft.manifest

    @classmethod
    def read(cls, artifacts: Artifacts, name: str) -> State:
        """A state that is there; an empty one without a name."""
        if not name:
            return cls()
        folder = artifacts.get(name).folder
        items = folder / ITEMS
        return cls(
            _tables(folder / LEARNT),
            _tables(folder / TAUGHT),
            pl.read_parquet(items) if items.is_file() else None,
            pl.scan_parquet(folder / EVENTS).collect_schema(),
        )

    def of_days(self, days: list[date]) -> Knowledge:
        """What these days taught."""
        return {name: table.filter(pl.col(DAY).is_in(days)) for name, table in self.taught.items()}


def _tables(folder: Path) -> Knowledge:
    return {file.stem: pl.read_parquet(file) for file in sorted(folder.glob("*.parquet"))}
