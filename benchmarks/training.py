"""Train beside peers: the same events, the same architecture, one thread each, one after the other.

    python benchmarks/training.py --write             all peers, into benchmarks/training.json and benchmarks/training.md
    python benchmarks/training.py --peers replay      some, on the terminal

RecTools and RePlay train SASRec on Amazon Beauty (one block, width 64, 256 negatives), Transformers4Rec trains GPT-2 on
sessions of 5,000 made-up items. Tokens are events predicted from. The peers' scripts are those of $OVERNIGHT_SHARED/peers,
their environments lie in .peers (setup.sh NAME); what is not there is skipped with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import torch
from bodies import machine

from modeling.config import ModelConfig, TrainingConfig
from modeling.evaluation.metrics import metrics_at
from modeling.evaluation.ranking import ranks
from modeling.scoring import ModelScorer
from modeling.sessions import Sessions
from modeling.splits import Cases, Split, hide_last
from modeling.stages.memory import kept_memory
from modeling.training.fit import fit
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.features import FeatureColumn, FeatureSchema

PROJECT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("OVERNIGHT_SHARED", PROJECT / ".." / "shared")).resolve()
BEAUTY = SHARED / "data" / "s3rec_beauty" / "events.parquet"
ROOM = PROJECT / ".peers"
RECORDS = PROJECT / "benchmarks" / "training.json"
Json = dict[str, Any]

PAGE = """# Training beside peers

`python benchmarks/training.py --write` renews this page. The same events and architecture, one thread each, one after the
other in the same run; tokens are events predicted from, CPU seconds those of training. Accuracy is that of the last item
of each session or user among all items, after the epochs shown. The last column is the peer's CPU seconds by ours, where our
NDCG@10 is at least the peer's: how many times sooner the same accuracy is there.

- RecTools: SASRec, one block, one head, width 64, length 50, 256 negatives, learning rate 1e-3, on Amazon Beauty.
- RePlay: SASRec as above, the last two items held out of training; negatives shared by 128 users, sessions cut to buckets of
  32 places, a bare loop of its own model and loss (its best case).
- Transformers4Rec: GPT-2 causal, two layers, width 64, full softmax over 5,000 items, sessions of 2 to 20 events.

"""


def peer(name: str, *arguments: str | Path) -> Json:
    """What a peer's script says last, where that is JSON."""
    python, script = ROOM / name / "bin" / "python", SHARED / "peers" / str(arguments[0])
    for needed in (python, script):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is not there")
    command = [str(python), str(script), *map(str, arguments[1:])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-500:]}")
    last = done.stdout.strip().splitlines()[-1:]
    return dict(json.loads(last[0])) if last and last[0].startswith("{") else {}


def ours(train: Sessions, test: Cases, num_items: int, length: int, model: Json, training: Json, seen: bool) -> Json:
    """Rate of training and accuracy of a model of ours."""
    column = FeatureColumn(
        name=ITEM_ID, kind="categorical", source=ITEM_ID, dtype="int32", cardinality=num_items + FIRST_ID
    )
    columns = [column]
    for name in train.events.keys() - {ITEM_ID}:
        size = int(train.events[name].max()) + FIRST_ID
        columns.append(FeatureColumn(name=name, kind="categorical", source=name, dtype="int32", cardinality=size))
    schema = FeatureSchema(dataset="benchmark", max_length=length, split="day", columns=tuple(columns))
    few = test.history.select(torch.arange(50))
    split = Split(train, Cases(few, test.target[:50]), test, train)
    config = TrainingConfig.model_validate({"order": "random", "evaluations": 1, "threads": 1} | training)
    with tempfile.TemporaryDirectory() as folder, kept_memory():
        fitted, facts = fit(schema, split, ModelConfig.model_validate(model), config, Path(folder), lambda line: None)
    found = metrics_at(ranks(ModelScorer(fitted), test, filter_seen=seen), (10,))
    kept = ("tokens_per_cpu_second", "cpu_seconds", "tokens")
    return {name: facts[name] for name in kept} | {"epochs": config.epochs, "ndcg@10": round(found["ndcg@10"], 4)}


def histories(items: pl.Series, lengths: pl.Series) -> Sessions:
    """Sessions of encoded items that lie one after the other."""
    count = torch.from_numpy(lengths.to_numpy().copy()).long()
    events = {ITEM_ID: torch.from_numpy(items.cast(pl.Int32).to_numpy().copy())}
    return Sessions(events=events, starts=count.cumsum(0) - count, lengths=count, end=torch.arange(len(count)))


def beauty() -> tuple[Sessions, int]:
    """The histories of all users of Beauty, and how many items there are."""
    events = pl.read_parquet(BEAUTY).sort("user_id", "position", maintain_order=True)
    ids = events["item_id"].rank("dense").cast(pl.Int64) + FIRST_ID - 1
    return histories(ids, events.group_by("user_id", maintain_order=True).len()["len"]), int(ids.max()) - FIRST_ID + 1


def beside_replay() -> list[Json]:
    """SASRec on Beauty with shared negatives, for 40 CPU seconds; ours for as many epochs, and for more."""
    options = ["--loss", "grouped", "--bucket", "32", "--budget", "40", "--marks", "39"]
    theirs = peer("replay", "replay_sasrec.py", "--interactions", BEAUTY, *options)
    users, num_items = beauty()
    found = theirs["marks"][0]
    records = [
        {
            "peer": "RePlay",
            "who": "RePlay 0.22, 256 negatives shared",
            "tokens_per_cpu_second": theirs["targets_per_cpu_s"],
            "cpu_seconds": found["at"],
            "epochs": found["epochs"],
            "ndcg@10": found["ndcg10"],
        }
    ]
    body, train = {"num_layers": 1, "num_heads": 1, "dim": 64, "dropout": 0.2}, users.drop_last(2).most_recent(51)
    for epochs in (max(round(found["epochs"]), 1), 2 * max(round(found["epochs"]), 1)):
        model, training = {"body": body, "loss": "sampled_softmax"}, {"epochs": epochs}
        record = ours(train, hide_last(users), num_items, 50, model, training, True)
        records.append({"peer": "RePlay", "who": "Overnight, 256 negatives per 32"} | record)
    return records


def beside_rectools() -> list[Json]:
    """SASRec on Beauty: the peer's one epoch, and ours with its negatives and with all items."""
    options = [
        "--loss",
        "sampled_softmax",
        "--n-negatives",
        "256",
        "--n-blocks",
        "1",
        "--n-heads",
        "1",
        "--threads",
        "1",
    ]
    theirs = peer("rectools", "rectools_sasrec.py", "--interactions", BEAUTY, *options, "--epochs", "1")
    users, num_items = beauty()
    train, body = users.drop_last(1).most_recent(51), {"num_layers": 1, "num_heads": 1, "dim": 64, "dropout": 0.2}
    records = [
        {
            "peer": "RecTools",
            "who": f"RecTools {theirs['version']}, 256 negatives each",
            "tokens_per_cpu_second": theirs["train_tokens_per_cpu_second"],
            "cpu_seconds": sum(theirs["epoch_cpu_s"]),
            "epochs": 1,
            "ndcg@10": round(theirs["metrics"]["NDCG@10"], 4),
        }
    ]
    for title, loss, epochs in (
        ("256 negatives per 32", "sampled_softmax", 1),
        ("256 negatives per 32", "sampled_softmax", 4),
    ):
        model = {"body": body, "loss": loss}
        found = ours(train, hide_last(users), num_items, 50, model, {"epochs": epochs}, True)
        records.append({"peer": "RecTools", "who": f"Overnight, {title}"} | found)
    return records


def beside_transformers4rec() -> list[Json]:
    """GPT-2 on made-up sessions, all items scored on both sides."""
    data = ROOM / "data" / "sessions20k"
    if not data.is_dir():
        peer("t4rec", "t4rec_data.py", "--out", data)
    options = ["--data", data, "--arch", "gpt2-clm", "--epochs", "1", "--threads", "1"]
    theirs = peer("t4rec", "t4rec_train.py", *options)
    parts = []
    for name in ("train", "valid"):
        table = pl.from_arrow(pq.read_table(data / f"{name}.parquet"))
        assert isinstance(table, pl.DataFrame)
        sessions = histories(table["item_id"].explode(), table["item_id"].list.len())
        category = torch.from_numpy(table["category"].explode().cast(pl.Int32).to_numpy().copy())
        parts.append(replace(sessions, events=sessions.events | {"category": category}))  # the peer reads it, too
    model = {"body": {"name": "gpt2", "dim": 64, "num_layers": 2, "dropout": 0.3}, "inputs": {"positions": "forward"}}
    found = []
    for epochs in (1, 2):  # at the rate of the peer's script
        training = {"epochs": epochs, "learning_rate": 5e-3, "tokens_per_step": 512}
        found.append(ours(parts[0], hide_last(parts[1]), 5_000, 20, model, training, False))
    return [
        {
            "peer": "Transformers4Rec",
            "who": f"Transformers4Rec {theirs['version']}",
            "tokens_per_cpu_second": theirs["train_tokens_per_cpu_second"],
            "cpu_seconds": sum(theirs["epoch_cpu_s"]),
            "epochs": 1,
            "ndcg@10": theirs["metrics"]["ndcg_at_10"],
        },
        *({"peer": "Transformers4Rec", "who": "Overnight, GPT-2"} | record for record in found),
    ]


def table(records: list[Json]) -> str:
    """A line for each, with its ratios to its peer."""
    base = {one["peer"]: one for one in reversed(records)}
    heads = ("who", "epochs", "tokens per CPU second", "ratio", "CPU seconds", "NDCG@10", "sooner at this accuracy")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in records:
        ratio = one["tokens_per_cpu_second"] / base[one["peer"]]["tokens_per_cpu_second"]
        cells = [one["who"], str(one["epochs"]), f"{one['tokens_per_cpu_second']:,.0f}", f"{ratio:.1f}"]
        theirs, sooner = base[one["peer"]], ""
        if one is not theirs and one["ndcg@10"] >= theirs["ndcg@10"]:
            sooner = f"{theirs['cpu_seconds'] / one['cpu_seconds']:.1f}"
        lines.append("| " + " | ".join([*cells, f"{one['cpu_seconds']:.0f}", f"{one['ndcg@10']:.4f}", sooner]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs: dict[str, Callable[[], list[Json]]] = {
        "t4rec": beside_transformers4rec,
        "replay": beside_replay,
        "rectools": beside_rectools,
    }
    parser.add_argument("--peers", nargs="+", choices=tuple(runs), default=list(runs), help="some of them")
    parser.add_argument("--write", action="store_true", help="renew training.json and training.md")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    records: list[Json] = []
    for name in chosen.peers:
        try:
            records += runs[name]()
        except FileNotFoundError as error:
            print(f"skipped: {error}")
        print(table(records), flush=True)
    if chosen.write:
        RECORDS.write_text("".join(json.dumps(one) + "\n" for one in records))
        about = f"\nMeasured on {machine()}.\n"
        RECORDS.with_suffix(".md").write_text(PAGE + table(records) + about)


if __name__ == "__main__":
    main()
