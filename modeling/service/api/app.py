"""The routes of the service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import polars as pl
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from modeling.service.api import documented, routes
from modeling.service.api.answers import Answer
from modeling.service.api.batching import Batcher
from modeling.service.api.gate import Gate
from modeling.service.api.in_service import InService, Place
from modeling.service.api.keys import Keys
from modeling.service.api.known_routes import add_docs
from modeling.service.api.limits import Limits
from modeling.service.api.lists import NewestLists
from modeling.service.api.log import Log
from modeling.service.api.metrics import Metrics
from modeling.service.api.side_by_side import Question, Second, Sides, answer_in_arms, arms_of, sides_of
from modeling.service.api.tracking import Tracked, Tracking
from modeling.service.api.watching import Watch
from modeling.service.rules import Rules
from modeling.service.tracking.store import Store

log = logging.getLogger("overnight.api")
PAGE = Path(__file__).with_name("page.html")  # it asks nothing of other machines
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
}


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
    store: Store | None = None  # of what is shown and clicked; without one nothing is tracked
    late: timedelta = timedelta(days=7)
    second: Second | None = None
    read_tracked: Callable[[], Tracked | None] = lambda: None  # these three, where they have changed

    def __post_init__(self) -> None:
        self.models = InService(
            self.find, self.metrics, log_form=self.log, read_rules=self.read_rules, read_items=self.read_items
        )
        self.watch: Watch | None = None
        self.lists = NewestLists(self.find_lists)
        self.tracking = Tracking(self.store, self.metrics, self.late) if self.store else None
        self._left: list[Store] = []  # of before, that requests under way may still write to
        self.batcher: Batcher[Question] = Batcher(self._answer, most=self.limits.batch, waiting=self.limits.waiting)

    @property
    def place(self) -> Place | None:
        """Where the model that answers is."""
        return self.models.loaded.place if self.models.loaded else None

    def _answer(self, asked: Sequence[Question]) -> tuple[list[Answer], Sides]:
        loaded = self.models.loaded
        assert loaded is not None  # `ask` has seen one, and it is never taken away
        self.metrics.batch.observe(len(asked))
        second = self.second  # it may be changed meanwhile
        sides = sides_of(loaded, second)
        self.metrics.second.set(sides.second is not None)
        return answer_in_arms(asked, sides, arms_of(asked, sides, second.split if second else None)), sides

    def refresh_tracked(self) -> bool:
        """Track and compare as is written by now; whether that has changed.

        Raises:
            InputError: for what cannot be read, or written to; it stays as it was.
        """
        while self._left:
            self._left.pop().stop()
        wanted = self.read_tracked()
        if wanted is None:
            return False
        if wanted.store is not self.store:
            if wanted.store:
                wanted.store.start()
            self._left += [self.store] if self.store else []
        self.store, self.late, self.second = wanted.store, wanted.late, wanted.second
        self.tracking = Tracking(self.store, self.metrics, self.late) if self.store else None
        log.info("what is tracked and compared has changed")
        return True

    def _of_second(self, look: str) -> Callable[[], object]:
        """A look of the second model, whichever it is then."""
        return lambda: getattr(self.second.models, look)() if self.second else None

    def _tidy(self) -> bool:
        return self.store.tidy() if self.store else False

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Answer while the block lasts; what waits when it ends is answered first."""
        models = self.models
        looks: list[Callable[[], object]] = [
            models.refresh,
            models.refresh_rules,
            models.refresh_items,
            self.lists.refresh,
            self.keys.refresh,
        ]
        looks += [self._of_second(name) for name in ("refresh", "refresh_rules", "refresh_items")]
        looks += [self._tidy, self.refresh_tracked]
        if self.store:
            self.store.start()
        self.watch = watch = Watch(looks, self.poll_seconds)
        self.batcher.start()
        watch.start()
        try:
            yield
        finally:
            await asyncio.to_thread(watch.stop)
            await asyncio.to_thread(self.batcher.stop)
            for store in [*self._left, *([self.store] if self.store else [])]:
                await asyncio.to_thread(store.stop)


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
        return await routes.ask(service, await request.body(), labels=False)

    @app.post("/predict", openapi_extra=documented.PREDICT, summary="The labels of one session, or of many")
    async def predict(request: Request) -> Response:
        return await routes.ask(service, await request.body(), labels=True)

    @app.post("/track", openapi_extra=documented.TRACK, summary="What was shown, and what was clicked")
    async def track(request: Request) -> Response:
        return await routes.track(service, await request.body())

    @app.get("/users/{user:path}", summary="The list that the last night made for a user")
    async def users(user: str, k: str = "10") -> Response:
        return await routes.of_user(service, user, k)

    @app.get("/similar/{item:path}", summary="The items that the model takes for most alike")
    async def similar(item: str, k: str = "10") -> Response:
        return await routes.similar_to(service, item, k)

    @app.get("/health", summary="Whether it answers, with which model")
    async def health() -> Response:
        return routes.health_of(service)

    @app.get("/metrics", summary="Counters for Prometheus")
    async def metrics() -> Response:
        service.metrics.waiting.set(service.batcher.waiting)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    _add_page_and_faults(app)
    return app


def _add_page_and_faults(app: FastAPI) -> None:
    """The page, and what is said where no route answers."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(PAGE.read_text(), media_type="text/html", headers=PAGE_HEADERS)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return routes.refused(request, error)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return routes.answered({"error": f"The service failed ({type(error).__name__}); its log says why."}, 500)
