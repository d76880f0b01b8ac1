"""`serving` in YAML: what is tracked, and two models."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import InputError, parse
from schemas.serving import Serving


def test_nothing_is_tracked_unless_it_is_asked_for() -> None:
    assert Serving().tracking is None and Serving().side_by_side is None
    read = parse(Serving, {"tracking": {}, "side_by_side": {"model": "previous", "salt": 2026}}, "serving")
    assert read.tracking and read.tracking.users == "hashed"
    assert read.side_by_side and read.side_by_side.salt == "2026" and read.side_by_side.share == 0.5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"side_by_side": {"model": "previous"}}, "add `tracking: {}`"),
        ({"tracking": {}, "side_by_side": {"model": "../models/1f2e"}}, "model"),
        ({"tracking": {}, "side_by_side": {"model": "models/1f2e", "share": 0}}, "share"),
        ({"tracking": {}, "side_by_side": {"model": "models/1f2e", "share": 1}}, "share"),
        ({"tracking": {}, "side_by_side": {"share": 0.5}}, "model"),
        ({"tracking": {}, "side_by_side": {"model": "previous", "salt": None}}, "salt"),
        ({"tracking": {"users": "secret"}}, "hashed"),
        ({"tracking": {"user": "plain"}}, "users"),
        ({"tracking": {"late_hours": 0}}, "late_hours"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(Serving, given, "serving")
    assert said in str(caught.value)
