"""A table whose windows are hours: trained hour by hour, each time asked about the sessions of the next hour.

    python benchmarks/accuracy_hours.py --source ../shared/data/globo --out DIR     the events with hours written as days

`benchmarks/accuracy.py --table globo` does this and the rest. The protocol is that of the Transformers4Rec paper
(doi:10.1145/3460231.3474255) on CHAMELEON's hourly files of Globo.com (column `source_hour`): a session belongs to the hour in
which it starts. Here the k-th hour is written as the k-th day from 2000-01-01 on, and a session within one hour of that day,
so that the ordinary stages do the rest: a fold is an hour, and each model starts from that of the hour before.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flows.settings.settings import Data, Settings, resolve
from modeling.config import EvaluationConfig, SplitConfig
from modeling.stages import evaluate, train
from schemas.artifacts import Manifest

FIRST_DAY = date(2000, 1, 1)
HOUR_MILLISECONDS = 3_600_000
UNFILTERED = "ours, seen items kept"
Json = dict[str, Any]
Say = Callable[[str], object]


class Windows(BaseModel):
    """Which hours are trained on and tested. All of Globo's are `first: 0, hours: 383` without `alone`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int = Field(ge=0, description="The first hour that is trained on.")
    alone: int = Field(0, ge=0, description="Hours at the beginning that are trained on and not tested.")
    hours: int = Field(ge=1, description="Hours that are tested, one after the other.")
    read: int = Field(24, ge=1, description="Hours before the tested one whose items can be recommended.")

    @property
    def last(self) -> int:
        """The last hour that is tested."""
        return self.first + self.alone + self.hours


def day_of(hour: int) -> date:
    """The day that an hour is written as."""
    return FIRST_DAY + timedelta(days=hour)


def write_hours(source: Path, out: Path) -> None:
    """Globo's events and items -> the same with hours as days: `timestamp` in the day of the hour in which the session starts,
    within its first hour, in the order of the clicks; `clicked_at` as it was.

    A click 12 hours after the beginning of its hour, of 24 at most, is half an hour into the day.
    """
    events = pl.scan_parquet(source / "events.parquet")
    begin = pl.col("session_start").min().over("source_hour")
    since = (pl.col("timestamp") - begin).dt.total_milliseconds().clip(0, 24 * HOUR_MILLISECONDS - 24) // 24
    written = pl.lit(datetime.combine(FIRST_DAY, datetime.min.time())) + pl.duration(
        days=pl.col("source_hour"), milliseconds=since
    )
    out.mkdir(parents=True, exist_ok=True)
    table = events.with_columns(clicked_at=pl.col("timestamp"), timestamp=written.cast(pl.Datetime("us")))
    table = table.sort("source_hour", "clicked_at", maintain_order=True)
    table.drop("session_start", "session_size", "event_type", "source_hour").collect().write_parquet(
        out / "events.parquet"
    )
    shutil.copy(source / "items.parquet", out / "items.parquet")


def prepare_hours(data: Data, windows: Windows) -> Manifest:
    """Sessions of the hours that the windows read; the events with hours as days are written below the root, once.

    `data` names the files as they were published and the root.
    """
    from preprocessing.pipeline import prepare  # more than training needs

    assert data.source and data.root
    hours = data.root / "hours"
    if not (hours / "items.parquet").is_file():
        write_hours(Path(data.source), hours)
    settings = resolve(data.model_copy(update={"source": str(hours)}))
    first = windows.last - windows.first + 1
    return prepare(settings.artifacts, settings.dataset, until=day_of(windows.last), days=first, progress=_quiet)


def run_hours(
    data: Data,
    windows: Windows,
    preset: str | None,
    given: Json,
    metrics: tuple[str, ...],
    say: Say,
    sessions: Manifest | None = None,
) -> Json:
    """Train and test hour by hour -> means over the hours of the metrics of the model, of it with seen items kept, and of the
    baselines, as `metrics` by name; `cases`, `cold`, `cpu_seconds`, `steps`, `hours` and the `per_hour` of all.

    `data` is as for `prepare_hours`, which makes the sessions where none are given. Each hour's model starts from that of the
    hour before. Targets that no hour of training holds count as misses. With the same root, hours that are done are not done
    again.
    """
    assert data.source and data.root
    sessions = sessions or prepare_hours(data, windows)
    settings = resolve(data.model_copy(update={"source": str(data.root / "hours")}), preset, given)
    days = sorted(sessions.facts["days"])
    rows: list[Json] = []
    costs, model = {"cpu_seconds": 0.0, "steps": 0}, None
    for place, day in enumerate(days[1:], start=1):
        split = SplitConfig(until=date.fromisoformat(day), train_days=windows.read)
        training = settings.training.model_copy(update={"start_from": model.name} if model else {})
        model = train(settings.artifacts, sessions, settings.model, training, _quiet, split)
        costs = {name: costs[name] + model.facts[name] for name in costs}
        if place > windows.alone:
            rows.append(_hour(settings, sessions, model, split, metrics))
            say(f"{day}: {rows[-1]['metrics']}")
    names = rows[0]["metrics"]
    means = {
        who: {name: round(mean(row["metrics"][who][name] for row in rows), 6) for name in metrics} for who in names
    }
    counts = {name: sum(row[name] for row in rows) for name in ("cases", "cold")}
    return {"metrics": means, **counts, **costs, "hours": len(rows), "per_hour": [row["metrics"] for row in rows]}


def _hour(
    settings: Settings, sessions: Manifest, model: Manifest, split: SplitConfig, metrics: tuple[str, ...]
) -> Json:
    """One hour: the metrics by name of model and baselines, with cold targets as misses, and how many cases there are."""
    cutoffs = tuple(sorted({int(name.partition("@")[2]) for name in metrics}))
    own = settings.evaluation.model_copy(update={"split": split, "cutoffs": cutoffs, "lists": 0})
    kept = EvaluationConfig(split=split, cutoffs=cutoffs, lists=0, filter_seen=False, baselines=())
    facts = evaluate(settings.artifacts, model, sessions, own, _quiet).facts
    unfiltered = evaluate(settings.artifacts, model, sessions, kept, _quiet).facts
    cold = facts["cold_targets"] + facts["unknown_targets"]
    share = facts["cases"] / max(facts["cases"] + cold, 1)
    measured = facts["metrics"] | {UNFILTERED: unfiltered["metrics"][facts["model"]]}
    counted = {
        who: {name: round((values[name] or 0.0) * share, 6) for name in metrics} for who, values in measured.items()
    }
    return {"metrics": counted, "cases": facts["cases"], "cold": cold}


def _quiet(line: object) -> None:
    """Say nothing: an hour has too much to say."""


def main() -> None:
    """Write the events alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of Globo's events.parquet and items.parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    given = parser.parse_args()
    write_hours(given.source, given.out)


if __name__ == "__main__":
    main()
