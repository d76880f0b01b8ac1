"""The lock on a root: one writer on any number of machines, and none that lost it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas import claims, lock
from schemas.artifacts import Artifacts, replace_file, write_atomically
from schemas.errors import InputError
from schemas.lock import LostLockError, holding, owner_of
from schemas.owner import Owner

ELSEWHERE = "another-machine"
HOLD = """
import sys, time
from pathlib import Path
from schemas import lock
from schemas.artifacts import Artifacts
lock.BEAT_SECONDS, lock.STALE_SECONDS = 0.2, float(sys.argv[2])
artifacts = Artifacts(sys.argv[1])
try:
    with lock.holding(artifacts.root, lock.NIGHT, "night of shop") as held:
        print(held.token, flush=True)
        sys.stdin.readline()
        with artifacts.write("models", "0" * 16) as draft:
            (draft.folder / "weights").write_text("old")
        print("written", flush=True)
except lock.LostLockError as error:
    print(error, flush=True)
"""


def holder(root: Path, stale: float = 1e9) -> subprocess.Popen[str]:
    """Another process that holds the night's lock until it gets a line, and then writes an artifact."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), str(stale)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout
    assert process.stdout.readline().strip().isdecimal()
    return process


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate("go on\n")
    return out


def from_elsewhere(root: Path, token: int, beat: str | None = "1") -> Path:
    """A claim as a process of another machine leaves it."""
    folder = root / lock.FOLDER / lock.NIGHT
    folder.mkdir(parents=True, exist_ok=True)
    owner = Owner.here("night of shop").model_copy(update={"host": ELSEWHERE, "boot": "another"})
    (folder / f"{token:012}").write_text(owner.model_dump_json())
    if beat:
        (folder / f"{token:012}.beat").write_text(beat)
    return folder


@pytest.mark.fault("another process holds the lock and stays", outcome="one line with who it is")
def test_a_second_process_is_refused_and_who_is_there_is_said(tmp_path: Path) -> None:
    process = holder(tmp_path)
    with (
        pytest.raises(InputError, match=rf"in use: night of shop \(process {process.pid} on "),
        holding(tmp_path, lock.NIGHT, "backtest", wait_seconds=0.5),
    ):
        pass
    assert "written" in finish(process).splitlines()


def test_a_second_process_waits_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "QUIET_SECONDS", 0.0)
    process = holder(tmp_path)
    said: list[object] = []

    def let_go(line: object) -> None:
        said.append(line)
        finish(process)

    with holding(tmp_path, lock.NIGHT, "backtest", let_go) as held:
        assert held.token == 2
        assert (tmp_path / "models" / ("0" * 16)).is_dir()
    assert len(said) == 1 and str(process.pid) in str(said[0])


def test_of_many_threads_and_tries_each_has_it_alone(tmp_path: Path) -> None:
    """Claims race in one process: what `holding` would count as its own is left out."""
    folder = tmp_path / lock.FOLDER / lock.NIGHT
    inside, most, tokens = 0, 0, []
    mutex = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            held = lock._take(folder, Owner.here("night"), lambda _: None, 3600, 0)
            with mutex:
                inside += 1
                most = max(most, inside)
                tokens.append(held.token)
            time.sleep(0.001)
            held.check()
            with mutex:
                inside -= 1
            held.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert tokens == sorted(set(tokens)) and len(tokens) == 20


@pytest.mark.fault("the process that held the lock was killed", outcome="the next run takes it at once")
def test_a_killed_process_is_followed_at_once(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.wait()
    assert owner_of(tmp_path) is None
    with holding(tmp_path, lock.NIGHT, "night", wait_seconds=0) as held:
        assert held.token == 2


def test_a_process_with_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path: Path) -> None:
    folder = tmp_path / lock.FOLDER / lock.NIGHT
    folder.mkdir(parents=True)
    owner = Owner.here("night").model_copy(update={"started": "1"})
    (folder / f"{4:012}").write_text(owner.model_dump_json())
    with holding(tmp_path, lock.NIGHT, "night", wait_seconds=0) as held:
        assert held.token == 5


@pytest.mark.parametrize("beat", ["17", None])
@pytest.mark.fault("another machine died with the lock", outcome="the next run takes it after three minutes")
def test_another_machine_is_followed_when_its_beat_stands_still(
    beat: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_elsewhere(tmp_path, 7, beat)
    with (
        pytest.raises(InputError, match=f"on {ELSEWHERE} since"),
        holding(tmp_path, lock.NIGHT, "night", wait_seconds=0.3),
    ):
        pass
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.3)
    with holding(tmp_path, lock.NIGHT, "night") as held:
        assert held.token == 8


def test_another_machine_whose_beat_goes_on_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a clock that is days behind: only change counts."""
    monkeypatch.setattr(lock, "STALE_SECONDS", 30.0)
    folder, beats = from_elsewhere(tmp_path, 7), iter(range(2, 10**9))
    real = claims.newest

    def newest(place: Path) -> int:
        (folder / f"{7:012}.beat").write_text(str(next(beats)))
        os.utime(folder / f"{7:012}.beat", (1, 1))
        return real(place)

    monkeypatch.setattr(claims, "newest", newest)
    with pytest.raises(InputError, match=ELSEWHERE), holding(tmp_path, lock.NIGHT, "night", wait_seconds=2):
        pass


@pytest.mark.fault("a run is paused until another took over", outcome="it writes nothing more; one line")
def test_what_was_paused_until_another_took_over_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holder(tmp_path, stale=0.5)
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.5)
    with holding(tmp_path, lock.NIGHT, "night of another") as held:
        monkeypatch.setattr(lock, "STALE_SECONDS", 1e9)
        assert held.token >= 2
        process.send_signal(signal.SIGCONT)
        out = finish(process)
        assert "taken over by night of another" in out and "written" not in out.splitlines()
        assert not (tmp_path / "models").exists() or not list((tmp_path / "models").iterdir())
        held.check()
    assert owner_of(tmp_path) is None


def test_what_was_paused_and_not_followed_goes_on_with_a_higher_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holding(tmp_path, lock.NIGHT, "night") as held:
        monkeypatch.setattr(held, "_beaten", held._beaten - lock.STALE_SECONDS)
        held.check()
        assert held.token == 2
        held.check()
        assert held.token == 2
    with holding(tmp_path, lock.NIGHT, "night") as next_one:
        assert next_one.token == 3


def test_every_way_to_put_something_in_its_place_asks_first(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    (tmp_path / "file").write_text("as it was")
    with holding(tmp_path, lock.NIGHT, "night"):
        with artifacts.write("models", "a" * 16) as draft:
            pass
        assert draft.manifest.token == 1
        from_elsewhere(tmp_path, 2)
        with pytest.raises(LostLockError, match=ELSEWHERE), artifacts.write("models", "b" * 16):
            pass
        with pytest.raises(LostLockError):
            write_atomically(tmp_path / "file", "new")
        with pytest.raises(LostLockError):
            replace_file(tmp_path / "file", lambda path: path.write_text("new"))
        with pytest.raises(LostLockError):
            artifacts.begin_work()
        with pytest.raises(LostLockError), artifacts.unfinished("c" * 16) as folder:
            (folder / "checkpoint").write_text("theirs by now")
        assert (folder / "checkpoint").exists()
    assert (tmp_path / "file").read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "locks", "models", "unfinished"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["a" * 16]
    assert owner_of(tmp_path) is not None, "what is another's is not given back"


def test_one_process_takes_it_within_itself(tmp_path: Path) -> None:
    with holding(tmp_path, lock.NIGHT, "backfill") as outer, holding(tmp_path / ".", lock.NIGHT, "night") as inner:
        assert inner is outer
        assert lock.token_of(tmp_path) == 1
    assert lock.token_of(tmp_path) == 0
    assert [path.name for path in sorted((tmp_path / lock.FOLDER / lock.NIGHT).iterdir())][-1].endswith(".free")


def test_without_hard_links_a_claim_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    assert claims.claim(tmp_path, "1", "mine") and not claims.claim(tmp_path, "1", "yours")
    assert (tmp_path / "1").read_text() == "mine"


def test_tokens_grow_and_what_is_over_is_removed(tmp_path: Path) -> None:
    for token in range(1, 6):
        with holding(tmp_path, lock.NIGHT, "night") as held:
            assert held.token == token
    with holding(tmp_path, lock.NIGHT, "night", above=40) as held:
        assert held.token == 41
        assert len(list((tmp_path / lock.FOLDER / lock.NIGHT).iterdir())) == 2
    owner = json.loads((tmp_path / lock.FOLDER / lock.NIGHT / f"{41:012}").read_text())
    assert owner["what"] == "night" and datetime.fromisoformat(owner["since"]) < datetime.now(UTC)
