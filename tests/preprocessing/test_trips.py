"""What a task costs, as counts: trips of rows to a GPU and back, and frames as long as the rows that are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing import frames
from preprocessing.engines.polars import PolarsEngine
from preprocessing.execution import buckets as buckets_module
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


@dataclass
class Copies:
    """Counts frames of at least `long` rows: those that are made or, of a GPU, those that are copied to it and from it."""

    gpu: bool
    long: float
    current: list[int]
    """The count of the task that is at work, if one is."""
    stayed: list[frames.Rows] = field(default_factory=list)

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        self.collect_all, self.put_on, self.to_host = frames.run, frames.on, frames.Held.to_host
        patch.setattr(frames, "run", self.run)
        patch.setattr(frames.Held, "to_host", lambda held: self.comes(held))
        for module in (frames, buckets_module):
            patch.setattr(module, "on", self.goes)

    def run(self, plans: Sequence[pl.LazyFrame], target: Any, stays: int | None = None) -> list[frames.Rows]:
        made = list(map(frames.to_host, self.collect_all(plans, "in-memory")))
        on_gpu = isinstance(target, pl.GPUEngine)
        come = [frame for number, frame in enumerate(made) if not on_gpu or number != stays]
        if self.current and on_gpu == self.gpu:
            self.current[-1] += sum(frame.height >= self.long for frame in come)
        if not on_gpu or stays is None:
            return [*made]
        self.stayed.append(self.put_on(target, made[stays]))
        return [*made[:stays], self.stayed[-1], *made[stays + 1 :]]

    def goes(self, target: Any, frame: pl.DataFrame) -> frames.Rows:
        self.current[-1] += self.gpu and frame.height >= self.long
        return self.put_on(target, frame)

    def comes(self, held: frames.Held) -> pl.DataFrame:
        self.current[-1] += held in self.stayed and held.height >= self.long
        return self.to_host(held)


def costs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[Any, ...]], *, gpu: bool, buckets: int = 1
) -> list[tuple[str, int]]:
    """Of each task in the order they run, fit within clean: frames at least half as long as the rows that are made on the
    host; of a GPU that are copied between the two."""
    folder.mkdir(exist_ok=True)
    write(folder, rows, COLUMNS)
    dataset = dataset_of(folder, columns=COLUMNS[3:], steps=["drop_repeats"], features=FEATURES)
    found: list[tuple[str, int]] = []
    current: list[int] = []
    Copies(gpu, len(rows) / buckets / 2, current).patch(monkeypatch)

    def counting(name: str, task: Callable[..., None]) -> Callable[..., None]:
        def run_task(*arguments: Any) -> None:
            current.append(0)
            task(*arguments)
            found.append((name, current.pop()))

        return run_task

    for name in ("clean", "fit", "encode"):
        monkeypatch.setattr(tasks, f"{name}_bucket", counting(name, getattr(tasks, f"{name}_bucket")))
    if gpu:
        monkeypatch.setattr(tasks, "engine_of", lambda name: OnGPU())
    assert run(folder, dataset, workers=Workers(min_buckets=buckets)).facts["sessions"] > 0
    return found


def test_rows_go_to_a_gpu_once_and_come_back_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are read, and as the values of lists: what is kept of them stays there, and so do encoded rows."""
    found = costs(tmp_path, monkeypatch, rows(), gpu=True)
    assert found[:2] == [("fit", 0), ("clean", 1)] and found[-1] == ("encode", 1)
    assert sum(copies for _, copies in found) == 2


def test_rows_that_tie_are_copied_no_more_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = costs(tmp_path, monkeypatch, rows(ties=True), gpu=True)
    assert dict(found) == {"fit": 0, "clean": 1, "encode": 1}


def test_rows_of_many_buckets_wait_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are kept come back once, and go again to be encoded."""
    found = costs(tmp_path, monkeypatch, rows(), gpu=True, buckets=2)
    assert sum(copies for _, copies in found) == 2 * 4


def test_how_often_a_frame_as_long_as_the_rows_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """clean: the raw rows, these with one more column, a hash of each, sessions cut, then twice which rows pass and those that
    do, which copies few columns, and what is kept; encode: these, encoded, and of these the columns of lists, those of items
    and, for the profile, hours and prices together, which copies few."""
    found = costs(tmp_path, monkeypatch, rows(), gpu=False)
    assert found[:2] == [("fit", 0), ("clean", 9)] and found[-1] == ("encode", 5)
    assert sum(count for _, count in found) == 14


def test_users_that_are_text_cost_no_more_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are numbered, and rows ordered as places."""
    as_text = [(f"user {user}", *rest) for user, *rest in rows()]
    assert dict(costs(tmp_path, monkeypatch, as_text, gpu=False))["clean"] == 9


def test_columns_that_no_rule_of_sessions_looks_at_are_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`price` and `kind` are not in what cleaning sorts, filters and cuts, where rows tie neither; and what cuts sessions is
    not in what filters them."""
    seen: list[set[str]] = []
    outputs = Cleaning.outputs

    def spied(self: Cleaning, places: Places | None = None, *, ties: bool) -> Any:
        plans, drops = outputs(self, places, ties=ties)
        seen.append(set(plans[KEPT_ROWS].collect_schema()))
        return plans, drops

    monkeypatch.setattr(Cleaning, "outputs", spied)
    costs(tmp_path, monkeypatch, rows(), gpu=False)
    costs(tmp_path / "ties", monkeypatch, rows(ties=True), gpu=False)
    events = {"price", "kind", "user_id", "timestamp"}
    assert [events & names for names in seen] == [set(), set()]
