"""What the values of columns say together: bursts, what follows from what, what may be money or a group."""

from __future__ import annotations

import polars as pl

from flows.init.traits import Traits
from flows.init.words import name_score

BURST_MINUTES = 30
ACTIONS = frozenset(
    {"view", "click", "cart", "purchase", "buy", "buying", "pv", "fav", "play", "like", "pageview", "page_view"}
)
ACTIONS |= {
    "addtocart",
    "add_to_cart",
    "remove_from_cart",
    "view_item",
    "view_item_list",
    "detail",
    "order",
    "impression",
}
ACTIONS |= {"transaction", "checkout", "skip", "rating", "search", "listen", "watch", "share"}
ACTIONS |= {"ansicht", "klick", "kauf", "warenkorb", "gekauft", "angesehen", "vue", "clic", "achat", "panier"}
ACTIONS |= {"vista", "compra", "carrito", "ver", "comprar", "浏览", "点击", "购买", "加购", "收藏"}


def burst_lift(found: Traits, moments: pl.Series) -> float:
    """By how much the share of rows that come soon after another of the same value is above that of values dealt by chance."""
    rows = (
        pl.DataFrame({"value": found.values, "at": moments}).drop_nulls().head(100_000).sort("at", maintain_order=True)
    )
    if rows.height < 3:
        return 0.0
    dealt = rows.with_columns(pl.col("value").shuffle(seed=1))
    real, chance = (_soon(table) for table in (rows, dealt))
    return real - chance


def _soon(rows: pl.DataFrame) -> float:
    gap = pl.col("at") - pl.col("at").shift(1).over("value")
    return float(rows.select((gap <= pl.duration(minutes=BURST_MINUTES)).fill_null(False).mean()).item())


def follows(one: Traits, other: Traits) -> bool:
    """Whether each value of the first comes with one value of the other, up to a few."""
    return values_each(one, other) < 1.02


def values_each(one: Traits, other: Traits) -> float:
    """How many values of the second come with one of the first, on average."""
    pairs = pl.DataFrame({"one": one.values, "other": other.values}).drop_nulls()
    return pairs.n_unique() / max(1, pairs["one"].n_unique())


def mostly_positive(found: Traits) -> bool:
    """Whether a number is hardly ever below 0, and no constant."""
    return float((found.values.drop_nulls() >= 0).mean() or 0) > 0.9 and found.unique > 2  # type: ignore[arg-type]


def is_money(found: Traits) -> bool:
    """Whether numbers have at most two decimals."""
    cents = found.values.drop_nulls().cast(pl.Float64) * 100
    return bool(((cents - cents.round()).abs() < 1e-6).mean() > 0.99)  # type: ignore[operator]


def is_score(found: Traits) -> bool:
    """Named or spread like ratings and shares."""
    words = (
        "rating",
        "score",
        "stars",
        "note",
        "bewertung",
        "lat",
        "lon",
        "lng",
        "puntuacion",
        "评分",
        "discount",
        "rabatt",
    )
    return any(word in found.name.lower() for word in words) or float(found.values.max() or 0) <= 1.0  # type: ignore[arg-type]


def is_group(found: Traits) -> bool:
    """Whether values may be kinds of items: few, each of several rows."""
    return found.kind in ("text", "integer") and 2 <= found.unique <= min(100_000, len(found.values) // 3)


def says_else(found: Traits) -> bool:
    """Whether the name says that it is no id: a category, a price, an order."""
    return any(
        name_score(found.name, role)
        for role in ("category", "brand", "country", "device", "price", "position", "event_type")
    )


def article(role: str) -> str:
    """A role with its article."""
    return {"basket": "an order or basket, which is taken for a session", "item": "an item"}.get(role, f"a {role}")


def numbers(found: Traits) -> str:
    """How many values a column has, for people."""
    return f"{found.unique:,} values, {found.each:.1f} rows each"
