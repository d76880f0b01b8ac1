"""What a machine lacks is one line, however it is said."""

from __future__ import annotations

import errno

import pytest

from schemas.errors import InputError
from schemas.machine import MachineError, in_words, trouble


class ComputeError(Exception):
    """As Polars raises it."""


class OutOfMemoryError(RuntimeError):
    """As torch raises it for a GPU."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/data/x"), "/data/x: the disk's quota is used up"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "/data/x: this user may not"),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), "/data/x: the disk may only be read"),
        (ComputeError("No space left on device (os error 28): /data/x"), "The disk is full"),
        (OSError("[Errno 28] Error writing bytes to file"), "The disk is full"),
        (MemoryError(), "Memory ran out"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "Memory ran out"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "The GPU's memory is full"),
        (OSError(errno.EMFILE, "Too many open files", "/data/x"), "too many files are open"),
    ],
)
def test_it_is_one_line_with_what_helps(error: Exception, words: str) -> None:
    with pytest.raises(MachineError) as said, in_words():
        raise error
    assert words in str(said.value) and "then run this again" in str(said.value) and "\n" not in str(said.value)


def test_what_may_pass_is_tried_again_first() -> None:
    error = OSError(errno.EIO, "Input/output error", "/data/x")
    with pytest.raises(OSError, match="Input/output"), in_words():
        raise error
    assert "input/output error" in trouble(error)


@pytest.mark.parametrize(
    "error", [KeyError("x"), FileNotFoundError(errno.ENOENT, "gone", "x"), PermissionError(errno.EACCES, "no socket")]
)
def test_anything_else_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)), in_words(passing=True):
        raise error
    with pytest.raises(InputError, match="mine"), in_words():
        raise InputError("mine")
