"""What else can be started from a form in Prefect's UI: backtest, promote, rollback, prune."""

import base64
import os
from pathlib import Path
from typing import Any, Literal

from prefect import State, flow, runtime
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows import in_service
from flows.backfill import Period, layers_of
from flows.backtest import backtest_alone
from flows.by_hand import KEEP_DAYS, KEEP_MODELS
from flows.child import Child
from flows.prune import in_bytes
from flows.prune import prune as run_prune
from flows.reports.day_by_day import PICTURE, TABLE, differences
from flows.reports.run_names import name_run
from flows.settings.form import ANY_DATASET, ANY_PRESET, DATASET, BacktestForm, DatasetName, Lines, PresetName, chosen
from flows.settings.settings import resolve
from flows.tasks import explain_mistakes
from flows.tracking.follow import follow
from flows.vectors import after_change
from modeling.evaluation.pointer import Champion
from schemas.artifacts import Artifacts
from schemas.errors import InputError, parse

Hold = Literal["as it is", "hold", "release"]


@flow(log_prints=True, validate_parameters=False)
@explain_mistakes
def backtest(
    period: Period,
    data: BacktestForm = {},  # noqa: B006  (never changed)
    policies: str = "scratch,warm,frozen",
    window: int = 0,
    preset: PresetName = ANY_PRESET,
    changes: Lines = [],  # noqa: B006
) -> State[dict[str, Any]]:
    """Day by day: train on what was there before, measure on the day. Stopped, it goes on where it was.

    Args:
        period: The first and the last day to predict.
        data: Which events, and where results go.
        policies: Ways to train, the first of which the rest are compared with: scratch, warm, frozen.
        window: Use only so many days before each day; 0 uses all.
        preset: A published model to begin with.
        changes: Any other setting, a line each, such as training.epochs=3. Empty: as every night.
    """
    given, layer = layers_of(data, changes)
    settings, dates = resolve(given, chosen(preset), layer), parse(Period, period, "period")
    if settings.data.until or settings.data.days or settings.data.redo:
        raise InputError("A backtest takes period and window in the place of until and days, and no redo.")
    name_run(f"{settings.dataset.name} {dates.first} to {dates.last}")
    log, run = get_run_logger().info, str(runtime.flow_run.id or "")
    with Child() as child:
        done = backtest_alone(settings, dates.first, dates.last, policies, window or None, log, log, run, child.does)
    lines = differences(done.facts)
    table = (done.folder / TABLE).read_text()
    create_markdown_artifact("\n\n".join([*lines, table]), key="backtest", description=lines[0] if lines else "")
    picture = base64.b64encode((done.folder / PICTURE).read_bytes()).decode()
    drawn = (
        f"![The days](data:image/svg+xml;base64,{picture})"  # an image artifact would show its whole address as well
    )
    create_markdown_artifact(drawn, key="backtest-days", description=done.name)
    return Completed(message=lines[0] if lines else done.name, data=done.facts)


@flow(log_prints=True)
@explain_mistakes
def promote(
    dataset: DatasetName = ANY_DATASET, model: str = "", hold: Hold = "as it is", because: str = "", root: str = ""
) -> State[str]:
    """Put a model into service by hand, against a comparison's verdict too; or hold what is in service.

    Args:
        dataset: One of the list, or its YAML file.
        model: Such as models/1f2e. Empty: what is in service stays, and only the hold changes.
        hold: Whether nights are to leave what is in service as it is from now on.
        because: Why, for those who read the history.
        root: Folder of artifacts and models. Empty: $OVERNIGHT_ROOT or overnight-data.
    """
    dataset = chosen(dataset) or DATASET
    name_run(f"{dataset} {model or hold}")
    if not model and hold == "as it is":
        raise InputError("promote needs a model, such as models/1f2e, or hold or release.")
    to_hold = None if hold == "as it is" else hold == "hold"
    champion = in_service.change(_artifacts(root), dataset, model or None, to_hold, because)
    follow(_artifacts(root), in_service.name_of(dataset), get_run_logger().info)
    after_change(_artifacts(root), dataset, get_run_logger().info)
    held = f"; {champion.hold}" if champion.hold else ""
    return _changed(champion, held if to_hold is not None or not held else f". {in_service.still_held(champion)}")


@flow(log_prints=True)
@explain_mistakes
def rollback(dataset: DatasetName = ANY_DATASET, because: str = "", root: str = "") -> State[str]:
    """Put the model back that was in service before; run again, it goes one step further back.

    Args:
        dataset: One of the list, or its YAML file.
        because: Why, for those who read the history.
        root: Folder of artifacts and models. Empty: $OVERNIGHT_ROOT or overnight-data.
    """
    dataset = chosen(dataset) or DATASET
    name_run(f"{dataset} rollback")
    champion = in_service.rollback(_artifacts(root), dataset, because)
    follow(_artifacts(root), in_service.name_of(dataset), get_run_logger().info)
    after_change(_artifacts(root), dataset, get_run_logger().info)
    held = f". {in_service.still_held(champion)}" if champion.hold else "."
    return _changed(champion, f"{held} {in_service.further(champion)}")


@flow(log_prints=True)
@explain_mistakes
def prune(
    keep_models: int = KEEP_MODELS, keep_days: int = KEEP_DAYS, remove: bool = False, root: str = ""
) -> State[dict[str, Any]]:
    """List what nothing needs any more, and the size of everything; with remove, remove it.

    Args:
        keep_models: Of each dataset, so many of the newest models stay.
        keep_days: What was made in the last so many days stays.
        remove: Off: only list it.
        root: Folder of artifacts and models. Empty: $OVERNIGHT_ROOT or overnight-data.
    """
    if keep_models < 1 or keep_days < 0:
        raise InputError(f"keep_models {keep_models} is to be 1 at least, keep_days {keep_days} 0 at least.")
    name_run("prune" if remove else "prune, dry run")
    pruned = run_prune(_artifacts(root), keep_models, keep_days, remove=remove, say=get_run_logger().info)
    for line in pruned.lines():
        print(line)
    freed, size = in_bytes(pruned.freed.total()), in_bytes(pruned.sizes.total())
    message = f"{'Removed' if remove else 'Not needed, and still there'}: {freed} of {size}."
    create_table_artifact(pruned.rows(), key="disk", description=message)
    return Completed(message=message, data=pruned.summary())


def _artifacts(root: str) -> Artifacts:
    return Artifacts(Path(root or os.environ.get("OVERNIGHT_ROOT", "overnight-data")))


def _changed(champion: Champion, more: str = "") -> State[str]:
    replaced = champion.history[-1].replaced if champion.history else None
    message = f"In service: {champion.model}{f' (before: {replaced})' if replaced else ''}{more}"
    return Completed(message=message, data=champion.model)
