"""New events are read once: what the index counts is what the tasks get, divided by user, also after a run that was killed."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.execution import buckets
from preprocessing.execution import run as running
from preprocessing.execution.batch import Batch
from preprocessing.execution.run import Workers
from preprocessing.execution.workers import workers_of
from preprocessing.source.events import EventFiles
from preprocessing.source.files import reading
from schemas.columns import ITEM_ID
from schemas.dataset import Dataset
from schemas.errors import InputError
from tests.preprocessing.small import at, content, dataset_of, run

USERS, DAYS = 60, 4
DIVIDED = Workers(bucket_rows=100)
FORMATS = ("parquet", "csv", "jsonl", "csv.gz")


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many items each pass over events has read; a look at other columns, or at the first rows, is no pass."""
    counts: list[int] = []
    scan = EventFiles.scan

    def count(items: pl.Series) -> pl.Series:
        counts.append(len(items))
        return items

    def counted(self: EventFiles, *given: Any, **named: Any) -> pl.LazyFrame:
        events = scan(self, *given, **named)
        dtype = events.collect_schema()[ITEM_ID]
        return events.with_columns(pl.col(ITEM_ID).map_batches(count, return_dtype=dtype, is_elementwise=True))

    monkeypatch.setattr(EventFiles, "scan", counted)
    return counts


def write_log(folder: Path, ending: str, undated: bool = False) -> Dataset:
    """Two files of events of all days, one row of the second without a readable time if `undated`."""
    rows = [
        (f"u{user:02}", f"i{(user * 7 + place) % 5}", at(day, 8 + user % 9, place).isoformat())
        for day in range(DAYS)
        for user in range(USERS)
        for place in range(3)
    ]
    halves = rows[::2], rows[1::2]
    if undated:
        halves[1].append(("u07", "i1", "yesterday"))
    (folder / "log").mkdir(parents=True)
    for number, half in enumerate(halves):
        table = pl.DataFrame(half, schema=["user_id", "item_id", "timestamp"], orient="row")
        place = folder / "log" / f"{number}.{ending}"
        if ending == "parquet":
            table.write_parquet(place)
        elif ending == "jsonl":
            table.write_ndjson(place)
        else:
            text = table.write_csv().encode()
            place.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    return dataset_of(folder, events={"path": "log"})


@pytest.fixture
def too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is small enough to be kept in memory."""
    monkeypatch.setitem(running.IN_MEMORY_BYTES, "cpu", 0)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("undated", [False, True])
def test_new_files_are_read_once_and_give_what_they_give_in_memory(
    ending: str, undated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_read: list[int]
) -> None:
    dataset = write_log(tmp_path, ending, undated)
    whole = content(run(tmp_path, dataset))
    assert sum(rows_read) == USERS * DAYS * 3 + undated
    (tmp_path / "artifacts").rename(tmp_path / "in memory")
    rows_read.clear()
    monkeypatch.setitem(running.IN_MEMORY_BYTES, "cpu", 0)
    said: list[str] = []
    manifest = run(tmp_path, dataset, workers=DIVIDED, progress=lambda line: said.append(str(line)))
    assert content(manifest) == whole
    assert any("parts" in line for line in said if line.startswith("read:"))
    heads = sum(count for count in rows_read if count != 0) - (USERS * DAYS * 3 + undated)
    assert heads == 0, rows_read


@pytest.mark.parametrize("workers", [DIVIDED, Workers(min_buckets=3), Workers(bucket_rows=10**6)])
def test_what_a_killed_run_has_divided_is_not_read_again(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_read: list[int], too_large: None
) -> None:
    dataset = write_log(tmp_path, "csv")
    whole = content(run(tmp_path, dataset, workers=workers))
    (tmp_path / "artifacts").rename(tmp_path / "first")
    with monkeypatch.context() as patch:
        patch.setattr(Batch, "clean", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, dataset, workers=workers)
    rows_read.clear()
    assert content(run(tmp_path, dataset, workers=workers)) == whole
    assert sum(rows_read) == 0


def test_files_that_came_since_a_run_was_killed_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, too_large: None
) -> None:
    dataset = write_log(tmp_path, "csv")
    with monkeypatch.context() as patch:
        patch.setattr(Batch, "clean", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, dataset, workers=DIVIDED)
    more = "user_id,item_id,timestamp\nu03,i9,2024-01-02T20:00:00\nu03,i8,2024-01-02T20:01:00\n"
    (tmp_path / "log" / "2.csv").write_text(more)
    found = content(run(tmp_path, dataset, workers=DIVIDED))
    (tmp_path / "artifacts").rename(tmp_path / "first")
    assert content(run(tmp_path, dataset)) == found


def test_a_division_that_was_broken_off_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_read: list[int], too_large: None
) -> None:
    dataset = write_log(tmp_path, "csv")
    with monkeypatch.context() as patch:
        patch.setattr(Batch, "clean", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, dataset, workers=DIVIDED)
    (about,) = (tmp_path / "artifacts/unfinished").rglob("about.json")
    for left in (*about.parent.rglob("*.ipc"), about):
        left.unlink()  # what it would look like before it was whole
    found = content(run(tmp_path, dataset, workers=DIVIDED))
    (tmp_path / "artifacts").rename(tmp_path / "first")
    assert content(run(tmp_path, dataset)) == found


def test_what_was_left_before_the_machine_started_anew_is_not_read(tmp_path: Path) -> None:
    folder, boot = tmp_path / "line", tmp_path / "boot_id"
    boot.write_text("first\n")
    scratch = buckets.since_boot(folder, boot)
    assert not folder.exists(), "nothing is written yet"
    left = scratch / "batch/account-0.ipc"
    left.parent.mkdir(parents=True)
    left.touch()  # the name was kept, the content lost
    (folder / "batch-of-an-older-version").mkdir()
    assert buckets.since_boot(folder, boot) == scratch
    assert left.is_file(), "a process was killed, no more"
    assert list(folder.iterdir()) == [scratch]
    boot.write_text("second\n")
    assert buckets.since_boot(folder, boot) != scratch
    assert not scratch.exists()
    left.parent.mkdir(parents=True)
    for _ in range(2):
        unsure = buckets.since_boot(folder, tmp_path / "not there")
        assert not list(folder.iterdir()), "nobody can say when it was written"
        unsure.mkdir()


def test_workers_get_what_lies_divided(tmp_path: Path, too_large: None, rows_read: list[int]) -> None:
    dataset = write_log(tmp_path, "parquet", undated=True)
    whole = content(run(tmp_path, dataset))
    (tmp_path / "artifacts").rename(tmp_path / "first")
    rows_read.clear()
    with workers_of("cpu", workers=1) as workers:
        assert content(run(tmp_path, dataset, workers=workers)) == whole
    assert sum(rows_read) == USERS * DAYS * 3 + 1


def test_a_dataset_that_is_refused_leaves_nothing_divided(tmp_path: Path, too_large: None) -> None:
    write_log(tmp_path, "csv")
    features = {"shown": {"column": "pric", "encode": "log1p"}}
    with pytest.raises(InputError, match="pric"):
        run(tmp_path, dataset_of(tmp_path, events={"path": "log"}, features=features), workers=DIVIDED)
    assert not list((tmp_path / "artifacts/unfinished").glob("*"))


@pytest.mark.parametrize(
    "said", [OSError(ENOSPC, "No space left on device"), pl.exceptions.ComputeError("(os error 28)")]
)
def test_a_full_disk_is_not_a_damaged_source(said: Exception) -> None:
    with pytest.raises(InputError, match="The disk of --root is full"), reading("events.parquet"):
        raise said
