"""Artifact folders: what a stage leaves behind, named by the hash of what it was made from.

    <root>/<kind>/<id>/manifest.json and the files it lists

A folder is written in `<root>/unfinished`, synced, and renamed once: it is complete or it is not there. A stage that
finds its id complete does not run again, so running again is resuming.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from schemas.draft import Draft
from schemas.errors import InputError
from schemas.lock import require_held, token_of
from schemas.machine import room_in
from schemas.manifests import MANIFEST as MANIFEST
from schemas.manifests import File as File
from schemas.manifests import Manifest as Manifest
from schemas.manifests import damaged_files as damaged_files
from schemas.manifests import require_whole as require_whole
from schemas.manifests import sha256 as sha256
from schemas.writing import lock_on, make_and_lock, remove_if_abandoned
from schemas.writing import replace_file as replace_file
from schemas.writing import sync as sync
from schemas.writing import write_atomically as write_atomically

UNFINISHED = "unfinished"  # the folder of what is being made
WAIT_SECONDS = 0.5  # between two looks whether another process is still at work
LIBRARIES = ("overnight", "polars", "pyarrow", "torch", "transformers", "prefect")


class Artifacts:
    """The artifact folders below one root."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()

    def begin_work(self) -> None:
        """Called before a stage does what leaves something that is no artifact; `FinishedArtifacts` refuses it.

        Raises:
            LostLockError: when the lock of this process is another's by now.
        """
        require_held(self.root)

    def find(self, kind: str, artifact_id: str, *, contents: bool = False) -> Manifest | None:
        """The manifest of a complete artifact, or None: also when its files are missing or differ from what it lists.

        Files with the size and the time of writing that the manifest lists are taken for whole; the contents of the rest, and
        with `contents` of all, are read and compared.

        Raises:
            InputError: when the name would leave the root.
        """
        manifest = self.read_manifest(kind, artifact_id)
        return None if manifest is None or damaged_files(manifest, contents=contents) else manifest

    def read_manifest(self, kind: str, artifact_id: str) -> Manifest | None:
        """The manifest of an artifact, whatever became of its files; None where there is none that can be read."""
        file = self._folder(kind, artifact_id) / MANIFEST
        try:
            stored = Manifest.model_validate_json(file.read_text())
        except (OSError, ValueError):
            return None
        return stored.model_copy(update={"root": str(self.root), "reused": True})

    def get(self, name: str, *, contents: bool = False) -> Manifest:
        """The artifact `kind/id`; an id may be shortened as long as it is unique. `contents` as in `find`."""
        kind, _, start = name.partition("/")
        self._folder(kind, start)
        found = [start] if start and (self.root / kind / start / MANIFEST).is_file() else []
        if not found:
            found = sorted(path.name for path in (self.root / kind).glob(f"{start}*") if (path / MANIFEST).is_file())
        if len(found) != 1:
            problem = "is not there" if not found else f"is not unique: {', '.join(found)}"
            raise InputError(f"Artifact {name!r} {problem} (looked in {self.root / kind}).")
        manifest = self.find(kind, found[0], contents=contents)
        if manifest is None:
            raise InputError(f"Artifact {name!r} is damaged: its files do not match its manifest. Run the stage again.")
        return manifest

    def reread(self, name: str) -> Manifest:
        """The manifest of an artifact `kind/id` that was there before, without a look at its files.

        Raises:
            InputError: when it is gone.
        """
        manifest = self.read_manifest(*name.split("/"))
        if manifest is None:
            raise InputError(f"Artifact {name!r} is not there any more (looked in {self.root}).")
        return manifest

    def newest(self, kind: str) -> Manifest | None:
        """The most recently created artifact of a kind."""
        manifests = [
            Manifest.model_validate_json(path.read_text()) for path in (self.root / kind).glob(f"*/{MANIFEST}")
        ]
        if not manifests:
            return None
        latest = max(manifests, key=lambda manifest: manifest.created)
        return self.get(latest.name)

    @contextmanager
    def write(self, kind: str, artifact_id: str, **about: Any) -> Iterator[Draft]:
        """Fill `draft.folder` and `draft.facts`; the artifact appears, complete, when the block ends well.

        One that another process has finished since the block began is what this one would be: it stays, and `draft.manifest` is
        its own, so that who reads it already may go on.
        """
        final = self._folder(kind, artifact_id)
        drafts = self.root / UNFINISHED  # not among finished ones: to look for what was left there, all would be listed
        for left in os.listdir(drafts) if drafts.is_dir() else ():  # noqa: PTH208  (names alone: once an artifact)
            if left.startswith(f"{kind}.{artifact_id}."):
                remove_if_abandoned(drafts / left)
        folder = drafts / f"{kind}.{artifact_id}.{os.getpid()}"
        folder.mkdir(parents=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_on(folder)
        draft, began = Draft(folder), datetime.now(UTC)
        try:
            with room_in(drafts):
                yield draft
            draft.manifest = Manifest(
                kind=kind,
                id=artifact_id,
                root=str(self.root),
                files=draft.files(),
                facts=draft.facts,
                libraries=_libraries(),
                run_id=os.environ.get("PREFECT__FLOW_RUN_ID", ""),
                token=token_of(self.root),
                created=datetime.now(UTC),
                **about,
            )
            # Not in one step: it counts from when the folder has its name, and is on the disk with all else before that.
            (folder / MANIFEST).write_text(draft.manifest.model_dump_json(indent=2) + "\n")
            draft.sync()
            require_held(self.root)
            try:
                folder.rename(final)
            except OSError:  # something is there
                there = self.find(kind, artifact_id, contents=True)
                if there and there.created >= began:
                    draft.manifest = there.model_copy(update={"reused": False})
                else:  # damaged, or to be made anew
                    shutil.rmtree(final, ignore_errors=True)
                    folder.rename(final)
            sync(final.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    @contextmanager
    def unfinished(self, artifact_id: str, wait: Callable[[], object] | None = None) -> Iterator[Path]:
        """A folder for checkpoints on the way to one artifact. It outlives a crash, and is removed when the block ends well.

        Where the block ends otherwise, the folder is left unless it is empty. Another process that is working in it is waited
        for where `wait` is given, which is called once then.

        Raises:
            InputError: when another process is working in it and is not to be waited for.
        """
        folder, waits = self._folder(UNFINISHED, artifact_id), False
        while (lock := _lock_if_free(folder)) is None:
            if wait is None:
                raise InputError(f"Another process is working on {artifact_id} ({folder}): wait for it or stop it.")
            if not waits:
                wait()
            waits = True
            time.sleep(WAIT_SECONDS)
        try:
            with room_in(folder):
                yield folder
            require_held(self.root)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            with suppress(OSError):
                folder.rmdir()
            os.close(lock)

    def _folder(self, kind: str, artifact_id: str) -> Path:
        folder = (self.root / kind / artifact_id).resolve()
        if self.root not in folder.parents:
            raise InputError(f"{kind}/{artifact_id} would leave the artifact root {self.root}")
        return folder


def _lock_if_free(folder: Path) -> int | None:
    """The lock of `make_and_lock`; None while another process holds it."""
    try:
        return make_and_lock(folder)
    except BlockingIOError:
        return None


def identify(*, code: str, parents: tuple[str, ...] = (), **parameters: Any) -> str:
    """Sixteen hex digits that name an artifact: a hash of its parents, its parameters and its stage's code."""
    text = json.dumps([code, parents, parameters], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def code_version(*folders: Path) -> str:
    """A hash of the Python files in `folders`: a stage whose code changed does not take old results for its own."""
    digest = hashlib.sha256()
    for folder in folders:
        start = len(str(folder)) + 1
        found = (f"{place}/{name}"[start:] for place, _, names in os.walk(folder) for name in names)
        # Texts, as every process asks once: paths of pathlib take longer than the files.
        for name in sorted((name for name in found if name.endswith(".py")), key=lambda name: name.split("/")):
            with open(f"{folder}/{name}", "rb") as file:  # noqa: PTH123
                digest.update(name.encode() + b"\0" + file.read() + b"\0")
    return digest.hexdigest()


@cache
def _libraries() -> dict[str, str]:
    return {name: version for name in LIBRARIES if (version := _version(name))}


def _version(library: str) -> str:
    """The version of an installed library; empty where it is not installed.

    `importlib.metadata.version` would parse all that a library says of itself, which takes longer than to write a day.
    """
    try:
        about = importlib.metadata.distribution(library).read_text("METADATA") or ""
    except importlib.metadata.PackageNotFoundError:
        return ""
    found = re.search(r"^Version: *(\S+)", about, re.MULTILINE)
    return found[1] if found else importlib.metadata.version(library)
