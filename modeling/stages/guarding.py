"""A new model and the day it was tested on -> which guards of promotion hold it: the limits of `promotion.guards`.

Guards of the model: coverage, unknown_share, size_mb, latency_ms. Guards of the day: sessions, quarantine, items, drift,
age_hours;
these protect what is in service, so they are not asked where nothing is. A value that the data do not have (days of sessions
without times) is None, and holds nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import polars as pl

from modeling.config import GuardsConfig, ModelConfig
from schemas.artifacts import Manifest
from schemas.columns import DAY, END, UNKNOWN
from schemas.features import FeatureColumn, FeatureSchema

if TYPE_CHECKING:
    from modeling.sessions import Sessions

OF_DAY = ("sessions", "quarantine", "items", "drift", "age_hours")
LEAST = ("sessions", "items", "coverage")  # a value below the limit holds; of the rest, one above it
WINDOW, LEAST_DAYS = 28, 3  # days before the test day that it is compared with; with fewer there is no usual day
WARM_UP, ROUNDS, ANSWERS = 5, 3, 15  # answers of a model whose time is taken
MEGABYTE, MILLISECOND = 1e6, 1e3
Measured = tuple[float, Any]  # a value, and what to say about it
WORDS = {  # what is wrong, and what to do
    "sessions": (
        "{about[0]}, {value:.0%} of the usual {about[1]}, and at least {limit:.0%} are asked for",
        "when the rest of the day comes, it is done again and compared anew",
    ),
    "quarantine": (
        "{value:.1%} of the test day's rows are in quarantine ({about}), at most {limit:.1%} may be",
        "mend the source or its item table, then run the night again",
    ),
    "items": (
        "the item table has {about[0]} items, {value:.0%} of the usual {about[1]}, and at least {limit:.0%} are asked for",
        "mend the table, then run the night again",
    ),
    "unknown_share": (
        "{value:.1%} of the test day's events have an unknown {about}, at most {limit:.1%} may",
        "look whether the source spells its values another way",
    ),
    "drift": (
        "the population stability index of {about} is {value:.2f} against the days before, at most {limit:g} is allowed",
        "look at the page of the day",
    ),
    "age_hours": (
        "the newest event, of {about}, is {value:.1f} hours old, at most {limit:g} are allowed",
        "look whether the source still gets events",
    ),
    "coverage": (
        "{about} {value:.1%} of the catalogue, at least {limit:.1%} is asked for",
        "look at the examples of the report",
    ),
    "size_mb": (
        "the model's folder has {value:.1f} MB, at most {limit:g} are allowed",
        "train a smaller body or vocabulary",
    ),
    "latency_ms": (
        "an answer takes {value:.1f} ms on {about}, at most {limit:g} are allowed",
        "train a smaller body, or measure on a quiet machine",
    ),
}


@dataclass(frozen=True)
class Guarded:
    """A guard, what was measured, its limit (None: off) and whether that holds the model; `about` says it in words."""

    guard: str
    value: float | None
    limit: float | None
    holds: bool
    about: str = ""


def guard(
    config: GuardsConfig,
    candidate: Manifest,
    evaluation: Manifest,
    sessions: Manifest,
    *,
    first: bool,
    due: datetime | None = None,
    timed: bool = True,
) -> list[dict[str, Any]]:
    """A row for each guard, as `Guarded` has it. `first`: nothing is in service that could be compared.

    `due` is when a schedule asked for the night; None: a person did. Without `timed` no time of an answer is taken.
    """
    facts, day = sessions.facts, _day(sessions)
    values = {
        "sessions": share_of_usual(facts["days"], day),
        "quarantine": _quarantined(facts),
        "items": _items(facts),
        "unknown_share": _unknown(candidate, sessions, day),
        "drift": max(((psi, name) for name, psi in _far(facts).items()), default=None),
        "age_hours": age_of(sessions, day, due),
        "coverage": _coverage(evaluation),
        "size_mb": (sum(file.size for file in candidate.files) / MEGABYTE, ""),
        "latency_ms": _latency(candidate) if timed and config.latency_ms is not None else None,
    }
    rows = []
    for name, measured in values.items():
        limit, (value, about) = getattr(config, name), measured or (None, "")
        words = "" if first and name in OF_DAY else _beyond(name, value, limit, about)
        rows.append(asdict(Guarded(name, value, limit, bool(words), words)))
    return rows


def why_held(rows: Iterable[dict[str, Any]], candidate: str, dataset: str, *, alone: bool = True) -> str:
    """What to say of a model that guards hold, and what to do; empty where none does.

    `alone`: without guards it would take over.
    """
    held = [row for row in rows if row["holds"]]
    if not held:
        return ""
    reasons = " ".join(f"{row['about']}." for row in held)
    if not alone:
        return f"Guards would hold it, too. {reasons}"
    names = " and ".join(f"promotion.guards.{row['guard']}" for row in held)
    return (
        f"But it is held. {reasons} To promote it all the same: `overnight promote {candidate} --dataset {dataset}`; to change "
        f"the limit, set {names}."
    )


def is_older(config: GuardsConfig, sessions: Manifest, due: datetime | None) -> bool:
    """Whether the newest event is older than `age_hours` when a scheduled night is due."""
    measured = age_of(sessions, _day(sessions), due) if due and config.age_hours is not None else None
    return measured is not None and config.age_hours is not None and measured[0] > config.age_hours


def _beyond(name: str, value: float | None, limit: float | None, about: Any) -> str:
    """What to say of a value beyond its limit; empty of others."""
    if value is None or limit is None or (value >= limit if name in LEAST else value <= limit):
        return ""
    sentence, help_with = WORDS[name]
    return f"Guard {name}: {sentence.format(value=value, limit=limit, about=about)}; {help_with}"


def _day(sessions: Manifest) -> date | None:
    day = sessions.facts.get("test_day")
    return date.fromisoformat(day) if day else None


def share_of_usual(counts: dict[str, int], day: date | None) -> Measured | None:
    """Sessions of a day as a share of the median of the days before it, or of its weekday's, whichever is the larger.

    {1 March: 100, 2 March: 120, 3 March: 110, 4 March: 55} -> .5 for 4 March
    """
    if day is None:
        return None
    since = day - timedelta(days=WINDOW)
    before = {other: n for text, n in counts.items() if since <= (other := date.fromisoformat(text)) < day}
    if len(before) < LEAST_DAYS:
        return None
    own = counts.get(str(day), 0)
    alike = [n for other, n in before.items() if other.weekday() == day.weekday()]
    usual = median(before.values())
    if alike:
        usual = min(usual, median(alike))  # a Sunday of a shop that is quiet on Sundays is no half day
    return own / usual, (f"{day} has {own:,} sessions", f"{usual:,.0f}")


def _quarantined(facts: dict[str, Any]) -> Measured | None:
    rows, by_rule = facts.get("rows_of_last_day"), facts.get("quarantined_of_last_day") or {}
    if not rows or not facts.get("test_day"):
        return None
    most = sorted(by_rule.items(), key=lambda pair: -pair[1])[:3]
    return sum(by_rule.values()) / rows, ", ".join(f"{rule} {n:,}" for rule, n in most if n)


def _items(facts: dict[str, Any]) -> Measured | None:
    now, usual = facts.get("items_in_table"), facts.get("items_usually")
    return None if now is None or not usual else (now / usual, (f"{now:,}", f"{usual:,.0f}"))


def _far(facts: dict[str, Any]) -> dict[str, float]:
    """Drift by column, where it is above what chance gives."""
    chance = facts.get("drift_by_chance") or {}
    return {name: psi for name, psi in (facts.get("drift") or {}).items() if psi > chance.get(name, 0.0)}


def _unknown(candidate: Manifest, sessions: Manifest, day: date | None) -> Measured | None:
    """The largest share of unknown values among what the candidate reads of the test day's events, and of which column."""
    if day is None:
        return None
    from modeling.features import read_features

    schema = FeatureSchema.read(candidate.folder / "schema.json")
    read = [schema.items, *read_features(ModelConfig.model_validate(candidate.parameters["model"]), schema)]
    asked = [column for column in read if column.vocabulary and column.cardinality]
    rows = pl.concat([pl.scan_parquet(file, glob=False, hive_partitioning=False) for file in _files(sessions, day)])
    shares = rows.select(_share_unknown(column, _first_known(column)).alias(column.name) for column in asked).collect()
    return max((share or 0.0, name) for name, share in shares.row(0, named=True).items())


def _first_known(column: FeatureColumn) -> int:
    """The first id of a value; those of unknown values come before it."""
    buckets = (encoder.options.get("unknown_buckets", 1) for encoder in column.encoders or ())
    return UNKNOWN + max(buckets, default=1)


def _share_unknown(column: FeatureColumn, first: int) -> pl.Expr:
    values = pl.col(column.name)
    for _ in range((column.per == "event") + column.many):
        values = values.explode()
    return (values.is_between(UNKNOWN, first - 1) | (values >= column.cardinality)).mean()


def _files(sessions: Manifest, day: date) -> list[Path]:
    return sorted((sessions.folder / "sessions" / f"{DAY}={day}").glob("part-*.parquet"))


def age_of(sessions: Manifest, day: date | None, due: datetime | None) -> Measured | None:
    """Hours from the newest event of the test day to its end (in days of 23 and 25 hours too), or to when the run was due."""
    if day is None:
        return None
    zone = ZoneInfo(FeatureSchema.read(sessions.folder / "schema.json").time_zone)
    files = _files(sessions, day)
    ends = pl.concat([pl.read_parquet(file, columns=[END], glob=False, hive_partitioning=False) for file in files])
    newest = ends[END].max()
    if not isinstance(newest, datetime):
        return None
    until = due or datetime.combine(day + timedelta(days=1), datetime.min.time(), zone)
    return max((until - newest).total_seconds(), 0.0) / 3600, f"{newest.astimezone(zone):%Y-%m-%d %H:%M %Z}"


def _coverage(evaluation: Manifest) -> Measured | None:
    """Of the lists at the largest cut-off."""
    lists = evaluation.facts.get("lists") or {}
    by_name = (lists.get("metrics") or {}).get(evaluation.facts["model"]) or {}
    measured = {name: value for name, value in by_name.items() if name.startswith("catalog_coverage@")}
    name = max(measured, key=lambda name: int(name.partition("@")[2]), default="")
    if measured.get(name) is None:
        return None
    k = name.partition("@")[2]
    return measured[name], f"1 list of {k} holds" if lists["count"] == 1 else f"{lists['count']:,} lists of {k} hold"


def _latency(candidate: Manifest) -> Measured:
    """Milliseconds for an answer: the best median of a few rounds, as a moment's load is no fault of a model."""
    from modeling.service.recommender import Recommender

    recommender = Recommender(candidate.folder)
    items = recommender.items["value"].drop_nulls().head(5).to_list()
    history: Sessions = recommender.histories([items])[0]
    has_items = "next_item" in recommender.model.heads

    def seconds() -> float:
        began = time.perf_counter()
        recommender.recommend(history) if has_items else recommender.predict(history)
        return time.perf_counter() - began

    for _ in range(WARM_UP):
        seconds()
    best = min(median(seconds() for _ in range(ANSWERS)) for _ in range(ROUNDS))
    return best * MILLISECOND, recommender.device
