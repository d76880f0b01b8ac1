"""A disk that is full at a writer: one line, and with room the next run ends as an undisturbed one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Forks, Undisturbed

fault = pytest.mark.fault


@pytest.fixture
def disk(forks: Forks, tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, mounted for the nights alone."""
    if not forks.may_mount:
        pytest.skip("mounting a disk takes root and a mount namespace of one's own")
    place = tmp_path / "disk"
    place.mkdir()
    forks.shell(f"mount -t tmpfs -o size=32m tmpfs '{place}'")
    yield place
    forks.shell(f"umount -l '{place}'")


FULL = [
    pytest.param(["open", "locks/night/."], marks=fault("disk full: the lock of the root", outcome="one line")),
    pytest.param(
        ["os.mkdir", "'[^']*/inventories'"], marks=fault("disk full: the index of the source", outcome="one line")
    ),
    pytest.param(
        ["os.mkdir", "unfinished/[0-9a-f]+/[0-9a-f-]+/"],
        marks=fault("disk full: events on their way", outcome="one line"),
    ),
    pytest.param(["os.mkdir", "unfinished/days"], marks=fault("disk full: a day", outcome="one line")),
    pytest.param(
        ["os.mkdir", "unfinished/states"], marks=fault("disk full: the state of features", outcome="one line")
    ),
    pytest.param(["os.mkdir", "ledgers"], marks=fault("disk full: the ledger of finished days", outcome="one line")),
    pytest.param(
        ["os.mkdir", "unfinished/sessions"], marks=fault("disk full: the published sessions", outcome="one line")
    ),
    pytest.param(
        ["os.mkdir", "unfinished/profiles"], marks=fault("disk full: the page of the day", outcome="one line")
    ),
    pytest.param(["os.mkdir", "/.checkpoint-"], marks=fault("disk full: a checkpoint", outcome="one line")),
    pytest.param(["open", "unfinished/models.*config"], marks=fault("disk full: the model", outcome="one line")),
    pytest.param(["os.mkdir", "unfinished/evaluations"], marks=fault("disk full: the metrics", outcome="one line")),
    pytest.param(["os.mkdir", "unfinished/comparisons"], marks=fault("disk full: the comparison", outcome="one line")),
    pytest.param(
        ["os.mkdir", "champions"], marks=fault("disk full: the pointer to the model in service", outcome="one line")
    ),
    pytest.param(["os.mkdir", "unfinished/reports"], marks=fault("disk full: the report", outcome="one line")),
]


def test_a_full_disk_is_one_line_and_with_room_it_goes_on(
    forks: Forks, disk: Path, evening: Path, events: Path, undisturbed: Undisturbed
) -> None:
    """One night, whose disk is full at each writer in turn: it gets as far as the next one every time."""
    forks.shell(f"cp -a '{evening}' '{disk}/root'")
    root = disk / "root"
    for when in (parameter.values[0] for parameter in FULL):
        failed = forks.night(root, events, when=when, then="fill")
        assert re.search(r"disk( of --root)? is full", failed.mistake), when
        between = forks.state(root)
        assert not between["wrong"], when
        assert between["in_service"] == undisturbed.before["in_service"] or when == FULL[-1].values[0]
        forks.shell(f"rm '{disk}/filler'")
    assert forks.night(root, events).code == 0
    assert undisturbed.same(forks.state(root))
