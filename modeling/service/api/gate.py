"""What every request passes: who asks, how often, how much; and what every answer carries."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modeling.service.api.budgets import Budgets
from modeling.service.api.in_service import Place
from modeling.service.api.keys import Keys
from modeling.service.api.limits import Limits
from modeling.service.api.metrics import Metrics

OPEN = ("/", "/health", "/openapi.json")  # they say nothing of people or items
MODEL_HEADER, AGE_HEADER = "x-overnight-model", "x-overnight-model-age"
log = logging.getLogger("overnight.api")


class Gate:
    """Refuses what is not to reach a route, with a status, a line that says why, and no work done for it."""

    def __init__(
        self, app: ASGIApp, *, keys: Keys, limits: Limits, metrics: Metrics, place: Callable[[], Place | None]
    ) -> None:
        self.app, self.keys, self.limits, self.metrics, self.place = app, keys, limits, metrics, place
        self.budgets = Budgets(limits.rate, limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(message)
            await send(message)

        try:
            await self._pass(scope, receive, answer)
        finally:
            route = _route(scope["path"])
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if scope["path"] not in OPEN:
            name = self._asker(headers)
            if name is None:
                what = "A key is needed" if _key(headers) is None else "This key is nobody's"
                say = f"{what}: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
                await refuse(send, 401, say, {"www-authenticate": "Bearer"})
                return
            if wait := self.budgets.take(name):
                say = f"{name} asks more often than {self.limits.rate:g} times a second: wait {math.ceil(wait)} s."
                await refuse(send, 429, say, {"retry-after": str(math.ceil(wait))})
                return
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._body(headers, receive), self.limits.seconds)
        except TimeoutError:
            await refuse(send, 408, f"The body did not come within {self.limits.seconds:g} s.", {"connection": "close"})
            return
        except TooLargeError as error:
            say = f"The body has {error} bytes; {self.limits.body_bytes:,} are allowed. Send fewer sessions at a time."
            await refuse(send, 413, say, {"connection": "close"})
            return
        if body is not None:
            await self.app(scope, _again(body, receive), send)

    def _asker(self, headers: MutableMapping[bytes, str]) -> str | None:
        if not self.keys:
            return "anyone"
        key = _key(headers)
        return None if key is None else self.keys.name_of(key)

    async def _body(self, headers: MutableMapping[bytes, str], receive: Receive) -> bytes | None:
        """The whole body; None where the one who asks has gone."""
        length = headers.get(b"content-length", "")
        if length.isdigit() and int(length) > self.limits.body_bytes:
            raise TooLargeError(f"{int(length):,}")
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.limits.body_bytes:
                raise TooLargeError(f"more than {self.limits.body_bytes:,}")
            if not message.get("more_body", False):
                return b"".join(parts)

    def _add_headers(self, message: Message) -> None:
        headers = message.setdefault("headers", [])
        if any(name == MODEL_HEADER.encode() for name, _ in headers):
            return
        place = self.place()
        if place is not None:
            headers += [(name.encode(), value.encode()) for name, value in model_headers(place).items()]


class TooLargeError(Exception):
    """A body with more bytes than are allowed."""


def model_headers(*places: Place) -> dict[str, str]:
    """The model that answered, and its age in seconds; of several each, with commas between."""
    now = datetime.now(UTC)
    ages = [str(max(0, int((now - place.created).total_seconds()))) for place in places]
    return {MODEL_HEADER: ", ".join(place.name for place in places), AGE_HEADER: ", ".join(ages)}


async def refuse(send: Send, status: int, error: str, headers: dict[str, str]) -> None:
    """An answer in the form of all refusals: {"error": ...}."""
    body = json.dumps({"error": error}).encode()
    named = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    lines = [(name.encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


def _key(headers: MutableMapping[bytes, str]) -> str | None:
    scheme, _, token = headers.get(b"authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get(b"x-api-key") or None


def _route(path: str) -> str:
    """The route of a path, for counting: never what somebody wrote."""
    for whole in ("/recommend", "/predict", "/track", "/health", "/metrics"):
        if path == whole:
            return whole
    return next((route for route in ("/users/", "/similar/") if path.startswith(route)), "other")


def _again(body: bytes, receive: Receive) -> Receive:
    """What was read, for the route to read; then what comes."""
    sent = False

    async def read() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        return dict(await receive())

    return read
