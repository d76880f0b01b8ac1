"""Whether a day differs from the days before it: the population stability index of every column.

    PSI = sum over groups g of (p_g - q_g) ln(p_g / q_g),   p_g = (n_g + 1/2) / (n + G / 2),   q_g likewise

with n_g the day's events in group g of G and q of the days before, pooled (Siddiqi, Credit Risk Scorecards, 2006; it is the
symmetrised Kullback-Leibler divergence). The half added to every count keeps empty groups finite. Groups are the tenths of
what the days before held, for hours, lengths, numbers and months; for values, the twenty most frequent of the days before, and
all others together. What is missing is a group of its own.

Equal distributions of few events differ by chance: PSI is then about (1/n + 1/m) times a chi-squared variable with G - 1
degrees of freedom (Yurdakul, Statistical Properties of Population Stability Index, 2018). A column is warned about when it
lies above `warn_above` and above what chance gives once in a thousand times.
"""

from __future__ import annotations

import polars as pl

from preprocessing.frames import collect
from preprocessing.output.profile.counts import AT, COLUMN, KIND
from schemas.columns import COUNT, DAY, VALUE

NAMES = [COLUMN, KIND, VALUE, AT]
TENTHS, FREQUENT = 10, 20
BEFORE, GROUP, PSI, CHANCE = "before", "group", "psi", "by_chance"
_NUMBER = "number"
ONCE_IN_A_THOUSAND = 3.09  # standard deviations


def compare(profile: pl.DataFrame, earlier: pl.DataFrame, days: int) -> pl.DataFrame:
    """The rows of `profile` and, in `before`, how often the `days` days before each counted the same."""
    both = pl.concat([earlier, profile])
    there, these = (table[DAY].unique().sort().to_list() for table in (both, profile))
    pairs = [(day, other) for day in these for other in there if 0 < (day - other).days <= days]
    # Whatever is counted gets a number: grouping by it costs a tenth of what grouping by the names does.
    names = both.select(NAMES).unique().with_row_index(_NUMBER)
    numbered = both.join(names, on=NAMES, nulls_equal=True).select(DAY, _NUMBER, COUNT).lazy()
    pooled = (
        pl.LazyFrame(pairs, schema={DAY: pl.Date, "other": pl.Date}, orient="row")
        .join(numbered, left_on="other", right_on=DAY)
        .group_by(DAY, _NUMBER)
        .agg(pl.col(COUNT).sum().alias(BEFORE))
    )
    own = numbered.filter(pl.col(DAY).is_in(these))
    joined = own.join(pooled, on=[DAY, _NUMBER], how="full", coalesce=True)
    named = joined.join(names.lazy(), on=_NUMBER, how="left")
    return collect(named.select(DAY, *NAMES, pl.col(COUNT, BEFORE).fill_null(0)))


def drift(compared: pl.DataFrame) -> pl.DataFrame:
    """`day`, `column`, `psi` and `by_chance`, where there are events on both sides."""
    rows = compared.lazy().filter(pl.col(KIND) != "distinct")
    of_kind = [DAY, COLUMN, KIND]
    ordered = rows.filter(pl.col(AT).is_not_null()).sort(*of_kind, AT)
    # Half of a group's own events lie below its middle.
    below = (pl.col(BEFORE).cum_sum() - pl.col(BEFORE) / 2).over(of_kind)
    tenth = (TENTHS * below / pl.col(BEFORE).sum().over(of_kind)).floor().clip(0, TENTHS - 1)
    values = rows.filter(pl.col(VALUE).is_not_null()).sort(
        *of_kind, BEFORE, VALUE, descending=[False] * 3 + [True, False]
    )
    place = pl.int_range(pl.len()).over(of_kind)
    frequent = pl.when((place < FREQUENT) & (pl.col(BEFORE) > 0)).then(place)
    groups = [
        ordered.with_columns(tenth.fill_nan(0).cast(pl.Int64).alias(GROUP)),
        values.with_columns(frequent.fill_null(FREQUENT).cast(pl.Int64).alias(GROUP)),
        rows.filter(pl.col(KIND) == "rest").with_columns(pl.lit(FREQUENT, dtype=pl.Int64).alias(GROUP)),
        rows.filter(pl.col(KIND) == "missing").with_columns(pl.lit(-1, dtype=pl.Int64).alias(GROUP)),
    ]
    counts = pl.concat(groups).group_by(DAY, COLUMN, GROUP).agg(pl.col(COUNT, BEFORE).sum())
    by = [DAY, COLUMN]
    n, m, num_groups = pl.col(COUNT).sum().over(by), pl.col(BEFORE).sum().over(by), pl.len().over(by)
    shares = counts.with_columns(
        p=(pl.col(COUNT) + 0.5) / (n + num_groups / 2), q=(pl.col(BEFORE) + 0.5) / (m + num_groups / 2)
    )
    free = (pl.len() - 1).cast(pl.Float64)
    noise = 1 / pl.col(COUNT).sum() + 1 / pl.col(BEFORE).sum()
    found = (
        shares.sort(*by, GROUP)
        .group_by(by, maintain_order=True)
        .agg(
            ((pl.col("p") - pl.col("q")) * (pl.col("p") / pl.col("q")).log()).sum().alias(PSI),
            (noise * (free + ONCE_IN_A_THOUSAND * (2 * free).sqrt())).alias(CHANCE),
        )
    )
    return collect(found.filter(pl.col(CHANCE).is_finite()))
