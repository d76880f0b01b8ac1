"""Commands for what is not done every night: `overnight backfill`, `promote`, `rollback`, `prune`."""

from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.console import end, say, say_aside
from flows.environment import only_runs_speak
from flows.options import BecauseOption, DatasetOption, JsonOption, RootOption, with_settings
from schemas.errors import InputError, StageEndedError, unknown
from schemas.lock import LostLockError

if TYPE_CHECKING:
    from prefect import State

    from flows.settings.settings import Settings
    from modeling.evaluation.pointer import Champion

KEEP_MODELS, KEEP_DAYS = 14, 7


@with_settings
def backfill(
    settings: "Settings",
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day.")],
    what: Annotated[str, typer.Option("--what", help="nights: a model a day; sessions: prepare alone.")] = "nights",
    as_json: JsonOption = False,
) -> None:
    """Run past nights in order, each as a run of its own. A bad day does not stop the rest; code 1 if there was any."""
    if what not in ("nights", "sessions"):
        raise unknown("--what", what, ("nights", "sessions"))
    if first > last:
        raise InputError(
            f"--from {first.date()} lies after the last day, --to {last.date()}: first day, then last day."
        )
    state = run_flow(
        "flows.backfill", "backfill", _period(first, last), settings.data, what, settings.preset, settings.given
    )
    result: Any = state.result(raise_on_failure=False)
    rows = getattr(result, "rows", result)
    if not isinstance(rows, list):  # it ended before its table
        state.result(raise_on_failure=True)
    for row in rows:
        say("  ".join([row["day"], row["outcome"], f"{row['seconds']:>5} s", row["verdict"]]))
    say(str(state.message))
    end({"days": rows}, as_json)
    if not state.is_completed():
        raise typer.Exit(1)


def _period(first: datetime, last: datetime) -> dict[str, Any]:
    return {"first": first.date(), "last": last.date()}


def run_flow(module: str, name: str, *given: Any, **more: Any) -> "State[Any]":
    """A flow of ours on the server that there is, or on a temporary one: the state it ended in.

    Raises:
        InputError: for what the user can mend.
        LostLockError: when another took over while the run was paused.
        StageEndedError: when the process of a stage ended without a result.
    """
    from flows.server import prefect_server

    with prefect_server(say_aside):
        from flows.tasks import ENDED, LOST, MISTAKE

        only_runs_speak()
        flow = getattr(import_module(module), name)
        state: State[Any] = flow(*given, **more, return_state=True)
    if state.name == MISTAKE:
        raise InputError(state.message)
    if state.name == LOST:
        raise LostLockError(state.message)
    if state.name == ENDED:
        raise StageEndedError(state.message)
    return state


def promote(
    model: Annotated[str | None, typer.Argument(help="An artifact such as models/1f2e.")] = None,
    dataset: DatasetOption = "demo",
    root: RootOption = Path("overnight-data"),
    because: BecauseOption = "",
    hold: Annotated[
        bool | None,
        typer.Option("--hold/--release", help="Have nights leave what is in service as it is; or not any more."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a model into service by hand, against a comparison's verdict too; or hold what is in service."""
    from flows import in_service
    from flows.tracking.follow import follow
    from flows.vectors import after_change
    from schemas.artifacts import Artifacts

    if model is None and hold is None:
        raise InputError(
            "promote needs a model, such as models/1f2e (`overnight promote MODEL`), or --hold or --release."
        )
    artifacts = Artifacts(root)
    champion = in_service.change(artifacts, dataset, model, hold, because)
    follow(artifacts, in_service.name_of(dataset), say_aside)
    after_change(artifacts, dataset, say_aside)
    if model is not None:
        _say_changed(champion, hold)
    if hold is not None:
        say(f"{champion.model} is {champion.hold}." if champion.hold else f"{champion.model} is not held any more.")
    _end(champion, dataset, as_json)


def rollback(
    dataset: DatasetOption = "demo",
    root: RootOption = Path("overnight-data"),
    because: BecauseOption = "",
    as_json: JsonOption = False,
) -> None:
    """Put the model back that was in service before. The one taken out comes back by `overnight promote` only."""
    from flows import in_service
    from flows.tracking.follow import follow
    from flows.vectors import after_change
    from schemas.artifacts import Artifacts

    artifacts = Artifacts(root)
    champion = in_service.rollback(artifacts, dataset, because)
    follow(artifacts, in_service.name_of(dataset), say_aside)
    after_change(artifacts, dataset, say_aside)
    _say_changed(champion)
    say(in_service.further(champion))
    _end(champion, dataset, as_json)


def prune(
    root: RootOption = Path("overnight-data"),
    keep_models: Annotated[
        int, typer.Option("--keep-models", min=1, help="Of each dataset, so many of the newest models stay.")
    ] = KEEP_MODELS,
    keep_days: Annotated[
        int, typer.Option("--keep-days", min=0, help="What was made in the last so many days stays.")
    ] = KEEP_DAYS,
    remove: Annotated[bool, typer.Option("--remove/--dry-run", help="Remove it, or only list it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what nothing needs any more, and the size of everything below a root; with --remove, remove it."""
    from flows.prune import prune as run
    from schemas.artifacts import Artifacts

    pruned = run(Artifacts(root), keep_models, keep_days, remove=remove, say=say_aside)
    for line in pruned.lines():
        say(line)
    end(pruned.summary(), as_json)


def _say_changed(champion: "Champion", hold: bool | None = None) -> None:
    from flows.in_service import still_held

    change = champion.history[-1]
    say(f"In service: {champion.model}" + (f", in place of {change.replaced}" if change.replaced else ""))
    if hold is None and champion.hold:
        say(still_held(champion))


def _end(champion: "Champion", dataset: str, as_json: bool) -> None:
    replaced = champion.history[-1].replaced if champion.history else None
    about = {"dataset": dataset, "in_service": champion.model, "replaced": replaced}
    end(about | ({"held": str(champion.hold)} if champion.hold else {}), as_json)
