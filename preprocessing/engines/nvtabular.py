"""NVTabular for the features: its Workflows count, measure and encode them. All other plans are Polars' on the CPU.

Every day has a Workflow of its own. To fit, it is fit to the day's rows, and what it counted becomes the statistics that the
encoders themselves would give. To transform, its operators are given the state of the day: nothing is fit twice, and no
Workflow is ever stored. pandas does the work, or cuDF where merlin finds a GPU (not tried yet).

What NVTabular has no operator for stays with Polars, and so does what its operators stumble over: lists, values that are
neither text nor integers, columns that are null on a whole day, days before which there is no state. The result is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from preprocessing.encoders import Encoder, finite
from preprocessing.encoders.bucketize import Bucketize
from preprocessing.encoders.category import Category
from preprocessing.encoders.clip import Clip
from preprocessing.encoders.fill import Fill
from preprocessing.encoders.log1p import Log1p
from preprocessing.encoders.min_max import MinMax
from preprocessing.encoders.standardize import Standardize
from preprocessing.engines.polars import PolarsEngine
from preprocessing.engines.workflow import Chain, fit_day, load, transform_day
from preprocessing.features.feature import FittedFeature
from preprocessing.frames import Rows, collect, to_host
from preprocessing.vocabulary import ADMITTED
from schemas.columns import COUNT, DAY, ID, UNKNOWN

ROW = "row number"  # no feature is called so
TOO_LARGE = (pl.UInt64, pl.Int128, pl.UInt128)


class NVTabularEngine(PolarsEngine):
    """Fits and transforms the features that NVTabular has operators for; the others, and all other plans, are Polars'."""

    def __init__(self) -> None:
        super().__init__()
        load()

    def fit(self, rows: Rows, features: Sequence[FittedFeature]) -> list[pl.DataFrame]:
        """One Workflow a day, fit to all features NVTabular has an operator for."""
        rows = to_host(rows)
        inputs, tails = self._inputs(rows, [Tail.of(feature, feature.next_place + 1) for feature in features])
        if not tails:
            return super().fit(rows, features)
        chains = [tail.chain for tail in tails]
        by_day = inputs.partition_by(DAY, as_dict=True, include_key=False)
        fitted = [fit_day(part, chains, day) for (day,), part in by_day.items()]
        statistics = {chain.name: pl.concat(tables) for chain, *tables in zip(chains, *fitted, strict=True)}
        others = [feature for feature in features if feature.name not in statistics]
        statistics |= dict(zip((feature.name for feature in others), super().fit(rows, others), strict=True))
        return [statistics[feature.name] for feature in features]

    def transform(self, rows: Rows, features: Sequence[FittedFeature], keep: Sequence[str]) -> pl.DataFrame:
        """One Workflow a day for all features NVTabular has operators for."""
        rows = to_host(rows)
        wanted = [Tail.of(feature, len(feature.feature.encoders)) for feature in features]
        inputs, tails = self._inputs(rows, wanted)
        if not tails:
            return to_host(super().transform(rows, features, keep))
        chains = [tail.chain for tail in tails]
        by_day = inputs.with_row_index(ROW).partition_by(DAY, as_dict=True, include_key=False)
        encoded = [
            transform_day(part.drop(ROW), chains, day).with_columns(part[ROW]) for (day,), part in by_day.items()
        ]
        ours = pl.concat(encoded).sort(ROW).drop(ROW)
        names = [feature.name for feature in features]
        others = [feature for feature in features if feature.name not in ours.columns]
        rest = to_host(super().transform(rows, others, [name for name in keep if name not in names]))
        return rest.hstack(ours).select(*(name for name in rest.columns if name not in names), *names)

    def _inputs(self, rows: pl.DataFrame, wanted: Sequence[Tail | None]) -> tuple[pl.DataFrame, list[Tail]]:
        """The day and the column each Workflow begins with, by feature; and the tails NVTabular can do on these rows."""
        tails = [tail for tail in wanted if tail and self._can(tail, rows)]
        plan, values = rows.lazy(), {}
        for tail in tails:
            plan, value = tail.head.transform_fitted(plan)
            values[tail.chain.name] = value if isinstance(tail.chain.last, Category) else value.cast(pl.Float64)
        return collect(plan.select(DAY, **values)) if tails else pl.DataFrame({DAY: []}), tails

    def _can(self, tail: Tail, rows: pl.DataFrame) -> bool:
        """Whether the last operator can do the values that come to it, and there is at least one on each day."""
        plan, value = tail.before_last.transform_fitted(rows.lazy())
        if isinstance(tail.chain.last, Category):
            dtype = plan.select(value).collect_schema().dtypes()[0]
            if not (dtype == pl.String or (dtype.is_integer() and dtype not in TOO_LARGE)):
                return False
        else:
            value = finite(value)
        values = collect(plan.group_by(DAY).agg(value.count().alias(COUNT)))
        return bool(values[COUNT].min()) and all(
            _has_all(table, values[DAY]) for table in tail.chain.tables if table is not None
        )


@dataclass(frozen=True)
class Tail:
    """A feature in two parts: what Polars does first, and the last encoders, for which NVTabular has operators."""

    head: FittedFeature
    """Up to where NVTabular begins."""
    before_last: FittedFeature
    """Up to the last encoder."""
    chain: Chain
    """What NVTabular does."""

    @classmethod
    def of(cls, fitted: FittedFeature, stop: int) -> Tail | None:
        """The tail of the feature's first `stop` encoders; None where NVTabular has no operator for the last.

        Of clip, category it is category: ids are made from exact values, but LogOp rounds to Float32, so nothing of
        NVTabular's goes before an encoder that gives ids. Of clip, log1p, standardize it is all three.
        """
        encoders = fitted.feature.encoders[:stop]
        if fitted.feature.many or not _has_operator(encoders[-1]):
            return None
        start = stop - 1
        while start and encoders[-1].kind == "continuous" and _has_operator(encoders[start - 1]):
            start -= 1
        tables = (*fitted.tables, *[None] * stop)[:stop]

        def first(count: int) -> FittedFeature:
            return FittedFeature(replace(fitted.feature, encoders=encoders[:count]), tables[:count])

        return cls(first(start), first(stop - 1), Chain(fitted.name, encoders[start:], tables[start:]))


def _has_operator(encoder: Encoder) -> bool:
    match encoder:
        case Fill(value=value):
            return not isinstance(value, str)
        case Category(unknown_buckets=buckets):
            return buckets == 1
        case _:
            return isinstance(encoder, Log1p | Clip | Bucketize | Standardize | MinMax)


def _has_all(table: pl.DataFrame, days: pl.Series) -> bool:
    """Whether a lookup table has a row for each day."""
    if ADMITTED in table.columns:  # ids without a gap, some of them admitted on the first day
        return table[ID].max() == table.height + UNKNOWN and not table.filter(pl.col(ADMITTED) <= days.min()).is_empty()
    return set(days) <= set(table.drop_nulls()[DAY])
