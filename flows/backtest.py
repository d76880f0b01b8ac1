"""Day by day: what each way of training gives when every day is predicted by what was there before it.

    scratch   every day a model is trained from the beginning
    warm      every day's model starts from that of the day before
    frozen    the first day's model stays

All begin with the first day's model from scratch. Stages are those of a night, so what was done before, in a night or in a
backtest that was stopped, is not done again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from flows import stages
from flows.console import in_lines
from flows.reports.day_by_day import PICTURE, TABLE, Row, draw_days, measured, table_of, total_rows
from flows.reports.templates import HERE
from flows.results import write_result
from flows.settings.settings import Settings
from schemas.artifacts import Manifest, identify, sha256
from schemas.closure import code_of
from schemas.errors import InputError, MisfitError, OutsideError, unknown
from schemas.progress import Progress

POLICIES = ("scratch", "warm", "frozen")
ROOT = Path(__file__).parents[1]
BACKTESTS = "backtests"
Say = Callable[[str], object]
Stage = Callable[..., Manifest]


def _here(stage: Stage) -> Stage:
    """The stage itself, which is done in this process."""
    return stage


def backtest(
    settings: Settings,
    first: date,
    last: date,
    policies: tuple[str, ...],
    window: int | None,
    say: Say = print,
    does: Callable[[Stage], Stage] = _here,
) -> Manifest:
    """Train and measure by each policy on each day -> `backtests/<id>`: result.json, table.md and days.svg.

    `window` is the number of days before each day that are used (None: all). `does` makes of a stage the same one done
    elsewhere, as `Child.does`. Facts: `rows`, one a day and policy with its
    model, evaluation, NDCG@20, recall@20, cases and CPU seconds of training; `totals`, one a policy, with the mean over
    cases, an interval of 95 % over users, and the difference to the first policy; `skipped`, days without test sessions.

    Raises:
        InputError: for days in the wrong order, unknown policies, a split that has no days, or no day that can be measured.
    """
    _check(settings, first, last, policies)
    lines = in_lines(say)
    days = None if window is None else window + 1  # the day itself is one of those used
    say(f"Preparing all days up to {last}.")
    try:
        begun = min(stages.prepare(_of_day(settings, last, None), lines).facts["days"])
    except OutsideError as error:
        raise InputError(
            f"--to {last} is outside the data, which run from {error.first} to {error.last}. A day is measured by its events: "
            f"give {error.last} or an earlier day."
        ) from None
    if str(first) <= begun:
        raise InputError(
            f"--from {first}: the data begin on {begun}, and a day is predicted by those before it. Give a later day."
        )
    if settings.training.start_from:
        say(
            f"Not used in a backtest: training.start_from {settings.training.start_from}; --policy says what starts from what."
        )
    rows: list[Row] = []
    skipped: list[str] = []
    models: dict[str, Manifest] = {}
    for day in _days(first, last):
        today = _of_day(settings, day, days)
        sessions = stages.prepare(today, _quiet)
        if sessions.facts["test_day"] != str(day):
            skipped.append(str(day))
            continue
        for policy in policies:
            say(f"{day}, {policy}:")
            models[policy], cost = _model(policy, today, sessions, models.get(policy), lines, does(stages.train))
            evaluation = does(stages.evaluate)(today, models[policy], sessions, lines)
            rows.append(measured(str(day), policy, models[policy], evaluation, cost))
    if not rows:
        raise InputError(f"From {first} to {last} there is no day with test sessions: {', '.join(skipped)}.")
    return _write(settings, policies, rows, skipped)


def _model(
    policy: str,
    today: Settings,
    sessions: Manifest,
    before: Manifest | None,
    say: Callable[[Progress | str], object],
    train: Stage,
) -> tuple[Manifest, float]:
    """A policy's model for a day, and the CPU seconds that training it took."""
    if policy == "frozen" and before:
        return before, 0.0
    start = before.name if policy == "warm" and before else None
    training = today.training.model_copy(update={"start_from": start})
    try:
        model = train(replace(today, training=training), sessions, say)
    except MisfitError as error:  # settings that follow the shape of the data may change from one day to the next
        say(f"From scratch: {error}")
        scratch = today.training.model_copy(update={"start_from": None})
        model = train(replace(today, training=scratch), sessions, say)
    return model, float(model.facts["cpu_seconds"])


def _check(settings: Settings, first: date, last: date, policies: tuple[str, ...]) -> None:
    if settings.dataset.split != "day":
        raise InputError(
            f"{settings.dataset.name} has the split {settings.dataset.split}: a backtest goes by days (split: day)."
        )
    if first > last:
        raise InputError(f"--from {first} lies after --to {last}: give the first day, then the last.")
    for policy in policies:
        if policy not in POLICIES:
            raise unknown("--policy", policy, POLICIES)
    if not policies or len(set(policies)) < len(policies):
        raise InputError(
            f"--policy {','.join(policies)!r}: name each of {', '.join(POLICIES)} once at most, and one at least."
        )


def _of_day(settings: Settings, day: date, days: int | None) -> Settings:
    """The settings of the night before whose end is `day`; baselines, the same for all policies, and lists are left out."""
    data = settings.data.model_copy(update={"until": day, "days": days})
    return replace(settings, data=data, evaluation=settings.evaluation.model_copy(update={"baselines": (), "lists": 0}))


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _quiet(line: Progress | str) -> None:
    """Progress of what is finished already is not shown."""


def _write(settings: Settings, policies: tuple[str, ...], rows: list[Row], skipped: list[str]) -> Manifest:
    parents = tuple(dict.fromkeys(name for row in rows for name in (row.model, row.evaluation)))
    made_of = [(row.day, row.policy, row.model, row.evaluation) for row in rows], skipped
    code = code_of(ROOT, ("flows.reports.day_by_day",), alone=(__name__,))
    artifact_id = identify(code=code, parents=parents, picture=sha256(HERE / f"{PICTURE}.j2"), made_of=made_of)

    def made() -> tuple[dict[str, Any], dict[str, str]]:
        totals = total_rows(rows, policies, settings.artifacts)
        facts = {
            "dataset": settings.dataset.name,
            "policies": list(policies),
            "rows": [row.model_dump() for row in rows],
            "totals": [total.model_dump() for total in totals],
            "skipped": skipped,
        }
        return facts, {TABLE: table_of(rows, totals), PICTURE: draw_days(rows, policies)}

    return write_result(settings.artifacts, BACKTESTS, artifact_id, parents, made)
