"""How much room a root takes, and how much its disk has left, in one line of the report."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path

LARGEST = 4  # kinds that are named


def in_bytes(size: int) -> str:
    """1,234,567 -> 1.2 MB."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def disk_of(root: Path) -> str:
    """ "The root takes 61.2 MB (days 50.0 MB, models 9.1 MB); its disk has 12.0 GB left." Files with several names count once.

    Empty where the root cannot be looked through.
    """
    sizes: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    try:
        kinds = sorted(entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
        free = shutil.disk_usage(root).free
    except OSError:
        return ""
    for kind in kinds:
        folders = [str(root / kind)]
        while folders:
            with suppress(OSError), os.scandir(folders.pop()) as entries:  # what is gone by now is not counted
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    about = entry.stat(follow_symlinks=False)
                    if about.st_nlink == 1 or (about.st_dev, about.st_ino) not in seen:
                        sizes[kind] += about.st_size
                    if about.st_nlink > 1:
                        seen.add((about.st_dev, about.st_ino))
    named = ", ".join(f"{kind} {in_bytes(size)}" for kind, size in sizes.most_common(LARGEST) if size)
    return f"The root takes {in_bytes(sizes.total())} ({named}); its disk has {in_bytes(free)} left."
