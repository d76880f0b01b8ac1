"""Item vectors in Milvus: a collection for each model, and an alias for the one in service.

    overnight_DATASET_MODEL    item_index, item (raw id as text), vector, and for filters the item's categorical features
    overnight_DATASET          the alias that a service searches; it moves when a collection is complete, in one step

Scores are inner products with `retrieval.query_vectors`. Milvus Lite, a local file, searches exactly, whatever search
parameters it is given. A server is given by its URI, and has an index of its own choice (AUTOINDEX), which may miss items.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import polars as pl

from modeling.service.recommender import Recommender
from modeling.service.retrieval import ITEM, ITEM_INDEX, VECTOR, item_vectors, query_vectors
from modeling.sessions import Sessions
from modeling.vocabularies import read_table
from schemas.columns import ID, VALUE
from schemas.errors import InputError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

ROWS = 2000  # inserted at a time
TEXT, MOST_VALUES = 1024, 256  # bytes of a text, values of an item that has many


@dataclass(frozen=True)
class Published:
    """A model's collection, to which the alias points."""

    collection: str
    alias: str
    items: int
    written: bool  # else it was there


@contextmanager
def connected(uri: str, token: str = "") -> Iterator[MilvusClient]:
    """A client of a server (http://host:19530) or of Milvus Lite, a path that ends in .db.

    Raises:
        InputError: where pymilvus is not installed, or nothing answers at the URI; a password in it is not shown.
    """
    try:
        from pymilvus import MilvusClient, MilvusException
    except ImportError:
        raise InputError("Milvus needs packages that are not installed: pip install 'overnight[milvus]'.") from None
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs with a traceback what it raises too
    try:
        client = MilvusClient(uri, token=token)
    except (MilvusException, OSError, ValueError) as error:
        raise InputError(
            f"Milvus at {_shown(uri)} does not answer ({type(error).__name__}). Start it, or give another URI."
        ) from None
    try:
        yield client
    finally:
        client.close()


def publish(
    client: MilvusClient, recommender: Recommender, model: str, progress: Callable[[str], object] = lambda line: None
) -> Published:
    """Make a model's collection where it is not complete, and point the alias at it. Again, it only moves the alias.

    `model` is the id of its folder. The collection that the alias leaves is kept, for a rollback; older ones are dropped.
    """
    alias = alias_of(recommender.schema.dataset)
    collection = f"{alias}_{model}"
    rows = item_vectors(recommender).join(_features(recommender), on=ITEM_INDEX, how="left")
    written = _count(client, collection) != rows.height
    if written:
        _write(client, collection, rows, progress)
    if (before := _aliased(client, alias)) != collection:
        (client.alter_alias if before else client.create_alias)(collection, alias)
        for name in client.list_collections():
            if re.fullmatch(rf"{alias}_[0-9a-f]+", name) and name not in (collection, before):
                client.drop_collection(name)
    return Published(collection, alias, rows.height, written)


def search(
    client: MilvusClient,
    recommender: Recommender,
    histories: Sessions,
    k: int = 10,
    *,
    filter_seen: bool = False,
    where: str = "",
) -> list[list[str]]:
    """The k best items of each history by the alias of the model's dataset, best first, as text; fewer where fewer are left.

    `where` is an expression of Milvus over the item's features, such as `category == "lamp"`. With `filter_seen`, as many more
    are asked for as the longest history holds.
    """
    session_E, event_E = histories.seen_index()
    seen: list[set[int]] = [set() for _ in range(len(histories))]
    for session, item in zip(session_E.tolist(), histories.items[event_E].tolist(), strict=True):
        seen[session].add(item)
    more = max(map(len, seen), default=0) if filter_seen else 0
    found = client.search(
        alias_of(recommender.schema.dataset),
        query_vectors(recommender, histories).numpy(),
        limit=k + more,
        filter=where,
        output_fields=[ITEM],
        search_params={"metric_type": "IP"},
    )
    return [
        [hit["entity"][ITEM] for hit in hits if not filter_seen or hit[ITEM_INDEX] not in gone][:k]
        for hits, gone in zip(found, seen, strict=True)
    ]


def alias_of(dataset: str) -> str:
    """The alias of a dataset: names in Milvus are letters, digits and _."""
    return "overnight_" + re.sub(r"\W", "_", dataset, flags=re.ASCII)


def _write(client: MilvusClient, collection: str, rows: pl.DataFrame, progress: Callable[[str], object]) -> None:
    """All rows into a new collection; what a killed run left of it is dropped."""
    if client.has_collection(collection):
        client.drop_collection(collection)
    index = client.prepare_index_params()
    index.add_index(VECTOR, index_type="AUTOINDEX", metric_type="IP")
    client.create_collection(collection, schema=_schema(client, rows), index_params=index)
    done = 0
    for part in rows.with_columns(pl.col(ITEM).cast(pl.String)).iter_slices(ROWS):
        client.insert(collection, [_without_null(row) for row in part.iter_rows(named=True)])
        done += part.height
        progress(f"Milvus: {collection}, {done:,} of {rows.height:,} items")
    client.flush(collection)
    client.load_collection(collection)


def _without_null(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _schema(client: MilvusClient, rows: pl.DataFrame) -> Any:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False)
    schema.add_field(ITEM_INDEX, DataType.INT64, is_primary=True)
    schema.add_field(ITEM, DataType.VARCHAR, max_length=TEXT)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=rows.schema[VECTOR].shape[0])  # type: ignore[attr-defined]
    for name, dtype in rows.schema.items():
        if name in (ITEM_INDEX, ITEM, VECTOR):
            continue
        if isinstance(dtype, pl.List):
            many = {"element_type": DataType.VARCHAR, "max_capacity": MOST_VALUES}
            schema.add_field(name, DataType.ARRAY, max_length=TEXT, nullable=True, **many)
        else:
            schema.add_field(name, DataType.VARCHAR, max_length=TEXT, nullable=True)
    return schema


def _features(recommender: Recommender) -> pl.DataFrame:
    """`item_index` and, of the item table, the categorical features that have a vocabulary, as text: null where unknown."""
    table = recommender.items.select(pl.col(ID).cast(pl.Int64).alias(ITEM_INDEX))
    for column in recommender.schema.side_features:
        if column.kind != "categorical" or not column.vocabulary or column.name not in recommender.items.columns:
            continue
        words = read_table(recommender.folder / column.vocabulary)
        ids, texts = words[ID].cast(pl.Int64), words[VALUE].cast(pl.String)
        values = recommender.items[column.name]
        if column.many:
            of_item = values.list.head(MOST_VALUES).list.eval(
                pl.element()
                .cast(pl.Int64)
                .replace_strict(ids, texts, default=None, return_dtype=pl.String)
                .drop_nulls()
            )
        else:
            of_item = values.cast(pl.Int64).replace_strict(ids, texts, default=None, return_dtype=pl.String)
        table = table.with_columns(of_item.alias(column.name))
    return table


def _count(client: MilvusClient, collection: str) -> int | None:
    """How many items a collection has that was written to its end; None where there is none."""
    if not client.has_collection(collection):
        return None
    client.load_collection(collection)
    counted = client.query(collection, filter="", output_fields=["count(*)"])
    return int(counted[0]["count(*)"])


def _aliased(client: MilvusClient, alias: str) -> str | None:
    """The collection that an alias points to; None where there is no such alias."""
    return next((name for name in client.list_collections() if alias in client.list_aliases(name)["aliases"]), None)


def _shown(uri: str) -> str:
    """A URI without the name and the password in it."""
    parts = urlsplit(uri)
    return uri if not parts.netloc else f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
