"""What an artifact folder says of itself: a manifest with its files, and whether these are still what it lists."""

from __future__ import annotations

import hashlib
import os
import stat
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import InputError

MANIFEST = "manifest.json"


class File(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int
    sha256: str
    mtime_ns: int = Field(0, description="When it was last written; 0 where that was not recorded.")

    def is_at(self, path: Path | str, *, contents: bool = False) -> bool:
        """Whether `path` holds this file: its size and time of writing are as recorded, else its size and content are.

        With `contents` the content is read even where the time is the same: what a disk loses by itself changes no time.
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
