"""What people give to a model by hand: ids as it returned them, raw events, files whose types nobody may guess."""

from __future__ import annotations

import json
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from flows.raw_tables import read_table
from flows.recommend import NOTHING_LEFT
from flows.recommend import recommend as run
from modeling.config import ModelConfig
from modeling.model import SequenceModel
from modeling.service.recommender import Recommender
from modeling.service.values import TIME, as_type, item_ids
from preprocessing.hashing import stable_hash
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import UNKNOWN
from schemas.dataset import read_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema
from schemas.hashing import hash_value

YAML = """
name: rich
time_zone: Europe/Berlin
events:
  path: events.parquet
  time_zone: Asia/Tokyo
  columns: {user_id: user_id, item_id: item_id, timestamp: timestamp, action: action, price: price, made: made,
            note: note, tags: tags, device: device, code: code}
items: {path: items.parquet, columns: {item_id: item_id, brand: brand}}
steps: [{join_items: {columns: [brand]}}]
sessions: {rule: gap, gap_minutes: 30}
features:
  item_id: category
  brand: category
  action: category
  code: {encode: category, unknown_buckets: 4, min_count: 8}
  tags: category
  device: {encode: category, per: session}
  first_price: {column: price, encode: [log1p, standardize], per: session}
  filled: {column: price, encode: [{fill: {value: mean}}, log1p, standardize]}
  median: {column: price, encode: [{fill: {value: median}}]}
  given: {column: price, encode: [{fill: {value: 7}}, {clip: {min: 10, max: 60}}, min_max]}
  tenth: {column: price, encode: quantile, q: 5}
  bucket: {column: price, encode: bucketize, boundaries: [20, 50]}
  hour: {column: timestamp, encode: hour}
  weekday: {column: timestamp, encode: weekday, time_zone: Asia/Tokyo}
  sine: {column: timestamp, encode: cyclic, period: hour, part: sin}
  week: {column: timestamp, encode: cyclic, period: weekday, part: cos}
  year: {column: timestamp, encode: cyclic, period: day_of_year, part: cos}
  minutes: {column: timestamp, encode: cyclic, period: 3600, part: sin}
  elapsed: {column: timestamp, encode: [elapsed, log1p]}
  event_age: {column: timestamp, encode: event_age}
  note_length: {column: note, encode: text_length}
  age: {column: made, encode: age}
  popular: {column: action, encode: popularity}
"""


def events_of(days: int = 4) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for day in range(days):
        for user in range(15):
            moment = datetime(2026, 3, 1 + day, 20, user * 3)
            for _ in range(int(rng.integers(2, 5))):
                moment += timedelta(seconds=float(rng.integers(1, 900)), microseconds=int(rng.integers(0, 999_999)))
                item = int(rng.integers(0, 9))
                price = None if rng.random() < 0.2 else float(np.round(rng.gamma(2, 20), 2))
                number = int(rng.integers(0, 40 if day == 3 else 12))  # some codes are new on the last day
                rows.append(
                    {
                        "user_id": f"u{day}-{user}",
                        "item_id": item + 100,
                        "timestamp": moment,
                        "price": price,
                        "action": [None, "view", "cart"][int(rng.integers(0, 3))],
                        "made": date(2026, 2, 20 + item),
                        "note": "x" * int(rng.integers(0, 6)),
                        "tags": ["a", "b", "c"][: int(rng.integers(0, 4))],
                        "device": ["phone", "desk"][user % 2],
                        "code": f"c{number}",
                    }
                )
    return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path, pl.DataFrame]:
    """Prepared sessions, the folder of a model of them (not trained), and the events of the test day."""
    folder = tmp_path_factory.mktemp("rich")
    events = events_of()
    events.write_parquet(folder / "events.parquet")
    items = pl.DataFrame({"item_id": range(100, 109), "brand": [f"b{i % 3}" for i in range(9)]})
    items.write_parquet(folder / "items.parquet")
    (folder / "rich.yaml").write_text(YAML)
    dataset = read_dataset(str(folder / "rich.yaml")).at(str(folder))
    sessions = prepare(Artifacts(folder / "root"), dataset, until=date(2026, 3, 4), progress=lambda line: None)
    model = folder / "model"
    shutil.copytree(sessions.folder, model, ignore=shutil.ignore_patterns("sessions", "manifest.json"))
    torch.manual_seed(0)
    schema = FeatureSchema.read(sessions.folder / "schema.json")
    config = ModelConfig.model_validate({"body": {"dim": 8, "num_layers": 1}})
    made = SequenceModel(config, schema)
    if hasattr(made.next_item, "popularity_V"):
        made.next_item.popularity_V.fill_(1.0)
    made.save(model)
    return sessions, model, events.filter(pl.col("timestamp") >= datetime(2026, 3, 4))


def test_raw_events_are_encoded_as_preparation_encodes_them(rich: tuple[Manifest, Path, pl.DataFrame]) -> None:
    sessions, folder, events = rich
    recommender = Recommender(folder, "cpu")
    found, unknown, keys = recommender.sessions_of_events(events.sample(fraction=1.0, shuffle=True, seed=1))
    assert not unknown
    files = sorted((sessions.folder / "sessions" / "day=2026-03-04").glob("*.parquet"))
    stored = {row["user_id"]: row for row in pl.concat([pl.read_parquet(file) for file in files]).iter_rows(named=True)}
    compared = 0
    for place, key in enumerate(keys):
        if key not in stored:  # still open at midnight, or too short
            continue
        compared += 1
        events_of_session = slice(int(found.starts[place]), int(found.starts[place] + found.lengths[place]))
        for column in recommender.schema.columns:
            expected = stored[key][column.name]
            if column.name == "popular":
                continue
            if column.per == "session":
                assert found.context[column.name][place].item() == pytest.approx(expected, abs=1e-6), column.name
                continue
            values = found.events[column.name][events_of_session].tolist()
            if column.many:
                values = [[one for one in many if one] for many in values]
            elif column.kind == "categorical":
                # What was admitted on the test day is unknown to training; sessions read all of it as one id.
                new = [one >= (column.cardinality or 0) for one in expected]
                assert all(one <= UNKNOWN + 3 for one, is_new in zip(values, new, strict=True) if is_new)
                values, expected = (
                    [one for one, no in zip(ids, new, strict=True) if not no] for ids in (values, expected)
                )
            assert values == (expected if column.many else pytest.approx(expected, abs=1e-5)), column.name
    assert compared > 10
    assert recommender.borrowed(events.columns) == ["popular"]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_events_of_any_file_give_the_same_lists(
    rich: tuple[Manifest, Path, pl.DataFrame], tmp_path: Path, ending: str
) -> None:
    _, folder, events = rich
    events = events.drop("tags")
    path = tmp_path / f"events.{ending.upper() if ending == 'csv' else ending}"
    if ending == "parquet":
        events.write_parquet(path)
    elif ending == "csv":
        events.write_csv(path)
    else:
        path.write_text("\n".join(json.dumps(row, default=str) for row in events.iter_rows(named=True)) + "\n\n")
    lines: list[str] = []
    given = run(folder, read_table(path, "--events"), 3, say=lines.append)
    expected = run(folder, events, 3, say=lambda line: None)
    assert given == expected and len(given["sessions"]) == events["user_id"].n_unique()
    assert given["borrowed"] == ["tags", "popular"]
    assert any(line.startswith("Not given: tags, popular. Taken from the last training event") for line in lines)


def test_item_ids_alone_say_what_is_borrowed(rich: tuple[Manifest, Path, pl.DataFrame]) -> None:
    lines: list[str] = []
    summary = run(rich[1], ["103", "105"], 2, say=lines.append)
    assert summary["borrowed"][:2] == ["action", "code"] and "brand" not in summary["borrowed"]
    assert sum("Not given: action, code" in line for line in lines) == 1


def test_one_session_of_a_file_looks_like_one_of_item_ids(rich: tuple[Manifest, Path, pl.DataFrame]) -> None:
    one = rich[2].filter(pl.col("user_id") == "u3-1").drop("user_id", "timestamp")
    summary = run(rich[1], one, 2, say=lambda line: None)
    assert len(summary["recommended"]) == 2 and "sessions" not in summary
    assert {"hour", "elapsed", "age"} <= set(summary["borrowed"]), "no times were given"


def test_the_ids_that_it_returns_go_back_in(rich: tuple[Manifest, Path, pl.DataFrame]) -> None:
    recommender = Recommender(rich[1], "cpu")
    best = recommender.recommend(recommender.histories([["105"], [103, np.int64(104)]])[0], 2)
    assert all(isinstance(item, int) for items in best for item in items)
    again, unknown = recommender.histories(best)
    assert not unknown
    assert recommender.raw_items(again.items) == [item for items in best for item in items]
    assert recommender.histories([["0105", 105, 7, "10000000000000000000000"]])[1] == [7, "10000000000000000000000"]
    for wrong in (105.0, None, True, "abc", "", "10.5", b"105", [105], np.float32(1)):
        with pytest.raises(InputError, match="Item ids of this model are integers"):
            recommender.histories([[105, wrong]])
    for history in ("105", 105, None):
        with pytest.raises(InputError, match="A history is a list of item ids"):
            recommender.histories([history])  # type: ignore[list-item]


def test_a_catalogue_of_text_takes_text_only() -> None:
    assert item_ids(["0105", "x"], pl.String()).to_list() == ["0105", "x"]
    for wrong in (105, 1.5, None, False):
        with pytest.raises(InputError, match="Item ids of this model are text"):
            item_ids(["a", wrong], pl.String())


def test_nothing_left_to_recommend_is_said(rich: tuple[Manifest, Path, pl.DataFrame]) -> None:
    lines: list[str] = []
    summary = run(rich[1], [str(item) for item in range(100, 109)], 5, say=lines.append)
    assert summary["recommended"] == [] and lines[-1] == NOTHING_LEFT
    lines.clear()
    assert len(run(rich[1], [str(item) for item in range(100, 108)], 5, say=lines.append)["recommended"]) == 1
    assert NOTHING_LEFT not in lines
    assert len(run(rich[1], ["100"], 5, keep_seen=True, say=lines.append)["recommended"]) == 5


def test_empty_histories_and_wrong_counts_are_refused(rich: tuple[Manifest, Path, pl.DataFrame]) -> None:
    recommender = Recommender(rich[1], "cpu")
    empty, _ = recommender.histories([[105], []])
    for ask in (recommender.recommend, recommender.predict):
        with pytest.raises(InputError, match="at least one item"):
            ask(empty)
    assert recommender.recommend(recommender.histories([])[0]) == []
    for odd in (None, 105, ([item] for item in (105, 106)), {105: 1}):
        with pytest.raises(InputError, match="Histories are a list"):
            recommender.recommend(odd)  # type: ignore[arg-type]
    some, _ = recommender.histories([[105]])
    for k in (0, -1, 1.5, True, None):
        with pytest.raises(InputError, match="k must be an integer from 1"):
            recommender.recommend(some, k)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"price": pl.lit("dear")}, "'price' of events takes numbers, but row 1 holds 'dear'"),
        ({"timestamp": pl.lit("yesterday")}, "'timestamp' of events takes times, but row 1 holds 'yesterday'"),
        ({"timestamp": pl.lit(None)}, "'timestamp' of events: row 1 holds nothing"),
        (
            {"item_id": pl.when(pl.int_range(pl.len()) == 2).then(pl.lit("x1")).otherwise(pl.lit("101"))},
            "row 3 holds 'x1'",
        ),
        ({"item_id": pl.col("item_id") + 0.5}, r"takes Int64, but row 1 holds \d+\.5"),
        ({"item_id": pl.lit(None, pl.Int64)}, "'item_id' of events: row 1 holds nothing"),
        ({"made": pl.lit("soon")}, "'made' of events takes dates, but row 1 holds 'soon'"),
        ({"tags": pl.lit("a|b")}, "'tags' of events takes lists, got String: give Parquet or JSON lines"),
        ({"price": pl.lit(True)}, "'price' of events takes numbers, got Boolean"),
        ({"note": pl.lit(2.5)}, "'note' of events takes text, but row 1 holds 2.5"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_their_row(
    rich: tuple[Manifest, Path, pl.DataFrame], change: dict[str, pl.Expr], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        Recommender(rich[1], "cpu").histories(rich[2].with_columns(**change))


def test_the_row_named_is_that_of_the_file(rich: tuple[Manifest, Path, pl.DataFrame]) -> None:
    late_first = rich[2].sort("timestamp", descending=True).with_columns(price=pl.col("price").cast(pl.String))
    wrong = late_first.with_row_index().with_columns(
        price=pl.when(pl.col("index") == 1).then(pl.lit("dear")).otherwise(pl.col("price"))
    )
    with pytest.raises(InputError, match="row 2 holds 'dear'"):
        Recommender(rich[1], "cpu").histories(wrong)


def test_events_without_items_are_refused(rich: tuple[Manifest, Path, pl.DataFrame]) -> None:
    with pytest.raises(InputError, match="Events need the column item_id"):
        Recommender(rich[1], "cpu").histories(rich[2].drop("item_id"))
    with pytest.raises(InputError, match="no event"):
        run(rich[1], rich[2].clear(), 3, say=lambda line: None)


def test_types_are_those_of_the_model_and_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("item_id,department,price\n0101,01,\n0102,\\N,12.5\n")
    table = read_table(path, "--new-items")
    assert table.rows() == [("0101", "01", None), ("0102", None, "12.5")]
    assert as_type(table["price"], pl.Float64, "new items").to_list() == [None, 12.5]
    assert as_type(table["item_id"], pl.Int64, "new items").to_list() == [101, 102]
    moments = ["2026-03-08T10:00:00+02:00", "2026-03-08 08:00:00", "1772956800", "2026-03-08T08:00:00Z"]
    assert as_type(pl.Series(moments), TIME, "events").n_unique() == 1
    lines = tmp_path / "new.jsonl"
    lines.write_text('{"item_id": 101, "tags": ["a", 2], "new": true}\n{"item_id": 1e400}\n')
    assert read_table(lines, "--events").rows() == [("101", ["a", "2"], "true"), ("1e400", None, None)]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", "{", "line 1 is no JSON"),
        ("a.jsonl", "[1]\n", "line 1 is no object"),
        ("a.jsonl", '{"a": 1}\n{"a": [1]}', "'a' holds lists in some lines"),
        ("a.csv", "", "cannot be read as csv"),
        ("a.csv", "a,b\n1,2,3\n", "cannot be read as csv"),
        ("a.parquet", "a,b\n", "cannot be read as parquet"),
        ("a.xlsx", "", "give Parquet, CSV or JSON lines"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        read_table(tmp_path / name, "--events")


def test_one_value_is_hashed_as_a_column_of_them() -> None:
    for values in ([0, 1, -5, 2**62], ["", "a", "zäü", "lamp-0012", "x" * 300]):
        assert [hash_value(value) for value in values] == stable_hash(pl.Series(values)).to_list()  # type: ignore[arg-type]


def test_text_and_days_come_in_more_types_than_one() -> None:
    for dtype in (pl.Categorical(), pl.Enum(["i1", "i2"])):
        ids = as_type(pl.Series(["i1", None, "i2"], dtype=dtype), pl.String(), "events")
        assert ids.to_list() == ["i1", None, "i2"]
    day = as_type(pl.Series([date(2026, 3, 8)]), TIME, "events")
    assert day.equals(as_type(pl.Series(["2026-03-08"]), TIME, "events"))


def test_ids_and_counts_of_numpy_are_taken(rich: tuple[Manifest, Path, pl.DataFrame]) -> None:
    recommender = Recommender(rich[1], "cpu")
    plain = recommender.recommend(recommender.histories([[105, 103]])[0], 3)
    assert recommender.recommend(recommender.histories([np.array([105, 103])])[0], np.int64(3)) == plain
