"""Events as they were sent to the log give the lists that the prepared sessions of the same events give."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from flows.api_log import log_of
from modeling.config import ModelConfig, TrainingConfig
from modeling.service.api.answers import answers
from modeling.service.api.app import Service
from modeling.service.api.asking import read_question
from modeling.service.api.in_service import Place
from modeling.service.api.limits import Limits
from modeling.service.bulk import from_parquet, parquet_files
from modeling.stages import train
from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts
from schemas.dataset import Dataset

DATASET = {
    "name": "odd",
    "events": {
        "path": "events.csv",
        "columns": {
            "user_id": "who",
            "item_id": {"sql": "CONCAT(kind, '-', number)"},
            "timestamp": "at",
            "price": "amount",
            "pieces": "pieces",
            "act": "act",
        },
        "types": {"price": "float", "pieces": "integer"},
        "time_format": "%d.%m.%Y %H:%M",
        "time_zone": "Europe/Berlin",
        "null_words": ["-"],
    },
    "steps": [
        {
            "derive": {
                "columns": {
                    "total": "price * pieces",
                    "dear": "price * pieces > 20",
                    "late": "EXTRACT(HOUR FROM timestamp) > 11",
                }
            }
        },
        {"rename": {"columns": {"act": "action"}}},
    ],
    "features": {
        "item_id": {"encode": "category"},
        "total": {"encode": ["log1p", "standardize"]},
        "dear": {"encode": "category"},
        "late": {"encode": "category"},
        "action": {"encode": "category"},
        "hour": {"column": "timestamp", "encode": "hour"},
    },
}


def rows_of(users: int) -> list[dict[str, Any]]:
    draw, rows = random.Random(1), []
    for day in range(4):
        for user in range(users if day < 3 else 2):
            at = datetime(2026, 3, 1 + day, 8 + draw.randrange(8), draw.randrange(60), tzinfo=UTC)
            for place in range(draw.randrange(2, 6)):
                rows.append(
                    {
                        "who": f"u{day}-{user}",
                        "kind": draw.choice("ab"),
                        "number": draw.randrange(8),
                        "at": (at + timedelta(minutes=place)).strftime("%d.%m.%Y %H:%M"),
                        "amount": draw.choice([1.5, 12.0, None]),
                        "pieces": draw.randrange(1, 4),
                        "act": draw.choice(["view", "cart", "-"]),
                    }
                )
    return rows


def test_the_log_is_read_as_preparation_reads_it(tmp_path: Path) -> None:
    rows = rows_of(60)
    pl.DataFrame(rows).write_csv(tmp_path / "events.csv")
    dataset = Dataset.model_validate(DATASET).at(tmp_path)
    artifacts = Artifacts(tmp_path / "root")
    sessions = prepare(artifacts, dataset, progress=lambda report: None)
    config = ModelConfig.model_validate({"body": {"dim": 16, "num_layers": 1}})
    training = TrainingConfig(epochs=3, tokens_per_step=256, threads=1)
    model = train(artifacts, sessions, config, training, lambda line: None)
    place = Place(name=model.name, folder=model.folder, created=model.created, keep_seen=True)
    log = log_of(dataset)
    service = Service(lambda: place, log=log)
    service.models.load()
    loaded = service.models.loaded
    assert loaded is not None
    newest = sessions.folder / f"sessions/day={sessions.facts['test_day']}"  # encoded by what the model's folder holds
    _, batches = from_parquet(loaded.recommender, parquet_files(newest))
    checked = 0
    for batch in batches:
        lists = loaded.recommender.recommend(batch.sessions, 6)
        for user, wanted in zip(batch.keys["user_id"], lists, strict=True):
            events = [row for row in rows if row["who"] == user]
            question = read_question(json.dumps({"events": events, "k": 6}).encode(), Limits(), log)
            (answer,) = answers(loaded, question.sessions)
            assert [entry["item"] for entry in answer.get("items", ())] == wanted, (user, answer.get("error"))
            assert answer["not_given"] == [] and answer["unknown_items"] == []
            checked += 1
    assert checked > 50
    odd = {"kind": "a", "number": 1, "at": "2026-03-03T09:00:00Z", "amount": 1, "pieces": 1, "act": "view"}
    (answer,) = answers(
        loaded, read_question(json.dumps({"sessions": [{"events": [odd]}]}).encode(), Limits(), log).sessions
    )
    assert "%d.%m.%Y %H:%M" in answer["error"] and "2026-03-03T09:00:00Z" in answer["error"]
