"""Where the service finds what it answers by: the model, rules, lists and the catalogue, as they are now."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from flows.api_log import log_of
from flows.console import use_plugins_of
from flows.in_service import MODELS, SESSIONS, keeps_seen, model_folder, name_of, newest_sessions
from flows.recommend import reads_past
from flows.rules import dataset_of, reader_of
from modeling.evaluation.pointer import champion_of
from modeling.service.api.in_service import InService, Place
from modeling.service.api.metrics import Metrics
from modeling.service.api.side_by_side import Second
from modeling.service.api.tracking import Tracked
from modeling.service.rules import Rules
from modeling.service.tracking.split import Split
from modeling.service.tracking.store import SECOND, Store, tracked_folder
from preprocessing.source.files import find_files
from preprocessing.source.lookups import read_items
from schemas.artifacts import Artifacts, write_atomically
from schemas.dataset import Dataset, load_dataset
from schemas.errors import InputError, reason


def finder(dataset: str, root: Path, model: str | None) -> Callable[[], Place]:
    """A function that says where the model to use is now: the one asked for, else the one in service."""

    artifacts, name = Artifacts(root), name_of(dataset)  # a YAML that breaks later is no reason to lose the model
    if Path(dataset).is_file():
        use_plugins_of(dataset)
    last: list[Place] = []
    seen: list[object] = []

    def find() -> Place:
        champion = None if model else champion_of(artifacts, name)
        stamps = [champion.model_dump() if champion else None, _changed(artifacts.root / SESSIONS)]
        if last and stamps == seen:
            return last[0]
        folder = model_folder(artifacts, name, model)
        manifest = artifacts.read_manifest(MODELS, folder.name) if folder.parent.name == MODELS else None
        try:
            sessions = newest_sessions(artifacts, name)
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


def second_finder(
    dataset: str, root: Path, model: str, keep: Callable[[], object] = lambda: None
) -> Callable[[], Place]:
    """As `finder`, of the second model of `serving.side_by_side`: models/ID, or previous, the one in service before.

    `keep` is called before a model that is named, and is there, is used.

    What it returns raises InputError of a model of another dataset, as `overnight promote` does.
    """
    if model != "previous":
        return _of_dataset(name_of(dataset), finder(dataset, root, model), keep)
    artifacts, name = Artifacts(root), name_of(dataset)
    made: dict[str, Callable[[], Place]] = {}

    def find() -> Place:
        champion = champion_of(artifacts, name)
        if champion is None or champion.previous is None:
            raise InputError(f"serving.side_by_side: no model was in service for {name!r} before this one.")
        if champion.previous not in made:
            made.clear()
            made[champion.previous] = finder(dataset, root, champion.previous)
        return made[champion.previous]()

    return find


def _of_dataset(name: str, find: Callable[[], Place], keep: Callable[[], object]) -> Callable[[], Place]:
    """As `find`, of one dataset."""
    seen: list[Path] = []

    def checked() -> Place:
        place = find()
        if seen != [place.folder]:
            other = dataset_of(place.folder)
            if other != name:
                raise InputError(
                    f"serving.side_by_side.model: {place.name} is a model of {other!r}, not of {name!r}. `overnight prune` "
                    "lists what there is."
                )
            keep()
            seen[:] = [place.folder]
        return place

    return checked


def second_of(described: Dataset | None, dataset: str, root: Path, source: str | None) -> Second | None:
    """The second model of a dataset, loaded if it can be; None where one model answers all."""
    wanted = described.serving.side_by_side if described else None
    if described is None:
        return None
    file = tracked_folder(root, described.name) / SECOND
    if wanted is None or _kept(file) != wanted.model:
        file.unlink(missing_ok=True)
    if wanted is None:
        return None
    model = wanted.model
    models = InService(
        second_finder(dataset, root, model, lambda: _keep(file, model)),
        Metrics(),
        log_form=log_of(described),
        read_rules=rules_reader(described, dataset, source),
        read_items=items_reader(described, source),
    )
    models.refresh_rules()
    models.refresh_items()
    models.refresh()  # what it cannot load is said in the log, and tried again
    return Second(models, Split(wanted.share, wanted.salt))


def _kept(file: Path) -> str | None:
    """The model that the file names; None where it names none that can be read."""
    try:
        return str(json.loads(file.read_text())["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(file: Path, model: str) -> None:
    """Have `overnight prune` leave a model where it is, as long as the file names it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps({"model": model}) + "\n")


def tracked_of(described: Dataset | None, dataset: str, root: Path, source: str | None) -> Tracked:
    """What is tracked and compared of a dataset."""
    return Tracked(store_of(described, root), _late(described), second_of(described, dataset, root, source))


def tracked_reader(
    described: Dataset | None, dataset: str, root: Path, source: str | None, now: Tracked
) -> Callable[[], Tracked | None]:
    """A function that gives what is tracked and compared whenever the dataset's YAML says that otherwise than before.

    Of `now` stays what is as it was: the store, and the second model with its answers.
    """
    if described is None:
        return lambda: None
    last, given, stamp = [described], [now], [_changed(Path(dataset))]

    def read() -> Tracked | None:
        changed = _changed(Path(dataset))
        if changed == stamp[0]:
            return None
        loaded, before = load_dataset(dataset), last[0].serving
        if loaded.name != described.name:
            raise InputError(
                f"{dataset} is called {loaded.name!r} by now, not {described.name!r}: start the service again."
            )
        stamp[0], last[0] = changed, loaded
        if (loaded.serving.tracking, loaded.serving.side_by_side) == (before.tracking, before.side_by_side):
            return None
        same = loaded.serving.tracking == before.tracking, loaded.serving.side_by_side == before.side_by_side
        given[0] = Tracked(
            given[0].store if same[0] else store_of(loaded, root),
            _late(loaded),
            given[0].second if same[1] else second_of(loaded, dataset, root, source),
        )
        return given[0]

    return read


def _late(described: Dataset | None) -> timedelta:
    tracking = described.serving.tracking if described else None
    return timedelta(hours=tracking.late_hours if tracking else 0)


def store_of(described: Dataset | None, root: Path) -> Store | None:
    """Where what is shown and clicked is kept; None where it is not tracked."""
    wanted = described.serving.tracking if described else None
    if described is None or wanted is None:
        return None
    return Store(tracked_folder(root, described.name), wanted.users, wanted.part_seconds)


def _changed(folder: Path) -> int:
    """When something was put into a folder or taken out; 0 where it is not there."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def rules_reader(described: Dataset | None, dataset: str, source: str | None) -> Callable[[], Rules | None]:
    """A function that gives the dataset's rules whenever they have changed: in its YAML, or in files that it names."""
    if described is None:
        return lambda: None
    readers, seen = [reader_of(described, source)], [_changed(Path(dataset))]

    def read() -> Rules | None:
        changed = _changed(Path(dataset))
        if changed != seen[0]:
            readers[0] = reader_of(load_dataset(dataset), source)
            seen[0] = changed
            if readers[0] is None:
                return Rules()
        return readers[0].read() if readers[0] else None

    return read


def items_reader(dataset: Dataset | None, source: str | None) -> Callable[[], pl.DataFrame | None]:
    """A function that gives the item table whenever its files have changed; nothing of a dataset without one."""
    if dataset is None or dataset.items is None:
        return lambda: None
    try:
        placed = dataset.at(source)
    except InputError:
        return lambda: None  # nobody says where it is
    items, seen = dataset.items, [None]

    def read() -> pl.DataFrame | None:
        files = find_files(placed, items.path, "items.path", items.file_options)
        if files == seen[0]:
            return None
        table = read_items(placed).collect()
        seen[:] = [files]  # type: ignore[list-item]
        return table

    return read


def described(dataset: str, find: Callable[[], Place]) -> Dataset | None:
    """The dataset of the model; None of a name that is described elsewhere, or where the model is of another dataset.

    Raises:
        InputError: for a YAML file that cannot be read.
    """
    try:
        loaded = load_dataset(dataset)
    except InputError:
        if Path(dataset).suffix in (".yaml", ".yml"):
            raise
        return None
    try:
        of_model = dataset_of(find().folder)
    except InputError:
        return loaded  # there is no model yet
    return loaded if loaded.name == of_model else None


def lists_finder(dataset: str, root: Path, given: Path | None) -> Callable[[], Path | None]:
    """A function that says where the newest lists of users are: those given, else what ROOT/lists/DATASET.json names."""

    pointer = root.expanduser() / "lists" / f"{name_of(dataset)}.json"

    def find() -> Path | None:
        if given is not None:
            return given
        try:
            name = str(json.loads(pointer.read_text())["lists"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{pointer} does not name lists ({reason(error)}).") from None
        if not re.fullmatch(r"recommendations/[0-9a-f]+", name):
            raise InputError(f"{pointer} names {name!r}; recommendations/1f2e is expected.")
        return root.expanduser() / name

    return find
