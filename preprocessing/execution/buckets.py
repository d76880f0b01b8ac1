"""Where the tasks of a batch leave frames for each other: in memory for one process, in a folder for many buckets.

Nothing in a scratch folder is synced to the disk. A file gets its name when it is whole, so what a process that is killed
leaves is there whole or not at all. A power cut may leave names of files that are not: what was left before the machine started
anew is therefore not read but removed (`since_boot`), and done again.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import polars as pl

from preprocessing.execution.selection import Selection
from preprocessing.frames import Held, Rows, Target, collect, on, to_host
from schemas import lock

_BUCKET = "bucket"
_FRAMES = 2  # raised when tasks leave other frames for each other than those of an earlier Overnight
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def since_boot(folder: Path, boot: Path = _BOOT) -> Path:
    """The scratch folder below `folder` for what is written since this machine started, of which `boot` holds the number, by
    this Overnight or one whose tasks leave the same frames.

    All else that lies in `folder` is removed. Nothing is made: who writes makes the scratch folder, so that a run that is
    refused before that leaves nothing.
    """
    now = f"{boot.read_text().strip()}-{_FRAMES}" if boot.is_file() else ""
    for left in folder.iterdir() if folder.is_dir() else ():
        if not now or left.name != now:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    return folder / (now or "scratch")


def bucket_of(keys: pl.Series, boundaries: pl.Series) -> pl.Series:
    """Keys -> the numbers of their buckets, which end with these keys, but for the last."""
    return boundaries.search_sorted(keys).cast(pl.Int32)


def divide(rows: pl.LazyFrame, key: str, boundaries: pl.Series, parts: Path) -> None:
    """Write rows into folders bucket=0, bucket=1, .. of `parts`: keys up to the first boundary, up to the second, and so on.

    Rows are read once and never held at once.
    """
    shutil.rmtree(parts, ignore_errors=True)
    number_of = partial(bucket_of, boundaries=boundaries)
    # Said to be elementwise, which it is, for else all rows would be held at once.
    bucket = pl.col(key).map_batches(number_of, return_dtype=pl.Int32, is_elementwise=True).alias(_BUCKET)
    target = pl.PartitionBy(parts, key=_BUCKET, include_key=False)
    rows.with_columns(bucket).sink_ipc(target, compression="uncompressed", mkdir=True, engine="streaming")
    schema = rows.collect_schema()
    for number in range(len(boundaries) + 1):
        part = parts / f"{_BUCKET}={number}"
        if not part.is_dir():
            part.mkdir(parents=True)
            pl.DataFrame(schema=schema).write_ipc(part / "0.ipc")


def read_parts(place: Path) -> pl.LazyFrame:
    """A frame in a file, or in the files of a folder."""
    parts = sorted(place.glob("*.ipc")) if place.is_dir() else [place]
    return pl.scan_ipc(parts, glob=False, hive_partitioning=False)  # [ ] in the folder's name is no pattern


@dataclass
class Spool:
    """Frames by name. With a folder they outlive the process, and other processes see them."""

    folder: Path | None = None
    _frames: dict[str, Rows] = field(default_factory=dict)
    select: Selection | None = None
    """What is done to rows of `divided` as they are got."""
    divided: Path | None = None
    """Where the frames raw-0, raw-1, .. lie that are not the spool's own: a folder of `divide`."""

    def put(self, name: str, rows: Rows) -> None:
        """Keep rows: in memory where they are, on a GPU too; in a folder they are there whole or not at all."""
        if self.folder is None:
            self._frames[name] = rows
            return
        place = self._place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.{os.getpid()}")
        # Uncompressed: what is read back soon costs less to move than to pack.
        to_host(rows).write_ipc(temporary, compression="uncompressed")
        lock.require_held()
        temporary.replace(place)

    def divide(self, name: str, rows: pl.LazyFrame, key: str, boundaries: pl.Series) -> None:
        """Keep rows in frames NAME-0, NAME-1, .. by their keys, as the function `divide` says."""
        if self.folder is None:
            frame = collect(rows)
            bucket = bucket_of(frame[key], boundaries) if len(boundaries) else None
            for number in range(len(boundaries) + 1):
                self._frames[f"{name}-{number}"] = frame if bucket is None else frame.filter(bucket == number)
            return
        done = self.folder / f"{name} divided"
        if done.exists():
            return
        parts = self.folder / f"{name} parts"
        divide(rows, key, boundaries, parts)
        for number in range(len(boundaries) + 1):
            (parts / f"{_BUCKET}={number}").rename(self._place(f"{name}-{number}"))
        done.touch()

    def rows(self, name: str, target: Target) -> Rows:
        """Rows that are there, for several plans on a target."""
        if self.folder is None and isinstance(kept := self._frames[name], Held):
            return kept
        return on(target, collect(self.get(name)))

    def get(self, name: str) -> pl.LazyFrame:
        """A frame that is there, for the CPU."""
        if self.folder is None:
            return to_host(self._frames[name]).lazy()
        if self.divided and self.select and name.startswith("raw-"):
            return self.select.of(read_parts(self.divided / name.replace("raw-", f"{_BUCKET}=")))
        return read_parts(self._place(name))

    def has(self, name: str) -> bool:
        """Whether a frame is there."""
        return name in self._frames if self.folder is None else self._place(name).exists()

    def drop(self, name: str) -> None:
        """Free the room of a frame that nobody needs any more."""
        if self.folder is None:
            self._frames.pop(name, None)
        elif (place := self._place(name)).is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)

    def _place(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.ipc"
