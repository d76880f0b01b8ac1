"""`overnight recommend`: what a model folder recommends for a session, or for each session of a file, said and summed up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from flows.raw_events import reader_for
from flows.raw_tables import holds_lists, scan_table
from flows.reports.progress import Lines
from modeling.config import NEXT_ITEM
from modeling.service.bulk import (
    Histories,
    from_events,
    from_parquet,
    from_text,
    holds_histories,
    parquet_files,
    write_lists,
)
from modeling.service.everyone import histories_of_users
from modeling.service.histories import OfEvents
from modeling.service.popularity import Filling, Popularity, popular_ids, readable
from modeling.service.recommender import Recommender
from modeling.service.rules import Rules
from modeling.sessions import Sessions
from modeling.vocabularies import raw_lists
from schemas.errors import InputError
from schemas.progress import Progress

STEP = 10_000  # histories between two lines of progress, or a twentieth of all
NOTHING_LEFT = (
    "Nothing is left to recommend: all that can be is in the session already (--keep-seen recommends it again)."
)

POPULAR = "The model has no item of this session: what is popular is listed, as the service does."


def recommend(
    folder: Path,
    given: list[str] | pl.DataFrame,
    count: int,
    new_items: pl.DataFrame | None = None,
    *,
    user: str | None = None,
    past: Path | None = None,
    recent: Path | None = None,
    at: datetime | None = None,
    keep_seen: bool = False,
    rules: Rules | None = None,
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Item ids of one session, or raw events -> a summary, with `recommended` and `predicted`, or `sessions` of them.

    With `keep_seen` items of a session are recommended again. Past sessions of the `user`, or of those of raw events, are read
    from `past`, prepared sessions, by a model that reads them; then the ids may be none. A session of which the model knows no
    item gets what is popular, by the newest days of `recent`, as in the service.

    It is asked `at` a moment (None: now, of raw events as long after the last one as was usual in training).

    Raises:
        InputError: for ids and values that do not fit the model, and a user without a session where there are no ids.
    """
    recommender = Recommender(folder, past=past, rules=rules)
    summary: dict[str, Any] = {"model": str(folder), "keep_seen": keep_seen}
    times: list[datetime] | None = None
    if new_items is not None:
        added, had = recommender.add_items(new_items)
        say(f"{added:,} items are new" + (f", {had:,} are known to the model already." if had else "."))
        summary |= {"added": added, "already_known": had}
    keys: list[Any]
    if isinstance(given, list):
        summary["history"], keys = given, [None]
        histories, unknown = recommender.histories([given], None if user is None else [user], at)
        if user is not None:
            summary |= {"user": user, "past_events": _say_past(histories, given, user, past, say)}
        borrowed = recommender.borrowed() if given else []
    else:
        read = _read_events(recommender, given, at)
        histories, unknown, keys = read.sessions, read.missing, read.keys
        times = None if read.ends is None else read.ends.to_list()
        borrowed = recommender.borrowed(given.columns)
    times = [at] * len(keys) if at is not None else times
    if unknown:
        say(f"Not known to this model, read as unknown: {', '.join(map(str, unknown))}.")
    if borrowed:
        say(
            f"Not given: {', '.join(borrowed)}. Taken from the last training event with the item, whoever's it was; "
            "--events FILE gives them."
        )
    answers = _answers(recommender, histories, count, recent, times, keep_seen=keep_seen)
    for key, answer in zip(keys, answers, strict=True):
        _say_answer(answer, f"{key}:" if len(keys) > 1 else "", NEXT_ITEM in recommender.model.heads, say)
    summary |= {"unknown": unknown, "borrowed": borrowed}
    if len(answers) == 1:
        return summary | answers[0]
    return summary | {"sessions": [{"session": key} | answer for key, answer in zip(keys, answers, strict=True)]}


def _say_past(histories: Sessions, given: list[str], user: str, past: Path | None, say: Callable[[str], object]) -> int:
    """How many events of past sessions are read; raises InputError where there is no event at all."""
    number = int((histories.places - histories.lengths).sum())
    if not given and not number:
        raise InputError(f"User {user!r} has no session in {past}: give items of the current one.")
    say(f"Read before: {number} event{'' if number == 1 else 's'} of past sessions of {user}.")
    return number


def _read_events(recommender: Recommender, given: pl.DataFrame, at: datetime | None) -> OfEvents:
    """Sessions of raw events; raises InputError where there is none, and for `at` of a model that does not read it."""
    if at is not None and not recommender.model.settings.inputs.query_time:
        raise InputError(
            f"--at: {recommender.folder} does not read when it is asked (inputs.query_time is off); leave it out with --events."
        )
    read = recommender.read_events(given, at)
    if not read.keys:
        raise InputError("There is no event in the file.")
    return read


def recommend_all(
    folder: Path,
    source: Path,
    out: Path,
    count: int,
    new_items: pl.DataFrame | None = None,
    *,
    dataset: str = "",
    recent: Path | None = None,
    keep_seen: bool = False,
    rules: Rules | None = None,
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Histories in files -> OUT/lists.parquet, and a summary. `source`: see `modeling.service.bulk`; raw events are read as
    the `dataset` says, else as the model's own does.

    Raises:
        InputError: for files that do not fit the model, and where OUT is there already.
    """
    recommender = Recommender(folder, rules=rules)
    if new_items is not None:
        recommender.add_items(new_items)
    total: int | None = None
    said = [0]

    def progress(done: int) -> None:
        if done >= said[0] + max(STEP, (total or 0) // 20):
            said[0] = done
            say(f"recommend: {done:,}" + (f" of {total:,} histories ({done / total:.0%})" if total else " histories"))

    try:
        total, histories = _histories(recommender, source, dataset)
        popularity = Popularity(recommender, recent) if NEXT_ITEM in recommender.model.heads else None
        counts = write_lists(
            recommender, histories, out, count, filter_seen=not keep_seen, progress=progress, popularity=popularity
        )
    except (OSError, pl.exceptions.PolarsError, pa.ArrowException) as error:
        raise InputError(f"--from {source}: it cannot be read ({' '.join(str(error).split())}).") from error
    if counts["left_out_events"]:
        say(
            f"{counts['left_out_events']:,} events were left out: without an item, a time, or whose they are, or with a value "
            "that does not fit its column."
        )
    if counts.get("popular"):
        say(f"{counts['popular']:,} histories hold no item of the model: what is popular is listed, without a score.")
    say(f"{counts['rows']:,} rows for {counts['histories']:,} histories in {out}.")
    return {"model": str(folder), "keep_seen": keep_seen, "out": str(out)} | counts


def _histories(recommender: Recommender, source: Path, dataset: str) -> tuple[int | None, Iterator[Histories]]:
    """How many histories there are, where files say so, and these."""
    reader = reader_for(dataset, recommender.folder)
    if source.suffix.lower() == ".parquet" or (source.is_dir() and any(source.rglob("*.parquet"))):
        files = parquet_files(source)
        if reader is None or holds_histories(files[0]):
            return from_parquet(recommender, files)
    elif reader is None or holds_lists(source) or (source.is_file() and not source.stat().st_size):
        return from_text(recommender, scan_table(source, "--from"))
    return None, from_events(recommender, reader.scan_events(source, "--from"))


def reads_past(folder: Path) -> bool:
    """Whether a model reads past sessions of users."""
    about = json.loads((folder / "config.json").read_text())
    return bool(about["model"]["inputs"].get("past_events"))


def recommend_everyone(
    folder: Path,
    past: Path,
    out: Path,
    count: int,
    *,
    keep_seen: bool = False,
    rules: Rules | None = None,
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Prepared sessions -> OUT/lists.parquet: a list for every user from their past sessions alone, and a summary. A model that
    reads no past sessions goes by the last one of each.

    Without `keep_seen` the past events that the model reads are not recommended again.

    Raises:
        InputError: where OUT is there already.
    """
    recommender, total, histories = histories_of_users(folder, past, rules=rules)
    progress = Lines(say)
    counts = write_lists(
        recommender,
        histories,
        out,
        count,
        filter_seen=not keep_seen,
        progress=lambda done: progress(Progress("recommend", done, total)),
    )
    say(f"{counts['rows']:,} rows for {counts['histories']:,} users in {out}.")
    return {"model": str(folder), "sessions": str(past), "keep_seen": keep_seen, "out": str(out)} | counts


def _answers(
    recommender: Recommender,
    histories: Sessions,
    count: int,
    recent: Path | None,
    times: Sequence[datetime] | None,
    *,
    keep_seen: bool,
) -> list[dict[str, Any]]:
    lists: list[list[Any]] = [[] for _ in range(len(histories))]
    popular_N = [False] * len(histories)
    if NEXT_ITEM in recommender.model.heads:
        ids_NK = recommender.ranked(histories, count, filter_seen=not keep_seen)[0].cpu()
        unknown = (~readable(recommender.model, histories)).nonzero().squeeze(1)
        if len(unknown):
            filling = Filling(recommender, Popularity(recommender, recent), not keep_seen)
            ids_NK[unknown] = popular_ids(filling, histories, unknown, ids_NK.shape[1], times)
        lists = raw_lists(recommender.items, ids_NK)
        popular_N = [row in set(unknown.tolist()) for row in range(len(histories))]
    predicted = {label: value_N.tolist() for label, value_N in recommender.predict(histories).items()}
    return [
        {
            "recommended": best,
            "popular": popular,
            "predicted": {label: values[row] for label, values in predicted.items()},
        }
        for row, (best, popular) in enumerate(zip(lists, popular_N, strict=True))
    ]


def _say_answer(answer: dict[str, Any], title: str, ranks: bool, say: Callable[[str], object]) -> None:
    if title:
        say(title)
    if answer["popular"]:
        say(POPULAR)
    for place, item in enumerate(answer["recommended"], 1):
        say(f"{place:3}  {item}")
    if ranks and not answer["recommended"]:
        say(NOTHING_LEFT)
    for label, value in answer["predicted"].items():
        say(f"{label}: {value:.4g}")
