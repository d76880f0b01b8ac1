"""Which column is the user, the item, the time, ...: by what columns are called, and by what their values are like.

Names come first; what no name says follows from the values:

- times are in a form of times;
- a user's rows come in bursts: more of them within half an hour of the one before than if the rows were dealt out by chance;
- a session belongs to one user, an item to many;
- a category follows from the item, a price nearly so.

Every guess says why it was made and what else it could have been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from flows.init.evidence import (
    ACTIONS,
    BURST_MINUTES,
    article,
    burst_lift,
    follows,
    is_group,
    is_money,
    is_score,
    mostly_positive,
    numbers,
    says_else,
    values_each,
)
from flows.init.times import moments_of
from flows.init.traits import Traits
from flows.init.words import EXACT, is_of_the_row, name_score
from schemas.column_types import IDS
from schemas.columns import EVENT_TYPE, ITEM_ID, POSITION, SESSION_ID, TIMESTAMP, USER_ID
from schemas.errors import InputError, unknown

MOST_UNTIMED = 0.2  # share of rows without a time, above which the order of events goes before times
LEAST_LIFT, NEAR = 0.1, 0.6  # of bursts, for a user; and the share of that for what may be its session
MOST_TYPES = 50  # kinds of events; more are not kinds
ROLES = {
    TIMESTAMP: "time",
    USER_ID: "user",
    ITEM_ID: "item",
    SESSION_ID: "session",
    EVENT_TYPE: "event_type",
    "price": "price",
}
ROLES |= {"category": "category", "brand": "brand", POSITION: "position", "country": "country", "device": "device"}


@dataclass(frozen=True)
class Guess:
    """A column of the files for one of ours."""

    ours: str
    column: str
    why: str
    alternatives: tuple[str, ...] = ()


@dataclass
class Roles:
    """What was guessed so far, of these columns."""

    traits: Mapping[str, Traits]
    guesses: dict[str, Guess] = field(default_factory=dict)
    clock: str = ""
    """The column of the time of day, where days and times are two."""
    untimed: Guess | None = None
    """A time that is not used, since most rows lack it."""

    def __getitem__(self, ours: str) -> Traits:
        return self.traits[self.guesses[ours].column]

    def __contains__(self, ours: str) -> bool:
        return ours in self.guesses

    @property
    def free(self) -> list[Traits]:
        """Columns without a role."""
        taken = {guess.column for guess in self.guesses.values()} | {self.clock}
        return [traits for traits in self.traits.values() if traits.name not in taken]

    def take(self, ours: str, column: str, why: str, alternatives: tuple[str, ...] = ()) -> None:
        """Settle a role."""
        self.guesses[ours] = Guess(ours, column, why, alternatives)


def guess_roles(traits: Mapping[str, Traits], given: Mapping[str, str]) -> Roles:
    """The roles of columns; `given` are those that a person named.

    Raises:
        InputError: when there is no time, item, or user or session, with all columns and what to do.
    """
    roles = Roles(traits)
    for ours, column in given.items():
        if column not in traits:
            raise unknown(f"column (--column {ours})", column, traits)
        roles.take(ours, column, "as --column says")
    _guess_time(roles)
    _by_name(roles, SESSION_ID, "session", lambda found: found.may_be_id or found.unique > 1)
    _by_name(roles, USER_ID, "user", lambda found: found.may_be_id)
    _by_name(roles, ITEM_ID, "item", lambda found: found.may_be_id)
    _guess_event_type(roles)
    _ids_by_content(roles)
    _by_name(roles, SESSION_ID, "basket", lambda found: found.may_be_id)
    _check(roles)
    _guess_rest(roles)
    return roles


def _by_name(
    roles: Roles, ours: str, role: str, fits: Callable[[Traits], bool], kinds: tuple[str, ...] = ("integer", "text")
) -> None:
    """The column whose name says a role most clearly, and no other role more clearly."""
    if ours in roles:
        return
    scored = []
    for found in roles.free:
        score = name_score(found.name, role)
        rival = (
            max(name_score(found.name, other) for other in ROLES.values() if other != role) if role != "basket" else 0
        )
        clear = score == EXACT and ours in IDS and found.kind != "empty"  # in a file of few rows values say little
        if score and score >= rival and found.kind in kinds and (clear or fits(found)):
            scored.append((score, found))
    if not scored:
        return
    best, others = _best(scored)
    word = "named like" if name_score(best.name, role) < EXACT else "named as"
    roles.take(ours, best.name, f"{word} {article(role)}; {numbers(best)}", tuple(other.name for other in others))


def _best(scored: Sequence[tuple[float, Traits]]) -> tuple[Traits, list[Traits]]:
    """The highest score, the first of equals; and the rest."""
    order = sorted(scored, key=lambda pair: -pair[0])
    return order[0][1], [found for _, found in order[1:4]]


def _guess_time(roles: Roles) -> None:
    if TIMESTAMP in roles:
        return
    scored: list[tuple[float, Traits]] = []
    for found in roles.free:
        form, name = found.form, name_score(found.name, "time")
        if form is None:
            continue
        rival = max(name_score(found.name, role) for role in ROLES.values() if role != "time")
        stored = not form.words.startswith("numbers")
        score = (
            name * 2
            - rival * (1 if stored else 2)
            + (3 if stored else 0)
            + form.has_clock
            - 4 * is_of_the_row(found.name)
        )
        varied = (found.unique > 1 or name > 0) and form.days < 365 * 40
        if varied and (name or stored or (rival == 0 and found.unique > 0.05 * len(found.values))):
            scored.append((score, found))
    if not scored:
        return
    best, others = _best(scored)
    assert best.form
    named = name_score(best.name, "time")
    span = f"{best.form.first:%Y-%m-%d} to {best.form.last:%Y-%m-%d}"
    why = f"{'named like a time and ' if named else ''}holds {best.form.words}, {span}"
    roles.take(TIMESTAMP, best.name, why, tuple(other.name for other in others))
    if not best.form.has_clock and best.stored == pl.String:
        clocks = [found for found in roles.free if found.kind == "clock"]
        roles.clock = clocks[0].name if clocks else ""


def _guess_event_type(roles: Roles) -> None:
    if EVENT_TYPE in roles:
        return
    scored = []
    for found in roles.free:
        values = {str(value).lower() for value in found.values.drop_nulls().unique().head(MOST_TYPES + 1)}
        few = 2 <= len(values) <= MOST_TYPES and found.kind in ("text", "integer")
        actions = len(values & ACTIONS) / max(1, len(values))
        if few and (actions >= 0.3 or (name_score(found.name, EVENT_TYPE) and found.kind == "text")):
            scored.append((name_score(found.name, EVENT_TYPE) + 4 * actions, found))
    if scored:
        best, others = _best(scored)
        why = "named like a kind of event" if name_score(best.name, EVENT_TYPE) else "its values are actions"
        roles.take(EVENT_TYPE, best.name, f"{why}; values {best.examples(6)}", tuple(other.name for other in others))


def _ids_by_content(roles: Roles) -> None:
    """Users by bursts, sessions by belonging to one user, items by what is left."""
    if TIMESTAMP in roles and USER_ID not in roles and SESSION_ID not in roles:
        _users_by_bursts(roles)
    owner = next((roles[ours] for ours in (USER_ID, SESSION_ID) if ours in roles), None)
    if ITEM_ID not in roles and owner:
        pool = [found for found in _ids(roles) if not follows(found, owner) or found.each > 50]
        if pool:
            best, others = _best([(found.unique, found) for found in pool])
            why = f"by content: its values come with many of {owner.name}, and no such column has more; {numbers(best)}"
            roles.take(ITEM_ID, best.name, why, tuple(other.name for other in others))


def _ids(roles: Roles) -> list[Traits]:
    """Free columns that may be ids by their values and are not said to be something else by their names."""
    return [found for found in roles.free if found.may_be_id and found.unique > 2 and not says_else(found)]


def _users_by_bursts(roles: Roles) -> None:
    moments = _moments(roles)
    lifts = {found.name: burst_lift(found, moments) for found in _ids(roles)}
    order = sorted(_ids(roles), key=lambda found: -lifts[found.name])
    if not order or lifts[order[0].name] <= LEAST_LIFT:
        return
    best = order[0]
    near = [found for found in order[1:] if lifts[found.name] > NEAR * lifts[best.name]]
    owner = next((found for found in near if follows(best, found) and found.unique < best.unique), None)
    inner = (
        best if owner else next((found for found in near if follows(found, best) and found.unique > best.unique), None)
    )
    user = owner or best
    rest = tuple(found.name for found in order if found not in (user, inner))[:3]
    share = f"{lifts[user.name]:.0%} more rows than by chance come within {BURST_MINUTES} minutes of its last one"
    roles.take(USER_ID, user.name, f"by content: {share}; {numbers(user)}", rest)
    if inner:
        roles.take(SESSION_ID, inner.name, f"by content: each value has one {user.name}; {numbers(inner)}")


def _guess_rest(roles: Roles) -> None:
    _by_name(roles, "price", "price", lambda found: mostly_positive(found), ("integer", "number"))
    item = roles[ITEM_ID]
    if "price" not in roles:
        priced = [
            found for found in roles.free if found.kind == "number" and mostly_positive(found) and is_money(found)
        ]
        priced = [found for found in priced if values_each(item, found) < 3 and not is_score(found)]
        if priced:
            best, others = _best([(found.unique, found) for found in priced])
            why = f"by content: numbers of at most two decimals that nearly follow from {item.name}; such as {best.examples()}"
            roles.take("price", best.name, why, tuple(other.name for other in others))
    for ours in ("category", "brand", "country", "device"):
        _by_name(roles, ours, ours, is_group)
    if "category" not in roles:
        groups = [
            found
            for found in roles.free
            if is_group(found) and not says_else(found) and 2 < found.unique <= item.unique // 3
        ]
        groups = [found for found in groups if follows(item, found)]
        if groups:
            best, others = _best([(found.unique, found) for found in groups])
            why = f"by content: it follows from {item.name}; {numbers(best)}"
            roles.take("category", best.name, why, tuple(other.name for other in others))
    _guess_position(roles)


def _guess_position(roles: Roles) -> None:
    """The order of events, where times do not say it: they are days alone, missing in many rows, or not there."""
    form = roles[TIMESTAMP].form if TIMESTAMP in roles else None
    sparse = TIMESTAMP in roles and roles[TIMESTAMP].nulls > MOST_UNTIMED
    if form is None or sparse or not (form.has_clock or roles.clock):
        _by_name(roles, POSITION, "position", lambda found: found.unique > 1, ("integer",))
    if POSITION in roles and sparse and USER_ID in roles:
        roles.untimed = roles.guesses.pop(TIMESTAMP)


def _check(roles: Roles) -> None:
    """Raise InputError for what is missing, with all columns."""
    ordered = any(name_score(found.name, "position") and found.kind == "integer" for found in roles.free)
    missing = []
    if TIMESTAMP not in roles and not (ordered and USER_ID in roles):
        missing.append((TIMESTAMP, "a time (or the order of each user's events, for --column position=...)"))
    if ITEM_ID not in roles:
        missing.append((ITEM_ID, "an item"))
    if USER_ID not in roles and SESSION_ID not in roles:
        missing.append((USER_ID, "a user or a session"))
    if TIMESTAMP in roles and roles[TIMESTAMP].form is None:
        raise InputError(
            f"--column timestamp={roles[TIMESTAMP].name}: its values are no times in any form that is known, such as "
            f"{roles[TIMESTAMP].examples()}. Name another column, or write times as 2024-05-01 10:00:00 or seconds since 1970."
        )
    if missing:
        seen = "; ".join(f"{found.name} ({found.kind}: {found.examples()})" for found in roles.traits.values())
        what = " and ".join(words for _, words in missing)
        mend = " ".join(f"--column {ours}=NAME" for ours, _ in missing)
        raise InputError(f"No column looks like {what}. Columns: {seen}. Say which it is: {mend}. Nothing was written.")


def _moments(roles: Roles) -> pl.Series:
    found = roles[TIMESTAMP]
    formats = found.form.formats if found.form else ()
    return moments_of(found.values.cast(pl.String) if formats else found.values, formats)
