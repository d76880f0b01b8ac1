"""How the columns of a source are named, made and typed in a dataset's YAML: `columns`, `types`, `time_format`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.columns import (
    EVENT_TYPE,
    ITEM_ID,
    POSITION,
    SESSION_ID,
    TIMESTAMP,
    USER_ID,
    VALID_FROM,
    refuse_reserved,
)
from schemas.errors import unknown

TypeName = Literal["integer", "float", "text", "boolean", "time", "date"]
IDS = (USER_ID, SESSION_ID, ITEM_ID)
ALLOWED: dict[str, tuple[TypeName, ...]] = {
    **dict.fromkeys((*IDS, EVENT_TYPE), ("integer", "text")),
    **dict.fromkeys((TIMESTAMP, VALID_FROM), ("time",)),
    POSITION: ("integer",),
}


class Computed(BaseModel):
    """A column made of the file's columns, before anything is checked: `{sql: "coalesce(user_id, user_pseudo_id)"}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sql: str = Field(description="An SQL expression of one row of the file's own columns, as they are stored.")


class ColumnType(BaseModel):
    """The type of a column, and what happens to a row whose value does not fit it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: TypeName = Field(description="integer, float, text, boolean, time or date.")
    unfit: Literal["quarantine", "null"] = Field(
        "quarantine", description="quarantine: the row is set aside; null: the row stays, without the value."
    )
    tolerate: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of a day's rows that may hold a value that does not fit; more fail the run.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`float`, `{type: float, unfit: null}`; YAML reads a bare null as no value."""
        if isinstance(value, str):
            return {"type": value}
        if isinstance(value, dict) and "unfit" in value and value["unfit"] is None:
            return {**value, "unfit": "null"}
        return value


def _check_names(columns: dict[str, str | Computed]) -> dict[str, str | Computed]:
    for name in columns:
        refuse_reserved(name, "map the file's column under another name")
    return columns


def _as_formats(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _check_formats(formats: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in formats:
        codes = set(_codes(pattern))
        if not {"%Y", "%y", "%G", "%g", "%s", "%D", "%F", "%c", "%x", "%+", "%v"} & codes:
            raise ValueError(f"{pattern!r} holds no year; write codes such as %d/%m/%Y %H:%M")
        if "%Z" in codes:
            raise ValueError(
                f"{pattern!r}: a zone's name (%Z) cannot be read; write %z for offsets such as +0200, or the name, as in "
                "'%H:%M UTC', and the zone in events.time_zone"
            )
        whole = {"%s", "%D", "%F", "%c", "%x", "%+", "%j", "%v"} & codes
        if not whole and not (({"%m", "%b", "%B", "%h"} & codes and {"%d", "%e"} & codes) or _by_week(codes)):
            raise ValueError(f"{pattern!r} holds no month and day; write codes such as %d/%m/%Y %H:%M")
    return formats


def _by_week(codes: set[str]) -> bool:
    return bool({"%U", "%W", "%V"} & codes and {"%a", "%A", "%u", "%w"} & codes)


def _codes(pattern: str) -> list[str]:
    """The codes, without what changes how they are written: %-d and %_d are %d."""
    return ["%" + code for code in re.findall(r"%[-_0]?([A-Za-z+%])", pattern)]


SourceColumns = Annotated[dict[str, str | Computed], AfterValidator(_check_names)]
TimeFormats = Annotated[tuple[str, ...], BeforeValidator(_as_formats), AfterValidator(_check_formats)]


def check_types(types: Mapping[str, ColumnType], columns: Collection[str]) -> None:
    """Raise ValueError for a type of a column that is not mapped, or one that the column cannot have."""
    for name, declared in types.items():
        if name not in columns:
            raise ValueError(f"types: {unknown('column', name, columns)}")
        allowed = ALLOWED.get(name)
        if allowed and declared.type not in allowed:
            raise ValueError(f"types: {name} is {' or '.join(allowed)}, got {declared.type!r}")
        if declared.unfit == "null" and name in ALLOWED and name != EVENT_TYPE:
            raise ValueError(f"types: {name} must have a value, so a row that does not fit goes to quarantine")
