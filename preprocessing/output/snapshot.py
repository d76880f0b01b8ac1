"""A snapshot: finished days under one folder, with the state before the day that is tested on. Artifact `sessions/<id>`.

    sessions/day=YYYY-MM-DD/part-0.parquet    links to the days' own files, which no snapshot copies
    quarantine/day=YYYY-MM-DD/part-0.parquet  links too; days whose file is lost have none
    vocabularies/NAME.parquet, items.parquet, schema.json, schema.pbtxt, encoders.json

Sessions of the day tested on may hold ids that its own events brought about: those from a column's cardinality on are
unknown to a model that was trained on the days before.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl

from preprocessing import account as accounts
from preprocessing.account import DROPPED, FATE, KEPT, NAME, NULLED, QUARANTINED, READ
from preprocessing.features.feature import Feature
from preprocessing.features.schema import describe, feature_schema
from preprocessing.features.state import State
from preprocessing.frames import write
from preprocessing.output.day import QUARANTINE, SESSIONS
from preprocessing.output.items import LAST_SEEN, item_table, side_features
from preprocessing.sessions import ONE_BATCH
from preprocessing.source.values import TIME, local_day
from preprocessing.vocabulary import below
from schemas import pbtxt
from schemas.artifacts import Artifacts, Draft, File, Manifest
from schemas.columns import COUNT, DAY, ITEM_ID, UNDATED
from schemas.dataset import Dataset

KIND = "sessions"
DAYS_BEFORE = 7


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot joins."""

    dataset: Dataset
    features: list[Feature]
    days: pl.DataFrame
    """Rows of finished days (`output.day.ROW`), in order."""
    state: State
    """Before the day tested on."""
    test_day: str | None
    """None: the last item of each session is the test."""
    outside: int
    """Rows of the source that are of no day here."""
    missing_days: tuple[str, ...] = ()
    """Finished days that are lost, source and all."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Files of the source that are not read, and why."""
    without_quarantine: tuple[str, ...] = ()
    """Days whose bad rows are lost, source and all."""
    held_back: tuple[tuple[str, str], ...] = ()
    """Days that wait for a file that cannot be read, and what is to be said of it."""

    def write(
        self, artifacts: Artifacts, snapshot_id: str, parameters: dict[str, Any], seconds: dict[str, float]
    ) -> Manifest:
        """The artifact."""
        parents = tuple(self.days["artifact"])
        with artifacts.write(KIND, snapshot_id, parents=parents, parameters=parameters) as draft:
            self._link(artifacts.root, draft)
            num_items = self._write_features(draft)
            draft.facts = self.facts(num_items) | {"seconds": seconds}
        return draft.manifest

    def _link(self, root: Path, draft: Draft) -> None:
        files = self.days.select(DAY, "artifact", "sessions", "files").explode("files").unnest("files")
        files = files.filter(
            (pl.col("path").str.starts_with(SESSIONS) & (pl.col("sessions") > 0)) | (pl.col("path") == QUARANTINE)
        )
        # For every day of a long history: texts, for a path of pathlib costs as much as the link that it names.
        for day, artifact, _, path, size, sha256, mtime_ns in files.iter_rows():
            folder = "quarantine" if path == QUARANTINE else "sessions"
            number = path.removesuffix(".parquet").partition("-")[2] or "0"
            name = UNDATED if day == ONE_BATCH else str(day)
            if path == QUARANTINE and name in self.without_quarantine:
                continue
            to = f"{folder}/{DAY}={name}/part-{number}.parquet"
            file = File.model_construct(path=to, size=size, sha256=sha256, mtime_ns=mtime_ns)
            draft.link(f"{root}/{artifact}/{path}", file)

    def _write_features(self, draft: Draft) -> int:
        schema = feature_schema(self.dataset, self.features, self.state.fitted)
        for column in schema.columns:
            if column.vocabulary:
                assert column.cardinality
                vocabulary = self.state.fitted[Path(column.vocabulary).stem]
                write(below(vocabulary, column.cardinality), draft.folder / column.vocabulary)
        assert schema.items.cardinality
        latest = self.state.items if self.state.items is not None else pl.DataFrame()
        # A state of earlier nights may have kept more features.
        kept = [name for name in latest.columns if name in (ITEM_ID, LAST_SEEN, *side_features(self.features))]
        items = item_table(self.state.fitted[ITEM_ID], latest.select(kept), schema.items.cardinality)
        write(items, draft.folder / "items.parquet")
        (draft.folder / "encoders.json").write_text(json.dumps(describe(self.features), indent=2) + "\n")
        schema.write(draft.folder / "schema.json")
        file = next(path for path in draft.held if path.startswith(SESSIONS))
        stored = pl.scan_parquet(draft.folder / file, glob=False, hive_partitioning=False).collect_schema()
        dtypes = {name: str(dtype).lower() for name, dtype in stored.items()}
        pbtxt.write(draft.folder / "schema.pbtxt", schema, dtypes)
        return self._num_items(items)

    def _num_items(self, items: pl.DataFrame) -> int:
        """Items of these days: those of the vocabulary, which only grows, but for the ones last seen before."""
        first = self.days[DAY].min()
        if LAST_SEEN not in items.columns or self.test_day is None or not isinstance(first, date):
            return items.height
        gone = local_day(pl.col(LAST_SEEN).cast(TIME), self.dataset.time_zone) < first
        return items.filter(~gone.fill_null(False)).height

    @property
    def account(self) -> pl.DataFrame:
        """`fate`, `name`, `count` of all days together."""
        counts = self.days.select("account").explode("account").unnest("account").drop_nulls(FATE)
        return counts.group_by(FATE, NAME, maintain_order=True).agg(pl.col(COUNT).sum())

    def _items_usually(self) -> float | None:
        """The median of how many items the table had on some days before the newest; None where no day says it."""
        earlier = (json.loads(facts).get("items_in_table") for facts in self.days["facts"][-1 - DAYS_BEFORE : -1])
        counts = [count for count in earlier if count is not None]
        return median(counts) if counts else None

    def _waiting(self) -> list[str]:
        """What to say of the days that are held back: of this snapshot, as its days stay what they are when that is over."""
        return [f"{day} is held back: {why.rstrip('.')}; it is done when that is mended" for day, why in self.held_back]

    def facts(self, num_items: int) -> dict[str, Any]:
        """The account of all days together, which balances, and what came of them."""
        account, newest = self.account, json.loads(self.days["facts"][-1])
        days = {UNDATED if day == ONE_BATCH else str(day): n for day, n in self.days.select(DAY, "sessions").rows()}
        test_sessions = sum(n for day, n in days.items() if self.test_day in (None, day))
        sessions = sum(days.values())
        return {
            "rows_in": accounts.total(account, READ),
            "carried_in": int(self.days["carried_in"][0]),
            "quarantined": accounts.by_name(account, QUARANTINED),
            "nulled": accounts.by_name(account, NULLED),
            "dropped": accounts.by_name(account, DROPPED, account.filter(pl.col(FATE) == DROPPED)[NAME].to_list()),
            "still_open": newest["still_open"],
            "events": accounts.total(account, KEPT),
            "sessions": sessions,
            "items": num_items,
            "new_items": newest["new_items"],
            "users_of_last_day": newest["users"],
            "lengths": newest["lengths"],
            "rows_of_last_day": newest["rows_in"],
            "quarantined_of_last_day": newest["quarantined"],
            "items_in_table": newest.get("items_in_table"),
            "items_usually": self._items_usually(),
            "drift": newest["drift"],
            "drift_by_chance": newest.get("drift_by_chance", {}),
            "warnings": [*newest["warnings"], *self._waiting()],
            "outside_window": self.outside,
            "missing_days": list(self.missing_days),
            "left_out": [list(entry) for entry in self.left_out],
            "days": {day: n for day, n in days.items() if n},
            "first_day": next((day for day, n in days.items() if n), None) if self.test_day else None,
            "test_day": self.test_day,
            "train_sessions": sessions - (test_sessions if self.test_day else 0),
            "test_sessions": test_sessions,
        }
