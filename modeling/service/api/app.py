"""The routes of the service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from modeling.service.api import documented
from modeling.service.api.answers import Answer, Popular, Similar, answer_all
from modeling.service.api.asking import Asked, read_question
from modeling.service.api.batching import Batcher, BusyError
from modeling.service.api.gate import Gate, model_headers
from modeling.service.api.in_service import InService, Loaded, Place
from modeling.service.api.keys import Keys
from modeling.service.api.known_routes import add_docs, routes_of
from modeling.service.api.limits import Limits
from modeling.service.api.lists import NewestLists
from modeling.service.api.log import Log
from modeling.service.api.metrics import Metrics
from modeling.service.api.watching import Watch
from modeling.service.rules import Rules
from schemas.errors import InputError

Question = Asked | Similar | Popular
PAGE = Path(__file__).with_name("page.html")  # it asks nothing of other machines
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
}
NO_MODEL = "No model is in service yet: `overnight retrain` makes one, and it is taken up as soon as it is promoted."


@dataclass
class Service:
    """What the routes share."""

    find: Callable[[], Place]
    keys: Keys = field(default_factory=Keys)
    limits: Limits = field(default_factory=Limits)
    log: Log = field(default_factory=Log)
    read_rules: Callable[[], Rules | None] = lambda: None
    read_items: Callable[[], pl.DataFrame | None] = lambda: None
    find_lists: Callable[[], Path | None] = lambda: None
    poll_seconds: float = 5.0
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.models = InService(
            self.find, self.metrics, log_form=self.log, read_rules=self.read_rules, read_items=self.read_items
        )
        self.watch: Watch | None = None
        self.lists = NewestLists(self.find_lists)
        self.batcher: Batcher[Asked | Similar | Popular] = Batcher(
            self._answer, most=self.limits.batch, waiting=self.limits.waiting
        )

    @property
    def place(self) -> Place | None:
        """Where the model that answers is."""
        return self.models.loaded.place if self.models.loaded else None

    def _answer(self, asked: Sequence[Question]) -> tuple[list[Answer], Loaded]:
        loaded = self.models.loaded
        assert loaded is not None  # `ask` has seen one, and it is never taken away
        self.metrics.batch.observe(len(asked))
        return answer_all(loaded, asked), loaded

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Answer while the block lasts; what waits when it ends is answered first."""
        models = self.models
        looks = [models.refresh, models.refresh_rules, models.refresh_items, self.lists.refresh, self.keys.refresh]
        self.watch = watch = Watch(looks, self.poll_seconds)
        self.batcher.start()
        watch.start()
        try:
            yield
        finally:
            await asyncio.to_thread(watch.stop)
            await asyncio.to_thread(self.batcher.stop)


def make_app(service: Service) -> FastAPI:
    """The routes, behind the gate. Nothing is loaded here: `service.models.load()` does that."""
    app = FastAPI(
        title="Overnight",
        description=documented.ABOUT,
        version="1",
        lifespan=service.running,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # /similar is no route, and says so
    )
    add_docs(app)
    app.add_middleware(
        Gate,
        keys=service.keys,
        limits=service.limits,
        metrics=service.metrics,
        place=lambda: service.place,
    )

    @app.post("/recommend", openapi_extra=documented.RECOMMEND, summary="The next items of one session, or of many")
    async def recommend(request: Request) -> Response:
        return await _ask(service, await request.body(), labels=False)

    @app.post("/predict", openapi_extra=documented.PREDICT, summary="The labels of one session, or of many")
    async def predict(request: Request) -> Response:
        return await _ask(service, await request.body(), labels=True)

    @app.get("/users/{user:path}", summary="The list that the last night made for a user")
    async def users(user: str, k: str = "10") -> Response:
        return await _of_user(service, user, k)

    @app.get("/similar/{item:path}", summary="The items that the model takes for most alike")
    async def similar(item: str, k: str = "10") -> Response:
        return await _similar(service, item, k)

    @app.get("/health", summary="Whether it answers, with which model")
    async def health() -> Response:
        return _health(service)

    @app.get("/metrics", summary="Counters for Prometheus")
    async def metrics() -> Response:
        service.metrics.waiting.set(service.batcher.waiting)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(PAGE.read_text(), media_type="text/html", headers=PAGE_HEADERS)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return _refused(request, error)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return answered({"error": f"The service failed ({type(error).__name__}); its log says why."}, 500)

    return app


async def _ask(service: Service, body: bytes, *, labels: bool) -> Response:
    if service.models.loaded is None:
        return answered({"error": NO_MODEL}, 503, {"retry-after": "10"})
    try:
        question = read_question(body, service.limits, service.log, labels=labels)
        future = asyncio.wrap_future(service.batcher.submit(question.sessions))
        found, loaded = await asyncio.wait_for(future, service.limits.seconds)
    except InputError as error:
        return answered({"error": str(error)}, 422)
    except BusyError:
        return answered({"error": f"{service.limits.waiting:,} requests wait already."}, 503, {"retry-after": "1"})
    except TimeoutError:
        return answered({"error": f"No answer within {service.limits.seconds:g} s."}, 503, {"retry-after": "1"})
    faults = [answer for answer in found if "error" in answer]
    service.metrics.faults.inc(len(faults))
    for answer in found:
        for item in answer.get("items", ()):
            service.metrics.items.labels(item["source"]).inc()
    headers = model_headers(loaded.place)
    if question.single and faults:
        return answered({"error": faults[0]["error"]}, 422, headers)
    return answered({"model": loaded.place.name, "sessions": found}, 200, headers)


async def _ask_single(service: Service, question: Similar | Popular) -> tuple[Answer, Loaded]:
    if service.models.loaded is None:
        raise HTTPException(503, NO_MODEL, {"retry-after": "10"})
    try:
        found, loaded = await asyncio.wait_for(
            asyncio.wrap_future(service.batcher.submit([question])), service.limits.seconds
        )
    except BusyError:
        raise HTTPException(503, f"{service.limits.waiting:,} requests wait already.", {"retry-after": "1"}) from None
    except TimeoutError:
        raise HTTPException(503, f"No answer within {service.limits.seconds:g} s.", {"retry-after": "1"}) from None
    return found[0], loaded


async def _similar(service: Service, item: str, k: str) -> Response:
    found, loaded = await _ask_single(service, Similar(item, _count(k, service)))
    status = 404 if "is not in this model" in found.get("error", "") else 422 if "error" in found else 200
    return answered(
        found if "error" in found else {"model": loaded.place.name} | found, status, model_headers(loaded.place)
    )


async def _of_user(service: Service, user: str, k: str) -> Response:
    """A user's list as it was made, without what may not be recommended by now; of a user without one what is popular."""
    count, lists = _count(k, service), service.lists.lists
    found = lists.of(user) if lists else None
    about: dict[str, Any] = {"user_id": user, "lists": lists.name if lists else None, "known": found is not None}
    if found is None:
        popular, loaded = await _ask_single(service, Popular(count))
        return answered(about | {"items": popular["items"]}, 200, model_headers(loaded.place))
    if service.models.loaded is not None:
        found = found.filter(service.models.loaded.recommender.allowed(found["item"]))
    return answered(about | {"items": found.head(count).to_dicts()})


def _count(given: str, service: Service) -> int:
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= service.limits.items:
        raise HTTPException(422, f"k is an integer from 1 to {service.limits.items:,}, got {given!r}.")
    return int(given)


def _health(service: Service) -> Response:
    loaded, fault = service.models.loaded, service.models.fault
    works = loaded is not None and service.batcher.alive
    about: dict[str, Any] = {"status": "ok" if works and not fault else "old model" if works else "no model"}
    if loaded is not None:
        place = loaded.place
        about |= {
            "model": place.name,
            "created": place.created.isoformat(),
            "promoted": place.promoted.isoformat() if place.promoted else None,
            "age_seconds": int((datetime.now(UTC) - place.created).total_seconds()),
            "loaded": loaded.since.isoformat(),
            "items": loaded.recommender.items.height,
        }
    if service.watch is not None and service.watch.faults:
        about["not_read"] = service.watch.faults
    if fault is not None:
        about["not_loaded"] = {"model": fault.model, "error": fault.error, "when": fault.when.isoformat()}
    return answered(about, 200 if works else 503)


def _refused(request: Request, error: HTTPException) -> Response:
    paths = routes_of(request.app)
    say = {
        404: f"There is no {request.url.path}; there are {paths}.",
        405: f"{request.url.path} does not take {request.method}; there are {paths}.",
    }.get(error.status_code, str(error.detail))
    return answered({"error": say}, error.status_code, dict(error.headers or {}))


def answered(about: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    body = json.dumps(about, default=str).encode()
    return Response(body, status, dict(headers or {}), "application/json")
