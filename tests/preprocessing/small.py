"""Five-row tables for the tests of this room."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from preprocessing.pipeline import prepare
from preprocessing.source.events import read_events
from preprocessing.source.files import reading
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import Dataset
from schemas.progress import Report

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
NOW = MONDAY + timedelta(days=30)
COLUMNS = ("user_id", "item_id", "timestamp")


def at(day: int, hour: int = 12, minute: int = 0) -> datetime:
    """A time on the n-th day, from 0, of the tests' January."""
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


def dataset_of(source: Path | str, **parts: Any) -> Dataset:
    """A dataset with users, items and times; `columns` are names of further ones, or the whole mapping."""
    columns = parts.pop("columns", ())
    mapping = columns if isinstance(columns, dict) else {name: name for name in (*COLUMNS, *columns)}
    events = {"path": "events.parquet", "columns": mapping, **parts.pop("events", {})}
    return Dataset.model_validate({"name": "small", "events": events, **parts}).at(source)


def events_of(folder: Path, content: str | bytes, name: str, **events: Any) -> pl.DataFrame:
    """What is read of one file in the folder `log`; `events` and `columns` as in a dataset's YAML."""
    place = folder / "log" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content.encode() if isinstance(content, str) else content)
    columns = events.pop("columns", ())
    with reading(place):
        return read_events(dataset_of(folder, columns=columns, events={"path": "log", **events})).collect()


def write(source: Path, rows: list[tuple[Any, ...]], columns: tuple[str, ...] = COLUMNS) -> None:
    """Write events.parquet."""
    pl.DataFrame(rows, schema=list(columns), orient="row", infer_schema_length=None).write_parquet(
        source / "events.parquet"
    )


def said(lines: list[str]) -> Report:
    """Progress that is kept as lines."""
    return lambda progress: lines.append(str(progress))


def run(source: Path, dataset: Dataset | None = None, **options: Any) -> Manifest:
    """Prepare into a folder beside the source."""
    return prepare(
        Artifacts(source / "artifacts"),
        dataset or dataset_of(source),
        **{"progress": lambda line: None, "now": NOW, **options},
    )


def sessions_of(manifest: Manifest) -> pl.DataFrame:
    """All sessions, with their day, in order."""
    files = sorted((manifest.folder / "sessions").glob("day=*/part-0.parquet"))
    parts = [pl.read_parquet(file, glob=False, hive_partitioning=False) for file in files]
    return pl.concat(
        part.with_columns(day=pl.lit(file.parent.name.removeprefix("day=")))
        for file, part in zip(files, parts, strict=True)
    )


def content(manifest: Manifest) -> dict[str, Any]:
    """All that a model is made from: the hash of every file, and the sessions of each day, in their order."""
    kinds = ("vocabularies/", "items.parquet", "schema.json")
    hashes: dict[str, Any] = {file.path: file.sha256 for file in manifest.files if file.path.startswith(kinds)}
    for day in sorted((manifest.folder / "sessions").iterdir()):
        parts = sorted(day.iterdir(), key=lambda file: int(file.stem.removeprefix("part-")))
        hashes[day.name] = pl.concat(
            pl.read_parquet(part, glob=False, hive_partitioning=False) for part in parts
        ).rows()
    return hashes


def decoded(manifest: Manifest) -> list[list[Any]]:
    """The items of every session as they are in the source; None for unknown."""
    values = dict(pl.read_parquet(manifest.folder / "items.parquet").select("id", "value").rows())
    return [[values.get(item) for item in session] for session in sessions_of(manifest)["item_id"].to_list()]


def three_days() -> list[tuple[Any, ...]]:
    """Two users on three days: on each, a visits x and y, b visits y, x and z."""
    return [
        event
        for day in range(3)
        for event in (
            ("a", "x", at(day)),
            ("a", "y", at(day, 12, 5)),
            ("b", "y", at(day, 13)),
            ("b", "x", at(day, 13, 1)),
            ("b", "z", at(day, 13, 2)),
        )
    ]
