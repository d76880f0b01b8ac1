"""All processes that a kept command started end with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.keeper import PROCESSES, start, stop
from tests.flows.conftest import LONG_SECONDS
from tests.flows.served import is_there, wait_until

pytestmark = pytest.mark.skipif(not PROCESSES.exists(), reason="looks for processes in /proc")
# Starts what leaves its group and its parent, and one more that does not listen to SIGTERM; then ends or sleeps.
FAMILY = """
import os, signal, subprocess, sys, time
def note(name):
    with open(os.path.join(sys.argv[1], name + ".part"), "w") as file:
        file.write(str(os.getpid()))
    os.replace(file.name, os.path.join(sys.argv[1], name))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        note("orphan")
        time.sleep(3600)
    os._exit(0)
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: note("asked"))
    note("stubborn")
    while True:
        time.sleep(3600)
note("command")
time.sleep(float(sys.argv[2]))
"""


def begin(folder: Path, seconds: float) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A keeper of FAMILY, and the processes of it."""
    keeper = start([sys.executable, "-c", FAMILY, str(folder), str(seconds)], dict(os.environ), folder)
    names = ("orphan", "stubborn", "command")
    wait_until(lambda: all((folder / name).exists() for name in names))
    return keeper, [int((folder / name).read_text()) for name in names]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What does not listen is killed after two seconds."""
    changed = tmp_path / "flows"
    changed.mkdir()
    text = (Path(__file__).parents[2] / "flows" / "keeper.py").read_text()
    (changed / "keeper.py").write_text(text.replace("LAST_SECONDS = 30 ", "LAST_SECONDS = 2 "))
    monkeypatch.setattr("flows.keeper.__file__", str(changed / "keeper.py"))


def test_a_stopped_keeper_leaves_nothing(tmp_path: Path) -> None:
    keeper, family = begin(tmp_path, 3600)
    assert all(map(is_there, family))
    stop(keeper)
    assert not any(map(is_there, family))
    assert (tmp_path / "asked").exists(), "politely first"


def test_a_command_that_ends_takes_the_rest_with_it(tmp_path: Path) -> None:
    keeper, family = begin(tmp_path, 0)
    assert keeper.wait(LONG_SECONDS) == 0
    assert not any(map(is_there, family))


def test_a_killed_starter_ends_all(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
from pathlib import Path
import flows.keeper
flows.keeper.__file__ = {str(tmp_path / "flows" / "keeper.py")!r}
flows.keeper.start([sys.executable, "-c", {FAMILY!r}, {str(tmp_path)!r}, "3600"], dict(os.environ), Path({str(tmp_path)!r}))
time.sleep(3600)
"""
    starter = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    names = ("orphan", "stubborn", "command")
    wait_until(lambda: all((tmp_path / name).exists() for name in names))
    family = [int((tmp_path / name).read_text()) for name in names]
    starter.kill()
    starter.wait()
    wait_until(lambda: not any(map(is_there, family)))


def test_the_exit_code_is_that_of_the_command(tmp_path: Path) -> None:
    keeper = start([sys.executable, "-c", "raise SystemExit(7)"], dict(os.environ), tmp_path)
    assert keeper.wait(LONG_SECONDS) == 7
