"""Lists for users at midnight, from what they did before, judged by the last item of each session of the day after.

    python benchmarks/midnight.py --root overnight-data --model models/1f2e [--lists NAME=FILE.parquet ...] [--write]
    python benchmarks/midnight.py --root overnight-data --model sessions/77aa ...         without a model's lists

One list of 20 a user, made by a model with `inputs.past_events` of sessions that ended before the test day began; by baselines
that are fit on all that each user did before, as one history, and asked about that history; the most popular items of training;
and lists of other systems, tables with user_id, item_id and, best first, rank (else by -score). A user without a list gets that
of popularity, as a shop would do: how many cases these are is said. Hidden: items that the user has had before are left out of
every list.

Differences are those to the first of `--lists`, else to popularity, paired by case, with intervals of 95 % over users.
"""

from __future__ import annotations

import argparse
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import torch

from flows.in_service import model_of
from modeling.evaluation import baselines
from modeling.evaluation.bootstrap import Bootstrap
from modeling.evaluation.metrics import gains_of
from modeling.evaluation.ranking import Scorer, top_k
from modeling.evaluation.slices import CONFIDENCE, user_numbers
from modeling.service.recommender import Recommender
from modeling.sessions import Sessions
from modeling.vocabularies import raw_lists
from schemas import plugins
from schemas.artifacts import Artifacts, Manifest
from schemas.columns import FIRST_ID, ITEM_ID

HERE = Path(__file__).parent
K, SPARE = 20, 200  # SPARE: made before items that the user has had are left out
KEY = ("user_id", "item_id")
METRICS = (f"recall@{K}", f"ndcg@{K}")


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


def from_histories(name: str, before: pl.DataFrame, users: pl.Series, *, filter_seen: bool) -> pl.DataFrame:
    """Rows of user_id, item_id, rank from 1, of the baseline of that name with its first setting; it sees no sessions."""
    items = before["item_id"].unique().sort()
    column = pl.col("item_id").replace_strict(items, range(FIRST_ID, FIRST_ID + len(items)), return_dtype=pl.Int32)
    by_user = before.group_by("user_id", maintain_order=True).agg(column)
    length_S = torch.from_numpy(by_user["item_id"].list.len().cast(pl.Int64).to_numpy(writable=True))
    ids = torch.from_numpy(by_user["item_id"].explode(empty_as_null=True).to_numpy(writable=True))
    histories = Sessions({ITEM_ID: ids}, length_S.cumsum(0) - length_S, length_S, torch.zeros(len(length_S)))
    baseline: Scorer = plugins.find(baselines, name)(histories, histories, len(items))
    there = by_user["user_id"].is_in(users.implode())
    ids_NK, _ = top_k(baseline, histories.select(torch.from_numpy(there.to_numpy())), K, filter_seen=filter_seen)
    lists = pl.Series("item_id", items.gather(ids_NK.flatten().numpy() - FIRST_ID)).reshape((len(ids_NK), K))
    table = pl.DataFrame({"user_id": by_user["user_id"].filter(there), "item_id": lists.arr.to_list()}).explode(
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


def ranks_of(
    lists: pl.DataFrame, instead: pl.DataFrame, targets: pl.DataFrame, hidden: pl.DataFrame | None
) -> tuple[np.ndarray, int]:
    """The rank of each of `targets` (user_id, item_id), infinite below 20, and how many are of users without a list.

    Users without a list get that of `instead`.
    """
    without = targets.select("user_id").unique().join(lists, on="user_id", how="anti")
    whole = pl.concat(
        [lists.select(*KEY, "rank"), instead.join(without, on="user_id", how="semi").select(*KEY, "rank")]
    )
    if hidden is not None:
        whole = whole.join(hidden, on=KEY, how="anti")
    whole = whole.sort("user_id", "rank").with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
    ranks = targets.join(whole.filter(pl.col("rank") <= K), on=KEY, how="left", maintain_order="left")["rank"]
    return ranks.cast(pl.Float64).fill_null(np.inf).to_numpy(writable=True), targets.join(
        without, on="user_id", how="semi"
    ).height


def judge(ranks: np.ndarray, base: np.ndarray, users: pl.Series) -> dict[str, object]:
    """Recall and NDCG at 20 of ranks, and their differences to those of `base`, each with its bounds."""
    row: dict[str, object] = {}
    bootstrap = Bootstrap(user_numbers(users))
    for metric in METRICS:
        gains, from_base = (gains_of(metric, torch.from_numpy(rank_N)).numpy() for rank_N in (ranks, base))
        change = gains - from_base
        low, high = bootstrap.intervals(bootstrap.sums(change)[:, None], (1 - CONFIDENCE) / 2)
        row[metric], row[f"{metric} against"] = (
            float(gains.mean()),
            (float(change.mean()), float(low[0]), float(high[0])),
        )
    return row


def raw_events(sessions: Manifest) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(user_id, item_id) of all events before the test day, and of the last event of each session of the test day."""
    items = pl.read_parquet(sessions.folder / "items.parquet", glob=False)
    names = items.select(pl.col("id").cast(pl.Int32), item_id="value")
    table = pl.scan_parquet(sessions.folder / "sessions", hive_partitioning=True).select(
        "user_id", "day", ids="item_id"
    )
    table = table.with_columns(pl.col("day").cast(pl.String)).collect()
    is_test = table["day"] == str(sessions.facts["test_day"])
    before = table.filter(~is_test).explode("ids", empty_as_null=True).join(names, left_on="ids", right_on="id")
    last = table.filter(is_test).with_columns(pl.col("ids").list.last()).join(names, left_on="ids", right_on="id")
    trained = before["item_id"].unique()
    return before.select(KEY), last.filter(pl.col("item_id").is_in(trained.implode())).select(KEY)


def measure(
    root: Path, model: str, given: dict[str, Path], named: tuple[str, ...]
) -> tuple[list[dict[str, Any]], dict[str, object]]:
    """A row for each kind of list, and what was measured on."""
    artifacts = Artifacts(root)
    recommender: Recommender | None = None
    if model.startswith("models/"):
        manifest = model_of(artifacts, model)
        sessions = artifacts.get(manifest.parents[0])
        recommender = Recommender(manifest.folder, past=sessions.folder)
    else:
        sessions = artifacts.get(model)
    before, targets = raw_events(sessions)
    users = targets["user_id"].unique().sort()
    day = date.fromisoformat(str(sessions.facts["test_day"]))
    popular, had, rows = popularity(before, users), before.unique(), []
    for seen, hidden in (("kept", None), ("hidden", had)):
        kinds = {name: read_lists(file) for name, file in given.items()} | {"popularity": popular}
        if recommender:
            midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(recommender.schema.time_zone))
            past = recommender.model.settings.inputs.past_events
            kinds[f"a model that reads {past} past events"] = ours(recommender, users, midnight)
        for name in named:
            kinds[f"{name} of whole histories"] = from_histories(name, before, users, filter_seen=hidden is not None)
        base: np.ndarray | None = None
        for name, lists in kinds.items():
            ranks, without = ranks_of(lists, popular, targets, hidden)
            base = ranks if base is None else base
            rows.append({"lists": name, "seen": seen, "without": without} | judge(ranks, base, targets["user_id"]))
    about = {"day": str(day), "cases": len(targets), "users": len(users)}
    return rows, about | {"base": next(iter(given), "popularity")}


def page(rows: list[dict[str, Any]], about: dict[str, object]) -> str:
    """The table in Markdown."""
    against = " | ".join(f"{metric} against {about['base']}" for metric in METRICS)
    lines = [
        f"Last items of {about['cases']:,} sessions of {about['users']:,} users on {about['day']}; one list of {K} a user, "
        "made of what was there before that day. Differences are paired by case, intervals 95 % over users.",
        "",
        f"| lists | seen items | {' | '.join(METRICS)} | {against} | cases without a list |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        values = " | ".join(f"{row[metric]:.4f}" for metric in METRICS)
        changes = " | ".join("{:+.4f} ({:+.4f} to {:+.4f})".format(*row[f"{metric} against"]) for metric in METRICS)
        lines.append(f"| {row['lists']} | {row['seen']} | {values} | {changes} | {row['without']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument(
        "--model", required=True, help="models/ID, trained with inputs.past_events; or sessions/ID: no model"
    )
    parser.add_argument("--lists", action="append", default=[], metavar="NAME=FILE.parquet")
    parser.add_argument("--baselines", default="ease,item_knn", help="of whole histories, with commas between")
    parser.add_argument("--write", action="store_true", help="the table to benchmarks/midnight.md")
    given = parser.parse_args()
    lists = {name: Path(file) for name, _, file in (pair.partition("=") for pair in given.lists)}
    named = tuple(name for name in given.baselines.split(",") if name)
    rows, about = measure(given.root, given.model, lists, named)
    print(page(rows, about))
    if given.write:
        (HERE / "midnight.md").write_text(f"# Lists at midnight\n\n{page(rows, about)}")


if __name__ == "__main__":
    main()
