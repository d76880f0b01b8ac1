"""An artifact folder while it is being written: its own files, and links to those of other artifacts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from schemas.manifests import File, Manifest, sha256
from schemas.writing import sync


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


def _describe(path: Path, folder: Path) -> File:
    about = path.stat()
    name = path.relative_to(folder).as_posix()
    return File(path=name, size=about.st_size, sha256=sha256(path), mtime_ns=about.st_mtime_ns)
