"""The page of the service, and what it is made from."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from modeling.service.api.app import Service
from modeling.service.api.keys import Keys, new_key
from modeling.service.tracking.store import Store
from tests.modeling.service.conftest import serving


def test_examples_of_the_page_can_be_sent_as_they_are(service_of: Callable[..., Service], tmp_path: Path) -> None:
    with serving(service_of(store=Store(tmp_path))) as client:
        described = client.get("/openapi.json").json()
        assert set(described["paths"]) == {
            "/recommend", "/predict", "/track", "/users/{user}", "/similar/{item}", "/health", "/metrics"
        }  # fmt: skip
        for path in ("/recommend", "/predict", "/track"):
            content = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            assert len(content["examples"]) >= 2
            for example in content["examples"].values():
                assert client.post(path, json=example["value"]).status_code == 200
            refused = client.post(path, json={"a key that is none": 1}).json()["error"]
            known = set(re.findall(r"\w+", refused.partition("Known: ")[2]))
            also = {"k", "hide_seen", "explain"} if path != "/track" else {"events"}
            assert known | also == set(content["schema"]["properties"]) | also


def test_the_page_asks_nothing_of_other_machines(service_of: Callable[..., Service]) -> None:
    with serving(service_of(keys=Keys(text=new_key("shop")[1]))) as client:
        page = client.get("/")
        assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
        assert not re.findall(r"https?://|src=|innerHTML", page.text)
        assert client.get("/openapi.json").status_code == 200 and client.get("/docs").status_code == 401


def test_what_is_no_route_is_told_all_routes(service_of: Callable[..., Service]) -> None:
    with serving(service_of()) as client:
        described = client.get("/openapi.json").json()["paths"]
        for path in ("/swagger", "/similar", "/users", "/recommend/"):
            answer = client.get(path)
            assert answer.status_code == 404, path
            for name, methods in described.items():
                wanted = f"{next(iter(methods)).upper()} {re.sub('{(.+)}', lambda found: found[1].upper(), name)}"
                assert wanted in answer.json()["error"], answer.text
            assert "GET /openapi.json, " in answer.json()["error"] and "GET / (a page" in answer.json()["error"]
        refused = client.get("/recommend")
        assert refused.status_code == 405 and "POST /recommend, " in refused.json()["error"]
        docs = client.get("/docs", follow_redirects=True)
        assert docs.status_code == 200 and docs.url.path == "/" and "Overnight: the service" in docs.text
