"""Runs on a temporary server that is slow to start: which failures of a stage are tried again, its time limit, its progress.

One server and one process for all: to start them takes more CPU time than all they do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import LONG_SECONDS, begun
from tests.flows.test_server import slowed

RUN = """
import errno, json, sys, time
from collections import Counter
from pathlib import Path
from flows.environment import prepare_environment
from flows.server import prefect_server
from schemas.progress import Progress
prepare_environment(Path(sys.argv[1]))
with prefect_server(lambda line: print(line, file=sys.stderr)):
    from prefect import flow, task
    from prefect.client.orchestration import get_client
    from flows.in_service import InService
    from flows.tasks import as_task, explain_mistakes
    from schemas.errors import AwayError, InputError, StageEndedError
    from schemas.lock import LostLockError

    tries, ends = Counter(), {}

    def stage(name, *errors, seconds=0):
        def run(settings, progress):
            number = tries[name]
            tries[name] += 1
            time.sleep(seconds)
            if number < len(errors):
                raise errors[number]
            return InService("models/1", changed=False)
        run.__name__ = name
        return run

    away = ConnectionError("the source is away")
    full = OSError(errno.ENOSPC, "No space left on device")
    AGAIN = (0.1, 0.2)

    @flow
    @explain_mistakes
    def one(function, hours):
        return as_task(function, try_again_after=AGAIN, hours=hours)(None)

    for function, hours in (
        (stage("away_twice", away, away), 1),
        (stage("away", *[away] * 9), 1),
        (stage("store_away_twice", *[AwayError("s3://shop: does not answer")] * 2), 1),
        (stage("mistake", *[InputError("no such column")] * 9), 1),
        (stage("lost", *[LostLockError("taken over")] * 9), 1),
        (stage("full", *[full] * 9), 1),
        (stage("killed", *[StageEndedError("The stage train has no result")] * 9), 1),
        (stage("slow", seconds=30), 1 / 3600),
    ):
        state = one(function, hours, return_state=True)
        ends[function.__name__] = [tries[function.__name__], state.name, state.message or ""]

    from flows.reports import progress
    progress.REST = 3600
    lines = []
    @task
    def work():
        with progress.run_progress("work", ("one", "two"), lines.append) as tell:
            with get_client(sync_client=True) as client:
                def shown():
                    return [artifact.data for artifact in client.read_artifacts() if artifact.key == "work"]
                tell(Progress("one", 1, 2, "half"))
                first = shown()
                tell(Progress("one", 2, 2))
                resting = shown()
                progress.REST = -1
                tell(Progress("two", 1, 2))
                second = shown()
                tell("a line")
        with get_client(sync_client=True) as client:
            return first, resting, second, shown()
    @flow
    def shows():
        return work()
    print(json.dumps({"ends": ends, "shown": shows(), "lines": lines}))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    folder = tmp_path_factory.mktemp("runs")
    return subprocess.run(
        [sys.executable, "-c", RUN, str(begun(folder / "root"))],
        capture_output=True,
        text=True,
        env=slowed(folder, 12),
        timeout=LONG_SECONDS,
        cwd=Path(__file__).parents[2],
    )


@pytest.fixture(scope="module")
def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What the process printed last."""
    assert done.returncode == 0, done.stdout + done.stderr
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


def test_a_slow_server_is_waited_for_and_one_line_says_so(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("Waiting for Prefect's temporary server")]
    assert len(said) == 1 and "up to 10 minutes" in said[0]
    assert "View at" not in done.stdout + done.stderr, "it has no pages to link to"


@pytest.mark.fault("a source is away for a moment", outcome="tried again after 10 and 60 seconds")
@pytest.mark.fault("a stage hangs", outcome="stopped at its time limit, with one line")
def test_what_may_pass_is_tried_again_and_nothing_else(answer: dict[str, Any]) -> None:
    ends = answer["ends"]
    assert ends["away_twice"][:2] == [3, "Completed"]
    assert ends["store_away_twice"][:2] == [3, "Completed"]
    assert ends["away"][:2] == [3, "Failed"] and "the source is away" in ends["away"][2]
    assert ends["mistake"] == [1, "Mistake", "no such column"]
    assert ends["lost"] == [1, "LostLock", "taken over"]
    assert ends["full"][:2] == [1, "Mistake"] and "The disk is full." in ends["full"][2]
    assert ends["slow"][:2] == [1, "TimedOut"] and "The stage slow was stopped" in ends["slow"][2], ends
    assert ends["killed"][:2] == [1, "ProcessEnded"] and "train has no result" in ends["killed"][2]


def test_a_run_has_an_artifact_that_moves_but_not_all_the_time(answer: dict[str, Any]) -> None:
    assert answer["shown"] == [[25.0], [25.0], [75.0], [100.0]]
    assert answer["lines"] == ["one: half", "one: 2 of 2 (100%)", "two: 1 of 2 (50%)", "a line"]
