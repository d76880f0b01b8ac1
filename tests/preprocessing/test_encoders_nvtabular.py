"""NVTabular's answers, stored: our encoders give the same, and its vocabularies can be taken over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.features.feature import FittedFeature
from preprocessing.sessions import SESSION_INDEX, recent
from preprocessing.vocabulary import admit, from_nvtabular
from schemas.columns import DAY
from schemas.errors import InputError
from tests.conftest import SHARED
from tests.preprocessing.encoding import ROW, features_of
from tests.preprocessing.small import MONDAY

FILE = SHARED / "nvtabular" / "parity_cases.json"
CASES = json.loads(FILE.read_text()) if FILE.is_file() else []
ENCODERS = {
    "Categorify": ("category", {"freq_threshold": "min_count", "max_size": "max_size"}),
    "Normalize": ("standardize", {}),
    "NormalizeMinMax": ("min_max", {}),
    "LogOp": ("log1p", {}),
    "FillMedian": ("fill", {}),
    "Clip": ("clip", {"min_value": "min", "max_value": "max"}),
    "Bucketize": ("bucketize", {"boundaries": "boundaries"}),
}
FIXED = {"FillMedian": {"value": "median"}}
NOT_OURS = {
    "HashBucket": "its hash is of pandas; ours, of unknown_buckets, is the same on every engine",
    "ListSlice": "sessions keep their most recent events, so only a start of -n is asked for; padding is the loader's",
    "DifferenceLag": "elapsed is the lag of 1 within a session, and 0 where there is none",
    "Groupby": "sessions are cut and grouped by the pipeline, not by an encoder",
}


def cases(*operators: str) -> list[Any]:
    """The stored cases of these operators; one that skips where the file is absent."""
    absent = pytest.mark.skip(reason=f"{FILE} is not there (set OVERNIGHT_SHARED to the folder that holds nvtabular/)")
    found = [pytest.param(*case, id=f"{case[0]}-{place}") for place, case in enumerate(CASES) if case[0] in operators]
    return found or [pytest.param(*[None] * 5, marks=absent)]


def frame(values: list[Any]) -> pl.DataFrame:
    """Events of one session of the first day, with the values."""
    count = len(values)
    base = {ROW: list(range(count)), "user_id": [1] * count, "item_id": ["x"] * count, "timestamp": [MONDAY] * count}
    return pl.DataFrame({**base, DAY: [MONDAY.date()] * count, SESSION_INDEX: [1] * count, "v": values})


@pytest.mark.parametrize(("operator", "options", "fit", "transform", "expected"), cases(*ENCODERS))
def test_encoders_give_the_same(operator: str, options: Any, fit: Any, transform: Any, expected: Any) -> None:
    (column,) = fit
    name, ours = ENCODERS[operator]
    chosen = {ours[option]: value for option, value in options.items()} | FIXED.get(operator, {})
    fit_to = frame(fit[column])
    rows_in = frame(transform[column]).cast({"v": fit_to.schema["v"]}) if transform else fit_to
    (_, feature) = features_of(fit_to, {"out": {"column": "v", "encode": [{name: chosen}]}})
    fitted, encoder = FittedFeature(feature), feature.encoders[0]
    if encoder.fits != "nothing":
        statistics = fitted.partial_fit(fit_to.lazy()).collect()
        fitted = fitted.with_table(encoder.lookup(None, statistics, encoder.merge(None, statistics)))
    # Before a number that is null or not finite becomes 0.
    rows, value = fitted.transform(rows_in.lazy()) if feature.many else fitted.transform_fitted(rows_in.lazy())
    found = rows.select(value).collect().to_series().to_list()
    wanted = expected[column]
    if operator == "Bucketize":  # theirs begin at 0 and put null into the last; ours begin at 3, and null is 1
        values = fit[column]
        wanted = [1 if one is None else 3 + id_ for one, id_ in zip(values, wanted, strict=True)]
    if operator == "LogOp":  # the logarithm of what has none is NaN here, until the chain ends
        found = [None if one != one else one for one in found]
    for one, other in zip(found, wanted, strict=True):
        assert one == (pytest.approx(other, abs=1e-6) if isinstance(other, float) else other)


@pytest.mark.parametrize(("operator", "options", "fit", "transform", "expected"), cases("ListSlice"))
def test_sessions_keep_what_a_negative_slice_keeps(
    operator: str, options: Any, fit: Any, transform: Any, expected: Any
) -> None:
    if options["start"] >= 0 or len(options) > 1:
        pytest.skip(NOT_OURS[operator])
    lists = pl.LazyFrame({"l": fit["l"]}).with_row_index(SESSION_INDEX, offset=1)
    events = lists.with_columns(pl.col(SESSION_INDEX).cast(pl.Int64)).explode("l", empty_as_null=True)
    kept = events.filter(recent(-options["start"])).group_by(SESSION_INDEX, maintain_order=True).agg("l").collect()
    assert kept["l"].to_list() == expected["l"]


def test_every_stored_case_is_compared_or_explained() -> None:
    assert {case[0] for case in CASES} <= ENCODERS.keys() | NOT_OURS.keys()


def write_unique(path: Path, values: list[Any], sizes: list[int], start: int = 3) -> Path:
    """A file as NVTabular has pandas write it: ids are a RangeIndex, which is only in the metadata."""
    index = {"kind": "range", "name": None, "start": start, "stop": start + len(values), "step": 1}
    table = pa.table({"brand": values, "brand_size": sizes})
    metadata = {"index_columns": [index], "column_indexes": [], "columns": [], "pandas_version": "2.3.3"}
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(metadata)}), path)
    return path


def test_vocabularies_of_nvtabular_keep_their_ids(tmp_path: Path) -> None:
    vocabulary = from_nvtabular(write_unique(tmp_path / "unique.brand.parquet", ["b", "a"], [5, 2]))
    assert vocabulary.select("value", "count", "id").rows() == [("b", 5, 3), ("a", 2, 4)]
    day = MONDAY.date()
    counts = pl.DataFrame({"day": [day] * 3, "value": ["a", "c", "d"], "count": [9, 1, 2]})
    after = admit(vocabulary, counts, 1, None)
    assert after.select("value", "count", "id").rows() == [("b", 5, 3), ("a", 11, 4), ("d", 2, 5), ("c", 1, 6)]
    assert (after["admitted"] <= day).all()


def test_vocabularies_of_nvtabular_with_buckets_and_gaps(tmp_path: Path) -> None:
    vocabulary = from_nvtabular(write_unique(tmp_path / "unique.brand.parquet", [7.0, 5.0], [5, 2], start=12))
    assert vocabulary["value"].dtype == pl.Int64 and vocabulary["id"].to_list() == [12, 13]


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "unique.brand.parquet"
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        from_nvtabular(path)
    pl.DataFrame({"brand": ["a"], "brand_size": [1]}).write_parquet(path)
    with pytest.raises(InputError, match="not an NVTabular vocabulary"):
        from_nvtabular(path)
    with pytest.raises(InputError, match="ids begin at 0"):
        from_nvtabular(write_unique(path, ["a"], [1], start=0))
