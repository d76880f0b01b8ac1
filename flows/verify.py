"""Whether everything below an artifact root is as it was written, contents and all; and putting back what can be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flows.ledgers import OF_A_DAY, Finding, Needed, mend_manifests, read_ledgers
from schemas.artifacts import MANIFEST, Artifacts, File, Manifest, damaged_files
from schemas.errors import InputError
from schemas.progress import Progress, Report

if TYPE_CHECKING:
    from preprocessing.history.ledger import Ledger

NO_ARTIFACTS = {
    "inventories",
    "ledgers",
    "sources",
    "unfinished",
    "prefect",
    "champions",
    "tuning",
    "locks",
    "mlflow",
    "tracked",
    "quality",
}  # folders of a root without manifests


def verify(artifacts: Artifacts, progress: Report) -> list[Finding]:
    """Read every file below the root that a manifest or a ledger names; returns what is wrong, in order of place.

    Raises:
        InputError: when there is no such root.
    """
    if not artifacts.root.is_dir():
        raise InputError(f"There is nothing to verify: {artifacts.root} is not a folder. Give --root.")
    folders = sorted(_folders(artifacts.root))
    ledgers, findings = read_ledgers(artifacts)
    needed = Needed(ledgers)
    findings += _days(artifacts, ledgers)
    findings += _tracked(artifacts.root)
    for number, folder in enumerate(folders, start=1):
        kind, name = folder.parent.name, folder.name
        manifest = artifacts.read_manifest(kind, name)
        advice = needed.advice(kind, name, manifest)
        if manifest is None:
            findings.append(Finding(f"{kind}/{name}", f"{MANIFEST} is missing or cannot be read", advice))
        else:
            lost = damaged_files(manifest, contents=True)
            findings += [Finding(f"{kind}/{name}/{path}", _problem(manifest, path), advice) for path in lost]
        progress(Progress("verify", number, len(folders)))
    return sorted(findings, key=lambda finding: finding.place)


def mend_snapshots(artifacts: Artifacts, progress: Report) -> None:
    """Put back files of snapshots from the days that they link, where those are whole."""
    mend_manifests(artifacts, progress)
    whole = {file.sha256: place for place, file in _files(artifacts, "days") if file.is_at(place, contents=True)}
    for place, file in _files(artifacts, "sessions"):
        source = whole.get(file.sha256)
        if source and not file.is_at(place, contents=True):
            temporary = place.with_name(f".{place.name}.{os.getpid()}")
            temporary.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, temporary)
            temporary.replace(place)
            progress(Progress("verify", message=f"{place.relative_to(artifacts.root)}: put back from its day."))


def _folders(root: Path) -> Iterator[Path]:
    for kind in root.iterdir():
        if kind.is_dir() and kind.name not in NO_ARTIFACTS and not kind.name.startswith("."):
            yield from (folder for folder in kind.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _files(artifacts: Artifacts, kind: str) -> Iterator[tuple[Path, File]]:
    for folder in sorted((artifacts.root / kind).glob("*")):
        if manifest := artifacts.read_manifest(kind, folder.name):
            yield from ((manifest.folder / file.path, file) for file in manifest.files)


def _problem(manifest: Manifest, path: str) -> str:
    place = manifest.folder / path
    if not place.is_file():
        return "is missing"
    size = next(file.size for file in manifest.files if file.path == path)
    found = place.stat().st_size
    return f"has {found:,} bytes, not {size:,}" if found != size else "holds other bytes than were written"


def _tracked(root: Path) -> Iterator[Finding]:
    """Files of what was shown and clicked that cannot be read; nothing makes them again."""
    from modeling.service.tracking.parts import DAMAGED
    from modeling.service.tracking.table import read_part

    advice = "It is not made again: restore it from a backup, or move it away."
    for part in sorted((root / "tracked").glob("*/*/day=*/[!.]*.parquet")):
        try:
            read_part(part)
        except InputError as error:
            yield Finding(str(part.relative_to(root)), str(error).removeprefix(f"{part}: "), advice)
    for journal in sorted((root / "tracked").glob(f"*/journals/*{DAMAGED}")):
        yield Finding(str(journal.relative_to(root)), "has lines that are damaged; all else of it was taken", advice)


def _days(artifacts: Artifacts, ledgers: Iterable[Ledger]) -> Iterator[Finding]:
    """The finished days that have no manifest any more and whose files are damaged; others are found by their manifest."""
    from preprocessing.history.damage import damaged_days

    for ledger in ledgers:
        for day, paths in damaged_days(artifacts, ledger, contents=True).items():
            row = ledger.row(day)
            if row and artifacts.read_manifest(*row["artifact"].split("/")) is None:
                yield Finding(f"{row['artifact']} ({day})", f"{', '.join(paths)} is missing or damaged", OF_A_DAY)
