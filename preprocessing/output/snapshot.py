"""A view: days of sessions joined under one folder, with what was known before the day that is tested on.

    sessions/day=YYYY-MM-DD/part-0.parquet    links to the days' own files, which no view copies
    quarantine/day=YYYY-MM-DD/part-0.parquet
    profiles/day=YYYY-MM-DD/profile.html      what the newest day's events look like, beside those before
    vocabularies/NAME.parquet, items.parquet, schema.json, schema.pbtxt, encoders.json

Sessions of the day tested on may hold ids that its own events brought about: those from a column's cardinality on are
unknown to whoever was trained on the days before.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from preprocessing.execution.batch import QUARANTINE, SESSIONS
from preprocessing.features.chains import Chain, describe, feature_schema
from preprocessing.features.state import State
from preprocessing.output.profile import PAGE
from preprocessing.output.sessions import item_table, write
from preprocessing.vocabulary import below
from schemas import pbtxt
from schemas.artifacts import Artifacts, Draft, Manifest
from schemas.columns import DAY, ITEM_ID
from schemas.dataset import Dataset

KIND = "sessions"


@dataclass(frozen=True)
class View:
    """What a view joins."""

    dataset: Dataset
    chains: list[Chain]
    days: list[Manifest]
    """The days' artifacts, in order."""
    known: State
    known_as: str
    test_day: str | None
    """None: the last item of each session is the test."""
    rows_in_source: int

    def write(
        self, artifacts: Artifacts, view_id: str, parameters: dict[str, Any], seconds: dict[str, float]
    ) -> Manifest:
        """The artifact `sessions/<id>`."""
        parents = tuple(day.name for day in self.days)
        with artifacts.write(KIND, view_id, parents=parents, parameters=parameters) as draft:
            for day in self.days:
                folder = f"{DAY}={day.facts['day']}/part-0.parquet"
                if day.facts["sessions"]:
                    draft.link(day, SESSIONS, f"sessions/{folder}")
                if day.facts["quarantined"]:
                    draft.link(day, QUARANTINE, f"quarantine/{folder}")
            newest = self.days[-1]
            draft.link(newest, PAGE, f"profiles/{DAY}={newest.facts['day']}/{PAGE}")
            num_items = self._write_features(draft)
            draft.facts = self.facts(num_items) | {"seconds": seconds}
        return draft.manifest

    def _write_features(self, draft: Draft) -> int:
        schema = feature_schema(self.dataset, self.chains, self.known.learnt)
        for column in schema.columns:
            if column.vocabulary:
                assert column.cardinality
                vocabulary = self.known.learnt[Path(column.vocabulary).stem]
                write(below(vocabulary, column.cardinality), draft.folder / column.vocabulary)
        assert schema.items.cardinality
        latest = self.known.items if self.known.items is not None else pl.DataFrame()
        items = item_table(self.known.learnt[ITEM_ID], latest, schema.items.cardinality)
        write(items, draft.folder / "items.parquet")
        (draft.folder / "encoders.json").write_text(json.dumps(describe(self.chains), indent=2) + "\n")
        schema.write(draft.folder / "schema.json")
        stored = pl.read_parquet_schema(next(draft.folder.glob(f"sessions/{DAY}=*/*.parquet")))
        dtypes = {name: str(dtype).lower() for name, dtype in stored.items()}
        pbtxt.write(draft.folder / "schema.pbtxt", schema, dtypes)
        return items.height

    def account(self) -> str:
        """Where the rows went, in one line."""
        facts = self.facts(0)
        told = [f"{name} {count:,}" for name, count in (facts["quarantined"] | facts["dropped"]).items() if count]
        return f"of {facts['rows_in']:,} rows: {', '.join(told) or 'none was dropped'}."

    def facts(self, num_items: int) -> dict[str, Any]:
        """The account of all days together, which balances, and what came of them."""
        facts = [day.facts for day in self.days]
        total: dict[str, Any] = {name: sum(day[name] for day in facts) for name in ("rows_in", "events", "sessions")}
        test_sessions = sum(day["sessions"] for day in facts if self.test_day in (None, day["day"]))
        days = {day["day"]: day["sessions"] for day in facts if day["sessions"]}
        return {
            "rows_in": total["rows_in"],
            "carried_in": facts[0]["carried_in"],
            "quarantined": _most_first(_add([day["quarantined"] for day in facts])),
            "nulled": _most_first(_add([day.get("nulled", {}) for day in facts])),
            "dropped": _add([day["dropped"] for day in facts]),
            "still_open": facts[-1]["still_open"],
            "events": total["events"],
            "sessions": total["sessions"],
            "items": num_items,
            "new_items": facts[-1]["new_items"],
            "users_of_last_day": facts[-1]["users"],
            "lengths": facts[-1]["lengths"],
            "drift": facts[-1]["drift"],
            "warnings": facts[-1]["warnings"],
            "outside_window": self.rows_in_source - total["rows_in"],
            "days": days,
            "first_day": next(iter(days), None) if self.test_day else None,
            "test_day": self.test_day,
            "train_sessions": total["sessions"] - (test_sessions if self.test_day else 0),
            "test_sessions": test_sessions,
        }


def _add(counts: list[dict[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(name for one in counts for name in one)
    return {name: sum(one.get(name, 0) for one in counts) for name in names}


def _most_first(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
