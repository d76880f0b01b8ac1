"""What below an artifact root nothing needs any more: listed with its size, and removed where that is asked for.

What stays at any age:

    champions, ledgers, inventories   all
    days, states                      those that a ledger names: a finished day is a fact
    models                            in service, what a rollback puts back, what `serving.side_by_side` names, the
                                      newest N of each dataset (those that were trained with more seeds, to measure their
                                      scatter, do not count)
    sessions                          of these models, and the newest of each dataset; all, while a process trains or tunes
    evaluations                       of models that stay on sessions that stay
    recommendations, vectors          the newest of each dataset
    comparisons, reports, ...         all, the record of every night; they are small
    what was made                     in the last D days, or since a backtest began that was stopped and may go on
    unfinished                        what a process works on, or touched in the last D days; of a backtest, 30 at least

All else of these, and of unfinished, goes. A folder is renamed before it is removed, so it is there whole or not at all.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.drafts import GOING, days_ago, is_left, is_trained_below, open_backtests
from flows.ledgers import read_ledgers
from flows.lists import POINTERS, newest_lists
from flows.night_lock import alone_in
from flows.reports.disk import in_bytes as in_bytes
from flows.tracking.pruned import mark
from flows.vectors import newest_vectors
from modeling.evaluation.pointer import champion_of, changing
from modeling.service.tracking.store import second_models
from schemas.artifacts import MANIFEST, UNFINISHED, Artifacts, Manifest
from schemas.errors import InputError
from schemas.features import FeatureSchema
from schemas.lock import require_held

REMOVABLE = ("days", "states", "sessions", "models", "evaluations", "recommendations", "vectors")
SCHEMA = "schema.json"
Say = Callable[[str], object]


@dataclass
class Pruned:
    """Bytes below a root by kind, and what of it nothing needs."""

    sizes: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    going: dict[str, list[str]] = field(default_factory=dict)
    freed: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    removed: bool = False

    def rows(self) -> list[dict[str, str]]:
        """A row for each kind, and one for all of it: what there is, what nothing needs, what removing that frees."""
        rows = []
        for kind in [*(kind for kind in sorted(self.sizes) if self.sizes[kind] or self.going.get(kind)), ""]:
            total = not kind
            gone = sum(map(len, self.going.values())) if total else len(self.going.get(kind, ()))
            size, freed = (table.total() if total else table[kind] for table in (self.sizes, self.freed))
            count = self.counts.total() if total else self.counts[kind]
            row = {"kind": kind or "all", "folders": f"{count:,}", "size": in_bytes(size)}
            rows.append(row | {"not needed": f"{gone:,}", "frees": in_bytes(freed)})
        return rows

    def lines(self) -> Iterator[str]:
        """For a terminal: the table, each name, what was done."""
        if not self.sizes.total() and not self.counts.total() and not self.going:
            yield "There is nothing below this root yet: `overnight prepare` or `overnight retrain` makes something."
            return
        for row in [{name: name for name in self.rows()[0]}, *self.rows()]:
            kind, *values = row.values()
            yield f"{kind:<14}" + "".join(f"{value:>12}" for value in values)
        for kind, names in sorted(self.going.items()):
            yield from (f"{'removed' if self.removed else 'not needed'}: {kind}/{name}" for name in names)
        for name in self.unread:
            yield (
                f"left alone: {name}: a link, or its {MANIFEST} cannot be read or names another folder; `overnight verify` "
                "says what helps."
            )
        if not self.removed and self.going:
            yield "Nothing was removed. To remove it: overnight prune --remove, with the same options."
        if not self.going:
            yield "All of it is needed: there is nothing to remove."

    def summary(self) -> dict[str, Any]:
        """As JSON has it, sizes in bytes."""
        totals = {"bytes": self.sizes.total(), "freed": self.freed.total(), "sizes": dict(self.sizes)}
        return totals | {"not_needed": self.going, "removed": self.removed}


def prune(artifacts: Artifacts, keep_models: int, keep_days: int, *, remove: bool = False, say: Say = print) -> Pruned:
    """List what nothing needs, by the rules above with N = `keep_models` and D = `keep_days`; with `remove`, remove it.

    It waits for a night that is under way only where something is to be removed.

    Raises:
        InputError: when there is no such root, or a pointer or a ledger cannot be read, for these say what is needed.
    """
    if not artifacts.root.is_dir():
        raise InputError(f"There is nothing to prune: {artifacts.root} is not a folder. Give --root.")
    since = days_ago(keep_days)
    with ExitStack() as locks:
        if remove:
            locks.enter_context(alone_in(artifacts.root, "prune", say))
            locks.enter_context(changing(artifacts, "prune", say))
        pruned = _plan(artifacts, keep_models, since)
        if remove:
            models = _by_dataset(artifacts, pruned.going.get("models", []))
            for kind, names in pruned.going.items():
                for name in names:
                    _remove(artifacts.root, kind, name)
            pruned.removed = True
            mark(artifacts, models, say)
    return pruned


def _plan(artifacts: Artifacts, keep_models: int, since: datetime) -> Pruned:
    pruned, root = Pruned(), artifacts.root
    found: dict[str, Manifest] = {}
    for kind in REMOVABLE:
        for folder in sorted((root / kind).glob("[!.]*")):
            name = f"{kind}/{folder.name}"
            linked = folder.is_symlink() or folder.parent.is_symlink()  # what it points to is not this root's
            manifest = None if linked else artifacts.read_manifest(kind, folder.name)
            if manifest is None or manifest.name != name:
                pruned.unread.append(name)
            else:
                found[name] = manifest
    needed = _needed(artifacts, found, keep_models, min([since, *open_backtests(root, since)]))
    for name in sorted(set(found) - needed):
        kind, _, artifact_id = name.partition("/")
        pruned.going.setdefault(kind, []).append(artifact_id)
    if left := [path.name for path in sorted((root / UNFINISHED).glob("*")) if is_left(path, since)]:
        pruned.going[UNFINISHED] = left
    _measure(root, pruned)
    return pruned


def _needed(artifacts: Artifacts, found: dict[str, Manifest], keep_models: int, since: datetime) -> set[str]:
    ledgers, problems = read_ledgers(artifacts)
    if problems:
        raise InputError(
            f"{problems[0]} Until it can be read nobody knows which days are needed, and nothing is removed."
        )
    needed = {manifest.name for manifest in found.values() if manifest.created >= since}
    for ledger in ledgers:
        needed |= {ledger.about.state, *ledger.days["artifact"], *ledger.days["statistics"], *ledger.days["before"]}
    for path in (artifacts.root / "champions").glob("*.json"):
        if champion := champion_of(artifacts, path.stem):
            needed |= {champion.model, champion.previous or ""}
    needed |= {
        newest.lists
        for path in (artifacts.root / POINTERS).glob("*.json")
        if (newest := newest_lists(artifacts, path.stem))
    }
    for path in (artifacts.root / "champions").glob("*.json"):
        if vectors := newest_vectors(artifacts, path.stem):
            needed.add(vectors.vectors)
    needed |= second_models(artifacts.root)
    of_seeds = _of_more_seeds(artifacts, found)
    nightly = [model for model in _of_kind(found, "models") if model.name not in of_seeds]
    needed |= set(_newest(nightly, keep_models))
    needed |= set(_newest(_of_kind(found, "sessions"), 1))
    if is_trained_below(artifacts.root):  # by train, tune or Python, which hold no lock that prune would wait for
        needed |= {made.name for made in _of_kind(found, "sessions")}
    models = [model for model in _of_kind(found, "models") if model.name in needed]
    needed |= {str(model.facts["refit_of"]) for model in models if model.facts.get("refit_of")}  # how it was measured
    for model in _of_kind(found, "models"):
        needed |= {parent for parent in model.parents if model.name in needed and parent.startswith("sessions/")}
    return needed | {made.name for made in _of_kind(found, "evaluations") if needed.issuperset(made.parents)}


def _of_more_seeds(artifacts: Artifacts, found: dict[str, Manifest]) -> set[str]:
    """The models that were trained only to measure the scatter between seeds: never compared, so no night's candidates."""
    manifests = {
        kind: [
            made for path in (artifacts.root / kind).glob("[!.]*") if (made := artifacts.read_manifest(kind, path.name))
        ]
        for kind in ("scatters", "comparisons")
    }
    compared = {parent for made in manifests["comparisons"] for parent in made.parents}
    more = {parent for made in manifests["scatters"] for parent in made.parents[1:]} - compared
    return {found[name].parents[0] for name in more if name in found and found[name].parents}


def _by_dataset(artifacts: Artifacts, models: list[str]) -> dict[str, list[str]]:
    """The names of models by their dataset; those whose schema cannot be read are left out."""
    named: dict[str, list[str]] = {}
    for model in models:
        with suppress(InputError, OSError, ValueError):
            dataset = FeatureSchema.read(artifacts.root / "models" / model / SCHEMA).dataset
            named.setdefault(dataset, []).append(f"models/{model}")
    return named


def _of_kind(found: dict[str, Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in found.values() if manifest.kind == kind]


def _newest(manifests: Iterable[Manifest], count: int) -> Iterator[str]:
    """The names of the newest of each dataset; of those whose schema cannot be read, as of one dataset."""
    seen: Counter[str] = Counter()
    for manifest in sorted(manifests, key=lambda manifest: manifest.created, reverse=True):
        try:
            dataset = FeatureSchema.read(manifest.folder / SCHEMA).dataset
        except (InputError, OSError, ValueError):
            dataset = ""
        seen[dataset] += 1
        if seen[dataset] <= count:
            yield manifest.name


def _measure(root: Path, pruned: Pruned) -> None:
    """Sizes by kind. A file with several names counts once, for the kind read first; it is freed with its last name.

    What is gone by now is not counted (a night may be writing), nor what links point to.
    """
    names: Counter[tuple[int, int]] = Counter()
    seen: set[tuple[int, int]] = set()
    for kind in sorted(path.name for path in root.iterdir() if path.is_dir() and not path.is_symlink()):
        going = {root / kind / name for name in pruned.going.get(kind, ())}
        for place, folders, files in os.walk(root / kind):
            if Path(place) == root / kind:
                pruned.counts[kind] = len(folders)
            inside = [Path(place), *Path(place).parents]
            goes = any(folder in going for folder in inside)
            for name in files:
                try:
                    about = (Path(place) / name).lstat()
                except FileNotFoundError:
                    continue
                key = about.st_dev, about.st_ino
                if key not in seen:
                    pruned.sizes[kind] += about.st_size
                    seen.add(key)
                if goes:
                    names[key] += 1
                    if names[key] == about.st_nlink:
                        pruned.freed[kind] += about.st_size


def _remove(root: Path, kind: str, name: str) -> None:
    require_held(root)
    place = root / kind / name
    going = root / UNFINISHED / f"{kind}.{name}{GOING}"
    going.parent.mkdir(exist_ok=True)
    shutil.rmtree(going, ignore_errors=True)
    if place.is_dir() and not place.is_symlink():
        place.rename(going)
        shutil.rmtree(going)
    else:
        place.unlink(missing_ok=True)
