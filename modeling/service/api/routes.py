"""What each route answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from starlette.exceptions import HTTPException

from modeling.service.api.answers import Answer, Popular, Similar
from modeling.service.api.asking import Asked, read_question
from modeling.service.api.batching import BusyError
from modeling.service.api.gate import model_headers
from modeling.service.api.in_service import Loaded
from modeling.service.api.known_routes import routes_of
from modeling.service.api.side_by_side import Second, Sides
from modeling.service.api.tracking import OFF, Given
from schemas.errors import InputError

if TYPE_CHECKING:
    from modeling.service.api.app import Service

NO_MODEL = "No model is in service yet: `overnight retrain` makes one, and it is taken up as soon as it is promoted."


async def ask(service: Service, body: bytes, *, labels: bool) -> Response:
    """The lists, or with `labels` the labels, of the sessions in a body."""
    if service.models.loaded is None:
        return answered({"error": NO_MODEL}, 503, {"retry-after": "10"})
    try:
        question = read_question(body, service.limits, service.log, labels=labels)
        future = asyncio.wrap_future(service.batcher.submit(question.sessions))
        found, sides = await asyncio.wait_for(future, service.limits.seconds)
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
    answered_by = [sides.of(answer.get("arm")).place for answer in found]
    headers = model_headers(*dict.fromkeys(answered_by))
    if question.single and faults:
        return answered({"error": faults[0]["error"]}, 422, headers)
    if not labels:
        _note(service, [_given(asked, answer, sides) for asked, answer in zip(question.sessions, found, strict=True)])
    return answered({"model": answered_by[0].name, "sessions": found}, 200, headers)


def _given(asked: Asked, answer: Answer, sides: Sides) -> Given:
    arm = answer.get("arm")
    by, against = sides.of(arm).place.name, sides.against(arm)
    return Given(answer, asked.user, asked.key, by, arm, against, sides.salt if against else None)


def _note(service: Service, given: list[Given]) -> None:
    """Count what users get, and where it is tracked, write it down."""
    lists = [listed for listed in given if "items" in listed.answer]
    for listed in lists:
        service.metrics.answers.labels(listed.arm or "", listed.model).inc()
    if service.tracking and lists:
        service.tracking.note(lists)


async def track(service: Service, body: bytes) -> Response:
    """Take what was shown and clicked."""
    if service.tracking is None:
        return answered({"error": OFF}, 404)
    return answered(*await service.tracking.track(body, service.limits))


async def _ask_single(service: Service, question: Similar | Popular) -> tuple[Answer, Loaded]:
    if service.models.loaded is None:
        raise HTTPException(503, NO_MODEL, {"retry-after": "10"})
    try:
        found, sides = await asyncio.wait_for(
            asyncio.wrap_future(service.batcher.submit([question])), service.limits.seconds
        )
    except BusyError:
        raise HTTPException(503, f"{service.limits.waiting:,} requests wait already.", {"retry-after": "1"}) from None
    except TimeoutError:
        raise HTTPException(503, f"No answer within {service.limits.seconds:g} s.", {"retry-after": "1"}) from None
    return found[0], sides.first


async def similar_to(service: Service, item: str, k: str) -> Response:
    """The nearest items of an item."""
    found, loaded = await _ask_single(service, Similar(item, _count(k, service)))
    status = 404 if "is not in this model" in found.get("error", "") else 422 if "error" in found else 200
    return answered(
        found if "error" in found else {"model": loaded.place.name} | found, status, model_headers(loaded.place)
    )


async def of_user(service: Service, user: str, k: str) -> Response:
    """A user's list as it was made, without what may not be recommended by now; of a user without one what is popular."""
    count, lists = _count(k, service), service.lists.lists
    found = lists.of(user) if lists else None
    about: dict[str, Any] = {"user_id": user, "lists": lists.name if lists else None, "known": found is not None}
    if found is None:
        popular, loaded = await _ask_single(service, Popular(count))
        about["items"] = popular["items"]
        _note(service, [Given(about, user, None, loaded.place.name)])
        return answered(about, 200, model_headers(loaded.place))
    if service.models.loaded is not None:
        found = found.filter(service.models.loaded.recommender.allowed(found["item"]))
    about["items"] = found.head(count).to_dicts()
    _note(service, [Given(about, user, None, lists.name if lists else "")])
    return answered(about)


def _count(given: str, service: Service) -> int:
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= service.limits.items:
        raise HTTPException(422, f"k is an integer from 1 to {service.limits.items:,}, got {given!r}.")
    return int(given)


def health_of(service: Service) -> Response:
    """Whether it answers, by which model, and what could not be read."""
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
    if service.second is not None:
        about["side_by_side"] = _side_by_side(service.second, loaded)
    if service.watch is not None and service.watch.faults:
        about["not_read"] = service.watch.faults
    if fault is not None:
        about["not_loaded"] = {"model": fault.model, "error": fault.error, "when": fault.when.isoformat()}
    return answered(about, 200 if works else 503)


def _side_by_side(second: Second, first: Loaded | None) -> dict[str, Any]:
    """The second model and its share; why it does not answer, where it does not."""
    loaded, fault = second.models.loaded, second.models.fault
    same = loaded is not None and first is not None and loaded.place.folder == first.place.folder
    why = "it is the model in service" if same else fault.error if fault else None
    answers = loaded is not None and not same
    about: dict[str, Any] = {
        "model": loaded.place.name if loaded else None,
        "share": second.split.share if answers else 0,
    }
    return about | ({"why": why} if why else {})


def refused(request: Request, error: HTTPException) -> Response:
    """What is said of a path, a method or a request that is none."""
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
