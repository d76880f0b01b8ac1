"""Files that together are one table, brought to our column names and to one type a column.

How files may differ, so that a table is the same however its rows are spread over files:

- Columns beyond those mapped are ignored.
- A required column must be in every file. Another may be missing in some: it is null there. In none: it is refused.
- Integers of any width are Int64, floats Float64, integers beside floats Float64, times Datetime("us", "UTC").
- A text file's column of numbers beside one of text is text, unless it is an id.
- All else that is of one type here and of another there, such as integers that became text, is refused.

Columns that had to be interpreted can keep their values as found, beside them: see `as_found`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import polars as pl

from preprocessing.source.files import PARQUET, PLAIN, SAMPLE_ROWS, format_of, reading
from preprocessing.source.formats import PATH, Columns, columns_of, count_without_elements, folder_values, scan
from preprocessing.source.listing import SourceFile
from preprocessing.source.values import INT64_HOLDS, looks_like, may_fail
from schemas.columns import EVENT_TYPE, ITEM_ID, SESSION_ID, USER_ID
from schemas.dataset import FileOptions
from schemas.errors import InputError, unknown

FILE = "source file"  # the place of a row's file in the list given
IDS = (USER_ID, SESSION_ID, ITEM_ID)


@dataclass(frozen=True)
class Kind:
    """How a file has a column: the type it is stored as, and the type its values seem to have (they differ for text)."""

    stored: pl.DataType
    seems: pl.DataType


Reader = Callable[[str, Kind], pl.Expr]  # our name of a column, and how a file has it


def as_found(column: str) -> str:
    """The name of the column that keeps another's values as the file has them."""
    return f"{column} as found"


class SourceTable:
    """Files and the columns wanted of them; each file is opened once, and only when asked for."""

    def __init__(
        self,
        files: Sequence[SourceFile],
        columns: Mapping[str, str],
        read: Reader,
        *,
        required: Collection[str],
        interpreted: Collection[str] = (),
        time_zone: str = "UTC",
        options: FileOptions = PLAIN,
    ) -> None:
        """`columns` are our names and the files' names; `interpreted` ones keep their values as found."""
        self.options = options
        self._kinds_of: dict[SourceFile, dict[str, Kind]] = {}
        self.files, self.columns, self.read = files, columns, read
        self.required = [name for name in columns if name in required]
        self.interpreted = [name for name in columns if name in interpreted]
        self.time_zone = time_zone
        self._opened: dict[SourceFile, Columns] = {}
        self._folder_types = _folder_types(files, set(columns.values()))

    def scan(
        self,
        files: Sequence[SourceFile] | None = None,
        *,
        expected: Mapping[str, pl.DataType] | None = None,
        number: bool = False,
    ) -> pl.LazyFrame:
        """The rows of these files (None: all) in no particular order, as `EventFiles.scan` says.

        Raises:
            InputError: for files that cannot be read, lack a column or do not fit together.
        """
        files = list(self.files if files is None else files)
        expected = {name: dtype for name, dtype in (expected or {}).items() if name != FILE}
        if not files:
            return self.scan(self.files, expected=expected, number=number).clear()
        have = {file: self._kinds(file) for file in self._open(files) if not self._opened[file].blank}
        if not have:
            if all(self._opened[file].blank for file in self._open(self.files)):
                raise InputError(f"{files[0].url}: there is nothing in it, nor in the other files of the source.")
            return self.scan([], expected=expected, number=number)
        present = list(have)
        self._check_required(have)
        self._look_elsewhere(have, expected)
        types = {name: self._type_of(name, have, expected.get(name)) for name in self.columns}
        originals = self._originals([have[file] for file in present], types, expected)
        frames = [
            self._read(group, have[group[0]], types, originals, files if number else None)
            for group in self._groups(present, have)
        ]
        table = frames[0] if len(frames) == 1 else pl.concat(frames)
        lacking = {name: dtype for name, dtype in expected.items() if name not in {*types, *map(as_found, originals)}}
        return table.with_columns(**{name: pl.lit(None, dtype) for name, dtype in lacking.items()})

    def count_without_elements(self, files: Sequence[SourceFile] | None = None) -> int:
        """How many rows of these files (None: all) give no event, as the list of events or items in them is empty."""
        present = [file for file in self._open(self.files if files is None else files) if not self._opened[file].blank]
        if not any("[]" in path for path in self.columns.values()):
            return 0
        groups: dict[str, list[SourceFile]] = {}
        for file in present:
            groups.setdefault(repr(self._opened[file].stored), []).append(file)
        return sum(
            count_without_elements(group, self._opened[group[0]].stored, self.options) for group in groups.values()
        )

    def _open(self, files: Iterable[SourceFile]) -> Iterable[SourceFile]:
        closed = [file for file in files if file not in self._opened]
        self._opened |= zip(closed, columns_of(closed, set(self.columns.values()), self.options), strict=True)
        return files

    def _seem(self, file: SourceFile) -> dict[str, Kind]:
        """How the file has the columns wanted of it; of text, told from the first rows."""
        if file not in self._kinds_of:
            stored = self._opened[file].stored
            kinds = {name: Kind(dtype, dtype) for name, dtype in stored.items()}
            texts = {name: dtype for name, dtype in stored.items() if dtype == pl.String}
            if texts and format_of(file, self.options) != PARQUET:
                with reading(file.url):
                    sample = self._scan([file], texts, paths=False).head(SAMPLE_ROWS).collect()
                kinds |= {text.name: Kind(pl.String(), looks_like(text)) for text in sample}
            self._kinds_of[file] = kinds
        return self._kinds_of[file]

    def _scan(self, files: Sequence[SourceFile], stored: Mapping[str, pl.DataType], *, paths: bool) -> pl.LazyFrame:
        as_text = [self.columns[name] for name in (*IDS, EVENT_TYPE) if name in self.columns]
        return scan(files, stored, self.options, paths=paths, as_text=as_text)

    def _kinds(self, file: SourceFile) -> dict[str, Kind]:
        """How the file has each of our columns that it has."""
        columns = self._opened[file]
        folders = {
            key: Kind(pl.String(), self._folder_types[key]) for key in columns.folders if key in self._folder_types
        }
        kinds = folders | self._seem(file)
        return {ours: kinds[theirs] for ours, theirs in self.columns.items() if theirs in kinds}

    def _check_required(self, have: dict[SourceFile, dict[str, Kind]]) -> None:
        for name in self.required:
            file = next((file for file, kinds in have.items() if name not in kinds), None)
            if file:
                raise self._no_column(file, name)

    def _look_elsewhere(self, have: dict[SourceFile, dict[str, Kind]], expected: Mapping[str, pl.DataType]) -> None:
        """Add files that have columns which those asked for all lack; what no file has is a typing error."""
        known = set().union(expected, *have.values())
        if self.columns.keys() <= known:
            return
        asked_for = next(iter(have))
        have |= {file: self._kinds(file) for file in self._open(self.files)}
        lost = [name for name in self.columns if name not in known.union(*have.values())]
        if lost:
            raise self._no_column(asked_for, lost[0])

    def _no_column(self, file: SourceFile, name: str) -> InputError:
        columns = self._opened[file]
        there = [*columns.names, *columns.folders]
        return InputError(
            f"{file.url}: column for {name!r}: {unknown('column', self.columns[name], there)}{columns.hint}"
        )

    def _type_of(self, name: str, have: dict[SourceFile, dict[str, Kind]], expected: pl.DataType | None) -> pl.DataType:
        """The one type a column has in all files; raises InputError when there is none."""
        kinds: dict[Kind, SourceFile] = {}
        for file, found in have.items():
            if name in found:
                kinds.setdefault(found[name], file)
        types: dict[pl.DataType, SourceFile | None] = {}
        if expected is not None and expected != pl.Null:
            types[expected] = None
        for kind, file in kinds.items():
            dtype = self._becomes(name, kind, file)
            if kind.seems != pl.Null:  # nothing but nulls goes with every type
                types.setdefault(dtype, file)
        if len(types) <= 1:
            return next(iter(types), None) or next(self._becomes(name, kind, file) for kind, file in kinds.items())
        if types.keys() == {pl.Int64(), pl.Float64()} and expected != pl.Int64:
            return pl.Float64()
        as_text = expected == pl.String or (expected is None and name not in IDS)
        if as_text and pl.String() in types and all(kind.stored == pl.String for kind in kinds):
            return pl.String()
        (first, before), (dtype, where) = list(types.items())[:2]
        raise InputError(
            f"{where.url if where else name}: column {self.columns[name]!r} ({name}): expected {first} as "
            f"{f'in {before.path}' if before else 'on earlier days'}, found {dtype}; "
            + ("set events.id_type to integer or string, or convert the file." if name in IDS else "convert the file.")
        )

    def _becomes(self, name: str, kind: Kind, file: SourceFile) -> pl.DataType:
        try:
            plan = pl.LazyFrame(schema={name: kind.stored}).select(self.read(name, kind))
        except InputError as error:
            raise InputError(f"{file.url}: {error}") from None
        return plan.collect_schema()[name]

    def _originals(
        self, have: list[dict[str, Kind]], types: dict[str, pl.DataType], expected: Mapping[str, pl.DataType]
    ) -> dict[str, pl.DataType]:
        """The interpreted columns that keep their values as found, and the type those have: text if files differ."""
        found: dict[str, pl.DataType] = {}
        for name in self.interpreted:
            stored = {kinds[name].stored for kinds in have if name in kinds}
            if as_found(name) in expected:
                found[name] = expected[as_found(name)]
            elif any(may_fail(dtype, types[name], self.time_zone) for dtype in stored):
                wide = {_widest(dtype) for dtype in stored if dtype != pl.Null}
                found[name] = wide.pop() if len(wide) == 1 else pl.String()
        return found

    def _groups(
        self, files: Iterable[SourceFile], have: dict[SourceFile, dict[str, Kind]]
    ) -> Iterable[list[SourceFile]]:
        """Files that one scan can read: those with the same types of our columns."""

        def alike(file: SourceFile) -> str:
            own = [theirs for theirs in self.columns.values() if theirs in self._opened[file].stored]
            return repr((have[file], own))

        return (list(group) for _, group in groupby(sorted(files, key=alike), alike))

    def _read(
        self,
        group: list[SourceFile],
        kinds: dict[str, Kind],
        types: dict[str, pl.DataType],
        originals: dict[str, pl.DataType],
        numbered: list[SourceFile] | None,
    ) -> pl.LazyFrame:
        own = self._opened[group[0]].stored
        inside = {ours: theirs for ours, theirs in self.columns.items() if theirs in own}
        outside = {ours: theirs for ours, theirs in self.columns.items() if ours in kinds and theirs not in own}
        by_path = bool(outside) or (numbered is not None and len(group) > 1)
        frame = self._scan(group, {theirs: own[theirs] for theirs in inside.values()}, paths=by_path)
        frame = frame.select(*([PATH] if by_path else []), **{ours: pl.col(theirs) for ours, theirs in inside.items()})
        if by_path:
            of_files = self._of_files(group, outside, numbered)
            frame = frame.join(of_files, on=PATH, how="left", maintain_order="left")
        reads = {name: self._expression(name, kinds.get(name), dtype) for name, dtype in types.items()}
        found = {
            as_found(name): pl.col(name).cast(dtype, strict=False) if name in kinds else pl.lit(None, dtype)
            for name, dtype in originals.items()
        }
        place: dict[str, pl.Expr] = {}
        if numbered is not None:
            place = {FILE: pl.col(FILE) if by_path else pl.lit(numbered.index(group[0]), dtype=pl.Int32)}
        return frame.select(**reads, **found, **place)

    def _of_files(
        self, group: list[SourceFile], outside: dict[str, str], numbered: list[SourceFile] | None
    ) -> pl.LazyFrame:
        """What all rows of a file share, by its path: values of its folders and, when `numbered`, its place."""
        values = {ours: [self._opened[file].folders[theirs] for file in group] for ours, theirs in outside.items()}
        text = {name: pl.Series(name, found, pl.String) for name, found in values.items()}
        of_files = pl.LazyFrame({PATH: [file.url for file in group], **text})
        if numbered is None:
            return of_files
        places = {file: place for place, file in enumerate(numbered)}
        return of_files.with_columns(pl.Series(FILE, [places[file] for file in group], pl.Int32))

    def _expression(self, name: str, kind: Kind | None, dtype: pl.DataType) -> pl.Expr:
        if kind is None:
            return pl.lit(None, dtype)
        # Text is read as what it became; only of times must it be known whether they are numbers.
        seems = kind.seems if dtype.is_temporal() and kind.seems != pl.Null else dtype
        return self.read(name, Kind(kind.stored, seems if kind.stored == pl.String else kind.seems)).cast(dtype)


def _folder_types(files: Iterable[SourceFile], wanted: Collection[str]) -> dict[str, pl.DataType]:
    """The types that the values in the names of all folders seem to have."""
    values: dict[str, set[str | None]] = {}
    for file in files:
        for key, value in folder_values(file).items():
            if key in wanted:
                values.setdefault(key, set()).add(value)
    return {key: looks_like(pl.Series(list(found), dtype=pl.String)) for key, found in values.items()}


def _widest(stored: pl.DataType) -> pl.DataType:
    if stored in INT64_HOLDS:
        return pl.Int64()
    if isinstance(stored, pl.Datetime):
        return pl.Datetime("us", stored.time_zone)
    return pl.Float64() if stored.is_float() else stored
