"""What follows from the roles: types, forms of times, the session rule, what is said about each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import polars as pl

from flows.init.comments import as_yaml
from flows.init.look import Look
from flows.init.roles import Roles
from flows.init.times import TimeForm, moments_of
from flows.init.traits import Traits
from schemas.columns import EVENT_TYPE, ITEM_ID, POSITION, SESSION_ID, TIMESTAMP, USER_ID

ORDER = (
    USER_ID,
    SESSION_ID,
    ITEM_ID,
    TIMESTAMP,
    POSITION,
    EVENT_TYPE,
    "price",
    "category",
    "brand",
    "country",
    "device",
)
NULL_WORDS = ("\\N", "NULL", "null")  # that stand for null anyway in text files
MISSING = 0.05  # share of rows without a user, above which sessions alone are better
LONGEST, MOST_CUT = 200, 0.05  # events of a session; share of events beyond the usual 50 from which so many are read
MOST_AT_ONE_TIME = 0.5  # share of events that have the moment of another of their owner, from which it is said
LONGEST_HOURS = 24.0  # a given session whose events lie further apart is none


@dataclass
class Shape:
    """Everything that the YAML says, but for the guesses themselves."""

    mapped: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    """As YAML, by our name."""
    used: set[str] = field(default_factory=set)
    types: dict[str, tuple[str, str]] = field(default_factory=dict)
    formats: tuple[str, ...] = ()
    format_why: str = ""
    null_words: tuple[str, ...] = ()
    comma: bool = False
    rule: str = "gap"
    rule_option: str = "gap_minutes: 30, "
    session_why: str = ""
    max_length: int = 50
    zone_why: str = ""
    log_price: bool = False
    has_clock: bool = False
    days: int = 0
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What a person should know at once."""


def shape_of(look: Look, roles: Roles) -> Shape:
    """What follows from the roles of columns and from their values."""
    shape = Shape()
    _leave_out_users(roles, shape)
    shape.mapped = [ours for ours in ORDER if ours in roles]
    shape.mapped += [ours for ours in roles.guesses if ours not in ORDER]
    shape.columns = {ours: as_yaml(roles.guesses[ours].column) for ours in shape.mapped}
    shape.used = {roles.guesses[ours].column for ours in shape.mapped}
    found = [roles[ours] for ours in shape.mapped]
    shape.comma = look.is_text and any(traits.comma for traits in found)
    _words_for_null(look, found, shape)
    _of_times(roles, shape)
    shape.types = {ours: _type_of(ours, roles[ours], look.is_text) for ours in shape.mapped}
    _choose_sessions(roles, shape)
    _choose_length(roles, shape)
    shape.log_price = "price" not in roles or bool((roles["price"].values.drop_nulls() >= 0).all())
    shape.warnings += _warnings(look, roles, shape)
    return shape


def _leave_out_users(roles: Roles, shape: Shape) -> None:
    if USER_ID in roles and SESSION_ID in roles and roles[USER_ID].nulls > MISSING > roles[SESSION_ID].nulls:
        guess = roles.guesses.pop(USER_ID)
        share = roles.traits[guess.column].nulls
        shape.notes.append(
            f"Guess: {share:.0%} of the rows have no {guess.column}, which would set them aside, so sessions go without users. "
            f"Else: user_id: {guess.column}."
        )
    if roles.untimed:
        share = roles.traits[roles.untimed.column].nulls
        shape.notes.append(
            f"Guess: {share:.0%} of the rows have no {roles.untimed.column}, so position says the order, without days. "
            f"Else: timestamp: {roles.untimed.column}, in place of position."
        )


def _words_for_null(look: Look, found: list[Traits], shape: Shape) -> None:
    words = sorted({word for traits in found for word in traits.no_values})
    if words:
        shape.null_words = (*(NULL_WORDS if look.is_text else ()), *words)


def _of_times(roles: Roles, shape: Shape) -> None:
    if TIMESTAMP not in roles:
        shape.zone_why = "Where days begin; nothing here has a time."
        return
    found, guess = roles[TIMESTAMP], roles.guesses[TIMESTAMP]
    form = found.form
    assert form is not None
    shape.days, shape.has_clock, shape.formats = form.days, form.has_clock or bool(roles.clock), form.formats
    if roles.clock:
        shape.columns[TIMESTAMP] = _both(guess.column, roles.clock)
        shape.used.add(roles.clock)
        seconds = roles.traits[roles.clock].values.drop_nulls().str.count_matches(":").max() == 2
        shape.formats = tuple(f"{pattern} {'%H:%M:%S' if seconds else '%H:%M'}" for pattern in form.formats)
        shape.notes.append(f"Guess: {roles.clock} holds times of day, so both columns together are the time.")
    elif form.formats and found.stored != pl.String:
        column = guess.column.replace('"', '""')
        shape.columns[TIMESTAMP] = "{sql: 'TRY_CAST(\"" + column.replace("'", "''") + "\" AS VARCHAR)'}"
    swapped = f" AMBIGUOUS: {form.other} reads all of them, too." if form.other else ""
    shape.format_why = f"guess: it reads every value looked at.{swapped}"
    if form.other:
        shape.warnings.append(f"Times of {guess.column} are read as {form.formats[0]}; {form.other} would fit as well.")
    zone = "Moments do not say where days begin" if form.has_zone else "Times say no zone (events.time_zone is theirs)"
    shape.zone_why = f"Guess: {zone}; write your own, such as Europe/Berlin."


def _both(day: str, clock: str) -> str:
    quoted = ['"' + name.replace('"', '""').replace("'", "''") + '"' for name in (day, clock)]
    return "{sql: '" + f"{quoted[0]} || '' '' || {quoted[1]}" + "'}"


def _type_of(ours: str, found: Traits, is_text: bool) -> tuple[str, str]:
    """The type of a column as YAML, and why."""
    if ours == TIMESTAMP:
        form = found.form
        return "time", form.words if form else ""
    if ours in (USER_ID, SESSION_ID, ITEM_ID, EVENT_TYPE):
        if found.stored.is_numeric() and found.kind == "integer":
            return "integer", "as the files have it"
        return "text", "text keeps every digit: 0108 is not 108" if is_text and ours != EVENT_TYPE else ""
    if ours == POSITION:
        return "integer", ""
    if found.kind == "number" or (ours == "price" and found.kind == "integer"):
        odd = f"{found.odd:.1%} of the values are no numbers: their rows stay, without" if found.odd else ""
        return ("{type: float, unfit: null}" if found.odd else "float"), odd
    if found.stored.is_numeric():
        return "integer", "as the files have it"
    return ("boolean" if found.stored == pl.Boolean else "text"), ""


def _choose_sessions(roles: Roles, shape: Shape) -> None:
    if TIMESTAMP not in roles:
        shape.rule, shape.rule_option = "history", ""
        shape.session_why = "Without times, all events of a user are one session."
        return
    if SESSION_ID not in roles:
        shape.session_why = _gap_words(roles, shape)
        return
    found = roles[SESSION_ID]
    hours = _longest_hours(roles)
    if hours <= LONGEST_HOURS and found.each >= 1.2:
        shape.rule, shape.rule_option = "given", ""
        shape.session_why = (
            f"Guess: the files' own sessions, {found.unique:,} of {found.each:.1f} events, 95 % of them within "
            f"{hours:.1f} hours. Else: rule: gap, gap_minutes: 30{', of each user' if USER_ID in roles else ''}."
        )
        return
    shape.session_why = (
        f"Guess: a session ends after 30 minutes without an event; those of {found.name} have {found.each:.1f} events and are "
        f"{hours:.0f} hours long. Else: rule: given."
    )


def _choose_length(roles: Roles, shape: Shape) -> None:
    """Sessions that the files say are kept whole where that is a few times the usual length; what is cut is said."""
    owner = {"given": SESSION_ID, "history": USER_ID if USER_ID in roles else SESSION_ID}.get(shape.rule)
    if owner is None:
        return
    lengths = roles[owner].values.drop_nulls().to_frame("owner").group_by("owner").len()["len"]
    usual, longest = (_beyond(lengths, most) for most in (shape.max_length, LONGEST))
    if usual > MOST_CUT:
        shape.session_why += (
            f" The newest {LONGEST} events of a session are read: {longest:.0%} of the events lie beyond, of "
            f"{shape.max_length} it were {usual:.0%}."
        )
        shape.max_length = LONGEST


def _beyond(lengths: pl.Series, most: int) -> float:
    """The share of events that sessions of these lengths lose when only so many are kept of each."""
    counts = lengths.cast(pl.Int64)
    return float((counts - most).clip(lower_bound=0).sum()) / max(1, int(counts.sum()))


def _gap_words(roles: Roles, shape: Shape) -> str:
    """The gap, and how much of the events is in sessions of two events and more."""
    share = _in_sessions(roles, 30)
    words = (
        f"Guess: a session ends after 30 minutes without an event; {share:.0%} of the events are in one of two or more."
    )
    if share >= 0.3:
        return words
    for minutes, name in ((720, "12 hours"), (1440, "a day"), (10_080, "a week")):
        longer = _in_sessions(roles, minutes)
        if longer >= 0.3 and longer > 1.5 * share:
            shape.rule_option = f"gap_minutes: {minutes}, "
            return (
                f"Guess: a session ends after {name} without an event: {longer:.0%} of the events are in sessions of two and "
                f"more; with 30 minutes it were {share:.0%}."
            )
    shape.warnings.append(
        f"Only {share:.0%} of the events come within 30 minutes of another of their user: most sessions have one event."
    )
    return words


def _timed(roles: Roles, ours: str) -> pl.DataFrame:
    found: TimeForm | None = roles[TIMESTAMP].form
    values = roles[TIMESTAMP].values
    if found and found.formats:
        values = values.cast(pl.String)
    moments = moments_of(values, found.formats if found else ())
    return pl.DataFrame({"owner": roles[ours].values, "at": moments}).drop_nulls()


def _at_one_time(roles: Roles, ours: str) -> float:
    """The share of events with the moment of another of their owner."""
    rows = _timed(roles, ours)
    return float(rows.select(pl.struct("owner", "at").is_duplicated().mean()).item() or 0)


def _in_sessions(roles: Roles, minutes: int) -> float:
    rows = _timed(roles, USER_ID).sort("owner", "at")
    same = pl.col("owner") == pl.col("owner").shift(1)
    near = same & (pl.col("at") - pl.col("at").shift(1) <= pl.duration(minutes=minutes))
    rows = rows.select(near.fill_null(False).alias("joined"))
    return float(rows.select((pl.col("joined") | pl.col("joined").shift(-1, fill_value=False)).mean()).item() or 0)


def _longest_hours(roles: Roles) -> float:
    spans = _timed(roles, SESSION_ID).group_by("owner").agg((pl.col("at").max() - pl.col("at").min()).alias("span"))
    return float(spans["span"].dt.total_seconds().quantile(0.95) or 0) / 3600


def _warnings(look: Look, roles: Roles, shape: Shape) -> Iterator[str]:
    for ours in (USER_ID, SESSION_ID, ITEM_ID, TIMESTAMP):
        if ours in roles and (missing := roles[ours].values.null_count()):
            yield f"{missing:,} of {look.rows.height:,} rows have no {roles[ours].name}: they go to quarantine."
    if TIMESTAMP in roles and (form := roles[TIMESTAMP].form) and form.share < 1:
        yield f"{1 - form.share:.2%} of the times cannot be read or lie outside 1990 to now."
    if shape.rule != "history" and shape.days < 3 and look.whole:
        yield f"The events span {shape.days} {'day' if shape.days == 1 else 'days'}; a night trains on days before the last."
    if TIMESTAMP in roles and shape.has_clock and POSITION not in roles:
        whose, word = (SESSION_ID, "session") if shape.rule == "given" else (USER_ID, "user")
        if whose in roles and (share := _at_one_time(roles, whose)) >= MOST_AT_ONE_TIME:
            yield (
                f"{share:.0%} of the events have the same {roles[TIMESTAMP].name} as another of their {word}: the files do not "
                f"say in which order they happened, and they are read in order of {roles[ITEM_ID].name}. Where a column "
                "numbers them, name it: --column position=NAME."
            )
    if TIMESTAMP in roles and not shape.has_clock:
        order = "position's" if POSITION in roles else "none"
        yield f"{roles[TIMESTAMP].name} holds days alone: the order of a day's events is {order}."
