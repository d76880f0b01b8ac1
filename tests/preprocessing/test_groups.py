"""Groups by small integers give what a plan gives, and what is in memory is not divided for nothing."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.encoders import Encoder
from preprocessing.encoders.category import Category
from preprocessing.encoders.item_age import ItemAge
from preprocessing.engines import polars as engine
from preprocessing.execution import batch
from preprocessing.execution.flow import Flow
from preprocessing.features import plans as plans_module
from preprocessing.features.feature import Feature, FittedFeature
from preprocessing.features.plans import fit_plans, transform
from preprocessing.groups import DENSE, Groups, sum_up
from preprocessing.output.items import merge_items
from preprocessing.sessions import EVENT_DAY, SESSION_INDEX, long_enough
from schemas.columns import COUNT, DAY, ITEM_ID, TIMESTAMP, VALUE
from tests.preprocessing.small import at, dataset_of, run, write

FIRST = date(2024, 1, 1)
WIDE = 10**12  # far more than integers may be apart to be counted up


def rows_of(items: list[int | None], days: list[int]) -> pl.DataFrame:
    """Events of items by day, in order of day, at times of their own."""
    table = pl.DataFrame({ITEM_ID: items, "day number": sorted(days)}, schema_overrides={ITEM_ID: pl.Int64})
    moments = [at(day) + timedelta(seconds=7 * row % 5) for row, day in enumerate(sorted(days))]
    dated = pl.lit(FIRST).dt.offset_by(pl.format("{}d", "day number")).alias(DAY)
    return table.with_columns(dated, pl.Series(TIMESTAMP, moments, dtype=pl.Datetime("us", "UTC"))).drop("day number")


def fitted(column: str, encoder: Encoder) -> FittedFeature:
    return FittedFeature(Feature(name=column, column=column, encoders=(encoder,), per_item=False))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from([None, -3, 0, 1, 5, WIDE]), st.integers(0, 3)), min_size=1, max_size=20),
    st.booleans(),
)
def test_what_is_counted_up_is_what_a_plan_gives(events: list[tuple[int | None, int]], large: bool) -> None:
    """Of small integers, of those far apart, of null; all days in one plan, and each in its own."""
    rows = rows_of([item for item, _ in events], [day for _, day in events])
    chosen = [fitted(ITEM_ID, Category()), fitted(TIMESTAMP, ItemAge())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans_module, "LARGE_DAY", 0 if large else 10**9)
        plans = fit_plans(rows, chosen)
    for plan, one in zip(plans, chosen, strict=True):
        expected = one.partial_fit(rows.lazy()).collect()
        assert (
            plan.collect()
            .select(expected.columns)
            .sort(VALUE, *({DAY} & {*expected.columns}))
            .equals(expected.sort(VALUE, *({DAY} & {*expected.columns})))
        )


def test_small_integers_and_large_days_are_grouped_by_no_pair_of_keys() -> None:
    """A category of integers without any hash; one of text by its value alone, a day at a time."""
    rows = rows_of([1, 2, 1, 2], [0, 0, 1, 1]).with_columns(kind=pl.Series(["a", "b", "a", "a"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans_module, "LARGE_DAY", 2)
        counted, text, seen = fit_plans(
            rows, [fitted(ITEM_ID, Category()), fitted("kind", Category()), fitted(TIMESTAMP, ItemAge())]
        )
    assert "AGGREGATE" not in counted.explain() + text.explain() + seen.explain()
    assert text.collect().sort(DAY, VALUE).rows() == [
        (FIRST, "a", 1), (FIRST, "b", 1), (FIRST + timedelta(days=1), "a", 2),
    ]  # fmt: skip
    assert counted.collect().schema == {DAY: pl.Date, VALUE: pl.Int64, COUNT: pl.Int64}


@pytest.mark.parametrize("items", [[1, 2, 9, None, 2], [1, WIDE, 9, None, WIDE]])
def test_what_is_looked_up_by_place_is_what_a_join_finds(items: list[int | None]) -> None:
    """9 is too rare for an id, and beyond all that have one; of integers far apart a join is made."""
    rows = rows_of(items, [0] * len(items))
    table = pl.DataFrame(
        {VALUE: items[:2], "id": [3, 4], "admitted": [FIRST] * 2},
        schema_overrides={"id": pl.Int32, "admitted": pl.Date},
    )
    one = fitted(ITEM_ID, Category()).with_table(table)
    plans = [transform(given, [one], [DAY]) for given in (rows, rows.lazy())]
    assert ["JOIN" in plan.explain() for plan in plans] == [WIDE in items, True]
    assert [plan.collect()[ITEM_ID].to_list() for plan in plans] == [[3, 4, 2, 1, 4]] * 2


def test_keys_of_groups_are_those_of_their_rows() -> None:
    for step in (1, WIDE):
        keys = [pl.Series([FIRST, FIRST, date(2024, 1, 3)]), pl.Series([-1, step, step], dtype=pl.Int64)]
        assert (Groups.of(keys) is None) is (step == WIDE)
        groups = Groups.of(keys, sort=True)
        assert groups is not None and groups.size <= DENSE * 3
        assert [key.to_list() for key in groups.keys(groups.of_rows)] == [key.to_list() for key in keys]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 5), st.integers(0, 9)), min_size=1), st.booleans())
def test_parts_are_summed_up_as_a_plan_does(parts: list[tuple[int, int, int]], as_text: bool) -> None:
    days = pl.Series(DAY, [FIRST + timedelta(days=day) for day, *_ in parts])
    values = pl.Series(VALUE, [value for _, value, _ in parts]).cast(pl.String if as_text else pl.Int32)
    table = pl.DataFrame([days, values, pl.Series(COUNT, [count for *_, count in parts])])
    whole = table.group_by(DAY, VALUE).agg(pl.col(COUNT).sum()).sort(DAY, VALUE)
    assert sum_up(table, [DAY, VALUE], [COUNT]).equals(whole)
    assert sum_up(whole, [DAY, VALUE], [COUNT]).equals(whole)


@pytest.mark.parametrize("keys", [[None, 1], [True, False], [2**63, 1], ["a", "b"], []])
def test_what_is_no_small_integer_is_left_to_a_plan(keys: list[object]) -> None:
    dtype = pl.UInt64 if keys and keys[0] == 2**63 else None
    assert Groups.of([pl.Series("key", keys, dtype=dtype)]) is None


def test_the_latest_of_an_item_far_from_all_others() -> None:
    part = pl.DataFrame({ITEM_ID: [3, 2**31 - 1, 3], "last_seen": [at(0), at(1), at(2)], "kind": [5, 6, 4]})
    latest = merge_items([part, part], ["kind"])
    assert latest.select(ITEM_ID, "kind").rows() == [(3, 4), (2**31 - 1, 6)]


def test_rows_of_every_stage_of_cleaning_are_in_one_piece() -> None:
    """A filter and a shift leave columns in parts, of which all that follows costs many times as much."""
    rows = pl.DataFrame({SESSION_INDEX: [1, 1, 2, 3, 3], EVENT_DAY: [FIRST] * 5})
    flow = Flow(pl.concat([rows, rows], rechunk=False).lazy(), eager=True)
    flow.keep({"short": long_enough(2)})
    assert set(flow.rows.collect().n_chunks("all")) == {1} and flow.rows.collect().height == 8


def test_what_is_in_memory_is_one_bucket_though_it_is_larger_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CPU_ROWS", 4)
    counts: list[int] = []
    read = batch.Batch.read

    def counting(self: batch.Batch) -> None:
        read(self)
        counts.append(len(self.buckets))

    monkeypatch.setattr(batch.Batch, "read", counting)
    events = [(user, user % 3, at(user % 2)) for user in range(10)]
    for name, whole in (("one", batch.WHOLE), ("several", 0)):
        monkeypatch.setattr(batch, "WHOLE", whole)
        (tmp_path / name).mkdir()
        write(tmp_path / name, events)
        assert (
            run(tmp_path / name, dataset_of(tmp_path / name, sessions={"min_length": 1})).facts["sessions"] == 10
        )  # of one event each
    assert counts[0] == 1 < counts[1]
