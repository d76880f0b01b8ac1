"""The page about a day: of the newest each night, of any other when asked for."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from flows.reports.day_profile import PAGE, newest_page, render_day
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import Dataset
from schemas.errors import InputError
from tests.preprocessing.small import run, write
from tests.preprocessing.test_profile import COLUMNS, DAYS, dataset_with, visits


def prepared(folder: Path, until: int = 3) -> tuple[Artifacts, Dataset, Manifest]:
    """Two days alike and a third whose brand and price are others."""
    days = [*visits(0, users=40), *visits(1, users=40), *visits(2, brand="<b>bolt</b>", price=500.0, users=40)]
    write(folder, days, COLUMNS)
    dataset = dataset_with(folder)
    sessions = run(folder, dataset, until=date(2024, 1, until))
    return Artifacts(sessions.root), dataset, sessions


def text_of(page: Manifest) -> str:
    return (page.folder / PAGE).read_text()


def test_the_newest_day_is_shown_beside_the_days_before(tmp_path: Path) -> None:
    page = render_day(*prepared(tmp_path))
    text = text_of(page)
    assert (page.kind, page.facts["day"]) == ("profiles", DAYS[2])
    assert "Not like the days before" in text and "price has drifted" in text
    assert "&lt;b&gt;bolt&lt;/b&gt;" in text and "<b>bolt" not in text and "<script" not in text
    assert 'class="psi far"' in text, "what has drifted stands out"


def test_any_other_day_is_compared_with_the_days_before_it(tmp_path: Path) -> None:
    artifacts, dataset, sessions = prepared(tmp_path)
    second = text_of(render_day(artifacts, dataset, sessions, DAYS[1]))
    assert "Like the days before: no column has drifted" in second and 'class="psi far"' not in second
    first = render_day(artifacts, dataset, sessions, DAYS[0])
    assert "There are no days before it to compare with" in text_of(first)
    assert first.id == sessions.parents[0].partition("/")[2] and first.parents == sessions.parents[:1]
    with pytest.raises(InputError, match=f"no day 2024-01-09 .*{DAYS[0]} to {DAYS[2]}"):
        render_day(artifacts, dataset, sessions, "2024-01-09")


def test_a_page_is_made_once_and_again_when_what_it_shows_has_changed(tmp_path: Path) -> None:
    artifacts, dataset, sessions = prepared(tmp_path)
    assert not render_day(artifacts, dataset, sessions).reused
    assert render_day(artifacts, dataset, sessions).reused
    strict = dataset.model_copy(update={"profile": dataset.profile.model_copy(update={"days": 1})})
    again = render_day(artifacts, strict, sessions)
    assert not again.reused and again.parents == sessions.parents[1:]
    titled = dataset.model_copy(update={"title": "Another shop"})
    assert "Another shop" in text_of(render_day(artifacts, titled, sessions))


@pytest.mark.fault("the profile of a day is damaged", outcome="the night goes on without that page, with one line")
def test_a_damaged_day_costs_the_page_and_not_the_night(tmp_path: Path) -> None:
    artifacts, dataset, sessions = prepared(tmp_path)
    (artifacts.get(sessions.parents[2]).folder / "profile.parquet").write_bytes(b"not a table")
    lines: list[str] = []
    assert newest_page(artifacts, dataset, sessions, lambda progress: lines.append(str(progress))) is None
    assert len(lines) == 1 and lines[0].startswith("There is no page about the newest day.") and "damaged" in lines[0]
    assert newest_page(artifacts, dataset, sessions) is None
