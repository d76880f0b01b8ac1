"""New files of a source start a night, once they have been as they are for some minutes: `overnight serve --watch MINUTES`.

    python -m flows.triggers URL ROOT MINUTES      kept by `overnight serve`

Files are listed, in a folder or an object store, with their sizes and times of writing. Of each deployment of `retrain` the
listing that was seen last is kept in ROOT/watched; what is new or changed since starts a run, under a key that is made of it,
so that the same files never start two, whatever is killed in between. The first listing of all starts none.

Other programs start a night by an event that they send to Prefect's server: docs/databases.md.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import write_atomically
from schemas.errors import AwayError, InputError, parse

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

    from schemas.dataset import Dataset

FOLDER = "watched"
TAG = "new-files"
LONGEST_PAUSE, SHORTEST_PAUSE = 60.0, 0.2  # seconds between two listings
SHOWN = 3  # files in the name of a run
Say = Callable[[str], object]


@dataclass
class Watch:
    """The files of one deployment's source: which of them no run has been started for, and since when they are as they are."""

    file: Path
    """Where the listing that was seen last is kept."""
    known: set[str] | None = None
    _new: set[str] = field(default_factory=set)
    _since: float = 0.0

    def __post_init__(self) -> None:
        if self.known is None and self.file.exists():
            self.known = set(json.loads(self.file.read_text()))

    def look(self, there: set[str], now: float, quiet: float) -> set[str]:
        """What is new among the files that are there and has not changed for `quiet` seconds; nothing before that."""
        if self.known is None:
            self.keep(there)
        assert self.known is not None
        new = there - self.known
        if new != self._new:
            self._new, self._since = new, now
        if not new and there != self.known:  # some were removed
            self.keep(there)
        return new if new and now - self._since >= quiet else set()

    def keep(self, there: set[str]) -> None:
        """From now on these files are not new."""
        write_atomically(self.file, json.dumps(sorted(there)))
        self.known = there


def key_of(new: set[str]) -> str:
    """The key of the run for these files: another for every change of one."""
    return f"files-{hashlib.sha256(json.dumps(sorted(new)).encode()).hexdigest()[:32]}"


def name_of(new: set[str]) -> str:
    """The name of that run until it knows its day."""
    paths = sorted(json.loads(line)[0] for line in new)
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return f"new files: {', '.join(paths[:SHOWN])}{more}"


def listing(dataset: Dataset) -> set[str]:
    """The files of a dataset, a line each: path, size, stamp.

    Raises:
        InputError: when they cannot be listed, or there are none.
    """
    from preprocessing.source.files import find_files

    tables = [("events", dataset.events), ("items", dataset.items), ("users", dataset.users)]
    found = [
        file
        for name, table in tables
        if table
        for file in find_files(dataset, table.path, f"{name}.path", table.file_options)
    ]
    return {json.dumps([file.path, file.size, file.stamp]) for file in found}


class Watcher:
    """The sources of all deployments of `retrain` on one server."""

    def __init__(self, root: Path, quiet: float, say: Say) -> None:
        self.root, self.quiet, self.say = root, quiet, say
        self._watches: dict[str, Watch] = {}
        self._said: dict[str, str] = {}

    def look(self, client: SyncPrefectClient, now: float) -> None:
        """List once, and start the runs that are due."""
        for deployment in _nights(client):
            watch = self._watches.setdefault(str(deployment.id), Watch(self.root / FOLDER / f"{deployment.name}.json"))
            try:
                dataset = _dataset_of(deployment)
                there = listing(dataset) if dataset.database is None else set()
            except (InputError, AwayError) as error:  # a source that is away for a moment: what was seen of it stays
                self._say_once(str(deployment.id), f"{deployment.name}: {error}")
                continue
            self._say_once(str(deployment.id), "")
            if new := watch.look(there, now, self.quiet):
                name = name_of(new)
                client.create_flow_run_from_deployment(
                    deployment.id, name=name, idempotency_key=key_of(new), tags=[*deployment.tags, TAG]
                )
                watch.keep(there)
                self.say(f"{deployment.name}: a run begins, {name}")

    def _say_once(self, deployment: str, line: str) -> None:
        if line and line != self._said.get(deployment):
            self.say(line)
        self._said[deployment] = line


def watch(url: str, root: Path, minutes: float, say: Say = print) -> None:
    """Look again and again, until the process is stopped."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    watcher, quiet = Watcher(root, 60 * minutes, say), 60 * minutes
    with temporary_settings({PREFECT_API_URL: url}):
        while True:
            try:
                with get_client(sync_client=True) as client:
                    watcher.look(client, time.monotonic())
            except Exception as error:  # the server is away, or the disk: there is another look
                say(f"Watching for new files failed, and goes on: {type(error).__name__}: {error}")
            time.sleep(min(LONGEST_PAUSE, max(SHORTEST_PAUSE, quiet / 4)))


def _nights(client: SyncPrefectClient) -> Iterator[DeploymentResponse]:
    from prefect.client.schemas.filters import FlowFilter

    yield from client.read_deployments(flow_filter=FlowFilter.model_validate({"name": {"any_": ["retrain"]}}))


def _dataset_of(deployment: DeploymentResponse) -> Dataset:
    from flows.settings.settings import Data
    from schemas.dataset import load_dataset

    data = parse(Data, (deployment.parameters or {}).get("data") or {}, f"data of {deployment.name}")
    return load_dataset(data.dataset, data.changes).at(data.source, data.root)


if __name__ == "__main__":
    watch(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), lambda line: print(line, flush=True))
