"""Bodies of requests that are JSON and still not to be read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from modeling.service.api.asking import read_question
from modeling.service.api.body import MOST_DEEP
from modeling.service.api.limits import Limits
from modeling.service.api.log import Log
from modeling.service.api.tracked import read_events
from schemas.errors import InputError


def ask(body: bytes) -> object:
    return read_question(body, Limits(), Log())


def track(body: bytes) -> object:
    return read_events(body, Limits(), late=timedelta(days=7))


@pytest.mark.parametrize("read", [ask, track])
@pytest.mark.parametrize("deep", [MOST_DEEP, 300, 945, 946, 5000])  # from 945 on json reads what it cannot write
@pytest.mark.parametrize(
    "form", ["%s", '{"items": %s}', '{"events": [{"item_id": "a", "price": %s}]}', '{"event": %s}']
)
@pytest.mark.parametrize("pair", [("[", "]"), ('{"a": ', "}")])
def test_lists_in_lists_are_refused(
    read: Callable[[bytes], object], deep: int, form: str, pair: tuple[str, str]
) -> None:
    left, right = pair
    deep += form == "%s"  # an object is a level
    with pytest.raises(InputError, match=f"more than {MOST_DEEP} lists and objects within each other"):
        read((form % (left * deep + "1" + right * deep)).encode())


def test_a_few_are_not() -> None:
    assert ask(b'{"events": [{"item_id": "a", "tags": [["x"], [{"y": [1]}]]}], "session_id": [[1]]}')
