"""Engines fit and transform features over rows: Polars on the CPU or on a GPU through cuDF, or NVTabular.

All other plans over rows go through `preprocessing.frames` with the engine's `target`, so that Polars is all that the other
rooms know. Small tables (vocabularies, statistics, counts) are always worked on by the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import polars as pl

from preprocessing.features.feature import FittedFeature
from preprocessing.frames import Rows, Target

EngineName = Literal["cpu", "gpu", "nvtabular"]


class Engine(Protocol):
    """What fits and transforms features."""

    @property
    def target(self) -> Target:
        """Where Polars runs all other plans."""
        ...

    def bucket_rows(self, bytes_a_row: int) -> int:
        """How many rows of so many bytes, as they are read, a bucket may hold at most."""
        ...

    def fit(self, rows: Rows, features: Sequence[FittedFeature]) -> list[pl.DataFrame]:
        """Rows -> of each feature, the statistics of its next encoder, as `FittedFeature.partial_fit` says."""
        ...

    def transform(self, rows: Rows, features: Sequence[FittedFeature], keep: Sequence[str]) -> Rows:
        """Rows -> the columns `keep` and one encoded column a feature; rows stay in their order, and where `target` is."""
        ...


def engine_of(name: EngineName) -> Engine:
    """The engine of that name.

    Raises:
        InputError: when what it needs is not installed or not there, with what to do.
    """
    if name == "nvtabular":
        from preprocessing.engines.nvtabular import NVTabularEngine

        return NVTabularEngine()
    from preprocessing.engines.polars import PolarsEngine

    return PolarsEngine(gpu=name == "gpu")
