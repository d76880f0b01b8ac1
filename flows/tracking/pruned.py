"""Models whose folders `overnight prune` removed -> a tag of their versions in MLflow, which point to nothing from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from flows.tracking.start import PATIENCE, in_short, run_client
from flows.tracking.state import alone
from flows.tracking.target import is_installed, target_of
from schemas.artifacts import Artifacts


def mark(artifacts: Artifacts, models: Mapping[str, Sequence[str]], say: Callable[[str], object]) -> None:
    """Tag the versions of these models (by dataset, such as models/1f2e) with `overnight.pruned`: the day. Nothing is raised.

    Versions that MLflow has not heard of, and an MLflow that was never used for this root, stay as they are.
    """
    target = target_of(artifacts.root)
    if target is None or not any(models.values()) or not is_installed():
        return
    if target.database is not None and not target.database.is_file():
        return
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    job = {"uri": target.uri, "registry": target.registry, "files": "", "missed": [], "tonight": [], "champions": {}}
    try:
        with alone(target.folder, PATIENCE) as held:
            done, failure = (
                run_client(target, job | {"pruned": {"day": day, "models": models}}) if held else ([], "busy")
            )
    except Exception as error:  # a record that cannot be kept is no reason for prune to fail
        done, failure = [], f"{type(error).__name__}: {error}"
    if count := sum(line.get("pruned", 0) for line in done):
        say(f"MLflow: {count} {'version is' if count == 1 else 'versions are'} tagged overnight.pruned.")
    if failure:
        say(f"MLflow at {target.name}: versions of removed models are not marked ({in_short(failure, target)}).")
