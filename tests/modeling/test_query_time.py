"""A model may read when it is asked (inputs.query_time): in training the time of what is predicted, in service what is said."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import torch

from flows.recommend import recommend as by_hand
from modeling.config import EvaluationConfig, ModelConfig, TrainingConfig
from modeling.evaluation.ranking import ranks, top_k
from modeling.model import SequenceModel
from modeling.scoring import ModelScorer
from modeling.service.recommender import Recommender
from modeling.sessions import ASKED, GAP, Sessions
from modeling.splits import Cases, hide_last, split_sessions
from modeling.stages import evaluate, train
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import ITEM_ID
from schemas.dataset import Dataset, read_dataset
from schemas.errors import InputError
from schemas.features import FeatureColumn, FeatureSchema
from tests.conftest import schema_of, sessions_of
from tests.modeling.test_past import users
from tests.second_device import pretended_cuda

ELAPSED = FeatureColumn(name="elapsed", kind="continuous", source="timestamp", dtype="float32", transform=("elapsed",))
SCHEMA = schema_of(50)
TIMED = SCHEMA.model_copy(update={"columns": (*SCHEMA.columns, ELAPSED)})


def timed(sessions: Sessions, step: float = 8.0) -> Sessions:
    """Every event `step` seconds longer after the one before than that was."""
    place = torch.arange(len(sessions.items)) - sessions.starts.repeat_interleave(sessions.lengths)
    return replace(sessions, events=sessions.events | {"elapsed": place * step})


def model_of(objective: str = "causal", body: str = "sasrec", past: int = 0) -> SequenceModel:
    torch.manual_seed(3)
    given = {
        "body": {"name": body, "dim": 16, "dropout": 0.0},
        "inputs": {"query_time": True, "past_events": past},
        "objective": objective,
    }
    return SequenceModel(ModelConfig.model_validate(given), TIMED).eval()


def test_every_event_reads_how_long_it_took_to_the_next() -> None:
    model, sessions = model_of(), timed(sessions_of([[3, 4, 5, 6], [7, 8]]))
    batch = model.training_batch(sessions, torch.Generator())
    said = batch.features[ASKED][batch.layout.inside_BL] - 1
    assert sorted(said.tolist()) == [8, 8, 16, 24]
    histories = model.inputs.timed(hide_last(sessions).history)
    assert histories.asked is not None and histories.asked.tolist() == [24, 8]
    query = model.objective.query(histories, model.lay_out)
    assert sorted((query.features[ASKED][query.layout.inside_BL] - 1).tolist()) == [8, 8, 16, 24]


def test_masked_events_say_their_own_time_and_the_rest_says_none() -> None:
    model, sessions = model_of("masked"), timed(sessions_of([[3, 4, 5, 6], [7, 8, 9]]))
    batch = model.training_batch(sessions, torch.Generator().manual_seed(1))
    own = sessions.events["elapsed"][batch.layout.event_BL.clamp(min=0)]
    assert bool(batch.masked_BL.any())
    assert torch.equal(batch.features[ASKED], torch.where(batch.masked_BL, own + 1, 0.0))
    histories = model.inputs.timed(hide_last(sessions).history)
    query = model.objective.query(histories, model.lay_out)
    assert query.features[ASKED].flatten()[query.asked_N].tolist() == [25, 17]
    seconds = model.inputs.seconds(query)
    assert seconds is not None and seconds.flatten()[query.asked_N].tolist() == [48, 24], "of all up to there"


@pytest.mark.parametrize("body", ["hstu", "sasrec", "gru4rec"])
def test_it_matters_when_it_is_asked(body: str) -> None:
    model, train = model_of(body=body), timed(sessions_of([[3, 4, 5, 6, 7, 8, 9]]))
    model.reach(train)
    histories = timed(sessions_of([[3, 4, 5]]))
    soon, late, later = (
        model.states(replace(histories, asked=torch.tensor([seconds]))) for seconds in (8.0, 40.0, 1e9)
    )
    assert not torch.allclose(soon, late, atol=1e-5)
    torch.testing.assert_close(model.states(histories), model.states(replace(histories, asked=torch.tensor([24.0]))))
    assert later.isfinite().all()
    if body != "hstu":  # which measures from there to each event, at most what training read
        assert torch.equal(later, model.states(replace(histories, asked=torch.tensor([63.0])))), "nearest shorter"


def test_hstu_measures_from_what_is_asked_about() -> None:
    model, sessions = model_of(body="hstu"), timed(sessions_of([[3, 4, 5, 6]]))
    batch = model.training_batch(sessions, torch.Generator())
    seconds = model.inputs.seconds(batch)
    asked = model.inputs.asked_seconds(batch, seconds)
    assert seconds is not None and asked is not None
    assert seconds.tolist() == [[0, 8, 24]] and asked.tolist() == [[8, 24, 48]]


def test_the_first_event_is_asked_after_the_gap_between_sessions() -> None:
    model = model_of(past=5)
    sessions = timed(users([(0, [3, 4]), (0, [5, 6, 7])]))
    model.reach(sessions)
    batch = model.training_batch(sessions.select(torch.tensor([1])), torch.Generator())
    assert (batch.features[ASKED] - 1).tolist() == [[-1, 3_600, 8, 16]]
    alone = replace(sessions, lengths=sessions.lengths * 0).select(torch.tensor([1]))
    query = model.objective.query(replace(model.inputs.timed(alone), asked=torch.tensor([99.0])), model.lay_out)
    assert (query.features[ASKED] - 1).tolist() == [[-1, 99]]
    assert GAP in query.features


def test_events_left_out_at_the_end_make_it_longer() -> None:
    sessions = replace(timed(sessions_of([[3, 4, 5, 6], [7, 8, 9]])), asked=torch.tensor([100.0, 50.0]))
    kept = sessions.keep(torch.tensor([True, True, False, False, True, False, True]), "elapsed")
    assert kept.asked is not None and kept.asked.tolist() == [100 + 24 + 16, 50]
    hidden = hide_last(timed(sessions_of([[3, 4, 5, 6]]))).history
    kept = hidden.keep(torch.tensor([True, True, False]), "elapsed")
    assert kept.asked is not None and kept.asked.tolist() == [24 + 16]


@pytest.mark.skipif(torch.cuda.is_available(), reason="devices are told apart on the pretended one")
@pytest.mark.parametrize(("objective", "body"), [("causal", "hstu"), ("masked", "sasrec")])
def test_ranks_and_lists_on_another_device(objective: str, body: str) -> None:
    """Of sessions with a past, of those with nothing but a past, and where items are left out as unread: the same numbers."""
    model = model_of(objective, body, past=5)
    sessions = timed(users([(place % 7, list(range(3, 6 + place % 5))) for place in range(60)], count=5))
    model.reach(sessions)
    cases = hide_last(sessions)
    cases.history.items[::9] = 45
    alone = replace(sessions, lengths=torch.where(torch.arange(60) % 2 == 0, 0, sessions.lengths)).select(
        torch.arange(20, 60)
    )
    here = (ranks(ModelScorer(model), cases), top_k(ModelScorer(model), alone, 5, filter_seen=True)[0])
    with pretended_cuda():
        scorer = ModelScorer(model.to("cuda"))
        there = (ranks(scorer, cases.to("cuda")), top_k(scorer, alone.to("cuda"), 5, filter_seen=True)[0])
        there = tuple(values.cpu() for values in there)
    torch.testing.assert_close(there[0], here[0])
    assert (there[1] == here[1]).float().mean() > 0.95
    model.to("cpu")


@pytest.mark.parametrize("objective", ["permuted", "replaced_token"])
def test_objectives_that_would_tell_more_are_refused(objective: str) -> None:
    body = "xlnet" if objective == "permuted" else "sasrec"
    with pytest.raises(InputError, match=f"query_time does not go with the objective {objective}"):
        model_of(objective, body)


def test_a_dataset_without_times_is_refused() -> None:
    config = ModelConfig.model_validate({"inputs": {"query_time": True}})
    with pytest.raises(InputError, match="encode: elapsed"):
        SequenceModel(config, SCHEMA)


Night = tuple[Artifacts, Manifest, Manifest, Path]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A shop whose sessions hold how long people looked, and an HSTU that reads when it is asked and past sessions."""
    folder = tmp_path_factory.mktemp("asked")
    simulate(Shop(days=4, users=120, seed=2), folder / "shop")
    demo = read_dataset("demo").model_dump(mode="json", exclude_unset=True)
    demo["features"]["elapsed"] = {"column": "timestamp", "encode": "elapsed"}
    dataset = Dataset.model_validate(demo).at(folder / "shop")
    artifacts = Artifacts(folder / "root")
    sessions = prepare(artifacts, dataset, progress=lambda line: None)
    config = {"body": {"name": "hstu", "dim": 16, "num_layers": 1}, "inputs": {"query_time": True, "past_events": 6}}
    training = TrainingConfig(epochs=1, tokens_per_step=256, threads=1, validation_sessions=20)
    model = train(artifacts, sessions, ModelConfig.model_validate(config), training, lambda line: None)
    return artifacts, sessions, model, folder / "shop"


def test_evaluation_is_service_asked_at_the_time_of_the_hidden_event(night: Night) -> None:
    """Raw events of each test session without the last one, asked at the moment of that one, rank as evaluation does."""
    artifacts, sessions, model, _ = night
    schema = FeatureSchema.read(sessions.folder / "schema.json")
    cases = split_sessions(sessions, schema, 20, past=6).test.known()
    folder = sessions.folder / "sessions" / f"day={sessions.facts['test_day']}"
    table = pl.read_parquet(folder / "*.parquet").with_columns(end_us=pl.col("end").dt.epoch("us"))
    rows = pl.DataFrame({"end_us": cases.history.end.numpy()}).join(
        table, on="end_us", how="left", maintain_order="left"
    )
    recommender = Recommender(model.folder, past=sessions.folder)
    names = dict(recommender.items.select("id", "value").iter_rows())
    events, asked_at = [], []
    for number, row in enumerate(rows.iter_rows(named=True)):
        moment = row["start"]
        times = [moment := moment + timedelta(seconds=seconds) for seconds in row["elapsed"]]
        asked_at.append(times[-1])
        history = zip(row[ITEM_ID][:-1], times[:-1], strict=True)
        events += [
            {"session_id": number, "user_id": row["user_id"], "item_id": names.get(item, "new"), "timestamp": time}
            for item, time in history
        ]
    features = cases.history
    served, _, keys = recommender.sessions_of_events(pl.DataFrame(events), asked_at)
    assert keys == list(range(len(rows))) and served.past is not None
    timed_cases = recommender.model.inputs.timed(features)
    torch.testing.assert_close(served.asked, timed_cases.asked, atol=1e-3, rtol=1e-5)
    for name in ("elapsed", GAP):
        torch.testing.assert_close(
            served.events[name][served.event_index()[1]],
            features.events[name][features.event_index()[1]],
            atol=1e-2,
            rtol=1e-5,
        )
    events_of = {name: values.clone() for name, values in served.events.items()}
    for name in ("price", "category", "brand", "hour"):  # of items that came up that day the model folder knows nothing
        events_of[name][served.event_index()[1]] = features.events[name][features.event_index()[1]]
    whole = replace(served, events=events_of)
    scorer = ModelScorer(recommender.model)
    mine, theirs = ranks(scorer, Cases(whole, cases.target)), ranks(scorer, cases)
    assert torch.equal(mine, theirs)
    late = replace(whole, asked=whole.asked * 0)
    assert not torch.equal(ranks(scorer, Cases(late, cases.target)), theirs)
    measured = evaluate(artifacts, model, sessions, EvaluationConfig(baselines=()), lambda line: None).facts
    assert measured["metrics"]["hstu"]["recall@20"] * measured["cases"] == pytest.approx(int((theirs <= 20).sum()))


def test_a_file_of_events_is_asked_at_a_moment_by_hand(night: Night) -> None:
    model = night[2]
    item, moment = Recommender(model.folder).items["value"][0], datetime(2026, 3, 4, 12, tzinfo=UTC)
    events = pl.DataFrame({"item_id": [item, item], "timestamp": [moment, moment + timedelta(minutes=1)]})
    asked = [
        by_hand(model.folder, events, 5, at=at, say=lambda line: None)["recommended"]
        for at in (None, moment + timedelta(minutes=2), moment + timedelta(days=300))
    ]
    wanted = Recommender(model.folder).read_events(events, moment + timedelta(minutes=2)).sessions
    assert asked[1] == Recommender(model.folder).recommend(wanted, 5, filter_seen=True)[0]
    with pytest.raises(InputError, match="is before the last event"):
        by_hand(model.folder, events, 5, at=moment, say=lambda line: None)


def test_a_history_of_the_past_alone_is_asked_at_its_moment_whatever_is_asked_beside_it(night: Night) -> None:
    """Among histories that hold an event it was asked as long after its past as is usual within a session."""
    _, sessions, model, _ = night
    recommender = Recommender(model.folder, past=sessions.folder)
    table = pl.read_parquet(sessions.folder / "sessions" / "**" / "*.parquet")
    users = table["user_id"].unique().sort().head(3).to_list()
    item = recommender.items["value"][0]
    raw, at = [[], [item], []], [datetime(2026, 3, 9 + day) for day in range(3)]
    together = recommender.histories(raw, users=users, at=at)[0]
    assert together.asked is not None and together.asked.isnan().tolist() == [False, True, False]
    alone = [
        recommender.histories([history], users=[user], at=moment)[0]
        for history, user, moment in zip(raw, users, at, strict=True)
    ]
    queries = torch.cat([recommender.scorer.queries(history) for history in alone])
    torch.testing.assert_close(recommender.scorer.queries(together), queries)


def test_who_asks_wrongly_is_answered(night: Night) -> None:
    _, sessions, model, _ = night
    recommender = Recommender(model.folder)
    item, moment = recommender.items["value"][0], datetime(2026, 3, 4, 12)
    events = pl.DataFrame({"item_id": [item, item], "timestamp": [moment, moment + timedelta(minutes=1)]})
    assert recommender.sessions_of_events(events, moment + timedelta(minutes=2))[0].asked.tolist() == [60]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="asked_at is before the last event"):
        recommender.sessions_of_events(events, moment)
    with pytest.raises(InputError, match="needs the column timestamp"):
        recommender.sessions_of_events(events.drop("timestamp"), moment)
    plain = SequenceModel.load(model.folder).settings.model_dump(exclude={"inputs"})
    assert recommender.recommend(recommender.histories([[item]])[0], 3), "as usual in training"
    artifacts, *_ = night
    training = TrainingConfig(epochs=1, tokens_per_step=512, threads=1)
    other = train(artifacts, sessions, ModelConfig.model_validate(plain), training, lambda line: None)
    with pytest.raises(InputError, match="does not read when it is asked"):
        Recommender(other.folder).sessions_of_events(events, moment)
