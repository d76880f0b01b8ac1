"""Session files to flat arrays, their split, and packing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.data import pack, read_sessions, split_sessions
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import read_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema
from tests.conftest import sessions_of

START = date(2026, 1, 1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Five days with forty sessions of three items each; a new item appears on the last day."""
    folder = tmp_path_factory.mktemp("shop")
    rows = [
        (f"u{number}", day * 100 + step if day == 4 and number == 0 else number % 7 + step, _time(day, number, step))
        for day in range(5)
        for number in range(40)
        for step in range(3)
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_parquet(folder / "events.parquet")
    (folder / "shop.yaml").write_text(
        "name: shop\nevents: {path: events.parquet, columns: {user_id: user_id, item_id: item_id, timestamp: timestamp}}\n"
        "features: {hour: {column: timestamp, encode: hour}}\n"
    )
    dataset = read_dataset(str(folder / "shop.yaml")).at(folder)
    return prepare(Artifacts(folder / "root"), dataset, progress=lambda line: None)


def _time(day: int, number: int, step: int) -> datetime:
    return datetime.combine(START + timedelta(days=day), datetime.min.time(), UTC) + timedelta(
        minutes=number, seconds=step
    )


def test_the_last_day_is_the_test_and_part_of_the_day_before_validates(prepared: Manifest) -> None:
    schema = FeatureSchema.read(prepared.folder / "schema.json")
    split = split_sessions(prepared, schema, most_validation=100)
    assert prepared.facts["test_day"] == "2026-01-05"
    assert (len(split.train), len(split.validation.target), len(split.test.target)) == (156, 4, 40)
    assert len(split.last_day) == 36
    newest_training = int(split.train.end.max()) / 1e6
    assert newest_training < datetime(2026, 1, 5, tzinfo=UTC).timestamp() <= int(split.test.history.end.min()) / 1e6
    assert len(split.test.known().target) == 39, "the new item's session has no known target"
    assert (split.train.end.diff() >= 0).all(), "training sessions are in order of time"


def test_few_or_no_sessions_of_a_day(prepared: Manifest) -> None:
    schema = FeatureSchema.read(prepared.folder / "schema.json")
    assert len(split_sessions(prepared, schema, most_validation=2).validation.target) == 2
    with pytest.raises(InputError, match="No session files"):
        read_sessions(prepared.folder / "sessions", schema, lambda day: day > "2027")


def test_histories_hold_out_their_last_two_items() -> None:
    from modeling.data import _split_histories

    split = _split_histories(sessions_of([[3, 4, 5, 6], [7, 8, 9]]), 10)
    assert split.train.lengths.tolist() == [2, 1]
    assert split.validation.target.tolist() == [5, 8]
    assert split.validation.history.lengths.tolist() == [2, 1]
    assert split.test.target.tolist() == [6, 9]
    assert split.test.history.lengths.tolist() == [3, 2]


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=30),
    row_length=st.integers(1, 40),
    from_end=st.booleans(),
)
def test_packing_loses_nothing_and_keeps_order(lengths: list[int], row_length: int, from_end: bool) -> None:
    items = iter(range(3, 10_000))
    sessions = sessions_of([[next(items) for _ in range(length)] for length in lengths])
    event_BL, batch = pack(sessions, row_length, from_end)
    real = event_BL >= 0
    assert batch["item_id"][real].tolist() == sessions.items.tolist()
    session, _ = sessions.event_index()
    assert batch["segments"][real].tolist() == (session + 1).tolist()
    counted = [list(range(length)) for length in lengths]
    expected = [place for places in counted for place in (reversed(places) if from_end else places)]
    assert batch["positions"][real].tolist() == expected
    assert event_BL.shape[1] <= row_length - 1 + max(lengths)
    rows = torch.arange(len(event_BL))[:, None].expand_as(event_BL)[real]
    assert all(len(set(rows[session == number].tolist())) == 1 for number in range(len(lengths))), "no session is split"
