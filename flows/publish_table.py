"""Lists of recommendations into a table of a database: readers see those of yesterday or those of today, and nothing between.

Rows go to a table of another name, batch by batch. When all are there, one transaction takes the old table away and gives the
new one its name. A run that is killed before that leaves the old table as it was, and a table that a later run removes.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import sqlalchemy as sql

from flows.connections import url_of
from flows.reports.progress import Lines
from preprocessing.source.database.rows import connected
from schemas.artifacts import UNFINISHED, Artifacts
from schemas.errors import AwayError, InputError, unknown
from schemas.progress import Progress
from schemas.sources import TABLE_NAME

PUBLISH = "publish"
BATCH = 50_000  # rows sent at a time
KEYS = ("user_id", "session_id")  # by which lists are looked up, the first that is there
SWAPS = ("sqlite", "postgresql")  # databases that change tables in a transaction
AGAIN = (10.0, 60.0)
LEFT_SECONDS = 86_400  # after which a table that a run left is nobody's any more
LOCK_WAIT = "60s"  # for readers of the old table to be done, while new ones wait
TYPES: dict[Any, Any] = {pl.Int64: sql.BigInteger, pl.Int32: sql.Integer, pl.Float32: sql.Float, pl.Float64: sql.Float}
OnProgress = Callable[[Progress | str], object]


@dataclass(frozen=True)
class Target:
    """A table of a database, by the name of its connection; the URL is asked for when it is used."""

    connection: str
    table: str

    def __post_init__(self) -> None:
        if not re.fullmatch(TABLE_NAME, self.table):
            raise InputError(
                f"Table {self.table!r}: expected are letters, digits and underscores, at most 40, such as recommendations, or "
                "with a schema in front: shop.recommendations."
            )

    def __str__(self) -> str:
        return f"table {self.table} of {self.connection}"

    @contextlib.contextmanager
    def open(self) -> Iterator[sql.Connection]:
        """A connection to write by.

        Raises:
            InputError: for a name that has no URL, and a database that cannot change tables in one step.
            AwayError: when it does not answer.
        """
        with connected(url_of(self.connection), f"database {self.connection}", reads=False) as connection:
            if connection.dialect.name not in SWAPS:
                raise unknown("kind of database for lists", connection.dialect.name, SWAPS)
            yield connection


@contextlib.contextmanager
def lists_to(
    out: Path | None, to: str | None, table: str, root: Path, say: Callable[[str], object]
) -> Iterator[Path | None]:
    """The folder `out`; or, where lists go `to` a database, a folder that does not stay: its lists are in the table afterwards.

    Raises:
        InputError, AwayError: as `Target.open`, before the block; and where both are given.
    """
    if not to:
        yield out
        return
    if out:
        raise InputError(f"--out {out} and --to {to}: lists go to one of them.")
    target, lines = Target(to, table), Lines(say)
    with target.open():
        pass
    drafts = Artifacts(root).root / UNFINISHED
    drafts.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=drafts, prefix="lists.") as place:
        folder = Path(place) / "lists"
        yield folder
        if folder.is_dir():
            publish([folder / "lists.parquet"], target, lines)


def publish(files: list[Path], target: Target, progress: OnProgress) -> int:
    """Replace the table by the rows of Parquet files, all of the columns of the first; how many there are.

    A database that breaks off is tried again, `AGAIN` seconds later.

    Raises:
        InputError: for what the database refuses, such as a table that a view reads.
        AwayError: when it broke off each time; the table is then as it was.
    """
    for seconds in AGAIN:
        try:
            return _publish(files, target, progress)
        except AwayError as error:
            progress(f"{error} Tried again in {seconds:.0f} seconds.")
            time.sleep(seconds)
    return _publish(files, target, progress)


def _publish(files: list[Path], target: Target, progress: OnProgress) -> int:
    schema, total = pl.Schema(pl.read_parquet_schema(files[0])), sum(pq.read_metadata(file).num_rows for file in files)
    name, _, above = target.table.rpartition(".")[::-1]
    with target.open() as connection:
        _remove_left(connection, name, above or None)
        new = _table(f"{name}__new_{int(time.time())}_{secrets.token_hex(3)}", above or None, schema)
        with connection.begin():
            new.create(connection)
        done = 0
        for file in files:
            for batch in pq.ParquetFile(file).iter_batches(BATCH):
                rows = pl.DataFrame(batch).select(schema.names()).cast(dict(schema))  # type: ignore[arg-type]
                with connection.begin():
                    _insert(connection, new, rows)
                done += rows.height
                progress(Progress(PUBLISH, done, total))
        if key := next((key for key in KEYS if key in schema), None):
            with connection.begin():
                sql.Index(f"{new.name[-20:]}_{key}", new.c[key]).create(connection)
        with connection.begin():
            _swap(connection, new, name)
    progress(Progress(PUBLISH, 1, 1, f"{total:,} rows in {target}"))
    return total


def _table(name: str, above: str | None, schema: pl.Schema) -> sql.Table:
    columns = [sql.Column(column, TYPES.get(dtype.base_type(), sql.Text)) for column, dtype in schema.items()]
    return sql.Table(name, sql.MetaData(), *columns, schema=above)


def _insert(connection: sql.Connection, table: sql.Table, rows: pl.DataFrame) -> None:
    others = [name for name, dtype in rows.schema.items() if dtype.base_type() not in TYPES]
    rows = rows.with_columns(pl.col(others).cast(pl.String))
    driver: Any = connection.connection.driver_connection
    if connection.dialect.driver != "psycopg":
        connection.execute(table.insert(), rows.to_dicts())
        return
    names = ", ".join(map(connection.dialect.identifier_preparer.quote, rows.columns))
    place = connection.dialect.identifier_preparer.format_table(table)
    with driver.cursor() as cursor, cursor.copy(f"COPY {place} ({names}) FROM STDIN") as copy:  # ten times as fast
        for row in rows.iter_rows():
            copy.write_row(row)


def _swap(connection: sql.Connection, new: sql.Table, name: str) -> None:
    """The new table in place of the old, with what others may do with it."""
    prepared = connection.dialect.identifier_preparer
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")  # a view that reads the table is left as it is
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # Python's driver begins none where tables change
    above = f"{prepared.quote(new.schema)}." if new.schema else ""
    old, there = f"{above}{prepared.quote(name)}", sql.inspect(connection).has_table(name, schema=new.schema)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'")
        for privilege, grantee in _grants(connection, old) if there else ():
            to = "PUBLIC" if grantee is None else prepared.quote(grantee)
            connection.exec_driver_sql(f"GRANT {privilege} ON {prepared.format_table(new)} TO {to}")
    if there:
        connection.exec_driver_sql(f"DROP TABLE {old}")
    connection.exec_driver_sql(f"ALTER TABLE {prepared.format_table(new)} RENAME TO {prepared.quote(name)}")


def _grants(connection: sql.Connection, table: str) -> list[tuple[str, str | None]]:
    """What has been granted on a table of PostgreSQL: privilege, and role; None for everybody."""
    asked = sql.text(
        "SELECT given.privilege_type, pg_get_userbyid(nullif(given.grantee, 0)) FROM pg_class AS c, "
        "aclexplode(c.relacl) AS given WHERE c.oid = to_regclass(:name) AND given.grantee <> c.relowner"
    )
    return [(row[0], row[1]) for row in connection.execute(asked, {"name": table})]


def _remove_left(connection: sql.Connection, name: str, above: str | None) -> None:
    """Tables that runs left that were killed a day ago or earlier."""
    for found in sql.inspect(connection).get_table_names(schema=above):
        left = re.fullmatch(rf"{re.escape(name)}__new_(\d+)_[0-9a-f]+", found)
        if left and time.time() - int(left[1]) > LEFT_SECONDS:
            sql.Table(found, sql.MetaData(), schema=above).drop(connection, checkfirst=True)
    connection.commit()
