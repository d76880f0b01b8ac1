"""Columns can be made of the file's columns before anything is checked: people who log in halfway are one person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing.source.canonical import as_found
from preprocessing.source.events import read_events, read_users
from schemas.errors import InputError
from tests.preprocessing.small import at, dataset_of, run, sessions_of

WHO = {"sql": "coalesce(user, pseudo)"}
COLUMNS: dict[str, Any] = {"user_id": WHO, "item_id": "item", "timestamp": "ts"}


def visits(folder: Path, ending: str) -> None:
    """Visits of five events; half of the people log in at the third."""
    rows = [
        {
            "user": f"m{person}" if person % 2 and place >= 2 else None,
            "pseudo": f"p{person}",
            "session": f"s{day}-{person}",
            "item": f"i{(person + place) % 4}",
            "ts": at(day, 9 + person, 3 * place).isoformat(),
        }
        for day in range(3)
        for person in range(6)
        for place in range(5)
    ]
    frame, place = pl.DataFrame(rows), folder / f"events.{ending}"
    match ending:
        case "parquet":
            frame.write_parquet(place)
        case "csv":
            frame.write_csv(place)
        case _:
            frame.write_ndjson(place)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_who_logs_in_halfway_keeps_the_session(tmp_path: Path, ending: str) -> None:
    visits(tmp_path, ending)
    columns = {**COLUMNS, "session_id": "session"}
    dataset = dataset_of(tmp_path, columns=columns, events={"path": f"events.{ending}"}, sessions={"rule": "gap"})
    manifest = run(tmp_path, dataset)
    assert manifest.facts["quarantined"] == {} and manifest.facts["rows_in"] == 90
    assert set(sessions_of(manifest)["user_id"]) == {*(f"p{n}" for n in range(6)), "m1", "m3", "m5"}
    by_pseudonym = {**columns, "user_id": {"sql": "coalesce(pseudo, user)"}}
    dataset = dataset_of(
        tmp_path, columns=by_pseudonym, events={"path": f"events.{ending}"}, sessions={"rule": "given"}
    )
    assert run(tmp_path, dataset).facts["lengths"]["p50"] == 5


def test_times_and_numbers_can_be_computed(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(
        "who,item,day,hour,cents\na,x,2024-05-01,10:00,1250\na,y,2024-05-01,11:30,free\n"
    )
    columns = {
        "user_id": "who",
        "item_id": {"sql": "item || '-' || who"},
        "timestamp": {"sql": "day || ' ' || hour"},
        "price": {"sql": "TRY_CAST(cents AS DOUBLE) / 100"},
        "cents": {"sql": "cents"},
    }
    dataset = dataset_of(tmp_path, columns=columns, events={"path": "events.csv", "types": {"cents": "integer"}})
    events = read_events(dataset).collect()
    assert events["timestamp"].dt.to_string("iso:strict").to_list() == [
        "2024-05-01T10:00:00.000000+00:00",
        "2024-05-01T11:30:00.000000+00:00",
    ]
    assert events.select("item_id", "price", "cents", as_found("cents")).rows() == [
        ("x-a", 12.5, 1250, "1250"),
        ("y-a", None, None, "free"),
    ]


def test_files_that_lack_a_column_have_null_there(tmp_path: Path) -> None:
    base = {"item": ["x"], "ts": [at(0)]}
    pl.DataFrame({**base, "pseudo": ["p"]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({**base, "user": ["m"], "pseudo": ["p"]}).write_parquet(tmp_path / "2.parquet")
    dataset = dataset_of(tmp_path, columns=COLUMNS, events={"path": "*.parquet"})
    assert sorted(read_events(dataset).collect()["user_id"]) == ["m", "p"]
    pl.DataFrame(base).write_parquet(tmp_path / "3.parquet")
    with pytest.raises(InputError, match=r"3\.parquet: column for 'user_id': Unknown column 'user'"):
        read_events(dataset)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("coalesce(user, pseudoo)", r"Unknown column 'pseudoo'. Did you mean 'pseudo'"),
        ("coalesce(user,", r"events\.columns\.user_id: .* is no SQL expression"),
        ("max(user)", r"events\.columns\.user_id: .* holds an aggregate"),
        ("'somebody'", r"events\.columns\.user_id: .* names no column"),
        ("user * pseudo", r"the expression for 'user_id' does not fit user \(String\), pseudo \(String\).*TRY_CAST"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, sql: str, message: str) -> None:
    visits(tmp_path, "parquet")
    with pytest.raises(InputError, match=message):
        read_events(dataset_of(tmp_path, columns={**COLUMNS, "user_id": {"sql": sql}}))


def test_mapping_takes_a_name_or_sql() -> None:
    with pytest.raises(ValueError, match=r"columns\.user_id"):
        dataset_of("somewhere", columns={**COLUMNS, "user_id": {"sqll": "user"}})


def test_tables_have_computed_columns_too(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("first,last,country\na,b,\nc,d,NL\n")
    columns = {"user_id": {"sql": "first || last"}, "country": {"sql": "coalesce(country, 'none')"}}
    users = read_users(dataset_of(tmp_path, users={"path": "users.csv", "columns": columns})).collect()
    assert sorted(users.rows()) == [("ab", "none"), ("cd", "NL")]
