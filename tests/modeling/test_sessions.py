"""Session files to flat arrays, their split, their labels, and how they are laid out in rows."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves

from modeling.batches import lay_out, read
from modeling.sessions import Past, Sessions, from_table, read_sessions
from modeling.splits import hide_last, label_cases, split_sessions, training_labels
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import read_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema, LabelColumn
from tests.conftest import schema_of, sessions_of

START = date(2026, 1, 1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Five days with forty sessions of three items each; a new item appears on the last day."""
    folder = tmp_path_factory.mktemp("shop")
    rows = [
        (
            f"u{number}",
            day * 100 + step if day == 4 and number == 0 else number % 7 + step,
            _time(day, number, step),
            step,
        )
        for day in range(5)
        for number in range(40)
        for step in range(3)
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "step"], orient="row")
    events.write_parquet(folder / "events.parquet")
    (folder / "shop.yaml").write_text(
        "name: shop\nevents: {path: events.parquet,\n"
        "  columns: {user_id: user_id, item_id: item_id, timestamp: timestamp, step: step}}\n"
        "steps: [dwell_time]\nfeatures: {hour: {column: timestamp, encode: hour}}\n"
        "labels: [step, {column: dwell, per: event}]\n"
    )
    dataset = read_dataset(str(folder / "shop.yaml")).at(folder)
    return prepare(Artifacts(folder / "root"), dataset, progress=lambda line: None)


def _time(day: int, number: int, step: int) -> datetime:
    return datetime.combine(START + timedelta(days=day), datetime.min.time(), UTC) + timedelta(
        minutes=number, seconds=4 * step
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
    from modeling.splits.folds import _split_histories

    split = _split_histories(sessions_of([[3, 4, 5, 6], [7, 8, 9]]), 10)
    assert split.train.lengths.tolist() == [2, 1]
    assert split.validation.target.tolist() == [5, 8]
    assert split.validation.history.lengths.tolist() == [2, 1]
    assert split.test.target.tolist() == [6, 9]
    assert split.test.history.lengths.tolist() == [3, 2]


LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(lengths=LENGTHS, row_length=st.integers(1, 40), packed=st.booleans(), ask=st.booleans())
def test_laying_out_loses_nothing_and_keeps_order(lengths: list[int], row_length: int, packed: bool, ask: bool) -> None:
    items = iter(range(3, 10_000))
    sessions = sessions_of([[next(items) for _ in range(length)] for length in lengths])
    places = lay_out(sessions, packed=packed, ask=ask, row_length=row_length)
    features, masked_BL = read(sessions, places, places.event_BL)
    inside_BL = places.segments_BL > 0
    assert sorted(places.event_BL[places.event_BL >= 0].tolist()) == list(range(sum(lengths))), "every event once"
    assert int(inside_BL.sum()) == sum(lengths) + len(lengths) * ask
    for number, length in enumerate(lengths):
        row, place = (places.segments_BL == number + 1).nonzero().unbind(1)
        size = length + ask
        assert row.unique().numel() == 1, "no session is split"
        assert place.tolist() == list(range(int(place[0]), int(place[0]) + size)), "nor interrupted"
        first = int(sessions.starts[number])
        assert places.event_BL[row, place].tolist() == [*range(first, first + length), *([-1] * ask)]
        assert places.session_BL[row, place].unique().tolist() == [number]
        assert places.positions_BL[row, place].tolist() == list(range(size))
        assert places.from_end_BL[row, place].tolist() == list(reversed(range(size)))
        assert places.is_end_BL[row, place].tolist() == [False] * (size - 1) + [True]
        assert int(places.end_S[number]) == int(row[-1]) * places.event_BL.shape[1] + int(place[-1])
        assert masked_BL[row, place].tolist() == [False] * length + [True] * ask
        assert features["item_id"][row, place].tolist() == [
            *sessions.items[first : first + length].tolist(),
            *([0] * ask),
        ]
    assert not masked_BL[~inside_BL].any() and not features["item_id"][~inside_BL].any()
    longest = max(lengths) + ask
    if packed:
        assert places.event_BL.shape[1] < max(row_length, longest) + longest
    else:
        assert places.event_BL.shape == (len(lengths), longest)
        assert places.segments_BL[:, 0].tolist() == list(range(1, len(lengths) + 1))


def test_what_is_read_need_not_be_what_belongs_there() -> None:
    """Context is known at every place of its session, also where the event is hidden; lists of values are whole."""
    sessions = replace(sessions_of([[3, 4], [5]]), context={"hour": torch.tensor([7, 8])})
    sessions.events["tags"] = torch.tensor([[1, 2], [3, 0], [4, 5]])
    places = lay_out(sessions, packed=False)
    batch, masked_BL = read(sessions, places, torch.tensor([[2, -1], [0, -1]]))
    assert batch["item_id"].tolist() == [[5, 0], [3, 0]]
    assert batch["tags"].tolist() == [[[4, 5], [0, 0]], [[1, 2], [0, 0]]]
    assert batch["hour"].tolist() == [[7, 7], [8, 0]]
    assert masked_BL.tolist() == [[False, True], [False, False]]


LABELS = (
    LabelColumn(name="bought", per="session", source="bought"),
    LabelColumn(name="dwell", per="event", source="dwell"),
)


def labelled(dwell: list[list[float | None]], bought: list[bool | None]) -> Sessions:
    """Sessions as they are read, from a table with labels."""
    table = pa.table(
        {
            "item_id": [[3 + place for place in range(len(values))] for values in dwell],
            "end": pa.nulls(len(dwell), pa.timestamp("us")),
            "dwell": dwell,
            "bought": pa.array(bought, pa.bool_()),
        }
    )
    schema = schema_of(10)
    return from_table(table, schema.model_copy(update={"columns": schema.columns[:1], "labels": LABELS}))


def test_labels_are_numbers_or_missing() -> None:
    sessions = labelled([[1.5, None], [2.0]], [True, None])
    assert sessions.event_labels["dwell"].tolist() == pytest.approx([1.5, float("nan"), 2.0], nan_ok=True)
    assert sessions.labels["bought"].tolist() == pytest.approx([1, float("nan")], nan_ok=True)
    chosen = sessions.select(torch.tensor([1]))
    assert chosen.labels["bought"].isnan().tolist() == [True]
    assert chosen.event_labels["dwell"][chosen.starts].tolist() == [2.0]


def test_labels_that_training_may_ask_about() -> None:
    """Of events, all but each session's first, which nothing comes before; of sessions, all that have one."""
    sessions = labelled([[9.0, 1.0, None], [8.0], [7.0, 2.0]], [True, False, None])
    assert training_labels(sessions, LABELS[1]).tolist() == [1, 2]
    assert training_labels(sessions, LABELS[0]).tolist() == [1, 0]


def test_cases_of_labels() -> None:
    """What comes after a history has the label: the hidden event, or the last before it that has one."""
    cases = hide_last(labelled([[9.0, 1.0, None], [8.0], [7.0, 2.0], [6.0, None]], [True, False, None, False]))
    histories, value_N = label_cases(cases, LABELS[1], back=True)
    assert value_N.tolist() == [1, 2]
    assert histories.starts.tolist() == [0, 4] and histories.lengths.tolist() == [1, 1]
    histories, value_N = label_cases(cases, LABELS[1], back=False)
    assert (histories.starts.tolist(), value_N.tolist()) == ([4], [2])
    histories, value_N = label_cases(cases, LABELS[0], back=True)
    assert value_N.tolist() == [1, 0], "a session of one event has no history, another no label"
    assert histories.lengths.tolist() == [2, 1]
    none, value_N = label_cases(hide_last(labelled([[1.0]], [None])), LABELS[1], back=True)
    assert (len(none), len(value_N)) == (0, 0)


def test_a_label_with_too_few_values_is_damage() -> None:
    table = pa.table({"item_id": [[3, 4]], "end": pa.nulls(1, pa.timestamp("us")), "dwell": [[1.0]]})
    schema = schema_of(10)
    with pytest.raises(InputError, match="dwell and item_id differ"):
        from_table(table, schema.model_copy(update={"columns": schema.columns[:1], "labels": LABELS[1:]}))


def test_labels_are_read_with_their_sessions(prepared: Manifest) -> None:
    """Four seconds on each event but the last, whose label nobody knows; of the session the last event's label."""
    schema = FeatureSchema.read(prepared.folder / "schema.json")
    split = split_sessions(prepared, schema, most_validation=100)
    dwell, first = (next(label for label in schema.labels if label.name == name) for name in ("dwell", "step"))
    assert training_labels(split.train, dwell).tolist() == [4] * len(split.train)
    assert training_labels(split.train, first).tolist() == [2] * len(split.train)
    histories, value_N = label_cases(split.test, dwell, back=True)
    assert histories.lengths.tolist() == [1] * 40 and value_N.tolist() == [4] * 40


def test_cases_move_whole() -> None:
    """Whatever fields there are, each array is on the new device."""
    sessions = sessions_of([[5, 6, 7], [8, 9]])
    sessions = replace(
        sessions,
        context={"device": torch.tensor([3, 4])},
        event_labels={"dwell": torch.rand(5)},
        labels={"bought": torch.tensor([0.0, 1.0])},
        past=Past(torch.arange(5), *torch.tensor([[0, 3], [3, 5], [0, 0], [0, 2]])),
        time="elapsed",
        asked=torch.tensor([5.0, 60.0], dtype=torch.float64),
    )
    cases = hide_last(sessions)
    leaves = tree_leaves(asdict(cases.to("meta")))
    assert None not in tree_leaves(asdict(cases)), "a field that this test leaves out may stay behind"
    assert {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)} == {"meta"}
    moved = cases.to("cpu")
    assert torch.equal(moved.target, cases.target) and torch.equal(moved.history.items, sessions.items)
