"""What can be set about the split of sessions into those that train and those that test, and the days that this selects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal, Self

from pydantic import ConfigDict, Field, PositiveInt, model_validator

from modeling.config.model import Concern
from schemas.errors import InputError


@dataclass(frozen=True)
class Stretch:
    """Days with sessions, in order: those that a fold is trained on, and those right after them that it is tested on."""

    train: tuple[str, ...]
    test: tuple[str, ...]


class SplitConfig(Concern):
    """Which sessions test a model, and so which it may learn from."""

    model_config = ConfigDict(title="Split")

    rule: Literal["day", "leave_one_out", "list"] | None = Field(
        None,
        title="Rule",
        description="day: the last days; leave_one_out: the last item of each session; list: a file of histories and targets. "
        "Empty: the dataset's.",
    )
    test_days: PositiveInt = Field(1, title="Test days", description="Days with sessions that a fold is tested on.")
    train_days: PositiveInt | None = Field(
        None,
        title="Training days",
        description="Days with sessions before a fold's test that it is trained on, a window that slides. Empty: all of them.",
    )
    folds: PositiveInt = Field(
        1,
        title="Folds",
        description="Stretches of test days, one before the other, that models are compared on. A night takes the newest.",
    )
    until: date | None = Field(None, title="Until", description="The last test day. Empty: that of the sessions.")
    path: str | None = Field(
        None,
        title="List",
        description="With rule list: a Parquet file whose rows have item_id (raw ids, oldest first), target, maybe user_id.",
    )

    @model_validator(mode="after")
    def _path_of_a_list(self) -> Self:
        if (self.rule == "list") != (self.path is not None):
            raise ValueError(
                "rule list needs path, the Parquet file of histories and targets"
                if self.rule == "list"
                else f"path {self.path!r} is read with rule: list alone (rule is {self.rule or 'left out'})"
            )
        return self

    def stretches(self, days: Iterable[str], test_day: str | None) -> list[Stretch]:
        """The folds of sessions of these days, tested on `test_day`, the oldest first; none where a fold has no days.

        Of days 1 to 9, `folds=2, test_days=2, train_days=3` gives 3 to 5 and 6 to 7, then 5 to 7 and 8 to 9.

        Raises:
            InputError: for sessions without days, a day that has none, more folds than there are days for, and settings that
                a rule does not read.
        """
        if test_day is None:
            if self.rule == "day":
                raise InputError(
                    "evaluation.split.rule is day, but these sessions are histories without days (their dataset's split is "
                    "not day). Take leave_one_out or list, or a dataset with split: day."
                )
            self._refuse(("folds", "test_days", "train_days", "until"), "histories have no days")
            return []
        if self.rule == "leave_one_out":
            self._refuse(("folds", "test_days", "train_days", "until"), "leave_one_out has one fold, of all days")
            return []
        if self.rule == "list":
            self._refuse(("folds",), "a list is one test")
        return self._by_days(sorted(days), test_day)

    def _by_days(self, given: list[str], test_day: str) -> list[Stretch]:
        newest = str(self.until or test_day)
        if self.until and newest not in given:
            raise InputError(
                f"evaluation.split.until {newest}: there are no sessions of that day, but of {len(given)} from {given[0]} to "
                f"{given[-1]}. Name one of these."
            )
        days = sorted({*(day for day in given if day <= newest), newest})  # reading says where the test day has none
        tested = self.folds * self.test_days
        if len(days) <= tested:
            raise InputError(
                f"evaluation.split: {self.folds} fold{'s' * (self.folds > 1)} of {self.test_days} "
                f"day{'s' * (self.test_days > 1)} and a day to train on before them need {tested + 1} days with sessions up to "
                f"{newest}; there are {len(days)}. Take fewer folds or test days, or widen --days."
            )
        made = []
        for first in range(len(days) - tested, len(days), self.test_days):
            start = max(0, first - self.train_days) if self.train_days else 0
            made.append(Stretch(tuple(days[start:first]), tuple(days[first : first + self.test_days])))
        return made

    def _refuse(self, names: tuple[str, ...], why: str) -> None:
        """
        Raises:
            InputError: when one of these settings differs from its default.
        """
        for name in names:
            if (value := getattr(self, name)) != type(self).model_fields[name].default:
                raise InputError(f"evaluation.split.{name} {value}: {why}. Leave it out.")
