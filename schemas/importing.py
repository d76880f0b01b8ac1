"""Import a person's own file: always as it is now, and a mistake in it as one line.

A file `steps/drop_samples.py` of a folder becomes the module `overnight_plugins.f<digest>.steps.drop_samples`, whose last part
is its name. The digest is that of the folder's files, so a file that was edited is another module, also in a process that
lives for many nights. Files that begin with an underscore can be imported by the others: `from ._prices import cheap`.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from schemas.errors import InputError

ROOT = "overnight_plugins"


class _Fresh(SourceFileLoader):
    """Compiles what the file holds now: byte code from before may be stale, and none is written into a person's folder."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _Finder(MetaPathFinder):
    """Finds the files of folders that were named, and no others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{ROOT}."):
            return None
        for folder in path or ():
            file = Path(folder) / f"{fullname.rpartition('.')[2]}.py"
            if file.is_file():
                return spec_from_file_location(fullname, file, loader=_Fresh(fullname, str(file)))
        return None


def import_file(folder: Path, file: Path) -> ModuleType:
    """The module of `file`, which lies in `folder` or in a folder of it.

    Raises:
        InputError: when it cannot be imported, with the file and the line that fail.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    inside = file.relative_to(folder).with_suffix("").parts
    name, here = ROOT, Path()
    _package(ROOT, None)
    name = f"{ROOT}.f{_digest(folder)}"
    _package(name, folder)
    for part in inside[:-1]:
        name, here = f"{name}.{part}", here / part
        _package(name, folder / here)
    return import_module(f"{name}.{inside[-1]}", str(file))


def import_module(name: str, what: str) -> ModuleType:
    """A module of people's own.

    Raises:
        InputError: when it cannot be imported, with the file and the line that fail; `what` names it where there is none.
    """
    try:
        return importlib.import_module(name)
    except InputError:
        raise
    except SyntaxError as error:
        raise InputError(f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}.") from None
    except (Exception, SystemExit) as error:
        place = next((f"{file}, line {line}" for file, line in lines_of(error, name.partition(".")[0])), what)
        message = " ".join(str(error).split())
        raise InputError(f"{place}: {type(error).__name__}: {message}") from None


def lines_of(error: BaseException, package: str = ROOT) -> Iterator[tuple[str, int | None]]:
    """The files and lines of a package that an error came through, the last one first."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == package:
            yield frame.f_code.co_filename, line


def source_files(folder: Path) -> list[Path]:
    """The Python files directly in a folder, sorted."""
    return sorted(path for path in folder.glob("*.py") if path.is_file())


def digest_of(files: Sequence[Path]) -> str:
    """A hash of what files hold, in their order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _digest(folder: Path) -> str:
    files = [file for inner in [folder, *sorted(folder.iterdir())] if inner.is_dir() for file in source_files(inner)]
    return hashlib.sha256(f"{folder}\0{digest_of(files)}".encode()).hexdigest()[:16]


def _package(name: str, folder: Path | None) -> None:
    """Make a package of a folder, which needs no __init__.py."""
    if name in sys.modules:
        return
    package = ModuleType(name)
    package.__path__ = [str(folder)] if folder else []
    sys.modules[name] = package
