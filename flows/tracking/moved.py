"""A root that was moved, or restored elsewhere: MLflow stores whole addresses of folders, and keeps writing to the old one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
SECONDS = 30.0


def move(database: Path, before: Path, now: Path) -> None:
    """In the SQLite file of a root, what lay below `before` lies below `now`. All of it or nothing is changed.

    Raises:
        sqlite3.Error: for a file that is none of MLflow's, or that another process does not let go of.
    """
    if before == now or not database.is_file():
        return
    old, new = f"{before.as_uri()}/", f"{now.as_uri()}/"
    with closing(sqlite3.connect(database, timeout=SECONDS)) as connection, connection:
        for table, column in PLACES:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )
