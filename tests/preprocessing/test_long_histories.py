"""What a night costs after many days: one more, and one with nothing to do. Counted, not timed.

Of a window of days, what is opened, asked about, listed, made, read and joined is the same however many days there were before
it. Two files grow by a row a day, the ledger and the index of the source: they are read and written whole, in milliseconds, and
nothing else is.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.execution.batch import Batch
from preprocessing.history import batches
from preprocessing.history.later import Later
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts
from schemas.dataset import Dataset

FIRST, USERS, WINDOW = date(2024, 1, 1), 8, 3
NOW = datetime(2025, 1, 1, tzinfo=UTC)
SHORT, LONG = 9, 40  # both have more days than a day's profile is compared with
FILES_OF_A_ROW_A_DAY = ("ledgers", "inventories")
counts: Counter[str] | None = None


def write_day(folder: Path, number: int) -> None:
    """A file of the events of a day, `number` days after the first."""
    start = datetime.combine(FIRST + timedelta(days=number), datetime.min.time())
    rows = [
        (f"u{user}", f"i{(user + place + number) % 6}", start + timedelta(hours=9 + user, minutes=place), 1.0 * user)
        for user in range(USERS)
        for place in range(3)
    ]
    columns = ["user_id", "item_id", "timestamp", "price"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(folder / f"{number:03}.parquet")


def dataset(source: Path) -> Dataset:
    columns = {name: name for name in ("user_id", "item_id", "timestamp", "price")}
    features = {"item_id": {"encode": "category"}, "price": {"encode": ["log1p", "standardize"]}}
    events = {"path": "events", "columns": columns}
    return Dataset.model_validate({"name": "tiny", "events": events, "features": features}).at(str(source))


def night(root: Path, last: int, window: int | None = WINDOW) -> Any:
    """Prepare up to a day, of a window of so many days; None: of all."""
    until = FIRST + timedelta(days=last)
    return prepare(
        Artifacts(root / "data"), dataset(root), until=until, days=window, progress=lambda report: None, now=NOW
    )


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count what Python is asked to open, list, ask about, make and link, and what Polars reads and joins."""
    global counts
    found = counts = Counter()

    def count(owner: Any, name: str, size: Callable[..., int] = lambda *given: 1) -> None:
        real = getattr(owner, name)

        def call(*given: Any, **options: Any) -> Any:
            found[name] += size(*given)
            return real(*given, **options)

        monkeypatch.setattr(owner, name, call)

    def size(file: Path, *given: Any) -> int:
        found["files read"] += 1
        return 0 if any(name in Path(file).parts for name in FILES_OF_A_ROW_A_DAY) else Path(file).stat().st_size

    for name in ("stat", "mkdir", "link", "rename", "replace", "unlink", "fsync"):
        count(os, name)
    count(pl, "read_parquet", size)
    monkeypatch.setattr(batches, "several", in_turn)
    count(pl, "concat", lambda tables, *given: sum(table.height for table in tables if isinstance(table, pl.DataFrame)))
    try:
        yield found
    finally:
        counts = None
        monkeypatch.undo()


@contextmanager
def in_turn() -> Iterator[Later]:
    """In the place of `later.several`: what is counted while other threads work is another number each time."""

    def at_once(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future = Future[Any]()
        future.set_result(function(*arguments))
        return future

    yield at_once


def hear(event: str, arguments: tuple[Any, ...]) -> None:
    """Opened and listed in Python, and how many names were listed; the source has to be listed as it is."""
    global counts
    if counts is None or event not in ("open", "os.listdir", "os.scandir"):
        return
    found, counts = counts, None
    found[event] += 1
    if event != "open" and "events" not in Path(str(arguments[0])).parts:
        with suppress(OSError):  # what is not there is listed in vain
            found["names listed"] += len(os.listdir(arguments[0]))  # noqa: PTH208
    counts = found


sys.addaudithook(hear)


def costs(
    days: int, root: Path, monkeypatch: pytest.MonkeyPatch, window: int | None = WINDOW
) -> dict[str, dict[str, int]]:
    """Of one more night after so many days, and of one with nothing to do."""
    (root / "events").mkdir(parents=True)
    for number in range(LONG - days, LONG):
        write_day(root / "events", number)
    night(root, LONG - 1, window)
    write_day(root / "events", LONG)
    with counted(monkeypatch) as one_more:
        assert not night(root, LONG, window).reused
    with counted(monkeypatch) as nothing:
        assert night(root, LONG, window).reused
    return {"one more": dict(one_more), "nothing to do": dict(nothing)}


def test_a_night_costs_the_same_after_many_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs(SHORT, tmp_path / "first", monkeypatch)  # what a process does once, such as reading its own code
    night_of = {days: costs(days, tmp_path / str(days), monkeypatch) for days in (SHORT, LONG)}
    for kind, short in night_of[SHORT].items():
        long = night_of[LONG][kind]
        assert short["stat"] and short["open"] and short["files read"], "nothing was counted"
        near = {name: (short[name], long.get(name, 0)) for name in short}
        # Parquet of the same tables may differ by a few bytes: counts of items have more digits.
        sizes = near.pop("read_parquet")
        assert not {name: costs for name, costs in near.items() if costs[0] != costs[1]}, kind
        assert sizes[1] < 1.02 * sizes[0] + 200, (kind, sizes)


def test_a_day_more_in_the_window_costs_a_folder_and_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all days, a snapshot holds each: one folder, one link, and nothing of it is read, synced or listed."""
    costs(SHORT, tmp_path / "first", monkeypatch, None)
    night_of = {days: costs(days, tmp_path / str(days), monkeypatch, None) for days in (SHORT, LONG)}
    short, long = (night_of[days]["one more"] for days in (SHORT, LONG))
    more = {name: long.get(name, 0) - short[name] for name in short if long.get(name, 0) != short[name]}
    del more["read_parquet"]  # bytes: counts of items have more digits
    days = LONG - SHORT
    assert more.pop("mkdir") == more.pop("link") == days
    # Asked about: each day's file, whether it is as it was written.
    assert set(more) == {"stat"} and more.get("stat", 0) <= days, more


def test_the_days_of_a_batch_are_divided_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tasks left is asked for as often for a batch of many days as for one of few."""
    asked: dict[int, Counter[str]] = {}
    frames = Batch.frames
    for days in (3, SHORT):
        found = asked[days] = Counter()
        monkeypatch.setattr(
            Batch, "frames", lambda batch, name, found=found: found.update([name]) or frames(batch, name)
        )
        (tmp_path / str(days) / "events").mkdir(parents=True)
        for number in range(days):
            write_day(tmp_path / str(days) / "events", number)
        night(tmp_path / str(days), days - 1, None)
    assert asked[3] == asked[SHORT] and asked[3]["open"] and asked[3]["quarantine"]
