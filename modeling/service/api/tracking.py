"""POST /track, and answers that can be named there: each carries an id under which it is written down."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from modeling.service.api.limits import Limits
from modeling.service.api.metrics import Metrics
from modeling.service.api.side_by_side import Second
from modeling.service.api.tracked import read_events
from modeling.service.tracking.journal import Record
from modeling.service.tracking.store import Store
from schemas.errors import InputError

RECOMMENDATION_ID = "recommendation_id"
OFF = "Nothing is tracked here: write `serving: {tracking: {}}` into the dataset's YAML, which is read again when it changes."
Reply = tuple[dict[str, Any], int, dict[str, str]]  # body, status, headers
log = logging.getLogger("overnight.api")


@dataclass(frozen=True)
class Given:
    """A list that a user gets, for the record: whose, by which model, in which arm of a comparison."""

    answer: dict[str, Any]
    user: str | None
    session: Any
    model: str
    arm: str | None = None
    against: str | None = None
    salt: str | None = None


@dataclass(frozen=True)
class Tracked:
    """What a service is to track and compare: where it is kept (None: nothing), how late events may come, the second model."""

    store: Store | None = None
    late: timedelta = timedelta(days=7)
    second: Second | None = None


@dataclass(frozen=True)
class Tracking:
    """What a service keeps of what it answers, and of what people do with it."""

    store: Store
    metrics: Metrics
    late: timedelta = timedelta(days=7)

    def note(self, given: Sequence[Given]) -> None:
        """Give each answer an id, and write it down. An answer that cannot be written has null: nothing stops for it."""
        now = (datetime.now(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        records = []
        for listed in given:
            listed.answer[RECOMMENDATION_ID] = secrets.token_urlsafe(12)
            records.append(self._record(listed, now))
        try:
            self.store.note(records)
        except OSError as error:
            log.error("answers could not be written: %s", error)
            self.metrics.unwritten.inc()
            for listed in given:
                listed.answer[RECOMMENDATION_ID] = None

    async def track(self, body: bytes, limits: Limits) -> Reply:
        """The answer to a request: 200 once its events are on the disk."""
        try:
            found = read_events(body, limits, late=self.late, name_of=self.store.name_of)
        except InputError as error:
            self.metrics.untracked.inc()
            return {"error": str(error)}, 422, {}
        if self.store.waiting >= limits.waiting:
            return {"error": f"{limits.waiting:,} requests wait already."}, 503, {"retry-after": "1"}
        try:
            await asyncio.wait_for(asyncio.wrap_future(self.store.submit(found.records)), limits.seconds)
        except (TimeoutError, OSError) as error:
            self.metrics.unwritten.inc()
            why = (
                error.strerror if isinstance(error, OSError) and error.strerror else f"not within {limits.seconds:g} s"
            )
            return {"error": f"The events could not be written ({why}): send them again."}, 503, {"retry-after": "5"}
        self.metrics.untracked.inc(len(found.errors))
        for kind, count in Counter(record["event_type"] for record in found.records).items():
            self.metrics.tracked.labels(kind).inc(count)
        return {"accepted": found.accepted, "errors": found.errors}, 200, {}

    def _record(self, listed: Given, now: int) -> Record:
        return {
            RECOMMENDATION_ID: listed.answer[RECOMMENDATION_ID],
            "timestamp": now,
            "model": listed.model,
            "arm": listed.arm,
            "against": listed.against,
            "salt": listed.salt,
            "user_id": self.store.name_of(listed.user),
            "session_id": self.store.name_of(listed.session),
            "items": [str(entry["item"]) for entry in listed.answer["items"]],
            "sources": [entry["source"] for entry in listed.answer["items"]],
        }
