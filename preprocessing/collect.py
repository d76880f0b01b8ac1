"""The one place that runs Polars plans, so that another engine is a change here and nowhere else.

Plans in this room keep to filter, sort, global shift, cum_sum, group_by and joins: what Polars' GPU engine also takes.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl


def collect(plan: pl.LazyFrame) -> pl.DataFrame:
    """Run one plan in memory."""
    return plan.collect(engine="in-memory")


def collect_all(plans: Sequence[pl.LazyFrame]) -> list[pl.DataFrame]:
    """Run several plans, sharing what they have in common."""
    return pl.collect_all(list(plans), engine="in-memory")
