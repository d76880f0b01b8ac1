"""A night that is killed anywhere: the next one goes on, and leaves what an undisturbed night leaves."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.conftest import Forks, Undisturbed, copied

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


def test_a_night_that_is_killed_at_every_step_ends_as_an_undisturbed_one(
    forks: Forks, root: Path, events: Path, undisturbed: Undisturbed
) -> None:
    for when in (parameter.values[0] for parameter in KILLS):
        killed = forks.night(root, events, when=when)
        assert killed.code == -signal.SIGKILL, (when, killed)
        between = forks.state(root)
        assert not between["wrong"], when  # what has its name is whole
        assert between["in_service"] in (undisturbed.before["in_service"], undisturbed.state["in_service"])
    again = forks.night(root, events)
    assert again.code == 0, again.said
    assert again.answer["verdict"] == undisturbed.summary["verdict"]
    assert undisturbed.same(forks.state(root))


@fault("killed while the promoted model is refit", outcome="goes on")
def test_killed_in_the_refit_the_next_run_goes_on_to_the_same_bits(
    forks: Forks, evening: Path, events: Path, tmp_path: Path
) -> None:
    refit = {"changes": ["training.refit=true"]}
    whole, root = (copied(evening, tmp_path / name) for name in ("whole", "root"))
    wanted = forks.night(whole, events, **refit)
    assert wanted.answer["refit_of"], wanted
    before = forks.state(root)["in_service"]
    for when in (["end", "compare"], ["os.rename", "/models/"]):
        assert forks.night(root, events, when=when, **refit).code == -signal.SIGKILL
        assert forks.state(root)["in_service"] == before, "nothing takes over before the refit is whole"
    again = forks.night(root, events, **refit)
    assert any("Going on from step" in line for line in again.answer["lines"]), again
    assert again.answer["in_service"] == wanted.answer["in_service"]
    weights = [(place / again.answer["in_service"] / "model.safetensors").read_bytes() for place in (whole, root)]
    assert weights[0] == weights[1]
