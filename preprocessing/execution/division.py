"""New event files divided by user while they are read for the first time: the index counts what is divided, tasks read it.

    parts/bucket=0/*.ipc, ...   rows as they are read, with the column FILE; users of a bucket follow each other
    boundaries.ipc              the last user of each bucket but the last
    about.json                  the files; written last, so a division that was broken off is none

It lies in the scratch folder of a run. What a run that was killed left is taken as long as its files are as they were.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from preprocessing.execution.buckets import divide, read_parts
from preprocessing.source.events import EventFiles, frozen
from preprocessing.source.files import PARQUET, format_of
from preprocessing.source.listing import SourceFile
from schemas.columns import USER_ID

SAMPLE = 10_000  # rows a bucket of which users are taken to divide them
TEXT_ROW_BYTES, UNPACKED = 64, 5  # of a row of text, and of a byte of a packed file: guesses, for a number of buckets
HEADS = 64  # text files, at most, of which the first rows are looked at
FOLDER, PARTS, ABOUT = "source", "parts", "about.json"


@dataclass(frozen=True)
class Division:
    """Rows of some files by bucket of users."""

    folder: Path
    paths: tuple[str, ...]
    """The files, in order of FILE."""

    @classmethod
    def make(
        cls,
        scratch: Path,
        events: EventFiles,
        new: list[SourceFile],
        types: pl.Schema | None,
        bucket_rows: int,
        min_buckets: int,
    ) -> Division:
        """Read files once and divide them: into buckets of about `bucket_rows` rows, `min_buckets` at least."""
        folder = scratch / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        count = max(min_buckets, -(-_rows(events, new) // bucket_rows))
        boundaries = boundaries_of(_users(events, new, types, count), count)
        divide(events.scan(new, expected=types, number=True), USER_ID, boundaries, folder / PARTS)
        boundaries.to_frame().write_ipc(folder / "boundaries.ipc")
        made = cls(folder, tuple(file.path for file in new))
        temporary = folder / f".{ABOUT}"
        temporary.write_text(json.dumps(_about(new, types)))
        temporary.rename(folder / ABOUT)
        return made

    @classmethod
    def left(cls, scratch: Path, files: Sequence[SourceFile], types: pl.Schema | None) -> Division | None:
        """What a run that was killed left, if its files and types are those of now."""
        try:
            about = json.loads((scratch / FOLDER / ABOUT).read_text())
        except (OSError, ValueError):
            return None
        there = {file.path: file for file in files}
        same = [there[path] for path, *_ in about.get("files", ()) if path in there]
        if not same or about != _about(same, types):
            return None
        return cls(scratch / FOLDER, tuple(file.path for file in same))

    @property
    def boundaries(self) -> pl.Series:
        """The last user of each bucket but the last."""
        return pl.read_ipc(self.folder / "boundaries.ipc", memory_map=False).to_series()

    def scan(self) -> pl.LazyFrame:
        """All rows."""
        return pl.concat([self.bucket(number) for number in range(len(self.boundaries) + 1)])

    def bucket(self, number: int) -> pl.LazyFrame:
        """The rows of a bucket."""
        return read_parts(self.folder / PARTS / f"bucket={number}")

    def largest(self) -> int:
        """Rows of the largest bucket."""
        sizes = (self.bucket(number).select(pl.len()) for number in range(len(self.boundaries) + 1))
        return max(int(size.collect(engine="streaming").item()) for size in sizes)


def boundaries_of(users: pl.Series, count: int) -> pl.Series:
    """The last user of each bucket but the last, from a sample of the users of rows."""
    sample = users.drop_nulls().sort()
    places = sorted({sample.len() * part // count for part in range(1, count)}) if sample.len() else []
    return sample[places].unique(maintain_order=True)


def _rows(events: EventFiles, files: list[SourceFile]) -> int:
    """How many rows these files hold, about; Parquet says it at its end."""
    if format_of(files[0], events.options) == PARQUET:
        return int(events.scan(files).select(pl.len()).collect(engine="streaming").item())
    packed = (".gz", ".zst", ".bz2")
    return sum(file.size * (UNPACKED if file.path.lower().endswith(packed) else 1) for file in files) // TEXT_ROW_BYTES


def _users(events: EventFiles, files: list[SourceFile], types: pl.Schema | None, count: int) -> pl.Series:
    """Users of rows: of Parquet, where a column is read by itself, of rows all over it; of text of the first rows of files."""
    types = frozen(events.scan(files, expected=types).collect_schema())  # settled by all files
    if format_of(files[0], events.options) == PARQUET:
        every = max(1, _rows(events, files) // (SAMPLE * count))
        plans = [events.scan(files, expected=types).select(USER_ID).gather_every(every)]
    else:
        chosen = files[:: -(-len(files) // HEADS)]
        heads = -(-SAMPLE * count // len(chosen))
        plans = [events.scan([file], expected=types).select(USER_ID).head(heads) for file in chosen]
    return pl.concat([plan.collect(engine="streaming") for plan in plans]).to_series()


def _about(files: Sequence[SourceFile], types: pl.Schema | None) -> dict[str, object]:
    return {
        "polars": pl.__version__,
        "files": [[file.path, file.size, file.stamp] for file in files],
        "types": str(dict(frozen(types))) if types is not None else "",
    }
