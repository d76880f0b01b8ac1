"""The rows of a query through SQLAlchemy, in batches, as frames: what a database holds, in the types that Parquet has.

    1, 2, null          Int64          1, 2.5                  Float64        numeric 7, 8; 7.00, 8.00      Int64; Float64
    time with a zone    Datetime UTC   time without            Datetime       7, "A-9"                      String
    uuid, enum          String         {"a": 1}, [1]           String (JSON)  nothing but null              Null

The URL of a database holds a password: it is in no message that is raised here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sql
from sqlalchemy.engine import URL

from schemas.errors import AwayError, InputError

BATCH = 50_000  # rows held at a time
DRIVERS = {"postgresql": "psycopg[binary]", "postgres": "psycopg[binary]", "mysql": "pymysql", "mssql": "pyodbc"}
PASSES = ("08", "40", "53", "55", "57")  # connection, deadlock, no room or memory, lock, shutting down
WAIT = {"sqlite": {"timeout": 60}}  # seconds for whoever writes to an SQLite file to be done


@contextmanager
def connected(url: str, name: str, *, reads: bool = True) -> Iterator[sql.Connection]:
    """A connection that is closed when the block ends; `name` is what messages call the database. It `reads` alone, or writes.

    Raises:
        InputError: for what is no URL of a database, a driver that is not installed, and what the database refuses to run.
        AwayError: when it does not answer, or breaks off in the block.
    """
    address = _parsed(url, name)
    try:
        engine = sql.create_engine(
            address,
            poolclass=sql.NullPool,
            connect_args=WAIT.get(address.get_backend_name(), {}),
            execution_options={"postgresql_readonly": reads},
        )
    except (ImportError, sql.exc.NoSuchModuleError) as error:
        package = DRIVERS.get(address.get_backend_name())
        help_ = f"pip install {package}" if package else "install SQLAlchemy's dialect and its driver"
        raise InputError(f"{name}: {address.drivername} cannot be used ({error}): {help_}.") from None
    try:
        with engine.connect() as connection:
            if reads and connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA query_only = ON")
            yield connection
    except sql.exc.DBAPIError as error:
        why = f"{name}: {_why(error, address)}"
        raise (InputError(why) if _is_a_mistake(error, address) else AwayError(why)) from None
    except sql.exc.SQLAlchemyError as error:
        raise InputError(f"{name}: {_without_secrets(str(error), address)}") from None
    finally:
        engine.dispose()


def _parsed(url: str, name: str) -> URL:
    try:
        address = sql.make_url(url.strip())
    except (sql.exc.ArgumentError, ValueError):
        raise InputError(
            f"{name} holds no URL of a database. Expected is SQLAlchemy's form, such as "
            "postgresql+psycopg://USER:PASSWORD@HOST:5432/DATABASE or sqlite:////absolute/path.db."
        ) from None
    if address.drivername in ("postgresql", "postgres"):  # the driver that Overnight's extra brings
        address = address.set(drivername="postgresql+psycopg")
    file = address.database if address.get_backend_name() == "sqlite" else None
    if file and not file.startswith("file:") and file != ":memory:" and not Path(file).is_file():
        raise InputError(f"{name}: there is no file {file}.")  # SQLite would make an empty one
    return address


def read_rows(connection: sql.Connection, statement: str, values: Mapping[str, Any]) -> Iterator[pl.DataFrame]:
    """The rows of a SELECT in frames of BATCH rows, at least one, which may be empty; never more than one is held.

    Raises:
        InputError: for columns of one name, and values that Parquet has no type for.
    """
    clause = sql.text(statement)
    if strange := sorted(set(clause._bindparams) - set(values)):
        raise InputError(
            f"The query has a place for :{strange[0]}, which nothing fills. Known: :since. A colon that is meant as one is "
            f"written \\:{strange[0]}."
        )
    streamed = connection.execution_options(stream_results=True, yield_per=BATCH)
    used = {key: value for key, value in values.items() if key in clause._bindparams}
    with streamed.execute(clause, used) as result:
        names = list(result.keys())
        if doubled := next((column for column in names if _is_again(column, names)), None):
            raise InputError(f"The query has two columns {doubled!r}; name them apart (select a.id as a_id ...).")
        empty = True
        for rows in result.partitions(BATCH):
            empty = False
            columns = zip(names, zip(*rows, strict=True), strict=True)
            yield pl.DataFrame([column_of(name, found) for name, found in columns])
        if empty:
            yield pl.DataFrame({name: pl.Series(dtype=pl.Null) for name in names})


def _is_again(column: str, names: list[str]) -> bool:
    """Whether a column has the name of another; SQLite calls the second `price:1`."""
    first, colon, number = column.rpartition(":")
    return names.count(column) > 1 or (bool(colon) and number.isdigit() and first in names)


def column_of(name: str, values: Sequence[Any]) -> pl.Series:
    """Values of one column as a driver gives them -> a column of the narrowest type that holds all of them.

    Raises:
        InputError: for bytes, and times of which some have a zone and some have none.
    """
    kinds = set(map(type, values)) - {type(None)}
    if kinds & {bytes, bytearray, memoryview}:
        raise InputError(f"Column {name!r} of the query holds bytes, which are no value; write encode(...) or a cast.")
    if not kinds or kinds == {bool}:
        return pl.Series(name, values, dtype=pl.Boolean if kinds else pl.Null)
    if kinds <= {int, bool}:
        return _integers(name, values)
    if kinds <= {int, bool, float, Decimal}:
        if float not in kinds and all(map(_is_whole, values)):
            return _integers(name, [None if value is None else int(value) for value in values])
        return pl.Series(name, [None if value is None else float(value) for value in values], dtype=pl.Float64)
    if kinds <= {date}:
        return pl.Series(name, values, dtype=pl.Date)
    if all(issubclass(kind, datetime) for kind in kinds):
        return _times(name, values)
    return pl.Series(name, [None if value is None else _as_text(value) for value in values], dtype=pl.String)


def widened(one: pl.DataType, two: pl.DataType) -> pl.DataType:
    """The narrowest type that holds the values of two that `column_of` gives."""
    if one == two or two == pl.Null:
        return one
    if one == pl.Null:
        return two
    numbers = (pl.Boolean(), pl.Int64(), pl.Float64())
    both = [numbers.index(dtype) for dtype in (one, two) if dtype in numbers]
    return numbers[max(both)] if len(both) == 2 else pl.String()


def _integers(name: str, values: Sequence[Any]) -> pl.Series:
    try:
        return pl.Series(name, values, dtype=pl.Int64)
    except (OverflowError, TypeError):  # a number of more than 64 bits is an id
        return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)


def _times(name: str, values: Sequence[Any]) -> pl.Series:
    zoned = {value.tzinfo is not None for value in values if value is not None}
    if len(zoned) == 2:
        raise InputError(f"Column {name!r} of the query holds times with a zone and without; cast it to one type.")
    if zoned == {True}:
        utc = [None if value is None else value.astimezone(UTC) for value in values]
        return pl.Series(name, utc, dtype=pl.Datetime("us", "UTC"))
    return pl.Series(name, values, dtype=pl.Datetime("us"))


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, default=str)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)


def _is_whole(value: Any) -> bool:
    """Whether a number without a fraction is meant: 7, and not 7.00, which may be 7.50 tomorrow."""
    return value.as_tuple().exponent == 0 if isinstance(value, Decimal) else True


def _is_a_mistake(error: sql.exc.DBAPIError, address: URL) -> bool:
    """Whether the query is wrong, rather than the database away: SQLite has one class of errors for both."""
    if error.connection_invalidated:
        return False
    if state := getattr(error.orig, "sqlstate", None):  # of PostgreSQL
        return not str(state).startswith(PASSES)
    if isinstance(error, sql.exc.OperationalError | sql.exc.InterfaceError | sql.exc.InternalError):
        text = str(error.orig)
        of_query = ("no such ", "syntax error", "ambiguous", "unrecognized", "incomplete input", "misuse")
        return address.get_backend_name() == "sqlite" and any(word in text for word in of_query)
    return True


def _why(error: sql.exc.DBAPIError, address: URL) -> str:
    first = " ".join(str(error.orig).split())
    return _without_secrets(f"{first} ({type(error.orig).__name__})", address)


def _without_secrets(text: str, address: URL) -> str:
    secrets = [str(address.password)] if address.password else []
    secrets += [str(value) for value in address.query.values()]
    for secret in [address.render_as_string(hide_password=False), *secrets]:
        text = text.replace(secret, "***")
    return text
