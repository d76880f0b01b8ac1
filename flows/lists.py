"""Lists for every user, after each night: `recommendations/<id>`, a pointer to the newest, and where asked for a table.

<root>/recommendations/1f2e/lists.parquet      user_id, rank from 1, item, score, source (model)
                           /popular.parquet    the same for users who have none: user_id null, source popularity
<root>/lists/shop.json                         which of them is the newest, and the table that holds it
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from schemas.artifacts import Artifacts, Manifest, identify, write_atomically
from schemas.closure import code_of
from schemas.progress import Progress

if TYPE_CHECKING:
    from flows.settings.settings import Settings
    from modeling.service.rules import Rules

KIND, POINTERS = "recommendations", "lists"
LISTS, POPULAR = "lists.parquet", "popular.parquet"
RECOMMEND = "recommend"  # the phase, in progress
ROOT = Path(__file__).parents[1]
OnProgress = Callable[[Progress | str], object]


class Newest(BaseModel):
    """The newest lists of a dataset."""

    model_config = ConfigDict(frozen=True)

    lists: str
    model: str
    when: datetime
    table: str = ""
    """The table that holds them, with the name of its database; empty where none does."""


def newest_lists(artifacts: Artifacts, dataset: str) -> Newest | None:
    """What the pointer says; None where there is none that can be read."""
    try:
        return Newest.model_validate_json(_pointer(artifacts, dataset).read_text())
    except (OSError, ValueError):
        return None


def make_lists(settings: Settings, sessions: Manifest, progress: OnProgress) -> Manifest:
    """Sessions and the model in service -> `recommendations/<id>`, the newest from then on, and the table of `serving.lists`.

    Raises:
        InputError: when no model is in service, and for a database that cannot be used.
    """
    from flows.in_service import keeps_seen, model_folder
    from flows.publish_table import Target, publish
    from flows.rules import reader_of

    wanted, artifacts = settings.dataset.serving.lists, settings.artifacts
    assert wanted is not None
    folder = model_folder(artifacts, settings.dataset.name)
    rules = reader_of(settings.dataset, settings.dataset.source or None)
    hides = settings.dataset.serving.rules.hide_seen
    asked: dict[str, Any] = {"k": wanted.k, "keep_seen": keeps_seen(artifacts, folder) if hides is None else not hides}
    if rules:
        asked |= {"rules": settings.dataset.serving.rules.model_dump(mode="json"), "files": [*map(str, rules.stamps())]}
    parents = (sessions.name, f"models/{folder.name}")
    lists_id = identify(
        code=code_of(ROOT, ("modeling.service.bulk", "modeling.service.everyone")), parents=parents, **asked
    )
    made = artifacts.find(KIND, lists_id) or _make(
        artifacts, lists_id, parents, sessions, folder, asked, rules.read() if rules else None, progress
    )
    target = Target(wanted.to, wanted.table) if wanted.to else None
    before, table = newest_lists(artifacts, settings.dataset.name), str(target or "")
    if before and (before.lists, before.table) == (made.name, table):
        return made
    artifacts.begin_work()
    if target:
        publish([made.folder / LISTS, made.folder / POPULAR], target, progress)
    newest = Newest(lists=made.name, model=parents[1], when=datetime.now(UTC), table=table)
    write_atomically(_pointer(artifacts, settings.dataset.name), newest.model_dump_json(indent=2) + "\n")
    return made.model_copy(update={"reused": False})


def _make(
    artifacts: Artifacts,
    lists_id: str,
    parents: tuple[str, ...],
    sessions: Manifest,
    model: Path,
    asked: dict[str, Any],
    rules: Rules | None,
    progress: OnProgress,
) -> Manifest:
    artifacts.begin_work()
    from modeling.service.bulk import write_lists
    from modeling.service.everyone import histories_of_users, popular_table

    with artifacts.write(KIND, lists_id, parents=parents, parameters=dict(asked)) as draft:
        recommender, users, histories = histories_of_users(model, sessions.folder, rules=rules)
        k, out = asked["k"], draft.folder / "made"
        counts = write_lists(
            recommender,
            histories,
            out,
            k,
            filter_seen=not asked["keep_seen"],
            progress=lambda done: progress(Progress(RECOMMEND, done, users)),
            source=True,
        )
        (out / LISTS).rename(draft.folder / LISTS)
        out.rmdir()
        whose = pl.read_parquet_schema(draft.folder / LISTS)["user_id"]
        popular_table(recommender, k, whose).write_parquet(draft.folder / POPULAR)
        draft.facts = {"users": users} | counts
    message = f"{counts['rows']:,} rows for {users:,} users"
    progress(Progress(RECOMMEND, 1, 1, f"{message}, of whom {counts['empty']:,} have no item to go by"))
    return draft.manifest


def _pointer(artifacts: Artifacts, dataset: str) -> Path:
    return artifacts.root / POINTERS / f"{dataset}.json"
