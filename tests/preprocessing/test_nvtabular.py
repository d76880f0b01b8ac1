"""The NVTabular engine: the same tables, ids and sessions as Polars', from real Workflows."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from preprocessing.engines import EngineName, engine_of
from preprocessing.engines.nvtabular import NVTabularEngine, Tail
from preprocessing.engines.workflow import load
from preprocessing.features.feature import Feature, FittedFeature
from preprocessing.features.state import FeatureState
from preprocessing.pipeline import prepare
from preprocessing.sessions import SESSION_INDEX
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import DAY
from schemas.dataset import Dataset, read_dataset
from schemas.errors import InputError
from tests.preprocessing.encoding import ROW, encode_batch, features_of
from tests.preprocessing.small import MONDAY, at, dataset_of, three_days, write
from tests.slow import examples

pytestmark = pytest.mark.skipif(find_spec("nvtabular") is None, reason="NVTabular is not installed; make install does")

DAYS = [MONDAY.date() + timedelta(days=day) for day in range(3)]
FEATURES: dict[str, Any] = {
    "item_id": {"encode": "category", "min_count": 2},
    "text": {"encode": "category", "max_size": 5},
    "number": "category",
    "shown": {"column": "number", "encode": [{"clip": {"max": 3}}, "category"]},
    "price": {"encode": [{"clip": {"min": -1.5, "max": 1000}}, "log1p", "standardize"]},
    "log_price": {"column": "price", "encode": ["log1p", "min_max"]},
    "range": {"column": "price", "encode": "min_max"},
    "filled": {"column": "price", "encode": [{"fill": {"value": 2}}, "standardize"]},
    "interval": {"column": "price", "encode": ["log1p", {"bucketize": {"boundaries": [-1, 0, 1]}}]},
    "whole": {"column": "number", "encode": "standardize"},
    "hour": {"column": "timestamp", "encode": "hour"},
}
EVENT = st.fixed_dictionaries(
    {
        "item_id": st.sampled_from("vwxyz"),
        "text": st.none() | st.sampled_from(["", "nan", "None", "é", "a", "b"]),
        "number": st.none() | st.sampled_from([0, 1, 2**53, 2**53 + 1, -(2**62)]),
        "price": st.none()
        | st.sampled_from([-2.0, -5 / 8, 0.0, 0.5, 2.0, 10.0])  # of near ones the spread is what Float32 rounds
        | st.sampled_from([float("nan"), float("inf"), -1.0, -9.0, 1e6]),
    }
)


def rows_of(events: list[dict[str, Any]], days: list[int]) -> pl.DataFrame:
    """Events of one user, each a session, in this order."""
    schema = {"item_id": pl.String, "text": pl.String, "number": pl.Int64, "price": pl.Float64}
    rows = pl.DataFrame(events, schema=schema).with_row_index(ROW)
    return rows.with_columns(
        pl.lit(1).alias("user_id"),
        pl.col(ROW).alias(SESSION_INDEX),
        pl.Series(DAY, [DAYS[day] for day in days], pl.Date),
    ).with_columns(timestamp=pl.col(DAY).cast(pl.Datetime("us", "UTC")))


def encode(
    name: EngineName, features: list[Feature], rows: pl.DataFrame, batches: Sequence[Sequence[date]]
) -> tuple[pl.DataFrame, FeatureState]:
    """What an engine makes of the rows, batch after batch, and the state after them."""
    engine, encoded = engine_of(name), []
    state: FeatureState = {}
    for days in batches:
        batch = rows.filter(pl.col(DAY).is_in(list(days)))
        if batch.height:
            part, state, _ = encode_batch(features, [batch], state, [ROW, DAY], engine)
            encoded.append(part)
    return pl.concat(encoded), state


def assert_same(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """Equal but for what LogOp, which computes in Float32, rounds."""
    assert_frame_equal(left.select(~cs.float()), right.select(~cs.float()))
    assert_frame_equal(left.select(cs.float()), right.select(cs.float()), rel_tol=1e-4, abs_tol=1e-5)
    assert left.columns == right.columns


@examples(12)
@given(st.lists(st.tuples(EVENT, st.integers(0, 2)), min_size=1, max_size=30), st.booleans())
def test_both_engines_give_the_same(events: list[tuple[dict[str, Any], int]], at_once: bool) -> None:
    rows = rows_of([event for event, _ in events], [day for _, day in events])
    features = features_of(rows.drop(ROW), FEATURES)
    batches = [DAYS] if at_once else [[day] for day in DAYS]
    (polars, polars_state), (nvtabular, nvtabular_state) = (
        encode(engine, features, rows, batches) for engine in ("cpu", "nvtabular")
    )
    assert_same(nvtabular, polars)
    assert nvtabular_state.keys() == polars_state.keys()
    for name, table in polars_state.items():
        assert_same(nvtabular_state[name], table)


def test_what_nvtabular_does() -> None:
    events = [{"item_id": item, "text": "a", "number": 1, "price": 2.0} for item in "xxy"]
    rows = rows_of(events, [0, 0, 0]).with_columns(tags=pl.lit(["a"]))
    engine = NVTabularEngine()
    features = {
        **FEATURES,
        "tags": "category",
        "buckets": {"column": "text", "encode": [{"category": {"unknown_buckets": 2}}]},
    }
    fitted = [FittedFeature(feature) for feature in features_of(rows.drop(ROW), features)]
    wanted = [Tail.of(feature, feature.next_place + 1) for feature in fitted if feature.next_to_fit]
    chains = [tail.chain for tail in engine._inputs(rows, wanted)[1]]
    assert {chain.name: [type(encoder).__name__ for encoder in chain.encoders] for chain in chains} == {
        "item_id": ["Category"],
        "text": ["Category"],
        "number": ["Category"],
        "price": ["Clip", "Log1p", "Standardize"],
        "log_price": ["Log1p", "MinMax"],
        "range": ["MinMax"],
        "filled": ["Fill", "Standardize"],
        "whole": ["Standardize"],
    }
    interval = next(feature for feature in fitted if feature.name == "interval")
    tail = Tail.of(interval, 2)
    assert tail and [type(encoder).__name__ for encoder in tail.chain.encoders] == ["Bucketize"]  # of exact logarithms


def counts(values: list[Any], days: list[int]) -> list[tuple[Any, ...]]:
    """What NVTabular counts in a column, and that it is what Polars counts."""
    name = "number" if isinstance(values[0], int) else "text"
    events = [{"item_id": "x", "number": 0, "text": "a", "price": 1.0, name: value} for value in values]
    rows = rows_of(events, days)
    pending = [FittedFeature(features_of(rows.drop(ROW), {name: "category"})[1])]
    (table,), (expected,) = (engine_of(engine).fit(rows, pending) for engine in ("nvtabular", "cpu"))
    assert_frame_equal(table, expected, check_row_order=False)
    return table.sort("day", "value").select("value", "count").rows()


def test_large_integers_stay_exact_beside_null() -> None:
    assert counts([2**53 + 1, None, 2**53, 2**53 + 1], [0] * 4) == [(2**53, 1), (2**53 + 1, 2)]


def test_a_column_may_be_null_on_a_whole_day() -> None:
    assert counts(["b", "a", None, None, "b"], [0, 0, 1, 1, 2]) == [("a", 1), ("b", 1), ("b", 1)]


def both(source: Path, dataset: Dataset, *runs: dict[str, Any]) -> list[list[Manifest]]:
    """Every run's sessions, by engine; each engine remembers its own earlier runs only."""
    quiet = {"progress": lambda line: None}
    return [
        [prepare(Artifacts(source / name), dataset, engine=name, **quiet, **run) for run in runs]
        for name in ("cpu", "nvtabular")
    ]


def assert_same_sessions(polars: Manifest, nvtabular: Manifest) -> int:
    """Compare all Parquet files; returns how many."""
    files, same = (sorted(one.folder.rglob("*.parquet")) for one in (polars, nvtabular))
    assert [file.relative_to(polars.folder) for file in files] == [file.relative_to(nvtabular.folder) for file in same]
    for left, right in zip(files, same, strict=True):
        tables = [pl.read_parquet(file, hive_partitioning=False) for file in (left, right)]
        lists = cs.by_dtype(pl.List(pl.Float32))
        assert_same(*(table.select(~lists) for table in tables))
        for name in tables[0].select(lists).columns:
            assert tables[0][name].list.len().equals(tables[1][name].list.len())
            assert_same(*(table.select(pl.col(name).explode(empty_as_null=True)) for table in tables))
    return len(files)


def test_sessions_of_the_simulated_shop(tmp_path: Path) -> None:
    """At once, and in three nights."""
    simulate(Shop(days=5, users=150, items=200), tmp_path)
    changes = {
        "features.first_hour": {"column": "timestamp", "encode": "hour", "per": "session"},
        "features.spent_first": {"column": "price", "encode": "standardize", "per": "session"},
        "steps": [*({"name": step.name, "options": step.options} for step in read_dataset("demo").steps), "dwell_time"],
        "labels": [{"column": "dwell", "per": "event"}],
    }
    dataset = read_dataset("demo", changes).at(tmp_path)
    nights = [{"until": date(2026, 3, day)} for day in (3, 4, 5)]
    for one, other in zip(*both(tmp_path, dataset, *nights), strict=True):
        assert assert_same_sessions(one, other) > 5
        night = other
    at_once = prepare(Artifacts(tmp_path / "once"), dataset, engine="nvtabular", **nights[-1], progress=lambda _: None)
    assert_same_sessions(at_once, night)


def test_a_day_done_again_uses_nothing_of_later_days(tmp_path: Path) -> None:
    """Its new values are numbered after those of later days; a value that it holds itself has the id that it got later."""
    dataset = dataset_of(tmp_path)
    events = [*three_days(), ("b", "late", at(2, 13, 3)), ("b", "late", at(2, 13, 4))]
    until = {"until": date(2024, 1, 3), "now": at(9)}
    write(tmp_path, events)
    both(tmp_path, dataset, until)
    write(tmp_path, [*events, ("c", "old", at(1)), ("c", "late", at(1, 12, 1)), ("c", "x", at(1, 12, 2))])
    (polars,), (nvtabular,) = both(tmp_path, dataset, until)
    assert_same_sessions(polars, nvtabular)
    day = pl.read_parquet(nvtabular.folder / "sessions" / "day=2024-01-02" / "*.parquet", hive_partitioning=False)
    assert day.filter(user_id="c")["item_id"].to_list() == [
        [7, 6, 3]
    ]  # old; late, which has an id since a later day; x


def test_globo(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    folder = real_data("globo")
    three = pl.col("timestamp").dt.date() <= date(2017, 10, 3)
    pl.scan_parquet(folder / "events.parquet").filter(three).sink_parquet(tmp_path / "events.parquet")
    shutil.copy(folder / "items.parquet", tmp_path)
    (polars,), (nvtabular,) = both(tmp_path, read_dataset("globo").at(tmp_path), {"until": date(2017, 10, 2)})
    assert nvtabular.facts["events"] > 100_000
    assert_same_sessions(polars, nvtabular)


def test_it_says_how_to_install_nvtabular(monkeypatch: pytest.MonkeyPatch) -> None:
    load.cache_clear()
    monkeypatch.setitem(sys.modules, "nvtabular", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install --no-deps nvtabular==23\.8\.0"):
        engine_of("nvtabular")
