"""The options that commands of `overnight` share, and the settings they make."""

import functools
import inspect
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.environment import prepare_environment
from flows.here import dataset_here
from flows.together import require_alone

if TYPE_CHECKING:
    from flows.settings.settings import Settings

DATASET = "demo"  # where none is named, here or in the working folder's prefect.yaml


def _named_or_here(context: typer.Context, value: str) -> str:
    """What is given, else the dataset of the working folder."""
    source = context.get_parameter_source("dataset")
    return dataset_here() if source is not None and source.name == "DEFAULT" else value


DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset",
        help="A known name (see `overnight datasets`) or a YAML file; else that of the nightly run in prefect.yaml.",
        callback=_named_or_here,
    ),
]
DatasetArgument = Annotated[
    str | None, typer.Argument(metavar="[DATASET]", help="The same as --dataset: a known name or a YAML file.")
]
SourceOption = Annotated[str | None, typer.Option("--source", help="Folder of the files; else $OVERNIGHT_SOURCE.")]
RootOption = Annotated[Path, typer.Option("--root", envvar="OVERNIGHT_ROOT", help="Folder of artifacts and models.")]
UntilOption = Annotated[
    datetime | None, typer.Option("--until", formats=["%Y-%m-%d"], help="Day to evaluate on; else the last full day.")
]
DaysOption = Annotated[int | None, typer.Option("--days", min=2, help="Use only so many days up to then; else all.")]
RedoOption = Annotated[
    str | None,
    typer.Option(
        "--redo",
        metavar="FROM[..TO]",
        help="Do finished days again that the source still holds: 2024-05-01..2024-05-03.",
    ),
]
EngineOption = Annotated[
    str, typer.Option("--engine", help="What prepares events: cpu, gpu (Polars on cuDF) or nvtabular (the features).")
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Prepare on so many cores; with --engine gpu, so many GPUs."),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler", metavar="ADDRESS", help="Prepare with a running Dask scheduler's workers: tcp://HOST:PORT."
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option("--preset", help="A published model to begin with, under what --set says; see `overnight models`."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting: body.dim=128, loss=gbce, dataset.split=day. Repeat."
    ),
]
DevicesOption = Annotated[
    int | None,
    typer.Option("--devices", min=1, help="Train with so many processes, each on a GPU of its own or all on the CPU."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one machine-readable summary as the last line.")]
OfDatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="List the parts of the folders that this YAML names, too.")
]
BecauseOption = Annotated[str, typer.Option("--because", help="Why, for those who read the history of the pointer.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", help="An artifact such as models/1f2e, or a folder; else the one in service for --dataset."
    ),
]


def settings_of(
    dataset: DatasetOption = DATASET,
    source: SourceOption = None,
    root: RootOption = Path("overnight-data"),
    until: UntilOption = None,
    days: DaysOption = None,
    redo: RedoOption = None,
    engine: EngineOption = "cpu",
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    devices: DevicesOption = None,
    preset: PresetOption = None,
    set_: SetOption = None,
) -> "Settings":
    """What the options say, resolved.

    Raises:
        InputError: for options that do not fit.
    """
    prepare_environment(root)
    from flows.settings.layers import read_changes
    from flows.settings.settings import Data, resolve
    from schemas.errors import parse

    changes, groups = read_changes([*(set_ or []), *([f"training.devices={devices}"] if devices else [])])
    day = until.date() if until else None
    given = {
        "dataset": dataset,
        "source": source,
        "root": root.resolve(),
        "until": day,
        "days": days,
        "redo": redo,
        "engine": engine,
        "workers": workers,
        "scheduler": scheduler,
        "changes": changes,
    }
    return resolve(parse(Data, given, "data"), preset, groups)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `settings_of` after its own; it receives what they make as its first argument.

    A command with an argument `named` takes the dataset without `--dataset`, too.
    """
    common = inspect.signature(settings_of).parameters
    _, *own = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def run(**given: Any) -> None:
        require_alone(command.__name__)
        shared = {name: given.pop(name) for name in common}
        if named := given.get("named"):
            shared["dataset"] = _dataset_of(named, shared["dataset"])
        settings = settings_of(**shared)
        command(settings, **given)

    parameters = [*common.values(), *own]
    keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    run.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _dataset_of(named: str, option: str) -> str:
    """The dataset that is named as an argument, and perhaps by --dataset as well."""
    from schemas.errors import InputError

    if option not in (named, DATASET, dataset_here()):
        raise InputError(f"Two datasets: {named!r}, and --dataset {option!r}. Name one.")
    return named
