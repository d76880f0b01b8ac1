"""The table of items that rules are compiled to, laid along the catalogue of a model."""

from __future__ import annotations

import polars as pl

from schemas.columns import FIRST_ID, ID, VALUE

ITEM, ELIGIBLE, BOOST, GROUP, NEW = "item", "eligible", "boost", "group", "new"


def by_column(table: pl.DataFrame | None, unlisted: bool, items: pl.DataFrame, num_items: int) -> pl.DataFrame:
    """What the rules say of each item of the catalogue, in order of their columns."""
    defaults = {ELIGIBLE: pl.lit(True), BOOST: pl.lit(0.0), GROUP: pl.lit(None, pl.String), NEW: pl.lit(False)}
    if table is None:
        said = items.select(ID, **defaults)
    else:
        table = table.with_columns(as_ids(table[ITEM], items.schema[VALUE])).drop_nulls(ITEM)
        further = {name: value for name, value in defaults.items() if name not in table.columns}
        table = table.with_columns(**further).unique(ITEM, keep="last").with_columns(pl.lit(True).alias("listed"))
        said = items.select(ID, VALUE).join(table, left_on=VALUE, right_on=ITEM, how="left")
        eligible = pl.when(pl.col("listed").fill_null(False)).then(pl.col(ELIGIBLE).fill_null(False))
        said = said.with_columns(eligible.otherwise(unlisted).alias(ELIGIBLE))
    boost = pl.col(BOOST).cast(pl.Float32)
    said = said.filter(pl.col(ID) >= FIRST_ID).select(
        (pl.col(ID).cast(pl.Int64) - FIRST_ID).alias("column"),
        pl.col(ELIGIBLE),
        pl.when(boost.is_finite()).then(boost).otherwise(0.0).alias(BOOST),
        (pl.col(GROUP).cast(pl.String).rank("dense").cast(pl.Int64)).fill_null(-1),
        pl.col(NEW).fill_null(False),
    )
    columns = pl.DataFrame({"column": pl.int_range(num_items, eager=True)})
    whole = columns.join(said.unique("column"), on="column", how="left", maintain_order="left")
    nothing = {ELIGIBLE: False, BOOST: 0.0, GROUP: -1, NEW: False}
    return whole.with_columns(pl.col(name).fill_null(value) for name, value in nothing.items())


def as_ids(given: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Ids of a table as the catalogue has them; null for what can be none of its."""
    return given if given.dtype == dtype else given.cast(pl.String).cast(dtype, strict=False)
