"""One message a night, to a server that listens; none that could fail a night."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from flows import notify
from flows.notify import ADDRESS, notify_of_end, notify_of_night, send
from tests.flows.conftest import free_port, listening

NIGHT: dict[str, Any] = {
    "dataset": "shop",
    "test_day": "2026-03-15",
    "verdict": "ndcg@20 0.1 against 0.2: hold.",
    "nothing_to_do": False,
    "promoted": False,
    "missing_days": [],
    "left_out": [],
    "warnings": [],
    "late": [],
    "report": "/root/report.html",
}


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({}, ["Overnight, shop 2026-03-15: not promoted. ndcg@20 0.1 against 0.2: hold.", "Report: /root/report.html"]),
        ({"promoted": True}, []),
        ({"nothing_to_do": True}, []),
        ({"promoted": True, "missing_days": ["2026-03-14"]}, [": promoted.", "Missing days: 2026-03-14."]),
        ({"promoted": True, "left_out": [["a.tmp", "no table"]]}, ["1 files were left out."]),
        ({"promoted": True, "warnings": ["price has drifted"]}, [": promoted.", "Warning: price has drifted."]),
        ({"warnings": [f"column {number} drifted" for number in range(7)]}, ["column 4 drifted.", "2 more warnings"]),
        (
            {"promoted": True, "nothing_to_do": True, "late": ["No full day of events since 2026-03-15: 2026-03-16."]},
            ["shop 2026-03-15: nothing new.\nNo full day of events since 2026-03-15", "Report: "],
        ),
        (
            {"verdict": "0.2 against 0.1: promote. But it is held. Guard drift: 3."},
            ["not promoted", "held. Guard drift: 3."],
        ),
        ({"test_day": None}, ["Overnight, shop: not promoted."]),
    ],
)
def test_a_night_that_needs_somebody_sends_one_message(
    about: dict[str, Any], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with listening() as (address, messages):
        monkeypatch.setenv(ADDRESS, address)
        notify_of_night(NIGHT | about, said.append)
    assert len(messages) == bool(words) and not said
    assert all(word in messages[0] for word in words), messages


def test_a_failed_run_sends_its_reason_and_one_below_another_none(monkeypatch: pytest.MonkeyPatch) -> None:
    flow, state = SimpleNamespace(name="retrain"), SimpleNamespace(name="Crashed", message="killed by SIGKILL")
    with listening() as (address, messages):
        monkeypatch.setenv(ADDRESS, address)
        for parent in (None, "a-task"):
            notify_of_end(flow, SimpleNamespace(name="demo 2026-03-15", id="12", parent_task_run_id=parent), state)
    assert len(messages) == 1
    assert messages[0].startswith("Overnight, demo 2026-03-15 (retrain): crashed. killed by SIGKILL")


def test_what_cannot_be_delivered_is_a_line_without_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with listening(answer=404) as (address, messages):
        monkeypatch.setenv(ADDRESS, address)
        send("text", said.append)
        assert messages == ["text"]
    monkeypatch.setenv(ADDRESS, f"http://127.0.0.1:{free_port()}/services/SECRET")
    send("text", said.append)
    for wrong in ("file:///services/SECRET", "services/SECRET", "http://[SECRET"):
        monkeypatch.setenv(ADDRESS, wrong)
        send("text", said.append)
    assert (
        len(said) == 5 and "http://" in said[2] and "it answers 404" in said[0] and "ConnectionRefusedError" in said[1]
    ), said
    assert not any("SECRET" in line for line in said)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_an_address_that_moved_is_said_and_not_followed(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text would not go with it."""
    said: list[str] = []
    with listening() as (new, at_new), listening(answer=code, location=new) as (address, _):
        monkeypatch.setenv(ADDRESS, address)
        send("text", said.append)
    assert not at_new and len(said) == 1 and f"it answers {code}: it has moved" in said[0] and "SECRET" not in said[0]


@pytest.mark.fault("the webhook never answers", outcome="one line in the log; the night ends as it does without")
def test_an_answer_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and the line they are of does not end."""
    monkeypatch.setattr(notify, "SECONDS", 0.5)
    said: list[str] = []
    over = threading.Event()

    def drip() -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 ")
            for _ in range(200):
                if over.wait(0.05):
                    break
                connection.sendall(b"2")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip)
        thread.start()
        monkeypatch.setenv(ADDRESS, f"http://127.0.0.1:{server.getsockname()[1]}/services/SECRET")
        send("text", said.append)
        over.set()
        thread.join()
    assert len(said) == 1 and "no answer in time" in said[0] and "SECRET" not in said[0]


def test_an_address_from_a_file_or_a_form_may_have_spaces_around_it_and_large_letters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    with listening() as (address, messages):
        for spelled in (f"{address}\n", f" {address} ", address.replace("http", "HTTP")):
            monkeypatch.setenv(ADDRESS, spelled)
            send("text", said.append)
    assert messages == ["text"] * 3 and not said


@pytest.mark.parametrize(
    "address",
    ["http:///services/SECRET", "http://SECRET:x", "https://user:SECRET@127.0.0.1:1/", "http://a/SECRET\u00e9"],
)
def test_of_an_address_that_is_none_only_that_is_said(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setenv(ADDRESS, address)
    send("text", said.append)
    assert len(said) == 1 and "SECRET" not in said[0] and ": str" not in said[0]
