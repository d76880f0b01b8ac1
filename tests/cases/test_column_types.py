"""Types of columns are declared, or taken from all rows of the first night and then kept; nothing is nulled in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.artifacts import Manifest
from schemas.dataset import Dataset
from schemas.errors import InputError
from tests.preprocessing.small import NOW, at, dataset_of, decoded, run, sessions_of
from tests.slow import examples

LOG_1P_12_50 = 2.6027
PRICE = {"price": {"encode": "log1p"}}
KIND = {"kind": {"encode": "category"}}


def night(folder: Path, day: int, ending: str = "parquet", dtype: Any = None, **columns: list[Any]) -> None:
    """A file of a day's events: one user, as many items as there are values."""
    (folder / "events").mkdir(parents=True, exist_ok=True)
    count = len(next(iter(columns.values())))
    frame = pl.DataFrame(
        {
            "user_id": ["a"] * count,
            "item_id": [f"i{place}" for place in range(count)],
            "timestamp": [at(day, 12, place).isoformat() for place in range(count)],
            **columns,
        },
        schema_overrides=dtype,
        strict=False,
    )
    place = folder / "events" / f"{day}.{ending}"
    if ending == "parquet":
        frame.write_parquet(place)
    else:
        frame.write_csv(place) if ending == "csv" else frame.write_ndjson(place)


def shop(folder: Path, features: dict[str, Any], **parts: Any) -> Dataset:
    names = tuple({feature.get("column", name): 0 for name, feature in features.items()})
    events = {"path": "events", **parts.pop("events", {})}
    return dataset_of(folder, columns=names, events=events, features=features, **parts)


def values_of(manifest: Manifest, feature: str) -> list[Any]:
    """A feature of all events in order; ids as the values they stand for."""
    values = sessions_of(manifest)[feature].explode(empty_as_null=True, keep_nulls=True)
    file = manifest.folder / "vocabularies" / f"{feature}.parquet"
    if not file.exists():
        return [round(value, 4) for value in values]
    return values.replace_strict(
        *pl.read_parquet(file).drop_nulls("id").select("id", "value").get_columns(), default=None
    ).to_list()


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_values_beyond_the_first_rows_count_too(tmp_path: Path, ending: str) -> None:
    lines = [(f"u{row // 4}", f"i{row % 7}", at(row // 4_000, 0, row % 4).isoformat()) for row in range(12_000)]
    frame = pl.DataFrame(lines, schema=["user_id", "item_id", "timestamp"], orient="row").with_row_index()
    late = pl.col("index") >= 10_501
    frame = frame.with_columns(
        kind=pl.when(late)
        .then(pl.when(pl.col("index") % 2 == 0).then(pl.lit("S")).otherwise(pl.lit("5")))
        .otherwise(pl.lit("0")),
        price=pl.when(late).then(pl.lit("12.50")).otherwise(pl.lit("12")),
    ).drop("index")
    (tmp_path / "events").mkdir()
    place = tmp_path / "events" / f"clicks.{ending}"
    frame.write_csv(place) if ending == "csv" else frame.write_ndjson(place)
    manifest = run(tmp_path, shop(tmp_path, KIND | PRICE))
    events = sessions_of(manifest).select(pl.col("kind", "price").explode(empty_as_null=True, keep_nulls=True))
    assert manifest.facts["quarantined"] == {} and events.height == 12_000
    assert events.filter(pl.col("kind") == 1).is_empty()
    assert events.filter((pl.col("price") - LOG_1P_12_50).abs() < 1e-3).height == 12_000 - 10_501


def test_integers_that_become_floats_stay_integers(tmp_path: Path) -> None:
    night(tmp_path, 0, kind=[3, 4])
    night(tmp_path, 1, kind=[3, 4])
    dataset = shop(tmp_path, KIND)
    run(tmp_path, dataset)
    night(tmp_path, 2, kind=[3.0, 4.0, None, float("nan")])
    by_night = run(tmp_path, dataset)
    assert by_night.facts["quarantined"] == {}
    assert values_of(by_night, "kind") == [3, 4, 3, 4, 3, 4, None, None]
    (tmp_path / "once").mkdir()
    (tmp_path / "events").rename(tmp_path / "once" / "events")
    at_once = run(tmp_path / "once", shop(tmp_path / "once", KIND))
    assert sessions_of(at_once).equals(sessions_of(by_night))


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_value_that_does_not_fit_later_is_counted_and_kept_raw(tmp_path: Path, ending: str) -> None:
    for day in range(2):
        night(tmp_path, day, ending, price=[10, 20])
    dataset = shop(tmp_path, PRICE)
    run(tmp_path, dataset)
    night(tmp_path, 2, ending, price=["30", "free", "40.5", "50"])
    manifest = run(tmp_path, dataset)
    broken = {"price_unparsable": 2 if ending == "parquet" else 1}  # integers, or numbers
    assert manifest.facts["quarantined"] == broken
    (file,) = manifest.folder.glob("quarantine/**/*.parquet")
    assert "free" in pl.read_parquet(file, hive_partitioning=False)["price"].to_list()


def test_it_can_be_null_instead_up_to_a_share(tmp_path: Path) -> None:
    for day in range(3):
        night(tmp_path, day, "csv", price=["10", "free", "20", "30"])
    for declared in ({"type": "float", "unfit": None}, {"type": "float", "unfit": "null", "tolerate": 0.25}):
        manifest = run(tmp_path, shop(tmp_path, PRICE, events={"types": {"price": declared}}))
        facts = manifest.facts
        assert facts["quarantined"] == {} and facts["nulled"] == {"price_unparsable": 3} and facts["events"] == 12
        assert values_of(manifest, "price")[:4] == [2.3979, 0.0, 3.0445, 3.434]
    night(
        tmp_path, 3, "csv", price=["10", "free", "20", "30"]
    )  # finished days stay: what is tolerated counts for new ones
    strict = {"type": "float", "unfit": "null", "tolerate": 0.2}
    with pytest.raises(InputError, match=r"price_unparsable: 1 of 4 rows of 2024-01-0. \(25.00%\)"):
        run(tmp_path, shop(tmp_path, PRICE, events={"types": {"price": strict}}))
    named = [{"readable": {"column": "price", "tolerate": 0.2}}]
    with pytest.raises(InputError, match=r"price_unparsable: 1 of 4 .* such as free"):
        run(tmp_path, shop(tmp_path, PRICE, checks=named))


@pytest.mark.parametrize(
    ("declared", "values", "read", "unfit"),
    [
        ("integer", ["1", "2.0", "2.5", "x", ""], [1, 2], 2),
        ("float", ["1", "2.5", "x", " 3 ", ""], [1.0, 2.5, 3.0], 1),
        ("text", ["01", "1", "x"], ["01", "1", "x"], 0),
        ("boolean", ["true", "False", "1", "0", "yes", ""], [True, False], 1),
        ("date", ["2024-05-01", "2024-05-02T10:00:00Z", "soon", ""], None, 1),
    ],
)
def test_types_can_be_declared(tmp_path: Path, declared: str, values: list[str], read: Any, unfit: int) -> None:
    for day in range(3):
        night(tmp_path, day, "csv", kind=values)
    manifest = run(tmp_path, shop(tmp_path, KIND, events={"types": {"kind": declared}}))
    assert sum(manifest.facts["quarantined"].values()) == 3 * unfit
    assert [value for value in dict.fromkeys(values_of(manifest, "kind")) if value is not None] == read or read is None


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ({"types": {"prise": "float"}}, "Did you mean 'price'"),
        ({"types": {"price": "double"}}, "'integer', 'float', 'text'"),
        ({"types": {"item_id": "float"}}, "item_id is integer or text"),
        ({"types": {"item_id": {"type": "text", "unfit": "null"}}}, "item_id must have a value"),
        ({"types": {"timestamp": "text"}}, "timestamp is time"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, events: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shop(tmp_path, PRICE, events=events)


def test_text_where_numbers_are_wanted_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    for day in range(3):
        night(tmp_path, day, price=["10", "free", "20"])
    with pytest.raises(InputError, match=r"types: {price: float}"):
        run(tmp_path, shop(tmp_path, PRICE))
    manifest = run(tmp_path, shop(tmp_path, PRICE, events={"types": {"price": "float"}}))
    assert manifest.facts["quarantined"] == {"price_unparsable": 3}


def test_what_expressions_name_is_told_from_all_rows(tmp_path: Path) -> None:
    for day in range(3):
        night(tmp_path, day, "csv", price=["10", "12.50"], stock=["1", "2"])
    features = {"total": {"encode": "log1p"}}
    steps = [{"derive": {"columns": {"total": "price * stock"}}}]
    dataset = dataset_of(
        tmp_path, columns=("price", "stock"), events={"path": "events"}, steps=steps, features=features
    )
    assert values_of(run(tmp_path, dataset), "total")[:2] == [2.3979, 3.2581]
    night(tmp_path, 2, "csv", price=["10", "12.50", "5"], stock=["1", "many", "2"])
    with pytest.raises(InputError, match="total: 'price \\* stock' fails"):
        run(tmp_path, dataset.model_copy(update={"name": "again"}))
    declared = dataset.model_copy(
        update={"events": dataset.events.model_validate(dataset.events.model_dump() | {"types": {"stock": "float"}})}
    )
    assert run(tmp_path, declared).facts["quarantined"] == {"stock_unparsable": 1}


def test_categories_of_text_files_are_text_from_the_first_night(tmp_path: Path) -> None:
    for day in range(2):
        night(tmp_path, day, "csv", kind=["1", "02"])
    run(tmp_path, shop(tmp_path, KIND))
    night(tmp_path, 2, "csv", kind=["S", "1"])
    night(tmp_path, 3, "csv", kind=["S", "02"])
    manifest = run(tmp_path, shop(tmp_path, KIND))
    assert manifest.facts["quarantined"] == {} and values_of(manifest, "kind")[-2:] == ["S", "02"]


def test_long_numbers_of_categories_stay_apart(tmp_path: Path) -> None:
    long = ["2053013555631882655", "2053013555631882656"]
    for day in range(3):
        night(tmp_path, day, "csv", kind=long, price=["1", "2"])
    features = KIND | {"relative": {"column": "price", "encode": "relative_price", "by": "kind"}}
    assert values_of(run(tmp_path, shop(tmp_path, features)), "kind")[:2] == long


@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [
        (pl.Int8, pl.Int64, pl.Int64),
        (pl.Int64, pl.UInt64, pl.Int64),
        (pl.Int64, pl.Float64, pl.Int64),
        (pl.Float32, pl.Float64, pl.Float64),
        (pl.Decimal(12, 0), pl.Int64, pl.Int64),
        (pl.Decimal(12, 2), pl.Float64, pl.Float64),
        (pl.Categorical, pl.String, pl.String),
        (pl.Binary, pl.String, pl.String),
        (pl.Null, pl.String, pl.String),
    ],
)
def test_nights_and_all_at_once_agree_whatever_the_width(tmp_path: Path, first: Any, second: Any, dtype: Any) -> None:
    text = dtype == pl.String
    one, two = ("by_night", "at_once")
    for folder in (one, two):
        for day, stored in ((0, first), (1, first), (2, second), (3, second)):
            values: list[Any] = [b"1" if stored == pl.Binary else "1" if text else 1] * 2
            night(tmp_path / folder, day, dtype={"kind": stored}, kind=[None, None] if stored == pl.Null else values)
            if folder == one and day > 0:
                run(
                    tmp_path / folder, shop(tmp_path / folder, {"kind": {"encode": "category"}})
                ) if first != pl.Null else 0
    by_night, at_once = (run(tmp_path / folder, shop(tmp_path / folder, KIND)) for folder in (one, two))
    assert sessions_of(by_night).equals(sessions_of(at_once))
    vocabulary = pl.read_parquet(at_once.folder / "vocabularies" / "kind.parquet")
    assert vocabulary.schema["value"] == dtype and by_night.facts["quarantined"] == {}


ROWS = st.lists(
    st.tuples(st.sampled_from(["10", "12.50", "free", "", "1e2"]), st.sampled_from(["0", "01", "S", ""])),
    min_size=2,
    max_size=6,
)


@given(st.lists(ROWS, min_size=3, max_size=4))
@examples(8)
def test_text_files_give_the_same_by_night_and_at_once(tmp_path_factory: pytest.TempPathFactory, days: Any) -> None:
    folder = tmp_path_factory.mktemp("nights")
    days = [[("10", "0"), ("12.50", "S"), *rows] for rows in days]  # something to learn from on every day
    done = {}
    for name in ("by_night", "at_once"):
        dataset = shop(folder / name, KIND | PRICE)
        for day, rows in enumerate(days):
            night(folder / name, day, "csv", price=[price for price, _ in rows], kind=[kind for _, kind in rows])
            if name == "by_night" and day:
                run(folder / name, dataset)
        done[name] = run(folder / name, dataset)
    assert sessions_of(done["by_night"]).equals(sessions_of(done["at_once"]))
    assert decoded(done["by_night"]) == decoded(done["at_once"])
    assert done["by_night"].facts["quarantined"] == done["at_once"].facts["quarantined"]
    assert at(len(days)) < NOW


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_item_tables_are_typed_like_events(tmp_path: Path, ending: str) -> None:
    for day in range(3):
        night(tmp_path, day, dummy=[0, 0, 0])
    table = pl.DataFrame({"id": ["i0", "i1", "i2"], "price": ["10", "12.50", "free"], "kind": ["0", "1", "02"]})
    place = tmp_path / f"items.{ending}"
    table.write_csv(place) if ending == "csv" else table.write_parquet(place)
    items = {"path": place.name, "columns": {"item_id": "id", "price": "price", "kind": "kind"}}

    def catalogue(**more: Any) -> Dataset:
        steps = [{"join_items": {"columns": ["price", "kind"]}}]
        return dataset_of(
            tmp_path, events={"path": "events"}, items={**items, **more}, steps=steps, features=KIND | PRICE
        )

    with pytest.raises(InputError, match="free" if ending == "csv" else "types: {price: float}"):
        run(tmp_path, catalogue())
    with pytest.raises(InputError, match=r"price 'free' is no float \(1 of 3 rows\).*types: {price: text}"):
        run(tmp_path, catalogue(types={"price": "float"}))
    with pytest.raises(InputError, match=r"above the tolerated 10.00%"):
        run(tmp_path, catalogue(types={"price": {"type": "float", "unfit": "null", "tolerate": 0.1}}))
    manifest = run(tmp_path, catalogue(types={"price": {"type": "float", "unfit": "null"}}))
    assert values_of(manifest, "kind")[:3] == ["0", "1", "02"]
    assert values_of(manifest, "price")[:3] == [2.3979, LOG_1P_12_50, 0.0]


@pytest.mark.parametrize("dtype", [pl.Int64, pl.UInt64, pl.Int128, pl.Decimal(38, 0)])
def test_integers_beside_floats_are_not_merged(tmp_path: Path, dtype: Any) -> None:
    first = 2**53
    for day in range(2):
        night(tmp_path, day, kind=pl.Series([first, first + 1, first + 2, 3], dtype=dtype))
    night(tmp_path, 2, kind=[0.5, 1.0, 3.0, 0.5])
    manifest = run(tmp_path, shop(tmp_path, KIND))
    assert manifest.facts["quarantined"] == {"kind_unparsable": 2}
    assert values_of(manifest, "kind")[:3] == [first, first + 2, 3]
