"""The YAML of a dataset from guessed roles: every guess with why, and what else it could be.

Lines are written by hand rather than dumped, because the comments are what the file is for.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from flows.init.comments import as_yaml, comment_lines, with_comment
from flows.init.look import Look
from flows.init.roles import Roles
from flows.init.shape import Shape
from flows.init.tables import Items, Tables, lines_of
from flows.init.traits import Traits
from schemas.columns import EVENT_TYPE, ITEM_ID

NOT_WANTED = (
    "remove",
    "cancel",
    "return",
    "refund",
    "storno",
    "delete",
    "adjust",
    "dislike",
    "unlike",
    "retour",
    "anul",
    "取消",
    "退",
)
UNUSED = 20  # columns that are listed as not used


def describe(name: str, tables: Tables, shape: Shape) -> str:
    """The text of `NAME.yaml`."""
    look, roles, items = tables.events, tables.roles, tables.items
    lines = [
        *_head(name, look, shape),
        "",
        *_events(look, roles, shape),
        "",
        *_items(items, tables.unused),
        *_rest(roles, shape, items),
    ]
    return "\n".join(lines) + "\n"


def _head(name: str, look: Look, shape: Shape) -> Iterator[str]:
    yield from comment_lines(
        f"Written by `overnight init` after a look at {look.extent}. Guesses say why they were made and what else it could be. "
        "Change what is wrong: this file is yours, and `overnight init` never writes to it again."
    )
    yield with_comment(f"name: {name}", "names the model in service")
    yield with_comment("plugins: plugins", "the folder of your own steps, checks, encoders, models")
    yield with_comment(
        f"source: {as_yaml(look.source)}", "where the files are; --source and OVERNIGHT_SOURCE go before it"
    )
    yield from comment_lines(shape.zone_why)
    yield "time_zone: UTC"


def _events(look: Look, roles: Roles, shape: Shape) -> Iterator[str]:
    yield "events:"
    yield with_comment(f"  path: {as_yaml(look.path)}", "below the source: a file, a folder or a glob")
    for option in ("format", "separator", "header", "encoding"):
        if option in look.notes:
            yield with_comment(f"  {option}: {as_yaml(getattr(look.options, option))}", f"guess: {look.notes[option]}")
    if shape.comma:
        yield with_comment('  decimal: ","', "guess: numbers are written like 1.250,50")
    if shape.null_words:
        yield with_comment(f"  null_words: {as_yaml(list(shape.null_words))}", "guess: what stands for no value")
    yield with_comment("  columns:", "our name: the column of the files")
    for ours in shape.mapped:
        guess = roles.guesses[ours]
        other = f" Else: {', '.join(guess.alternatives)}." if guess.alternatives else ""
        yield from comment_lines(f"{ours}: guess, {guess.why}.{other}", "    ")
        yield f"    {ours}: {shape.columns[ours]}"
    for note in shape.notes:
        yield from comment_lines(note, "    ")
    yield from comment_lines(_unused(roles, shape), "    ")
    yield with_comment("  types:", "declared, so that no night decides them; rows that do not fit are set aside")
    for ours in shape.mapped:
        declared, why = shape.types[ours]
        yield with_comment(f"    {ours}: {declared}", why)
    if shape.formats:
        yield with_comment(f"  time_format: {as_yaml(shape.formats[0])}", shape.format_why)


def _unused(roles: Roles, shape: Shape) -> str:
    unused = [found for found in roles.traits.values() if found.name not in shape.used]
    listed = "; ".join(f"{found.name} ({found.kind}: {found.examples(2)})" for found in unused[:UNUSED])
    more = f" and {len(unused) - UNUSED} more" if len(unused) > UNUSED else ""
    return f"Not used: {listed}{more}." if unused else ""


def _items(items: Items | None, unused: tuple[str, ...]) -> Iterator[str]:
    if unused:
        yield from comment_lines(
            f"Not used: {'; '.join(unused)}. What a table says of items is named under `items:` (path, columns) and brought to "
            "the events by the step join_items, or looked at by `serving.rules`."
        )
    if items:
        yield from comment_lines(f"Guess: {items.look.path} has a row for each item. It is read anew every night.")
        yield from lines_of(items)
        yield ""


def _rest(roles: Roles, shape: Shape, items: Items | None) -> Iterator[str]:
    yield with_comment(
        "steps:", "in this order; `overnight steps` lists all, `overnight new step NAME` begins one of yours"
    )
    if EVENT_TYPE in shape.mapped:
        yield from _types_kept(roles[EVENT_TYPE])
    if items:
        yield f"  - join_items: {{columns: {as_yaml(items.features)}}}"
    yield with_comment("  - drop_repeats", "the same item again in a row")
    yield ""
    yield from comment_lines(shape.session_why)
    yield f"sessions: {{rule: {shape.rule}, {shape.rule_option}min_length: 2, max_length: {shape.max_length}}}"
    if shape.rule == "history":
        yield with_comment("split: leave_one_out", "without times, the last item of each user is the test")
    yield ""
    yield with_comment("features:", "what the model reads of an event; the item itself is one")
    item = roles[ITEM_ID]
    rare = ", min_count: 3" if item.each >= 10 else ""
    yield with_comment(f"  item_id: {{encode: category{rare}}}", "rarer items are unknown to the model" if rare else "")
    for ours in [*shape.mapped, *(items.features if items else [])]:
        if ours in (EVENT_TYPE, "category", "brand", "country", "device"):
            yield f"  {ours}: {{encode: category}}"
        if ours == "price":
            yield f"  price: {{encode: {'[log1p, standardize]' if shape.log_price else 'standardize'}}}"
    if shape.has_clock:
        yield with_comment("  hour: {column: timestamp, encode: hour}", "in time_zone")


def _types_kept(types: Traits) -> Iterator[str]:
    counts = types.values.drop_nulls().value_counts(sort=True)
    seen = {row[types.name]: row["count"] for row in counts.to_dicts()}
    kept = [value for value in seen if not any(word in str(value).lower() for word in NOT_WANTED)] or list(seen)
    listed = ", ".join(f"{value} {count:,}" for value, count in seen.items())
    left = [str(value) for value in seen if value not in kept]
    why = (
        f" Guess: {', '.join(left)} {'takes' if len(left) == 1 else 'take'} something back, and left out."
        if left
        else ""
    )
    yield from comment_lines(f"Seen: {listed}.{why}", "  ")
    as_text = types.stored == pl.String
    yield f"  - filter_event_types: {{keep: {as_yaml([str(value) if as_text else value for value in kept])}}}"
