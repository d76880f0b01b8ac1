"""Nights that something happens to: the process that runs them, and a root on the evening before, with a model in service."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from preprocessing.simulate import Shop, simulate
from tests.flows.conftest import clean_environment
from tests.flows.conftest import folder_of_all_processes as folder_of_all_processes
from tests.flows.conftest import shop as shop

YESTERDAY = "2026-03-04"
PROJECT = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--mount", "--"]


@dataclass
class Ended:
    """How a request ended: its exit code (below 0 a signal), its answer if there is one, what it wrote to stderr."""

    code: int
    answer: Any
    said: str

    @property
    def mistake(self) -> str:
        assert self.code == 0, self.said
        assert "Traceback" not in self.said
        line: str = self.answer["mistake"]
        assert "\n" not in line
        return line


@dataclass
class Forks:
    """The process of `tests.faults.forks`."""

    process: subprocess.Popen[str]
    folder: Path
    may_mount: bool
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def ask(self, do: str, **given: Any) -> Ended:
        return self.wait(*self.begin(do, **given))

    def begin(self, do: str, **given: Any) -> tuple[int, Path]:
        answer = self.folder / f"{next(self.numbers)}.json"
        (self.folder / "stderr").open("a").close()
        said = self._tell({"do": do, "answer": str(answer)} | given)
        return said["pid"], answer

    def wait(self, pid: int, answer: Path) -> Ended:
        seen = self._tell({"do": "wait", "pid": pid})
        said = (self.folder / "stderr").read_text()
        (self.folder / "stderr").write_text("")
        return Ended(seen["code"], json.loads(answer.read_text()) if seen["code"] == 0 else None, said)

    def night(self, root: Path, source: Path, **given: Any) -> Ended:
        return self.ask("night", root=str(root), source=str(source), **given)

    def state(self, root: Path) -> dict[str, Any]:
        ended = self.ask("state", root=str(root))
        assert ended.code == 0, ended.said
        found: dict[str, Any] = ended.answer
        return found

    def shell(self, command: str) -> str:
        ended = self.ask("shell", command=command)
        assert ended.code == 0, ended.said
        said: str = ended.answer
        return said

    def _tell(self, request: dict[str, Any]) -> Any:
        assert self.process.stdin and self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    folder = tmp_path_factory.mktemp("forks")
    may = not os.getuid() and shutil.which("unshare") and not subprocess.run([*NAMESPACE, "true"]).returncode
    command = [*(NAMESPACE if may else []), sys.executable, "-m", "tests.faults.forks"]
    with (folder / "stderr").open("a") as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=PROJECT,
            env=clean_environment() | {"PREFECT_HOME": str(folder / "prefect"), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    assert process.stdout and json.loads(process.stdout.readline()) == "ready"
    yield Forks(process, folder, bool(may))
    assert process.stdin
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="session")
def evening_and_events(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A root after the night before, whose model is in service, and the events, whose newest day came since."""
    root, events = (tmp_path_factory.mktemp(name) / name for name in ("root", "events"))
    simulate(Shop(days=4, users=150, seed=5), events)
    *_, newest = sorted((events / "events").iterdir())
    waits = newest.rename(events / "not-yet")
    done = forks.night(root, events, until=YESTERDAY)
    assert done.answer and done.answer["promoted"], done
    waits.rename(newest)
    return root, events


@pytest.fixture(scope="session")
def evening(evening_and_events: tuple[Path, Path]) -> Path:
    return evening_and_events[0]


@pytest.fixture(scope="session")
def events(evening_and_events: tuple[Path, Path]) -> Path:
    """Four days of a small shop."""
    return evening_and_events[1]


@pytest.fixture
def root(evening: Path, tmp_path: Path) -> Path:
    """A copy of that root."""
    return copied(evening, tmp_path / "root")


@dataclass
class Undisturbed:
    """The night to compare with: its summary, what it leaves, and what was in service before."""

    summary: dict[str, Any]
    state: dict[str, Any]
    before: dict[str, Any]

    def same(self, state: dict[str, Any]) -> bool:
        """Whether a root is as this night leaves it: same artifacts, same bytes, same model in service, nothing damaged."""
        assert not state["wrong"] and not state["left"]
        there, wanted = (set(found["files"].items()) for found in (state, self.state))
        assert not there ^ wanted, sorted(there ^ wanted)
        assert state == self.state
        return True

    def same_results(self, state: dict[str, Any]) -> bool:
        """`same` where days were done again, which gives them other names: same sessions, models, metrics and verdict."""
        results = [
            {name: digest for name, digest in found["files"].items() if not name.startswith(("days/", "states/"))}
            for found in (state, self.state)
        ]
        assert not state["wrong"] and not state["left"]
        assert results[0] == results[1] and state["in_service"] == self.state["in_service"]
        return True


@pytest.fixture(scope="session")
def undisturbed(forks: Forks, evening: Path, events: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    root = copied(evening, tmp_path_factory.mktemp("undisturbed") / "root")
    before = forks.state(root)
    done = forks.night(root, events)
    assert done.answer and done.answer["promoted"], done
    return Undisturbed(done.answer, forks.state(root), before)


def copied(root: Path, to: Path) -> Path:
    """A copy that keeps times and links, as `cp -a` makes it."""
    subprocess.run(["cp", "-a", str(root), str(to)], check=True)
    return to
