"""Ranks that are kept with an evaluation: who, what rank, and what is known of each case."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import torch

from modeling.config import EvaluationConfig, ModelConfig, TrainingConfig
from modeling.evaluation.metrics import gains_of, rank_percentiles
from modeling.evaluation.rank_table import RankTable, read_ranks
from modeling.stages import evaluate, train
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import Dataset
from schemas.errors import InputError

TRAINING = TrainingConfig(epochs=1, tokens_per_step=256, threads=1)
CONFIG = EvaluationConfig(baselines=("popularity", "markov"), cutoffs=(5, 20))
COLUMNS = {name: name for name in ("user_id", "item_id", "timestamp")}
GAP = {"rule": "gap", "gap_minutes": 30}


def quiet(line: object) -> None:
    """No progress."""


def events(days: int = 4, users: int = 24, numbers: bool = False) -> pl.DataFrame:
    """A ring of 12 items. User u comes on every third day, new ones on each, for 3 or 4 events; too few for validation."""
    rows = []
    for day in range(days):
        for user in range(users):
            if (user + day) % 3 == 0 or user == day:
                start = datetime(2026, 3, 1 + day, 9) + timedelta(minutes=(user * 7) % 60)
                for place in range(3 + user % 2):
                    who = 1000 - user if numbers else f"u{1000 - user}"
                    rows.append((who, f"i{(user * 5 + place) % 12:02d}", start + timedelta(seconds=place)))
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def measured(folder: Path, table: pl.DataFrame, **about: object) -> tuple[Manifest, Manifest]:
    folder.mkdir(parents=True, exist_ok=True)
    table.write_parquet(folder / "events.parquet")
    described = {
        "name": "ring",
        "events": {"path": "events.parquet", "columns": COLUMNS},
        "sessions": GAP,
        "features": {"item_id": {"encode": "category"}},
    } | about
    artifacts = Artifacts(folder / "root")
    sessions = prepare(artifacts, Dataset.model_validate(described).at(folder), progress=quiet)
    model = train(artifacts, sessions, ModelConfig.model_validate({"body": {"dim": 16}}), TRAINING, quiet)
    return evaluate(artifacts, model, sessions, CONFIG, quiet), sessions


@pytest.mark.parametrize("numbers", [False, True])
def test_every_case_is_kept_with_its_user(numbers: bool, tmp_path: Path) -> None:
    table = events(numbers=numbers)
    evaluation, sessions = measured(tmp_path, table)
    assert sessions.facts["test_day"] == "2026-03-04"
    assert "ranks.parquet" in {file.path for file in evaluation.files}
    last = table.filter(pl.col("timestamp").dt.date() == date(2026, 3, 4))
    expected = last.group_by("user_id").agg(
        pl.len().alias("events"), pl.col("item_id").last(), pl.col("timestamp").max()
    )
    before = table.filter(pl.col("timestamp").dt.date() < date(2026, 3, 4))
    for scorer in ("sasrec", "popularity", "markov"):
        rows = read_ranks(evaluation.folder, scorer)
        assert rows["user"].dtype == table["user_id"].dtype
        assert sorted(rows["user"]) == sorted(expected["user_id"]) and rows["case"].is_unique().all()
        joined = rows.join(expected, left_on="user", right_on="user_id")
        assert (joined["history_length"] == joined["events"] - 1).all()
        assert joined["returning"].to_list() == joined["user"].is_in(before["user_id"].implode()).to_list()
        for row in joined.iter_rows(named=True):
            held = before.filter(pl.col("item_id") == row["item_id"])
            ends = before.filter(pl.col("user_id").is_in(held["user_id"].implode()))
            first = ends.group_by("user_id", pl.col("timestamp").dt.date().alias("day")).agg(
                pl.col("timestamp").max(), (pl.col("item_id") == row["item_id"]).any()
            )
            since = first.filter("item_id")["timestamp"].min()
            assert isinstance(since, datetime)
            assert row["target_popularity"] == len(held)
            assert row["target_age_days"] == pytest.approx((row["timestamp"] - since) / timedelta(days=1))


def test_metrics_are_those_of_the_ranks(tmp_path: Path) -> None:
    evaluation, _ = measured(tmp_path, events())
    for scorer, values in evaluation.facts["metrics"].items():
        rank_N = torch.tensor(read_ranks(evaluation.folder, scorer)["rank"].to_list(), dtype=torch.float64)
        assert len(rank_N) == evaluation.facts["cases"] and set(values) >= {"ndcg@20", "map@5", "precision@20"}
        for metric, value in values.items():
            assert float(gains_of(metric, rank_N).mean()) == pytest.approx(value, abs=1e-12), metric


def test_histories_without_times_have_users_and_no_ages(tmp_path: Path) -> None:
    described = {"split": "leave_one_out", "sessions": {"rule": "history", "max_length": 50}}
    table = events(9).with_columns(pl.int_range(pl.len()).over("user_id").alias("position")).drop("timestamp")
    columns = {name: name for name in ("user_id", "item_id", "position")}
    evaluation, _ = measured(tmp_path, table, events={"path": "events.parquet", "columns": columns}, **described)
    rows = read_ranks(evaluation.folder, "sasrec")
    lengths = table.group_by("user_id").agg(pl.len().alias("events")).filter(pl.col("events") > 2)
    joined = rows.join(lengths, left_on="user", right_on="user_id")
    assert len(joined) == len(lengths) and (joined["history_length"] == joined["events"] - 1).all()
    assert rows["target_age_days"].null_count() == rows["returning"].null_count() == len(rows)


def test_an_evaluation_without_ranks_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ranks\.parquet holds no ranks"):
        read_ranks(tmp_path, "sasrec")
    about = pl.DataFrame({"case": [0], "user": ["u"], "history_length": [1], "target_popularity": [2],
                          "target_age_days": [None], "returning": [True]},
                         schema_overrides={"target_age_days": pl.Float64})  # fmt: skip
    RankTable(about, {"gru4rec": torch.tensor([torch.inf]).double().numpy()}).write(tmp_path / "ranks.parquet")
    assert read_ranks(tmp_path, "gru4rec")["rank"].to_list() == [float("inf")]
    with pytest.raises(InputError, match="no rank of 'sasrec'"):
        read_ranks(tmp_path, "sasrec")


def test_percentiles_are_ranks_that_so_many_cases_reach() -> None:
    rank_N = torch.tensor([1.0, 2.5, torch.inf, 4.0])
    assert rank_percentiles(rank_N) == {"median": 2.5, "p75": 4.0, "p90": float("inf")}
    assert rank_percentiles(torch.tensor([7.0])) == {"median": 7.0, "p75": 7.0, "p90": 7.0}
