"""What a package offers is found by file name, and described from the class alone."""

from __future__ import annotations

import pytest

from modeling import losses
from preprocessing import checks, steps
from schemas.errors import InputError
from schemas.plugins import Described, Option, describe, find, names


def described(package: object) -> dict[str, Described]:
    return {one.name: one for one in describe(package)}  # type: ignore[arg-type]


def test_options_have_type_default_and_meaning() -> None:
    known = described(steps)
    assert list(known) == names(steps)
    assert known["drop_repeats"] == Described(
        "drop_repeats",
        "Of consecutive events of one item in one session, keep one.",
        (Option("keep", "first | last", "first", "Which of the events in a row is kept."),),
    )
    label = {option.name: (option.type, option.default) for option in known["label_sessions"].options}
    assert label == {
        "event_types": ("list of integer | text", ""),
        "name": ("text", "label"),
        "drop": ("true | false", "false"),
    }
    assert known["rename"].options[0].type == "text: text"


def test_options_of_the_base_class_come_last() -> None:
    options = {option.name: option for option in described(checks)["in_range"].options}
    assert list(options) == ["column", "min", "max", "action", "tolerate", "title"]
    assert (options["min"].type, options["min"].default) == ("number", "null")
    assert options["title"].default == "''"


def test_all_have_a_summary_of_one_line() -> None:
    for package in (checks, steps, losses):
        for one in describe(package):
            assert one.summary and "\n" not in one.summary, one.name


@pytest.mark.parametrize(
    ("package", "message"),
    [(steps, "Unknown step 'drp_repeats'. Did you mean 'drop_repeats'?"), (checks, "Unknown check")],
)
def test_an_unknown_name_is_answered_with_the_known_ones(package: object, message: str) -> None:
    with pytest.raises(InputError) as error:
        find(package, "drp_repeats")  # type: ignore[arg-type]
    assert message in str(error.value)
