"""Which failures of a stage are tried again, and that a stage ends when its time is over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import LONG_SECONDS, begun, clean_environment

RUN = """
import errno, json, sys, time
from collections import Counter
from pathlib import Path
from flows.environment import prepare_environment
from flows.server import prefect_server
prepare_environment(Path(sys.argv[1]))
with prefect_server(print):
    from prefect import flow
    from flows.in_service import InService
    from flows.tasks import as_task, explain_mistakes
    from schemas.errors import InputError
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
        (stage("mistake", *[InputError("no such column")] * 9), 1),
        (stage("lost", *[LostLockError("taken over")] * 9), 1),
        (stage("full", *[full] * 9), 1),
        (stage("slow", seconds=30), 1 / 3600),
    ):
        state = one(function, hours, return_state=True)
        ends[function.__name__] = [tries[function.__name__], state.name, state.message or ""]
    print(json.dumps(ends))
"""


@pytest.mark.fault("a source is away for a moment", outcome="tried again after 10 and 60 seconds")
@pytest.mark.fault("a stage hangs", outcome="stopped at its time limit, with one line")
def test_what_may_pass_is_tried_again_and_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(begun(tmp_path))],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=LONG_SECONDS,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ends = json.loads(done.stdout.splitlines()[-1])
    assert ends["away_twice"][:2] == [3, "Completed"]
    assert ends["away"][:2] == [3, "Failed"] and "the source is away" in ends["away"][2]
    assert ends["mistake"] == [1, "Mistake", "no such column"]
    assert ends["lost"] == [1, "LostLock", "taken over"]
    assert ends["full"][:2] == [1, "Mistake"] and "The disk is full." in ends["full"][2]
    assert ends["slow"][:2] == [1, "TimedOut"] and "The stage slow was stopped" in ends["slow"][2], ends
