"""What whole nights on the simulated shop cost: the first, the next, and one with nothing to do; Cicerone's on the same events.

    python benchmarks/shop_night.py                                          printed
    python benchmarks/shop_night.py --write                                  into benchmarks/shop_night.md
    python benchmarks/shop_night.py --peer "Cicerone 0.8.5=CICERONE --config job.toml job" --write

Every night is a command of its own, `overnight retrain` with no setting, a Prefect server of its own among its processes. CPU
seconds are those of all processes that it started. `--peer NAME=COMMAND` runs in turn with the first night, for the CPU seconds
of both; it reads what `SHOP` holds below the scratch folder (printed). Each round starts from nothing; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from etl_page import commit, machine

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
SCRATCH = PROJECT / ".peers" / "scratch" / "shop_night"
SHOP, ROOT = SCRATCH / "shop", SCRATCH / "root"
DAYS, LAST, NEXT = 15, "2026-03-15", "2026-03-16"
FIRST_NIGHT, NEXT_NIGHT, IDLE = "first night", "the night after", "nothing to do"
NIGHTS = [  # name, last day, MLflow
    (FIRST_NIGHT, LAST, "on"),
    (NEXT_NIGHT, NEXT, "on"),
    (IDLE, NEXT, "on"),
    ("first night, without MLflow", LAST, "off"),
    ("the night after, without MLflow", NEXT, "off"),
]
INTRODUCTION = """# Whole nights on the simulated shop, measured

`python benchmarks/shop_night.py --write` renews this page: `overnight simulate` (2,000 users, 126,637 events of 14 days, one
day more for the night after), `overnight retrain` with no setting at all. CPU seconds are those of the command and of all
processes that it started: preparation, training, evaluation with all baselines, report, Prefect with a server of its own,
MLflow's record.
"""


@dataclass
class Ran:
    """What a command cost, and the last line it printed."""

    cpu: float
    wall: float
    last_line: str


def run(words: list[str], **environment: str) -> Ran:
    """Run a command to its end.

    Raises:
        SystemExit: with what it printed, when it fails.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        words, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
    )
    assert process.stdout
    printed = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(printed)
    return Ran(used.ru_utime + used.ru_stime, time.perf_counter() - began, printed.strip().rpartition("\n")[2])


def night(until: str, mlflow: str) -> Ran:
    """`overnight retrain` up to a day."""
    where = ["--dataset", "demo", "--source", str(SHOP), "--root", str(ROOT), "--until", until, "--json"]
    return run([sys.executable, "-m", "flows.cli", "retrain", *where], OVERNIGHT_MLFLOW=mlflow)


def measure(rounds: int, peers: dict[str, list[str]]) -> dict[str, list[Ran]]:
    """Runs by name: of nights, and of peers."""
    by_name: dict[str, list[Ran]] = {}
    for _ in range(rounds):
        for name, until, mlflow in NIGHTS:
            if name.startswith(FIRST_NIGHT):
                shutil.rmtree(ROOT, ignore_errors=True)
            by_name.setdefault(name, []).append(night(until, mlflow))
            print(f"{name}: {by_name[name][-1].cpu:.1f} CPU s", file=sys.stderr, flush=True)
        for name, words in peers.items():
            by_name.setdefault(name, []).append(run(words))
    return by_name


def page(by_name: dict[str, list[Ran]], rounds: int) -> Iterator[str]:
    """The figures as Markdown."""
    yield f"Measured on {machine()}, at commit {commit(PROJECT)}; medians of {rounds}, and the least."
    yield ""
    yield "| | CPU seconds | least | wall seconds |"
    yield "|---|---|---|---|"
    for name, runs in by_name.items():
        cpu = [ran.cpu for ran in runs]
        yield f"| {name} | {median(cpu):.1f} | {min(cpu):.1f} | {median(ran.wall for ran in runs):.1f} |"
    yield ""
    metrics = json.loads(by_name[FIRST_NIGHT][0].last_line)
    yield f"The model of the first night: {accuracy(metrics)}."


def accuracy(summary: dict[str, Any]) -> str:
    """Recall@20 and NDCG@20 of a night's model, from the summary of `overnight retrain --json`."""
    values = next(iter(summary["metrics"].values()))
    return ", ".join(f"{name} {values[name]:.4f}" for name in ("recall@20", "ndcg@20"))


def main() -> None:
    parser: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--write", action="store_true", help="into shop_night.md")
    given = parser.parse_args()
    peers = {name: shlex.split(command) for name, _, command in (peer.partition("=") for peer in given.peer)}
    shutil.rmtree(SCRATCH, ignore_errors=True)
    run([sys.executable, "-m", "flows.cli", "simulate", "--out", str(SHOP), "--days", str(DAYS)])
    text = "\n".join(page(measure(given.rounds, peers), given.rounds))
    print(text)
    if given.write:
        (HERE / "shop_night.md").write_text(f"{INTRODUCTION}\n{text}\n")


if __name__ == "__main__":
    main()
