"""What a task costs, as counts: trips of rows to a GPU and back, and frames as long as the rows that are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing import frames
from preprocessing.engines.polars import PolarsEngine
from preprocessing.execution import tasks
from preprocessing.execution.cleaning import KEPT_ROWS, Cleaning
from preprocessing.execution.places import Places
from preprocessing.execution.run import Workers
from tests.gpu import GPU
from tests.preprocessing.small import at, dataset_of, run, write

COLUMNS = ("user_id", "item_id", "timestamp", "price", "kind")
FEATURES = {
    "price": {"encode": ["log1p", "standardize"]},
    "kind": {"encode": "category"},
    "hour": {"column": "timestamp", "encode": "hour"},
    "age": {"column": "timestamp", "encode": ["item_age", "log1p"]},
}
USERS, EVENTS = 40, 8


class OnGPU(PolarsEngine):
    """Says that its plans go to a GPU; the tests run them here."""

    def __init__(self) -> None:
        self.target = GPU


def rows(ties: bool = False) -> list[tuple[Any, ...]]:
    """Two days of few items, so that nothing but rows is as long as rows; `ties`: one pair differs in its price only."""
    events = [
        (user, (user + event) % 3, at(day) + timedelta(minutes=event), 1.0 + event, "ab"[event % 2])
        for day in range(2)
        for user in range(USERS)
        for event in range(EVENTS)
    ]
    return [*events, (*events[0][:3], 9.0, "a")] if ties else events


def costs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[Any, ...]], *, gpu: bool, buckets: int = 1
) -> list[tuple[str, int]]:
    """Of each task in the order they run, fit within clean: trips to the GPU, or frames at least half as long as the rows."""
    folder.mkdir(exist_ok=True)
    write(folder, rows, COLUMNS)
    dataset = dataset_of(folder, columns=COLUMNS[3:], steps=["drop_repeats"], features=FEATURES)
    found: list[tuple[str, int]] = []
    current: list[int] = []
    collect_all = frames.run

    def counted(plans: Sequence[pl.LazyFrame], target: Any) -> list[pl.DataFrame]:
        made = collect_all(plans, "in-memory")
        if current:
            long = sum(frame.height * 2 * buckets >= len(rows) for frame in made)
            current[-1] += isinstance(target, pl.GPUEngine) if gpu else long
        return made

    def counting(name: str, task: Callable[..., None]) -> Callable[..., None]:
        def run_task(job: tasks.Job, bucket: int) -> None:
            current.append(0)
            task(job, bucket)
            found.append((name, current.pop()))

        return run_task

    monkeypatch.setattr(frames, "run", counted)
    for name in ("clean", "fit", "encode"):
        monkeypatch.setattr(tasks, f"{name}_bucket", counting(name, getattr(tasks, f"{name}_bucket")))
    if gpu:
        monkeypatch.setattr(tasks, "engine_of", lambda name: OnGPU())
    assert run(folder, dataset, workers=Workers(min_buckets=buckets)).facts["sessions"] > 0
    return found


def test_each_task_is_one_trip_to_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = costs(tmp_path, monkeypatch, rows(), gpu=True)
    assert found[:2] == [("fit", 1), ("clean", 1)] and found[-1] == ("encode", 1)
    assert sum(trips for _, trips in found) == 3  # a later round of fit has nothing to do


def test_rows_that_tie_cost_one_more_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = costs(tmp_path, monkeypatch, rows(ties=True), gpu=True)
    assert dict(found) == {"fit": 0, "clean": 2, "encode": 1} and found[0] == ("fit", 1)


def test_as_many_trips_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = costs(tmp_path, monkeypatch, rows(), gpu=True, buckets=2)
    assert sorted(entry for entry in found if entry[1]) == [("clean", 1)] * 2 + [("encode", 1)] * 2 + [("fit", 1)] * 2


def test_how_often_a_frame_as_long_as_the_rows_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """clean: the raw rows, these with one more column, a hash of each, and what is kept; fit: the kept rows; encode: these,
    and encoded."""
    found = costs(tmp_path, monkeypatch, rows(), gpu=False)
    assert found[:2] == [("fit", 1), ("clean", 4)] and found[-1] == ("encode", 2)
    assert sum(count for _, count in found) == 7


def test_columns_that_no_rule_of_sessions_looks_at_are_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`price` and `kind` are not in what cleaning sorts, filters and cuts, but for rows that tie."""
    seen: list[set[str]] = []
    outputs = Cleaning.outputs

    def spied(self: Cleaning, places: Places | None = None, *, ties: bool) -> Any:
        plans, drops = outputs(self, places, ties=ties)
        seen.append(set(plans[KEPT_ROWS].collect_schema()))
        return plans, drops

    monkeypatch.setattr(Cleaning, "outputs", spied)
    costs(tmp_path, monkeypatch, rows(), gpu=False)
    costs(tmp_path / "ties", monkeypatch, rows(ties=True), gpu=False)
    assert [{"price", "kind"} & names for names in seen] == [set(), {"price", "kind"}]
