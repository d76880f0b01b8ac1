"""What the ledgers below an artifact root say of its folders: which are needed, what helps where they are damaged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from schemas.artifacts import MANIFEST, Artifacts, Manifest, write_atomically
from schemas.errors import InputError
from schemas.progress import Progress, Report

if TYPE_CHECKING:
    from preprocessing.history.ledger import Ledger

REMOVE = "no finished day or run needs it: remove the folder"
OF_A_DAY = (
    "overnight verify --mend puts it back or does the day again, where that can be; else restore it from a backup"
)
BACKUP = "restore it from a backup"


@dataclass(frozen=True)
class Finding:
    """Something on disk that is not as it was written: where, what is wrong, what helps."""

    place: str
    problem: str
    help: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}. {self.help}."


@dataclass(frozen=True)
class Needed:
    """The days and states that finished days are made from."""

    ledgers: tuple[Ledger, ...]

    def advice(self, kind: str, name: str, manifest: Manifest | None) -> str:
        """What helps where a folder is damaged; `manifest` is None where that cannot be read."""
        place = f"{kind}/{name}"
        if kind == "days":
            return self._of_day(place, manifest)
        if kind == "states":
            return self._of_state(place)
        if kind == "sessions":
            return self._of_snapshot(manifest)
        again = "overnight retrain makes it again"
        record = f"{again} if it is that of the last night; else it is a record for people: remove the folder"
        special = {"profiles": "overnight profile makes it again", "comparisons": record, "reports": record}
        return special.get(kind, again)

    def _of_day(self, place: str, manifest: Manifest | None) -> str:
        if place in self._column("artifact"):
            return OF_A_DAY
        if manifest is None or "line" not in manifest.parameters:
            return (
                f"overnight prepare makes it again if it is still needed; if it does not, {REMOVE.partition(': ')[2]}"
            )
        lines = {ledger.about.line for ledger in self.ledgers}
        return REMOVE if manifest.parameters["line"] in lines else "overnight prepare makes it again"

    def _of_state(self, place: str) -> str:
        if place in {ledger.about.state for ledger in self.ledgers}:
            return f"overnight prepare does the days since again, if the source still holds them; else {BACKUP}"
        if place in self._column("statistics"):
            return f"finished days are in order, but doing an earlier day again needs it: {BACKUP}"
        if place in self._column("before"):
            return (
                "finished days are in order, and what it holds is added up anew where it is needed: remove the folder"
            )
        return REMOVE if self.ledgers else "overnight prepare makes it again"

    def _of_snapshot(self, manifest: Manifest | None) -> str:
        remove = "remove the folder if no model needs it"
        if manifest is None:
            return f"overnight prepare makes it again if it is that of the last night; else {remove}"
        asked = manifest.parameters
        if self.ledgers and not set(manifest.parents) <= self._column("artifact"):
            return f"its days were done again since, so nothing makes it again: {remove}"
        if not asked.get("until"):
            return "overnight prepare makes it again"
        days = " and the --days of then" if asked.get("days") else ""
        return (
            f"overnight prepare --until {asked['until']}{days} makes it again, if all its days are there; else {remove}"
        )

    def _column(self, name: str) -> set[str]:
        return {entry for ledger in self.ledgers for entry in ledger.days[name]}


def read_ledgers(artifacts: Artifacts) -> tuple[tuple[Ledger, ...], list[Finding]]:
    """The ledgers that can be read, and what is wrong with the others."""
    from preprocessing.history.ledger import FOLDER, Ledger

    ledgers, findings = [], []
    for file in sorted((artifacts.root / FOLDER).glob("*.parquet")):
        try:
            ledgers.append(Ledger.read(artifacts, file.stem))
        except InputError as error:
            findings.append(Finding(f"{FOLDER}/{file.name}", "cannot be read", str(error).rstrip(".")))
    return tuple(ledgers), findings


def mend_manifests(artifacts: Artifacts, progress: Report) -> None:
    """Write the manifests of finished days that are lost from what the ledger says of them: facts and files.

    What made such a day, but for its line, is not known any more.
    """
    from preprocessing.history.ledger import facts_of, files_of

    for ledger in read_ledgers(artifacts)[0]:
        for row in ledger.days.iter_rows(named=True):
            kind, name = row["artifact"].split("/")
            folder = artifacts.root / kind / name
            if not folder.is_dir() or artifacts.read_manifest(kind, name) is not None:
                continue
            manifest = Manifest(
                kind=kind,
                id=name,
                root=str(artifacts.root),
                parameters={"line": ledger.about.line},
                facts=facts_of(row),
                files=tuple(files_of(row)),
                created=datetime.now(UTC),
            )
            write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
            progress(Progress("verify", message=f"{row['artifact']}/{MANIFEST}: written anew from the ledger."))
