"""Which days of a line are finished, and what each was made of: the one file of preparation that changes.

    day | artifact | before | statistics | rows | digest | made_of | carried_in | files | account | facts

A line is all days of one dataset made by the same words of its YAML. A finished day is a fact: what is here is not undone by a
source that shrinks, by other code or by a damaged neighbour. All else is in artifact folders. The ledger is replaced in one
step after the folders of a run are complete: a crash leaves the old ledger, and the next run finds the folders there.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from preprocessing.frames import collect
from preprocessing.output.day import ROW as SCHEMA
from preprocessing.source.index import HASH, ROWS
from schemas.artifacts import Artifacts, File, replace_file
from schemas.columns import DAY
from schemas.errors import InputError

FOLDER = "ledgers"


class About(BaseModel):
    """What a ledger says of its line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = ""
    line: str = ""
    source: str = ""
    """Where the files were when it was last used."""
    until: date | None = None
    """All days up to this one are finished; those without events have no row."""
    state: str = ""
    """states/<id>: what is fitted after everything."""
    tail: str = ""
    """A hash of all that was done, in the order in which it was done."""
    tables: tuple[str, ...] = ()
    """Hashes of the item and user tables that were read last."""
    pending: tuple[date, ...] = ()
    """Finished days that are still to be done again."""
    hashed_by: str = HASH
    types: str = ""
    """The types of event columns, frozen when the first days were done: an empty Arrow table, base64."""


@dataclass
class Ledger:
    """The finished days of a line, and what is fitted."""

    about: About = field(default_factory=About)
    days: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SCHEMA))
    """In order of the day."""
    _parts: tuple[pl.DataFrame | None, pl.DataFrame] = field(default=(None, pl.DataFrame()), repr=False, compare=False)
    """`days` and, of those, `parts()`."""

    @classmethod
    def read(cls, artifacts: Artifacts, line: str) -> Ledger:
        """The ledger of a line; an empty one where there is none.

        Raises:
            InputError: when it is there and cannot be read. It is not taken for an empty one: that would undo all days.
        """
        file = _file(artifacts, line)
        if not file.exists():
            return cls(About(line=line))
        try:
            about = About.model_validate_json(pl.read_parquet_metadata(file)["about"])
            return cls(about, pl.read_parquet(file, glob=False))
        except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
            raise InputError(
                f"{file}: the list of finished days cannot be read ({str(error).splitlines()[0]}). Restore it from a backup, "
                "or take another --root to begin anew with what the source still holds."
            ) from None

    @classmethod
    def require(cls, artifacts: Artifacts, line: str) -> None:
        """Refuse to begin a line anew whose ledger was lost: to be called before anything of a run is on disk.

        Raises:
            InputError: when there is no ledger, but there are days of the line, and no run was stopped on the way to its first.
        """
        file, folder = _file(artifacts, line), artifacts.root / "days"
        if file.exists() or (artifacts.root / "unfinished" / line).exists():
            return
        manifests = (artifacts.read_manifest(folder.name, path.name) for path in folder.glob("[!.]*"))
        days = sorted(
            str(found.facts.get("day")) for found in manifests if found and found.parameters.get("line") == line
        )
        if days:
            raise InputError(
                f"{file}: the list of finished days is missing, but {folder} holds {len(set(days)):,} of them ({days[0]} to "
                f"{days[-1]}), which may be more than the source still holds. Restore the file from a backup, or take another "
                "--root to begin anew with what the source still holds."
            )

    @classmethod
    def lines_of(cls, artifacts: Artifacts, dataset: str) -> list[About]:
        """What the ledgers of a dataset say of their lines; those that cannot be read are left out."""
        abouts = []
        for file in sorted((artifacts.root / FOLDER).glob("*.parquet")):
            try:
                abouts.append(About.model_validate_json(pl.read_parquet_metadata(file)["about"]))
            except (OSError, ValueError, KeyError, pl.exceptions.PolarsError):
                continue
        return [about for about in abouts if about.dataset == dataset]

    def write(self, artifacts: Artifacts) -> None:
        """Replace the file in one step."""
        artifacts.begin_work()
        text = self.about.model_dump_json()
        replace_file(
            _file(artifacts, self.about.line),
            # All of it is written every night: the fastest level, which packs it as well as any.
            lambda path: self.days.write_parquet(
                path, compression="zstd", compression_level=1, metadata={"about": text}
            ),
        )

    @property
    def types(self) -> pl.Schema | None:
        """The types of event columns; None before any day is done."""
        return pl.read_ipc(BytesIO(b64decode(self.about.types))).schema if self.about.types else None

    def freeze(self, types: pl.Schema) -> None:
        """Keep the types of event columns."""
        table = BytesIO()
        pl.DataFrame(schema=types).write_ipc(table)
        self.change(types=b64encode(table.getvalue()).decode())

    def change(self, **about: Any) -> None:
        """Set fields of `about`."""
        self.about = self.about.model_copy(update=about)

    def enter(self, rows: list[dict[str, Any]]) -> None:
        """Put finished days in place of those of the same date."""
        new = pl.DataFrame(rows, schema=SCHEMA).sort(DAY)
        if any(self.has(day) for day in new[DAY]):
            self.days = self.days.filter(~pl.col(DAY).is_in(new[DAY].implode()))
        follows = self.days.is_empty() or self.days[DAY][-1] < new[DAY][0]  # then nothing needs to be sorted
        together = self.days.vstack(new)
        self.days = together if follows else together.sort(DAY)

    def row(self, day: date) -> dict[str, Any] | None:
        """The row of a day, if it is finished and had events."""
        place = self._place(day)
        return self.days.row(place, named=True) if self._holds(day, place) else None

    def has(self, day: date) -> bool:
        """Whether a day is finished and had events."""
        return self._holds(day, self._place(day))

    def last_before(self, day: date) -> date | None:
        """The last finished day with events before a day."""
        place = self._place(day)
        return self.days[DAY][place - 1] if place else None

    def parts(self) -> pl.DataFrame:
        """What all days were made of: `finished` (the day made of it), `path`, `day`, `rows`, `digest`."""
        of, _ = self._parts
        if of is not self.days and self.days.is_empty():
            self._parts = self.days, _no_parts()
        elif of is not self.days:
            made_of = self.days[[DAY, "made_of"]].rename({DAY: "finished"})
            parts = made_of.explode("made_of").drop_nulls("made_of").unnest("made_of")
            self._parts = self.days, parts
        return self._parts[1]

    def rows_by_day(self) -> dict[date, int]:
        """Of each finished day that was made of rows of its own, how many."""
        of_day = self.parts().lazy().filter(pl.col(DAY) == pl.col("finished")).group_by("finished")
        return dict(collect(of_day.agg(pl.col(ROWS).sum()).sort("finished")).rows()) if self.days.height else {}

    def between(self, first: date, last: date) -> pl.DataFrame:
        """The rows of the finished days from the first to the last."""
        start = self._place(first)
        return self.days[start : max(start, self._place(last) + self.has(last))]

    def state_before(self, day: date) -> str:
        """The name of the state before a day; empty where it was not kept."""
        row = self.row(day)
        return str(row["before"]) if row else ""

    def _place(self, day: date) -> int:
        return int(self.days[DAY].search_sorted(day)) if self.days.height else 0

    def _holds(self, day: date, place: int) -> bool:
        return place < self.days.height and bool(self.days[DAY][place] == day)


@cache
def _no_parts() -> pl.DataFrame:
    """The columns of `Ledger.parts`, without rows."""
    made_of: pl.List = SCHEMA["made_of"]  # type: ignore[assignment]
    return pl.DataFrame(schema={"finished": pl.Date, **pl.Schema(made_of.inner)})  # type: ignore[arg-type]


def files_of(row: dict[str, Any]) -> list[File]:
    """The files of a finished day, below its artifact's folder."""
    return [File(**file) for file in row["files"] or []]


def facts_of(row: dict[str, Any]) -> dict[str, Any]:
    """The facts of a finished day."""
    facts: dict[str, Any] = json.loads(row["facts"])
    return facts


def _file(artifacts: Artifacts, line: str) -> Path:
    return artifacts.root / FOLDER / f"{line}.parquet"
