"""Paths from a file's columns to values inside them: `geo.country`, `items[].item_id`, `tags.split(" ")[0]`.

    name                a column, or a field of an object
    [0]                 an element of a list, from 0; null beyond its end
    [key=page]          the first object of a list whose field `key` is the text "page"
    []                  every element, a row each; all paths with `[]` go through their lists together
    .index()            after [], the place of the element, from 0
    .split("x")         text cut at each x into a list

A column whose whole name is that of the path, dots and all, goes first. Text that holds JSON is an object or a list, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import polars as pl

from schemas.errors import InputError

_STEP = re.compile(
    r"""\.split\((?P<quote>["'])(?P<cut>.+?)(?P=quote)\) | \.(?P<index>index)\(\) | \[(?P<each>)\] | \[(?P<at>\d+)\]
    | \[(?P<key>[^\]=]+)=(?P<value>[^\]]*)\] | \.(?P<field>[^.\[\]]+)""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Step:
    """A part of a path after its column; `kind` is field, at, where, split, each or index."""

    kind: str
    name: str = ""
    value: str = ""


@dataclass(frozen=True)
class Path:
    """A path as it is written, the column it begins at, and the way from there."""

    text: str
    root: str
    steps: tuple[Step, ...] = ()


def parse(text: str, names: Collection[str] = ()) -> Path:
    """The path that `text` stands for in a file with columns of these names.

    Raises:
        InputError: for what is no path.
    """
    if text in names:
        return Path(text, text)
    roots = [name for name in names if text.startswith((f"{name}.", f"{name}["))]
    root = max(roots, key=len, default="") or re.split(r"[.\[]", text, maxsplit=1)[0]
    steps, place = list[Step](), len(root)
    while place < len(text):
        found = _STEP.match(text, place)
        if not root or not found:
            return Path(text, text)  # an odd name, which is then looked for as it is
        steps.append(_step(found))
        place = found.end()
    for before, step in zip([Step("field"), *steps], steps, strict=False):
        if step.kind == "index" and before.kind != "each":
            raise InputError(f"{text!r}: .index() stands right behind [], as in items[].index().")
    return Path(text, root, tuple(steps))


def _step(found: re.Match[str]) -> Step:
    if found["cut"]:
        return Step("split", found["cut"])
    if found["index"]:
        return Step("index")
    if found["each"] is not None:
        return Step("each")
    if found["at"]:
        return Step("at", found["at"])
    return Step("where", found["key"], found["value"]) if found["key"] else Step("field", found["field"])


def inside(schema: Mapping[str, pl.DataType]) -> list[str]:
    """Paths to what is in the objects and lists among these columns, not deeper than that."""
    found = []
    for name, dtype in schema.items():
        element = as_type(dtype.inner) if isinstance(dtype, pl.List | pl.Array) else None
        start = f"{name}[]" if element is not None else name
        within = element if element is not None else dtype
        if isinstance(within, pl.Struct):
            found += [f"{start}.{field.name}" for field in within.fields]
        elif element is not None:
            found.append(start)
    return found


def type_at(path: Path, dtype: pl.DataType | None) -> pl.DataType | None:
    """The type at the end of a path that begins at a column of `dtype`; None where there is no such field.

    Raises:
        InputError: where a list is taken for an object, or neither is there.
    """
    for step in path.steps:
        if dtype is None:
            return None
        dtype = _next_type(path, step, dtype)
    return dtype


def _next_type(path: Path, step: Step, dtype: pl.DataType) -> pl.DataType | None:
    if step.kind == "index":
        return pl.Int64()
    if dtype in (pl.String, pl.Binary, pl.Null):
        return pl.List(pl.String) if step.kind == "split" else pl.String()
    if isinstance(dtype, pl.Struct) and step.kind == "field":
        return next((as_type(field.dtype) for field in dtype.fields if field.name == step.name), None)
    inner = as_type(dtype.inner) if isinstance(dtype, pl.List | pl.Array) else None
    if inner is not None and step.kind in ("each", "at", "where"):
        return inner
    if inner is not None:
        raise InputError(
            f"column {path.text!r}: there is a list where {step.name!r} is taken: write {path.root}[] for a row an element "
            f"or {path.root}[0] for the first."
        )
    raise InputError(f"column {path.text!r}: there is {dtype}, which has no parts.")


def as_type(dtype: Any) -> pl.DataType:
    """An instance, where Polars gives a class."""
    made: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return made


def json_type(ways: Iterable[Sequence[Step]], whole: pl.DataType) -> pl.DataType:
    """The type that JSON is read as, so that all ways into it lead somewhere; `whole` where there is none. Leaves are text.

    Raises:
        InputError: when a value is wanted as a list and as an object.
    """
    ways = [way for way in ways if way and way[0].kind not in ("split", "index")]
    if not ways:
        return whole
    kinds = {way[0].kind == "field" for way in ways}
    if len(kinds) > 1:
        field = next(way[0].name for way in ways if way[0].kind == "field")
        raise InputError(
            f"{field!r} is taken of an object by one column and of a list by another: one of them is wrong."
        )
    if kinds == {True}:
        names = dict.fromkeys(way[0].name for way in ways)
        return pl.Struct({name: json_type([way[1:] for way in ways if way[0].name == name], whole) for name in names})
    inside = [way[1:] for way in ways] + [(Step("field", way[0].name),) for way in ways if way[0].kind == "where"]
    return pl.List(json_type(inside, pl.String()))


@dataclass(frozen=True)
class _Way:
    """How far a path has been followed: the value reached, its type, and what is left of the way."""

    path: Path
    value: pl.Expr
    dtype: pl.DataType
    rest: tuple[Step, ...]

    @property
    def reached(self) -> tuple[str, tuple[Step, ...]]:
        """Where it is, the same for paths that share their beginning."""
        return self.path.root, self.path.steps[: len(self.path.steps) - len(self.rest)]

    @property
    def is_text(self) -> bool:
        """Whether what is reached is text, or nothing but nulls."""
        return self.dtype in (pl.String, pl.Binary, pl.Null)


def extract(
    frame: pl.LazyFrame,
    paths: Sequence[Path],
    keep: Sequence[str] = (),
    lost: list[pl.LazyFrame] | None = None,
    where: str = "",
) -> pl.LazyFrame:
    """Columns named by the paths' text, and those of `keep`. A row whose list is empty or null gives no row.

    Plans that count such rows, one for each depth of lists, are added to `lost`. `where` names the files in what is raised
    while the frame is collected: InputError for text that is no JSON and for lists of one row that differ in length.
    """
    schema = frame.collect_schema()
    ways = [_Way(path, pl.col(path.root), schema[path.root], path.steps) for path in paths]
    while any(way.rest for way in ways):
        ways = [_to_next_list(way, paths, where) for way in ways]
        lists = {str(way.reached): way.value for way in ways if way.rest}
        places = {_place(way): pl.int_ranges(way.value.list.len()) for way in ways if _place(way)}
        done = {way.path.text: way.value for way in ways if not way.rest}
        columns = {**done, **lists, **places}
        frame = frame.select(*keep, *(value.alias(name) for name, value in columns.items()))
        if lists:
            if lost is not None:
                none = pl.all_horizontal((pl.col(name).list.len() == 0).fill_null(True) for name in lists)
                lost.append(frame.select(none.sum().cast(pl.Int64).alias("rows")))
            frame = _same_lengths(frame, {str(way.reached): _written(way) for way in ways if way.rest}, where)
            frame = frame.explode(*lists, *places, empty_as_null=False, keep_nulls=False)
        ways = [_element(way) for way in ways]
    return frame.select(*keep, *(way.value.alias(way.path.text) for way in ways))


def _to_next_list(way: _Way, paths: Sequence[Path], where: str) -> _Way:
    """Up to a list of which every element is wanted, or the end."""
    while way.rest and (way.rest[0].kind != "each" or way.is_text):
        step = way.rest[0]
        if way.is_text:
            way = _into_text(way, paths, where)
            continue
        inside = _next_type(way.path, step, way.dtype)
        assert inside is not None, way.path.text
        value = way.value.arr.to_list() if isinstance(way.dtype, pl.Array) else way.value
        if step.kind == "field":
            value = value.struct.field(step.name)
        elif step.kind == "at":
            value = value.list.get(int(step.name), null_on_oob=True)
        else:
            fits = pl.element().struct.field(step.name).cast(pl.String) == step.value
            value = value.list.eval(pl.element().filter(fits)).list.get(0, null_on_oob=True)
        way = _Way(way.path, value, inside, way.rest[1:])
    if way.rest and isinstance(way.dtype, pl.Array):
        return _Way(way.path, way.value.arr.to_list(), pl.List(way.dtype.inner), way.rest)
    return way


def _into_text(way: _Way, paths: Sequence[Path], where: str) -> _Way:
    """Text cut into a list, or read as JSON: fields and elements one by one, a list with all that is wanted of it."""
    text, step = way.value.cast(pl.String), way.rest[0]
    if step.kind == "split":
        return _Way(way.path, pl.when(text != "").then(text).str.split(step.name), pl.List(pl.String()), way.rest[1:])
    if step.kind in ("field", "at"):
        inside = list(takewhile(lambda step: step.kind in ("field", "at"), way.rest))
        names = (f"[{step.name}]" if step.kind == "at" else f"[{json.dumps(step.name)}]" for step in inside)
        return _Way(way.path, text.str.json_path_match(f"${''.join(names)}"), pl.String(), way.rest[len(inside) :])
    root, gone = way.reached
    alike = [path.steps[len(gone) :] for path in paths if path.root == root and path.steps[: len(gone)] == gone]
    dtype = json_type(alike, pl.String())
    lists = pl.when(text.str.strip_chars_start().str.starts_with("[")).then(text)

    def decode(texts: pl.Series) -> pl.Series:
        try:
            return texts.str.json_decode(dtype)
        except pl.exceptions.PolarsError as error:
            raise _undecoded(f"{where}: column {root!r}", texts, dtype, str(error)) from None

    return _Way(way.path, lists.map_batches(decode, return_dtype=dtype, is_elementwise=True), dtype, way.rest)


def _undecoded(where: str, texts: pl.Series, dtype: pl.DataType, reason: str) -> InputError:
    """What to say of the first text that cannot be read as JSON of a type."""
    for text in texts.drop_nulls():
        try:
            json.loads(text)
            pl.Series([text]).str.json_decode(dtype)
        except (ValueError, pl.exceptions.PolarsError) as error:
            said = str(error).partition("\n")[0]
            return InputError(f"{where}: {text[:200]!r} is no JSON list ({said}); mend the value, or leave it empty.")
    return InputError(f"{where}: holds text that is no JSON ({reason}).")


def _same_lengths(frame: pl.LazyFrame, lists: Mapping[str, str], where: str) -> pl.LazyFrame:
    """The frame, whose lists (column: path as it is written) are gone through together, which is checked as it is collected."""
    if len(lists) < 2:
        return frame

    def check(lengths: pl.Series) -> pl.Series:
        table = lengths.struct.unnest()
        odd = table.filter(pl.any_horizontal(pl.col(name) != pl.col(table.columns[0]) for name in table.columns[1:]))
        if odd.height:
            sizes = " and ".join(f"{odd[name][0]} in {lists[name]!r}" for name in lists)
            raise InputError(
                f"{where}: a row has {sizes}; lists whose elements are taken together are of one length. Mend the file, or map "
                "columns of one list."
            )
        return pl.repeat(True, len(lengths), dtype=pl.Boolean, eager=True)

    lengths = pl.struct(pl.col(name).list.len().fill_null(0).alias(name) for name in lists)
    return frame.filter(lengths.map_batches(check, return_dtype=pl.Boolean, is_elementwise=True))


def _written(way: _Way) -> str:
    """A path up to the list that it has come to, as it is written."""
    depth = sum(step.kind == "each" for step in way.reached[1]) + 1
    return "[]".join(way.path.text.split("[]")[:depth]) + "[]"


def _place(way: _Way) -> str:
    """The name of the column with the places of a list's elements, where a path ends in it."""
    return f"{way.reached} place" if len(way.rest) > 1 and way.rest[1].kind == "index" else ""


def _element(way: _Way) -> _Way:
    """The same way in the frame that has a row an element."""
    if not way.rest:
        return _Way(way.path, pl.col(way.path.text), way.dtype, ())
    if _place(way):
        return _Way(way.path, pl.col(_place(way)), pl.Int64(), ())
    inner = _next_type(way.path, way.rest[0], way.dtype)
    assert inner is not None
    return _Way(way.path, pl.col(str(way.reached)), inner, way.rest[1:])
