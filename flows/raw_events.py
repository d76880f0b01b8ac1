"""Raw events and items that a person gives to a command, read as the dataset's YAML says: as preparation reads its source.

YAML: separator ';', time_format %d.%m.%Y %H:%M, columns {user_id: Kunde, item_id: Artikel, timestamp: Zeit}

Kunde;Artikel;Zeit                user_id  item_id  timestamp
ann;lamp-7;01.03.2026 20:15   ->  ann      lamp-7   2026-03-01 20:15 UTC

A file may name a column as the dataset does instead (`item_id`), and may lack those that the model can do without.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from flows.raw_tables import read_table
from preprocessing.features.uses import with_text_types
from preprocessing.source.canonical import SourceTable, as_found
from preprocessing.source.column_types import INFERRED, TableColumns
from preprocessing.source.files import PLAIN, STATED, find, format_of, reading
from preprocessing.source.formats import Columns, columns_of
from preprocessing.source.listing import SourceFile
from preprocessing.source.times import FORMS
from schemas.columns import ITEM_ID, POSITION, SESSION_ID, TIMESTAMP, USER_ID
from schemas.dataset import Dataset, EventSource, FileOptions, ItemSource, load_dataset
from schemas.errors import InputError
from schemas.features import FeatureSchema

OF_EVENTS = (SESSION_ID, USER_ID, ITEM_ID, TIMESTAMP, POSITION)
Table = EventSource | ItemSource


@dataclass(frozen=True)
class RawReader:
    """Reads files as a dataset says; `read_by_model` are the raw columns that the model's features are made of."""

    dataset: Dataset
    read_by_model: tuple[str, ...]
    vectors: str = ""
    """The column of pretrained vectors that a new item may come with."""

    def events(self, path: Path, option: str) -> pl.DataFrame:
        """The events in a file or folder. `option` is what names it: "--events".

        Raises:
            InputError: for what cannot be read, and for the first value that does not fit, with its row.
        """
        return _collected(self._table(path, option, "events"), path)

    def items(self, path: Path, option: str) -> pl.DataFrame:
        """The items in a file; as `events`. A dataset without an item table has them read as text that nothing guesses at."""
        return _collected(self._table(path, option, "items"), path) if self.dataset.items else read_table(path, option)

    def scan_events(self, path: Path, option: str) -> pl.LazyFrame:
        """The events, of which not more than is asked for is held. A row with a value that does not fit has no item."""
        table, may_be_null = self._table(path, option, "events")
        unfit = [column for name, column in _unfit(table).items() if name not in may_be_null]
        names = [name for name in table.collect_schema().names() if as_found(name) in table.collect_schema()]
        item = pl.when(~pl.any_horizontal(unfit)).then(pl.col(ITEM_ID)) if unfit else pl.col(ITEM_ID)
        return table.with_columns(item.alias(ITEM_ID)).drop(as_found(name) for name in names)

    def _table(self, path: Path, option: str, part: str) -> tuple[pl.LazyFrame, set[str]]:
        """The rows with values as they were found, and the columns whose values may be null where they do not fit."""
        table: Table = getattr(with_text_types(self.dataset), part)
        wanted = (*self.read_by_model, *(OF_EVENTS if part == "events" else (ITEM_ID, *filter(None, [self.vectors]))))
        chosen, files = _as_it_is(table, source_files_of(path, option, table.file_options), wanted, f"{option} {path}")
        typed = {name: kind for name, kind in chosen.text_types.items() if kind != INFERRED}  # the model says the type
        chosen = chosen.model_copy(update={"text_types": typed})
        events = self.dataset.events if part == "items" else chosen
        assert isinstance(events, EventSource)
        columns = TableColumns.of(events, chosen, part)
        rows = SourceTable(files, columns, required=OF_EVENTS).scan()  # as preparation has it: in all files or in none
        return rows, {name for name, declared in chosen.types.items() if declared.unfit == "null"}


def reader_for(dataset: str, folder: Path) -> RawReader | None:
    """What reads files for a model folder: by the dataset named if it is the model's, else by the model's own, where its
    description is found; None where it is not.

    Raises:
        InputError: for a YAML file that cannot be read.
    """
    schema = FeatureSchema.read(folder / "schema.json")
    for name in dict.fromkeys((dataset, schema.dataset)):
        try:
            loaded = load_dataset(name)
        except InputError:
            if Path(name).suffix in (".yaml", ".yml"):
                raise
            continue
        if loaded.name == schema.dataset:
            pretrained = json.loads((folder / "config.json").read_text())["model"]["inputs"].get("pretrained") or {}
            return RawReader(loaded, tuple(column.source for column in schema.columns), pretrained.get("column", ""))
    return None


def read_events(dataset: str, folder: Path, path: Path, option: str) -> pl.DataFrame:
    """Events for a model folder: as its dataset says; where nothing describes that, as `raw_tables` reads."""
    reader = reader_for(dataset, folder)
    return reader.events(path, option) if reader else read_table(path, option)


def read_items(dataset: str, folder: Path, path: Path, option: str) -> pl.DataFrame:
    """New items for a model folder: as `read_events`."""
    reader = reader_for(dataset, folder)
    return reader.items(path, option) if reader else read_table(path, option)


def source_files_of(path: Path, option: str, options: FileOptions) -> list[SourceFile]:
    """A file, or all of a folder that can be read, in order of their names.

    Raises:
        InputError: where there is none.
    """
    if path.is_dir():
        place = Dataset(name="given", source=str(path.absolute()), events=_no_events())
        return find(place, ".", option, options).files
    if not path.is_file():
        raise InputError(f"{option} {path}: there is no such file or folder.")
    above = [part.name for part in path.absolute().parents]  # day=2026-03-01 is a column
    folders = above[: next((place for place, name in enumerate(above) if "=" not in name), 0)]
    about = path.stat()
    name = "/".join([*reversed(folders), path.name])
    return [SourceFile(name, str(path.absolute()), about.st_size, str(about.st_mtime_ns))]


def _as_it_is(
    table: Table, files: list[SourceFile], wanted: Collection[str], where: str
) -> tuple[Table, list[SourceFile]]:
    """The description of the table with the columns that the files have, under the dataset's names for them or ours.

    Files that do not have the dataset's form are tried in the plain one: comma or tab, a header, UTF-8.
    """
    plain = table.model_copy(update=PLAIN.model_dump())
    ours = table.model_copy(update={"format": _format(table.format, files)})
    refused: InputError | None = None
    first = [plain] if not ours.header and ITEM_ID in _named(plain, files) else []  # one with a header after all
    for form in (*first, ours, plain):
        if not all(format_of(file, form.file_options) for file in files):
            continue
        try:
            columns, own = _columns(form, files, wanted)
        except InputError as error:
            refused = refused or error
            continue
        if ITEM_ID in columns:
            # Times under our own name need not have the form of the dataset's.
            formless = {"time_format": ()} if isinstance(form, EventSource) and TIMESTAMP in own else {}
            return form.model_copy(update={"columns": columns, **formless}), files
    if refused:
        raise refused
    there = ", ".join(dict.fromkeys(_named(ours, files))) or "none"
    if not all(format_of(file, ours.file_options) for file in files):
        raise InputError(f"{where}: give Parquet, CSV or JSON lines (.parquet, .csv, .tsv, .jsonl).")
    named = table.columns[ITEM_ID]
    called = f"{named!r}, as the dataset's YAML calls it, or {ITEM_ID}" if named != ITEM_ID else ITEM_ID
    raise InputError(f"{where}: there is no column of items ({called}) among {there}.")


def _format(stated: str, files: Iterable[SourceFile]) -> str:
    """The stated format, unless the ends of names say another."""
    if stated != "auto" and any(format_of(file) not in ("", STATED[stated]) for file in files):
        return "auto"
    return stated


def _named(table: Table, files: list[SourceFile]) -> list[str]:
    """All columns of the files; none of what cannot be read."""
    if not all(format_of(file, table.file_options) for file in files):
        return []
    try:
        return [name for columns in columns_of(files, (), table.file_options) for name in columns.names]
    except InputError:
        return []


def _columns(table: Table, files: list[SourceFile], wanted: Collection[str]) -> tuple[dict[str, object], set[str]]:
    """Our columns that the files have, each with what it is made of; and those that are there under our own name."""
    sources = TableColumns.of(table if isinstance(table, EventSource) else _no_events(), table, "events")
    opened = columns_of(files, sources.wanted | set(wanted), table.file_options)
    there = {root for columns in opened for root in _roots(columns)}
    columns: dict[str, object] = {
        name: column for name, column in table.columns.items() if there.issuperset(sources.roots(name))
    }
    own = {name for name in {*wanted, *table.columns} if name not in columns and name in there}
    return columns | {name: name for name in sorted(own)}, own


def _no_events() -> EventSource:
    return EventSource(columns={ITEM_ID: ITEM_ID, USER_ID: USER_ID, TIMESTAMP: TIMESTAMP})


def _roots(columns: Columns) -> set[str]:
    return {*columns.stored, *columns.folders}


def _unfit(table: pl.LazyFrame) -> dict[str, pl.Expr]:
    """By column whether a value was there and does not fit."""
    names = table.collect_schema().names()
    return {
        name: pl.col(name).is_null() & pl.col(as_found(name)).is_not_null() for name in names if as_found(name) in names
    }


def _collected(table_and_null: tuple[pl.LazyFrame, set[str]], path: Path) -> pl.DataFrame:
    """All rows; raises InputError for the first value that does not fit."""
    table, may_be_null = table_and_null
    with reading(path):
        rows = table.collect(engine="streaming")
    for name, unfit in _unfit(table).items():
        where = rows.select(unfit).to_series()
        if where.any() and name not in may_be_null:
            row, words = where.arg_true()[0], f"a time ({FORMS})" if name == TIMESTAMP else str(rows.schema[name])
            raise InputError(
                f"{path}: column {name!r} takes {words}, but row {row + 1} holds {rows[as_found(name)][row]!r}."
            )
    return rows.drop(as_found(name) for name in _unfit(table))
