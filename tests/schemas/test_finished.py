"""Artifacts that are only looked up: what is whole is returned, and nothing else is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.artifacts import Artifacts
from schemas.errors import InputError
from schemas.finished import FinishedArtifacts, WorkToDoError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one artifact."""
    with Artifacts(tmp_path).write("words", "abc") as draft:
        (draft.folder / "word.txt").write_text("yes")
    return tmp_path


def test_what_is_whole_is_returned(root: Path) -> None:
    found = FinishedArtifacts(root).find("words", "abc")
    assert found and found.reused and FinishedArtifacts(root).get("words/abc") == found


def test_what_is_missing_or_damaged_is_work(root: Path) -> None:
    with pytest.raises(WorkToDoError):
        FinishedArtifacts(root).find("words", "def")
    (root / "words" / "abc" / "word.txt").write_text("no")
    with pytest.raises(WorkToDoError):
        FinishedArtifacts(root).get("words/abc")
    assert not issubclass(WorkToDoError, InputError | OSError)  # which stages explain and go on from


def test_nothing_is_written(root: Path) -> None:
    before = sorted(root.rglob("*"))
    artifacts = FinishedArtifacts(root)
    with pytest.raises(WorkToDoError), artifacts.write("words", "def") as draft:
        (draft.folder / "word.txt").write_text("never")
    with pytest.raises(WorkToDoError):
        artifacts.begin_work()
    with artifacts.unfinished("line") as folder:
        assert not folder.exists()
    assert sorted(root.rglob("*")) == before


def test_what_was_stopped_on_the_way_is_work(root: Path) -> None:
    with pytest.raises(KeyError), Artifacts(root).unfinished("line") as folder:
        (folder / "checkpoint").touch()
        raise KeyError
    with pytest.raises(WorkToDoError), FinishedArtifacts(root).unfinished("line"):
        raise AssertionError("not to be entered")
