"""Prepare a dataset: events in; sessions by day, vocabularies and a feature schema out; only days that are not done yet.

    read -> check (quarantine) -> steps -> sort, cut -> steps -> lengths -> learn, day by day -> encode -> write

Every row is accounted for: rows in + carried in = events written + in quarantine + dropped, by name + still open.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from preprocessing.engines import EngineName, engine_of
from preprocessing.execution import batch as batches
from preprocessing.execution.batch import Batch, Run, Workers
from preprocessing.execution.reading import Source
from preprocessing.features.state import State
from preprocessing.features.uses import with_text_types
from preprocessing.history.batches import Days
from preprocessing.history.ledger import Ledger
from preprocessing.history.window import Window, choose_window
from preprocessing.output.snapshot import KIND, View
from preprocessing.plan import build_steps
from preprocessing.sessions import ONE_BATCH
from preprocessing.vocabulary import highest
from schemas.artifacts import Artifacts, Manifest, code_version, identify
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.dataset import Dataset
from schemas.errors import InputError

NO_EFFECT = {
    "source",
    "title",
    "obtain",
    "terms",
    "defaults",
    "profile",
}  # parts of a dataset sessions do not depend on


def prepare(
    artifacts: Artifacts,
    dataset: Dataset,
    *,
    until: date | None = None,
    days: int | None = None,
    engine: EngineName = "cpu",
    workers: Workers = Workers(),  # noqa: B008  (frozen)
    progress: Callable[[str], object] = print,
    now: datetime | None = None,
) -> Manifest:
    """Sessions of `dataset` up to the test day `until` (the last full day if left out), of its last `days` days.

    Days that were done before are not done again unless their events have changed. `now` is for tests.

    Raises:
        InputError: for a source, a dataset or days that do not fit; what was done before stays.
    """
    dataset = with_text_types(dataset)
    engine_of(engine)  # a GPU that is not there is told before any work
    parameters: dict[str, Any] = {"dataset": dataset.model_dump(mode="json", exclude=NO_EFFECT)}
    secrets = tuple(step.secret for _, step in build_steps(dataset))
    here = Path(__file__).parent
    lineage = identify(code=code_version(here, here.parent / "schemas"), secrets=secrets, **parameters)
    with artifacts.unfinished(lineage) as scratch:
        ledger = Ledger.read(artifacts, lineage)
        if not ledger.is_whole(artifacts):
            progress(f"Some of what was done of {dataset.name} is missing or damaged: its days are done again.")
            ledger = Ledger()
        columns = State.read(artifacts, ledger.known).columns
        kept_in = artifacts.root / "inventories" / f"{identify(code=lineage, source=dataset.source)}.parquet"
        source = Source.open(dataset, kept_in, columns, now or datetime.now(UTC))
        inventory = source.inventory
        window = choose_window(inventory.days(), inventory.rows, dataset, source.now, until, days, source.unread_times)
        run = Run(artifacts, dataset, source, scratch, engine, workers, progress, secrets)
        parameters |= {"until": str(window.last) if window.last else None, "days": days}
        if dataset.split == "day":
            view = _view_of_days(run, Days(run, lineage, ledger), window)
        else:
            view = _view_of_whole(run, lineage, window)
        parents = [day.name for day in view.days]
        view_id = identify(code=lineage, parents=tuple(parents), known=view.known_as, **parameters)
        if found := artifacts.find(KIND, view_id):
            progress(f"sessions of {dataset.name} are there already: {found.folder}")
            return found
        return view.write(artifacts, view_id, parameters, run.seconds)


def _view_of_days(run: Run, days: Days, window: Window) -> View:
    """Up to the day tested on."""
    assert window.last
    ledger = days.up_to(window.last)
    wanted = [
        day for day in sorted(ledger.days) if day <= window.last and (window.first is None or day >= window.first)
    ]
    manifests = [run.artifacts.get(ledger.days[day].artifact, by_size=True) for day in wanted]
    known = ledger.before.get(window.last, "")
    test_day = str(window.last)
    view = View(
        run.dataset,
        run.recipe.chains,
        manifests,
        State.read(run.artifacts, known),
        known,
        test_day,
        run.source.inventory.rows,
    )
    has = {day.facts["day"]: day.facts["sessions"] for day in manifests}
    if not has.get(test_day):
        raise InputError(f"No session ends on the test day {test_day}; give another. {view.account()}")
    if not any(count for day, count in has.items() if day < test_day):
        raise InputError(f"No session to train on is left before the test day {test_day}: {view.account()}")
    _check_items(view)
    return view


def _check_items(view: View) -> None:
    if highest(view.known.learnt[ITEM_ID]) < FIRST_ID:
        encoder = view.chains[0].encoders[0]
        raise InputError(f"No item is seen often enough to be known: features.item_id is {encoder!r}; lower min_count.")


def _view_of_whole(run: Run, lineage: str, window: Window) -> View:
    """A dataset taken as one batch: all its sessions, the last item of each to be tested on."""
    inventory = run.source.inventory
    contents = inventory.whole()
    batch_id = identify(
        code=lineage, contents=contents[0], tables=run.source.tables, first=window.first, last=window.last
    )
    artifacts = run.artifacts
    day, known = artifacts.find(batches.KIND, batch_id), f"states/{batch_id}"
    if day is None or artifacts.find("states", batch_id) is None:
        run.source.window, start = window, run.start()
        batch = Batch(run, ONE_BATCH, ONE_BATCH, ONE_BATCH, {ONE_BATCH: contents}, None, start.learnt, start)
        done = batch.do(batch_id)
        _, after = done.states()
        day = done.write_day(artifacts, ONE_BATCH, batch_id, 0, after, done.profiles([]))
        after.write(artifacts, batch_id, {"days": {}})
        done.clean_up()
    view = View(run.dataset, run.recipe.chains, [day], State.read(artifacts, known), known, None, inventory.rows)
    _check_items(view)
    return view
