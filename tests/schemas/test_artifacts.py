"""Artifact folders: complete or absent, whatever happens while they are written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schemas import writing
from schemas.artifacts import Artifacts, Manifest, code_version, identify, write_atomically
from schemas.errors import InputError


def write(artifacts: Artifacts, artifact_id: str = "a1", text: str = "hello") -> Manifest:
    with artifacts.write("things", artifact_id, parents=("events/x",), parameters={"k": 1}) as draft:
        (draft.folder / "sub").mkdir()
        (draft.folder / "sub" / "data.json").write_text(text)
        draft.facts = {"rows": 1}
    return draft.manifest


def test_what_was_written_is_found_whole(tmp_path: Path) -> None:
    written = write(Artifacts(tmp_path))
    found = Artifacts(tmp_path).find("things", "a1")
    assert found and found.reused and not written.reused
    assert found.facts == {"rows": 1} and found.parents == ("events/x",)
    assert [file.path for file in found.files] == ["sub/data.json"]
    assert found == written.model_copy(update={"reused": True})


def test_each_file_is_synced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, manifest, the two folders that hold them, and the folder that the artifact's name is in."""
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append(str(Path(f"/proc/self/fd/{file}").readlink())) or real(file)
    )
    write(Artifacts(tmp_path))
    assert sorted(Path(path).name for path in synced)[:-1] == sorted(["data.json", "manifest.json", "sub", "things"])
    assert len(synced) == 5


@pytest.mark.parametrize("damage", ["change", "remove", "no manifest", "half a manifest"])
@pytest.mark.fault("a finished artifact lost a file or a byte", outcome="it is made again")
def test_a_damaged_artifact_is_as_good_as_none(tmp_path: Path, damage: str) -> None:
    folder = write(Artifacts(tmp_path)).folder
    if damage == "change":
        (folder / "sub" / "data.json").write_text("hellO")
    elif damage == "remove":
        (folder / "sub" / "data.json").unlink()
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text('{"kind": "things",')
    assert Artifacts(tmp_path).find("things", "a1") is None
    assert write(Artifacts(tmp_path)).folder.is_dir()


def test_what_another_process_finished_meanwhile_stays(tmp_path: Path) -> None:
    """Who reads it already may go on; and the later one has the same."""
    with Artifacts(tmp_path).write("things", "a1") as draft:
        (draft.folder / "data.json").write_text("this one's")
        os.rename(draft.folder, tmp_path / "aside")  # two processes have drafts of their own  # noqa: PTH104
        first = write(Artifacts(tmp_path))
        inode = (first.folder / "sub" / "data.json").stat().st_ino
        os.rename(tmp_path / "aside", draft.folder)  # noqa: PTH104
    assert draft.manifest == first
    assert (first.folder / "sub" / "data.json").stat().st_ino == inode
    assert write(Artifacts(tmp_path)).created > first.created, "one that was there before is made anew"


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Artifacts(tmp_path).write("things", "a1") as draft:
        (draft.folder / "x").write_text("half")
        raise RuntimeError
    assert list((tmp_path / "things").iterdir()) == []


def test_a_kill_leaves_nothing_that_counts(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from schemas.artifacts import Artifacts\n"
        "with Artifacts(sys.argv[1]).write('things', 'a1') as draft:\n"
        "    (draft.folder / 'x').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL
    assert Artifacts(tmp_path).find("things", "a1") is None
    assert len(list((tmp_path / "unfinished").iterdir())) == 1
    write(Artifacts(tmp_path))
    assert [path.name for path in (tmp_path / "things").iterdir()] == ["a1"]
    assert not list((tmp_path / "unfinished").iterdir()), "what the killed process left is cleared"


def test_names_cannot_leave_the_root(tmp_path: Path) -> None:
    for kind, name in (("..", "x"), ("things", "../../x"), ("/etc", "passwd")):
        with pytest.raises(InputError, match="leave the artifact root"):
            Artifacts(tmp_path / "root").find(kind, name)


def test_get_takes_a_short_id_and_explains_what_is_wrong(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    write(artifacts, "abc1"), write(artifacts, "abd2")
    assert artifacts.get("things/abc").id == "abc1"
    with pytest.raises(InputError, match="not unique: abc1, abd2"):
        artifacts.get("things/ab")
    with pytest.raises(InputError, match="is not there"):
        artifacts.get("things/zz")


def test_the_newest_is_the_last_one_written(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    assert artifacts.newest("things") is None
    write(artifacts, "b"), write(artifacts, "a")
    newest = artifacts.newest("things")
    assert newest and newest.id == "a"


def test_ids_follow_parents_parameters_and_code(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("x = 1")
    first = code_version(code)
    code_version.cache_clear()
    (code / "a.py").write_text("x = 2")
    assert code_version(code) != first
    ids = {
        identify(code="1", parents=("p",), k=1),
        identify(code="2", parents=("p",), k=1),
        identify(code="1", parents=("q",), k=1),
        identify(code="1", parents=("p",), k=2),
    }
    assert len(ids) == 4
    assert identify(code="1", a=1, b=2) == identify(code="1", b=2, a=1)


def test_a_small_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "champion.json"
    write_atomically(path, "old")
    before = path.stat().st_ino
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [path]


def test_unfinished_work_outlives_a_crash_and_is_nobody_elses(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    with pytest.raises(RuntimeError), artifacts.unfinished("a1") as folder:
        (folder / "checkpoint").write_text("half")
        with pytest.raises(InputError, match="Another process is working on a1"), artifacts.unfinished("a1"):
            pass
        raise RuntimeError
    with artifacts.unfinished("a1") as folder:
        assert (folder / "checkpoint").read_text() == "half"
    assert not folder.exists()


def test_unfinished_work_of_another_process_can_be_waited_for(tmp_path: Path) -> None:
    artifacts, calls = Artifacts(tmp_path), list[str]()
    first = artifacts.unfinished("a1")
    first.__enter__()

    def wait() -> None:
        calls.append("waits")
        first.__exit__(None, None, None)

    with artifacts.unfinished("a1", wait) as folder:
        assert folder.is_dir() and calls == ["waits"]
    with artifacts.unfinished("a1", wait):
        assert calls == ["waits"], "nobody was to be waited for"


def test_work_that_was_refused_before_it_began_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="refused"), Artifacts(tmp_path).unfinished("a1") as folder:
        raise InputError("refused")
    assert not folder.exists()


def test_a_folder_that_another_process_removes_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, flock = tmp_path / "unfinished/a1", writing.fcntl.flock
    removed = iter([folder.rmdir])

    def late(descriptor: int, how: int) -> None:
        next(removed, lambda: None)()  # between opening and locking
        flock(descriptor, how)

    monkeypatch.setattr(writing.fcntl, "flock", late)
    with Artifacts(tmp_path).unfinished("a1") as made:
        assert made == folder
        assert folder.is_dir()
        with pytest.raises(InputError, match="Another process"), Artifacts(tmp_path).unfinished("a1"):
            pass
