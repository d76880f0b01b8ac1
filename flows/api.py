"""`overnight api`: the service of a dataset, by its pointer or of one model folder."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.console import end, say, use_plugins_of
from flows.options import DatasetOption, JsonOption, ModelOption, RootOption, SourceOption
from schemas.errors import InputError

if TYPE_CHECKING:
    from modeling.service.api.in_service import Place
    from modeling.service.api.limits import Limits
    from modeling.service.rules import Rules

PORT = 8080


def api(
    dataset: DatasetOption = "demo",
    root: RootOption = Path("overnight-data"),
    source: SourceOption = None,
    lists: Annotated[
        Path | None,
        typer.Option("--lists", help="Folder of lists.parquet for GET /users; else the newest of the nights."),
    ] = None,
    model: ModelOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; this machine alone by default.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen at; 0: any that is free.")
    ] = PORT,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="File of NAME:SHA256 lines, read again when it changes; also $OVERNIGHT_API_KEYS."),
    ] = None,
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="Listen to other machines though nobody needs a key.")
    ] = False,
    new_key: Annotated[
        str | None, typer.Option("--new-key", metavar="NAME", help="Print a new key and its line, and do nothing else.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Start before a model is in service; answer 503 until then.")
    ] = False,
    poll: Annotated[float, typer.Option("--poll", min=0.1, help="Seconds between two looks at the pointer.")] = 5.0,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the model.")] = 1,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="NAME=NUMBER",
            help="Change a limit: body_bytes, sessions, events, items, rate, burst, waiting, batch, seconds. Repeat.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The model in service over HTTP, changed over when another is promoted. POST /recommend {"items": ["lamp-0012"]}."""
    from modeling.service.api.keys import Keys
    from modeling.service.api.keys import new_key as make_key

    if new_key is not None:
        key, line = make_key(new_key)
        say(f"{key}   (shown once: give it to whoever asks)\n{line}   (a line for the file of --keys)")
        end({"key": key, "line": line}, as_json)
        return
    from modeling.service.api.app import Service
    from modeling.service.api.server import bound, make_server, require_safe

    _log_to_stderr()
    found = Keys.of_environment(keys)
    require_safe(host, bool(found), without_keys)
    service = Service(
        finder(dataset, root, model),
        keys=found,
        limits=_limits(limit or []),
        names=names_of_columns(dataset),
        read_rules=_rules(dataset, source),
        find_lists=_lists(dataset, root, lists),
        poll_seconds=poll,
    )
    listening = bound(host, port)
    _load(service.models.load, wait)
    service.lists.refresh()
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    place = service.place
    say(f"{place.name if place else 'No model yet'}: {address}   (Ctrl-C answers what is under way, then ends)")
    end({"address": address, "model": place.name if place else None}, as_json)
    sys.stdout.flush()
    make_server(service, host, port, threads).run(sockets=[listening])


def finder(dataset: str, root: Path, model: str | None) -> Callable[[], Place]:
    """A function that says where the model to use is now: the one asked for, else the one in service."""
    from flows.in_service import MODELS, SESSIONS, keeps_seen, model_folder, name_of, newest_sessions
    from flows.recommend import reads_past
    from modeling.evaluation.pointer import champion_of
    from modeling.service.api.in_service import Place
    from schemas.artifacts import Artifacts

    artifacts = Artifacts(root)
    if Path(dataset).is_file():
        use_plugins_of(dataset)
    last: list[Place] = []
    seen: list[object] = []

    def find() -> Place:
        champion = None if model else champion_of(artifacts, name_of(dataset))
        stamps = [champion.model_dump() if champion else None, _changed(artifacts.root / SESSIONS)]
        if last and stamps == seen:
            return last[0]
        folder = model_folder(artifacts, dataset, model)
        manifest = artifacts.read_manifest(MODELS, folder.name) if folder.parent.name == MODELS else None
        try:
            sessions = newest_sessions(artifacts, dataset)
        except InputError:
            if reads_past(folder):
                raise
            sessions = None
        written = datetime.fromtimestamp((folder / "config.json").stat().st_mtime, UTC)
        last[:] = [
            Place(
                name=manifest.name if manifest else str(folder),
                folder=folder,
                created=manifest.created if manifest else written,
                promoted=champion.promoted if champion else None,
                keep_seen=keeps_seen(artifacts, folder),
                past=sessions if reads_past(folder) else None,
                recent=sessions,
            )
        ]
        seen[:] = stamps
        return last[0]

    return find


def _changed(folder: Path) -> int:
    """When something was put into a folder or taken out; 0 where it is not there."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def names_of_columns(dataset: str) -> dict[str, str]:
    """The names that the log has for columns which the dataset calls otherwise: {"sku": "item_id"}.

    Nothing of a dataset that is not described here, and of columns that are computed or lie in objects.
    """
    from schemas.dataset import load_dataset

    try:
        columns = load_dataset(dataset).events.columns
    except InputError:
        return {}
    return {theirs: ours for ours, theirs in columns.items() if isinstance(theirs, str) and theirs.isidentifier()}


def _rules(dataset: str, source: str | None) -> Callable[[], Rules | None]:
    """A function that gives the dataset's rules whenever they have changed."""
    from flows.rules import reader_of
    from schemas.dataset import load_dataset

    try:
        loaded = load_dataset(dataset)
    except InputError:
        if Path(dataset).suffix in (".yaml", ".yml"):
            raise
        return lambda: None
    reader = reader_of(loaded, source)
    return reader.read if reader else lambda: None


def _lists(dataset: str, root: Path, given: Path | None) -> Callable[[], Path | None]:
    """A function that says where the newest lists of users are: those given, else what ROOT/lists/DATASET.json names."""
    from flows.in_service import name_of

    pointer = root.expanduser() / "lists" / f"{name_of(dataset)}.json"

    def find() -> Path | None:
        if given is not None:
            return given
        try:
            name = str(json.loads(pointer.read_text())["lists"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{pointer} does not name lists ({error}).") from None
        if not re.fullmatch(r"recommendations/[0-9a-f]+", name):
            raise InputError(f"{pointer} names {name!r}; recommendations/1f2e is expected.")
        return root.expanduser() / name

    return find


def _limits(given: list[str]) -> Limits:
    from modeling.service.api.limits import Limits
    from schemas.errors import parse

    read = {}
    for change in given:
        name, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"--limit {change!r}: give NAME=NUMBER, such as rate=50.")
        try:
            read[name.strip()] = json.loads(value)
        except ValueError:
            raise InputError(f"--limit {change!r}: {value!r} is no number.") from None
    return parse(Limits, read, "--limit")


def _load(load: Callable[[], None], wait: bool) -> None:
    try:
        load()
    except InputError as error:
        if not wait:
            raise InputError(
                f"{error} With --wait the service starts all the same, and takes it up when it is there."
            ) from None
        say(str(error))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("overnight")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
