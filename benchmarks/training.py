"""Train beside peers: the same events, the same architecture, one thread each.

    python benchmarks/training.py --write             all peers, into benchmarks/training.json and benchmarks/training.md
    python benchmarks/training.py --peers replay      some, on the terminal; with --write the records of the rest stay
    python benchmarks/training.py --kept              what a peer said before, where its very command was run before

RecTools and RePlay train SASRec on Amazon Beauty (one block, width 64, 256 negatives), Transformers4Rec trains GPT-2 on
sessions of 5,000 made-up items. Tokens are events predicted from. The peers' scripts are those of $OVERNIGHT_SHARED/peers,
their environments lie in .peers (setup.sh NAME); what is not there is skipped with its reason.
"""

from __future__ import annotations

import argparse
import hashlib
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
OURS = "Overnight"

SASREC: Json = {
    "body": {"num_layers": 1, "num_heads": 1, "dim": 64, "dropout": 0.2},
    "loss": "sampled_softmax",
}
BEAUTY_STEPS: Json = {"tokens_per_step": 512}  # the peers take 128 users, 730 events, a step
GPT2: Json = {
    "body": {"name": "gpt2", "dim": 64, "num_layers": 2, "num_heads": 2, "dropout": 0.3},
    "inputs": {"positions": "forward"},
    "heads": {"next_item": {"bias": True}},  # the peer's head has one, too
}

PAGE = """# Training beside peers

`python benchmarks/training.py --write` renews this page. The same events and architecture, one thread each; tokens are events
predicted from, CPU seconds those of training. Accuracy is that of the last item of each session or user among all items, after
the epochs shown. The last column: the peer's CPU seconds by those after which ours is as accurate, on the line between two
of our runs (of our shortest run, where that is more accurate already; empty, where none is).

- RecTools: SASRec, one block, one head, width 64, length 20 (it pads to that; users of Beauty have 8.9 events), 256 negatives,
  learning rate 1e-3.
- RePlay: SASRec as above with length 50, the last two items held out of training; negatives shared by 128 users, sessions cut
  to buckets of 32 places, a bare loop of its own model and loss (its best case).
- Transformers4Rec: GPT-2 causal, two layers, two heads, width 64, dropout .3, item and category, full softmax with an output
  bias over 5,000 items, learning rate 5e-3, sessions of 2 to 20 events.

"""


def peer(name: str, *arguments: str | Path, kept: bool = False) -> Json:
    """What a peer's script says last, where that is JSON; with `kept`, what it said when it was last run like this."""
    python, script = ROOM / name / "bin" / "python", SHARED / "peers" / str(arguments[0])
    command = [str(python), str(script), *map(str, arguments[1:])]
    said = ROOM / "said" / f"{name}-{hashlib.sha256(' '.join(command).encode()).hexdigest()[:12]}.json"
    if kept and said.is_file():
        return dict(json.loads(said.read_text()))
    for needed in (python, script):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is not there")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-500:]}")
    last = done.stdout.strip().splitlines()[-1:]
    if not last or not last[0].startswith("{"):
        return {}
    said.parent.mkdir(exist_ok=True)
    said.write_text(last[0] + "\n")
    return dict(json.loads(last[0]))


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
    metrics = metrics_at(ranks(ModelScorer(fitted), test, filter_seen=seen), (10,))
    kept = ("tokens_per_cpu_second", "cpu_seconds", "tokens")
    return {name: facts[name] for name in kept} | {"epochs": config.epochs, "ndcg@10": round(metrics["ndcg@10"], 4)}


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


def beside_replay(kept: bool) -> list[Json]:
    """SASRec on Beauty with shared negatives, the peer after some CPU seconds; ours for some epochs."""
    options = ["--loss", "grouped", "--bucket", "32", "--budget", "41", "--marks", "10,20,40"]
    theirs = peer("replay", "replay_sasrec.py", "--interactions", BEAUTY, *options, kept=kept)
    users, num_items = beauty()
    records = [
        {
            "peer": "RePlay",
            "who": "RePlay 0.22, 256 negatives shared",
            "tokens_per_cpu_second": theirs["targets_per_cpu_s"],
            "cpu_seconds": mark["at"],
            "epochs": mark["epochs"],
            "ndcg@10": mark["ndcg10"],
        }
        for mark in theirs["marks"]
    ]
    train = users.drop_last(2).most_recent(51)
    for epochs in (1, 2, 4):
        record = ours(train, hide_last(users), num_items, 50, SASREC, {"epochs": epochs} | BEAUTY_STEPS, True)
        records.append({"peer": "RePlay", "who": f"{OURS}, 256 negatives per 32"} | record)
    return records


def beside_rectools(kept: bool) -> list[Json]:
    """SASRec on Beauty: the peer's one epoch, and some of ours."""
    options = ["--loss", "sampled_softmax", "--n-negatives", "256", "--n-blocks", "1", "--n-heads", "1"]
    options += ["--max-len", "20", "--threads", "1", "--epochs", "1"]
    theirs = peer("rectools", "rectools_sasrec.py", "--interactions", BEAUTY, *options, kept=kept)
    users, num_items = beauty()
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
    train = users.drop_last(1).most_recent(21)
    for epochs in (1, 2, 3):
        record = ours(train, hide_last(users), num_items, 20, SASREC, {"epochs": epochs} | BEAUTY_STEPS, True)
        records.append({"peer": "RecTools", "who": f"{OURS}, 256 negatives per 32"} | record)
    return records


def made_up_sessions(data: Path) -> list[Sessions]:
    """The sessions that Transformers4Rec trains on, and those it is evaluated on: items and a category."""
    parts = []
    for name in ("train", "valid"):
        table = pl.from_arrow(pq.read_table(data / f"{name}.parquet"))
        assert isinstance(table, pl.DataFrame)
        sessions = histories(table["item_id"].explode(empty_as_null=False), table["item_id"].list.len())
        category = table["category"].explode(empty_as_null=False).cast(pl.Int32).to_numpy().copy()
        parts.append(replace(sessions, events=sessions.events | {"category": torch.from_numpy(category)}))
    return parts


def beside_transformers4rec(kept: bool) -> list[Json]:
    """GPT-2 on made-up sessions, all items scored on both sides, with an output bias on both."""
    data = ROOM / "data" / "sessions20k"
    if not data.is_dir():
        peer("t4rec", "t4rec_data.py", "--out", data)
    records = []
    for epochs in (1, 2, 3):
        options = ["--data", data, "--arch", "gpt2-clm", "--threads", "1", "--epochs", str(epochs)]
        theirs = peer("t4rec", "t4rec_train.py", *options, kept=kept)
        seconds = sum(theirs["epoch_cpu_s"])
        record = {
            "peer": "Transformers4Rec",
            "who": f"Transformers4Rec {theirs['version']}",
            # Its script counts the last event of each session too, from which nothing is predicted.
            "tokens_per_cpu_second": round((theirs["tokens"] - theirs["sessions"]) * epochs / seconds),
            "cpu_seconds": round(seconds, 1),
            "epochs": epochs,
            "ndcg@10": theirs["metrics"]["ndcg_at_10"],
        }
        records.append(record)
    train, test = made_up_sessions(data)
    for epochs in (1, 2, 3):
        training = {"epochs": epochs, "learning_rate": 5e-3, "tokens_per_step": 512}
        record = ours(train, hide_last(test), 5_000, 20, GPT2, training, False)
        records.append({"peer": "Transformers4Rec", "who": f"{OURS}, GPT-2"} | record)
    return records


def table(records: list[Json]) -> str:
    """A line for each; of a peer's, how many times sooner ours has the same accuracy."""
    heads = ("who", "epochs", "tokens per CPU second", "ratio", "CPU seconds", "NDCG@10", "ours is sooner by")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for record in records:
        same = [other for other in records if other["peer"] == record["peer"]]
        first = next((other for other in same if not is_ours(other)), record)
        ratio = record["tokens_per_cpu_second"] / first["tokens_per_cpu_second"]
        cells = [record["who"], f"{record['epochs']:g}", f"{record['tokens_per_cpu_second']:,.0f}", f"{ratio:.1f}"]
        cells += [f"{record['cpu_seconds']:.1f}", f"{record['ndcg@10']:.4f}"]
        seconds = (
            None if is_ours(record) else seconds_to(record["ndcg@10"], [other for other in same if is_ours(other)])
        )
        cells.append(f"{record['cpu_seconds'] / seconds:.1f}" if seconds else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def seconds_to(accuracy: float, runs: list[Json]) -> float | None:
    """CPU seconds to an accuracy, on the line between two runs; those of the shortest where it has it, None if none has."""
    before: Json | None = None
    for run in sorted(runs, key=lambda run: float(run["cpu_seconds"])):
        if run["ndcg@10"] >= accuracy:
            if before is None:
                return float(run["cpu_seconds"])
            share = (accuracy - before["ndcg@10"]) / (run["ndcg@10"] - before["ndcg@10"])
            return float(before["cpu_seconds"] + share * (run["cpu_seconds"] - before["cpu_seconds"]))
        before = run
    return None


def is_ours(record: Json) -> bool:
    """Whether a record is of this project, not of a peer."""
    return str(record["who"]).startswith(OURS)


def main() -> None:
    """Run what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs: dict[str, Callable[[bool], list[Json]]] = {
        "Transformers4Rec": beside_transformers4rec,
        "RePlay": beside_replay,
        "RecTools": beside_rectools,
    }
    by_name = {name.lower(): name for name in runs}
    parser.add_argument("--peers", nargs="+", choices=tuple(by_name), default=list(by_name), help="some of them")
    parser.add_argument("--write", action="store_true", help="renew training.json and training.md")
    parser.add_argument("--kept", action="store_true", help="take what a peer's command said before")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.peers:
        try:
            records = runs[by_name[name]](chosen.kept)
        except FileNotFoundError as error:
            print(f"skipped: {error}")
            continue
        print(table(records), flush=True)
        if chosen.write:
            write(by_name[name], records, tuple(runs))


def write(peer_name: str, records: list[Json], order: tuple[str, ...]) -> None:
    """Put the records of one peer in place of those that were there, and make the page anew."""
    lines = RECORDS.read_text().splitlines() if RECORDS.is_file() else []
    on = f"{machine()}, load {os.getloadavg()[1]:.0f}"
    records = [one for one in map(json.loads, lines) if one["peer"] != peer_name] + [
        one | {"on": on} for one in records
    ]
    records.sort(key=lambda record: order.index(record["peer"]))
    RECORDS.write_text("".join(json.dumps(record) + "\n" for record in records))
    machines = "; ".join(dict.fromkeys(f"{record['peer']}: {record['on']}" for record in records))
    about = f"\nOther work shared the machine. {machines}. A peer may have run earlier (`--kept`).\n"
    RECORDS.with_suffix(".md").write_text(PAGE + table(records) + about)


if __name__ == "__main__":
    main()
