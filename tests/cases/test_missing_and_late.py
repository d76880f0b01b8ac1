"""Days that are missing, late, short, long or odd: each has a stated outcome, and what is in service stays where it must.

Whole nights of a small shop, by the stages that commands and flows run. `docs/days.md` is the table of these outcomes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from prefect import runtime

from flows import stages
from flows.lateness import due_of_run, late
from flows.night import Stages, run_stages
from flows.orders import Order
from flows.settings.settings import Data, resolve
from modeling.evaluation.pointer import champion_of
from modeling.stages.guarding import age_of
from preprocessing.simulate import Shop, simulate
from schemas.artifacts import Artifacts, Manifest
from schemas.errors import InputError
from tests.preprocessing.small import at, dataset_of, run, write

MONDAY = date(2026, 3, 2)
LAYER: dict[str, Any] = {
    "body": {"dim": 8, "num_layers": 1},
    "training": {"epochs": 1, "threads": 1, "tokens_per_step": 512},
    "evaluation": {"baselines": ["popularity"], "cutoffs": [20], "lists": 0},
    "promotion": {"min_gain": -0.99},
}


def day(number: int) -> date:
    """The n-th day of the shop, from 0."""
    return MONDAY + timedelta(days=number)


@dataclass
class Nights:
    """A source to which days come, and the nights of it."""

    whole: Path
    folder: Path

    def comes(self, *numbers: int, change: Callable[[pl.DataFrame], pl.DataFrame] = lambda rows: rows) -> None:
        """The files of these days, changed."""
        for number in numbers:
            rows = pl.read_parquet(self.whole / "events" / f"{day(number)}.parquet")
            change(rows).write_parquet(self.folder / "source" / "events" / f"{day(number)}.parquet")

    def night(
        self,
        until: date | None = None,
        due: datetime | None = None,
        guards: dict[str, float] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """A night's summary, with the facts of its sessions and its comparison. `changes` are those of the dataset."""
        data = Data(source=str(self.folder / "source"), root=self.folder / "root", until=until, changes=changes)
        promotion = LAYER["promotion"] | ({"guards": guards} if guards else {})
        settings = replace(resolve(data, None, LAYER | {"promotion": promotion}), due=due)
        made: dict[str, Any] = {}
        self.lines: list[str] = []

        def stage(name: str) -> Callable[..., Any]:
            def run(*given: Any) -> Any:
                made[name] = getattr(stages, name)(*given, lambda line: self.lines.append(str(line)))
                return made[name]

            return run

        summary = run_stages(settings, Stages(**{one.name: stage(one.name) for one in fields(Stages)}))
        page = Path(summary["report"]).read_text()
        return summary | {"facts": made["prepare"].facts, "verdict_is": made["compare"].facts["verdict"], "page": page}

    @property
    def in_service(self) -> str:
        champion = champion_of(Artifacts(self.folder / "root"), "demo")
        assert champion
        return champion.model


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """Eight days of a shop of which five have come, and a night of them that put a model into service."""
    whole, folder = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("begun")
    simulate(Shop(days=8, users=150, items=200, seed=5), whole)
    (folder / "source" / "events").mkdir(parents=True)
    shutil.copy(whole / "items.parquet", folder / "source")
    nights = Nights(whole, folder)
    nights.comes(*range(5))
    assert nights.night()["promoted"]
    return nights


@pytest.fixture
def nights(begun: Nights, tmp_path: Path) -> Nights:
    """A copy of its own."""
    shutil.copytree(begun.folder, tmp_path / "nights")
    return Nights(begun.whole, tmp_path / "nights")


def first_hours(hours: float) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """A day that is cut off."""

    def cut(rows: pl.DataFrame) -> pl.DataFrame:
        start = rows["timestamp"].drop_nulls().min()
        assert isinstance(start, datetime)
        midnight = datetime.combine(start.date(), datetime.min.time())
        return rows.filter(pl.col("timestamp") < midnight + timedelta(hours=hours))

    return cut


def test_no_events_today_is_said_by_a_scheduled_night(nights: Nights) -> None:
    """By no other: a person who runs old days again waits for nothing."""
    before = nights.in_service
    assert nights.night()["nothing_to_do"] and not nights.night()["late"]
    due = datetime(2026, 3, 9, 2, tzinfo=UTC)
    summary = nights.night(due=due)
    assert summary["nothing_to_do"] and nights.in_service == before
    (line,) = summary["late"]
    assert line.startswith(f"No full day of events since {day(4)}: {day(5)}, {day(6)} had none when this night was due")
    assert line in summary["page"]
    assert not nights.night(due=datetime(2026, 3, 7, 2, tzinfo=UTC))["late"], "yesterday's are there"
    assert not nights.night(until=day(3), due=due)["late"], "that day was asked for"


def test_only_runs_of_a_schedule_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    assert due_of_run() is None
    due = datetime(2026, 3, 9, 2, tzinfo=UTC)
    for tags, expected in ((["auto-scheduled", "nightly"], due), (["nightly"], None)):
        monkeypatch.setattr(runtime.flow_run, "tags", tags, raising=False)
        monkeypatch.setattr(runtime.flow_run, "scheduled_start_time", due, raising=False)
        assert due_of_run() == expected
    settings = replace(resolve(Data(source="nowhere"), None, LAYER), due=due)
    assert Order.read(Order.of("compare", settings, ()).line()).settings().due == due, (
        "the process that compares has it"
    )


def test_a_day_that_is_always_quiet_is_not_waited_for() -> None:
    """A shop that is shut on weekends: on Monday night nothing is late; on Wednesday night Monday and Tuesday are."""

    days = {str(day(number)): 9 for number in range(12) if day(number).weekday() < 5}
    days[str(day(5))] = 1  # the end of Friday evening
    facts = {"test_day": "2026-03-13", "first_day": "2026-03-02", "days": days}
    sessions = Manifest(kind="sessions", id="0", root="", facts=facts, created=datetime.now(UTC))
    settings = replace(resolve(Data(source="nowhere"), None, LAYER), due=datetime(2026, 3, 16, 2, tzinfo=UTC))
    assert not late(settings, sessions)
    (line,) = late(replace(settings, due=datetime(2026, 3, 18, 2, tzinfo=UTC)), sessions)
    assert "since 2026-03-13: 2026-03-16, 2026-03-17 had" in line


def test_an_empty_day_is_a_day_without_events(nights: Nights) -> None:
    before = nights.in_service
    nights.comes(5, change=lambda rows: rows.clear())
    assert nights.night()["nothing_to_do"]
    assert day(5).isoformat() in nights.night(due=datetime(2026, 3, 8, 2, tzinfo=UTC))["late"][0]
    with pytest.raises(InputError, match=f"until {day(5)} is outside the data"):
        nights.night(until=day(5))
    assert nights.in_service == before
    nights.comes(6)
    summary = nights.night()
    assert summary["test_day"] == str(day(6)) and not any("at once" in line for line in summary["warnings"])
    assert (
        f"there were no events of {day(5)} before it" in summary["warnings"]
        and f"no events of {day(5)}" in summary["page"]
    )
    with pytest.raises(InputError, match=f"No session ends on the test day {day(5)}; give another"):
        nights.night(until=day(5))


def test_half_a_day_is_held_and_done_again_when_the_rest_comes(nights: Nights) -> None:
    before = nights.in_service
    nights.comes(5, change=first_hours(14))
    summary = nights.night()
    assert summary["test_day"] == str(day(5)) and summary["verdict_is"] == "hold" and not summary["promoted"]
    assert "Guard sessions: 2026-03-07 has" in summary["verdict"] and "Guard sessions" in summary["page"]
    assert nights.in_service == before
    nights.comes(5)
    summary = nights.night()
    assert any(f"{day(5)}: its events have changed since it was done; doing it again" in line for line in nights.lines)
    assert "Guard" not in summary["verdict"]
    assert f"{day(5)} was done again: its events have changed since it was done" in summary["warnings"]


def test_events_that_come_a_day_late_are_taken_into_their_day(nights: Nights) -> None:
    nights.comes(5, change=lambda rows: rows.filter(pl.int_range(pl.len()) % 10 != 0))
    fewer = nights.night()["facts"]
    nights.comes(5, 6)
    summary = nights.night()
    assert summary["test_day"] == str(day(6)) and summary["facts"]["days"][str(day(5))] >= fewer["days"][str(day(5))]
    assert f"{day(5)} was done again" in summary["page"]


def test_a_few_hours_of_a_day_are_not_yet_a_day(nights: Nights) -> None:
    before = nights.in_service
    nights.comes(5, change=first_hours(5))
    assert nights.night()["nothing_to_do"] and nights.in_service == before
    (line,) = nights.night(due=datetime(2026, 3, 8, 2, tzinfo=UTC))["late"]
    assert f"{day(5)} had none when this night was due, or less than a quarter" in line
    nights.comes(5, 6)
    assert f"2 days were done at once, in order: {day(5)} and {day(6)}" in nights.night()["warnings"]


def test_after_an_outage_the_missing_days_are_done_in_order(nights: Nights, tmp_path: Path) -> None:
    """Three days at once give what a night for each gives."""
    shutil.copytree(nights.folder, tmp_path / "nightly")
    nightly = Nights(nights.whole, tmp_path / "nightly")
    for number in (5, 6, 7):
        nightly.comes(number)
        one_by_one = nightly.night()
    nights.comes(5, 6, 7)
    at_once = nights.night()
    assert f"3 days were done at once, in order: {day(5)}, {day(6)} and {day(7)}" in at_once["warnings"]
    assert "were done at once" in at_once["page"]
    for name in ("days", "sessions", "items", "quarantined", "dropped", "test_day"):
        assert at_once["facts"][name] == one_by_one["facts"][name]
    assert at_once["facts"]["test_day"] == str(day(7))


def test_new_and_lost_columns_are_named(nights: Nights) -> None:
    nights.comes(5, change=lambda rows: rows.with_columns(campaign=pl.lit("spring"), channel=pl.lit("mail")))
    summary = nights.night()
    assert summary["test_day"] == str(day(5))
    (line,) = [warning for warning in summary["warnings"] if "new columns" in warning]
    assert "&#39;campaign&#39;" in summary["page"] and "'campaign' (in " in line and f"{day(5)}.parquet" in line
    assert "'channel'" in line and "events.columns maps" in line
    nights.comes(6, change=lambda rows: rows.with_columns(campaign=pl.lit("spring")).drop("price"))
    warnings = nights.night()["warnings"]
    assert not any("new columns" in warning for warning in warnings), "it is new once"
    assert any("lack 'price', so that is empty in them" in warning for warning in warnings)
    nights.comes(7, change=lambda rows: rows.drop("item_id"))
    before = nights.in_service
    with pytest.raises(InputError, match="column for 'item_id'"):
        nights.night()
    assert nights.in_service == before


@pytest.mark.parametrize("unknown", ["quarantine", "keep"])
def test_a_catalogue_that_shrank_is_said_and_held(unknown: str, nights: Nights, tmp_path: Path) -> None:
    changes = {"items.unknown": unknown}
    nights.night(**changes)
    before = nights.in_service
    table = nights.folder / "source" / "items.parquet"
    whole = pl.read_parquet(table)
    whole.filter(pl.int_range(pl.len()) % 2 == 0).write_parquet(table)
    nights.comes(5)
    summary = nights.night(**changes)
    assert summary["verdict_is"] == "hold" and nights.in_service == before
    assert f"Guard items: the item table has {(len(whole) + 1) // 2} items" in summary["verdict"]
    assert ("Guard quarantine" in summary["verdict"]) == (unknown == "quarantine")
    assert any(f"items, and had {len(whole)} on the day before" in line for line in summary["warnings"])
    whole.write_parquet(table)
    nights.comes(6)
    summary = nights.night(**changes)
    assert "Guard" not in summary["verdict"]


def test_a_file_that_cannot_be_read_fails_its_night_and_no_other(nights: Nights) -> None:
    before = nights.in_service
    nights.comes(5)
    file = nights.folder / "source" / "events" / f"{day(5)}.parquet"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(InputError, match=rf"{day(5)}\.parquet \(Parquet\): cannot be read"):
        nights.night()
    assert nights.in_service == before
    nights.comes(6)
    summary = nights.night()
    assert summary["test_day"] == str(day(6)) and summary["promoted"]
    held_back = f"{day(5)} is held back: events/{day(5)}.parquet"
    assert sum(line.startswith(held_back) for line in summary["warnings"]) == 1
    assert f"{day(5)} is held back" in summary["page"]
    nights.comes(5)
    summary = nights.night()
    assert summary["facts"]["days"].keys() >= {str(day(5)), str(day(6))} and summary["test_day"] == str(day(6))
    assert f"{day(5)}: its events have come after those of later days; doing it now." in "\n".join(nights.lines)


def test_files_that_expired_take_no_day_with_them(nights: Nights) -> None:
    days = nights.night()["facts"]["days"]
    for number in range(3):
        (nights.folder / "source" / "events" / f"{day(number)}.parquet").unlink()
    nights.comes(5)
    summary = nights.night()
    assert days.items() <= summary["facts"]["days"].items() and summary["test_day"] == str(day(5))
    assert not summary["missing_days"]


def test_ids_that_are_spelled_another_way_are_held(nights: Nights) -> None:
    changes = {"items.unknown": "keep"}
    nights.night(**changes)
    before = nights.in_service
    spelled = pl.when(pl.col("user_id").hash() % 10 < 7).then(pl.col("item_id").str.to_uppercase()).otherwise("item_id")
    nights.comes(5, change=lambda rows: rows.with_columns(spelled.alias("item_id")))
    summary = nights.night(guards={"unknown_share": 0.5}, **changes)
    assert summary["verdict_is"] == "hold" and nights.in_service == before
    assert (
        "Guard unknown_share:" in summary["verdict"]
        and "have an unknown item_id, at most 50.0% may" in summary["verdict"]
    )


@pytest.mark.parametrize(
    ("zone", "test_day", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("America/Sao_Paulo", None, 24),
    ],
)
def test_days_of_23_and_25_hours_are_days_like_all(
    zone: str, test_day: date | None, hours: int, tmp_path: Path
) -> None:
    """Every hour of the clock counts to its day, and its end is the next midnight of the zone."""
    tested = test_day or date(2026, 3, 29)
    midnight = [
        datetime.combine(tested + timedelta(days=n), datetime.min.time(), ZoneInfo(zone)) for n in (-2, -1, 0, 1)
    ]
    ends = [moment.astimezone(UTC) for moment in midnight]
    rows = [
        (f"u{number}", f"i{(number + place) % 5}", start + timedelta(hours=number, minutes=place))
        for start, end in pairwise(ends)
        for number in range(int((end - start).total_seconds() // 3600))
        for place in (0, 20)
    ]
    write(tmp_path, rows)
    dataset = dataset_of(tmp_path, time_zone=zone, sessions={"gap_minutes": 25})
    manifest = run(tmp_path, dataset, until=tested, now=datetime(2026, 12, 1, tzinfo=UTC))
    assert (
        manifest.facts["days"][str(tested)] == hours and manifest.facts["days"][str(tested - timedelta(days=1))] == 24
    )
    assert manifest.facts["rows_in"] == manifest.facts["events"] + manifest.facts["still_open"]
    age = age_of(manifest, tested, None)
    assert age and age[0] == pytest.approx(40 / 60)


def test_a_day_with_the_end_of_the_evening_before_alone_has_no_events(tmp_path: Path) -> None:
    """A session that closes after midnight is of the day that never came; a weekday that is always empty is no news."""
    rows = [
        (f"u{user}", f"i{user + place}", at(number, hour, 50 + place))
        for number in (0, 1, 3, 4, 5, 7, 8, 10)
        for hour in (12, 23)
        for user in range(4)
        for place in (0, 1)
    ]
    write(tmp_path, rows)
    dataset = dataset_of(tmp_path, sessions={"gap_minutes": 30})
    warnings = {}
    for until in (4, 5, 7, 8, 10):
        manifest = run(tmp_path, dataset, until=at(until).date())
        warnings[until] = manifest.facts["warnings"]
        assert manifest.facts["days"].get("2024-01-03") == 4, "the session that was open at midnight"
    assert "there were no events of 2024-01-07 before it" in warnings[7]
    assert not any("no events" in line for line in warnings[4] + warnings[5] + warnings[8] + warnings[10])
