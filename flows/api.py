"""`overnight api`: the service of a dataset, by its pointer or of one model folder."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.console import end, say
from flows.options import DatasetOption, JsonOption, ModelOption, RootOption, SourceOption
from schemas.errors import InputError

if TYPE_CHECKING:
    from modeling.service.api.limits import Limits

PORT = 8080
BACKLOG = 2048


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
            help="Change a limit: body_bytes, sessions, events, items, tracked, tracked_items, rate, burst, waiting, "
            "batch, seconds. Repeat.",
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
    from flows.api_log import log_of
    from flows.api_sources import (
        described,
        finder,
        items_reader,
        lists_finder,
        rules_reader,
        tracked_of,
        tracked_reader,
    )
    from modeling.service.api.app import Service
    from modeling.service.api.server import bound, make_server, require_safe

    _log_to_stderr()
    found = Keys.of_environment(keys)
    require_safe(host, bool(found), without_keys)
    find = finder(dataset, root, model)
    of_model = described(dataset, find)
    tracked = tracked_of(of_model, dataset, root, source)
    service = Service(
        find,
        keys=found,
        limits=_limits(limit or []),
        log=log_of(of_model),
        read_items=items_reader(of_model, source),
        read_rules=rules_reader(of_model, dataset, source),
        find_lists=lists_finder(dataset, root, lists),
        poll_seconds=poll,
        store=tracked.store,
        late=tracked.late,
        second=tracked.second,
        read_tracked=tracked_reader(of_model, dataset, root, source, tracked),
    )
    if tracked.store:
        tracked.store.start()
    listening = bound(host, port)
    _load(service.models.load, wait)
    service.lists.refresh()
    listening.listen(BACKLOG)  # whoever reads the address below can ask
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    place = service.place
    say(f"{place.name if place else 'No model yet'}: {address}   (Ctrl-C answers what is under way, then ends)")
    end({"address": address, "model": place.name if place else None}, as_json)
    sys.stdout.flush()
    make_server(service, host, port, threads).run(sockets=[listening])


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
