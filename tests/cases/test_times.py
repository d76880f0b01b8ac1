"""Times: every usual form is read, unset ones and wrong ones go to quarantine, nothing overflows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.source.canonical import as_found
from preprocessing.source.events import read_events
from schemas.dataset import Dataset
from schemas.errors import InputError
from tests.preprocessing.small import NOW, at, dataset_of, run, sessions_of, three_days, write

TEN = datetime(2024, 5, 1, 10, tzinfo=UTC)
SECONDS = int(TEN.timestamp())
UNSET_TEXT = [
    "0001-01-01T00:00:00",
    "0001-01-01",
    "0000-00-00 00:00:00",
    "-99999999999",
    "0",
    "-1",
    "1",
    "-62135596800",
]


def times_of(folder: Path, values: list[Any], dtype: Any = None, **events: Any) -> list[Any]:
    moments = pl.Series("timestamp", values, dtype=dtype, strict=False)
    count = len(moments)
    pl.DataFrame({"user_id": ["a"] * count, "item_id": ["x"] * count, "timestamp": moments}).write_parquet(
        folder / "events.parquet"
    )
    return read_events(dataset_of(folder, events=events)).collect()["timestamp"].to_list()


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01T10:00:00Z",
        "2024-05-01 10:00:00 UTC",
        "2024-05-01 10:00:00.000 UTC",
        "2024-05-01T10:00:00 UTC",
        "2024-05-01 10:00 GMT",
        "2024-05-01T10:00Z",
        "2024-05-01T10:00:00z",
        "2024-05-01T10:00:00+0000",
        "2024-05-01T12:00:00+02:00",
        "2024-05-01 12:00:00 +02:00",
        "2024-05-01 12:00:00.000 +0200",
        "2024-05-01 12:00:00+02",
        "2024-05-01T10:00:00.000000000",
        "2024-05-01T10:00:00,000",
        "  2024-05-01 10:00 ",
        str(SECONDS),
        f"{SECONDS}000",
        f"{SECONDS}.0",
        f"{SECONDS}e0",
    ],
)
def test_usual_forms_of_one_moment(tmp_path: Path, text: str) -> None:
    assert times_of(tmp_path, [text]) == [TEN]


def test_fractions_are_kept_to_the_microsecond(tmp_path: Path) -> None:
    texts = ["2024-05-01T10:00:00.123456789Z", "2024-05-01 10:00:00.5", f"{SECONDS}123456789"]
    micro = timedelta(microseconds=123_456)
    assert times_of(tmp_path, texts) == [TEN + micro, TEN + timedelta(seconds=0.5), TEN + micro]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%d/%m/%Y %H:%M", "01/05/2024 10:00"),
        ("%m/%d/%Y %I:%M:%S %p", "05/01/2024 10:00:00 AM"),
        ("%Y%m%d%H%M%S", "20240501100000"),
        ("%d/%m/%Y %H:%M %z", "01/05/2024 12:00 +0200"),
        ("%a %b %d %H:%M:%S %Y", "Wed May 01 10:00:00 2024"),
        (["%d/%m/%Y", "%d/%m/%Y %H:%M"], "01/05/2024 10:00"),
    ],
)
def test_forms_can_be_declared(tmp_path: Path, form: Any, text: str) -> None:
    assert times_of(tmp_path, [text, "2024-05-01T10:00:00Z"], time_format=form) == [TEN, None]


def test_declared_forms_are_of_the_stated_zone(tmp_path: Path) -> None:
    options = {"time_format": "%d.%m.%Y %H:%M", "time_zone": "Europe/Berlin"}
    assert times_of(tmp_path, ["01.05.2024 12:00"], **options) == [TEN]


@pytest.mark.parametrize("form", ["%d/%m", "tomorrow", "%H:%M"])
def test_forms_without_a_year_are_refused(form: str) -> None:
    with pytest.raises(ValueError, match="holds no year"):
        dataset_of("somewhere", events={"time_format": form})


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_stored_times_beyond_all_years_do_not_overflow(tmp_path: Path, unit: Any, zone: str | None) -> None:
    extremes = pl.Series([-(2**63), -(2**63) + 1, 2**63 - 1, SECONDS * {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]])
    dtype = pl.Datetime(unit, zone)
    for where in ("UTC", "America/New_York", "Asia/Tokyo"):
        read = times_of(tmp_path, extremes.cast(dtype).to_frame("timestamp")["timestamp"], dtype, time_zone=where)
        if zone or where == "UTC":
            assert read[3] == TEN
        assert read[0] is None or read[0] < at(0) < (read[2] or NOW)


def test_stored_dates_beyond_all_years_do_not_overflow(tmp_path: Path) -> None:
    read = times_of(tmp_path, pl.Series([-(2**31), 2**31 - 1, 0], dtype=pl.Int32).cast(pl.Date), pl.Date)
    assert [time.year for time in read] == [1, 9999, 1970]


@pytest.mark.parametrize("dtype", [pl.Int64, pl.Float64, pl.Decimal(38, 0)])
def test_numbers_that_are_no_times_are_null(tmp_path: Path, dtype: Any) -> None:
    never = 253_402_300_799  # 9999-12-31
    numbers = [-(2**60), 2**60, -99_999_999_999, never, never * 10**3, never * 10**6, SECONDS]
    early, late, *rest = times_of(tmp_path, numbers, dtype)
    assert early.year < 1970 and late.year > 2000 and rest == [None] * 4 + [TEN]  # nanoseconds
    assert times_of(tmp_path, numbers, dtype, time_unit="s") == [None] * 6 + [TEN]


def test_floats_that_are_no_times_are_null(tmp_path: Path) -> None:
    values = [float("nan"), float("inf"), -float("inf"), 1e300, SECONDS + 0.5]
    assert times_of(tmp_path, values) == [None] * 4 + [TEN + timedelta(seconds=0.5)]


def prepared(folder: Path, odd: list[Any], dtype: Any, zone: str, **parts: Any) -> Any:
    """A run over three days and some odd times, which come from days of their own."""
    rows = [("a", "x", time) for time in odd]
    usual = pl.DataFrame(three_days(), schema=["user_id", "item_id", "timestamp"], orient="row")
    usual = usual.with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
    if dtype == pl.String:
        usual = usual.with_columns(pl.col("timestamp").dt.to_string("iso:strict"))
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": dtype}
    strange = pl.DataFrame(rows, schema=schema, orient="row", strict=False)
    pl.concat([usual, strange.with_columns(pl.col("timestamp").cast(usual.schema["timestamp"]))]).write_parquet(
        folder / "events.parquet"
    )
    return run(folder, dataset_of(folder, time_zone=zone, **parts))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_unset_times_of_text_go_to_quarantine(tmp_path: Path, zone: str) -> None:
    odd = [*UNSET_TEXT, "9999-12-31", "9999-12-31 23:59:59", "10000-01-01", "soon"]
    manifest = prepared(tmp_path, odd, pl.String, zone)
    facts = manifest.facts
    assert facts["rows_in"] == 15 + len(odd) and facts["sessions"] == 6
    assert sum(facts["quarantined"].values()) == len(odd)
    assert facts["quarantined"].keys() == {"timestamp_unparsable", "too_long_ago", "in_future"}
    files = list(manifest.folder.glob("quarantine/**/*.parquet"))
    bad = pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])
    assert sorted(bad["timestamp"]) == sorted(odd)  # as they were found


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("dtype", [pl.Int64, pl.Datetime("us")])
def test_unset_times_of_parquet_go_to_quarantine(tmp_path: Path, zone: str, dtype: Any) -> None:
    odd = [-(2**63), 2**63 - 1, -62_135_596_800 * 10**6, 253_402_300_799 * 10**6, -1, 0, 1]
    rows = [(user, item, int(time.timestamp() * 10**6)) for user, item, time in three_days()]
    write(tmp_path, [*rows, *(("a", "x", number) for number in odd)])
    file = tmp_path / "events.parquet"
    pl.read_parquet(file).with_columns(pl.col("timestamp").cast(dtype)).write_parquet(file)
    facts = run(tmp_path, dataset_of(tmp_path, time_zone=zone)).facts
    assert facts["sessions"] == 6 and sum(facts["quarantined"].values()) == 7


def test_the_bound_can_be_moved(tmp_path: Path) -> None:
    old = [datetime(1969, 7, 20, 20, 17, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(2)]
    believed = {"checks": [{"not_before": {"earliest": "1900-01-01"}}]}
    assert prepared(tmp_path, old, pl.Datetime("us", "UTC"), "UTC", **believed).facts["quarantined"] == {}
    late = {"checks": [{"not_before": {"earliest": "2024-01-02"}}]}
    manifest = prepared(tmp_path, [], pl.Datetime("us", "UTC"), "UTC", **late)
    assert manifest.facts["quarantined"] == {"too_long_ago": 5}
    assert set(sessions_of(manifest)["day"]) == {"2024-01-02", "2024-01-03"}


def test_values_that_are_not_understood_are_shown(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\na,x,01/05/2024 10:00\na,y,01/05/2024 10:05\n")
    dataset = dataset_of(tmp_path, events={"path": "events.csv"})
    with pytest.raises(InputError) as error:
        run(tmp_path, dataset)
    for part in ("'01/05/2024 10:00'", "ISO 8601", "events.time_unit", "events.time_format", "%d/%m/%Y %H:%M"):
        assert part in str(error.value)


def test_times_of_other_columns_are_read_where_features_take_them(tmp_path: Path) -> None:
    lines = [f"{user},{item},{time.isoformat()},2024-01-01 10:00:00 UTC" for user, item, time in three_days()]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp,posted", *lines, "a,x,2024-01-02,soon"]))
    features = {"posted_hour": {"column": "posted", "encode": "hour"}}
    dataset = dataset_of(tmp_path, columns=("posted",), events={"path": "events.csv"}, features=features)
    manifest = run(tmp_path, dataset)
    assert manifest.facts["quarantined"] == {"posted_unparsable": 1}


def test_far_times_of_other_columns_stay(tmp_path: Path) -> None:
    never = datetime(9999, 12, 31, 23, 59, 59)
    frame = pl.DataFrame(
        {
            "user_id": ["a"],
            "item_id": ["x"],
            "timestamp": [at(0)],
            "expires": pl.Series([never], dtype=pl.Datetime("ms")),
        }
    )
    frame.write_parquet(tmp_path / "events.parquet")
    dataset: Dataset = dataset_of(tmp_path, columns=("expires",))
    events = read_events(dataset).collect()
    assert events["expires"].to_list() == [never.replace(tzinfo=UTC)]
    assert as_found("expires") not in events.columns


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("%Y-%m-%d %H:%M:%S %Z", "%z for offsets .* events.time_zone"),
        ("%Y-%m-%d %H:%M %%Z %Z", "%z for offsets"),
        ("%H:%M %Y", "no month and day"),
        ("%Y", "no month and day"),
        ("%Y-%m", "no month and day"),
        ("%Y-%d", "no month and day"),
        ("%%Y-%m-%d", "no year"),
    ],
)
def test_forms_that_lose_a_part_of_the_time_are_refused(form: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataset_of("x", events={"time_format": ["%Y-%m-%d", form]})


@pytest.mark.parametrize("form", ["%-d.%-m.%Y", "%e %b %y", "%F %T", "%D", "%Y-%j", "%s", "%+", "%Y%m%d %%Z"])
def test_forms_with_a_whole_date_are_taken(form: str) -> None:
    assert dataset_of("x", events={"time_format": form}).events.time_format == (form,)
