"""Where the tasks of a batch leave frames for each other: in memory for one process, in a folder for many buckets."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from preprocessing.engine import collect
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
            replace_file(self.folder / f"{name}.parquet", lambda path: frame.write_parquet(path, compression="lz4"))

    def divide(self, name: str, rows: pl.LazyFrame, key: str, count: int) -> None:
        """Keep rows in `count` frames NAME-0, NAME-1, ..: those with the same key together."""
        if self.folder is None:
            assert count == 1
            self._frames[f"{name}-0"] = collect(rows)
            return
        done = self.folder / f"{name} divided"
        if done.exists():
            return
        parts = self.folder / f"{name} parts"
        shutil.rmtree(parts, ignore_errors=True)
        bucket = (pl.col(key).hash() % count).cast(pl.Int32)
        target = pl.PartitionBy(parts, key=bucket.alias(_BUCKET), include_key=False)
        rows.sink_parquet(target, compression="lz4", mkdir=True, engine="streaming")
        schema = rows.collect_schema()
        for number in range(count):
            part = parts / f"{_BUCKET}={number}"
            if not part.is_dir():
                part.mkdir(parents=True)
                pl.DataFrame(schema=schema).write_parquet(part / "0.parquet")
            part.rename(self.folder / f"{name}-{number}.parquet")
        done.touch()

    def get(self, name: str) -> pl.LazyFrame:
        """A frame that is there."""
        if self.folder is None:
            return self._frames[name].lazy()
        return pl.scan_parquet(self.folder / f"{name}.parquet", hive_partitioning=False)

    def has(self, name: str) -> bool:
        """Whether a frame is there."""
        return name in self._frames if self.folder is None else (self.folder / f"{name}.parquet").exists()

    def drop(self, name: str) -> None:
        """Free the room of a frame that nobody needs any more."""
        if self.folder is None:
            self._frames.pop(name, None)
        elif (place := self.folder / f"{name}.parquet").is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
