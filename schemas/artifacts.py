"""Artifact folders: what a stage leaves behind, named by the hash of what it was made from.

    <root>/<kind>/<id>/manifest.json and the files it lists

A folder is written in `<root>/unfinished`, synced, and renamed once: it is complete or it is not there. A stage that
finds its id complete does not run again, so running again is resuming.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import InputError
from schemas.lock import require_held, token_of
from schemas.machine import room_in

MANIFEST = "manifest.json"
UNFINISHED = "unfinished"  # the folder of what is being made
LIBRARIES = ("overnight", "polars", "pyarrow", "torch", "transformers", "prefect")


class File(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int
    sha256: str
    mtime_ns: int = Field(0, description="When it was last written; 0 where that was not recorded.")

    def is_at(self, path: Path | str, *, contents: bool = False) -> bool:
        """Whether `path` holds this file: its size and time of writing are as recorded, else its size and content are.

        With `contents` the content is read whatever the time says: what a disk loses by itself changes no time.
        """
        try:
            found = os.stat(path)  # noqa: PTH116  (a third of the time of Path.stat, for every day of a long history)
        except OSError:
            return False
        if not stat.S_ISREG(found.st_mode) or found.st_size != self.size:
            return False
        if not contents and self.mtime_ns and found.st_mtime_ns == self.mtime_ns:
            return True
        return sha256(Path(path)) == self.sha256


class Manifest(BaseModel):
    """What an artifact holds and where it came from. Small enough to pass between stages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    id: str
    root: str
    parents: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    files: tuple[File, ...] = ()
    libraries: dict[str, str] = {}
    run_id: str = ""
    token: int = Field(0, description="That of the lock of the night that made it; 0 where none was held.")
    created: datetime
    reused: bool = Field(False, exclude=True, description="True when it was found complete and no work was done.")

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return Path(self.root) / self.kind / self.id

    @property
    def name(self) -> str:
        """`kind/id`: unique below the root."""
        return f"{self.kind}/{self.id}"


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

        Files with the size and the time of writing that the manifest lists are taken for whole; the contents of others, and
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
        """Fill `draft.folder` and `draft.facts`; the artifact appears, complete, when the block ends well."""
        final = self._folder(kind, artifact_id)
        drafts = self.root / UNFINISHED  # not among finished ones: to look for what was left there, all would be listed
        for left in os.listdir(drafts) if drafts.is_dir() else ():  # noqa: PTH208  (names alone: once an artifact)
            if left.startswith(f"{kind}.{artifact_id}."):
                _remove_if_abandoned(drafts / left)
        folder = drafts / f"{kind}.{artifact_id}.{os.getpid()}"
        folder.mkdir(parents=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        draft = Draft(folder)
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
            shutil.rmtree(final, ignore_errors=True)
            folder.rename(final)
            sync(final.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    @contextmanager
    def unfinished(self, artifact_id: str) -> Iterator[Path]:
        """A folder for checkpoints on the way to one artifact. It outlives a crash, and is removed when the block ends well.

        Where the block ends otherwise, the folder is left unless it is empty.

        Raises:
            InputError: when another process is working in it.
        """
        folder = self._folder(UNFINISHED, artifact_id)
        try:
            lock = _make_and_lock(folder)
        except BlockingIOError:
            raise InputError(
                f"Another process is working on {artifact_id} ({folder}): wait for it or stop it."
            ) from None
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


class Draft:
    """An artifact being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {}
        self.linked: dict[str, File] = {}
        self._place = str(folder)
        self._of_links: set[str] = set()
        """Folders that hold links, what was copied in place of one, and such folders, and nothing else."""
        self._copied: list[str] = []
        self.manifest: Manifest

    def link(self, source: str, file: File) -> None:
        """Hold a file of another artifact, `source`, as `file` says, without copying or reading it where the disk can do that.

        A folder of links holds nothing else, and the one above it only such folders.
        """
        to, target = file.path, f"{self._place}/{file.path}"
        if (parent := to.rpartition("/")[0]) not in self._of_links:
            above = parent.rpartition("/")[0]
            if above not in self._of_links:
                os.makedirs(f"{self._place}/{above}", exist_ok=True)  # noqa: PTH103  (texts, as all names of links)
                self._of_links.add(above)
            os.mkdir(f"{self._place}/{parent}")  # noqa: PTH102
            self._of_links.add(parent)
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without hard links
            shutil.copy2(source, target)
            self._copied.append(to)
        else:
            self.linked[to] = file

    @property
    def held(self) -> tuple[str, ...]:
        """The paths of what it holds by `link`."""
        return (*self.linked, *self._copied)

    def files(self) -> tuple[File, ...]:
        """What it holds, in order of path."""
        own = (_describe(self.folder / path, self.folder) for path in self._own())
        return tuple(sorted((*own, *self.linked.values()), key=lambda file: file.path))

    def sync(self) -> None:
        """Its own files, and the folders that hold any, to the disk. Links need not: other artifacts keep those files safe."""
        own = self._own()
        folders = {parent for path in own for parent in PurePosixPath(path).parents}
        for path in (*own, *sorted(map(str, folders), reverse=True)):
            sync(self.folder / path)

    def _own(self) -> list[str]:
        """The paths of files that are no links, in order. Folders of links are not looked into: there are many."""
        start, own = len(str(self.folder)) + 1, [*self._copied]
        for place, folders, names in os.walk(self.folder):
            below = f"{place}/"[start:]
            folders[:] = [name for name in folders if f"{below}{name}" not in self._of_links]
            own += (f"{below}{name}" for name in names)
        return sorted(own)


def identify(*, code: str, parents: tuple[str, ...] = (), **parameters: Any) -> str:
    """Sixteen hex digits that name an artifact: a hash of its parents, its parameters and its stage's code."""
    text = json.dumps([code, parents, parameters], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def code_version(*folders: Path) -> str:
    """A hash of the Python files in `folders`: a stage whose code changed does not take old results for its own."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged_files(manifest: Manifest, *, contents: bool = False) -> list[str]:
    """The files a manifest lists that are missing or differ from what it lists; `contents` as in `Artifacts.find`."""
    folder = str(manifest.folder)
    return [file.path for file in manifest.files if not file.is_at(f"{folder}/{file.path}", contents=contents)]


def require_whole(manifest: Manifest) -> None:
    """Read all that a manifest lists, before it is used.

    Raises:
        InputError: when a file is missing or holds other bytes than were written.
    """
    if damaged := damaged_files(manifest, contents=True):
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise InputError(
            f"{manifest.folder / damaged[0]}{more}: missing, or not what was written. Run `overnight verify --mend` (with the "
            "--dataset, --source and --root of the run), which puts back or does again what can be, then run this again."
        )


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file in one step: after a crash it is the old one or the new one."""

    def write(temporary: Path) -> None:
        temporary.write_text(text)

    replace_file(path, write)
    sync(path.parent)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then rename it: a crash leaves the old file or the new one.

    Raises:
        OSError: where the disk is full; also where a library says something else then.
        LostLockError: when the lock of this process is another's by now.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{escape(path.name)}.*"):
        if left.suffix[1:].isdecimal():  # not what an editor puts there
            _remove_if_abandoned(left)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch()
    lock = _lock(temporary)  # says that this process is alive
    try:
        with room_in(path.parent):
            write(temporary)
            sync(temporary)
        require_held()
        temporary.replace(path)
    except Exception:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)


def _describe(path: Path, folder: Path) -> File:
    about = path.stat()
    name = path.relative_to(folder).as_posix()
    return File(path=name, size=about.st_size, sha256=sha256(path), mtime_ns=about.st_mtime_ns)


def _lock(folder: Path) -> int:
    """A lock on a folder or a file that its process holds until it closes it or dies; BlockingIOError when another holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def _make_and_lock(folder: Path) -> int:
    """A lock as of `_lock`, on a folder that is made if it is not there, also where another process removes it meanwhile."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            lock = _lock(folder)
            try:
                if os.path.samestat(os.fstat(lock), folder.stat()):
                    return lock
            except FileNotFoundError:
                pass
            os.close(lock)


def _remove_if_abandoned(draft: Path) -> None:
    """Remove a draft, a folder or a file, whose process died; leave one that is being written."""
    try:
        lock = _lock(draft)
    except (BlockingIOError, FileNotFoundError):
        return
    if draft.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)
    os.close(lock)


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


def sync(path: Path) -> None:
    """What a file or a folder holds, to the disk: what was written outlives a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
