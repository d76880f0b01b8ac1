"""Lists for users at midnight, from what they did before, judged by the last item of each session of the day after.

    python benchmarks/midnight.py --root overnight-data --model models/1f2e [--lists NAME=FILE.parquet ...] [--write]

One list of 20 a user, made by a model with `inputs.past_events` of sessions that ended before the test day began; the most
popular items of training; and lists of other systems, tables with user_id, item_id and, best first, rank (else by -score). A
user without a list gets that of popularity, as a shop would do: how many cases these are is said. Hidden: items that the user
has had before are left out of every list.
"""

from __future__ import annotations

import argparse
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from flows.in_service import model_of
from modeling.service.recommender import Recommender
from modeling.vocabularies import raw_lists
from schemas.artifacts import Artifacts, Manifest

HERE = Path(__file__).parent
K, SPARE = 20, 200  # SPARE: made before items that the user has had are left out
KEY = ("user_id", "item_id")
RECORDED = (  # its environment brings another torch, so it is not run again here; --lists judges its table where it was
    "Cicerone 0.8.5, its default night on the simulated shop of 14 days and 2,000 users, which hides what a user has had: "
    "Recall@20 .0700, NDCG@20 .0287 (recorded on 2026-11-26)."
)


def ours(recommender: Recommender, users: pl.Series, midnight: datetime) -> pl.DataFrame:
    """Rows of user_id, item_id, rank from 1, of users who were there before midnight."""
    histories, _ = recommender.histories([[]] * len(users), users=users.to_list(), at=midnight)
    there = (histories.places > 0).nonzero().squeeze(1)
    ids_NK, _ = recommender.ranked(histories.select(there), K + SPARE)
    lists = raw_lists(recommender.items, ids_NK)
    table = pl.DataFrame({"user_id": users.gather(there.numpy()), "item_id": lists}).explode(
        "item_id", empty_as_null=True
    )
    return table.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))


def popularity(before: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    """The items with the most events of all days before, the same for each user."""
    counts = before.group_by("item_id").len().sort("len", "item_id", descending=[True, False]).head(K + SPARE)
    ranked = counts.select("item_id", rank=pl.int_range(1, pl.len() + 1))
    return users.to_frame("user_id").join(ranked, how="cross")


def read_lists(file: Path) -> pl.DataFrame:
    """A table of another system."""
    table = pl.read_parquet(file)
    by = [pl.col("rank")] if "rank" in table.columns else [-pl.col("score")]
    return table.sort("user_id", *by).select(*KEY, rank=pl.int_range(1, pl.len() + 1).over("user_id"))


def judge(
    lists: pl.DataFrame, instead: pl.DataFrame, targets: pl.DataFrame, hidden: pl.DataFrame | None
) -> dict[str, float]:
    """Recall and NDCG at 20 of `targets` (user_id, item_id); users without a list get that of `instead`."""
    without = targets.select("user_id").unique().join(lists, on="user_id", how="anti")
    whole = pl.concat(
        [lists.select(*KEY, "rank"), instead.join(without, on="user_id", how="semi").select(*KEY, "rank")]
    )
    if hidden is not None:
        whole = whole.join(hidden, on=KEY, how="anti")
    whole = whole.sort("user_id", "rank").with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
    found = targets.join(whole.filter(pl.col("rank") <= K), on=KEY, how="inner")["rank"].to_numpy()
    return {
        "recall@20": len(found) / len(targets),
        "ndcg@20": float((1 / np.log2(1 + found)).sum()) / len(targets),
        "without a list": targets.join(without, on="user_id", how="semi").height,
    }


def raw_events(sessions: Manifest, recommender: Recommender) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(user_id, item_id) of all events before the test day, and of the last event of each session of the test day."""
    names = recommender.items.select(pl.col("id").cast(pl.Int32), item_id="value")
    table = pl.scan_parquet(sessions.folder / "sessions", hive_partitioning=True).select(
        "user_id", "day", ids="item_id"
    )
    table = table.with_columns(pl.col("day").cast(pl.String)).collect()
    is_test = table["day"] == str(sessions.facts["test_day"])
    before = table.filter(~is_test).explode("ids", empty_as_null=True).join(names, left_on="ids", right_on="id")
    last = table.filter(is_test).with_columns(pl.col("ids").list.last()).join(names, left_on="ids", right_on="id")
    trained = before["item_id"].unique()
    return before.select(KEY), last.filter(pl.col("item_id").is_in(trained.implode())).select(KEY)


def measure(root: Path, model: str, given: dict[str, Path]) -> tuple[pl.DataFrame, dict[str, object]]:
    """A row for each kind of list, and what was measured on."""
    artifacts = Artifacts(root)
    manifest = model_of(artifacts, model)
    sessions = artifacts.get(manifest.parents[0])
    recommender = Recommender(manifest.folder, past=sessions.folder)
    before, targets = raw_events(sessions, recommender)
    users = targets["user_id"].unique().sort()
    day = date.fromisoformat(str(sessions.facts["test_day"]))
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(recommender.schema.time_zone))
    popular = popularity(before, users)
    kinds = {"ours, from the past alone": ours(recommender, users, midnight), "popularity": popular}
    kinds |= {name: read_lists(file) for name, file in given.items()}
    rows = [
        {"lists": name, "seen": seen} | judge(lists, popular, targets, hidden)
        for name, lists in kinds.items()
        for seen, hidden in (("kept", None), ("hidden", before.unique()))
    ]
    about = {"day": str(day), "cases": len(targets), "users": len(users), "model": manifest.name}
    return pl.DataFrame(rows), about | {"past_events": recommender.model.settings.inputs.past_events}


def page(rows: pl.DataFrame, about: dict[str, object]) -> str:
    """The table in Markdown."""
    lines = [
        f"Last items of {about['cases']:,} sessions of {about['users']:,} users on {about['day']}; one list of {K} a user, "
        f"made of what was there before that day ({about['past_events']} past events).",
        "",
        "| lists | seen items | Recall@20 | NDCG@20 | cases without a list |",
        "|---|---|---|---|---|",
    ]
    for row in rows.iter_rows(named=True):
        figures = f"{row['recall@20']:.4f} | {row['ndcg@20']:.4f} | {row['without a list']}"
        lines.append(f"| {row['lists']} | {row['seen']} | {figures} |")
    return "\n".join([*lines, "", RECORDED]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--model", required=True, help="such as models/1f2e, trained with inputs.past_events")
    parser.add_argument("--lists", action="append", default=[], metavar="NAME=FILE.parquet")
    parser.add_argument("--write", action="store_true", help="the table to benchmarks/midnight.md")
    given = parser.parse_args()
    named = (one.partition("=") for one in given.lists)
    rows, about = measure(given.root, given.model, {name: Path(file) for name, _, file in named})
    print(page(rows, about))
    if given.write:
        (HERE / "midnight.md").write_text(f"# Lists at midnight\n\n{page(rows, about)}")


if __name__ == "__main__":
    main()
