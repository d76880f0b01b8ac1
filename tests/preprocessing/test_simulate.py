"""The simulated shop: reproducible, honest about its dirt, and with something to learn beyond popularity."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from preprocessing.simulate import CATEGORIES, DIRT, MARK, Shop, simulate
from schemas.errors import InputError

SMALL = Shop(days=3, users=150, items=200, share_dirty=0.05, share_new=0.05, share_retired=0.05)
LARGE = Shop(days=10, users=2_000, items=400, share_dirty=0.0, share_new=0.02, share_retired=0.02)
EVENTS_SCHEMA = {
    "user_id": pl.String,
    "item_id": pl.String,
    "timestamp": pl.Datetime("us"),
    "event_type": pl.String,
    "price": pl.Float64,
}
ITEMS_SCHEMA = {
    "item_id": pl.String,
    "category": pl.String,
    "brand": pl.String,
    "price": pl.Float64,
    "first_day": pl.Date,
}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("?*.*"))}


def read_days(folder: Path) -> list[pl.DataFrame]:
    return [pl.read_parquet(path) for path in sorted((folder / "events").glob("*.parquet"))]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("small")
    return folder, simulate(SMALL, folder)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Ten clean days of events with the session they belong to, cut at half an hour of silence."""
    folder = tmp_path_factory.mktemp("large")
    simulate(LARGE, folder)
    events = pl.concat(read_days(folder)).sort("user_id", "timestamp")
    gap = pl.col("timestamp").diff().over("user_id")
    begins = gap.is_null() | (gap > timedelta(minutes=30))
    return events.with_columns(gap=pl.when(~begins).then(gap), session=begins.cum_sum())


def test_same_shop_same_bytes_and_another_seed_another_shop(small: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    simulate(SMALL, tmp_path / "again")
    simulate(SMALL.model_copy(update={"seed": 8}), tmp_path / "other")
    assert files(tmp_path / "again") == files(small[0])
    theirs = files(tmp_path / "other")
    assert all(theirs[name] != content for name, content in files(small[0]).items())


def test_one_more_day_keeps_the_earlier_days(small: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    simulate(SMALL.model_copy(update={"days": 5}), tmp_path)
    longer, shorter = files(tmp_path), files(small[0])
    assert sorted(longer.keys() - shorter.keys()) == ["events/2026-03-05.parquet", "events/2026-03-06.parquet"]
    assert [name for name in shorter if longer[name] != shorter[name]] == ["items.parquet"]
    known = pl.read_parquet(small[0] / "items.parquet")
    assert pl.read_parquet(tmp_path / "items.parquet").head(known.height).equals(known)


def test_a_shorter_simulation_replaces_a_longer_one(small: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    simulate(SMALL.model_copy(update={"days": 5, "start": date(2026, 3, 1)}), tmp_path)
    (tmp_path / "events" / "notes.txt").write_text("not the simulator's")
    simulate(SMALL, tmp_path)
    left = files(tmp_path)
    assert left.pop("events/notes.txt")
    assert left == files(small[0])  # and no temporary file


def test_columns_and_log_order(small: tuple[Path, dict[str, Any]]) -> None:
    days = read_days(small[0])
    assert [dict(day.schema) for day in days] == [EVENTS_SCHEMA] * 3
    assert dict(pl.read_parquet(small[0] / "items.parquet").schema) == ITEMS_SCHEMA
    for number, day in enumerate(days):
        times = day["timestamp"].drop_nulls()
        times = times.filter(times.dt.year() < 2100)
        assert times.is_sorted()
        assert times.dt.date().unique().to_list() == [SMALL.start + timedelta(days=number)]
        assert set(day["event_type"]) == {"view", "cart", "purchase"}
        assert (day["event_type"] == "view").mean() > 0.9
        assert day["user_id"].drop_nulls().str.contains(r"^u\d{6}$").all()


def test_dirty_rows_are_counted_truthfully(small: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = small
    days = read_days(folder)
    events, items = pl.concat(days), pl.read_parquet(folder / "items.parquet")
    found = {
        "null_user": events["user_id"].null_count(),
        "null_item": events["item_id"].null_count(),
        "null_timestamp": events["timestamp"].null_count(),
        "future_timestamp": (events["timestamp"] >= datetime(2100, 1, 1)).sum(),
        "unknown_item": events["item_id"].drop_nulls().is_in(items["item_id"].implode()).not_().sum(),
        "duplicate": sum(day.height - day.unique().height for day in days),
    }
    assert summary["dirty"] == found
    assert min(found.values()) > 0
    assert tuple(summary["dirty"]) == DIRT
    assert sum(found.values()) == sum(round(SMALL.share_dirty * day.unique().height) for day in days)
    seen = (events.height, events["user_id"].drop_nulls().n_unique(), items.height, len(days))
    assert tuple(summary[name] for name in ("events", "users", "items", "days")) == seen


def test_prices_stay_near_the_catalogue(small: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = small
    items = pl.read_parquet(folder / "items.parquet").rename({"price": "base"})
    events = pl.concat(read_days(folder)).with_columns(day=pl.col("timestamp").dt.date())
    priced = events.filter(pl.col("day").dt.year() < 2100).join(items, on="item_id")
    assert priced.group_by("item_id", "day").agg(pl.col("price").n_unique())["price"].max() == 1
    assert priced.group_by("item_id").agg(pl.col("price").n_unique())["price"].max() > 1
    assert (priced["price"] / priced["base"] - 1).abs().max() < 0.12


def test_sessions_have_the_announced_shape(sessions: pl.DataFrame) -> None:
    last = sessions["timestamp"].dt.date().max()
    whole = sessions.filter(pl.col("timestamp").max().over("session").dt.date() < last)  # the last midnight cuts some
    lengths = whole.group_by("session").len()["len"]
    assert lengths.min() == 2
    assert (lengths == 30).any()
    assert (lengths > 30).mean() < 0.001  # a second visit just after midnight may join the first
    assert 5.5 < lengths.mean() < 6.5
    gaps = sessions["gap"].drop_nulls().dt.total_seconds()
    assert 80 < gaps.mean() < 100
    assert (gaps > 1_200).mean() < 0.0005  # well below the half hour that cuts
    begins = sessions.group_by("session").agg(pl.col("timestamp").min())["timestamp"]
    hours = begins.dt.hour().value_counts().sort("timestamp")["count"]
    assert hours[20] > 10 * hours[3]
    per_day = begins.dt.date().value_counts().sort("timestamp")["count"]
    assert per_day[5:7].min() > per_day[:5].max()  # the weekend of the first week


def test_a_session_goes_on_after_midnight(sessions: pl.DataFrame) -> None:
    days = sessions.group_by("session").agg(pl.col("timestamp").dt.date().n_unique())["timestamp"]
    assert 20 < (days == 2).sum() < 0.05 * days.len()


def test_few_items_get_most_events(sessions: pl.DataFrame) -> None:
    counts = sessions["item_id"].value_counts(sort=True)["count"]
    head = counts.head(counts.len() // 10).sum() / counts.sum()
    assert 0.3 < head < 0.7  # 0.10 if all items were equal
    assert counts.len() > 400  # and yet the tail is seen


def test_new_items_appear_and_retired_ones_vanish(sessions: pl.DataFrame, tmp_path: Path) -> None:
    simulate(LARGE, tmp_path)
    items = pl.read_parquet(tmp_path / "items.parquet")
    assert set(items["category"]) == set(CATEGORIES)
    assert 50 < items["brand"].n_unique() <= 60
    shown = sessions.group_by("item_id").agg(
        seen_first=pl.col("timestamp").min().dt.date(), seen_last=pl.col("timestamp").max().dt.date(), count=pl.len()
    )
    shown = shown.join(items, on="item_id")
    assert (shown["seen_first"] >= shown["first_day"]).all()
    new = shown.filter(pl.col("first_day") > LARGE.start)
    assert 0.1 < new.height / LARGE.items < 0.25  # 2 % a day, nine days
    assert (new["seen_first"] == new["first_day"]).mean() > 0.8
    often = shown.filter((pl.col("first_day") < LARGE.start) & (pl.col("count") > 100))
    gone = (often["seen_last"] < LARGE.start + timedelta(days=LARGE.days - 2)).mean()
    assert 0.05 < gone < 0.25  # 2 % a night of those that were seen daily


def test_the_last_item_tells_the_next_better_than_popularity(sessions: pl.DataFrame) -> None:
    codes = sessions["item_id"].cast(pl.Categorical).to_physical().to_numpy()
    num_items = int(codes.max()) + 1
    session, day = sessions["session"].to_numpy(), sessions["timestamp"].dt.date()
    pair = (session[1:] == session[:-1]) & (codes[1:] != codes[:-1])  # a cart after a view of the same item is no step
    late = (day == day.max()).to_numpy()[1:]
    before, after = codes[:-1], codes[1:]
    followers = np.zeros((num_items, num_items))
    np.add.at(followers, (before[pair & ~late], after[pair & ~late]), 1)
    popularity = followers.sum(0)

    def hit_rate(scores: np.ndarray) -> float:
        top = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        return float((top == after[pair & late][:, None]).any(1).mean())

    markov = hit_rate(followers[before[pair & late]] + 1e-6 * popularity)
    popular = hit_rate(np.broadcast_to(popularity, (int((pair & late).sum()), num_items)))
    assert markov > 2.5 * popular, f"hit rate at 10: Markov {markov:.3f}, popularity {popular:.3f}"


def test_the_way_into_a_category_tells_the_way_out(sessions: pl.DataFrame) -> None:
    """The intent: knowing the previous category too, the next category is far more certain than one step back alone."""
    category = pl.col("item_id").str.split("-").list.first()
    steps = sessions.select("session", now=category).with_columns(
        one=pl.col("now").shift(1).over("session"), two=pl.col("now").shift(2).over("session")
    )
    steps = steps.drop_nulls().filter((pl.col("now") != pl.col("one")) & (pl.col("one") != pl.col("two")))

    def best_guess(keys: list[str]) -> float:
        return steps.group_by(*keys, "now").len().group_by(keys).agg(pl.col("len").max())["len"].sum() / steps.height

    first, second = best_guess(["one"]), best_guess(["one", "two"])
    assert second > 1.3 * first, f"next category guessed: one step back {first:.3f}, two steps back {second:.3f}"


@pytest.mark.parametrize("wrong", [{"days": 0}, {"users": 0}, {"share_dirty": 1.5}, {"dayz": 3}])
def test_a_shop_refuses_what_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Shop(**wrong)


def test_files_of_a_real_shop_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "real" / "events").mkdir(parents=True)
    (tmp_path / "real" / "events" / "2024-05-01.parquet").write_bytes(b"mine")
    with pytest.raises(InputError, match="did not write"):
        simulate(SMALL, tmp_path / "real")
    assert files(tmp_path / "real") == {"events/2024-05-01.parquet": b"mine"}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="not a folder"):
        simulate(SMALL, tmp_path / "file")


def test_a_shop_of_before_folders_were_marked_is_replaced(tmp_path: Path) -> None:
    simulate(SMALL, tmp_path)
    (tmp_path / MARK).unlink()
    simulate(SMALL, tmp_path)
    assert (tmp_path / MARK).is_file()


def test_the_smallest_shop_opens(tmp_path: Path) -> None:
    shop = Shop(days=2, users=1, items=100, sessions_per_user=0.01, share_retired=0.5)
    assert simulate(shop, tmp_path)["events"] == 0
    assert [dict(day.schema) for day in read_days(tmp_path)] == [EVENTS_SCHEMA] * 2
