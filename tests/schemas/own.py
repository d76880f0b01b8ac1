"""Files of people's own parts, for the tests of several rooms."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

DATASET = (
    "name: corner-shop\nevents:\n  columns: {user_id: user_id, item_id: item_id, timestamp: timestamp, price: price}\n"
)
STEP = '''"""Drop samples."""

import polars as pl

from preprocessing.steps import Step


class DropSamples(Step):
    """Remove events whose price is below `min_price`."""

    min_price: float = 0.5

    def apply(self, events: pl.LazyFrame) -> pl.LazyFrame:
        return events.filter((pl.col("price") >= self.min_price).fill_null(True))
'''


def part(folder: Path, path: str, text: str) -> Path:
    """Write a file of a folder of own parts."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def package(folder: Path, **points: str) -> None:
    """An installed package `corner-parts` with a step and a dataset, and an entry point of each kind that is given."""
    for path in ("corner/__init__.py", "corner/steps/__init__.py", "corner/data/__init__.py"):
        part(folder, path, "")
    part(folder, "corner/steps/drop_samples.py", STEP)
    part(folder, "corner/data/corner.yaml", DATASET)
    part(folder, "corner_parts-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: corner-parts\nVersion: 1.2\n")
    text = "".join(f"[overnight.{kind}]\n{point}\n" for kind, point in points.items())
    part(folder, "corner_parts-1.2.dist-info/entry_points.txt", text)


def tried(folder: Path) -> tuple[int, str]:
    """The tests of a folder of parts, run by pytest in this process, which has torch loaded: its exit code, what it said."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--import-mode=importlib", str(folder)])
    return int(code), said.getvalue()
