"""`overnight`: the stages of a night from a terminal. Exit code 0: done; 2: a mistake to mend, said in one line; 1: failure."""

import functools
import inspect
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.environment import only_runs_speak, prepare_environment
from schemas.errors import InputError

if TYPE_CHECKING:
    import polars as pl
    from prefect import State

    from flows.settings.settings import Settings
    from schemas.artifacts import Manifest

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Every night: raw events become sessions, sessions a next-item model, promoted only if it beats the one in service.",
)

DatasetOption = Annotated[
    str, typer.Option("--dataset", help="A known name (see `overnight datasets`) or a YAML file.")
]
SourceOption = Annotated[str | None, typer.Option("--source", help="Folder of the files; else $OVERNIGHT_SOURCE.")]
RootOption = Annotated[Path, typer.Option("--root", envvar="OVERNIGHT_ROOT", help="Folder of artifacts and models.")]
UntilOption = Annotated[
    datetime | None, typer.Option("--until", formats=["%Y-%m-%d"], help="Day to evaluate on; else the last full day.")
]
DaysOption = Annotated[int | None, typer.Option("--days", min=2, help="Use only so many days up to then; else all.")]
EngineOption = Annotated[
    str, typer.Option("--engine", help="What prepares events: cpu, gpu (Polars on cuDF) or nvtabular (the features).")
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Prepare with so many processes; with --engine gpu, so many GPUs."),
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
JsonOption = Annotated[bool, typer.Option("--json", help="Print one machine-readable summary as the last line.")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="An artifact such as models/1f2e; else the one in service, else the newest."),
]


def _settings(
    dataset: DatasetOption = "demo",
    source: SourceOption = None,
    root: RootOption = Path("overnight-data"),
    until: UntilOption = None,
    days: DaysOption = None,
    engine: EngineOption = "cpu",
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    preset: PresetOption = None,
    set_: SetOption = None,
) -> "Settings":
    prepare_environment(root)
    from flows.settings.layers import read_changes
    from flows.settings.settings import Data, resolve
    from schemas.errors import parse

    changes, groups = read_changes(set_ or [])
    day = until.date() if until else None
    given = {
        "dataset": dataset,
        "source": source,
        "root": root.resolve(),
        "until": day,
        "days": days,
        "engine": engine,
        "workers": workers,
        "scheduler": scheduler,
        "changes": changes,
    }
    return resolve(parse(Data, given, "data"), preset, groups)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_settings` after its own; it receives what they make as its first argument."""
    common = inspect.signature(_settings).parameters
    _, *own = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def run(**given: Any) -> None:
        settings = _settings(**{name: given.pop(name) for name in common})
        command(settings, **given)

    parameters = [*common.values(), *own]
    keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    run.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@app.command()
@with_settings
def retrain(settings: "Settings", as_json: JsonOption = False) -> None:
    """The whole night: prepare, train, evaluate, compare, promote, report. Run it again and it only says so."""
    from preprocessing.source.files import source_files

    source_files(settings.dataset)  # a wrong source is named before a server starts
    from flows.server import prefect_server

    with prefect_server(functools.partial(typer.echo, err=True)):
        from flows.retrain import retrain as flow
        from flows.stages import MISTAKE

        only_runs_speak()
        state: State[Any] = flow(settings.data, settings.preset, **settings.given, return_state=True)  # type: ignore[assignment]
    if state.name == MISTAKE:
        raise InputError(state.message)
    summary = state.result(raise_on_failure=True)
    if summary["nothing_to_do"]:
        _say("Nothing to do: every stage was done before, on the same events with the same settings.")
    _show(summary)
    _end(summary, as_json)


@app.command()
@with_settings
def prepare(settings: "Settings", as_json: JsonOption = False) -> None:
    """Raw events -> session Parquet, feature schema, vocabularies, quarantine, a profile of each day."""
    sessions = _prepare(settings)
    _account(sessions)
    _end(sessions.facts | {"folder": str(sessions.folder), "artifact": sessions.name}, as_json)


@app.command()
@with_settings
def train(settings: "Settings", as_json: JsonOption = False) -> None:
    """Prepare if need be, then fit a model (`overnight models` lists what of). Interrupted, it goes on where it was."""
    model = _train(settings, _prepare(settings))
    about = {"folder": str(model.folder), "artifact": model.name, "preset": settings.preset}
    _end(model.facts | about, as_json)


@app.command()
@with_settings
def evaluate(
    settings: "Settings",
    model: Annotated[str | None, typer.Option("--model", help="Such as models/1f2e; else the settings' own.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Metrics of a model and of the baselines on the test sessions."""
    from modeling.evaluation import evaluate as measure

    sessions = _prepare(settings)
    chosen = settings.artifacts.get(model) if model else _train(settings, sessions)
    evaluation = measure(settings.artifacts, chosen, sessions, settings.evaluation, _say)
    _table(evaluation.facts["metrics"])
    _end(evaluation.facts | {"folder": str(evaluation.folder), "artifact": evaluation.name}, as_json)


@app.command()
def recommend(
    items: Annotated[list[str] | None, typer.Argument(help="Item ids of one session, oldest first.")] = None,
    dataset: DatasetOption = "demo",
    root: RootOption = Path("overnight-data"),
    model: ModelOption = None,
    count: Annotated[int, typer.Option("-k", min=1, help="How many to recommend.")] = 10,
    keep_seen: Annotated[bool, typer.Option(help="Recommend items of the session again, too.")] = False,
    new_items: Annotated[
        Path | None,
        typer.Option(
            "--new-items",
            help="Parquet or CSV of items nobody clicked yet: their ids and features, to be recommended too.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The next items for a session given by its item ids, and its labels: `overnight recommend lamp-0012 lamp-0007`."""
    if not items:
        raise InputError("Give the items of a session, oldest first: overnight recommend ITEM [ITEM ...].")
    newcomers = _read_table(new_items) if new_items else None
    folder = _model_folder(root, dataset, model)
    from modeling.config import NEXT_ITEM
    from modeling.recommend import Recommender

    recommender = Recommender(folder)
    summary: dict[str, Any] = {"model": str(folder), "history": items}
    if newcomers is not None:
        added, known = recommender.add_items(newcomers)
        _say(
            f"{added:,} items of {new_items} are new"
            + (f", {known:,} are known to the model already." if known else ".")
        )
        summary |= {"added": added, "already_known": known}
    histories, unknown = recommender.histories([items])
    if unknown:
        _say(f"Not known to this model, read as unknown: {', '.join(map(str, unknown))}.")
    best = []
    if NEXT_ITEM in recommender.model.heads:
        best = recommender.recommend(histories, count, filter_seen=not keep_seen)[0]
    for place, item in enumerate(best, 1):
        _say(f"{place:3}  {item}")
    predicted = {label: float(value_N[0]) for label, value_N in recommender.predict(histories).items()}
    for label, value in predicted.items():
        _say(f"{label}: {value:.4g}")
    _end(summary | {"unknown": unknown, "recommended": best, "predicted": predicted}, as_json)


@app.command()
def simulate(
    out: Annotated[Path, typer.Option("--out", help="Folder to write; then --dataset demo --source FOLDER.")],
    days: Annotated[int, typer.Option(min=1, help="Days of events.")] = 14,
    users: Annotated[int, typer.Option(min=1, help="People who visit.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same shop.")] = 7,
    as_json: JsonOption = False,
) -> None:
    """Invent a small shop: items, users with tastes, sessions, a few bad rows."""
    from preprocessing.simulate import Shop
    from preprocessing.simulate import simulate as invent

    summary = invent(Shop(days=days, users=users, seed=seed), out)
    _say(f"{summary['events']:,} events of {days} days in {out}. Next: overnight retrain --source {out}")
    _end(summary, as_json)


@app.command()
def datasets(as_json: JsonOption = False) -> None:
    """The datasets that come with Overnight: where to get them and on what terms."""
    from schemas.dataset import known, read_dataset

    found = {name: read_dataset(name) for name in known()}
    for name, dataset in found.items():
        _say(f"{name}: {dataset.title}\n    get it: {dataset.obtain}\n    terms:  {dataset.terms}")
    _end({name: {"title": d.title, "obtain": d.obtain, "terms": d.terms} for name, d in found.items()}, as_json)


@app.command()
def steps(as_json: JsonOption = False) -> None:
    """All steps, checks and encoders a dataset can name, with their options."""
    from flows.settings import offered

    found = offered.for_datasets()
    for line in offered.lines(found):
        _say(line)
    _end(found, as_json)


@app.command()
def models(as_json: JsonOption = False) -> None:
    """All presets, bodies, objectives, losses and heads a model can be put together from, with their options."""
    from flows.settings import offered

    found = offered.for_models()
    for line in offered.lines(found, offered.of_all()):
        _say(line)
    _end(found, as_json)


@app.command()
def serve(
    root: RootOption = Path("overnight-data"),
    source: SourceOption = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI, on this machine only.")] = 4200,
) -> None:
    """Prefect server, worker and the nightly deployment on this machine, until Ctrl-C."""
    prepare_environment(root)
    from flows.serve import serve as run

    run(root, source, port)


def _prepare(settings: "Settings") -> "Manifest":
    from flows.preparation import prepare as run
    from flows.reports.progress import PhasesBar

    with PhasesBar() as bar:
        return run(settings, bar)


def _train(settings: "Settings", sessions: "Manifest") -> "Manifest":
    from modeling.training import train as run

    settings.introduce(_say)
    return run(settings.artifacts, sessions, settings.model, settings.training, _say)


def _model_folder(root: Path, dataset: str, model: str | None) -> Path:
    from modeling.promotion import champion_of
    from schemas.artifacts import Artifacts

    artifacts = Artifacts(root)
    if model and (Path(model) / "config.json").is_file():
        return Path(model)
    champion = champion_of(artifacts, dataset)
    name = model or (champion.model if champion else None)
    if name:
        return artifacts.get(name).folder
    newest = artifacts.newest("models")
    if newest is None:
        raise InputError(f"There is no model in {artifacts.root} yet: run `overnight retrain` first.")
    return newest.folder


def _read_table(path: Path) -> "pl.DataFrame":
    import polars as pl

    try:
        return pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"--new-items {path}: cannot be read as Parquet, or as CSV if its name ends so ({reason})."
        ) from None


def _show(summary: dict[str, Any]) -> None:
    _table(summary["metrics"])
    _say(summary["verdict"])
    _say(f"In service: {summary['in_service']}")
    examples = json.loads((Path(summary["artifacts"]["evaluations"]) / "examples.json").read_text())
    if examples:
        day = summary["test_day"] or "the test"
        _say(f"\nTen sessions of {day}, newest item last, and what the model recommends next:")
    for example in examples:
        history = [str(item) if item is not None else "(a new item)" for item in example["history"]]
        _say(f"  {', '.join(history)}  ->  {', '.join(map(str, example['recommended'][:5]))}")
    _say(f"\nReport: {summary['report']}")
    _say("This run in the Prefect UI: `make serve`, then http://127.0.0.1:4200/runs")


def _account(sessions: "Manifest") -> None:
    """Where the rows went, what came of them, how long it took, what is not as on the days before."""
    from rich.console import Console
    from rich.table import Table

    from flows.reports import account

    facts = sessions.facts
    table = Table(title=f"Sessions up to {facts['test_day'] or 'the end'}")
    table.add_column("what")
    table.add_column("", justify="right")
    for name, value in [*account.told(facts), ("seconds", account.seconds(facts))]:
        table.add_row(name, value)
    Console().print(table)
    for warning in facts["warnings"]:
        _say(f"Warning, {facts['test_day']}: {warning}")
    _say(f"The last day at a glance: {sessions.folder / account.last_profile(facts)}")


def _table(metrics: dict[str, dict[str, float | None]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from flows.reports.results import label_rows, written

    model = next(iter(metrics.values()))
    cutoffs = sorted({int(key.partition("@")[2]) for key in model if "@" in key})[-2:]
    wanted = [f"{name}@{k}" for k in cutoffs for name in ("recall", "ndcg")]  # what 80 columns hold
    ranked = [
        (name, {key: written(row[key]) for key in wanted}) for name, row in metrics.items() if row.keys() >= {*wanted}
    ]
    for first, rows in (("scorer", ranked if wanted else []), ("label", label_rows(metrics))):
        if rows:
            table = Table(title="Model (first) and baselines")
            table.add_column(first)
            for key in rows[0][1]:
                table.add_column(key, justify="right")
            for name, row in rows:
                table.add_row(name, *row.values())
            Console().print(table)


def _say(line: str) -> None:
    typer.echo(line)


def _end(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary, default=str))


def main() -> None:
    """Run a command; a user's mistake ends with one line and code 2, a failure with its traceback and code 1."""
    try:
        app()
    except InputError as error:
        typer.echo(f"overnight: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
