"""Bodies of requests that are JSON and still not to be read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from modeling.service.api.app import Service
from modeling.service.api.asking import read_question
from modeling.service.api.body import MOST_DEEP
from modeling.service.api.limits import Limits
from modeling.service.api.log import Log
from modeling.service.api.tracked import read_events
from schemas.errors import InputError
from tests.modeling.service.conftest import serving


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


@pytest.mark.parametrize(
    ("session", "where"),
    [
        ('{"items": ["a", "%s"]}', "items[1]"),
        ('{"items": ["a"], "user_id": "%s"}', "user_id"),
        ('{"events": [{"item_id": "a", "color": "x%s"}]}', "events[0].color"),
        ('{"events": [{"item_id": "a", "tags": ["x", "%s"]}]}', "events[0].tags"),
    ],
)
@pytest.mark.parametrize("half", [b"\\ud800", b"\\uDFFF", b"\xed\xa0\x80"])
def test_half_a_pair_is_refused_where_it_is(session: str, where: str, half: bytes) -> None:
    body = session.encode().replace(b"%s", half)
    with pytest.raises(InputError) as caught:
        ask(body)
    assert f"{where} is no text" in str(caught.value)
    both = read_question(b'{"sessions": [{"items": ["a"]}, %s]}' % body, Limits(), Log())
    assert [bool(asked.error) for asked in both.sessions] == [False, True]
    whole = read_question(session.encode().replace(b"%s", b"\\ud83d\\ude00"), Limits(), Log())
    assert not whole.sessions[0].error


def test_lists_of_lists_are_text(service_of: Callable[..., Service]) -> None:
    """A column of them is none that a table of text can hold."""
    with serving(service_of()) as client:
        for value in ([["x"]], [[]], [[["x"], "y"], "z"], [{"a": ["x"]}]):
            sessions = [{"events": [{"item_id": "i01", "kind": value, "event_type": value}]}, {"items": ["i01"]}]
            answer = client.post("/recommend", json={"sessions": sessions})
            assert answer.status_code == 200 and "items" in answer.json()["sessions"][1]
