"""In service a user's past sessions come from prepared sessions, and lists are those that evaluation judges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest
import torch

from flows.recommend import recommend_all
from modeling.config import EvaluationConfig, ModelConfig, TrainingConfig
from modeling.evaluation.rank_table import read_ranks
from modeling.evaluation.ranking import ranks
from modeling.service.pasts import UserPasts, microseconds
from modeling.service.recommender import Recommender
from modeling.sessions import GAP, Sessions
from modeling.splits import Cases, split_sessions
from modeling.stages import evaluate, train
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import ITEM_ID
from schemas.dataset import read_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema

PAST = 12
SETTINGS = {"body": {"dim": 16, "num_layers": 1}, "inputs": {"past_events": PAST}}
TRAINING = TrainingConfig(epochs=1, tokens_per_step=256, threads=1, validation_sessions=20)
Night = tuple[Artifacts, list[Manifest], Manifest]


def quiet(line: object) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """Two nights of one shop, and a model of the first."""
    folder = tmp_path_factory.mktemp("past")
    artifacts, prepared = Artifacts(folder / "root"), []
    for days in (4, 5):
        simulate(Shop(days=days, users=200, seed=2), folder / "shop")
        prepared.append(prepare(artifacts, read_dataset("demo").at(folder / "shop"), progress=quiet))
    model = train(artifacts, prepared[0], ModelConfig.model_validate(SETTINGS), TRAINING, quiet)
    return artifacts, prepared, model


def test_cases_of(prepared: Manifest, past: int = PAST) -> Cases:
    schema = FeatureSchema.read(prepared.folder / "schema.json")
    return split_sessions(prepared, schema, TRAINING.validation_sessions, past=past).test.known()


test_cases_of.__test__ = False  # type: ignore[attr-defined]


def rows_of(prepared: Manifest, cases: Cases) -> pl.DataFrame:
    """The session files of the test day, in the order of the cases."""
    table = pl.read_parquet(prepared.folder / "sessions" / f"day={prepared.facts['test_day']}" / "*.parquet")
    table = table.with_columns(pl.col("end").dt.epoch("us"))
    assert table["end"].is_unique().all()
    return pl.DataFrame({"end": cases.history.end.numpy()}).join(table, on="end", how="left", maintain_order="left")


def test_users_come_back_and_the_model_leans_on_it(night: Night) -> None:
    _, prepared, model = night
    cases, recommender = test_cases_of(prepared[0]), Recommender(model.folder)
    assert cases.history.past is not None
    assert int((cases.history.past.lengths > 0).sum()) > len(cases.target) / 2
    alone = recommender.ranked(Sessions(**{**vars(cases.history), "past": None}), 5)[0]
    assert not torch.equal(recommender.ranked(cases.history, 5)[0], alone)


def test_lists_of_evaluation_are_those_of_service(night: Night) -> None:
    """Prepared sessions without their last event, asked about by user and start, as a service would."""
    _, prepared, model = night
    cases = test_cases_of(prepared[0])
    rows = rows_of(prepared[0], cases)
    recommender = Recommender(model.folder, past=prepared[0].folder)
    plain = test_cases_of(prepared[0], past=0).history
    plain = plain.select((plain.end[:, None] == cases.history.end).long().argmax(0))  # the same order
    served = recommender.with_past(plain, rows["user_id"], microseconds(rows["start"]))
    assert torch.equal(served.places, cases.history.places)
    for mine, theirs in zip(recommender.ranked(served, 10), recommender.ranked(cases.history, 10), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_raw_items_and_raw_events_of_a_user(night: Night) -> None:
    _, prepared, model = night
    recommender = Recommender(model.folder, past=prepared[0].folder)
    cases = test_cases_of(prepared[0])
    row = int(cases.history.past.lengths.argmax())  # type: ignore[union-attr]
    session = rows_of(prepared[0], cases).row(row, named=True)
    (case,) = (cases.history.select(torch.tensor([row])),)
    raw = recommender.raw_items(case.items[case.event_index()[1]].long())
    at = session["start"]
    by_ids, _ = recommender.histories([raw, []], users=[session["user_id"]] * 2, at=at)
    assert by_ids.past is not None and by_ids.past.lengths.tolist() == [int(case.places - case.lengths)] * 2
    zoned = at.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=5)))
    assert (
        recommender.histories([raw], [session["user_id"]], zoned)[0].past.lengths.tolist()
        == by_ids.past.lengths[:1].tolist()
    )  # type: ignore[union-attr]
    first, second = recommender.recommend(by_ids, 5)
    assert len(first) == len(second) == 5
    times = [at + timedelta(seconds=place) for place in range(len(raw))]
    events = pl.DataFrame({"user_id": session["user_id"], "item_id": raw, "timestamp": times})
    by_events, _, _ = recommender.sessions_of_events(events)
    own, past = by_events.past, case.past
    assert own is not None and past is not None
    for name in (ITEM_ID, GAP, "price"):
        torch.testing.assert_close(by_events.events[name][own.index()[1]], case.events[name][past.index()[1]])
    assert by_events.events[GAP][by_events.starts] == case.events[GAP][case.starts]
    unknown = recommender.histories([raw], users=["nobody"])[0]
    assert unknown.places.tolist() == [len(raw)]
    with pytest.raises(InputError, match="at least one item"):
        recommender.recommend(recommender.histories([[]], users=["nobody"])[0])


def test_prepared_sessions_in_bulk_are_read_with_their_past(night: Night, tmp_path: Path) -> None:
    _, prepared, model = night
    day = prepared[0].folder / "sessions" / f"day={prepared[0].facts['test_day']}"
    recommend_all(model.folder, day, tmp_path / "out", 5, say=quiet)
    schema = FeatureSchema.read(prepared[0].folder / "schema.json")
    from modeling.sessions import read_sessions

    sessions = read_sessions(prepared[0].folder / "sessions", schema, lambda name: f"day={name}" == day.name, PAST)
    lists = Recommender(model.folder).recommend(sessions, 5, filter_seen=True)
    written = pl.read_parquet(tmp_path / "out" / "lists.parquet").sort("session_id", "rank", maintain_order=True)
    ids = pl.read_parquet(day / "*.parquet").with_columns(pl.col("end").dt.epoch("us"))
    by_end = dict(zip(sessions.end.tolist(), lists, strict=True))
    for session_id, end in ids.select("session_id", "end").iter_rows():
        assert written.filter(pl.col("session_id") == session_id)["item"].to_list() == by_end[end]


def test_a_model_of_another_night_reads_the_past_of_this_one(night: Night) -> None:
    artifacts, prepared, model = night
    evaluation = evaluate(artifacts, model, prepared[1], EvaluationConfig(baselines=()), quiet)
    ranked = read_ranks(evaluation.folder, "sasrec")
    assert len(ranked) == evaluation.facts["cases"] > 0
    own = evaluate(artifacts, model, prepared[0], EvaluationConfig(baselines=()), quiet)
    cases = test_cases_of(prepared[0])
    recommender = Recommender(model.folder)
    measured = ranks(recommender.scorer, cases)  # of cold targets, which are not counted, there is none: a miss
    hits = own.facts["metrics"]["sasrec"]["recall@20"] * own.facts["cases"]
    assert hits == pytest.approx(int((measured <= 20).sum()))


def test_who_asks_wrongly_is_answered(night: Night, tmp_path: Path) -> None:
    artifacts, prepared, model = night
    recommender = Recommender(model.folder)
    item = recommender.items["value"][0]
    with pytest.raises(InputError, match=r"Recommender\(folder, past=FOLDER\)"):
        recommender.histories([[item]], users=["u000001"])
    with pytest.raises(InputError, match="holds no prepared sessions"):
        Recommender(model.folder, past=tmp_path)
    there = Recommender(model.folder, past=prepared[0].folder)
    with pytest.raises(InputError, match="1 histories and 2 users"):
        there.histories([[item]], users=["u000001", "u000002"])
    with pytest.raises(InputError, match="one datetime, or one for each of 1"):
        there.histories([[item]], users=["u000001"], at=[datetime(2026, 3, 5)] * 2)
    with pytest.raises(InputError, match="Column 'user' of users takes text, got Struct"):
        UserPasts(prepared[0].folder, model.folder, 3).before(
            there.histories([[item]])[0], pl.Series([{"a": 1}]), microseconds(pl.Series([datetime(2026, 3, 5)]))
        )
    plain = train(artifacts, prepared[0], ModelConfig.model_validate({"body": SETTINGS["body"]}), TRAINING, quiet)
    with pytest.raises(InputError, match="reads no past sessions"):
        Recommender(plain.folder, past=prepared[0].folder)
    with pytest.raises(InputError, match="reads no past sessions"):
        Recommender(plain.folder).histories([[item]], users=["u000001"])
