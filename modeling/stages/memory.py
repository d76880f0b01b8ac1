"""Memory of large tensors on a CPU: kept from step to step instead of being returned to the system and asked for again.

glibc gives a block of more than 32 MiB pages of its own, and returns the end of its heap once 64 MiB of it are free. Tensors of
a training step are made and freed many times a second, and each time the system finds and clears their pages: a page fault for
every 4 KiB. Within `kept_memory` freed blocks stay with the process, up to `KEPT_BYTES` at the end of its heap. Numbers are the
same to the last bit. Where the C library is another one (musl, macOS, Windows), nothing is done.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # parameters of mallopt(3)
KEPT_BYTES = 1 << 30  # free at the heap's end: more than a step frees (LOG.md); mallopt takes less than 2 GiB
KEPT = {M_TRIM_THRESHOLD: KEPT_BYTES, M_MMAP_MAX: 0}
# What glibc arrives at by itself once a block of 32 MiB was freed; after the first mallopt it adjusts no more.
USUAL = {M_TRIM_THRESHOLD: 64 << 20, M_MMAP_THRESHOLD: 32 << 20, M_MMAP_MAX: 65_536}
CHOSEN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")  # in the environment: somebody has decided how memory is handled

_lock, _inside = threading.Lock(), 0


@contextmanager
def kept_memory() -> Iterator[bool]:
    """Keep the memory of freed tensors while the block lasts -> whether that is so; at its end return what is free.

    The setting is the process's. Blocks may lie within one another and in several threads: the first begins it, the last ends
    it. Threads other than the main one have heaps of 64 MiB at most, so they keep no more than that, and blocks that are larger
    still get pages of their own.
    """
    glibc = _glibc()
    if glibc is not None:
        _count(glibc, 1)
    try:
        yield glibc is not None
    finally:
        if glibc is not None:
            _count(glibc, -1)


def _count(glibc: ctypes.CDLL, change: int) -> None:
    global _inside
    with _lock:
        before, _inside = _inside, _inside + change
        if not before:
            _set(glibc, KEPT)
        elif not _inside:
            _set(glibc, USUAL)
            glibc.malloc_trim(0)


def _set(glibc: ctypes.CDLL, options: Mapping[int, int]) -> None:
    for option, value in options.items():
        glibc.mallopt(option, value)


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, where it is glibc and nobody has chosen another way."""
    if not sys.platform.startswith("linux") or any(name.startswith(CHOSEN) for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
