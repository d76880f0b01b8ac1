"""However few rows of a batch are held at a time when its days are written: the same days."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.output import day as output
from tests.preprocessing.small import at, dataset_of, run, write

BAD = ("c", None)
LATE = [("a", "x", 23, 50), ("a", "y", 23, 55), ("b", "z", 12, 0), ("b", "x", 12, 5), (*BAD, 9, 0), (*BAD, 10, 0)]
EVENTS = [(user, item, at(day, hour, minute)) for day in range(6) for user, item, hour, minute in LATE]


def days_of(folder: Path) -> dict[str, Any]:
    """The rows of every file of every day."""
    files = sorted((folder / "artifacts" / "days").glob("*/*.parquet"))
    return {f"{file.parent.name}/{file.name}": pl.read_parquet(file, glob=False).rows() for file in files}


def test_days_are_the_same_a_stretch_of_days_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, reads = {}, {}
    for rows in (output.STRETCH, 5, 1):
        folder = tmp_path / str(rows)
        folder.mkdir()
        write(folder, EVENTS)
        monkeypatch.setattr(output, "STRETCH", rows)
        sizes: list[int] = []
        monkeypatch.setattr(output, "_bad_by_day", counting(output._bad_by_day, sizes))
        run(folder, dataset_of(folder))
        made[rows], reads[rows] = days_of(folder), max(sizes)
        monkeypatch.undo()
    assert made[5] == made[1] == made[output.STRETCH]
    assert {name.split("/")[1] for name in made[1]} >= {"open.parquet", "quarantine.parquet", "sessions.parquet"}
    assert (reads[1], reads[output.STRETCH]) == (2, 12)


def counting(divide: Any, sizes: list[int]) -> Any:
    """`divide`, whose tables of bad rows are counted."""

    def counted(table: pl.DataFrame) -> Any:
        sizes.append(table.height)
        return divide(table)

    return counted
