"""Tables that a person gives to a command: Parquet as it is typed, CSV and JSON lines as text, which nothing guesses types of.

item_id,price                {"item_id": "0101", "price": 12.5}
0101,12.5                    both give item_id "0101" and price "12.5"; whoever uses the table knows the types
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from schemas.columns import ITEM_ID
from schemas.errors import InputError

JSON_LINES = (".jsonl", ".ndjson", ".json")
TEXT = {".csv": ",", ".tsv": "\t"}
NULL_WORDS = ["", "\\N", "NULL", "null"]  # as in preparation


def read_table(path: Path, option: str) -> pl.DataFrame:
    """The table in a file, by the ending of its name (any case). `option` is what names it: "--events".

    Raises:
        InputError: for another ending, and what cannot be read.
    """
    ending = path.suffix.lower()
    try:
        if ending == ".parquet":
            return pl.read_parquet(path, glob=False)
        if ending in TEXT:
            return pl.read_csv(path, glob=False, separator=TEXT[ending], infer_schema=False, null_values=NULL_WORDS)
        if ending in JSON_LINES:
            return _read_json_lines(path)
    except (OSError, pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{option} {path}: cannot be read as {ending[1:]} ({reason}).") from None
    raise InputError(f"{option} {path}: give Parquet, CSV or JSON lines (.parquet, .csv, .tsv, .jsonl).")


def scan_table(path: Path, option: str) -> pl.LazyFrame:
    """The same table, of which not more than is asked for is held; JSON lines are read whole.

    Raises:
        InputError: for another ending, and what cannot be read.
    """
    ending = path.suffix.lower()
    if not path.exists():
        raise InputError(f"{option} {path}: there is no such file or folder.")
    if ending not in TEXT or not path.is_file():
        return read_table(path, option).lazy()
    separator = TEXT[ending]
    return pl.scan_csv(path, glob=False, separator=separator, infer_schema=False, null_values=NULL_WORDS)


def holds_lists(path: Path) -> bool:
    """Whether a file of JSON lines has a list of items a line, not an item; its first line with any says so."""
    if path.suffix.lower() not in JSON_LINES or not path.is_file():
        return False
    with path.open(encoding="utf8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError:
                return False
            if isinstance(row, dict) and row.get(ITEM_ID) is not None:
                return isinstance(row[ITEM_ID], list)
            if isinstance(row, list):
                return False
    return False


def _read_json_lines(path: Path) -> pl.DataFrame:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
        except ValueError as error:
            raise InputError(f"{path}: line {number} is no JSON ({error}).") from None
        if not isinstance(row, dict):
            raise InputError(f'{path}: line {number} is no object such as {{"item_id": "lamp-1"}}.')
        rows.append({key: _text(value) for key, value in row.items()})
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pl.DataFrame({name: _column(name, [row.get(name) for row in rows], path) for name in names})


def _column(name: str, values: list[Any], path: Path) -> pl.Series:
    lists = [isinstance(value, list) for value in values if value is not None]
    if any(lists) and not all(lists):
        raise InputError(f"{path}: {name!r} holds lists in some lines and single values in others.")
    return pl.Series(name, values, dtype=pl.List(pl.String) if any(lists) else pl.String)


def _text(value: Any) -> Any:
    """Values as they are written; of lists, those of their elements."""
    if isinstance(value, list):
        return [_text(inner) for inner in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, dict) else value
