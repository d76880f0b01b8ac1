"""Encode rows of several days as a night does: learn from each part, merge, fit, encode, and go on with what is known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import polars as pl

from preprocessing.features.chains import Chain, Fitted, Knowledge, build_chains, fit_next, merge, transform
from preprocessing.sessions import SESSION_INDEX
from schemas.columns import DAY
from tests.preprocessing.small import dataset_of

ROW = "row"
BASE = ("user_id", "item_id", "timestamp", DAY, SESSION_INDEX)


def chains_of(rows: pl.DataFrame, features: dict[str, Any], **parts: Any) -> list[Chain]:
    """The features of a dataset with these rows."""
    columns = rows.schema
    dataset = dataset_of(".", columns=[name for name in columns if name not in BASE], features=features, **parts)
    return build_chains(
        dataset, pl.Schema({name: columns[name] for name in columns if name not in (DAY, SESSION_INDEX)})
    )


def encode_at_once(
    chains: list[Chain], parts: Sequence[pl.DataFrame], known: Knowledge, keep: list[str]
) -> tuple[pl.DataFrame, Knowledge]:
    """Rows of some users each, of days later than those that are known: their features, and what is known after them."""
    fitted, now_known = [Fitted(chain) for chain in chains], dict(known)
    while pending := [one for one in fitted if one.next]:
        tables: dict[str, list[pl.DataFrame]] = {}
        for one in pending:
            tables.setdefault(one.keeps, []).extend(one.learn(part.lazy()).collect() for part in parts)
        learnt = {name: pl.concat(found, how="vertical_relaxed") for name, found in tables.items()}
        merged = merge(chains, known, learnt)
        fitted = fit_next(fitted, known, learnt, merged)
        now_known |= {name: merged[name] for name in learnt}
    return pl.concat(transform(part.lazy(), fitted, keep).collect() for part in parts), now_known


def encode_days(
    chains: list[Chain], rows: pl.DataFrame, batches: Sequence[Sequence[date]], buckets: int = 1
) -> tuple[pl.DataFrame, Knowledge]:
    """Rows in batches of days, each in parts by user, in the order of their column `row`."""
    known: Knowledge = {}
    encoded = []
    for days in batches:
        batch = rows.filter(pl.col(DAY).is_in(list(days)))
        users = [batch.filter(pl.col("user_id") % buckets == bucket) for bucket in range(buckets)]
        batch_encoded, known = encode_at_once(chains, users, known, [ROW])
        encoded.append(batch_encoded)
    return pl.concat(encoded).sort(ROW), known


def encode(
    values: dict[str, list[Any] | pl.Series], feature: Any, days: list[int] | None = None, **parts: Any
) -> list[Any]:
    """The values of one feature, `out`, of events that each are a session, all at once, on the first day or on `days`."""
    count = len(next(iter(values.values())))
    numbered = {"user_id": list(range(count)), "item_id": ["x"] * count, SESSION_INDEX: list(range(1, count + 1))}
    rows = pl.DataFrame(
        {ROW: list(range(count)), **numbered, DAY: [date(2024, 1, 1 + day) for day in days or [0] * count]}
    )
    rows = rows.with_columns(timestamp=pl.col(DAY).cast(pl.Datetime("us", "UTC")))
    rows = rows.with_columns(pl.Series(name, value) for name, value in values.items())
    chains = chains_of(rows, {"out": feature}, **parts)
    return encode_days(chains, rows, [rows[DAY].unique().to_list()])[0]["out"].to_list()
