"""FeatureSchema: what the columns of a session file mean. Modeling builds its inputs from it and from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.columns import FIRST_ID, ITEM_ID
from schemas.errors import InputError, parse, reason
from schemas.spellings import current


class EncoderUsed(BaseModel):
    """One encoder of a feature as it was when the sessions were written.

    `{name: bucketize, options: {boundaries: [30, 50]}}`, `{name: standardize, fitted: {mean: 2.0, std: 1.0}}`
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(current)]
    options: dict[str, Any] = Field({}, description="All of them, also those left at their defaults.")
    fitted: dict[str, float | tuple[float, ...]] = Field(
        {}, description="The numbers it was fit to before the test day; empty where they are a table, or none."
    )


class FeatureColumn(BaseModel):
    """One feature: a column of a session file, a list with one entry an event unless it is per session."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z_]\w*$")
    kind: Literal["categorical", "continuous"]
    source: str = Field(description="Raw column the feature is made from.")
    dtype: Literal["int32", "float32"]
    cardinality: int | None = Field(
        None, description="Categorical: ids are below this, the three reserved ones included."
    )
    vocabulary: str | None = Field(
        None, pattern=r"^vocabularies/\w+\.parquet$", description="Categorical: path of the id map beside this schema."
    )
    per_item: bool = Field(
        False, description="True when the value belongs to the item (category, price), not the moment."
    )
    per: Literal["event", "session"] = Field(
        "event", description="event: a list, one value an event; session: one value, known when the session starts."
    )
    many: bool = Field(False, description="True where each event has a list of values: a list of lists.")
    transform: tuple[Annotated[str, AfterValidator(current)], ...] = Field(
        (), description="Encoders applied, in order."
    )
    encoders: tuple[EncoderUsed, ...] | None = Field(
        None, description="The same encoders with their options. Null in schemas that were written without them."
    )
    mean: float = Field(0.0, description="Continuous: subtracted by the encoder.")
    std: float = Field(1.0, description="Continuous: divided by, after the mean.")


class LabelColumn(BaseModel):
    """One label: a column of a session file with raw numbers or booleans, or nulls where there is nothing to predict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    per: Literal["session", "event"] = Field(
        description="session: one value, that of the session's last event; event: a list, one value an event."
    )
    source: str = Field(description="Raw column the label is. A feature made from it tells the label.")


class FeatureSchema(BaseModel):
    """The features of one prepared dataset, `item_id` first. Stored as `schema.json` beside the sessions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    max_length: int = Field(ge=1, description="Sessions hold at most this many events.")
    time_zone: str = "UTC"
    events_time_zone: str = Field("UTC", description="Zone of times that events write without one.")
    split: Literal["day", "leave_one_out"]
    columns: tuple[FeatureColumn, ...] = Field(min_length=1)
    labels: tuple[LabelColumn, ...] = Field((), description="Columns beside the features that heads may predict.")

    @property
    def items(self) -> FeatureColumn:
        """The column of item ids."""
        return self.columns[0]

    @property
    def num_items(self) -> int:
        """Real items: the cardinality less the three reserved ids."""
        return (self.items.cardinality or FIRST_ID) - FIRST_ID

    @property
    def side_features(self) -> tuple[FeatureColumn, ...]:
        """All columns but the item ids: per event and per session, of one value and of many."""
        return self.columns[1:]

    def column(self, name: str) -> FeatureColumn:
        """The column of that name; raises InputError with the known names."""
        for column in self.columns:
            if column.name == name:
                return column
        raise InputError(f"No feature {name!r}; this schema has {', '.join(c.name for c in self.columns)}.")

    @classmethod
    def read(cls, path: Path) -> FeatureSchema:
        """Read `schema.json`."""
        return parse(cls, _json(path), str(path))

    def write(self, path: Path) -> None:
        """Write `schema.json`."""
        assert self.columns and self.columns[0].name == ITEM_ID
        path.write_text(self.model_dump_json(indent=2) + "\n")


def _json(path: Path) -> object:
    import json

    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file ({reason(error)})") from None
