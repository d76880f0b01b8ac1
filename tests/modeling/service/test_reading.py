"""Items that are alike, and the events that recommendations lean on, against one product and one history at a time."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from flows.cli import app
from modeling.service import reading
from modeling.service.recommender import Recommender
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID
from schemas.errors import InputError
from tests.modeling.test_inputs import model_of
from tests.modeling.test_items import write_folder


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(write_folder(model_of(), tmp_path_factory.mktemp("model")), "cpu")


def names(recommender: Recommender) -> list[str]:
    """Raw ids of items with a training event."""
    return recommender.items.filter(pl.Series(recommender.scorer.rankable_V.tolist()))["value"].to_list()


def test_similar_items_are_nearest_by_cosine(recommender: Recommender) -> None:
    vectors = F.normalize(recommender.scorer.items_VE, dim=1)
    cosines = vectors @ vectors.T
    asked = names(recommender)[:4]
    place = {value: id_ - FIRST_ID for id_, value in recommender.items.select("id", "value").iter_rows()}
    for item, nearest in zip(asked, recommender.similar(asked, 5), strict=True):
        row = cosines[place[item]].clone()
        row[~recommender.scorer.rankable_V] = -2
        row[place[item]] = -2
        assert [place[other] for other, _ in nearest] == row.argsort(descending=True, stable=True)[:5].tolist()
        assert [cosine for _, cosine in nearest] == pytest.approx(
            row.sort(descending=True).values[:5].tolist(), abs=1e-5
        )
    assert recommender.similar([]) == []


def test_vectors_are_made_of_length_one_once(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a table says what lists say."""
    made, scorer = [], reading.CosineScorer.__init__
    monkeypatch.setattr(reading.CosineScorer, "__init__", lambda self, of: made.append(1) or scorer(self, of))
    recommender.__dict__.pop("_by_cosine", None)
    asked = names(recommender)[:6]
    parts = [recommender.similar_table(pl.Series(asked[first : first + 2]), 3) for first in (0, 2, 4)]
    assert pl.concat(parts).rows() == [
        (item, rank, other, pytest.approx(cosine))
        for item, nearest in zip(asked, recommender.similar(asked, 3), strict=True)
        for rank, (other, cosine) in enumerate(nearest, 1)
    ]
    assert len(made) == 1


def test_an_item_that_is_not_there_is_answered_with_near_names(recommender: Recommender) -> None:
    item = names(recommender)[-1]
    with pytest.raises(InputError, match=rf"Item '{item}x' is not in this model's catalogue .*Near: .*{item}"):
        recommender.similar([item, f"{item}x"])
    for count in (0, True, 1.5):
        with pytest.raises(InputError, match="k must be an integer from 1"):
            recommender.similar([item], count)  # type: ignore[arg-type]


def by_hand(recommender: Recommender, history: list[str], item: str) -> dict[int, float]:
    """By place in the history, how much the item's score falls without that event."""

    def score(sessions: Sessions) -> float:
        id_ = recommender.items.filter(pl.col("value") == item)["id"][0]
        column = torch.tensor([[id_ - FIRST_ID]])
        return float(recommender.scorer.scores(recommender.scorer.queries(sessions), column))

    sessions, _ = recommender.histories([history])
    whole, falls = score(sessions), {}
    for place in range(len(history)):
        keep = torch.arange(len(history)) != place
        falls[place] = whole - score(sessions.keep(keep, since=recommender.model.inputs.time))
    return falls


def test_recommendations_lean_on_the_events_whose_absence_costs_most(recommender: Recommender) -> None:
    some = names(recommender)
    histories = [some[:4], some[4:5], [some[2], some[6], some[2]]]
    sessions, _ = recommender.histories(histories)
    answers = recommender.because(sessions, 3, filter_seen=True, events=2)
    lists = recommender.recommend(sessions, 3, filter_seen=True)
    assert [[reason.item for reason in answer] for answer in answers] == lists
    for history, answer in zip(histories, answers, strict=True):
        for reason in answer:
            if len(history) == 1:
                assert reason.events == ((history[0], None),)
                continue
            falls = by_hand(recommender, history, reason.item)
            best = sorted(falls, key=lambda place: -falls[place])[:2]
            assert [fall for _, fall in reason.events] == pytest.approx([falls[place] for place in best], abs=1e-4)
            assert [item for item, _ in reason.events] == [history[place] for place in best]
    assert recommender.because(sessions.select(torch.tensor([], dtype=torch.long))) == []
    with pytest.raises(InputError, match="events must be an integer from 1"):
        recommender.because(sessions, events=0)


def test_of_long_histories_the_newest_events_alone_are_left_out(recommender: Recommender) -> None:
    some = names(recommender)
    histories = [some[:6], some[4:5], some[2:5]]
    whole = recommender.because(histories, 3, events=9)
    for answer, of_all, history in zip(recommender.because(histories, 3, newest=2), whole, histories, strict=True):
        for reason, full in zip(answer, of_all, strict=True):
            newest = sorted(
                (pair for pair in full.events if pair[0] in history[-2:]), key=lambda pair: -(pair[1] or 0.0)
            )
            assert [item for item, _ in reason.events] == [item for item, _ in newest]
            assert [fall or 0.0 for _, fall in reason.events] == pytest.approx(
                [fall or 0.0 for _, fall in newest], abs=1e-4
            )
    with pytest.raises(InputError, match="newest must be an integer from 1"):
        recommender.because(histories, newest=0)


def test_many_histories_are_read_as_each_alone(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are divided into parts; lists of ids do for sessions."""
    some = names(recommender)
    histories = [some[first : first + length] for first, length in ((0, 3), (4, 1), (2, 5), (1, 2), (3, 1))]
    whole = recommender.because(histories, 3, events=9)
    monkeypatch.setattr(reading, "MOST_EVENTS", 12)
    for history, of_all, in_parts in zip(histories, whole, recommender.because(histories, 3, events=9), strict=True):
        (alone,) = recommender.because([history], 3, events=9)
        for other in (of_all, in_parts):
            assert [reason.item for reason in other] == [reason.item for reason in alone]
            for mine, its in zip(alone, other, strict=True):
                assert [item for item, _ in mine.events] == [item for item, _ in its.events]
                assert len(mine.events) == len(history)
                falls = [0.0 if fall is None else fall for _, fall in its.events]
                assert falls == pytest.approx([fall or 0.0 for _, fall in mine.events], abs=1e-4)


def test_parts_hold_as_many_events_as_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_EVENTS", 100)
    lengths = torch.tensor([3, 50, 1, 9, 9, 1, 2])
    parts = reading.parts_of(lengths)
    assert torch.cat(parts).tolist() == list(range(7)) and len(parts) > 2
    assert all(int((lengths[part[1:]] ** 2).sum()) <= 100 for part in parts), "what follows a long history is little"
    assert reading.parts_of(lengths[:0]) == []


def test_commands_say_what_recommenders_do(recommender: Recommender, tmp_path: Path) -> None:
    some, out = names(recommender), tmp_path / "all.parquet"
    options = ["--model", str(recommender.folder), "--root", str(tmp_path), "-k", "2"]
    said = CliRunner().invoke(app, ["similar", some[0], *options])
    assert said.exit_code == 0 and all(item in said.stdout for item, _ in recommender.similar(some[:1], 2)[0])
    assert CliRunner().invoke(app, ["similar", "--all", "--out", str(out), *options]).exit_code == 0
    rows = pl.read_parquet(out)
    assert rows.columns == ["item_id", "rank", "similar_id", "cosine"] and rows.height == 2 * len(some)
    expected = [item for nearest in recommender.similar(some, 2) for item, _ in nearest]
    assert rows["similar_id"].to_list() == expected and rows["rank"].to_list() == [1, 2] * len(some)
    for wrong in (
        ["similar"],
        ["similar", some[0], "--all"],
        ["similar", "--all"],
        ["similar", "--all", "--out", str(out)],
    ):
        assert isinstance(CliRunner().invoke(app, [*wrong, *options]).exception, InputError)
    said = CliRunner().invoke(app, ["why", *some[:3], *options, "--json"])
    assert said.exit_code == 0 and "because of" in said.stdout and '"fall"' in said.stdout
