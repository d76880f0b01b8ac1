"""What a machine lacks, in one line: room on a disk, rights, memory. A person can mend it; nothing is wrong with the code."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import InputError

AGAIN = "then run this again: it goes on where it was"
LASTING = {
    errno.ENOSPC: f"the disk is full. Make room there, {AGAIN}",
    errno.EDQUOT: f"the disk's quota is used up. Make room there, {AGAIN}",
    errno.EROFS: f"the disk may only be read. Make it writable or give another --root, {AGAIN}",
    errno.EACCES: f"this user may not read or write there. Change the rights or the user, {AGAIN}",
    errno.EPERM: f"this user may not do that there. Change the rights or the user, {AGAIN}",
    errno.EMFILE: f"too many files are open. Raise the limit (ulimit -n), {AGAIN}",
    errno.ENFILE: f"too many files are open on this machine. Raise its limit, {AGAIN}",
    errno.ENOMEM: f"memory ran out. End other programs, or prepare and train in smaller parts, {AGAIN}",
}
"""Errors that stay until somebody mends them."""
PASSING = {
    errno.EIO: f"the disk answers with an input/output error. Check the disk and its cable or network, {AGAIN}",
    errno.ESTALE: f"the network disk lost this file. See whether it is mounted, {AGAIN}",
    errno.ETIMEDOUT: f"the network disk does not answer. See whether it is mounted, {AGAIN}",
}
"""Errors that may be gone at the next try."""
LEAST_ROOM = 1 << 16  # bytes; a disk with less is full
OF_A_PLACE = (errno.EACCES, errno.EPERM)  # without one, something else than a file was refused
OF_LIBRARIES = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")  # how Polars, pyarrow and safetensors pass them on


class MachineError(InputError):
    """The machine lacks room, rights or memory."""


@contextmanager
def in_words(*, passing: bool = False) -> Iterator[None]:
    """What the block raises because of the machine -> MachineError, one line; with `passing` also what may be gone soon.

    Raises:
        MachineError: in place of the OSError, MemoryError, or error of a library that holds one. All else is as it was.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if line := trouble(error, passing=passing):
            raise MachineError(line) from error
        raise


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """For what writes below a folder: libraries do not always say that its disk is full.

    Raises:
        OSError: ENOSPC, where the block failed and there is no room in the folder.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not trouble(error) and _is_full(folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise


def _is_full(folder: Path) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < LEAST_ROOM


def trouble(error: Exception, *, passing: bool = True) -> str:
    """An error of the machine in words; empty for any other."""
    words = LASTING | (PASSING if passing else {})
    said = str(error).partition("\n")[0]
    if type(error).__name__ == "OutOfMemoryError":  # torch's own, without an import of torch
        return f"The GPU's memory is full ({said}). Set training.tokens_per_step lower, or end other programs on it, {AGAIN}."
    if isinstance(error, MemoryError) or "can't allocate memory" in said:
        return _sentence(words[errno.ENOMEM])
    if isinstance(error, OSError) and error.errno in words:
        if error.filename:
            return f"{error.filename}: {words[error.errno]}."
        return "" if error.errno in OF_A_PLACE else _sentence(words[error.errno])
    found = OF_LIBRARIES.search(str(error))
    number = int(found[1] or found[2]) if found else 0
    return f"{_sentence(words[number])} ({said})" if number in words else ""


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
