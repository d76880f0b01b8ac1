"""Which days of a dataset are done, and with what: the one file of preparation that changes.

All else is in artifact folders named by content. The ledger is replaced in one step after the folders of a run are complete:
a crash leaves the old ledger, and the next run finds the folders that are there already.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.artifacts import Artifacts, write_atomically


class Done(BaseModel):
    """A finished day."""

    model_config = ConfigDict(extra="forbid")

    artifact: str
    contents: str
    """A hash of the events it was made from."""
    taught: str
    """The state that keeps what this day taught, apart from what other days did."""


class Ledger(BaseModel):
    """The finished days and the states of knowledge between them."""

    model_config = ConfigDict(extra="forbid")

    tail: str = ""
    """A hash of all that was done, in the order in which it was done."""
    until: date | None = None
    """All days up to this one are finished; those without events have no entry in `days`."""
    days: dict[date, Done] = {}
    known: str = ""
    """The state after everything."""
    before: dict[date, str] = {}
    """The state before the days that were tested on."""

    @classmethod
    def read(cls, artifacts: Artifacts, lineage: str) -> Ledger:
        """The ledger of a lineage; an empty one when there is none, or it cannot be read: then all is done again."""
        try:
            return cls.model_validate_json(_file(artifacts, lineage).read_text())
        except (OSError, ValidationError):
            return cls()

    def is_whole(self, artifacts: Artifacts) -> bool:
        """Whether all that it names is still there."""
        names = {*(done.artifact for done in self.days.values()), *(done.taught for done in self.days.values())}
        names |= {self.known, *self.before.values()} - {""}
        return all(artifacts.find(*name.split("/"), by_size=True) for name in names)

    def write(self, artifacts: Artifacts, lineage: str) -> None:
        """Replace it in one step."""
        write_atomically(_file(artifacts, lineage), json.dumps(self.model_dump(mode="json"), indent=1) + "\n")


def _file(artifacts: Artifacts, lineage: str) -> Path:
    return artifacts.root / "ledgers" / f"{lineage}.json"
