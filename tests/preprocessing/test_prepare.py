"""The whole room: sessions, item table, schema, facts, and every row accounted for."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.history.window import last_full_day
from preprocessing.output import snapshot as views
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts
from schemas.dataset import read_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema
from tests.preprocessing.small import NOW, at, dataset_of, decoded, run, sessions_of, three_days, write
from tests.slow import examples


def test_sessions_of_three_days(tmp_path: Path) -> None:
    write(tmp_path, three_days())
    manifest = run(tmp_path)
    sessions = sessions_of(manifest)
    assert decoded(manifest) == [["x", "y"], ["y", "x", "z"]] * 3
    assert sessions["day"].to_list() == ["2024-01-01"] * 2 + ["2024-01-02"] * 2 + ["2024-01-03"] * 2
    assert sessions.row(1, named=True) == {
        "session_id": 19_723 * 10**9 + 2,  # the second of that day since 1970
        "user_id": "b",
        "start": at(0, 13),
        "end": at(0, 13, 2),
        "length": 3,
        "item_id": [4, 3, 5],
        "day": "2024-01-01",
    }
    assert sessions.schema["item_id"] == pl.List(pl.Int32)
    facts = manifest.facts
    assert (facts["rows_in"], facts["sessions"], facts["events"], facts["items"]) == (15, 6, 15, 3)
    assert (facts["first_day"], facts["test_day"]) == ("2024-01-01", "2024-01-03")
    assert (facts["train_sessions"], facts["test_sessions"]) == (4, 2)
    assert facts["days"] == {"2024-01-01": 2, "2024-01-02": 2, "2024-01-03": 2}


def test_items_and_schema_tell_what_training_rows_hold(tmp_path: Path) -> None:
    rows = [(*row, 2.0 if row[1] == "x" else 4.0 + row[2].day) for row in three_days()]
    rows += [("a", "z", at(1, 18), 9.0), ("a", "y", at(1, 18, 1), 8.0)]
    write(tmp_path, [*rows, ("a", "new", at(2, 12, 6), 1.0)], ("user_id", "item_id", "timestamp", "price"))
    items = pl.DataFrame({"item_id": ["x", "y"], "brand": ["acme", "bolt"], "price": [1.0, 1.0]})
    items.write_parquet(tmp_path / "items.parquet")
    dataset = dataset_of(
        tmp_path,
        columns=("price",),
        items={"columns": {name: name for name in items.columns}},
        steps=[{"join_items": {"columns": ["brand"]}}],
        features={
            "brand": "category",
            "price": {"encode": ["standardize"]},
            "hour": {"column": "timestamp", "encode": "hour"},
        },
    )
    manifest = run(tmp_path, dataset)
    schema = FeatureSchema.read(manifest.folder / "schema.json")
    assert [(column.name, column.kind, column.cardinality, column.per_item) for column in schema.columns] == [
        ("item_id", "categorical", 6, True),
        ("brand", "categorical", 5, True),
        ("price", "continuous", None, False),
        ("hour", "categorical", 27, False),
    ]
    items = pl.read_parquet(manifest.folder / "items.parquet")
    # As on the last training day, and scaled as that day was: by what the first day taught.
    first_day = pl.Series([2.0, 2.0, 5.0, 5.0, 5.0])
    scaled = [(price - first_day.mean()) / first_day.std() for price in (2, 8, 9)]
    assert items["price"].to_list() == pytest.approx(scaled)
    assert items.drop("price").rows() == [
        (3, "x", 4, at(1, 13, 1), 3, 16),
        (4, "y", 5, at(1, 18, 1), 4, 21),
        (5, "z", 3, at(1, 18), 1, 21),
    ]
    assert items["id"].to_list() == pl.read_parquet(manifest.folder / schema.items.vocabulary)["id"].to_list()
    # What the test day brings up itself is beyond the vocabulary: unknown to a model of the days before.
    assert [6 in session for session in sessions_of(manifest)["item_id"].to_list()] == [False] * 5 + [True, False]
    described = json.loads((manifest.folder / "encoders.json").read_text())
    assert [entry["name"] for entry in described["price"]["encoders"]] == ["standardize"]


def test_histories_too_short_to_learn_from_are_named_as_such(tmp_path: Path) -> None:
    """Lower min_count was all that it said, where it was 1 already."""
    users = [f"u{number}" for number in range(6)]
    moments = [at(0, 12, minute) for minute in range(6)]
    pl.DataFrame({"user_id": users, "item_id": ["a", "b"] * 3, "timestamp": moments}).write_parquet(
        tmp_path / "events.parquet"
    )
    dataset = dataset_of(tmp_path, sessions={"rule": "history", "min_length": 1}, split="leave_one_out")
    with pytest.raises(InputError, match="Of a history the last two events are held out"):
        run(tmp_path, dataset)


def test_leave_one_out_learns_from_all_but_the_last(tmp_path: Path) -> None:
    columns = ("user_id", "item_id", "position")
    write(tmp_path, [("a", "x", 0), ("a", "y", 1), ("a", "z", 2), ("b", "y", 0), ("b", "x", 1), ("b", "w", 2)], columns)
    dataset = dataset_of(
        tmp_path, columns={name: name for name in columns}, sessions={"rule": "history"}, split="leave_one_out"
    )
    manifest = run(tmp_path, dataset)
    assert decoded(manifest) == [["x", "y", None], ["y", "x", None]]
    sessions = sessions_of(manifest)
    assert sessions["day"].unique().to_list() == ["undated"]
    assert sessions.schema["end"] == pl.Datetime("us", "UTC") and sessions["end"].null_count() == 2
    assert pl.read_parquet(manifest.folder / "items.parquet")["last_seen"].null_count() == 2
    assert manifest.facts["test_day"] is None and manifest.facts["test_sessions"] == 2


def test_only_closed_sessions_of_the_window_are_used(tmp_path: Path) -> None:
    late = [("a", "x", at(2, 23, 40)), ("a", "y", at(2, 23, 50)), ("c", "x", at(2, 23, 50)), ("c", "y", at(3, 0, 5))]
    write(tmp_path, [*three_days(), *late])
    manifest = run(tmp_path, until=date(2024, 1, 3), days=2)
    assert list(manifest.facts["days"].items()) == [("2024-01-02", 2), ("2024-01-03", 2)]
    facts = manifest.facts
    assert (facts["rows_in"], facts["outside_window"], facts["still_open"]) == (13, 6, 3)
    later = run(tmp_path, until=date(2024, 1, 4)).facts
    assert (later["test_sessions"], later["rows_in"], later["still_open"]) == (2, 19, 0)


def test_a_cut_off_future_changes_nothing(tmp_path: Path) -> None:
    """Preparing on the evening of a day gives what preparing later up to that day gives."""
    open_at_midnight = [("a", "x", at(2, 23, 20)), ("a", "y", at(2, 23, 25)), ("a", "y", at(2, 23, 50))]
    later = [("a", "z", at(3, 0, 10)), ("b", "y", at(3))]
    dataset = dataset_of(tmp_path, steps=["drop_repeats"])
    outcomes = []
    for rows in (three_days() + open_at_midnight, three_days() + open_at_midnight + later):
        write(tmp_path, rows)
        outcomes.append(sessions_of(run(tmp_path, dataset, until=date(2024, 1, 3))).rows())
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) == 6  # the open one, whose last event is a repeat, is not there


def test_given_sessions_belong_to_the_day_in_which_they_have_been_idle_for_long(tmp_path: Path) -> None:
    rows = [(*row, f"s{row[0]}{row[2].day}") for row in three_days()]
    over = [("c", "xyz"[n], at(1, 23, 58) + timedelta(minutes=n), "late") for n in range(3)]
    again = [("c", "x", at(2, 13), "late"), ("c", "y", at(2, 13, 1), "late")]
    write(tmp_path, rows + over + again, ("user_id", "item_id", "timestamp", "session_id"))
    dataset = dataset_of(tmp_path, columns=("session_id",), sessions={"rule": "given", "idle_minutes": 60})
    manifest = run(tmp_path, dataset)
    assert manifest.facts["days"] == {"2024-01-01": 2, "2024-01-02": 2, "2024-01-03": 4}
    # The same id after half a day of silence is another session.
    assert sessions_of(manifest).filter(session_id="late")["length"].to_list() == [3, 2]
    earlier = run(tmp_path, dataset, until=date(2024, 1, 2))
    assert "late" not in sessions_of(earlier)["session_id"].to_list()
    assert earlier.facts["still_open"] == 2


def test_the_last_full_day() -> None:
    day = date(2024, 1, 1)
    busy = {day + timedelta(days=n): 1000 - 400 * (n % 7 > 4) for n in range(14)}
    tail = {day + timedelta(days=n): 3 for n in range(14, 40)}
    assert last_full_day(busy, date(2024, 3, 1)) == date(2024, 1, 14)
    assert last_full_day(busy | tail, date(2024, 3, 1)) == date(2024, 1, 14)
    assert last_full_day(busy | {date(2024, 1, 15): 100}, date(2024, 3, 1)) == date(2024, 1, 14)
    assert last_full_day(busy, date(2024, 1, 14)) == date(2024, 1, 13)
    with pytest.raises(InputError, match="when it is over"):
        last_full_day(busy, day)


def test_found_complete_is_not_made_again(tmp_path: Path) -> None:
    write(tmp_path, three_days())
    first = run(tmp_path)
    again = run(tmp_path, dataset_of(tmp_path, title="Another title"))
    assert not first.reused and again.reused and again.id == first.id
    assert run(tmp_path, dataset_of(tmp_path, time_zone="Asia/Tokyo")).id != first.id
    assert run(tmp_path, days=2).id != first.id
    write(tmp_path, three_days()[:-1])
    assert run(tmp_path).id == first.id  # a source that shrinks undoes nothing
    write(tmp_path, [*three_days(), ("b", "x", at(2, 13, 3))])
    assert run(tmp_path).facts["events"] == 16


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, three_days())

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(views, "feature_schema", fail)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert list((tmp_path / "artifacts" / "sessions").iterdir()) == []
    assert len(list((tmp_path / "artifacts" / "days").iterdir())) == 3  # days that are done stay done
    assert not run(tmp_path).reused


def refused(tmp_path: Path, rows: list[tuple[Any, ...]], dataset: Any = None, **options: Any) -> str:
    columns = ("user_id", "item_id", "timestamp", "price")
    write(tmp_path, [(*row, None) for row in rows], columns)
    with pytest.raises(InputError) as error:
        run(tmp_path, dataset, **options)
    assert not list((tmp_path / "artifacts").glob("sessions/*"))
    return str(error.value)


def test_bad_input_is_explained(tmp_path: Path) -> None:
    rows = three_days()
    assert "from 2024-01-01 to 2024-01-03" in refused(tmp_path, rows, until=date(2024, 2, 1))
    assert "at least 2" in refused(tmp_path, rows, days=1)
    assert "nothing to train on" in refused(tmp_path, rows[:5])
    assert "nothing to train on" in refused(tmp_path, rows, until=date(2024, 1, 1))
    assert "holds no events" in refused(tmp_path, [])
    assert "No session ends on the test day 2024-01-03" in refused(
        tmp_path, [*rows[:10], ("c", "x", at(2))], until=date(2024, 1, 3)
    )
    long = dataset_of(tmp_path, sessions={"min_length": 4})
    assert "of 15 rows: short_sessions 15" in refused(tmp_path, rows, long)
    (tmp_path / "nobody").mkdir()
    nobody = [(None, item, time) for _, item, time in rows]
    assert "user_id_null 15" in refused(tmp_path / "nobody", nobody)
    priced = dataset_of(tmp_path, columns=("price",), features={"price": {"encode": "category"}})
    assert "'price' is empty" in refused(tmp_path, rows, priced)
    rare = dataset_of(tmp_path, features={"item_id": {"encode": "category", "min_count": 99}})
    assert "lower min_count" in refused(tmp_path, rows, rare)
    (tmp_path / "new").mkdir()
    assert "time_unit" in refused(tmp_path / "new", [("a", "x", NOW + timedelta(days=9))])


def test_a_file_damaged_further_down_is_named(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\na,x,2024-01-01\na,x,2024-01-02,odd,fields\n")
    with pytest.raises(InputError, match=r"line 3: .*5 fields"):
        run(tmp_path, dataset_of(tmp_path, events={"path": "events.csv"}))


def test_undated_events_have_no_days(tmp_path: Path) -> None:
    columns = {name: name for name in ("user_id", "item_id", "position")}
    write(tmp_path, [("a", "x", 1)], tuple(columns))
    dataset = dataset_of(tmp_path, columns=columns, sessions={"rule": "history"}, split="leave_one_out")
    with pytest.raises(InputError, match="maps no timestamp"):
        run(tmp_path, dataset, days=3)


TIMES = st.integers(0, 60 * 72).map(lambda minute: at(0, 0) + timedelta(minutes=minute))
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", None]),
        st.sampled_from(["x", "y", "z", "w", None]),
        st.one_of(st.none(), TIMES, st.just(NOW + timedelta(1))),
        st.sampled_from(["view", "cart", "error"]),
        st.sampled_from([1.0, 2.0]),
    ),
    max_size=40,
)


@examples(40)
@given(
    EVENTS,
    st.randoms(use_true_random=False),
    st.sampled_from(["gap", "history"]),
    st.sampled_from(["UTC", "America/Sao_Paulo"]),
)
def test_rows_are_accounted_for_in_any_order(rows: list[Any], order: random.Random, rule: str, zone: str) -> None:
    rows = [(*event, "view", 1.0) for event in three_days()] + rows
    with tempfile.TemporaryDirectory() as folder:
        dataset = dataset_of(
            folder,
            columns=("event_type", "price"),
            steps=[{"filter_event_types": {"keep": ["view", "cart"]}}, "drop_repeats"],
            sessions={"rule": rule, "max_length": 3},
            features={"price": {"encode": ["log1p", "standardize"]}},
            split="day" if rule == "gap" else "leave_one_out",
            time_zone=zone,
        )
        outcomes = []
        for _ in range(2):
            write(Path(folder), rows, ("user_id", "item_id", "timestamp", "event_type", "price"))
            manifest = run(Path(folder), dataset, until=date(2024, 1, 3))
            facts = manifest.facts
            gone = sum(facts["quarantined"].values()) + sum(facts["dropped"].values()) + facts["still_open"]
            assert facts["rows_in"] + facts["outside_window"] == len(rows)
            assert facts["rows_in"] == facts["events"] + gone
            assert facts["events"] == sessions_of(manifest)["item_id"].list.len().sum()
            outcomes.append((sessions_of(manifest).rows(), decoded(manifest)))
            order.shuffle(rows)
        assert outcomes[0] == outcomes[1]


def test_globo(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    manifest = prepare(Artifacts(tmp_path), read_dataset("globo").at(real_data("globo")))
    facts = manifest.facts
    assert facts["rows_in"] + facts["outside_window"] == 2_988_181
    assert facts["test_day"] == "2017-10-16"
    # No item is repeated within a session; what two hours of silence leave of one may be a single click.
    assert facts["dropped"]["drop_repeats"] == facts["dropped"]["duplicates"] == 0 < facts["dropped"]["short_sessions"]
    assert facts["rows_in"] == facts["events"] + sum(facts["dropped"].values()) + facts["still_open"]
    assert (facts["sessions"], facts["test_sessions"], facts["items"]) == (1_045_283, 68_058, 19_214)
    assert decoded_item_ages_are_sane(manifest.folder)


def decoded_item_ages_are_sane(folder: Path) -> bool:
    """Item ages are standardised: over all training sessions about mean 0 and deviation 1."""
    ages = pl.scan_parquet(folder / "sessions" / "day=2017-10-1[0-5]" / "*.parquet", hive_partitioning=False)
    flat = ages.select(pl.col("item_age").explode()).collect()["item_age"]
    return abs(float(flat.mean())) < 0.5 and 0.5 < float(flat.std()) < 1.5  # type: ignore[arg-type]


def test_beauty(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    manifest = prepare(Artifacts(tmp_path), read_dataset("beauty").at(real_data("s3rec_beauty")))
    facts = manifest.facts
    assert (facts["rows_in"], facts["sessions"], facts["users_of_last_day"]) == (198_502, 22_363, 22_363)
    assert facts["dropped"] == {"duplicates": 0, "short_sessions": 0, "cut_to_max_length": 3_815}
    assert facts["items"] == 12_092  # of 12,101: nine are nobody's but as a last item


def test_ids_of_an_nvtabular_vocabulary_are_kept(tmp_path: Path) -> None:
    """The layout of categories/unique.item_id.parquet: the index is the id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = {"kind": "range", "name": None, "start": 3, "stop": 5, "step": 1}
    table = pa.table({"item_id": ["z", "old"], "item_id_size": [90, 80]})
    table = table.replace_schema_metadata({"pandas": json.dumps({"index_columns": [index]})})
    pq.write_table(table, tmp_path / "unique.item_id.parquet")
    write(tmp_path, three_days())
    dataset = dataset_of(tmp_path, features={"item_id": {"encode": "category", "start_from": "unique.item_id.parquet"}})
    items = pl.read_parquet(run(tmp_path, dataset).folder / "items.parquet")
    assert dict(items.select("id", "value").rows()) == {3: "z", 4: "old", 5: "x", 6: "y"}


def test_another_key_does_all_days_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, three_days())
    dataset = dataset_of(tmp_path, steps=[{"anonymise": {"columns": ["user_id"]}}])
    users = []
    for key in ("k" * 32, "k" * 32, "l" * 32):
        monkeypatch.setenv("OVERNIGHT_ANONYMISE_KEY", key)
        users.append(set(sessions_of(run(tmp_path, dataset))["user_id"]))
    assert users[0] == users[1]
    assert not users[0] & users[2]
