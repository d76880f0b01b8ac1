"""What was acknowledged is there, once, no matter what ended the process; what was not is there whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modeling.service.tracking import journal as journals
from modeling.service.tracking import parts
from modeling.service.tracking.journal import ENDING, Journal, line_of, read, take
from modeling.service.tracking.parts import ANSWERS, EVENTS, JOURNALS, make_parts, recover
from modeling.service.tracking.store import Store
from modeling.service.tracking.table import read_kind
from schemas.errors import InputError

DAY = 86_400_000_000
NOON = 20_520 * DAY + DAY // 2  # 2026-03-08 12:00


def event(item: str, at: int = NOON, **more: Any) -> dict[str, Any]:
    return {"event_type": "click", "item_id": item, "timestamp": at, "received": at} | more


def items_in(folder: Path, kind: str = EVENTS) -> list[str]:
    return sorted(read_kind(folder, kind)["item_id"])


def test_a_record_is_whole_or_not_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path, EVENTS)
    journal.append([event("a"), event("b\n\u2028é")], sync=True)
    journal.append([event("c")], sync=False)
    sealed = journal.seal()
    assert sealed is not None
    whole = sealed.path.read_bytes()
    assert [record["item_id"] for record in read(sealed.path)[0]] == ["a", "b\n\u2028é", "c"]
    for length in range(len(whole)):  # wherever the process was killed
        sealed.path.write_bytes(whole[:length])
        assert read(sealed.path) == (read(sealed.path)[0], 0)
        assert len(read(sealed.path)[0]) == whole[:length].count(b"\n")
    for place in range(0, len(whole) - 1, 7):  # and what a disk may have changed
        sealed.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        records, damaged = read(sealed.path)
        assert damaged and len(records) + damaged in (2, 3, 4)
    sealed.release(remove=True)
    assert list(tmp_path.iterdir()) == []


def test_days_are_those_of_the_events_and_a_part_made_again_takes_its_own_place(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNALS, EVENTS)
    journal.append([event("a", NOON - DAY), event("b"), event("c")], sync=True)
    sealed = journal.seal()
    assert sealed is not None
    kept = sealed.path.read_bytes()
    assert make_parts(tmp_path, sealed) == 3 and not sealed.path.exists()
    assert sorted(path.name for path in (tmp_path / "clicks").iterdir()) == ["day=2026-03-07", "day=2026-03-08"]
    sealed.path.write_bytes(kept)  # killed before the journal was removed
    (tmp_path / "clicks" / "day=2026-03-08" / f".{sealed.name}.parquet.4194305").write_bytes(b"half")
    assert recover(tmp_path) == 3 and recover(tmp_path) == 0
    assert items_in(tmp_path) == ["a", "b", "c"]
    assert not list(tmp_path.rglob(".*")), "what a kill left half done is gone"
    schema = pl.read_parquet_schema(next((tmp_path / "clicks").rglob("*.parquet")))
    assert schema == pl.Schema(parts.SCHEMAS[EVENTS])


def test_a_journal_is_left_alone_while_its_process_lives(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from modeling.service.tracking.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), 'events')\n"
        "journal.append([{'event_type': 'click', 'item_id': 'a', 'timestamp': 0, 'received': 0}], sync=True)\n"
        "print('there', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / JOURNALS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "there\n"
    (path,) = (tmp_path / JOURNALS).iterdir()
    assert take(path) is None and recover(tmp_path) == 0
    assert items_in(tmp_path) == ["a"], "it is read all the same"
    process.kill()
    process.wait()
    assert recover(tmp_path) == 1 and items_in(tmp_path) == ["a"]
    assert take(path) is None


def test_damaged_lines_stay_for_people_to_look_at(tmp_path: Path) -> None:
    folder = tmp_path / JOURNALS
    folder.mkdir()
    (folder / f"x.{EVENTS}{ENDING}").write_bytes(line_of(event("a")) + b"00000000 {}\n" + line_of(event("b")))
    assert recover(tmp_path) == 2 and items_in(tmp_path) == ["a", "b"]
    assert [path.name for path in folder.iterdir()] == [f"x.{EVENTS}{ENDING}.damaged"] and recover(tmp_path) == 0


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, "plain")
    store.start()
    store.submit([event("a")]).result(60)
    write, full = os.write, [True]

    def half(descriptor: int, content: bytes) -> int:
        if full[0] and len(content) > 20:
            return write(descriptor, content[:20])
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content)

    monkeypatch.setattr(journals.os, "write", half)
    full[0] = False
    store.submit([event("b")]).result(60)
    with pytest.raises(OSError, match="No space"):
        full[0] = True
        monkeypatch.setattr(journals.os, "write", lambda descriptor, content: half(descriptor, bytes(content)[:20]))
        store.submit([event("lost")]).result(60)
    monkeypatch.undo()
    store.submit([event("c")]).result(60)
    store.stop()
    assert items_in(tmp_path) == ["a", "b", "c"] and not list((tmp_path / JOURNALS).iterdir())


def test_many_at_once_and_several_processes(tmp_path: Path) -> None:
    """Journals are sealed all the while; every event is there once, and ids are hashed alike."""
    stores = [Store(tmp_path, part_seconds=0.0) for _ in range(2)]
    for store in stores:
        store.start()
    with ThreadPoolExecutor(16) as pool:
        done = [
            pool.submit(lambda n: stores[n % 2].submit([event(f"{n:04}"), event(f"{n:04}b")]).result(600), number)
            for number in range(300)
        ]
        for store in stores * 5:
            store.note([{"recommendation_id": "r", "timestamp": NOON, "items": ["a"], "sources": ["model"]}])
            store.tidy()
        for one in done:
            one.result(600)
    hashed = {store.name_of("ann") for store in stores}
    assert len(hashed) == 1 and "ann" not in str(hashed) and stores[0].name_of(None) is None
    assert Store(tmp_path, "none").name_of("ann") is None and Store(tmp_path, "plain").name_of(7) == "7"
    for store in stores:
        store.stop()
    assert items_in(tmp_path) == sorted(f"{n:04}{end}" for n in range(300) for end in ("", "b"))
    assert read_kind(tmp_path, ANSWERS).height == 10 and not list((tmp_path / JOURNALS).iterdir())
    assert (tmp_path / "salt").stat().st_mode & 0o77 == 0


def test_a_journal_that_is_no_table_is_set_aside_and_stops_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNALS, EVENTS)
    journal.append([event("a"), event("b", position="first")], sync=True)
    sealed = journal.seal()
    assert sealed is not None
    sealed.release(remove=False)
    assert items_in(tmp_path) == []
    assert recover(tmp_path) == 0
    (kept,) = (tmp_path / JOURNALS).iterdir()
    assert kept.name.endswith(".damaged")
    store = Store(tmp_path)
    store.start()
    store.submit([event("c")]).result(60)
    store.stop()
    assert items_in(tmp_path) == ["c"] and kept.exists()


def test_a_line_that_cannot_be_taken_back_spoils_none_that_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / JOURNALS, EVENTS)
    journal.append([event("a")], sync=True)
    write = os.write

    def half(descriptor: int, content: memoryview) -> int:
        if len(content) > 10:
            return write(descriptor, content[:10])
        raise OSError(errno.EIO, "the disk is ill")

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is ill")

    for ending in (half, refuse):  # with a part of the line there, and with nothing
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", ending)
            patch.setattr(os, "ftruncate", refuse)
            with pytest.raises(OSError, match="ill"):
                journal.append([event("x" * 7)], sync=True)
        journal.append([event("b")], sync=True)
    assert items_in(tmp_path) == ["a", "b", "b"]
    journal.append([event("c")], sync=True)
    assert items_in(tmp_path) == ["a", "b", "b", "c"]


def test_a_journal_that_cannot_begin_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    journal = Journal(tmp_path, EVENTS)
    before = len(list(Path("/dev/fd").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(journals, "sync", refuse)
        for _ in range(30):
            with pytest.raises(OSError, match="full"):
                journal.append([event("a")], sync=True)
    assert len(list(Path("/dev/fd").iterdir())) < before + 30 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("salt", [b"", b"0123456789"])
def test_a_salt_that_can_be_guessed_is_refused(tmp_path: Path, salt: bytes) -> None:
    (tmp_path / "salt").write_bytes(salt)
    with pytest.raises(InputError, match="32 are needed"):
        Store(tmp_path).start()
    Store(tmp_path, "plain").start()
    assert (tmp_path / "salt").read_bytes() == salt
