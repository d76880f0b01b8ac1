"""Engines run the plans of this room: on the CPU, on a GPU through cuDF, or with NVTabular for the features.

Plans keep to filter, sort, global shift, cum_sum, group_by and joins, which every engine takes. Small tables (vocabularies,
statistics, counts) are worked on by `preprocessing.collect`, always on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import polars as pl

if TYPE_CHECKING:
    from preprocessing.features.chains import Fitted

EngineName = Literal["cpu", "gpu", "nvtabular"]


class Engine(Protocol):
    """What runs plans over rows."""

    def collect(self, plan: pl.LazyFrame) -> pl.DataFrame:
        """Run one plan."""
        ...

    def collect_all(self, plans: Sequence[pl.LazyFrame]) -> list[pl.DataFrame]:
        """Run several plans, sharing what they have in common."""
        ...

    def learn(self, rows: pl.DataFrame, pending: list[Fitted]) -> list[pl.DataFrame]:
        """What the next encoder of each of these features learns from rows, as `Encoder.learn` says."""
        ...

    def encode(self, rows: pl.DataFrame, fitted: list[Fitted], keep: list[str]) -> pl.DataFrame:
        """The columns `keep` and one encoded column a feature."""
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
