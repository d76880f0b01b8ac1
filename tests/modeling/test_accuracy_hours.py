"""Tables whose windows are hours: an hour is written as a day, and each hour's model starts from that of the hour before."""

import importlib.util
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from flows.settings.settings import Data

PROJECT = Path(__file__).resolve().parents[2]
BEGIN = datetime(2017, 10, 1, 3)


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy_hours", PROJECT / "benchmarks" / "accuracy_hours.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "accuracy_hours", module)
    spec.loader.exec_module(module)
    return module


def _published(folder: Path, num_hours: int = 4, num_sessions: int = 40) -> Path:
    """Sessions of three clicks in each hour: the first starts with it and lasts for 30 hours, the rest for minutes."""
    rows = []
    for hour in range(num_hours):
        for user in range(num_sessions):
            start = BEGIN + timedelta(hours=hour, minutes=user)
            for place in range(3):
                at = start + (timedelta(hours=15 * place) if user == 0 else timedelta(minutes=place))
                rows.append((user, 1000 * hour + user, 100 + (user + place) % 7, at, start, hour))
    columns = ["user_id", "session_id", "item_id", "timestamp", "session_start", "source_hour"]
    events = pl.DataFrame(rows, schema=columns, orient="row").with_columns(event_type=pl.lit("click"), session_size=3)
    codes = ("environment", "deviceGroup", "os", "country", "region", "referrer_type")
    events = events.with_columns(pl.lit(1, pl.Int32).alias(f"click_{name}") for name in codes)
    folder.mkdir()
    events.write_parquet(folder / "events.parquet")
    items = pl.DataFrame({"item_id": range(100, 107), "category_id": [1, 1, 2, 2, 3, 3, 3]})
    items.write_parquet(folder / "items.parquet")
    return folder


def test_a_session_lies_in_the_day_of_the_hour_in_which_it_starts(hours: ModuleType, tmp_path: Path) -> None:
    hours.write_hours(_published(tmp_path / "published"), tmp_path / "out")
    written = pl.read_parquet(tmp_path / "out" / "events.parquet")
    assert len(written) == 480 and "source_hour" not in written.columns
    days = written.group_by("session_id").agg(pl.col("timestamp").dt.date().unique()).sort("session_id")
    assert all(len(day) == 1 for day in days["timestamp"])
    assert [day[0] for day in days["timestamp"][::40]] == [hours.day_of(hour) for hour in range(4)]
    long = written.filter(pl.col("session_id") == 0)
    assert long["item_id"].to_list() == [100, 101, 102]  # 30 hours count as 24, in the order of the clicks
    since = (long["timestamp"] - datetime(2000, 1, 1)).dt.total_minutes().to_list()
    assert since == [0, 37, 59]
    assert long["clicked_at"].to_list() == [BEGIN, BEGIN + timedelta(hours=15), BEGIN + timedelta(hours=30)]


def test_hours_are_tested_one_after_the_other_by_models_that_start_from_the_one_before(
    hours: ModuleType, tmp_path: Path
) -> None:
    source = _published(tmp_path / "published")
    data = Data(dataset="globo_hours", source=str(source), root=tmp_path / "root")
    given = {
        "body": {"dim": 8, "num_layers": 1},
        "heads": {"next_item": {"bias": True, "bias_half_life": 24}},
        "training": {"epochs": 1, "window_days": 1, "replay": 0.0, "threads": 1},
        "evaluation": {"baselines": ["recent_popularity"]},
    }
    lines: list[str] = []
    windows = hours.Windows(first=0, alone=1, hours=2, read=2)
    made = hours.run_hours(data, windows, None, given, ("recall@5", "ndcg@5"), lines.append)
    assert list(made["metrics"]) == ["sasrec", "recent_popularity", hours.UNFILTERED]
    assert made["hours"] == len(lines) == len(made["per_hour"]) == 2
    assert made["cases"] == 80 and made["cold"] == 0
    for who, means in made["metrics"].items():
        of_hours = [row[who]["ndcg@5"] for row in made["per_hour"]]
        assert means["ndcg@5"] == pytest.approx(sum(of_hours) / 2, abs=1e-6) and 0 < means["ndcg@5"] <= 1
    models = [path for path in (tmp_path / "root" / "models").iterdir() if path.is_dir()]
    assert len(models) == 3  # of hours 1, 2 and 3
    before = sorted(path.stat().st_mtime_ns for path in models)
    assert hours.run_hours(data, windows, None, given, ("recall@5", "ndcg@5"), lines.append) == made
    assert sorted(path.stat().st_mtime_ns for path in models) == before
