"""Which column is the user, the item, the time, ...: by what columns are called, and by what their values are like.

Names come first; what no name says follows from the values:

- times are in a form of times;
- a user's rows come in bursts: more of them within half an hour of the one before than if the rows were dealt out by chance;
- a session belongs to one user, an item to many;
- a category follows from the item, a price nearly so.

Every guess says why it was made and what else it could have been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl

from flows.init.times import moments_of
from flows.init.traits import Traits
from flows.init.words import EXACT, is_of_the_row, name_score
from schemas.columns import EVENT_TYPE, ITEM_ID, POSITION, SESSION_ID, TIMESTAMP, USER_ID
from schemas.errors import InputError, unknown

BURST_MINUTES = 30
MOST_UNTIMED = 0.2  # share of rows without a time, above which the order of events goes before times
MOST_TYPES = 50  # kinds of events; more are not kinds
ACTIONS = frozenset(
    "view click cart purchase buy buying pv fav play like pageview page_view addtocart add_to_cart view_item detail order impression "
    "transaction skip rating search ansicht klick kauf warenkorb gekauft angesehen vue clic achat panier vista compra carrito "
    "ver clic comprar 浏览 点击 购买 加购 收藏 view_item_list remove_from_cart checkout listen watch share".split()
)
ROLES = {TIMESTAMP: "time", USER_ID: "user", ITEM_ID: "item", SESSION_ID: "session", EVENT_TYPE: "event_type", "price": "price"}
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
        rival = max(name_score(found.name, other) for other in ROLES.values() if other != role) if role != "basket" else 0
        if score and score >= rival and found.kind in kinds and fits(found):
            scored.append((score, found))
    if not scored:
        return
    best, others = _best(scored)
    word = "named like" if name_score(best.name, role) < EXACT else "named as"
    roles.take(ours, best.name, f"{word} {_article(role)}; {_numbers(best)}", tuple(other.name for other in others))


def _best(scored: list[tuple[float, Traits]]) -> tuple[Traits, list[Traits]]:
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
        score = name * 2 - rival * (1 if stored else 2) + (3 if stored else 0) + form.has_clock - 4 * is_of_the_row(found.name)
        varied = found.unique > 1 and form.days < 365 * 40
        if varied and (name or stored or (rival == 0 and found.unique > 0.05 * len(found.values))):
            scored.append((score, found))
    if not scored:
        return
    best, others = _best(scored)
    assert best.form
    named = name_score(best.name, "time")
    why = f"{'named like a time and ' if named else ''}holds {best.form.words}, {best.form.first:%Y-%m-%d} to {best.form.last:%Y-%m-%d}"
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
    if TIMESTAMP not in roles:
        return
    pool = [found for found in roles.free if found.may_be_id and found.unique > 2 and not _says_else(found)]
    if USER_ID not in roles and SESSION_ID not in roles and pool:
        moments = _moments(roles)
        lifts = {found.name: _burst_lift(found, moments) for found in pool}
        order = sorted(pool, key=lambda found: -lifts[found.name])
        best = order[0]
        if lifts[best.name] > 0.1:
            near = [found for found in order[1:] if lifts[found.name] > 0.6 * lifts[best.name]]
            owner = next((found for found in near if _follows(best, found) and found.unique > 1), None)
            session = next((found for found in near if _follows(found, best) and found.unique > best.unique), None)
            user, inner = (owner, best) if owner and owner.unique < best.unique else (best, session)
            share = f"{lifts[user.name]:.0%} more of its rows than by chance come within {BURST_MINUTES} minutes of the one before"
            others = tuple(found.name for found in order if found not in (user, inner))[:3]
            roles.take(USER_ID, user.name, f"by content: {share}; {_numbers(user)}", others)
            if inner:
                roles.take(SESSION_ID, inner.name, f"by content: each value has one {user.name}; {_numbers(inner)}")
    if ITEM_ID not in roles:
        owner_column = USER_ID if USER_ID in roles else SESSION_ID
        if owner_column not in roles:
            return
        owner = roles[owner_column]
        pool = [found for found in roles.free if found.may_be_id and found.unique > 2 and not _says_else(found)]
        pool = [found for found in pool if not _follows(found, owner) or found.each > 50]
        if pool:
            best, others = _best([(found.unique, found) for found in pool])
            why = f"by content: of the columns whose values come with many of {owner.name} the one with most values; {_numbers(best)}"
            roles.take(ITEM_ID, best.name, why, tuple(other.name for other in others))


def _guess_rest(roles: Roles) -> None:
    _by_name(roles, "price", "price", lambda found: _mostly_positive(found), ("integer", "number"))
    item = roles[ITEM_ID]
    if "price" not in roles:
        priced = [found for found in roles.free if found.kind == "number" and _mostly_positive(found) and _is_money(found)]
        priced = [found for found in priced if _values_each(item, found) < 3 and not _is_score(found)]
        if priced:
            best, others = _best([(found.unique, found) for found in priced])
            why = f"by content: numbers of at most two decimals that nearly follow from {item.name}; such as {best.examples()}"
            roles.take("price", best.name, why, tuple(other.name for other in others))
    for ours in ("category", "brand", "country", "device"):
        _by_name(roles, ours, ours, _is_group)
    if "category" not in roles:
        groups = [found for found in roles.free if _is_group(found) and not _says_else(found) and found.unique * 3 <= item.unique]
        groups = [found for found in groups if found.unique > 2 and _follows(item, found)]
        if groups:
            best, others = _best([(found.unique, found) for found in groups])
            why = f"by content: it follows from {item.name}; {_numbers(best)}"
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


def _burst_lift(found: Traits, moments: pl.Series) -> float:
    """By how much the share of rows that come soon after another of the same value is above that of values dealt by chance."""
    rows = pl.DataFrame({"value": found.values, "at": moments}).drop_nulls().head(100_000).sort("at", maintain_order=True)
    if rows.height < 3:
        return 0.0
    dealt = rows.with_columns(pl.col("value").shuffle(seed=1))
    real, chance = (_soon(table) for table in (rows, dealt))
    return real - chance


def _soon(rows: pl.DataFrame) -> float:
    gap = pl.col("at") - pl.col("at").shift(1).over("value")
    return float(rows.select((gap <= pl.duration(minutes=BURST_MINUTES)).fill_null(False).mean()).item())


def _follows(one: Traits, other: Traits) -> bool:
    """Whether each value of the first comes with one value of the other, up to a few."""
    return _values_each(one, other) < 1.02


def _values_each(one: Traits, other: Traits) -> float:
    pairs = pl.DataFrame({"one": one.values, "other": other.values}).drop_nulls()
    return pairs.n_unique() / max(1, pairs["one"].n_unique())


def _mostly_positive(found: Traits) -> bool:
    return float((found.values.drop_nulls() >= 0).mean() or 0) > 0.9 and found.unique > 2  # type: ignore[arg-type]


def _is_money(found: Traits) -> bool:
    cents = found.values.drop_nulls().cast(pl.Float64) * 100
    return bool(((cents - cents.round()).abs() < 1e-6).mean() > 0.99)  # type: ignore[operator]


def _is_score(found: Traits) -> bool:
    """Named or spread like ratings and shares."""
    words = ("rating", "score", "stars", "note", "bewertung", "lat", "lon", "lng", "puntuacion", "评分", "discount", "rabatt")
    return any(word in found.name.lower() for word in words) or float(found.values.max() or 0) <= 1.0  # type: ignore[arg-type]


def _is_group(found: Traits) -> bool:
    return found.kind in ("text", "integer") and 2 <= found.unique <= min(100_000, len(found.values) // 3)


def _says_else(found: Traits) -> bool:
    """Whether the name says that it is no id: a category, a price, an order."""
    return any(name_score(found.name, role) for role in ("category", "brand", "country", "device", "price", "position", "event_type"))


def _article(role: str) -> str:
    return {"basket": "an order or basket, which is taken for a session", "item": "an item"}.get(role, f"a {role}")


def _numbers(found: Traits) -> str:
    return f"{found.unique:,} values, {found.each:.1f} rows each"
