"""Files of finished days, ledgers and caches that are lost or damaged, one after the other and several at once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import polars as pl
import pytest

from preprocessing.history.ledger import Ledger
from schemas.artifacts import Artifacts
from schemas.errors import InputError
from tests.cases.test_finished_days import days_of, first, nightly, put, shop, visits
from tests.preprocessing.small import run, said, sessions_of


def rot(place: Path) -> None:
    """Change a byte of a file as a disk does: its time of writing stays."""
    about, content = place.stat(), bytearray(place.read_bytes())
    content[len(content) // 2] ^= 255
    place.write_bytes(bytes(content))
    os.utime(place, ns=(about.st_atime_ns, about.st_mtime_ns))


def with_bad_rows(folder: Path) -> None:
    """Each day has a row without an item."""
    nightly(folder)
    for day in range(5):
        put(folder, f"bad{day}", [("a", None, visits(day)[0][2])])


@pytest.mark.parametrize("harm", ["lost", "cut"])
def test_a_lost_quarantine_stops_no_night(tmp_path: Path, harm: str) -> None:
    """It is put back from a snapshot, else its day is done again, else the day is published without it."""
    with_bad_rows(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    root = Path(before.root)
    place = root / before.parents[1] / "quarantine.parquet"
    content, sessions = place.read_bytes(), sessions_of(before)

    def harmed() -> None:
        place.unlink()
        if harm == "cut":
            place.write_bytes(content[:50])

    harmed()
    assert run(tmp_path, shop(tmp_path)).id == before.id and place.read_bytes() == content
    shutil.rmtree(root / "sessions")
    harmed()
    assert run(tmp_path, shop(tmp_path)).id == before.id and place.read_bytes() == content
    shutil.rmtree(root / "sessions")
    harmed()
    (tmp_path / "events" / "1.parquet").unlink()
    lines: list[str] = []
    after = run(tmp_path, shop(tmp_path), progress=said(lines))
    assert any("2024-01-02" in line and "without its bad rows" in line for line in lines)
    assert days_of(after) == days_of(before) and sessions_of(after).equals(sessions)
    assert len(list(after.folder.glob("quarantine/*"))) == 4 and not after.facts["missing_days"]
    put(tmp_path, "5", visits(5))
    assert len(days_of(run(tmp_path, shop(tmp_path)))) == 6
    place.write_bytes(content)
    assert len(list(run(tmp_path, shop(tmp_path)).folder.glob("quarantine/*"))) == 5


@pytest.mark.parametrize("place", [1, -1])
@pytest.mark.parametrize("verify", [False, True])
def test_a_day_whose_folder_is_lost_is_put_back_as_far_as_a_snapshot_has_it(
    tmp_path: Path, place: int, verify: bool
) -> None:
    """The source is gone; its sessions and bad rows are in a snapshot, its profile and open events in none."""
    with_bad_rows(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    shutil.rmtree(tmp_path / "events")
    put(tmp_path, "6", visits(6))
    folder = Path(before.root) / before.parents[place]
    shutil.rmtree(folder)
    lines: list[str] = []
    after = run(tmp_path, shop(tmp_path), until=first(4), verify=verify, progress=said(lines))
    assert days_of(after) == days_of(before) and not after.facts["missing_days"]
    assert (folder / "sessions.parquet").is_file() and (folder / "quarantine.parquet").is_file()
    assert any("put back from sessions/" in line for line in lines)


def test_open_events_are_made_again_where_the_source_holds_them(tmp_path: Path) -> None:
    """Sessions are in a snapshot, open events are not: the newest day is done again before a later one needs them."""
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    shutil.rmtree(Path(before.root) / before.parents[-1])
    put(tmp_path, "5", visits(5))
    lines: list[str] = []
    after = run(tmp_path, shop(tmp_path), progress=said(lines))
    assert not any("open events are lost" in line for line in lines)
    assert after.facts["days"]["2024-01-06"] == 2  # a's, and the one that was open at midnight


def test_a_file_that_rots_twice_is_mended_twice(tmp_path: Path) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    place = Path(before.root) / before.parents[0] / "sessions.parquet"
    whole = place.read_bytes()
    for _ in range(3):
        rot(place)
        assert run(tmp_path, shop(tmp_path), verify=True).id == before.id
        assert place.read_bytes() == whole
        assert Artifacts(before.root).find(*before.name.split("/"), contents=True)
    assert pl.read_parquet(place).height


@pytest.mark.parametrize("all_of_them", [False, True])
@pytest.mark.fault("the ledger of finished days is lost", outcome="one line")
def test_a_lost_list_of_finished_days_is_not_taken_for_none(tmp_path: Path, all_of_them: bool) -> None:
    nightly(tmp_path)
    before = run(tmp_path, shop(tmp_path))
    ledgers = Path(before.root) / "ledgers"
    kept = tmp_path / "kept"
    shutil.copytree(ledgers, kept)
    (tmp_path / "events" / "0.parquet").unlink()
    shutil.rmtree(ledgers) if all_of_them else next(ledgers.iterdir()).unlink()
    for _ in range(2):
        with pytest.raises(InputError, match=r"list of finished days is missing.*5 of them \(2024-01-01 to .* backup"):
            run(tmp_path, shop(tmp_path))
    longer = run(tmp_path, shop(tmp_path, sessions={"gap_minutes": 45}))  # another line goes on
    assert "2024-01-01" not in days_of(longer)
    shutil.copytree(kept, ledgers, dirs_exist_ok=True)
    assert run(tmp_path, shop(tmp_path)).id == before.id


def test_a_first_night_that_was_stopped_goes_on_without_a_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nightly(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "write", lambda ledger, artifacts: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, shop(tmp_path))
    assert list((tmp_path / "artifacts" / "days").iterdir())
    assert len(days_of(run(tmp_path, shop(tmp_path)))) == 5
