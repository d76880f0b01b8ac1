"""Who may ask, how often and how much; and what is answered to requests that are none."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from modeling.service.api.app import Service
from modeling.service.api.budgets import Budgets
from modeling.service.api.keys import Keys, new_key
from modeling.service.api.limits import Limits
from modeling.service.api.server import bound, require_safe
from schemas.errors import InputError
from tests.modeling.service.conftest import serving

ITEMS = {"items": ["i01"]}


def test_only_keys_are_answered_and_a_withdrawn_one_no_more(service_of: Callable[..., Service], tmp_path: Path) -> None:
    (first, line), (second, further) = new_key("shop"), new_key("app.2")
    file = tmp_path / "keys"
    file.write_text(f"# who may ask\n{line}\n\n{further}  # the app\n")
    assert first not in file.read_text() and len({first, second}) == 2
    keys = Keys(file)
    with serving(service_of(keys=keys)) as client:
        for headers in (
            {},
            {"X-API-Key": "ovn_wrong"},
            {"Authorization": f"Basic {first}"},
            {"X-API-Key": line.split(":")[1]},
        ):
            for answer in (
                client.post("/recommend", json=ITEMS, headers=headers),
                client.get("/metrics", headers=headers),
            ):
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
                assert "Bearer KEY" in answer.json()["error"]
        for headers in ({"X-API-Key": first}, {"Authorization": f"bearer {second}"}):
            assert client.post("/recommend", json=ITEMS, headers=headers).status_code == 200
            assert client.get("/metrics", headers=headers).status_code == 200
        assert client.get("/health").status_code == 200
        file.write_text(further)
        assert keys.refresh()
        assert client.post("/recommend", json=ITEMS, headers={"X-API-Key": first}).status_code == 401
        assert client.post("/recommend", json=ITEMS, headers={"X-API-Key": second}).status_code == 200
        file.write_text("shop:abc")
        with pytest.raises(InputError, match="line 1 is no NAME:DIGEST"):
            keys.refresh()
        assert client.post("/recommend", json=ITEMS, headers={"X-API-Key": second}).status_code == 200


def test_a_key_in_place_of_a_digest_is_not_repeated() -> None:
    key, _ = new_key("shop")
    with pytest.raises(InputError) as caught:
        Keys(text=f"shop:{key}")
    assert key not in str(caught.value)
    with pytest.raises(InputError, match="a b"):
        new_key("a b")


def test_an_empty_file_of_keys_lets_nobody_in(service_of: Callable[..., Service], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    with serving(service_of(keys=Keys(tmp_path / "keys"))) as client:
        assert client.post("/recommend", json=ITEMS).status_code == 401


def test_each_key_has_its_rate(service_of: Callable[..., Service], tmp_path: Path) -> None:
    pairs = [new_key("one"), new_key("two")]
    keys = Keys(text="\n".join(line for _, line in pairs))
    with serving(service_of(keys=keys, limits=Limits(rate=0.001, burst=2))) as client:
        for key, _ in pairs:
            statuses = [client.post("/recommend", json=ITEMS, headers={"X-API-Key": key}).status_code for _ in range(4)]
            assert statuses == [200, 200, 429, 429]
        refused = client.post("/recommend", json=ITEMS, headers={"X-API-Key": key})
        assert int(refused.headers["retry-after"]) > 1 and refused.json()["error"].startswith("two asks more often")
        assert client.get("/health").status_code == 200


def test_a_budget_fills_again() -> None:
    now = [0.0]
    budgets = Budgets(2.0, 3, lambda: now[0])
    assert [budgets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    now[0] = 0.5
    assert [budgets.take("a") for _ in range(2)] == [0, 0.5]
    now[0] = 100
    assert [budgets.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_bodies_that_are_too_large_are_not_read(service_of: Callable[..., Service]) -> None:
    limits = Limits(body_bytes=200, sessions=2, events=3, items=4)
    with serving(service_of(limits=limits)) as client:
        large = {"items": ["i01" * 100]}
        answer = client.post("/recommend", json=large)
        assert answer.status_code == 413 and "200 are allowed" in answer.json()["error"]

        def parts() -> object:
            yield from [b'{"items": ["', b"i" * 500, b'"]}']

        assert client.post("/recommend", content=parts()).status_code == 413  # type: ignore[arg-type]
        for body, said in (
            ({"sessions": [ITEMS] * 3}, "1 to 2 are allowed"),
            ({"items": ["i01"] * 4}, "3 are allowed"),
            ({"items": ["i01"], "k": 5}, "from 1 to 4, got 5"),
        ):
            answer = client.post("/recommend", json=body)
            assert answer.status_code == 422 and said in answer.json()["error"]
        assert client.post("/recommend", json=ITEMS | {"k": 4}).status_code == 200


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"k": ' + b"1" * 5000 + b', "items": []}', "no JSON"),
        (b"[]", "got []"),
        (b"{}", "neither items nor events"),
        (b'{"itms": []}', "Did you mean 'items'?"),
        (b'{"items": [], "events": []}', "give one of them"),
        (b'{"items": [], "sessions": []}', "leave sessions out"),
        (b'{"sessions": {}}', "a list of objects"),
        (b'{"sessions": []}', "0 sessions"),
        (b'{"items": "i01"}', 'got "i01"'),
        (b'{"items": [1.5]}', "items[0] is an item id, text or an integer, got 1.5"),
        (b'{"items": [null]}', "got null"),
        (b'{"items": [true]}', "got true"),
        (b'{"items": [NaN]}', "NaN"),
        (b'{"events": [{"price": 3}]}', "events[0] has no item_id; there are price"),
        (b'{"events": ["i01"]}', "events[0] is an object"),
        (b'{"items": [], "k": 0}', "k is an integer from 1 to 1,000, got 0"),
        (b'{"items": [], "k": "ten"}', 'got "ten"'),
        (b'{"items": [], "k": true}', "got true"),
        (b'{"items": [], "hide_seen": "no"}', "true or false"),
        (b'{"items": [], "explain": 11}', "from 1 to 10"),
        (b'{"items": [], "user_id": {}}', "user_id is text or an integer"),
        (b'{"items": ["i01"], "asked_at": "noon"}', "asked_at is a time"),
        (b'{"items": ["i01"], "asked_at": "2026-03-08T09:00:00Z"}', "does not read when it is asked"),
    ],
)
def test_what_is_wrong_is_said(client: httpx.Client, body: bytes, said: str) -> None:
    answer = client.post("/recommend", content=body)
    assert answer.status_code == 422 and said in answer.json()["error"] and list(answer.json()) == ["error"]


@pytest.fixture(scope="module")
def client(acts):  # type: ignore[no-untyped-def]
    service = Service(acts.place)
    service.models.load()
    with serving(service) as client:
        yield client


def test_other_paths_and_methods_name_those_there_are(client: httpx.Client) -> None:
    for answer, status in ((client.get("/recommend"), 405), (client.get("/nope"), 404), (client.post("/health"), 405)):
        assert answer.status_code == status and "POST /recommend" in answer.json()["error"]


def test_one_who_goes_away_does_no_harm(client: httpx.Client) -> None:
    where = (client.base_url.host, client.base_url.port)
    for sent in (
        b"",
        b"POST /recommend HTTP/1.1\r\n",
        b"POST /recommend HTTP/1.1\r\ncontent-length: 50\r\n\r\n{",
        b"\x00" * 100,
    ):
        with socket.create_connection(where) as connection:  # type: ignore[arg-type]
            connection.sendall(sent)
    assert client.post("/recommend", json=ITEMS).status_code == 200


def test_counters_are_read_by_prometheus(client: httpx.Client) -> None:
    client.post("/recommend", json=ITEMS)
    client.get("/users/../etc")
    text = client.get("/metrics").text
    assert 'overnight_api_requests_total{route="/recommend",status="200"}' in text and "etc" not in text
    assert "overnight_api_model_info" in text and "overnight_api_request_seconds_bucket" in text


def test_packets_wait_for_no_acknowledgement() -> None:
    """asyncio sets TCP_NODELAY on connections of sockets that say that they are TCP; without, each answer takes 40 ms more."""
    for host in ("127.0.0.1", "::1"):
        with bound(host, 0) as listening:
            assert listening.proto == socket.IPPROTO_TCP


def test_other_machines_need_a_key() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        require_safe(host, keys=False, without_keys=False)
    for host in ("0.0.0.0", "::", "10.0.0.1", "shop.example"):
        with pytest.raises(InputError, match="there is no key"):
            require_safe(host, keys=False, without_keys=False)
        require_safe(host, keys=True, without_keys=False)
        require_safe(host, keys=False, without_keys=True)
