"""Nights of the past, one after the other: each day is a run of its own, and a bad one does not stop the rest.

overnight backfill --from 2026-03-10 --to 2026-03-14 --dataset demo --source demo-shop
"""

import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any, Literal

from prefect import State, flow, runtime
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from flows import stages
from flows.night_lock import alone
from flows.notify import notify_of_end
from flows.reports import prefect_ui
from flows.reports.progress import PREPARE
from flows.reports.run_names import name_run
from flows.reports.tables import phase_seconds, session_rows
from flows.retrain import AGAIN, retrain
from flows.settings.form import ANY_PRESET, Lines, PastForm, PresetName, chosen, layer_of, parameters_of
from flows.settings.layers import Layer
from flows.settings.settings import Data, resolve
from flows.tasks import LOST, as_task, explain_mistakes
from schemas.errors import InputError, parse
from schemas.lock import LostLockError

What = Literal["nights", "sessions"]


class DaysFailedError(RuntimeError):
    """Some days of a backfill failed; `rows` says what became of each."""

    def __init__(self, message: str, rows: list[dict[str, str]]) -> None:
        super().__init__(message)
        self.rows = rows


class Period(BaseModel):
    """A first and a last day, both included."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Period")

    first: date = Field(title="First", description="The first day.")
    last: date = Field(title="Last", description="The last day.")

    def days(self) -> list[date]:
        """All of them, in order.

        Raises:
            InputError: when the first lies after the last.
        """
        if self.first > self.last:
            raise InputError(
                f"The first day {self.first} lies after the last, {self.last}: give the first day, then the last."
            )
        return [self.first + timedelta(days=number) for number in range((self.last - self.first).days + 1)]


def layers_of(data: Any, changes: Lines) -> tuple[Data, Layer]:
    """Data and settings with changes by dotted key, as `--set` takes them: ["body.dim=128", "dataset.split=day"].

    Raises:
        InputError: for a key that is not known, with those that are.
    """
    read = parse(Data, chosen(data), "data")
    _, layer, of_dataset = layer_of({}, {}, changes)
    return read.model_copy(update={"changes": read.changes | of_dataset}), layer


@flow(log_prints=True, validate_parameters=False)
@explain_mistakes
def prepare_day(data: Data) -> State[dict[str, Any]]:
    """Turn the events up to a day into sessions, and nothing more.

    Args:
        data: Which events, up to which day, and where results go.
    """
    settings = resolve(parse(Data, data, "data"))
    name_run(f"{settings.dataset.name} {settings.data.until}")
    show, hours = prefect_ui.show_sessions, settings.limits.prepare_hours
    prepare_as_task = as_task(stages.prepare, PREPARE, show=show, hours=hours, try_again_after=AGAIN)
    with alone(settings, "preparation", get_run_logger().info, str(runtime.flow_run.id or "")):
        sessions = prepare_as_task(settings)
    rows = ", ".join(f"{name} {value}" for name, value in session_rows(sessions.facts)[-3:])
    verdict = f"{rows}; seconds: {phase_seconds(sessions.facts)}" if not sessions.reused else "was there already"
    return Completed(message=verdict, data={"verdict": verdict, "in_service": ""})


@flow(log_prints=True, validate_parameters=False, on_failure=[notify_of_end], on_crashed=[notify_of_end])
@explain_mistakes
def backfill(
    period: Period,
    data: PastForm = {},  # noqa: B006  (never changed)
    what: What = "nights",
    preset: PresetName = ANY_PRESET,
    changes: Lines = [],  # noqa: B006
) -> State[list[dict[str, str]]]:
    """Run the nights of past days in order. A day that fails is named in the table at the end, and the rest goes on.

    Args:
        period: The first and the last day.
        data: Which events, and where results go.
        what: Whole nights, which train a model a day; or sessions alone.
        preset: A published model to begin with.
        changes: Any other setting, a line each, such as training.epochs=3. Empty: as every night.
    """
    given, layer = layers_of(data, changes)
    days = parse(Period, period, "period").days()
    if given.until:
        raise InputError(f"backfill takes first and last in the place of until, got until {given.until}.")
    named = chosen(preset)
    settings = resolve(given, named, layer)
    name_run(f"{settings.dataset.name} {days[0]} to {days[-1]}")

    def one_day(day: date) -> State[Any]:
        of_day = given.model_copy(update={"until": day})
        if what == "sessions":
            return prepare_day(of_day, return_state=True)  # type: ignore[return-value]
        return retrain(of_day, **parameters_of(named, layer), return_state=True)  # type: ignore[return-value]

    with alone(settings, "backfill", get_run_logger().info, str(runtime.flow_run.id or "")):
        rows = list(run_days(days, one_day))
    bad = [row["day"] for row in rows if row["outcome"] == "failed"]
    message = f"{len(bad)} of {len(rows)} days failed: {', '.join(bad)}" if bad else f"All {len(rows)} days are done."
    create_table_artifact(rows, key="backfill-days", description=message)
    return (
        Failed(message=message, data=DaysFailedError(message, rows)) if bad else Completed(message=message, data=rows)
    )


def run_days(days: list[date], one_day: Callable[[date], State[Any]]) -> Iterator[dict[str, str]]:
    """A row for each day: `day`, `outcome` (done or failed), `verdict` (or what went wrong), `in service`, `seconds`.

    Raises:
        LostLockError: when a day found that another writes by now; the days after it are not begun.
    """
    for day in days:
        began = time.monotonic()
        state = one_day(day)
        if state.name == LOST:
            raise LostLockError(state.message)
        summary = (
            state.result() if state.is_completed() else {"verdict": state.message or state.name or "", "in_service": ""}
        )
        outcome = "done" if state.is_completed() else "failed"
        row = {
            "day": str(day),
            "outcome": outcome,
            "verdict": str(summary["verdict"]),
            "in service": summary["in_service"],
        }
        yield row | {"seconds": f"{time.monotonic() - began:.0f}"}
