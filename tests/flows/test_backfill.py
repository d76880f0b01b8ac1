"""Past days in order, each for itself."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.states import Completed, Failed, State
from prefect.utilities.names import generate_slug

from flows.backfill import Period, layers_of, run_days
from flows.reports.run_names import is_invented
from flows.settings.settings import Data
from flows.tasks import LOST, MISTAKE
from schemas.errors import InputError
from schemas.lock import LostLockError
from tests.flows.conftest import overnight, overnight_here
from tests.slow import slow

FIRST = date(2026, 3, 8)
DAYS = [FIRST + timedelta(days=number) for number in range(3)]


@pytest.mark.fault("a bad day in a backfill", outcome="the other days are done; the table names it")
def test_a_bad_day_does_not_stop_the_rest() -> None:
    def one_day(day: date) -> State[Any]:
        if day == DAYS[1]:
            return Failed(name=MISTAKE, message="no events")
        return Completed(data={"verdict": f"{day}: promote", "in_service": "models/1"})

    rows = list(run_days(DAYS, one_day))
    assert [row["outcome"] for row in rows] == ["done", "failed", "done"]
    assert [row["verdict"] for row in rows] == ["2026-03-08: promote", "no events", "2026-03-10: promote"]
    assert [row["in service"] for row in rows] == ["models/1", "", "models/1"]


def test_a_lost_lock_stops_the_rest() -> None:
    begun: list[date] = []

    def one_day(day: date) -> State[Any]:
        begun.append(day)
        return Failed(name=LOST, message="taken over by night of shop")

    with pytest.raises(LostLockError, match="taken over"):
        list(run_days(DAYS, one_day))
    assert begun == DAYS[:1]


def test_periods_and_changes_are_read() -> None:
    assert Period(first=DAYS[0], last=DAYS[2]).days() == DAYS
    with pytest.raises(InputError, match="2026-03-10 lies after the last, 2026-03-08"):
        Period(first=DAYS[2], last=DAYS[0]).days()
    data, layer = layers_of(
        Data(changes={"split": "day"}), {"dataset.sessions.gap_minutes": 20, "body.dim": 8, "loss": "gbce"}
    )
    assert data.changes == {"split": "day", "sessions.gap_minutes": 20}
    assert layer == {"body": {"dim": 8}, "loss": {"name": "gbce"}}
    assert layers_of(Data(), layer)[1] == layer
    with pytest.raises(InputError, match=r"Unknown key 'bdy\.dim'"):
        layers_of(Data(), {"bdy.dim": 8})


def test_names_that_prefect_invents_are_recognised_and_nothing_else() -> None:
    assert all(is_invented(generate_slug(2)) for _ in range(300))
    for name in ("demo 2026-03-10", "my-night", "retrain", "giga-oriole-2", "", "before-the-sale"):
        assert not is_invented(name), name


@slow  # tests/test_readme.py runs the command, tests/flows/test_serve.py the flow with a bad day
def test_the_command_prints_a_table_of_days_and_fails_for_a_bad_one(shop: Path, tmp_path: Path) -> None:
    arguments = ["backfill", "--source", shop, "--root", tmp_path, "--what", "sessions", "--json"]
    done = overnight(*arguments, "--from", "2026-03-05", "--to", "2026-03-06")
    assert done.returncode == 1, done.stdout + done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["days"]
    assert [(row["day"], row["outcome"]) for row in rows] == [
        ("2026-03-05", "done"),
        ("2026-03-06", "failed"),
    ]
    assert "until 2026-03-06 is outside the data" in rows[1]["verdict"]
    assert "1 of 2 days failed: 2026-03-06" in done.stdout and "Traceback" not in done.stdout
    assert len(list((tmp_path / "sessions").iterdir())) == 1


def test_days_in_the_wrong_order_are_refused(shop: Path, tmp_path: Path) -> None:
    given = ["backfill", "--source", shop, "--root", tmp_path, "--from", "2026-03-05", "--to", "2026-03-04"]
    done = overnight_here(*given, "--what", "nihgts")
    assert done.returncode == 2 and "Did you mean 'nights'" in done.stderr
    done = overnight_here(*given)
    assert done.returncode == 2 and "2026-03-05 lies after the last day" in done.stderr
