"""Prune removes what Overnight wrote and nothing needs, and nothing else: links, foreign files, copies stay."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.drafts import GOING
from flows.prune import prune
from schemas.artifacts import MANIFEST, Artifacts
from tests.flows.conftest import overnight_here

OLD, OLDER = "1" * 16, "2" * 16
LONG_AGO = time.time() - 300 * 24 * 3600


def write_old(artifacts: Artifacts, kind: str, name: str, days: int = 300) -> Path:
    """An artifact of so many days ago."""
    with artifacts.write(kind, name) as draft:
        (draft.folder / "content").write_text("x" * 1000)
    change(draft.manifest.folder, created=str(datetime.now(UTC) - timedelta(days=days)))
    return draft.manifest.folder


def change(folder: Path, **facts: Any) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


@pytest.fixture
def root(tmp_path: Path) -> Artifacts:
    """Two old models, of which prune keeps one and removes the older."""
    artifacts = Artifacts(tmp_path / "root")
    write_old(artifacts, "models", OLD)
    write_old(artifacts, "models", OLDER, days=400)
    return artifacts


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An artifact of another root, with old times."""
    folder = write_old(Artifacts(tmp_path / "another"), "models", "3" * 16)
    for path in (*folder.iterdir(), folder):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return folder


def test_a_link_in_place_of_an_artifact_is_left_alone_with_what_it_points_to(root: Artifacts, elsewhere: Path) -> None:
    link = root.root / "models" / elsewhere.name
    link.symlink_to(elsewhere)
    (root.root / "models" / ("4" * 16)).symlink_to(root.root / "models" / OLDER)
    (root.root / "models" / ("5" * 16)).symlink_to("nowhere")
    pruned = prune(root, 1, 7, remove=True)
    assert pruned.going == {"models": [OLDER]}
    assert pruned.unread == [f"models/{number * 16}" for number in "345"]
    assert link.is_symlink() and (elsewhere / "content").exists()


def test_a_folder_of_a_kind_that_is_a_link_is_left_alone(root: Artifacts, elsewhere: Path) -> None:
    (root.root / "evaluations").symlink_to(elsewhere.parent)
    pruned = prune(root, 1, 7, remove=True)
    assert pruned.going == {"models": [OLDER]} and "evaluations" in pruned.unread[0]
    assert (elsewhere / "content").exists()


def test_of_a_link_among_drafts_the_link_goes(root: Artifacts, elsewhere: Path) -> None:
    drafts = root.root / "unfinished"
    for name, target in (("to-a-folder", elsewhere), ("to-nothing", Path("nowhere"))):
        (drafts / name).symlink_to(target)
        os.utime(drafts / name, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    (drafts / "draft").mkdir()
    (drafts / "draft" / "dangling").symlink_to("nowhere")
    for path in (drafts / "draft" / "dangling", drafts / "draft"):
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    assert prune(root, 1, 7, remove=True).going["unfinished"] == ["draft", "to-a-folder", "to-nothing"]
    assert not list(drafts.iterdir()) and (elsewhere / "content").exists()


def test_what_is_linked_into_a_root_is_not_measured(root: Artifacts, elsewhere: Path) -> None:
    before = prune(root, 1, 7).sizes
    (root.root / "big").symlink_to(elsewhere.parents[1])
    assert prune(root, 1, 7).sizes == before


def test_a_manifest_that_names_another_folder_removes_neither(root: Artifacts) -> None:
    """Such as that of a copy which a person made."""
    copy = root.root / "models" / "before-the-sale"
    copy.mkdir()
    for path in (root.root / "models" / OLDER).iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    champions = root.root / "champions" / "shop"
    champions.mkdir(parents=True)
    change(write_old(root, "evaluations", "6" * 16), kind="champions", id="shop")
    change(write_old(root, "evaluations", "7" * 16), id="../../../root")
    pruned = prune(root, 1, 7, remove=True)
    assert pruned.going == {"models": [OLDER]}
    assert {"models/before-the-sale", f"evaluations/{'6' * 16}", f"evaluations/{'7' * 16}"} == set(pruned.unread)
    assert champions.is_dir() and (copy / "content").exists()


def test_folders_and_files_of_somebody_else_stay(root: Artifacts) -> None:
    places = ["notes/diary", "models/README", "models/mine/weights", "mlruns/1/meta.yaml", "sessions/.keep", "plain"]
    for place in places:
        (root.root / place).parent.mkdir(parents=True, exist_ok=True)
        (root.root / place).write_text("mine")
        os.utime(root.root / place, (LONG_AGO, LONG_AGO))
    (root.root / "models" / "mine" / MANIFEST).write_text('{"name": "a web page", "icons": []}')
    assert prune(root, 1, 0, remove=True).going == {"models": [OLDER]}
    assert all((root.root / place).read_text() == "mine" for place in places)


@pytest.mark.fault(
    "`overnight prune --remove` is killed", outcome="each folder is whole or gone; the next prune removes the rest"
)
def test_what_a_killed_prune_left_half_removed_goes_next_time(root: Artifacts) -> None:
    left = root.root / "unfinished" / f"models.{OLDER}{GOING}"
    (root.root / "models" / OLDER).rename(left)
    (left / MANIFEST).unlink()
    assert prune(root, 1, 7).going == {"unfinished": [left.name]}
    assert prune(root, 1, 7, remove=True).going == {"unfinished": [left.name]}
    assert prune(root, 1, 7, remove=True).going == {}
    assert not list(left.parent.iterdir())


def test_files_that_go_while_a_root_is_measured_are_not_counted(
    root: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run takes no lock: a night may be writing."""
    real = os.walk

    def walk(*given: Any, **more: Any) -> Any:
        for place, folders, names in real(*given, **more):
            yield place, folders, [*names, "gone-by-now"]

    monkeypatch.setattr(os, "walk", walk)
    assert prune(root, 1, 7).going == {"models": [OLDER]}


@pytest.mark.parametrize("days", ["4000000", "99999999999"])
def test_more_days_than_there_are_keep_all(days: str, root: Artifacts) -> None:
    done = overnight_here("prune", "--root", root.root, "--keep-days", days, "--remove", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["not_needed"] == {}
