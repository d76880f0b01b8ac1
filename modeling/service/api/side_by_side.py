"""A second model beside the one in service: it answers the users that a hash draws, as long as it is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modeling.service.api.answers import Answer, Popular, Similar, answer_all
from modeling.service.api.asking import Asked
from modeling.service.api.in_service import InService, Loaded
from modeling.service.tracking.split import B, Split

Question = Asked | Similar | Popular


@dataclass(frozen=True)
class Second:
    """The model, and who gets it."""

    models: InService
    split: Split


@dataclass(frozen=True)
class Sides:
    """The models that answered a request: `second` is None while one model answers all."""

    first: Loaded
    second: Loaded | None = None
    salt: str = ""

    def of(self, arm: str | None) -> Loaded:
        """Which model answers in an arm."""
        return self.second if arm == B and self.second is not None else self.first

    def against(self, arm: str | None) -> str | None:
        """The name of the model of the other arm."""
        if arm is None or self.second is None:
            return None
        return (self.first if arm == B else self.second).place.name


def sides_of(first: Loaded, second: Second | None) -> Sides:
    """The models that answer now: one alone where the second has not loaded, or is the same."""
    other = second.models.loaded if second else None
    if second is None or other is None or other.place.folder == first.place.folder:
        return Sides(first)
    return Sides(first, other, second.split.salt)


def unit_of(question: Asked) -> str | None:
    """By whose hash a model is drawn: the user, else the session; None of neither."""
    if question.user is not None:
        return question.user
    return None if question.key is None or isinstance(question.key, bool | list | dict) else str(question.key)


def arms_of(asked: Sequence[Question], sides: Sides, split: Split | None) -> list[str | None]:
    """The arm of each question: None of one that no user asks, of labels, and while one model answers all."""
    if split is None or sides.second is None:
        return [None] * len(asked)
    units = [unit_of(question) if isinstance(question, Asked) and not question.labels else None for question in asked]
    return [None if unit is None else split.arm(unit) for unit in units]


def answer_in_arms(asked: Sequence[Question], sides: Sides, arms: Sequence[str | None]) -> list[Answer]:
    """An answer for each question, in order, by the model of its arm; where there are two, it says which."""
    found: list[Answer] = [{} for _ in asked]
    for second in (False, True):
        places = [place for place, arm in enumerate(arms) if (arm == B) == second]
        if not places:
            continue
        loaded = sides.of(B if second else None)
        for place, answer in zip(places, answer_all(loaded, [asked[place] for place in places]), strict=True):
            said: dict[str, Any] = {"model": loaded.place.name, "arm": arms[place]} if arms[place] else {}
            found[place] = answer | said
    return found
