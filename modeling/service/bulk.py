"""Lists for millions of histories, streamed from files to a Parquet file; what is held does not grow with their number.

sessions/day=2026-03-02/part-0.parquet     session_id, user_id, features of item_id ... as preparation writes them
histories.parquet, histories.jsonl         user_id, item_id: ["lamp-7", "lamp-9"]        raw item ids, oldest first
events.parquet, .csv, .jsonl               user_id, item_id, timestamp, ...              raw events, in any order
-> OUT/lists.parquet                       session_id and user_id as far as they are given (of events, the first of them, by
                                           which rows are grouped), rank from 1, item, score

Every history goes the way of `Recommender`: the list in the file is the list that it gives for that history alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from modeling.service.pasts import UserPasts, microseconds
from modeling.service.popularity import Filling, Popularity, popular_ids, readable
from modeling.service.recommender import KEYS, Recommender
from modeling.sessions import Sessions, from_table
from modeling.splits import Cases
from modeling.vocabularies import SCHEMA, translate
from schemas.columns import END, FIRST_ID, ITEM_ID, LENGTH, START, TIMESTAMP, USER_ID
from schemas.errors import InputError
from schemas.features import FeatureSchema

HISTORIES = 8192  # held at a time
EVENTS = 2_000_000  # raw events held at a time, about: whole sessions of them
LISTS, SESSIONS = "lists.parquet", "sessions"
SOURCE, MODEL, POPULARITY = "source", "model", "popularity"  # the column that says why an item is in a list


@dataclass(frozen=True)
class Histories:
    """Some histories, whose they are (columns of KEYS, a row each), the item ids that the model does not have, how many raw
    events were left out, and when their last events were."""

    sessions: Sessions
    keys: pl.DataFrame
    unknown: list[Any] = field(default_factory=list)
    left_out: int = 0
    ends: pl.Series | None = None


def write_lists(
    recommender: Recommender,
    batches: Iterator[Histories],
    out: Path,
    k: int,
    *,
    filter_seen: bool,
    progress: Callable[[int], object] = lambda histories: None,
    source: bool = False,
    popularity: Popularity | None = None,
) -> dict[str, int]:
    """Write the lists of all histories as OUT/lists.parquet, complete or not at all; how many there are of what.

    `progress` is called with the number of histories done; `source` adds a column that says where an item comes from. Those of
    which the model knows nothing, as all their items are unknown, get what is `popular`, without scores. Histories without an
    event get no list and are counted as `empty`; those of which nothing is left to recommend have no row, and are counted as
    `nothing_left`; raw events without an item, a time or a key are `left_out_events`.

    Raises:
        InputError: when OUT is there already, and for what `Recommender.ranked` refuses.
    """
    if out.exists() or out.is_symlink():
        raise InputError(f"--out {out} is there already: name a folder that is not, or remove it.")
    counts = {"histories": 0, "empty": 0, "nothing_left": 0, "rows": 0, "unknown_items": 0, "left_out_events": 0}
    counts |= {"popular": 0} if popularity else {}
    filling = Filling(recommender, popularity, filter_seen) if popularity else None
    draft = _empty_draft(out)
    writer: pq.ParquetWriter | None = None
    try:
        for batch in batches:
            counts["unknown_items"] += len(batch.unknown)
            counts["left_out_events"] += batch.left_out
            for part in torch.arange(len(batch.sessions)).split(HISTORIES):
                table = _lists(recommender, batch, part, k, filter_seen, counts, filling)
                if source:
                    table = table.append_column(SOURCE, pa.array([MODEL] * table.num_rows, pa.string()))
                writer = writer or pq.ParquetWriter(draft / LISTS, table.schema)
                _require_same(table.schema, writer.schema)
                writer.write_table(table)
                progress(counts["histories"])
        if writer is None:
            raise InputError("There is no history in the files.")
        writer.close()
        draft.rename(out)
    finally:
        if writer is not None:
            writer.close()
        shutil.rmtree(draft, ignore_errors=True)
    return counts


def _empty_draft(out: Path) -> Path:
    draft = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"--out {out}: that folder cannot be made ({error.strerror}). Name another.") from None
    return draft


def _require_same(schema: pa.Schema, first: pa.Schema) -> None:
    """One file of lists has columns of one name and type."""
    if not schema.equals(first):
        keys, keys_before = (
            ", ".join(f"{name} ({of.field(name).type})" for name in KEYS if name in of.names) for of in (schema, first)
        )
        raise InputError(
            f"The files do not say alike whose histories they hold: first by {keys_before}, then by {keys}. Give them one by "
            "one, each with an --out of its own, or the same columns of the same types."
        )


def _lists(
    recommender: Recommender,
    batch: Histories,
    part: torch.Tensor,
    k: int,
    filter_seen: bool,
    counts: dict[str, int],
    filling: Filling | None,
) -> pa.Table:
    some = part[batch.sessions.places[part] > 0]
    sessions = batch.sessions.select(some)
    ids_NK, scores_NK = recommender.ranked(sessions, k, filter_seen=filter_seen)
    if filling is not None:
        unknown = (~readable(recommender.model, sessions)).nonzero().squeeze(1)
        ends = None if batch.ends is None else batch.ends.gather(some.numpy()).to_list()
        ids_NK[unknown] = popular_ids(filling, sessions, unknown, ids_NK.shape[1], ends).to(ids_NK.device)
        scores_NK[unknown] = float("nan")
        counts["popular"] += len(unknown)
    lists = recommender.table_of(batch.keys[some.numpy()], ids_NK, scores_NK)
    lists = lists.with_columns(pl.col("score").fill_nan(None))
    counts["histories"] += len(part)
    counts["empty"] += len(part) - len(some)
    counts["nothing_left"] += int((~(ids_NK >= FIRST_ID).any(1)).sum())
    counts["rows"] += lists.height
    return lists.to_arrow(compat_level=pl.CompatLevel.oldest())


def parquet_files(source: Path) -> list[Path]:
    """A Parquet file, or those of a folder and its folders, in order of their names; of a prepared dataset its sessions.

    Raises:
        InputError: when there is none.
    """
    if (source / SCHEMA).is_file() and (source / SESSIONS).is_dir():
        source = source / SESSIONS  # its other tables (items, vocabularies) are none of histories
    files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise InputError(f"--from {source}: there is no file, or no .parquet file in that folder.")
    return files


def from_parquet(recommender: Recommender, files: list[Path]) -> tuple[int | None, Iterator[Histories]]:
    """How many histories there are, where files say so, and these: of sessions, of lists of raw ids, or of raw events.

    Raises:
        InputError: for sessions of another dataset, and columns that are missing.
    """
    schema = pq.read_schema(files[0])
    if not _holds_lists(schema, files[0]):
        _require_same_columns(files)
        return None, from_events(recommender, pl.scan_parquet(files, glob=False, hive_partitioning=False))
    number = sum(pq.read_metadata(file).num_rows for file in files)
    if {END, LENGTH} <= set(schema.names):
        return number, _prepared(recommender, files, _prepared_folder(recommender, files[0]))
    return number, _of_ids(recommender, files)


def _prepared_folder(recommender: Recommender, file: Path) -> Path:
    """The folder above a file of sessions that says by its schema.json and vocabularies whose ids these are."""
    folder = next((folder for folder in file.absolute().parents if (folder / SCHEMA).is_file()), None)
    if folder is None:
        raise InputError(
            f"{file}: there is no {SCHEMA} in the folders above, which says what the ids of sessions mean."
        )
    dataset = FeatureSchema.read(folder / SCHEMA).dataset
    if dataset != recommender.schema.dataset:
        raise InputError(f"{file}: these are sessions of {dataset!r}, the model is of {recommender.schema.dataset!r}.")
    return folder


def _prepared(recommender: Recommender, files: list[Path], folder: Path) -> Iterator[Histories]:
    """Sessions as preparation wrote them, in the ids of the model; where it reads them, with past ones of the same folder.

    All sessions of the folder are held then.
    """
    schema = FeatureSchema.read(folder / SCHEMA)
    count = recommender.model.settings.inputs.past_events
    pasts = recommender.pasts or (UserPasts(folder, recommender.folder, count) if count else None)
    of_user = [START, USER_ID] if pasts else []
    for file in files:
        with pq.ParquetFile(file) as parquet:
            keys = _keys(parquet.schema_arrow.names, file)
            wanted = dict.fromkeys([*keys, END, *(column.name for column in schema.columns), *of_user])
            for batch in parquet.iter_batches(HISTORIES, columns=list(wanted)):
                table = pa.Table.from_batches([batch])
                sessions = from_table(table, schema)
                cases = Cases(sessions, torch.zeros(len(sessions), dtype=torch.long))
                histories = translate(cases, folder, recommender.folder).history
                if pasts:
                    frame = _frame(table.select(of_user))
                    histories = pasts.before(histories, frame[USER_ID], microseconds(frame[START]))
                ends = _frame(table.select([END]))[END].cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
                yield Histories(histories, _frame(table.select(keys)), ends=ends)


def of_everyone(recommender: Recommender, at: datetime | None = None) -> Iterator[Histories]:
    """Every user of the recommender's prepared sessions, with no current session: their past alone, until `at` (now).

    Raises:
        InputError: where the recommender has no prepared sessions.
    """
    if recommender.pasts is None:
        raise InputError(f"{recommender.folder}: lists for users from their past need prepared sessions.")
    for users in recommender.pasts.users.to_frame(USER_ID).iter_slices(HISTORIES):
        sessions, _ = recommender.histories([[]] * len(users), users[USER_ID].to_list(), at)
        yield Histories(sessions, users)


def holds_histories(file: Path) -> bool:
    """Whether a Parquet file has lists of items, be they of prepared sessions or raw ids, and not an event a row.

    Raises:
        InputError: where it cannot be read.
    """
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file}: cannot be read as Parquet ({' '.join(str(error).split())}).") from None
    return ITEM_ID in schema.names and _holds_lists(schema, file)


def _holds_lists(schema: pa.Schema, file: Path) -> bool:
    """Whether a file has lists of items, not an item a row."""
    if ITEM_ID not in schema.names:
        raise InputError(f"{file}: there is no column {ITEM_ID} among {', '.join(schema.names) or 'none'}.")
    kind = schema.field(ITEM_ID).type
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _require_lists(schema: pa.Schema, file: Path) -> None:
    if not _holds_lists(schema, file):
        raise InputError(f"{file}: {ITEM_ID} is no list, in files before it is. Give lists and raw events apart.")


def _require_same_columns(files: list[Path]) -> None:
    """Files of raw events are parts of one table."""
    first, *rest = (dict(zip(schema.names, schema.types, strict=True)) for schema in map(pq.read_schema, files))
    for file, columns in zip(files[1:], rest, strict=True):
        if columns != first:
            raise InputError(
                f"{file}: its columns ({_in_words(columns)}) are not those of {files[0]} ({_in_words(first)}). Give --from the "
                "events alone, in files of the same columns."
            )


def _in_words(columns: dict[str, pa.DataType]) -> str:
    return ", ".join(f"{name} {dtype}" for name, dtype in columns.items())


def _of_ids(recommender: Recommender, files: list[Path]) -> Iterator[Histories]:
    """A list of raw item ids a row; a null is an empty history."""
    for file in files:
        with pq.ParquetFile(file) as parquet:
            _require_lists(parquet.schema_arrow, file)
            for batch in parquet.iter_batches(HISTORIES, columns=[*_keys(parquet.schema_arrow.names, file), ITEM_ID]):
                yield from _of_frame(recommender, _frame(pa.Table.from_batches([batch])), file)


def from_text(recommender: Recommender, table: pl.LazyFrame) -> tuple[int | None, Iterator[Histories]]:
    """Of a table that was written as text the same: lists of raw ids (JSON lines alone can hold them), or raw events."""
    schema = table.collect_schema()
    if not isinstance(schema.get(ITEM_ID), pl.List):
        return None, from_events(recommender, table)
    frame = table.collect()
    return frame.height, _of_frame(recommender, frame, "The lists")


def _of_frame(recommender: Recommender, frame: pl.DataFrame, where: Path | str) -> Iterator[Histories]:
    keys = _keys(frame.columns, where)
    for some in frame.iter_slices(HISTORIES):
        items = [items or [] for items in some[ITEM_ID].to_list()]
        sessions, unknown = recommender.histories(items)
        yield Histories(sessions, some.select(keys), unknown)


def from_events(recommender: Recommender, events: pl.LazyFrame) -> Iterator[Histories]:
    """Raw events in any order: rows of one session_id, else of one user_id, are a session. A log has rows that preparation
    would refuse: those without an item, a time or a key are left out and counted.

    The events are read as often as EVENTS of them fit into all, each time for the sessions of another hash.

    Raises:
        InputError: without such a column.
    """
    names = events.collect_schema().names()
    if not names:
        raise InputError("There is no history in the files.")
    key = _keys(names, "The events")[0]
    number = events.select(pl.len()).collect().item()
    buckets = max(1, -(-number // EVENTS))
    for bucket in range(buckets):
        table = events.filter(pl.col(key).hash(0) % buckets == bucket).collect() if buckets > 1 else events.collect()
        whole = table.drop_nulls([key, *({ITEM_ID, TIMESTAMP} & set(names))])
        if table.height:
            read = recommender.read_events(whole)
            keys = pl.DataFrame({key: pl.Series(read.keys, dtype=table.schema[key])})
            yield Histories(read.sessions, keys, read.missing, table.height - whole.height, read.ends)


def _keys(names: list[str], where: Path | str) -> list[str]:
    keys = [name for name in KEYS if name in names]
    if not keys:
        raise InputError(f"{where}: lists need {' or '.join(KEYS)} to say whose they are; there is {', '.join(names)}.")
    return keys


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
