"""Encode rows of several days as a night does: learn from each part, merge, fit, encode, and go on with what is known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from preprocessing.features.chains import Chain, Fitted, Knowledge, fit_next, merge, transform
from schemas.columns import DAY

ROW = "row"


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
