"""A stage as a Prefect task: it logs its progress, shows its result in the UI, and ends in a state that says what happened."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from prefect.task_engine import TaskRunTimeoutError
from prefect.utilities.annotations import opaque

from flows.in_service import InService
from flows.orders import FailedStageError
from flows.reports.progress import run_progress
from flows.settings.settings import Settings
from schemas.artifacts import Manifest
from schemas.errors import InputError, StageEndedError
from schemas.lock import LostLockError
from schemas.machine import in_words

MISTAKE = "Mistake"  # the state of what a person can mend
TIMED_OUT = "TimedOut"  # Prefect's own name for it
LOST = "LostLock"  # of a run that must not write any more
ENDED = "ProcessEnded"  # of a stage whose process ended before it had a result
Given = ParamSpec("Given")
Result = TypeVar("Result", Manifest, InService, str)


def as_task(
    stage: Callable[..., Result],
    phases: tuple[str, ...] = (),
    show: Callable[[Settings, Manifest], None] | None = None,
    *,
    hours: float = 12.0,
    try_again_after: tuple[float, ...] = (),
) -> Callable[..., Result]:
    """`stage(settings, ..., progress)` -> a function of `(settings, ...)` that runs it as a task of the flow it is called in.

    The task ends as Cached when the stage found its work done, and as Mistake, without a traceback, when it raised InputError;
    the function raises that again, LostLockError and StageEndedError likewise. `phases` are those of the stage's progress;
    `show` puts its result into the UI. After `hours` it is stopped. What fails otherwise, as a source that is away for a
    moment, is tried again after each of so many seconds.
    """
    name = stage.__name__

    @task(
        name=name,
        task_run_name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        timeout_seconds=3600 * hours,
        retries=len(try_again_after),
        retry_delay_seconds=list(try_again_after) or None,
        retry_condition_fn=_may_pass,
    )
    def run(settings: Settings, *inputs: Any) -> Any:
        try:
            with in_words(), run_progress(f"{name}-progress", phases, get_run_logger().info) as progress:
                result = stage(settings, *inputs, progress)
        except InputError as error:
            return Failed(name=MISTAKE, message=str(error))
        except LostLockError as error:
            return Failed(name=LOST, message=str(error))
        except StageEndedError as error:
            return Failed(name=ENDED, message=str(error))
        if show and isinstance(result, Manifest):
            show(settings, result)
        return _ended(result)

    @wraps(stage)
    def call(settings: Settings, *inputs: Any) -> Result:
        # Opaque: Prefect sees which task a manifest comes from, and does not look through all that it holds.
        state = run(*map(opaque, (settings, *inputs)), return_state=True)
        too_long = f"The stage {name} was stopped: it took more than {hours:.3g} hours (limits.{name}_hours)"
        _raise_for(state, too_long)
        result: Result = state.result()
        return result

    return call


def _ended(result: Result) -> Any:
    """How a task ends with this result: as Cached where it was there already."""
    if isinstance(result, Manifest) and result.reused:
        return Completed(name="Cached", message=f"{result.name} was there already", data=result)
    return result


def _raise_for(state: State[Any], too_long: str) -> None:
    """Raise again what ended a task, where it has a state of its own."""
    if state.name == MISTAKE:
        raise InputError(state.message)
    if state.name == LOST:
        raise LostLockError(state.message)
    if state.name == ENDED:
        raise StageEndedError(state.message)
    if state.name == TIMED_OUT:
        raise TimeoutError(too_long)


def _may_pass(task: Any, run: Any, state: State[Any]) -> bool:
    """Whether a failure may pass: not a mistake, which a full disk or memory is, too; a lost lock; the end of the time or of a
    process.
    """
    if state.name in (MISTAKE, LOST, ENDED):
        return False
    error = state.result(raise_on_failure=False)
    return not isinstance(error, TaskRunTimeoutError | FailedStageError | AssertionError | TypeError)


def explain_mistakes(flow: Callable[Given, Any]) -> Callable[Given, Any]:
    """For a flow: what the user can mend ends it with one clear line instead of a traceback."""

    @wraps(flow)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Any:
        try:
            with in_words():
                return flow(*args, **kwargs)
        except InputError as error:
            return Failed(name=MISTAKE, message=str(error))
        except LostLockError as error:
            return Failed(name=LOST, message=str(error))
        except StageEndedError as error:
            return Failed(name=ENDED, message=str(error))

    return run
