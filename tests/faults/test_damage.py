"""What happens to sources, artifacts and the machine: the end of an undisturbed night, or the old state and one line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.conftest import Forks, Undisturbed

fault = pytest.mark.fault
FLIP = """import pathlib, sys
path = max(pathlib.Path(sys.argv[1]).glob(sys.argv[2]), key=lambda path: path.stat().st_mtime_ns)
data = bytearray(path.read_bytes())
data[len(data) // 2] ^= 255
path.write_bytes(data)
"""


def flip(root: Path, pattern: str) -> str:
    """A command that changes a byte in the middle of the newest file of a pattern."""
    return shlex.join([sys.executable, "-c", FLIP, str(root), pattern])


@pytest.fixture
def source(events: Path, tmp_path: Path) -> Path:
    """A copy of the events that may be spoiled, with the times of the files."""
    return Path(shutil.copytree(events, tmp_path / "events"))


def newest(source: Path) -> Path:
    return max((source / "events").iterdir())


def fails(forks: Forks, root: Path, source: Path, undisturbed: Undisturbed, **given: object) -> str:
    """A night that ends with one line and leaves the old state; the line."""
    line = forks.night(root, source, **given).mistake
    between = forks.state(root)
    assert between["in_service"] == undisturbed.before["in_service"] and not between["wrong"]
    return line


@fault("a truncated Parquet file of the newest day in the source", outcome="one line")
@fault("an empty, a missing or another file where an item table was", outcome="one line")
@fault("a column is missing in the newest file", outcome="one line")
def test_a_spoiled_source_is_named_and_once_mended_goes_on(
    forks: Forks, root: Path, source: Path, undisturbed: Undisturbed
) -> None:
    import polars as pl

    place, items = newest(source), source / "items.parquet"
    whole, table = place.read_bytes(), items.read_bytes()
    place.write_bytes(whole[: len(whole) // 2])
    assert place.name in fails(forks, root, source, undisturbed)
    pl.read_parquet(whole).drop("item_id").write_parquet(place)
    line = fails(forks, root, source, undisturbed)
    assert "item_id" in line
    place.write_bytes(whole)
    for spoiled in (b"", table[:-9], b"item,brand\n1,2\n"):
        items.write_bytes(spoiled)
        assert "items.parquet" in fails(forks, root, source, undisturbed)
    items.unlink()
    assert "items.parquet" in fails(forks, root, source, undisturbed)


@fault("a source file disappears after it was listed", outcome="goes on")
def test_a_file_that_goes_while_a_night_runs(
    forks: Forks, root: Path, events: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    place = newest(events)
    try:  # new files are opened once, for the list of what days they hold
        move = f"mv '{place}' '{tmp_path}/moved'"
        ended = forks.night(root, events, when=["line", "^index: "], then=move)
    finally:
        shutil.move(tmp_path / "moved", place)
    assert ended.code == 0, ended.said
    assert undisturbed.same(forks.state(root))


@fault("too many open files", outcome="one line")
def test_a_limit_of_open_files_is_said(forks: Forks, root: Path, events: Path, undisturbed: Undisturbed) -> None:
    line = fails(forks, root, events, undisturbed, when=["line", "^read$"], then="no more files")
    assert "oo many files are open" in line
    assert forks.night(root, events).code == 0
    assert undisturbed.same(forks.state(root))


@fault("memory runs out in training", outcome="one line, or the process is gone and the next run goes on")
def test_without_memory_the_old_state_stays(forks: Forks, root: Path, events: Path, undisturbed: Undisturbed) -> None:
    """The same artifacts, not always the same bits: with no memory to work in, the libraries of matrix products sum in another
    order, and a step done like that may be in the checkpoint that the next run goes on from.
    """
    ended = forks.night(root, events, when=["line", "^Training "], then="no more memory")
    assert ended.code < 0 or "emory ran out" in ended.mistake  # libraries may end the process
    assert not forks.state(root)["wrong"]
    assert forks.night(root, events).code == 0
    state = forks.state(root)
    assert not state["wrong"] and not state["left"]
    assert set(state["files"]) == set(undisturbed.state["files"])
    assert state["in_service"] == undisturbed.state["in_service"]


@fault("the root may only be read, from the start or from the middle of a night on", outcome="one line")
@fault("no inodes are left", outcome="one line")
def test_a_disk_that_takes_nothing(
    forks: Forks, evening: Path, events: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    if not forks.may_mount:
        pytest.skip("mounting a disk takes root and a mount namespace of one's own")
    disk = tmp_path / "disk"
    disk.mkdir()
    forks.shell(f"mount -t tmpfs -o size=32m,nr_inodes=1000 tmpfs '{disk}'; cp -a '{evening}' '{disk}/root'")
    root, only_read = disk / "root", f"mount -o remount,ro '{disk}'"
    assert "may only be read" in fails(forks, root, events, undisturbed, when=["end", "prepare"], then=only_read)
    assert "may only be read" in fails(forks, root, events, undisturbed)
    forks.shell(f"mount -o remount,rw '{disk}'")
    full = f"i=0; while mkdir '{disk}/'$i; do i=$((i+1)); done 2>/dev/null; true"
    assert "is full" in fails(forks, root, events, undisturbed, when=["end", "prepare"], then=full)
    forks.shell(f"rmdir '{disk}'/[0-9]*")
    assert forks.night(root, events).code == 0
    assert undisturbed.same(forks.state(root))


@fault("two nights at once below one root", outcome="goes on")
def test_of_two_nights_at_once_one_waits(forks: Forks, root: Path, events: Path, undisturbed: Undisturbed) -> None:
    given = {"root": str(root), "source": str(events)}
    both = [forks.begin("night", **given) for _ in range(2)]
    first, second = (forks.wait(*one) for one in both)
    assert first.code == second.code == 0, (first.said, second.said)
    assert first.answer["verdict"] == second.answer["verdict"] == undisturbed.summary["verdict"]
    assert {first.answer["nothing_to_do"], second.answer["nothing_to_do"]} == {True, False}
    assert undisturbed.same(forks.state(root))


@fault("the clock was a year ahead last night and is right now", outcome="goes on")
def test_a_clock_that_was_set_back_changes_nothing(
    forks: Forks, root: Path, events: Path, undisturbed: Undisturbed
) -> None:
    year = timedelta(days=365)
    for path in root.rglob("*"):
        if path.name == "manifest.json":
            manifest = json.loads(path.read_text())
            manifest["created"] = (datetime.fromisoformat(manifest["created"]) + year).isoformat()
            path.write_text(json.dumps(manifest))
        about = path.stat()
        os.utime(path, (about.st_atime + year.total_seconds(), about.st_mtime + year.total_seconds()))
    assert forks.night(root, events).code == 0
    assert undisturbed.same(forks.state(root))


@pytest.mark.parametrize(
    ("stage", "kind", "file"),
    [
        pytest.param(
            "prepare",
            "sessions",
            "sessions/day=2026-03-05/*",
            marks=fault("a flipped byte in tonight's sessions", outcome="made again"),
        ),
        pytest.param(
            "prepare", "sessions", "schema.json", marks=fault("a damaged feature schema", outcome="made again")
        ),
        pytest.param(
            "train",
            "models",
            "model.safetensors",
            marks=fault("a flipped byte in tonight's model", outcome="made again"),
        ),
        pytest.param(
            "train", "models", "config.json", marks=fault("a damaged model configuration", outcome="made again")
        ),
        pytest.param("evaluate", "evaluations", "result.json", marks=fault("damaged metrics", outcome="made again")),
        pytest.param("evaluate", "evaluations", "ranks.parquet", marks=fault("damaged ranks", outcome="made again")),
        pytest.param(
            "compare",
            "comparisons",
            "comparison.json",
            marks=fault("a damaged comparison", outcome="the verdict was applied; `overnight verify` names the record"),
        ),
    ],
)
def test_what_rots_between_two_stages_is_found_and_made_anew(
    stage: str, kind: str, file: str, forks: Forks, root: Path, events: Path, undisturbed: Undisturbed
) -> None:
    ended = forks.night(root, events, when=["end", stage], then=flip(root, f"{kind}/*/{file}"))
    if ended.answer is None or "mistake" in ended.answer:
        assert f"{kind}/" in ended.mistake
    mended = forks.night(root, events)
    if kind == "comparisons":  # a record for people, once its model is in service
        state = forks.state(root)
        assert state["in_service"] == undisturbed.state["in_service"]
        assert all(line.startswith("comparisons/") and "remove the folder" in line for line in state["wrong"])
        return
    assert mended.answer and mended.answer["verdict"] == undisturbed.summary["verdict"], mended
    assert undisturbed.same_results(forks.state(root))
