"""A user's past sessions are read before the current one: which, where they lie, and that nothing of them is predicted."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling import parts
from modeling.batches import Shape, is_past, lay_out
from modeling.config import ModelConfig, ObjectiveConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.scoring import ModelScorer
from modeling.seconds import BUCKETS
from modeling.sessions import GAP, IS_PAST, Past, Sessions, read_sessions
from modeling.sessions.past import SECOND, pasts
from modeling.splits import hide_last
from modeling.training.schedule import make_schedule
from schemas.columns import ITEM_ID
from schemas.errors import InputError
from schemas.features import FeatureColumn, FeatureSchema
from tests.conftest import schema_of, sessions_of

Visit = tuple[int, int, int, int]  # user, start, end, number of events
visits = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(0, 10), st.integers(1, 4)).map(
        lambda visit: (visit[0], visit[1], visit[1] + visit[2], visit[3])
    ),
    min_size=1,
    max_size=12,
)


def by_hand(sessions: list[Visit], count: int) -> list[tuple[list[int], int]]:
    """Of each session the events of its past, oldest first, and the time since the last past session ended."""
    begin = np.cumsum([0, *(length for *_, length in sessions)]).tolist()
    found = []
    for user, start, _, _ in sessions:
        ended = [
            (end, other_start, place)
            for place, (other, other_start, end, _) in enumerate(sessions)
            if other == user and end < start
        ]
        events = [event for _, _, place in sorted(ended) for event in range(begin[place], begin[place + 1])]
        found.append((events[-count:] if count else [], start - max(ended)[0] if ended else -1))
    return found


def of_visits(sessions: list[Visit], count: int) -> tuple[Past, list[int]]:
    past, gap = pasts(*(np.array(values, dtype=np.int64) for values in zip(*sessions, strict=True)), count)
    return past, gap.tolist()


@given(visits, st.integers(0, 6))
def test_only_sessions_that_ended_before_are_past(sessions: list[Visit], count: int) -> None:
    past, gaps = of_visits(sessions, count)
    session, event = past.index()
    found = [event[session == number].tolist() for number in range(len(sessions))]
    assert list(zip(found, gaps, strict=True)) == by_hand(sessions, count)
    assert sorted(past.events().tolist()) == sorted({one for events in found for one in events})


@given(visits, st.data())
def test_sessions_left_out_are_in_no_past(sessions: list[Visit], data: st.DataObject) -> None:
    """Nor is what came before them: the past stays one run."""
    past, _ = of_visits(sessions, 100)
    begin = np.cumsum([0, *(length for *_, length in sessions)]).tolist()
    out = data.draw(st.lists(st.integers(0, len(sessions) - 1), unique=True))
    hidden = {event for number in out for event in range(begin[number], begin[number + 1])}
    cut = past.since(past.select(torch.tensor(out, dtype=torch.long)))
    (session, event), (cut_session, cut_event) = past.index(), cut.index()
    for number in range(len(sessions)):
        events = event[session == number].tolist()
        after = max((place + 1 for place, one in enumerate(events) if one in hidden), default=0)
        assert cut_event[cut_session == number].tolist() == events[after:]


def users(lists: list[tuple[int, list[int]]], count: int = 100, hours: int = 2) -> Sessions:
    """Sessions of (user, items), each an hour long and `hours` after the one before."""
    sessions = sessions_of([items for _, items in lists])
    user = np.array([user for user, _ in lists])
    start = np.arange(len(lists)) * hours * 3_600 * SECOND
    end = start + 3_600 * SECOND
    past, gap = pasts(user, start, end, sessions.lengths.numpy(), count)
    gap_E = torch.zeros(len(sessions.items))
    gap_E[sessions.starts] = 1 + torch.from_numpy(gap).clamp(min=0).float() / SECOND
    return replace(sessions, events=sessions.events | {GAP: gap_E}, end=torch.from_numpy(end), past=past)


def model_of(count: int = 8, max_length: int = 6, **groups: object) -> SequenceModel:
    torch.manual_seed(3)
    given = {"body": {"name": "sasrec", "dim": 16, "dropout": 0.0}, "inputs": {"past_events": count}} | groups
    return SequenceModel(ModelConfig.model_validate(given), schema_of(50, max_length)).eval()


LISTS = [(0, [3, 4, 5]), (1, [6, 7]), (0, [8, 9]), (1, [10, 11, 12]), (0, [13, 14, 15, 16])]


@pytest.mark.parametrize("shape", [None, Shape(40, 9, flat=True), Shape(40, 9, flat=False)])
def test_past_events_lie_before_the_session_in_its_segment(shape: Shape | None) -> None:
    sessions = users(LISTS, count=4)
    layout = lay_out(sessions, packed=True, shape=shape)
    past_BL = is_past(sessions, layout)
    read = {}
    for number in range(len(LISTS)):
        of_session = layout.segments_BL == number + 1
        items = sessions.items[layout.event_BL[of_session]].tolist()
        read[number] = (items, past_BL[of_session].tolist(), layout.positions_BL[of_session].tolist())
    assert read[4] == ([4, 5, 8, 9, 13, 14, 15, 16], [True] * 4 + [False] * 4, list(range(8)))
    assert read[3] == ([6, 7, 10, 11, 12], [True] * 2 + [False] * 3, list(range(5)))
    assert read[0] == ([3, 4, 5], [False] * 3, [0, 1, 2])


@pytest.mark.parametrize("last_only", [False, True])
def test_causal_predicts_the_session_and_its_first_event(last_only: bool) -> None:
    model = model_of(objective={"name": "causal", "last_only": last_only})
    batch = model.training_batch(users(LISTS, count=4), torch.Generator().manual_seed(0))
    session_N = batch.layout.session_BL.flatten()[batch.asked_N]
    targets = [batch.target_N[session_N == number].tolist() for number in range(len(LISTS))]
    if last_only:
        assert targets == [[5], [7], [9], [12], [16]]
    else:
        assert targets == [[4, 5], [7], [8, 9], [10, 11, 12], [13, 14, 15, 16]]
    assert set(batch.features) >= {GAP, IS_PAST}


def test_the_past_may_predict_any_event_of_the_session() -> None:
    model, sessions = model_of(objective={"name": "causal", "first": "any"}), users(LISTS, count=4)
    drawn: dict[int, set[int]] = {2: set(), 4: set()}
    for seed in range(60):
        batch = model.training_batch(sessions, torch.Generator().manual_seed(seed))
        session_N = batch.layout.session_BL.flatten()[batch.asked_N]
        for number, items in drawn.items():
            first, *rest = batch.target_N[session_N == number].tolist()
            items.add(first)
            assert rest == LISTS[number][1][1:]
    assert drawn == {2: {8, 9}, 4: {13, 14, 15, 16}}


def test_what_a_past_predicts_is_not_chosen_where_none_is_read() -> None:
    with pytest.raises(InputError, match=r"objective.first any .*\(inputs.past_events 0\)"):
        model_of(count=0, objective={"name": "causal", "first": "any"})


def test_a_model_that_was_trained_before_that_was_refused_is_read_all_the_same(tmp_path: Path) -> None:
    model_of(count=0).save(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    about["model"]["objective"]["first"] = "any"
    (tmp_path / "config.json").write_text(json.dumps(about))
    assert SequenceModel.load(tmp_path).settings.objective.options["first"] == "any"


@pytest.mark.parametrize("name", ["masked", "permuted", "replaced_token"])
def test_no_objective_predicts_past_events(name: str) -> None:
    objective = parts.build("objective", ObjectiveConfig(name=name))
    sessions = users(LISTS * 4, count=4)
    for seed in range(20):
        lay = partial(lay_out, packed=True, direction=objective.direction)
        batch = objective.batch(sessions, lay, torch.Generator().manual_seed(seed))
        assert not (is_past(sessions, batch.layout).flatten()[batch.asked_N]).any()
        assert set(batch.layout.segments_BL.flatten()[batch.asked_N].tolist()) == set(range(1, 21))


def test_a_session_with_a_past_reads_as_that_past_and_nothing_else() -> None:
    """The states of a session are those of its own past and events, whoever shares the batch; of none else of its user."""
    model, sessions = model_of(), users(LISTS, count=4)
    model.reach(sessions)
    together = model.states(sessions)
    alone = torch.cat([model.states(sessions.select(torch.tensor([number]))) for number in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    changed = users([*LISTS[:4], (0, [20, 21, 22, 23])], count=4)
    assert torch.equal(model.states(changed)[:4], together[:4])
    other = users([(0, [3, 4, 30]), *LISTS[1:]], count=4)
    moved = (model.states(other) - together).abs().amax(1) > 1e-4
    assert moved.tolist() == [True, False, True, False, True]
    without = replace(sessions, past=None)
    assert not torch.allclose(model.states(without)[4], together[4], atol=1e-4)


def test_a_model_without_past_reads_none() -> None:
    model, sessions = model_of(count=0), users(LISTS)
    assert torch.equal(model.states(sessions), model.states(replace(sessions, past=None)))


def test_past_and_current_events_are_told_apart() -> None:
    """The same items read otherwise as two sessions than as one, and by the time between them."""
    model, sessions = model_of(), users([(0, [3, 4]), (0, [5, 6])])
    model.reach(users([(0, [3, 4, 5, 6, 7]), (0, [3, 4, 5, 6, 7])]))
    assert model.inputs.past is not None
    model.inputs.past.begins.read_as_K.copy_(torch.arange(BUCKETS))
    one = model.states(users([(0, [3, 4, 5, 6])]))[0]
    two, later = model.states(sessions)[1], model.states(users([(0, [3, 4]), (0, [5, 6])], hours=48))[1]
    assert not torch.allclose(one, two, atol=1e-4) and not torch.allclose(two, later, atol=1e-4)


def test_a_history_of_the_past_alone_can_be_asked_about() -> None:
    model, sessions = model_of(), users(LISTS, count=4)
    model.reach(sessions)
    empty = replace(sessions, lengths=sessions.lengths * 0).select(torch.tensor([2, 4]))
    queries = ModelScorer(model).queries(empty)
    assert queries.isfinite().all() and not torch.allclose(queries[0], queries[1])
    grown = sessions.select(torch.tensor([2, 4])).most_recent(1)
    assert not torch.allclose(ModelScorer(model).queries(grown), queries, atol=1e-4)


def test_no_more_is_read_than_in_training() -> None:
    """Neither of the session nor in all: the rest of the past is left out first."""
    model, train = model_of(count=3), users([(0, [3, 4, 5]), (0, [6, 7])], count=3)
    model.reach(train)
    assert (model.longest, model.longest_with_past) == (2, 4)
    long = users([(0, [8, 9, 10, 11]), (0, [12, 13, 14, 15, 16])], count=3)
    short = users([(0, [10, 11]), (0, [15, 16])], count=3)
    short.events[GAP][0] = 0  # of the longer session what is read does not begin it
    short.events[GAP][2] = 0
    model.inputs.items.reached.set(torch.arange(3, 17))
    assert torch.equal(model.states(long)[1], model.states(short)[1])


def test_items_that_training_never_read_are_left_out_of_the_past_too() -> None:
    model = model_of(inputs={"past_events": 8, "features": []})
    model.reach(users([(0, [3, 4, 5]), (0, [6, 7]), (0, [3, 8])]))
    assert not model.inputs.items.reached.reached_V[8], "the last event of a session that is nobody's past"
    read = model.inputs.readable(users([(0, [3, 40, 5]), (1, [7, 6]), (0, [41, 6, 42, 7])]))
    assert read.items[read.event_index()[1]].tolist() == [3, 5, 7, 6, 6, 7]
    assert read.past is not None
    session, event = read.past.index()
    assert session.tolist() == [2, 2] and read.items[event].tolist() == [3, 5]
    gaps = read.events[GAP][read.event_index()[1]].tolist()
    assert gaps[0] > 0 and gaps[1] == 0 and gaps[4] == 1 + 3 * 3_600, (
        "what began the session is left out, the gap stays"
    )


def test_events_are_left_out_one_by_one_with_the_past_kept() -> None:
    sessions = users(LISTS, count=4).select(torch.tensor([4, 3]))
    shorter = sessions.keep(sessions.event_index()[1] != sessions.starts[0] + 1)
    assert shorter.items[shorter.event_index()[1]].tolist() == [13, 15, 16, 10, 11, 12]
    assert shorter.past is not None
    session, event = shorter.past.index()
    assert session.tolist() == [0] * 4 + [1] * 2 and shorter.items[event].tolist() == [4, 5, 8, 9, 6, 7]


def test_every_step_makes_room_for_the_past() -> None:
    model, sessions = model_of(count=4), users(LISTS * 3, count=4)
    model.reach(sessions)
    schedule = make_schedule(model, sessions, TrainingConfig(epochs=1, tokens_per_step=20, threads=1))
    assert schedule.places_per_step >= max(int(batch.layout.inside_BL.sum()) for batch in schedule)
    loss = model.train()(schedule[0])
    loss.backward()
    assert model.inputs.past is not None and model.inputs.past.past_D.grad is not None
    assert bool(model.inputs.past.past_D.grad.any())


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    model, sessions = model_of(), users(LISTS, count=4)
    model.reach(sessions)
    model.save(tmp_path)
    again = SequenceModel.load(tmp_path)
    assert (again.longest, again.longest_with_past) == (model.longest, model.longest_with_past) == (3, 7)
    assert torch.equal(again.states(sessions), model.states(sessions))


SCHEMA = FeatureSchema(
    dataset="test", max_length=9, split="day",
    columns=(
        FeatureColumn(name=ITEM_ID, kind="categorical", source=ITEM_ID, dtype="int32", cardinality=60,
            vocabulary="vocabularies/item_id.parquet",
        ),
    ),
)  # fmt: skip
ROWS = [  # day, bucket, user, start and end in hours, items
    (1, 0, "a", 1, 2, [3, 4]), (1, 1, "b", 1, 3, [5, 6]),
    (2, 0, "a", 25, 26, [7, 8]), (2, 0, "a", 30, 31, [9, 10]), (2, 1, "b", 40, 41, [11, 12]),
    (3, 0, "a", 50, 52, [13, 14]), (3, 0, "a", 51, 53, [15, 16]), (3, 0, "a", 60, 61, [17, 18]), (3, 1, "b", 49, 50, [19, 20]),
]  # fmt: skip


def written(folder: Path, *, timed: bool = True) -> Path:
    for day in (1, 2, 3):
        for bucket in (0, 1):
            rows = [row for row in ROWS if row[:2] == (day, bucket)]
            moments = {
                name: pl.Series(
                    name, [row[place] * 3_600 * SECOND if timed else None for row in rows], dtype=pl.Int64
                ).cast(pl.Datetime("us"))
                for name, place in (("start", 3), ("end", 4))
            }
            table = pl.DataFrame({"user_id": [row[2] for row in rows], **moments}).to_arrow()
            table = table.append_column(ITEM_ID, pa.array([row[5] for row in rows], pa.list_(pa.int32())))
            where = folder / f"day=2026-01-0{day}"
            where.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, where / f"{bucket}.parquet")
    return folder


def past_items(sessions: Sessions) -> dict[int, list[int]]:
    """By first item of each session, the items of its past."""
    assert sessions.past is not None
    session, event = sessions.past.index()
    first = sessions.items[sessions.starts].tolist()
    return {item: sessions.items[event[session == row]].tolist() for row, item in enumerate(first)}


def test_sessions_of_earlier_days_and_of_earlier_that_day_are_past(tmp_path: Path) -> None:
    folder = written(tmp_path)
    test = read_sessions(folder, SCHEMA, lambda day: day == "2026-01-03", past=5)
    assert past_items(test) == {
        13: [4, 7, 8, 9, 10],
        15: [4, 7, 8, 9, 10],  # the session that began an hour before has not ended
        17: [10, 13, 14, 15, 16],
        19: [5, 6, 11, 12],
    }
    gaps = test.events[GAP][test.starts] - 1
    assert (gaps / 3_600).tolist() == [8, 19, 20, 7], "in order of their ends"
    train = read_sessions(folder, SCHEMA, lambda day: day < "2026-01-03", past=5)
    assert past_items(train) == {3: [], 5: [], 7: [3, 4], 9: [3, 4, 7, 8], 11: [5, 6]}
    plain = read_sessions(folder, SCHEMA, lambda day: day == "2026-01-03")
    assert plain.past is None and GAP not in plain.events
    assert torch.equal(plain.items[plain.event_index()[1]], test.items[test.event_index()[1]])
    assert torch.equal(plain.starts.argsort(), test.starts.argsort()), "cases are numbered by where they lie"


def test_hiding_the_last_event_leaves_the_past(tmp_path: Path) -> None:
    test = read_sessions(written(tmp_path), SCHEMA, lambda day: day == "2026-01-03", past=5)
    cases = hide_last(test)
    assert past_items(cases.history) == past_items(test)
    assert cases.history.places.tolist() == [5, 6, 6, 6]


def test_whole_histories_and_sessions_without_times_have_no_past(tmp_path: Path) -> None:
    folder = written(tmp_path)
    with pytest.raises(InputError, match="past_events: the sessions of 'test' are whole histories"):
        read_sessions(folder, SCHEMA.model_copy(update={"split": "leave_one_out"}), past=5)
    with pytest.raises(InputError, match="have no times"):
        read_sessions(written(tmp_path / "undated", timed=False), SCHEMA, past=5)
    for file in folder.glob("*/*.parquet"):
        pq.write_table(pq.ParquetFile(file).read().drop_columns(["user_id"]), file)
    with pytest.raises(InputError, match="these sessions have no user_id"):
        read_sessions(folder, SCHEMA, past=5)
