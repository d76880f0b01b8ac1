"""Files that together are one table, brought to our column names and to one type a column.

How files may differ, so that a table is the same however its rows are spread over files:

- Columns beyond those wanted are ignored.
- A required column must be in every file. Another may be missing in some: it is null there. In none: it is refused.
- Types are those of `column_types`; once frozen they stay, and later files are cast to them without loss.

Where a cast may fail for the files that are read, the values as they were found are kept beside the column: see `as_found`.

    price of Float64, files with "12.50" and "free"  ->  price 12.5, null; "price as found" "12.50", "free"
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby

import polars as pl

from preprocessing.source.column_types import Raw, TableColumns, mends, undecodable
from preprocessing.source.files import PARQUET, format_of
from preprocessing.source.formats import PATH, Columns, columns_of, count_without_elements, scan
from preprocessing.source.listing import SourceFile
from preprocessing.source.values import may_fail, raw_value, widest
from preprocessing.sql import type_on
from schemas.errors import InputError, unknown

FILE = "source file"  # the place of a row's file in the list given
AS_FOUND = " as found"

Have = dict[SourceFile, dict[str, Raw]]  # how each file has those of our columns that it has


def as_found(column: str) -> str:
    """The name of the column that keeps another's values as the file has them."""
    return f"{column}{AS_FOUND}"


def frozen(schema: pl.Schema) -> pl.Schema:
    """The types that later days keep: a schema of what was read without the columns of values as they were found."""
    return pl.Schema({name: dtype for name, dtype in schema.items() if name != FILE and not name.endswith(AS_FOUND)})


class SourceTable:
    """Files and the columns wanted of them; each file is opened once, and only when asked for."""

    def __init__(self, files: Sequence[SourceFile], columns: TableColumns, *, required: Collection[str]) -> None:
        self.files, self.columns = files, columns
        self.required = [name for name in columns.sources if name in required]
        self._opened: dict[SourceFile, Columns] = {}
        self._of_expressions: dict[tuple[str, tuple[pl.DataType, ...]], pl.DataType] = {}
        self._settled: dict[tuple[str, frozenset[SourceFile]], pl.DataType] = {}

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
        present = self._not_blank(files)
        if not present:
            if not self._not_blank(self.files):
                self._check_lists(files)
                raise InputError(f"{files[0].url}: there is nothing in it, nor in any other file of the source.")
            return self.scan([], expected=expected, number=number)
        have = {file: self._raws(file) for file in present}
        self._check_required(have)
        self._look_elsewhere(have, expected)
        types = self._types(have, expected)
        originals = self._originals([have[file] for file in present], types, expected)
        frames = [
            self._read(group, have, types, originals, files if number else None) for group in self._groups(present)
        ]
        table = frames[0] if len(frames) == 1 else pl.concat(frames)
        lacking = {name: dtype for name, dtype in expected.items() if name not in {*types, *map(as_found, originals)}}
        return table.with_columns(**{name: pl.lit(None, dtype) for name, dtype in lacking.items()})

    def count_without_elements(self, files: Sequence[SourceFile] | None = None) -> int:
        """How many rows of these files (None: all) give none, as the list whose elements are wanted is empty or null."""
        if not any("[]" in path for path in self.columns.wanted):
            return 0
        files = list(self.files if files is None else files)
        groups = self._groups(self._not_blank(files))
        lost = sum(self._opened[file].without_lists for file in files)
        return lost + sum(count_without_elements(group, self._own(group[0]), self.columns.options) for group in groups)

    def names(self) -> dict[str, tuple[str, ...]]:
        """The names of all columns of each file that was opened so far and is not blank, by where it is."""
        opened = self._opened.items()
        return {file.url: columns.names for file, columns in opened if not columns.blank and not columns.without_lists}

    def _not_blank(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Files that hold anything, be it a header; one that does not, or that has none of the lists, fits every table."""
        opened = self._opened
        return [file for file in self._open(files) if not opened[file].blank and not opened[file].without_lists]

    def _check_lists(self, files: Sequence[SourceFile]) -> None:
        """Raise InputError where no file of all has a list whose elements are wanted."""
        file = next((file for file in files if self._opened[file].without_lists), None)
        for name in self.columns.sources if file else ():
            root = next((root for root in self.columns.roots(name) if "[]" in root), None)
            if file and root:
                raise self._no_column(file, name, root)

    def _own(self, file: SourceFile) -> dict[str, pl.DataType]:
        return {name: dtype for name, dtype in self._opened[file].stored.items() if name in self.columns.wanted}

    def _open(self, files: Iterable[SourceFile]) -> Iterable[SourceFile]:
        closed = [file for file in files if file not in self._opened]
        self._opened |= zip(closed, columns_of(closed, self.columns.wanted, self.columns.options), strict=True)
        return files

    def _stored(self, file: SourceFile) -> dict[str, Raw]:
        """How the file has each of its own columns that are wanted; those of its folders come after them."""
        columns, untyped = self._opened[file], format_of(file, self.columns.options) != PARQUET
        own = {name: Raw(dtype, untyped and dtype == pl.String) for name, dtype in columns.stored.items()}
        wanted = self.columns.wanted
        return {name: Raw(pl.String(), True) for name in columns.folders if name in wanted} | own

    def _raws(self, file: SourceFile) -> dict[str, Raw]:
        stored, raws = self._stored(file), {}
        for name in self.columns.sources:
            roots = self.columns.roots(name)
            there = [stored[root] for root in roots if root in stored]
            if self.columns.is_plain(name) and there:
                raws[name] = there[0]
            elif there:
                dtype = self._computed(file, name, {root: _of(stored, root) for root in roots})
                raws[name] = Raw(dtype, dtype == pl.String and all(raw.untyped for raw in there))
        return raws

    def _computed(self, file: SourceFile, name: str, roots: dict[str, pl.DataType]) -> pl.DataType:
        key = (name, tuple(roots.values()))
        try:
            if key not in self._of_expressions:
                self._of_expressions[key] = type_on(self.columns.sources[name], roots)
            return self._of_expressions[key]
        except pl.exceptions.PolarsError as error:
            types = ", ".join(f"{root} ({dtype})" for root, dtype in roots.items())
            raise InputError(
                f"{file.url}: the expression for {name!r} does not fit {types}: {str(error).partition(chr(10))[0]}. In text "
                "files all columns are text: write TRY_CAST(price AS DOUBLE) for a number."
            ) from None

    def _check_required(self, have: Have) -> None:
        for name in self.required:
            file = next((file for file, raws in have.items() if name not in raws), None)
            if file:
                raise self._no_column(file, name, self.columns.roots(name)[0])

    def _look_elsewhere(self, have: Have, expected: Mapping[str, pl.DataType]) -> None:
        """Add files that have columns which those asked for all lack; what no file has is a typing error."""
        wanted = {
            root: name for name in self.columns.sources if name not in expected for root in self.columns.roots(name)
        }
        if wanted.keys() <= {root for file in have for root in self._stored(file)}:
            return
        asked_for = next(iter(have))
        have |= {file: self._raws(file) for file in self._not_blank(self.files)}
        lost = wanted.keys() - {root for file in have for root in self._stored(file)}
        for root, name in wanted.items():
            if root in lost:
                raise self._no_column(asked_for, name, root)

    def _no_column(self, file: SourceFile, name: str, root: str) -> InputError:
        columns = self._opened[file]
        there = [*columns.names, *columns.folders]
        return InputError(f"{file.url}: column for {name!r}: {unknown('column', root, there)}{columns.hint}")

    def _types(self, have: Have, expected: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
        """The one type of each column; raises InputError when there is none."""
        types: dict[str, pl.DataType] = {}
        undecided: dict[str, tuple[pl.DataType, ...]] = {}
        for name in self.columns.sources:
            raws: dict[Raw, SourceFile] = {}
            for file, columns in have.items():
                if name in columns:
                    raws.setdefault(columns[name], file)
            dtype = self.columns.declared.get(name) or expected.get(name, pl.Null())
            if dtype == pl.Null:
                choices = self._choices(name, raws)
                undecided |= {name: choices} if len(choices) > 1 else {}
                dtype = choices[0]
            types[name] = dtype
            for raw, file in raws.items():
                try:
                    self.columns.check_fits(name, raw, dtype)
                except InputError as error:
                    raise InputError(f"{file.url}: column {self._called(name)}: {error}") from None
        return types | self._settle(undecided, have)

    def _choices(self, name: str, raws: Mapping[Raw, SourceFile]) -> tuple[pl.DataType, ...]:
        try:
            return self.columns.choices(name, raws)
        except InputError as error:
            file = list(raws.values())[-1]
            mend = "" if "an id is" in str(error) else f"; {mends(name)}"
            raise InputError(f"{file.url}: column {self._called(name)} ({name}): {error}{mend}") from None

    def _called(self, name: str) -> str:
        return repr(self.columns.roots(name)[0]) if self.columns.is_plain(name) else "computed"

    def _settle(self, undecided: dict[str, tuple[pl.DataType, ...]], have: Have) -> dict[str, pl.DataType]:
        """Of two types the first if all values of all rows fit it: one pass over these columns of these files."""
        key = frozenset(have)
        new = {name: choices for name, choices in undecided.items() if (name, key) not in self._settled}
        if new:
            parts = []
            for group in self._groups(list(have)):
                raws = have[group[0]]
                questions = {
                    name: self._fits(raws[name].stored, name, choices[0])
                    for name, choices in new.items()
                    if name in raws
                }
                if questions:
                    parts.append(self._raw(group, have, None).select(**questions))
            answers = pl.concat(parts, how="diagonal").select(pl.all().all()).collect(engine="streaming")
            for name, (first, last) in new.items():
                self._settled[name, key] = first if answers[name][0] else last
        settled = {name: self._settled[name, key] for name in undecided}
        for name, dtype in settled.items():
            if dtype == pl.Binary:
                files = [file for file, raws in have.items() if name in raws and raws[name].stored == pl.Binary]
                raise undecodable(name, self._first_odd(files, name, have))
        return settled

    def _first_odd(self, files: list[SourceFile], name: str, have: Have) -> str:
        """The first of these files in which bytes are no text."""
        for file in files:
            fits = self._fits(pl.Binary(), name, pl.String()).alias(name)
            if not self._raw([file], have, None).select(fits).collect(engine="streaming").item():
                return file.url
        return files[0].url

    def _fits(self, stored: pl.DataType, name: str, wanted: pl.DataType) -> pl.Expr:
        value = pl.col(name)
        read, raw = self.columns.read(name, Raw(stored), wanted), raw_value(value, stored)
        fits = (read.is_not_null() | raw.is_null()).all()
        # Text of which every value is missing says nothing: text takes all that comes later.
        return fits & raw.is_not_null().any() if stored == pl.String else fits

    def _originals(
        self, have: list[dict[str, Raw]], types: dict[str, pl.DataType], expected: Mapping[str, pl.DataType]
    ) -> dict[str, pl.DataType]:
        """The columns that keep their values as found, and the type those have: text if files differ."""
        kept: dict[str, pl.DataType] = {}
        for name in types:
            stored = {raws[name].stored for raws in have if name in raws}
            if as_found(name) in expected:
                kept[name] = expected[as_found(name)]
            elif any(may_fail(dtype, types[name], self.columns.forms.zone) for dtype in stored):
                wide = {widest(dtype) for dtype in stored if dtype != pl.Null}
                kept[name] = wide.pop() if len(wide) == 1 else pl.String()
        return kept

    def _groups(self, files: Iterable[SourceFile]) -> Iterable[list[SourceFile]]:
        """Files that one scan can read: those with the same types of our columns."""

        def alike(file: SourceFile) -> str:
            return repr((sorted(self._stored(file).items(), key=str), sorted(self._own(file))))

        return [list(group) for _, group in groupby(sorted(files, key=alike), alike)]

    def _raw(self, group: list[SourceFile], have: Have, numbered: list[SourceFile] | None) -> pl.LazyFrame:
        """Our columns that a group of files has, as they are stored; with FILE, if numbered."""
        wanted, own = self.columns.wanted, self._own(group[0])
        folders = [name for name in self._opened[group[0]].folders if name in wanted and name not in own]
        by_path = bool(folders) or (numbered is not None and len(group) > 1)
        frame = scan(group, own, self.columns.options, paths=by_path, as_text=self.columns.as_text)
        if by_path:
            of_files = self._of_files(group, folders, numbered)
            frame = frame.join(of_files, on=PATH, how="left", maintain_order="left")
        missing = [name for name in wanted if name not in own and name not in folders]
        frame = frame.with_columns(pl.lit(None).alias(name) for name in missing) if missing else frame
        place = {}
        if numbered is not None:
            place = {FILE: pl.col(FILE) if by_path else pl.lit(numbered.index(group[0]), dtype=pl.Int32)}
        sources = {name: source for name, source in self.columns.sources.items() if name in have[group[0]]}
        return frame.select(**sources, **place)

    def _of_files(self, group: list[SourceFile], folders: list[str], numbered: list[SourceFile] | None) -> pl.LazyFrame:
        """What all rows of a file share, by its path: values of its folders and, when `numbered`, its place."""
        values = {name: [self._opened[file].folders[name] for file in group] for name in folders}
        text = {name: pl.Series(name, of_files, pl.String) for name, of_files in values.items()}
        table = pl.LazyFrame({PATH: [file.url for file in group], **text})
        if numbered is None:
            return table
        places = {file: place for place, file in enumerate(numbered)}
        return table.with_columns(pl.Series(FILE, [places[file] for file in group], pl.Int32))

    def _read(
        self,
        group: list[SourceFile],
        have: Have,
        types: dict[str, pl.DataType],
        originals: dict[str, pl.DataType],
        numbered: list[SourceFile] | None,
    ) -> pl.LazyFrame:
        raws = have[group[0]]
        columns: dict[str, pl.Expr] = {name: pl.lit(None, dtype) for name, dtype in types.items()}
        columns |= {as_found(name): pl.lit(None, dtype) for name, dtype in originals.items()}
        for name, raw in raws.items():
            columns[name] = self.columns.read(name, raw, types[name])
            if name in originals:
                value = raw_value(pl.col(name), raw.stored)
                columns[as_found(name)] = value.cast(originals[name], strict=False)
        place = {FILE: pl.col(FILE)} if numbered is not None else {}
        return self._raw(group, have, numbered).select(**columns, **place)


def _of(stored: dict[str, Raw], root: str) -> pl.DataType:
    """The type of a file's column in an expression; one that the file lacks is null."""
    return stored[root].stored if root in stored else pl.Null()
