"""Whether two folders of sessions hold the same rows, and where they differ."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def compare(ours: str, theirs: str) -> Json:
    """Whether two folders of sessions hold the same rows, and which of all files differ by a byte."""

    folders = [Path(ours), Path(theirs)]
    names = [
        sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) for folder in folders
    ]
    both = sorted(set(names[0]) & set(names[1]) - {"manifest.json"})
    other = [name for name in both if _digest(folders[0] / name) != _digest(folders[1] / name)]
    days = sorted({name.split("/")[1] for name in both if name.startswith("sessions/")})
    unequal = []
    for day in days:
        tables = [_sessions(folder / "sessions" / day) for folder in folders]
        if not tables[0].equals(tables[1], null_equal=True):
            unequal.append(f"{day}: {_difference(*tables)}")
    return {
        "same_rows": not unequal and bool(days) and _without_parts(names[0]) == _without_parts(names[1]),
        "days": len(days),
        "unequal": unequal[:5],
        "files": len(both),
        "files_that_differ": other[:12],
        "only_in_one": sorted(set(names[0]) ^ set(names[1]))[:12],
    }


def _without_parts(names: list[str]) -> set[str]:
    """How many parts a day has follows from the number of buckets, which the engine chooses."""
    return {name.rpartition("/")[0] if name.startswith("sessions/") else name for name in names}


def _sessions(folder: Path) -> Any:
    import polars as pl

    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in sorted(folder.glob("*.parquet"))])


def _difference(mine: Any, other: Any) -> str:
    if mine.shape != other.shape or mine.schema != other.schema:
        return f"{mine.shape} {mine.schema} / {other.shape} {other.schema}"
    return ", ".join(name for name in mine.columns if not mine[name].equals(other[name], null_equal=True))


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
