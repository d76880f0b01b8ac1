"""Where the files of a dataset are and how they are written: events, and the tables of items and users."""

from __future__ import annotations

import codecs
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from schemas.column_types import ColumnType, Computed, SourceColumns, TimeFormats, check_types
from schemas.columns import ITEM_ID, POSITION, SESSION_ID, TIMESTAMP, USER_ID


@cache
def _zones() -> set[str]:
    from zoneinfo import available_timezones

    return available_timezones()  # walks through all files of the zone database: 50 ms


def _known_zone(zone: str) -> str:
    if zone != "UTC" and zone not in _zones():
        raise ValueError("not an IANA time zone such as UTC or Europe/Berlin")
    return zone


Zone = Annotated[str, AfterValidator(_known_zone)]


TextType = Literal["float", "time", "date", "inferred"]


class Part(BaseModel):
    """A part of a dataset's YAML: frozen, with known keys only."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileOptions(Part):
    """How files are read: the same words for events, items and users."""

    format: Literal["auto", "csv", "json", "jsonl", "parquet"] = Field(
        "auto",
        description="auto goes by the end of each name (.csv, .tsv, .json, .jsonl, .ndjson, .parquet, any case, text also "
        "with .gz, .zst or .bz2) and lists what it leaves out; another word reads names of any end. json and "
        "jsonl are the same: an object a line, or one list of objects.",
    )
    separator: str | None = Field(
        None,
        description="Text between the fields of a CSV, such as ';', '\\t' or '::'. Left out: a tab in .tsv, else ','.",
    )
    header: bool = Field(
        True,
        description="Whether the first line of a CSV names its columns. Without, they are mapped by place: "
        "`item_id: 3` or `item_id: column_3` is the third.",
    )
    quote: str = Field(
        "auto",
        description="Character around CSV fields that hold separators or line ends, or none: quotes are text like any "
        'other. auto is " where every row then has as many fields as the header, else none.',
    )
    encoding: str = Field(
        "utf-8",
        description="Encoding of text files, such as latin-1 or windows-1252. UTF-16 with its mark is recognised.",
    )
    null_words: tuple[str, ...] | None = Field(
        None,
        description="Text that stands for null in columns of text. Left out: \\N, NULL and null in CSV and JSON, nothing "
        "in Parquet. An empty CSV field is null in any case; write 'None', 'NaN' or 'NA' here where they mean it.",
    )
    decimal: Literal[".", ","] = Field(
        ".",
        description="Decimal mark of numbers in text: with ',' 1.250,5 is 1250.5. Ids and event types stay as they are.",
    )

    @field_validator("separator")
    @classmethod
    def _separates(cls, separator: str | None) -> str | None:
        """`\\t` and `tab` are a tab, however YAML quotes them."""
        separator = {"\\t": "\t", "tab": "\t", "\\x01": "\x01"}.get(separator or "", separator)
        if separator is not None and (not separator or set(separator) & set('\r\n"')):
            raise ValueError("must be one or more characters, none of them a line end or a quote")
        return separator

    @field_validator("quote")
    @classmethod
    def _quotes(cls, quote: str) -> str:
        if quote not in ("auto", "none") and (len(quote) != 1 or not quote.isascii()):
            raise ValueError("must be auto, none or one character such as '\"'")
        return quote

    @field_validator("null_words", mode="before")
    @classmethod
    def _as_text(cls, words: Any) -> Any:
        """YAML reads NULL and null without quotes as nothing, and -1 as a number."""
        if not isinstance(words, list | tuple):
            return words
        return [text for word in words for text in (("NULL", "null") if word is None else (_plain(word),))]

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            found = codecs.lookup(encoding)
            b"".decode(encoding)
        except LookupError:
            raise ValueError("not an encoding, such as utf-8, latin-1, windows-1252, utf-16 or shift_jis") from None
        return "utf-8" if found.name == "utf-8-sig" else found.name

    @model_validator(mode="before")
    @classmethod
    def _places(cls, value: Any) -> Any:
        """Without a header a column is named by its place, from 1: `item_id: 3` is column_3."""
        if isinstance(value, dict) and value.get("header") is False and isinstance(value.get("columns"), dict):
            named = {
                ours: f"column_{place}" if type(place) is int else place for ours, place in value["columns"].items()
            }
            value = {**value, "columns": named}
        return value

    @property
    def file_options(self) -> FileOptions:
        """These words alone, without those of the source that they are part of."""
        return FileOptions(**{name: getattr(self, name) for name in FileOptions.model_fields})


def _plain(word: Any) -> Any:
    return str(word) if isinstance(word, int | float) and not isinstance(word, bool) else word


PATHS = (
    "A name may be a path: geo.country into an object, items[].id for a row an element of a list, items[0].id for its "
    "first, params[key=page].value for the element with that key, items[].index() for its place, col.split(' ') for a list."
)


class EventSource(FileOptions):
    """Where events are and what their columns are called."""

    path: str = Field("events", description="File, folder or glob below the source: Parquet, CSV or JSON.")
    columns: SourceColumns = Field(
        description="Our name: the file's name, or {sql: an expression of the file's columns}. Further columns keep the "
        f"name given here. {PATHS}"
    )
    types: dict[str, ColumnType] = Field(
        {},
        description="Our name: integer, float, text, boolean, time or date, or {type: ..., unfit: quarantine or null, "
        "tolerate: share}. Left out: the type of a Parquet file; in text files what features take, else text.",
    )
    text_types: dict[str, TextType] = Field(
        {}, description="Types of columns of text files without a declared one; filled in with what features take."
    )
    time_format: TimeFormats = Field(
        (),
        description="Form of times written as text, such as %d/%m/%Y %H:%M, or several; left out: ISO 8601, also with UTC.",
    )
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = Field(
        "auto",
        description="Unit of integer timestamps; auto decides by their size (seconds below 1e11, then ms, us, ns).",
    )
    time_zone: Zone = Field("UTC", description="Zone of times that are written without one.")
    id_type: Literal["auto", "integer", "string"] = Field(
        "auto",
        description="Type of user, session and item ids that `types` does not declare; auto keeps that of Parquet files, and "
        "text for text files. Ids that do not fit are quarantined.",
    )

    @field_validator("columns")
    @classmethod
    def _enough(cls, columns: dict[str, str | Computed]) -> dict[str, str | Computed]:
        if ITEM_ID not in columns:
            raise ValueError("item_id must be mapped")
        if not {USER_ID, SESSION_ID} & columns.keys():
            raise ValueError("user_id or session_id must be mapped")
        if not {TIMESTAMP, POSITION} & columns.keys():
            raise ValueError("timestamp, or position for histories without times, must be mapped")
        return columns

    @model_validator(mode="after")
    def _types_fit(self) -> EventSource:
        check_types(self.types, self.columns)
        return self


class ItemSource(FileOptions):
    """A table with one row an item, for the step join_items."""

    path: str = Field("items.parquet", description="File below the source.")
    columns: SourceColumns = Field(
        description="Our name: the file's name, or {sql: ...}; item_id is required. With valid_from an item may have a row "
        "for each change."
    )
    types: dict[str, ColumnType] = Field({}, description="As in events; ids become what the events' are.")
    text_types: dict[str, TextType] = Field({}, description="As in events.")
    unknown: Literal["keep", "quarantine"] = Field("keep", description="Events of items that this table does not know.")
    wait_days: int = Field(
        7,
        ge=0,
        description="unknown: quarantine. Days before the newest whose events come in when the table knows their item later.",
    )

    @field_validator("columns")
    @classmethod
    def _has_key(cls, columns: dict[str, str | Computed]) -> dict[str, str | Computed]:
        if ITEM_ID not in columns:
            raise ValueError("item_id must be mapped")
        return columns

    @model_validator(mode="after")
    def _types_fit(self) -> ItemSource:
        check_types(self.types, self.columns)
        return self


class UserSource(FileOptions):
    """A table with one row a user, for the step join_users."""

    path: str = Field("users.parquet", description="File below the source.")
    columns: SourceColumns = Field(description="Our name: the file's name, or {sql: ...}; user_id is required.")
    types: dict[str, ColumnType] = Field({}, description="As in events; ids become what the events' are.")
    text_types: dict[str, TextType] = Field({}, description="As in events.")

    @field_validator("columns")
    @classmethod
    def _has_key(cls, columns: dict[str, str | Computed]) -> dict[str, str | Computed]:
        if USER_ID not in columns:
            raise ValueError("user_id must be mapped")
        return columns

    @model_validator(mode="after")
    def _types_fit(self) -> UserSource:
        check_types(self.types, self.columns)
        return self


def never_a_url(name: Any) -> Any:
    """What holds a password is not repeated by the message that refuses it."""
    return "a URL, not shown here" if isinstance(name, str) and set(name) & set(":/@") else name


DatabaseName = Annotated[str, BeforeValidator(never_a_url), Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
TABLE_NAME = r"^([A-Za-z_][A-Za-z0-9_]{0,39}\.)?[A-Za-z_][A-Za-z0-9_]{0,39}$"  # perhaps in a schema of the database


class Query(Part):
    """A table of a database."""

    query: str = Field(min_length=1, description="A SELECT. Its columns are what `columns` of the table names.")


class EventQuery(Query):
    """Events of a database: of each night, what is new by the cursor."""

    cursor: str = Field(
        description="Column of the query that grows as rows are added: the time of insertion (a time, a date, or ISO 8601 "
        "text) or a running number. Rows without one are not read."
    )
    overlap_hours: float = Field(
        24.0,
        ge=0,
        description="A time as cursor: rows of so many hours before the newest are read again, for those that came late.",
    )
    overlap_numbers: int = Field(
        10_000, ge=0, description="A number as cursor: so many numbers before the highest are read again."
    )
    start: int | datetime | None = Field(
        None, description="The first value of the cursor that is read. Needed where the query itself says :since."
    )


class Database(Part):
    """A database that events come from in place of files, and perhaps the tables of items and users."""

    connection: DatabaseName = Field(
        description="Name of the environment variable that holds SQLAlchemy's URL of the database, or of a Secret block of "
        "Prefect (SHOP_DB is the block shop-db). The URL itself stands nowhere.",
    )
    events: EventQuery
    items: Query | None = Field(None, description="The item table, read whole every night.")
    users: Query | None = Field(None, description="The user table, read whole every night.")
