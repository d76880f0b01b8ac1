"""The base class of checks: good rows go on, bad rows go to quarantine, whole, under the first rule they break.

A rule named in a dataset's `checks` is the class its file is named after: `not_null` is `NotNull` in `not_null.py`. Its
fields are its options in the YAML file.

Bad rows are always set aside. `tolerate` says from which share of a day's rows on the run fails instead; `action: fail` is
`tolerate: 0`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from schemas.columns import USER_ID
from schemas.dataset import Dataset

LOCAL_DAY = "local day"  # there while rules compare rows


class Check(BaseModel):
    """One rule that good rows keep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["quarantine", "fail"] = Field("quarantine", description="fail: tolerate no bad row.")
    tolerate: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of a day's rows above which bad ones fail the run; 1 (never), or 0 with action fail.",
    )
    title: str = Field("", description="Its name in reports; left out, the rule's with its column.")

    @property
    def looks_at(self) -> tuple[str, ...]:
        """The columns it needs, which are those that examples of bad rows show."""
        return ()

    @property
    def in_order_of(self) -> tuple[str, ...]:
        """For rules that compare rows: the columns rows are sorted by, after user and local day."""
        return ()

    @property
    def keeps_rows(self) -> bool:
        """Whether its bad rows stay, counted under its name, because their bad value is gone."""
        return False

    @property
    def name(self) -> str:
        """Its name in quarantine and reports."""
        kind = type(self).__module__.rpartition(".")[2]
        return self.title or f"{kind}({', '.join(self.looks_at)})"

    @property
    def limit(self) -> float:
        """The share of a day's rows that may be bad."""
        return self.tolerate if self.tolerate is not None else {"quarantine": 1.0, "fail": 0.0}[self.action]

    def bind(self, dataset: Dataset, columns: pl.Schema) -> Self:
        """Check the rule against the dataset and its events' columns (name: type), and fetch what it needs.

        Runs before any event is read.
        """
        return self

    def says_the_same(self, other: Check) -> bool:
        """Whether it takes the place of another one, which is always checked."""
        return type(self) is type(other) and self.looks_at == other.looks_at

    def bad(self, now: datetime) -> pl.Expr:
        """True for a bad row; false or null for a good one.

        With `in_order_of`, it may look at the rows before: all good ones come first, in order of user and local day, then
        of those columns, then of all others, so that the order in the source never matters.
        """
        raise NotImplementedError


def same_as_before(columns: Iterable[str], rows: int = 1) -> pl.Expr:
    """Whether the row so many rows before is of the same user and day, and equal in these columns."""
    columns = (USER_ID, LOCAL_DAY, *columns)
    return pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(rows)) for name in columns)
