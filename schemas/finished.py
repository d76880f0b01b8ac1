"""Artifacts that are only looked up, to find out whether everything that some stages would make is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schemas.artifacts import UNFINISHED, Artifacts, Draft, Manifest


class WorkToDoError(Exception):
    """A stage would begin work. It is no mistake of anybody: stages that explain mistakes must not catch it."""


class FinishedArtifacts(Artifacts):
    """The artifacts of stages that must not begin work: they return what is there, by their own rules, or raise.

    A stage looks for its result before anything else. Where that is missing or damaged, where another run was stopped on the
    way to it, and where it would write anything, it ends with WorkToDoError.
    """

    def begin_work(self) -> None:
        raise WorkToDoError

    def find(self, kind: str, artifact_id: str, *, contents: bool = False) -> Manifest | None:
        manifest = super().find(kind, artifact_id, contents=contents)
        if manifest is None:
            raise WorkToDoError(f"{kind}/{artifact_id}")
        return manifest

    @contextmanager
    def write(self, kind: str, artifact_id: str, **about: Any) -> Iterator[Draft]:
        raise WorkToDoError(f"{kind}/{artifact_id}")
        yield

    @contextmanager
    def unfinished(self, artifact_id: str, wait: Callable[[], object] | None = None) -> Iterator[Path]:
        folder = self._folder(UNFINISHED, artifact_id)
        if folder.exists():  # of a run that is under way or was stopped
            raise WorkToDoError(str(folder))
        yield folder
