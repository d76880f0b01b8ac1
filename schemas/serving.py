"""`serving` of a dataset's YAML: lists for every user, rules of what may be recommended, and what people do with it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from schemas.columns import EVENT_TYPE
from schemas.sources import TABLE_NAME, DatabaseName, Part


class Stock(Part):
    """A table of items, read again when its file changes. What it does not list is not recommended."""

    path: str = Field(description="CSV, JSON lines or Parquet; a path, seen from the source.")
    item: str = Field("item_id", description="Its column of item ids.")
    when: str = Field("stock > 0", description="SQL expression of its columns: which rows may be recommended.")


class Bought(Part):
    """Items of a session that are never recommended again: those of some events."""

    column: str = Field(EVENT_TYPE, description="Column of events; a categorical feature must be made of it.")
    values: tuple[str, ...] = Field(("purchase",), min_length=1, description="Its values that count.")


class Rules(Part):
    """What may be recommended and in what company. Expressions are SQL of one item's columns, as the item table has them."""

    allow: tuple[str, ...] | str | None = Field(
        None, description="Only these items: a list of ids, or a file with one a line, read again when it changes."
    )
    deny: tuple[str, ...] | str | None = Field(None, description="Never these items; as `allow`.")
    stock: Stock | None = None
    catalogue: bool | None = Field(
        None,
        description="Only items that the item table lists. Left out: where the dataset says that it lists all "
        "(items.unknown: quarantine).",
    )
    eligible: str | None = Field(None, description="Only items of which this is true, such as price < 500.")
    boost: str | None = Field(
        None, description="Added to an item's score, such as CASE WHEN brand = 'own' THEN 0.5 ELSE 0 END."
    )
    group: str | None = Field(None, description="Column of items that `most_per_group` counts by, such as category.")
    most_per_group: int | None = Field(None, ge=1, description="Items of one group in a list.")
    new: str | None = Field(None, description="Which items are new, such as released >= '2026-03-01'.")
    min_new: int = Field(0, ge=0, description="New items in each list, as long as there are any.")
    hide_seen: bool | None = Field(
        None, description="Never what the session holds. Left out: as the model was evaluated."
    )
    hide_bought: Bought | None = None

    @field_validator("allow", "deny", mode="before")
    @classmethod
    def _ids(cls, given: Any) -> Any:
        """Ids that YAML reads as numbers are text."""
        return [str(item) for item in given] if isinstance(given, list | tuple) else given

    @model_validator(mode="after")
    def _whole(self) -> Rules:
        if (self.group is None) != (self.most_per_group is None):
            raise ValueError("group and most_per_group go together: `group: category`, `most_per_group: 3`")
        if (self.new is None) != (self.min_new == 0):
            raise ValueError("new and min_new go together: an expression, and how many such items a list has")
        return self

    @property
    def of_columns(self) -> bool:
        """Whether a rule looks at columns of items."""
        return any((self.eligible, self.boost, self.group, self.new))


class Lists(Part):
    """Lists for every user, made each night with the model in service: `recommendations/<id>`."""

    k: int = Field(20, ge=1, description="Items of each list.")
    to: DatabaseName | None = Field(
        None, description="Write them to a table, too: the name of a database, as `database.connection` has it."
    )
    table: str = Field(
        "recommendations", pattern=TABLE_NAME, description="The table, which is replaced whole in one step."
    )


class Vectors(Part):
    """Item vectors of the model in service, made each night: `vectors/<id>`."""

    milvus: DatabaseName | None = Field(
        None,
        description="Send them to Milvus, too, and move its alias overnight_DATASET: the name of an environment variable, or "
        "of a Secret block of Prefect, with its URI, or a path *.db of Milvus Lite.",
    )


class Tracking(Part):
    """What was shown and what was clicked, as `POST /track` of `overnight api` gets it: ROOT/tracked/DATASET."""

    users: Literal["hashed", "plain", "none"] = Field(
        "hashed",
        description="How ids of users and sessions are written: hashed with a salt of the root, as they are, or not at all.",
    )
    late_hours: float = Field(168.0, gt=0, description="Events that are older when they come are refused.")
    part_seconds: float = Field(300.0, gt=0, description="Seconds after which events become a Parquet file.")


class SideBySide(Part):
    """A second model, that answers a share of the users: always the same users, by a hash of their id."""

    model: str = Field(
        pattern=r"^(models/[0-9a-f]+|previous)$",
        description="models/ID, or previous: the one that was in service before.",
    )
    share: float = Field(0.5, gt=0, lt=1, description="Of users, who get the second model.")
    salt: str = Field("", description="Another text draws other users. Change it for each comparison.")

    @field_validator("salt", mode="before")
    @classmethod
    def _text(cls, given: Any) -> Any:
        """A date or a number of YAML is text."""
        return given if given is None or isinstance(given, bool | dict | list) else str(given)


class Serving(Part):
    """What is recommended to whom, once a model is in service."""

    lists: Lists | None = Field(None, description="Lists for every user after each night; left out: none.")
    vectors: Vectors | None = Field(None, description="Item vectors after each night; left out: none.")
    rules: Rules = Rules()
    tracking: Tracking | None = Field(
        None, description="Take what was shown and clicked; `tracking: {}` does. Left out: POST /track is refused."
    )
    side_by_side: SideBySide | None = Field(None, description="Two models at a time; left out: one. Needs `tracking`.")

    @model_validator(mode="after")
    def _is_tracked(self) -> Serving:
        if self.side_by_side and not self.tracking:
            raise ValueError("side_by_side needs tracking, by which the models are compared: add `tracking: {}`")
        return self
