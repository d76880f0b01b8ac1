"""The files of a lock: numbered claims, each made once, what belongs to them, and which is the newest."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from pathlib import Path

from pydantic import ValidationError

from schemas.owner import Owner

DIGITS = 12
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def claim(folder: Path, name: str, text: str) -> bool:
    """Make a file that is not there yet, whole; False where it is. The file says if a link was made, not the answer."""
    draft = folder / f".{name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, folder / name)
        return True
    except FileExistsError:
        return draft.stat().st_nlink == 2  # over a network a link may be asked for twice, and the second answer is no
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _make(folder / name, text)
    finally:
        draft.unlink()


def _make(path: Path, text: str) -> bool:
    """`claim` on a disk without hard links."""
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def clean(folder: Path, token: int) -> None:
    """Remove what earlier holders left."""
    for name in os.listdir(folder):  # noqa: PTH208
        number = name.partition(".")[0]
        if number.isdecimal() and int(number) < token:
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()


def newest(folder: Path) -> int:
    """The highest token; 0 where there is none."""
    try:
        return max((int(name) for name in os.listdir(folder) if name.isdecimal()), default=0)  # noqa: PTH208
    except FileNotFoundError:
        return 0


def is_free(folder: Path, token: int) -> bool:
    """Whether the holder of a token gave the lock back."""
    return (folder / f"{token:0{DIGITS}}.free").exists()


def owner_at(folder: Path, token: int) -> Owner | None:
    """Who has a token; None where it cannot be read."""
    try:
        return Owner.model_validate_json(read(folder / f"{token:0{DIGITS}}"))
    except ValidationError:
        return None


def read(path: Path) -> str:
    """A small file's text; empty where there is none."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
