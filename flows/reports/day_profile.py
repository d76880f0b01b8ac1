"""The page about one day: what its events look like, and how they differ from those of the days before it.

Only the newest day's page is made every night; `overnight profile --day` makes any other from the numbers that each day keeps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from flows.reports.charts import MOST_BARS, Bars, draw_bars, draw_histogram, format_month, share_of
from flows.reports.templates import HERE, render
from preprocessing.output.profile import counts, drift
from schemas.artifacts import Artifacts, Manifest, code_version, sha256
from schemas.columns import COUNT, ITEM_ID, VALUE
from schemas.dataset import Dataset
from schemas.errors import InputError
from schemas.progress import Progress

KIND, PAGE = "profiles", "profile.html"
TABLE = "profile.parquet"  # of a day's artifact
TEMPLATE = "day_profile.html.j2"
TOP_VALUES, TOP_ITEMS = 10, 15


class Row(NamedTuple):
    """What was counted of one column."""

    column: str
    kind: str
    value: str | None
    at: float | None
    num: int
    num_before: int


def render_day(artifacts: Artifacts, dataset: Dataset, sessions: Manifest, day: str | None = None) -> Manifest:
    """The artifact `profiles/<id of the day>` with the page of `day` (YYYY-MM-DD), or of the newest day of `sessions`.

    The day is compared with those of the `dataset.profile.days` days before it that are among the sessions.

    Raises:
        InputError: when the sessions have no such day, or the files of a day are gone.
    """
    days = sessions.parents  # the names of the days' artifacts, in the order of the days
    place = len(days) - 1 if day is None else _find_day(artifacts, sessions, day)
    wanted = artifacts.get(days[place])
    before = [artifacts.get(name) for name in days[max(0, place - dataset.profile.days) : place]]
    parameters = {
        "code": [code_version(HERE), sha256(HERE / TEMPLATE)],
        "shown": [dataset.name, dataset.title, dataset.time_zone, dataset.profile.model_dump(mode="json")],
    }
    parents = tuple(manifest.name for manifest in [*before, wanted])
    page = artifacts.find(KIND, wanted.id)
    if page and (page.parents, page.parameters) == (parents, parameters):
        return page
    text = page_of(dataset, wanted.facts, _compare(dataset, wanted, before))
    with artifacts.write(KIND, wanted.id, parents=parents, parameters=parameters) as draft:
        (draft.folder / PAGE).write_text(text, encoding="utf-8")
        draft.facts = {"day": wanted.facts["day"]}
    return draft.manifest


def newest_page(
    artifacts: Artifacts,
    dataset: Dataset,
    sessions: Manifest,
    progress: Callable[[Progress], object] = lambda report: None,
) -> Path | None:
    """The file with the newest day's page, made unless it is there; None, which `progress` explains, where a day is damaged."""
    try:
        return render_day(artifacts, dataset, sessions).folder / PAGE
    except (InputError, OSError, pl.exceptions.PolarsError) as error:
        progress(Progress("publish", message=f"There is no page about the newest day. {error}"))
        return None


def page_of(dataset: Dataset, facts: dict[str, Any], compared: pl.DataFrame) -> str:
    """One page of a day's facts and counts; `compared` holds the day's rows of `drift.compare`."""
    columns: dict[str, list[Row]] = {}
    selected = compared.select(counts.COLUMN, counts.KIND, VALUE, counts.AT, COUNT, drift.BEFORE)
    for row in map(Row._make, selected.rows()):
        columns.setdefault(row.column, []).append(row)
    hours, lengths, items = (columns.pop(name, []) for name in (counts.HOURS, counts.LENGTHS, ITEM_ID))
    return render(
        TEMPLATE,
        dataset=dataset,
        facts=facts,
        warned=_drifted(dataset, compared),
        account=_account(facts),
        hours=draw_bars(_places(_points(hours), 0, 23)) if hours else "",
        hours_name=counts.HOURS,
        lengths=draw_bars(_lengths(_points(lengths))) if lengths else "",
        lengths_name=counts.LENGTHS,
        items=_values(items, TOP_ITEMS) | _describe(ITEM_ID, items),
        columns=[_column(name, columns[name]) for name in sorted(columns)],
    )


def _find_day(artifacts: Artifacts, sessions: Manifest, day: str) -> int:
    """The place of a day among the sessions' parents; few manifests are read, however many days there are."""

    def day_of(name: str) -> str:
        return str(artifacts.get(name).facts["day"])

    place = bisect_left(sessions.parents, day, key=day_of)
    if place == len(sessions.parents) or day_of(sessions.parents[place]) != day:
        first, last = day_of(sessions.parents[0]), day_of(sessions.parents[-1])
        has = f"{first} to {last}" if first != last else first
        raise InputError(
            f"There is no day {day} in {sessions.name}, which has {has}: give a day in between with --day."
        )
    return place


def _compare(dataset: Dataset, day: Manifest, before: list[Manifest]) -> pl.DataFrame:
    """The day's counts and those of the days before, by what was counted."""
    tables = [pl.read_parquet(manifest.folder / TABLE, glob=False) for manifest in before]
    earlier = pl.concat([pl.DataFrame(schema=counts.SCHEMA), *tables])
    return drift.compare(pl.read_parquet(day.folder / TABLE, glob=False), earlier, dataset.profile.days)


def _drifted(dataset: Dataset, compared: pl.DataFrame) -> set[str]:
    far = (pl.col(drift.PSI) > dataset.profile.warn_above) & (pl.col(drift.PSI) > pl.col(drift.CHANCE))
    return set(drift.drift(compared).filter(far)[counts.COLUMN])


def _account(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Where the rows went, each with its share of what came in."""
    came = facts["rows_in"] + facts["carried_in"]
    parts = [("events in sessions", "kept", facts["events"]), ("in sessions still open", "open", facts["still_open"])]
    parts += [(f"quarantined: {rule}", "bad", count) for rule, count in facts["quarantined"].items()]
    parts += [(f"dropped: {step}", "dropped", count) for step, count in facts["dropped"].items()]
    return [{"name": name, "kind": kind, "count": count, "share": share_of(count, came)} for name, kind, count in parts]


def _column(name: str, rows: list[Row]) -> dict[str, Any]:
    points = _points(rows)
    if any(row.kind == "month" for row in rows):
        shown: dict[str, Any] = {
            "chart": draw_bars(_places(points, int(points[0][0]), int(points[-1][0])), format_month)
        }
    elif points:
        shown = draw_histogram(points)
    else:
        shown = _values(rows, TOP_VALUES)
    return shown | _describe(name, rows)


def _describe(name: str, rows: list[Row]) -> dict[str, Any]:
    """Of every column: how many values, how many missing."""
    counts = {row.kind: row.num for row in rows if row.kind in ("missing", "distinct")}
    missing, total = counts.get("missing", 0), sum(row.num for row in rows if row.kind != "distinct")
    return {"name": name, "missing": missing, "share": share_of(missing, total), "distinct": counts.get("distinct")}


def _values(rows: list[Row], most: int) -> dict[str, Any]:
    """The most frequent values as bars, then all others in one bar."""
    counted = [row for row in rows if row.kind in ("value", "rest")]
    now, before = sum(row.num for row in counted), sum(row.num_before for row in counted)
    top = sorted((-row.num, row.value or "", row.num_before) for row in counted if row.kind == "value" and row.num)[
        :most
    ]
    shown = [(value, -count, share_of(-count, now), share_of(other, before)) for count, value, other in top]
    highest = max((max(share, other) for _, _, share, other in shown), default=1.0)
    bars = [
        {
            "name": value,
            "count": count,
            "share": share,
            "width": share / highest,
            "before": other / highest if before else None,
        }
        for value, count, share, other in shown
    ]
    others = now - sum(count for _, count, _, _ in shown)
    return {"bars": bars, "others": others, "others_share": share_of(others, now)}


def _points(rows: list[Row]) -> Bars:
    return sorted((row.at, row.num, row.num_before) for row in rows if row.at is not None)


def _places(points: Bars, first: int, last: int) -> Bars:
    """Whole numbers one after the other, also those that nothing lies at."""
    counts = {at: (now, before) for at, now, before in points}
    return [(float(at), *counts.get(float(at), (0, 0))) for at in range(first, last + 1)]


def _lengths(points: Bars) -> Bars:
    """From 1 on; all that are longer than a chart is wide in the last place."""
    longer = [point for point in points if point[0] >= MOST_BARS]
    shown = _places(points, 1, min(int(points[-1][0]), MOST_BARS))
    if longer:
        shown[-1] = (float(MOST_BARS), sum(now for _, now, _ in longer), sum(before for _, _, before in longer))
    return shown
