"""A night that is killed anywhere: the next one goes on, and leaves what an undisturbed night leaves."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.conftest import Forks, Undisturbed

fault = pytest.mark.fault


KILLS = [
    pytest.param(["line", "^clean"], marks=fault("killed while events are cleaned", outcome="goes on")),
    pytest.param(["os.mkdir", "unfinished/days"], marks=fault("killed before a day is written", outcome="goes on")),
    pytest.param(["os.rename", "'[^']*/days/"], marks=fault("killed before a day gets its place", outcome="goes on")),
    pytest.param(["os.rename", "ledgers/"], marks=fault("killed before a day counts as finished", outcome="goes on")),
    pytest.param(["os.rename", "/sessions/"], marks=fault("killed before sessions are published", outcome="goes on")),
    pytest.param(["end", "prepare"], marks=fault("killed between preparing and training", outcome="goes on")),
    pytest.param(["os.rename", "/.checkpoint-"], marks=fault("killed while a checkpoint is saved", outcome="goes on")),
    pytest.param(["line", "loss"], marks=fault("killed in training", outcome="goes on")),
    pytest.param(["os.rename", "/models/"], marks=fault("killed before the model gets its place", outcome="goes on")),
    pytest.param(["end", "train"], marks=fault("killed between training and evaluation", outcome="goes on")),
    pytest.param(["line", "popularity"], marks=fault("killed in evaluation", outcome="goes on")),
    pytest.param(["os.rename", "/evaluations/"], marks=fault("killed before metrics are written", outcome="goes on")),
    pytest.param(["end", "evaluate"], marks=fault("killed between evaluation and comparison", outcome="goes on")),
    pytest.param(["os.rename", "/comparisons/"], marks=fault("killed in the comparison", outcome="goes on")),
    pytest.param(["end", "compare"], marks=fault("killed between comparison and promotion", outcome="goes on")),
    pytest.param(
        ["os.rename", "champions/"], marks=fault("killed in promotion, before the pointer moves", outcome="goes on")
    ),
    pytest.param(["end", "promote"], marks=fault("killed between promotion and report", outcome="goes on")),
    pytest.param(["os.rename", "/reports/"], marks=fault("killed while the report is written", outcome="goes on")),
    pytest.param(["end", "report"], marks=fault("killed after the report", outcome="goes on")),
]


@pytest.mark.parametrize("when", KILLS, ids=lambda when: "-".join(when))
def test_the_next_run_ends_as_an_undisturbed_one(
    when: list[str], forks: Forks, root: Path, events: Path, undisturbed: Undisturbed
) -> None:
    killed = forks.night(root, events, when=when)
    assert killed.code == -signal.SIGKILL, killed
    between = forks.state(root)
    assert not between["wrong"]  # what has its name is whole
    assert between["in_service"] in (undisturbed.before["in_service"], undisturbed.state["in_service"])
    again = forks.night(root, events)
    assert again.code == 0, again.said
    assert again.answer["verdict"] == undisturbed.summary["verdict"]
    assert undisturbed.same(forks.state(root))
