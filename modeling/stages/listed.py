"""Test cases of a list: a Parquet file of histories with targets, in raw ids, read some at a time.

user_id: u7, item_id: ["lamp-7", "lamp-9"], target: "shade-1"       user_id may be left out; a row then is a user of its own

Histories are read as those that `recommend` is given: features of an item are those of the item table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from modeling.config import SplitConfig
from modeling.service.histories import Catalogue, from_items
from modeling.sessions import Sessions
from modeling.splits import Cases, Split, folds
from schemas.artifacts import Manifest
from schemas.columns import ITEM_ID, USER_ID
from schemas.errors import InputError
from schemas.features import FeatureSchema

TARGET = "target"
ROWS = 8192  # held as Python values at a time
ITEMS = "items.parquet"


def read_split(
    sessions: Manifest, config: SplitConfig, most_validation: int, newest_days: int = 0, past: int = 0
) -> Split:
    """Train, validation and test of the newest fold of a split; where its rule is a list, the test is that list.

    With `newest_days` training sessions are those of a model that was trained again with so many days held out whole before.

    Raises:
        InputError: as `folds`, `Fold.read` and `cases_of` do.
    """
    fold = folds(sessions, config, past)[-1]
    whole = newest_days and fold.train_days
    split = fold.read_whole(newest_days, most_validation) if whole else fold.read(most_validation)
    if config.rule != "list":
        return split
    schema = FeatureSchema.read(sessions.folder / "schema.json")
    items = pl.read_parquet(sessions.folder / ITEMS, glob=False)
    test, users = cases_of(Path(str(config.path)), Catalogue(schema, items, sessions.folder))
    return replace(split, test=test, users=users)


def cases_of(file: Path, catalogue: Catalogue) -> tuple[Cases, pl.Series]:
    """The cases of a list and whose they are, in the order of its rows. Items that the catalogue does not have are unknown.

    Raises:
        InputError: for a file that cannot be read, without these columns or a row, and for ids of another type, with their row.
    """
    parts = [_encoded(frame, first, file, catalogue) for first, frame in _frames(file)]
    if not parts:
        raise InputError(f"evaluation.split.path {file}: there is no row in it.")
    sessions, targets, users = zip(*parts, strict=True)
    return Cases(_together(sessions), torch.cat(targets)), pl.concat(users)


def check_list(file: Path) -> None:
    """Look at the columns of a list, before anything is trained that it is to test.

    Raises:
        InputError: for a file that cannot be read, lacks one of them, or has no row.
    """
    with _opened(file) as parquet:
        _require_columns(parquet.schema_arrow, file)
        if not parquet.metadata.num_rows:
            raise InputError(f"evaluation.split.path {file}: there is no row in it.")


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"evaluation.split.path {file}: cannot be read as Parquet ({' '.join(str(error).split())})."
        ) from None


def _frames(file: Path) -> Iterator[tuple[int, pl.DataFrame]]:
    """(number of the first row, rows) of a list, some at a time."""
    with _opened(file) as parquet:
        _require_columns(parquet.schema_arrow, file)
        columns = [name for name in (USER_ID, ITEM_ID, TARGET) if name in parquet.schema_arrow.names]
        first = 0
        for batch in parquet.iter_batches(ROWS, columns=columns):
            frame = pl.from_arrow(pa.Table.from_batches([batch]))
            assert isinstance(frame, pl.DataFrame)
            yield first, frame
            first += frame.height


def _require_columns(schema: pa.Schema, file: Path) -> None:
    for name, what in ((ITEM_ID, "lists of item ids, oldest first"), (TARGET, "an item id a row")):
        kind = schema.field(name).type if name in schema.names else None
        is_list = kind is not None and (pa.types.is_list(kind) or pa.types.is_large_list(kind))
        if kind is None or is_list != (name == ITEM_ID):
            problem = "there is none" if kind is None else f"it holds {kind}"
            raise InputError(
                f"evaluation.split.path {file}: the column {name} has {what}, but {problem}; the columns are "
                f"{', '.join(schema.names) or 'none'}."
            )


def _encoded(frame: pl.DataFrame, first: int, file: Path, catalogue: Catalogue) -> tuple[Sessions, Tensor, pl.Series]:
    in_lists = frame[ITEM_ID].list.eval(pl.element().is_null()).list.any()
    for name, empty in ((TARGET, frame[TARGET].is_null()), (ITEM_ID, in_lists)):
        if (rows := empty.fill_null(False).arg_true()).len():
            raise InputError(f"evaluation.split.path {file}: row {first + rows[0] + 1}: {name} holds a null.")
    histories: Sequence[Sequence[Any]] = [items or [] for items in frame[ITEM_ID].to_list()]
    try:
        sessions, _ = from_items(histories, catalogue)
        target, _ = from_items([[item] for item in frame[TARGET].to_list()], catalogue)
    except InputError as error:
        raise InputError(
            f"evaluation.split.path {file}, rows {first + 1:,} to {first + frame.height:,}: {error}"
        ) from None
    rows = pl.int_range(first, first + frame.height, eager=True)
    users = frame[USER_ID] if USER_ID in frame.columns else rows.alias("row")
    return sessions, target.item_from_end(0), users


def _together(parts: Sequence[Sessions]) -> Sessions:
    """Sessions of several parts as one. A feature of many values is as wide as in its widest part."""
    first = parts[0]
    before = torch.tensor([len(part.items) for part in parts]).cumsum(0) - torch.tensor([len(p.items) for p in parts])
    return replace(
        first,
        events={name: _stacked([part.events[name] for part in parts]) for name in first.events},
        starts=torch.cat([part.starts + start for part, start in zip(parts, before, strict=True)]),
        lengths=torch.cat([part.lengths for part in parts]),
        end=torch.cat([part.end for part in parts]),
        context={name: _stacked([part.context[name] for part in parts]) for name in first.context},
    )


def _stacked(values: Sequence[Tensor]) -> Tensor:
    if values[0].dim() == 1:
        return torch.cat(list(values))
    width = max(value.shape[1] for value in values)
    return torch.cat([torch.nn.functional.pad(value, (0, width - value.shape[1])) for value in values])
