"""Where the tasks of a batch leave frames for each other: in memory for one process, in a folder for many buckets."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from preprocessing.frames import collect
from schemas.artifacts import replace_file

_BUCKET = "bucket"


@dataclass
class Spool:
    """Frames by name. With a folder they outlive the process, and other processes see them."""

    folder: Path | None = None
    _frames: dict[str, pl.DataFrame] = field(default_factory=dict)

    def put(self, name: str, frame: pl.DataFrame) -> None:
        """Keep a frame; in a folder it is there whole or not at all."""
        if self.folder is None:
            self._frames[name] = frame
        else:
            # Uncompressed: what is read back soon costs less to move than to pack.
            replace_file(self._place(name), lambda path: frame.write_ipc(path, compression="uncompressed"))

    def divide(self, name: str, rows: pl.LazyFrame, key: str, boundaries: pl.Series) -> None:
        """Keep rows in frames NAME-0, NAME-1, ..: those with keys up to the first boundary, up to the second, and so on."""
        if self.folder is None:
            assert boundaries.is_empty()
            self._frames[f"{name}-0"] = collect(rows)
            return
        done = self.folder / f"{name} divided"
        if done.exists():
            return
        parts = self.folder / f"{name} parts"
        shutil.rmtree(parts, ignore_errors=True)

        def bucket_of(keys: pl.Series) -> pl.Series:
            return boundaries.search_sorted(keys).cast(pl.Int32)

        # Said to be elementwise, which it is, for else all rows would be held at once.
        bucket = pl.col(key).map_batches(bucket_of, return_dtype=pl.Int32, is_elementwise=True).alias(_BUCKET)
        target = pl.PartitionBy(parts, key=_BUCKET, include_key=False)
        rows.with_columns(bucket).sink_ipc(target, compression="uncompressed", mkdir=True, engine="streaming")
        schema = rows.collect_schema()
        for number in range(len(boundaries) + 1):
            part = parts / f"{_BUCKET}={number}"
            if not part.is_dir():
                part.mkdir(parents=True)
                pl.DataFrame(schema=schema).write_ipc(part / "0.ipc")
            part.rename(self._place(f"{name}-{number}"))
        done.touch()

    def get(self, name: str) -> pl.LazyFrame:
        """A frame that is there."""
        if self.folder is None:
            return self._frames[name].lazy()
        place = self._place(name)
        parts = sorted(place.glob("*.ipc")) if place.is_dir() else [place]
        return pl.scan_ipc(parts, glob=False, hive_partitioning=False)  # [ ] in the folder's name is no pattern

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
