"""`overnight`: the stages of a night from a terminal. Exit code 0: done; 2: a mistake to mend, said in one line; 1: failure."""

import sys
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.api import api
from flows.both_ways import Commands
from flows.by_hand import backfill, promote, prune, rollback, run_flow
from flows.console import end, in_lines, say, say_aside
from flows.endings import in_order
from flows.environment import prepare_environment
from flows.experiments import compare, tune
from flows.export import export, vectors
from flows.init.command import init
from flows.options import (
    DatasetOption,
    JsonOption,
    RootOption,
    SourceOption,
    with_settings,
)
from flows.parts import check, datasets, models, new, steps
from flows.reading import recommend, similar, why
from flows.shown import shown
from flows.together import in_turn, num_started, taking_part
from schemas import machine
from schemas.errors import AwayError, InputError, StageEndedError
from schemas.lock import LostLockError

if TYPE_CHECKING:
    from flows.settings.settings import Settings
    from schemas.artifacts import Manifest

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Every night: raw events become sessions, sessions a next-item model, promoted only if it beats the one in service.",
)


@app.command()
@with_settings
def retrain(settings: "Settings", as_json: JsonOption = False) -> None:
    """The whole night: prepare, train, evaluate, compare, promote, report. Run it again and it only says so."""
    from preprocessing.source.files import source_files

    if settings.dataset.database is None:
        with suppress(AwayError):  # a run tries again
            source_files(settings.dataset)  # a wrong source is named before a server starts
    from flows.night import finished_night
    from flows.reports import terminal
    from flows.serving import only_temporary

    # A server only to say that there is nothing to do would cost more than all else; where people look at one, it is a run.
    summary = finished_night(settings, say_aside) if only_temporary() else None
    recorded = summary is None
    if summary is None:
        summary = _run_flow(settings)
    if summary["nothing_to_do"]:
        say("Nothing to do: every stage was done before, on the same events with the same settings.")
    terminal.print_night(summary, recorded=recorded)
    end(summary, as_json)


@app.command()
@with_settings
def prepare(settings: "Settings", as_json: JsonOption = False) -> None:
    """Raw events -> session Parquet, feature schema, vocabularies, quarantine, a profile of each day."""
    from flows.reports import terminal
    from flows.reports.day_profile import newest_page

    sessions = _prepare(settings)
    page = newest_page(settings.artifacts, settings.dataset, sessions)
    terminal.print_sessions(sessions, page)
    about = {"folder": str(sessions.folder), "artifact": sessions.name, "profile": str(page) if page else None}
    end(sessions.facts | about, as_json)


@app.command()
@with_settings
def profile(
    settings: "Settings",
    day: Annotated[
        datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], help="The day; else the newest one prepared.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The page about one day's events and how they differ from the days before; prepares them if need be."""
    from flows.reports.day_profile import PAGE, render_day

    sessions = _prepare(settings)
    page = render_day(settings.artifacts, settings.dataset, sessions, str(day.date()) if day else None)
    say(str(page.folder / PAGE))
    end({"day": page.facts["day"], "page": str(page.folder / PAGE), "artifact": page.name}, as_json)


@app.command()
def verify(
    root: RootOption = Path("overnight-data"),
    mend: Annotated[bool, typer.Option("--mend", help="Put back and do again what can be.")] = False,
    dataset: DatasetOption = "demo",
    source: SourceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read everything on disk and say what is not as it was written; exit code 1 if anything is not."""
    from flows.ledgers import mend_manifests
    from flows.night_lock import alone_in
    from flows.options import settings_of
    from flows.stages import prepare as run
    from flows.verify import mend_snapshots
    from flows.verify import verify as check
    from schemas.artifacts import Artifacts

    lines = in_lines(say)
    artifacts = Artifacts(root)
    findings = check(artifacts, lines)
    if findings and mend:
        with alone_in(artifacts.root, "verify --mend", say_aside):
            mend_snapshots(artifacts, lines)
            run(settings_of(dataset=dataset, source=source, root=root), lines, verify=True)
            mend_manifests(artifacts, lines)  # of days whose folder was lost
        findings = check(artifacts, lines)
    for finding in findings:
        say(str(finding))
    say(f"Wrong: {len(findings):,}." if findings else "All is as it was written.")
    end({"findings": [vars(finding) for finding in findings]}, as_json)
    if findings:
        raise typer.Exit(1)


@app.command()
@with_settings
def train(settings: "Settings", as_json: JsonOption = False) -> None:
    """Prepare if need be, then fit a model (`overnight models` lists what of). Interrupted, it goes on where it was."""
    with taking_part():
        with in_turn():
            sessions = _prepare(settings)
        model = _train(settings, sessions)
        about = {"folder": str(model.folder), "artifact": model.name, "preset": settings.preset}
        end(model.facts | about, as_json)


@app.command()
@with_settings
def evaluate(
    settings: "Settings",
    model: Annotated[str | None, typer.Option("--model", help="Such as models/1f2e; else the settings' own.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Metrics of a model and of the baselines on the test sessions."""
    from flows import stages
    from flows.in_service import model_of
    from flows.reports import terminal

    named = model_of(settings.artifacts, model) if model else None
    sessions = _prepare(settings)
    chosen = named or _train(settings, sessions)
    evaluation = stages.evaluate(settings, chosen, sessions, say)
    terminal.print_evaluation(evaluation.facts)
    end(evaluation.facts | {"folder": str(evaluation.folder), "artifact": evaluation.name}, as_json)


@app.command()
@with_settings
def backtest(
    settings: "Settings",
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day to predict.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day to predict.")],
    policy: Annotated[
        str,
        typer.Option(
            help="Ways to train, the first of which the rest are compared with: scratch (every day anew), warm (each day "
            "from the day before's model), frozen (the first day's model stays)."
        ),
    ] = "scratch,warm,frozen",
    window: Annotated[
        int | None, typer.Option("--window", min=1, help="Use only so many days before each day; else all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Day by day: train on what was there before, measure on the day. Stopped, it goes on where it was."""
    from flows.backtest import backtest_alone as run
    from flows.reports.day_by_day import PICTURE, TABLE, differences

    if settings.data.until or settings.data.days:
        raise InputError("backtest takes --from, --to and --window in the place of --until and --days.")
    if settings.data.redo:
        raise InputError(
            f"backtest takes no --redo, got {settings.data.redo}: it would do these days again for every day it predicts. "
            "Do them again with `overnight prepare --redo` first."
        )
    done = run(settings, first.date(), last.date(), policy, window, say, say_aside)
    say((done.folder / TABLE).read_text())
    for line in differences(done.facts):
        say(line)
    say(f"Picture: {done.folder / PICTURE}")
    end(done.facts | {"folder": str(done.folder), "artifact": done.name}, as_json)


app.command()(compare)
app.command()(tune)
app.command()(recommend)
app.command()(similar)
app.command()(why)
app.command()(export)
app.command()(vectors)
app.command()(api)
app.command()(shown)


app.command()(backfill)
app.command()(promote)
app.command()(rollback)
app.command()(prune)


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
    say(f"{summary['events']:,} events of {days} days in {out}. Next: overnight retrain --source {quote(str(out))}")
    end(summary, as_json)


app.command()(init)
app.command()(datasets)
app.command()(steps)
app.command()(models)
app.command()(new)
app.command()(check)


@app.command()
def serve(
    root: RootOption = Path("overnight-data"),
    source: SourceOption = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI, on this machine only.")] = 4200,
    watch: Annotated[
        float | None,
        typer.Option(
            envvar="OVERNIGHT_WATCH", min=0, help="New files start a night when none has changed for so many minutes."
        ),
    ] = None,
) -> None:
    """Prefect server, worker and the nightly deployment on this machine, until Ctrl-C."""
    prepare_environment(root)
    from flows.serve import serve as run

    run(root, source, port, watch)


def _run_flow(settings: "Settings") -> dict[str, Any]:
    """The night as a flow run: its summary."""
    from flows.settings.form import parameters_of

    state = run_flow("flows.retrain", "retrain", settings.data, **parameters_of(settings.preset, settings.given))
    summary: dict[str, Any] = state.result(raise_on_failure=True)
    return summary


def _prepare(settings: "Settings") -> "Manifest":
    from flows.night_lock import alone
    from flows.reports.progress import TerminalProgress
    from flows.stages import prepare as run
    from schemas.lock import owner_of

    if owner_of(settings.artifacts.root):  # what is finished need not wait for another's night
        with suppress(Exception):  # work to do; and what fails is to fail below, where it is said
            return run(replace(settings, only_finished=True), lambda _: None)
    with alone(settings, "preparation", say_aside), TerminalProgress() as progress:
        return run(settings, progress)


def _train(settings: "Settings", sessions: "Manifest") -> "Manifest":
    from flows.reports.progress import TRAIN, TerminalProgress
    from flows.stages import train as run

    with TerminalProgress(TRAIN) as progress:
        return run(settings, sessions, progress)


def main() -> None:
    """Run a command; a user's mistake ends with one line and code 2, a failure with its traceback and code 1."""
    try:
        with machine.in_words(passing=True), in_order() if num_started() == 1 else nullcontext():
            app()  # one of several that torchrun started waits for the rest, and is ended by torchrun
    except InputError as error:
        typer.echo(f"overnight: {error}", err=True)
        sys.exit(2)
    except (AwayError, LostLockError, StageEndedError) as error:
        typer.echo(f"overnight: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
