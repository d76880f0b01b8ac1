"""Sessions asked for -> answers, of question model, many at a time.

Sessions whose events have the same columns are read as one table, and ranked as `Recommender.ranked` ranks them: the list of a
session is the one that `Recommender(folder, borrow=False).recommend` gives for it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch

from modeling.config import NEXT_ITEM
from modeling.service.api.asking import Asked
from modeling.service.api.filling import fill, taken_of
from modeling.service.api.in_service import Loaded
from modeling.service.popularity import readable
from modeling.sessions import Sessions
from schemas.columns import FIRST_ID, SESSION_ID, USER_ID
from schemas.errors import InputError

Answer = dict[str, Any]
MODEL, FEATURES = (
    "model",
    "features",
)  # sources of items: scored by the model; by their features alone, without training events


@dataclass(frozen=True)
class Kind:
    """What sessions have in common that are read and ranked together."""

    columns: tuple[str, ...]
    asked_at: bool
    user: bool
    k: int
    hide_seen: bool
    explain: int
    labels: bool


@dataclass(frozen=True)
class Similar:
    """The items that are asked to be like one."""

    item: str
    k: int


@dataclass(frozen=True)
class Popular:
    """What is popular now, for a user of whom nothing is known."""

    k: int


def answer_all(loaded: Loaded, asked: Sequence[Asked | Similar | Popular]) -> list[Answer]:
    """An answer for each question, in order."""
    found: dict[int, Answer] = {}
    sessions = [place for place, question in enumerate(asked) if isinstance(question, Asked)]
    found |= zip(sessions, answers(loaded, [asked[place] for place in sessions]), strict=True)  # type: ignore[misc]
    for place, question in enumerate(asked):
        if isinstance(question, Similar):
            found[place] = _similar(loaded, question)
        elif isinstance(question, Popular):
            found[place] = answers(loaded, [Asked(k=question.k)])[0]
    return [found[place] for place in range(len(asked))]


def _similar(loaded: Loaded, question: Similar) -> Answer:
    """The nearest items by the cosine of their vectors, as far as rules allow them."""
    recommender = loaded.recommender
    try:
        nearest = recommender.similar([question.item], question.k)[0]
    except InputError as error:
        return {"error": str(error)}
    return {"item": question.item, "similar": [{"item": item, "cosine": cosine} for item, cosine in nearest]}


def answers(loaded: Loaded, asked: Sequence[Asked]) -> list[Answer]:
    """An answer for each session, in order: its list or its labels, or what is wrong with it as `error`."""
    given: dict[int, Answer] = {}
    groups: dict[Kind, list[int]] = {}
    for place, question in enumerate(asked):
        if question.error:
            given[place] = {"session_id": question.key, "error": question.error}
        else:
            groups.setdefault(_kind(loaded, question), []).append(place)
    for kind, places in groups.items():
        found = _together(loaded, kind, [asked[place] for place in places])
        given |= dict(zip(places, found, strict=True))
    return [given[place] for place in range(len(asked))]


def _kind(loaded: Loaded, question: Asked) -> Kind:
    columns = {name for event in question.events for name in event} & loaded.columns
    hide = loaded.hide_seen if question.hide_seen is None else question.hide_seen
    user = question.user is not None and loaded.recommender.pasts is not None
    return Kind(
        tuple(sorted(columns)), question.asked_at is not None, user, question.k, hide, question.explain, question.labels
    )


def _together(loaded: Loaded, kind: Kind, some: list[Asked]) -> list[Answer]:
    """Answers of sessions of one kind. Where one of them cannot be read, each is read alone: it spoils no other."""
    try:
        return _answered(loaded, kind, some)
    except InputError as error:
        if len(some) == 1:
            return [{"session_id": some[0].key, "error": str(error)}]
    return [_together(loaded, kind, [question])[0] for question in some]


def _answered(loaded: Loaded, kind: Kind, some: list[Asked]) -> list[Answer]:
    sessions, missing, given, ends = _read(loaded, kind, some)
    answered: list[Answer] = [{"session_id": question.key} for question in some]
    for answer, unknown, question in zip(answered, missing, some, strict=True):
        answer["unknown_items"] = unknown
        answer["not_given"] = loaded.recommender.borrowed(given) if question.events else []
    if kind.labels:
        _add_labels(loaded, sessions, answered)
    else:
        _add_lists(loaded, kind, some, sessions, answered, ends)
    return answered


def _read(
    loaded: Loaded, kind: Kind, some: list[Asked]
) -> tuple[Sessions, list[list[Any]], list[str], pl.Series | None]:
    """The sessions; of each the item ids that the model does not have; the columns of events; when sessions ended."""
    recommender = loaded.recommender
    missing: list[list[Any]] = [[] for _ in some]
    if not kind.columns:  # of sessions without an event there is at most a past
        users = [question.user for question in some] if kind.user else None
        return recommender.histories([[] for _ in some], users)[0], missing, [], None
    rows = [(place, question, event) for place, question in enumerate(some) for event in question.events]
    columns = {name: _column(name, [event.get(name) for _, _, event in rows]) for name in kind.columns}
    table = loaded.log_form.derive(pl.DataFrame(columns))
    table = table.with_columns(pl.Series(SESSION_ID, [place for place, _, _ in rows], dtype=pl.Int64))
    if kind.user:
        table = table.with_columns(pl.Series(USER_ID, [question.user for _, question, _ in rows], dtype=pl.String))
    times = [question.asked_at for question in some if question.asked_at is not None]
    read = recommender.read_events(table, times or None)
    for session, item in read.missing_in:
        missing[session].append(item)
    return read.sessions, missing, table.columns, read.ends


def _column(name: str, values: list[Any]) -> pl.Series:
    lists = [isinstance(value, list) for value in values if value is not None]
    if any(lists) and not all(lists):
        raise InputError(f"Column {name!r} of events holds lists in some events and single values elsewhere.")
    return pl.Series(name, values, dtype=pl.List(pl.String) if any(lists) else pl.String)


def _add_labels(loaded: Loaded, sessions: Sessions, answered: list[Answer]) -> None:
    """What label heads predict; nothing of a session without an event."""
    if not loaded.recommender.model.label_heads:
        raise InputError(f"{loaded.place.name} predicts no label: it has no head but {NEXT_ITEM}. Ask /recommend.")
    some = (sessions.places > 0).nonzero().squeeze(1)
    predicted = loaded.recommender.predict(sessions.select(some)) if len(some) else {}
    for answer in answered:
        answer["predicted"] = None
    for row, place in enumerate(some.tolist()):
        answered[place]["predicted"] = {label: float(value_N[row]) for label, value_N in predicted.items()}


def _explain(loaded: Loaded, kind: Kind, chosen: Sessions, answered: list[Answer]) -> None:
    """To each item the events that it leans on, and how much its score falls without each; null for the only event."""
    reasons = loaded.recommender.because(chosen, kind.k, filter_seen=kind.hide_seen, events=kind.explain)
    for answer, listed in zip(answered, reasons, strict=True):
        by_item = {reason.item: reason.events for reason in listed}
        for entry in answer["items"]:
            events = by_item.get(entry["item"], ())
            entry["because"] = [{"item": item, "fall": fall} for item, fall in events]


def _add_lists(
    loaded: Loaded,
    kind: Kind,
    some: list[Asked],
    sessions: Sessions,
    answered: list[Answer],
    ends: pl.Series | None,
) -> None:
    """Lists by the model where it knows an item of the session, else and behind them by what is popular."""
    recommender = loaded.recommender
    if NEXT_ITEM not in recommender.model.heads:
        raise InputError(f"{loaded.place.name} has no head {NEXT_ITEM}: it predicts labels only. Ask /predict.")
    read_N = readable(recommender.model, sessions)
    chosen = sessions.select(read_N)
    ids_NK, scores_NK = recommender.ranked(chosen, kind.k, filter_seen=kind.hide_seen)
    table = recommender.table_of(pl.DataFrame({"row": read_N.nonzero().squeeze(1).numpy()}), ids_NK, scores_NK)
    columns = (ids_NK[ids_NK >= FIRST_ID] - FIRST_ID).cpu()
    sources = [MODEL if trained else FEATURES for trained in loaded.trained_V[columns].tolist()]
    for answer in answered:
        answer["items"] = []
    for row, item, score, source in zip(table["row"], table["item"], table["score"], sources, strict=True):
        answered[row]["items"].append({"item": item, "score": score, "source": source})
    if kind.explain:
        _explain(loaded, kind, chosen, [answered[place] for place in read_N.nonzero().squeeze(1).tolist()])
    lengths = torch.zeros(len(sessions), dtype=torch.long)
    lengths[read_N] = (ids_NK >= FIRST_ID).sum(1).cpu()
    fill(loaded, kind.k, kind.hide_seen, some, sessions, answered, taken_of(ids_NK, read_N), lengths, ends)
