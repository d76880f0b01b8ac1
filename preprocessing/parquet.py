"""How Parquet files are written, all of them the same way."""

from __future__ import annotations

from pathlib import Path

import polars as pl


def write(table: pl.DataFrame, file: Path) -> None:
    """Write a table to a file, and make the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Level 3 saves 4-9 % of the bytes for a quarter more of the writing time.
    table.write_parquet(file, compression="zstd", compression_level=1)
