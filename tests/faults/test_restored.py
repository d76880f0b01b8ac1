"""A root that is copied elsewhere: the next night goes on there, and does nothing again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.conftest import Forks, Undisturbed


@pytest.mark.fault("the machine is lost: root and events are restored elsewhere", outcome="goes on")
@pytest.mark.parametrize("how", ["cp -a", "cp -r"])  # with and without the times of files and what is linked
def test_a_restored_root_goes_on(
    how: str, forks: Forks, root: Path, events: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    there = tmp_path / "other machine"
    forks.shell(f"mkdir '{there}' && {how} '{root}' '{there}/data' && {how} '{events}' '{there}/events'")
    shutil.rmtree(root)
    root, source = there / "data", there / "events"
    days = {path.name for path in (root / "days").iterdir()}
    again = forks.night(root, source, until="2026-03-04")
    assert again.answer["nothing_to_do"], again
    assert {path.name for path in (root / "days").iterdir()} == days
    done = forks.night(root, source)
    assert done.answer["verdict"] == undisturbed.summary["verdict"]
    assert len({path.name for path in (root / "days").iterdir()}) == len(days) + 1
    assert undisturbed.same_results(forks.state(root))
