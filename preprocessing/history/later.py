"""Writing several artifacts at a time: to pack a file, to hash it and to wait for the disk is done by threads of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

import polars as pl

AT_A_TIME = 12  # at most: what is to be written waits in memory
Later = Callable[..., Future[Any]]


@contextmanager
def several() -> Iterator[Later]:
    """A function that calls another one with the arguments that follow, in a thread, and gives its future.

    It waits where many wait already. When the block ends well, all have been called, and none has failed.
    """
    count = min(AT_A_TIME, pl.thread_pool_size())
    free, futures = BoundedSemaphore(count), list[Future[Any]]()
    with ThreadPoolExecutor(count) as threads:

        def later(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
            free.acquire()
            futures.append(future := threads.submit(function, *arguments))
            future.add_done_callback(lambda done: free.release())
            return future

        yield later
        for future in futures:
            future.result()
