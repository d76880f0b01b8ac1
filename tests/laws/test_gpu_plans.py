"""Every plan over rows that a preparation runs is one the GPU engine takes, for each rule of sessions and all encoders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from preprocessing import encoders, frames
from preprocessing.engines.polars import PolarsEngine
from preprocessing.execution import tasks as batch
from preprocessing.execution.run import Workers
from preprocessing.pipeline import prepare
from preprocessing.simulate import Shop, simulate
from schemas import plugins
from schemas.artifacts import Artifacts
from schemas.dataset import read_dataset
from schemas.progress import Progress
from tests.gpu import GPU, translating
from tests.preprocessing.small import dataset_of, run, three_days, write

pytestmark = pytest.mark.gpu_plans

# Times that plans run for one bucket: cleaned, counted, fitted; encoded, grouped, the latest of items, profiled.
CLEAN, FIT, ENCODE = 3, 1, 4

COLUMNS = ("user_id", "item_id", "timestamp", "session_id", "event_type", "price", "title", "category", "added", "tags")
# Encoders whose options cannot be left out, or that need another column than a number.
FEATURES: dict[str, Any] = {
    "age": {"column": "added", "encode": "age"},
    "bucketize": {"column": "price", "encode": "bucketize", "boundaries": [1, 5]},
    "category": {"column": "title", "encode": "category", "unknown_buckets": 4},
    "clip": {"column": "price", "encode": "clip", "min": 0, "max": 4},
    "cyclic": {"column": "timestamp", "encode": "cyclic", "period": "hour", "part": "sin"},
    "fill": {"column": "price", "encode": ["log1p", {"fill": {"value": "median"}}]},
    "popularity": {"column": "item_id", "encode": ["popularity", "log1p"]},
    "quantile": {"column": "price", "encode": "quantile", "q": 4},
    "relative_price": {"column": "price", "encode": "relative_price", "by": "category"},
    "standardize": {"column": "price", "encode": [{"fill": {"value": "median"}}, "standardize"]},
    "target_encoding": {"column": "category", "encode": "target_encoding", "target": "price"},
    "text_length": {"column": "title", "encode": "text_length"},
}
TIMES = ("elapsed", "event_age", "hour", "item_age", "weekday")


class OnGPU(PolarsEngine):
    """Sends its plans to a GPU; the tests run them elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.target = GPU


def all_features() -> dict[str, Any]:
    found = {}
    for name in plugins.names(encoders):
        column = "timestamp" if name in TIMES else "price"
        found[f"f_{name}"] = FEATURES.get(name, {"column": column, "encode": name})
    return found | {
        "tags": {"encode": "category"},
        "at_start": {"column": "category", "encode": "category", "per": "session"},
    }


class Trips:
    """Plans that run on a GPU by phase: of each time, how many together; and why plans would be refused."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.refused: list[str] = []
        self.phase, self.made = "", list[tuple[str, int]]()
        taken: list[int] = []
        on_cpu = translating(self.refused, taken)

        def run(plans: Sequence[pl.LazyFrame], target: frames.Target, stays: int | None = None) -> list[frames.Rows]:
            made = on_cpu(plans, target, stays)
            self.made += ((self.phase, count) for count in taken)
            taken.clear()
            return made

        patch.setattr(frames, "run", run)
        patch.setattr(batch, "engine_of", lambda name: OnGPU())

    def __call__(self, progress: Progress) -> None:
        """The phase that is at work."""
        self.phase = progress.phase

    def count(self) -> Counter[str]:
        """How often plans were run in each phase."""
        return Counter(phase for phase, _ in self.made)


@pytest.mark.parametrize("rule", ["gap", "given", "history"])
def test_the_gpu_takes_all_of_a_preparation(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ("view", 2.5, "a lamp", "lamps", date(2023, 12, 1), ["x", "y"])
    write(tmp_path, [(*row, f"s{row[0]}", *more) for row in [*three_days(), ("a", None, three_days()[0][2])]], COLUMNS)
    dataset = dataset_of(
        tmp_path,
        columns=COLUMNS[3:],
        time_zone="Europe/Berlin",
        steps=[
            {"filter_event_types": {"keep": ["view"]}},
            {"drop_crawlers": {"max_events_per_day": 100}},
            "drop_repeats",
        ],
        checks=[{"in_range": {"column": "price", "min": 0}}],
        sessions={"rule": rule},
        features=all_features(),
        split="leave_one_out" if rule == "history" else "day",
    )
    trips = Trips(monkeypatch)
    buckets = 2
    found = run(tmp_path, dataset, workers=Workers(min_buckets=buckets), progress=trips)
    assert found.facts["sessions"] > 0
    assert trips.refused == []
    # The second round of fitting is for encoders that are fitted to what an earlier one of their feature gives.
    more_often = rule == "history"  # what is to be predicted is left out first
    expected = {"clean": CLEAN + more_often, "fit": FIT + more_often, "encode": ENCODE + more_often}
    assert trips.count() == {phase: times * buckets for phase, times in expected.items()}


def test_the_gpu_takes_all_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(Shop(days=3, users=200, seed=3), tmp_path / "shop")
    trips = Trips(monkeypatch)
    dataset = read_dataset("demo").at(tmp_path / "shop")
    manifest = prepare(Artifacts(tmp_path / "root"), dataset, progress=trips)
    assert manifest.facts["sessions"] > 0
    assert trips.refused == []
    assert trips.count() == {"clean": CLEAN, "encode": ENCODE}
