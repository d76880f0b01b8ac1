"""Memory of frames: what a column gives back is kept for the next one, instead of being returned to the system at once.

Polars brings its own allocator, jemalloc. That returns a block of more than 8 MiB, which is a column of a million numbers, as
soon as it is freed, and every thread has stores of its own: each new column then costs a page fault for every 4 KiB. With
these settings freed blocks stay for ten seconds, in one store where threads are few. The most memory that is held at a time
is the same.

The allocator reads its settings once, when Polars is imported: set them before. This module does not import it.

A thread of the allocator's own returns what has been free for ten seconds, and a process that is forked has no such thread:
whoever frees a block then returns it at once, so that each new column costs its page faults again. What is forked, and ends
with its work, never returns any.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SETTING = "_RJEM_MALLOC_CONF"
KEPT = "oversize_threshold:0,dirty_decay_ms:10000"
FORKED = "dirty_decay_ms:-1"
FEW = 4  # threads that may share one store without waiting for each other


def keep_memory(
    environment: MutableMapping[str, str] = os.environ, threads: int | None = None, forks: bool = False
) -> None:
    """Set what is not set already, for this process if Polars is not imported yet, and for those that it starts.

    `threads`: how many Polars has; None: one a core. `forks`: frames are those of processes that a process of this
    environment forks; of a setting that is there, the last word is then theirs.
    """
    few = (threads or os.cpu_count() or FEW + 1) <= FEW
    environment.setdefault(SETTING, f"{KEPT},narenas:1" if few else KEPT)
    if forks:
        environment[SETTING] += f",{FORKED}"
