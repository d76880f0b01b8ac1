"""A small shop that never sleeps: synthetic events for the demo and the tests.

    simulate(Shop(days=14, users=2_000), Path("shop"))  # shop/events/2026-03-02.parquet ..., shop/items.parquet

What a sequence model can learn here and popularity cannot: every session has a hidden intent, a room being furnished.
Intent and current item's category say which category comes next, the item's brand which few items of that category.
One step back leaves the intent open, several give it away; a new item behaves as its category and brand do.

Every random draw is keyed by (seed, purpose, day), so a longer simulation repeats the days of a shorter one exactly.
"""

from __future__ import annotations

import os
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from schemas.columns import EVENT_TYPE, ITEM_ID, TIMESTAMP, USER_ID
from schemas.errors import InputError

CATEGORIES = (
    "lamp", "chair", "table", "sofa", "shelf", "rug", "mirror", "clock", "vase", "candle", "pillow", "blanket",
    "pan", "knife", "mug", "kettle", "toaster", "bowl", "plant", "pot", "towel", "basket", "frame", "desk",
)  # fmt: skip
_STEMS = ("Nord", "Alba", "Mira", "Tern", "Kova", "Lumo", "Fenn", "Oslo", "Rika", "Soma")
BRANDS = [stem + end for stem in _STEMS for end in ("wood", "line", "haus", "craft", "works", "mill")]
EVENT_TYPES = ("view", "cart", "purchase")
GOES_FURTHER = np.array([0.05, 0.4, 0.0])  # from a view to a cart, from a cart to a purchase, of the same item
# Share of sessions begun in each hour: nearly nobody at four, a bump at lunch, most after dinner.
HOURS = np.array([8, 4, 2, 1, 1, 2, 5, 10, 14, 16, 17, 20, 25, 22, 18, 17, 18, 22, 27, 33, 36, 33, 25, 15], float)
WEEKDAYS = np.array([0.96, 0.93, 0.92, 0.94, 0.99, 1.12, 1.14])  # Monday first
TASTE = np.array([0.5, 0.25, 0.15, 0.1])  # how a user's jumps divide over their favourite categories
NUM_INTENTS, ROOM_SIZE, NUM_SUCCESSORS = 8, 6, 4
MEAN_LENGTH, MAX_LENGTH = 6, 30
SECOND = 1_000_000  # timestamps are microseconds
DAY = 86_400 * SECOND
FAR_FUTURE = datetime(2100, 1, 1)
COLUMNS_OF_ITEMS = [ITEM_ID, "category", "brand", "price", "first_day"]
MARK = ".simulated"  # a file in folders of this module's own
DIRT = ("null_user", "null_item", "null_timestamp", "future_timestamp", "unknown_item", "duplicate")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Shop(BaseModel):
    """What to simulate. The same shop gives the same bytes; one more day leaves the earlier days as they were."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: int = Field(14, ge=1, le=3_650, description="Calendar days of events.")
    users: int = Field(2_000, ge=1, le=10_000_000, description="People who may come, some often, some hardly ever.")
    seed: int = Field(7, ge=0, description="Another seed is another shop.")
    start: date = Field(date(2026, 3, 2), le=date(2089, 1, 1), description="First day, in UTC.")
    sessions_per_user: float = Field(0.85, gt=0, le=10, description="Mean visits of a user on an average day.")
    items: int = Field(1_500, ge=100, le=1_000_000, description="Items on sale on the first day.")
    share_new: float = Field(0.01, ge=0, le=0.5, description="Items added each day, as a share of `items`.")
    share_retired: float = Field(0.01, ge=0, le=0.5, description="Chance of an item to be taken off sale, each night.")
    share_followed: float = Field(0.65, ge=0, le=1, description="Steps to a hidden successor; others jump by taste.")
    share_dirty: float = Field(0.004, ge=0, le=0.5, description="Rows spoiled on purpose, six kinds in equal parts.")


def simulate(shop: Shop, out: Path) -> dict[str, Any]:
    """Write `out/events/YYYY-MM-DD.parquet`, one file a day in log order, and `out/items.parquet`.

    Files of an earlier simulation are replaced: dated event files outside the shop's days are removed.

    Returns:
        events (rows written, dirty ones included), users (seen), items, days, dirty (rows by kind), seconds.

    Raises:
        InputError: where `out` is a file, or holds events or items that are not of a simulation.
    """
    began = time.perf_counter()
    folder = _own_folder(out)
    world, items = _world(shop), _catalogue(shop)
    # Items before events: a reader that comes in between never meets an event whose item is missing.
    _write(items.select(COLUMNS_OF_ITEMS), out / "items.parquet")

    dirty, num_events, seen = dict.fromkeys(DIRT, 0), 0, np.zeros(shop.users, bool)
    going_on: list[pl.DataFrame] = []  # sessions over midnight go on in the next day's log
    for day in range(shop.days):
        walked = pl.concat([*going_on, _walk(shop, world, _shelf(items, day), day)]).sort("time", maintain_order=True)
        before_midnight = pl.col("time") < (day + 1) * DAY
        today, going_on = walked.filter(before_midnight), [walked.filter(~before_midnight)]
        events, kinds = _spoil(shop, _readable(shop, today, items, day), day)
        _write(events, folder / f"{shop.start + timedelta(days=day)}.parquet")
        num_events += events.height
        seen[today["user"].to_numpy()] = True
        dirty = {kind: dirty[kind] + count for kind, count in kinds.items()}
    for path in folder.glob("????-??-??.parquet"):
        if not str(shop.start) <= path.stem < str(shop.start + timedelta(days=shop.days)):
            path.unlink()  # left by a longer simulation, or one of other days: another shop's events
    counts = {"events": num_events, "users": int(seen.sum()), "items": items.height, "days": shop.days}
    return {**counts, "dirty": dirty, "seconds": round(time.perf_counter() - began, 3)}


def _own_folder(out: Path) -> Path:
    """The folder of events in one that this module alone writes into."""
    folder, mark = out / "events", out / MARK
    if (folder.exists() or (out / "items.parquet").exists()) and not (mark.is_file() or _is_older(out)):
        raise InputError(
            f"--out {out}: there are events or items that `overnight simulate` did not write, and it would replace them. Name "
            "another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise InputError(
            f"--out {out}: not a folder, and none can be made there ({error.strerror}). Name another."
        ) from None
    return folder


def _is_older(out: Path) -> bool:
    """Whether the items are those of a simulation before folders were marked."""
    try:
        return list(pl.read_parquet_schema(out / "items.parquet")) == COLUMNS_OF_ITEMS
    except (OSError, pl.exceptions.PolarsError):
        return False


class World(NamedTuple):
    """What never changes: people's habits and the rules of what goes with what."""

    activity: Floats  # [users] mean 1
    taste: Ints  # [users, 4] favourite categories, the dearest first
    next_category: Ints  # [categories, intents]


class Shelf(NamedTuple):
    """One day's items on sale, sorted by category and style; style is a place on a ring of length one."""

    item: Ints  # catalogue index of each place
    key: Floats  # category + style, ascending
    appeal: Floats  # log of the Zipf weight of each place
    mass: Floats  # running sum of the Zipf weights, a zero in front
    edge: Ints  # [categories + 1] first place of each category
    catalogue_category: Ints
    catalogue_style: Floats


def _rng(shop: Shop, purpose: str, day: int = 0) -> np.random.Generator:
    return np.random.default_rng([shop.seed, int.from_bytes(purpose.encode()), day])


def _world(shop: Shop) -> World:
    num = len(CATEGORIES)
    fame = 1 / np.arange(1, num + 1) ** 0.5
    activity = _rng(shop, "activity").gamma(1.5, 1 / 1.5, shop.users)
    taste = _rng(shop, "taste").choice(num, (shop.users, len(TASTE)), p=fame / fame.sum())
    # The first few categories of an order are the intent's room: a ring inside it, and a way in from everywhere else.
    order = _rng(shop, "rooms").permuted(np.tile(np.arange(num), (NUM_INTENTS, 1)), axis=1).T
    next_category = np.empty_like(order)
    np.put_along_axis(next_category, order, order[np.arange(1, num + 1) % ROOM_SIZE], axis=0)
    return World(activity, taste, next_category)


def _catalogue(shop: Shop) -> pl.DataFrame:
    """All items up to the last day, in order of arrival, with what items.parquet does not tell."""
    return pl.concat([_arrivals(shop, day) for day in range(shop.days)]).with_columns(
        (pl.col("category") + "-" + pl.int_range(pl.len()).cast(pl.String).str.zfill(4)).alias(ITEM_ID)
    )


def _arrivals(shop: Shop, day: int) -> pl.DataFrame:
    levels = _rng(shop, "prices").lognormal(0, 0.5, len(CATEGORIES) + len(BRANDS))
    rng = _rng(shop, "items", day)
    num = int(rng.poisson(shop.items * shop.share_new)) if day else shop.items
    category, brand = rng.integers(len(CATEGORIES), size=num), rng.integers(len(BRANDS), size=num)
    until = day + rng.geometric(max(shop.share_retired, 1e-12), num)
    age = rng.integers(1, 365, num)
    if day == 0:  # one staple in each category is never retired, so that no part of the shelf runs empty
        category[: len(CATEGORIES)], until[: len(CATEGORIES)] = range(len(CATEGORIES)), shop.days
    return pl.DataFrame(
        {
            "category": pl.Series(CATEGORIES).gather(category),
            "brand": pl.Series(BRANDS).gather(brand),
            "price": np.round(40 * levels[category] * levels[brand - len(BRANDS)] * rng.lognormal(0, 0.25, num), 2),
            "first_day": np.datetime64(shop.start) + (np.full(num, day) if day else -age),
            "category_index": category,
            "style": (brand / len(BRANDS) + rng.normal(0, 0.006, num)) % 1,
            "appeal": rng.random(num),
            "from": np.full(num, day),
            "until": until,
        }
    )


def _shelf(items: pl.DataFrame, day: int) -> Shelf:
    category, style = items["category_index"].to_numpy(), items["style"].to_numpy()
    on_sale = np.flatnonzero((items["from"].to_numpy() <= day) & (day < items["until"].to_numpy()))
    place = on_sale[np.argsort(category[on_sale] + style[on_sale], kind="stable")]
    rank = np.argsort(np.argsort(-items["appeal"].to_numpy()[place])) + 1
    edge = np.searchsorted(category[place], np.arange(len(CATEGORIES) + 1))
    mass = np.concatenate([[0.0], np.cumsum(1 / rank)])
    return Shelf(place, category[place] + style[place], -np.log(rank), mass, edge, category, style)


def _walk(shop: Shop, world: World, shelf: Shelf, day: int) -> pl.DataFrame:
    """The events of all sessions begun on a day, as indices; `time` is microseconds since the shop opened."""
    rng = _rng(shop, "walk", day)
    user, now = _visits(shop, world, day)
    # Longest first: the sessions still going on at a step are then a prefix, and nothing is drawn for the ended ones.
    length = -np.sort(-np.minimum(1 + rng.geometric(1 / (MEAN_LENGTH - 1), user.size), MAX_LENGTH))
    intent = rng.integers(NUM_INTENTS, size=user.size)
    item, action = _jump(world, shelf, user, rng), np.zeros(user.size, np.int64)
    steps = []
    for step in range(1, MAX_LENGTH + 1):
        steps.append((user, item, action, now))
        going = int(np.count_nonzero(length > step))
        user, item, action, now, intent = (column[:going] for column in (user, item, action, now, intent))
        follows, further = rng.random(going) < shop.share_followed, rng.random(going) < GOES_FURTHER[action]
        moved = np.where(follows, _follow(world, shelf, item, intent, rng), _jump(world, shelf, user, rng))
        item, action = np.where(further, item, moved), np.where(further, action + 1, 0)
        # Mean 90 s; the cap keeps every gap well below the 30 minutes that end a session.
        now = now + SECOND + (np.minimum(rng.exponential(89, going), 1_200) * SECOND).astype(np.int64)
    names = ("user", "item", "action", "time")
    return pl.DataFrame(dict(zip(names, map(np.concatenate, zip(*steps, strict=True)), strict=True)))


def _visits(shop: Shop, world: World, day: int) -> tuple[Ints, Ints]:
    """Who comes when: user and first moment of each session of the day, in random order."""
    rng = _rng(shop, "visits", day)
    weekday = WEEKDAYS[(shop.start.weekday() + day) % 7]
    user = np.repeat(np.arange(shop.users), rng.poisson(world.activity * shop.sessions_per_user * weekday))
    hour = rng.choice(24, user.size, p=HOURS / HOURS.sum())
    start = day * DAY + ((hour + rng.random(user.size)) * 3_600 * SECOND).astype(np.int64)
    order = np.lexsort((start, user))
    user, start = user[order], start[order]
    # Two visits within 75 minutes would run into one session; the later one does not take place.
    apart = (np.diff(user, prepend=-1) > 0) | (np.diff(start, prepend=0) > 75 * 60 * SECOND)
    order = rng.permutation(np.flatnonzero(apart))
    return user[order], start[order]


def _jump(world: World, shelf: Shelf, user: Ints, rng: np.random.Generator) -> Ints:
    """An item by taste and Zipf popularity: one jump in ten to any category, the others to the user's own."""
    favourite = np.searchsorted(np.cumsum(TASTE)[:-1], rng.random(user.size), side="right")
    anything = rng.integers(len(CATEGORIES), size=user.size)
    category = np.where(rng.random(user.size) < 0.1, anything, world.taste[user, favourite])
    low, high = shelf.edge[category], shelf.edge[category + 1]
    mass = shelf.mass[low] + rng.random(user.size) * (shelf.mass[high] - shelf.mass[low])
    return shelf.item.take(np.clip(np.searchsorted(shelf.mass, mass, side="right") - 1, low, high - 1))


def _follow(world: World, shelf: Shelf, item: Ints, intent: Ints, rng: np.random.Generator) -> Ints:
    """A hidden successor: one of the items nearest in style in the intent's next category, by popularity."""
    category = shelf.catalogue_category[item]
    target = world.next_category[category, intent]
    low, high = shelf.edge[target], shelf.edge[target + 1]
    first = np.searchsorted(shelf.key, target + shelf.catalogue_style[item]) - low - NUM_SUCCESSORS // 2
    near = low + (first + np.arange(NUM_SUCCESSORS)[:, None]) % (high - low)
    # Adding Gumbel noise to log weights and taking the largest draws with these weights.
    score = 0.5 * shelf.appeal[near] + rng.gumbel(size=near.shape)
    score[shelf.item[near] == item] = -np.inf
    return shelf.item.take(near[score.argmax(0), np.arange(item.size)])


def _readable(shop: Shop, walked: pl.DataFrame, items: pl.DataFrame, day: int) -> pl.DataFrame:
    """Indices to what a shop's log holds, with the day's prices: a few per cent around the catalogue's."""
    # Drawn in order of arrival, so that items of later days do not move the prices of the earlier ones.
    today = np.round(items["price"].to_numpy() * (1 + 0.02 * _rng(shop, "drift", day).standard_normal(items.height)), 2)
    return walked.select(
        ("u" + pl.col("user").cast(pl.String).str.zfill(6)).alias(USER_ID),
        items[ITEM_ID].gather(walked["item"]),
        (datetime.combine(shop.start, datetime.min.time()) + pl.duration(microseconds="time")).alias(TIMESTAMP),
        pl.Series(EVENT_TYPE, EVENT_TYPES).gather(walked["action"]),
        pl.Series("price", today).gather(walked["item"]),
    )


def _spoil(shop: Shop, events: pl.DataFrame, day: int) -> tuple[pl.DataFrame, dict[str, int]]:
    """What real logs have: some rows with one fault each, left where they stand; a duplicate follows its original."""
    rng = _rng(shop, "dirt", day)
    rows = rng.choice(events.height, round(events.height * shop.share_dirty), replace=False)
    kind = np.full(events.height, "clean", dtype="U16")
    turns = np.roll(DIRT, rng.integers(len(DIRT)))  # begun anywhere: a shop with few rows a day gets every kind in time
    kind[rows] = np.resize(turns, rows.size)
    fault, ghost = pl.Series(kind), "ghost-" + pl.Series(rng.integers(100, size=events.height)).cast(pl.String)
    item = pl.when(fault != "null_item").then(ITEM_ID)
    moment = pl.when(fault != "null_timestamp").then(TIMESTAMP)
    spoiled = events.with_columns(
        pl.when(fault != "null_user").then(USER_ID),
        pl.when(fault == "unknown_item").then(ghost).otherwise(item).alias(ITEM_ID),
        pl.when(fault == "future_timestamp").then(FAR_FUTURE).otherwise(moment).alias(TIMESTAMP),
    )
    copies = np.repeat(np.arange(events.height), 1 + (kind == "duplicate"))
    return spoiled[copies], {name: int((kind == name).sum()) for name in DIRT}


def _write(frame: pl.DataFrame, path: Path) -> None:
    """Write beside the final name, then rename: a crash leaves the old file or the new one, never half of one."""
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("wb") as file:
        frame.write_parquet(file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
