"""Measure every loss, at three sizes of catalogue: time, an optimizer's step with it, memory.

    python benchmarks/losses.py --losses full_softmax gbce --items 10000    some, on the terminal
    python benchmarks/losses.py --write                                     all, into benchmarks/losses.md and losses.json

1,536 random predictions of width 64 are scored against random item vectors by the code that trains: drawing negatives,
accidental hits and all. Times are CPU milliseconds of one thread, medians of several runs after one to warm up. Memory is
what a first run adds at its peak to the process that holds predictions and item vectors. `plain_softmax` is torch's
cross_entropy on all scores at once. Each case is a process of its own. `--training` trains SASRec on sessions of 20 events
and compares gradients of all item vectors with those of the rows read (`sparse`).

On a GPU: 65,536 predictions in bfloat16, wall milliseconds, memory as torch counts it. Skipped where there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Only the standard library up here: a child's peak memory begins at that of the process that started it.
from losses_page import keep, tables

HERE = Path(__file__).resolve().parent
PREDICTIONS = {"cpu": 1_536, "cuda": 65_536}
ITEMS = (10_000, 50_000, 1_000_000)
TRAINING_ITEMS = (10_000, 20_000, 50_000, 100_000, 1_000_000)
SAMPLED = ("sampled_softmax", "bce", "gbce", "bpr", "bpr_max", "top1_max")
WHOLE_BATCH = 0
LARGEST = 4e9  # bytes of scores that a case may hold at once on a shared machine
Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What one process measures."""

    table: str
    loss: str
    items: int
    group: int
    sparse: bool
    device: str


def cases(losses: list[str], sizes: list[int], device: str) -> Iterator[Case]:
    """Full softmax in both forms, every sampled loss in groups of 32, sampled softmax in other groups too."""
    for items in sizes:
        for loss in losses:
            groups = (1, 32, WHOLE_BATCH) if loss == "sampled_softmax" else (32,)
            for group in groups if loss in SAMPLED else (WHOLE_BATCH,):
                yield Case("losses", loss, items, group, False, device)
                if loss in SAMPLED and group == 32:
                    yield Case("losses", loss, items, group, True, device)


def training_cases(device: str) -> Iterator[Case]:
    """Whole steps of training, with and without sparse gradients."""
    for items in TRAINING_ITEMS:
        for sparse in (False, True):
            yield Case("training", "sampled_softmax", items, 32, sparse, device)


def too_large(case: Case) -> bool:
    """Whether all scores at once would take more memory than is fair."""
    return case.loss == "plain_softmax" and case.device == "cpu" and PREDICTIONS["cpu"] * case.items * 4 > LARGEST


def in_own_process(case: Case) -> Json:
    """What a fresh process measures."""
    command = [sys.executable, str(HERE / "losses_run.py"), json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case}\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1])) | {"load": round(os.getloadavg()[0], 1)}


def has_gpu() -> bool:
    """Asked in a process of its own, which then ends with all that torch loads."""
    told = subprocess.run([sys.executable, "-c", "import torch; print(torch.cuda.is_available())"], capture_output=True)
    return told.stdout.strip() == b"True"


def main() -> None:
    """Measure what was asked for, a line each."""
    known = ["full_softmax", "plain_softmax", *SAMPLED]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="+", choices=known, default=known, metavar="LOSS", help=", ".join(known))
    parser.add_argument("--items", nargs="+", type=int, default=list(ITEMS), help="sizes of the catalogue")
    parser.add_argument("--training", action="store_true", help="whole steps of training only")
    parser.add_argument("--json", action="store_true", help="one line of JSON a case instead of tables")
    parser.add_argument("--write", action="store_true", help="also training; keep all in losses.md and losses.json")
    given = parser.parse_args()
    devices = ["cpu", *(["cuda"] if has_gpu() else [])]
    if len(devices) == 1:
        print("skipped: the same in bfloat16 on a GPU: torch finds none here", file=sys.stderr)
    wanted = [] if given.training else [one for device in devices for one in cases(given.losses, given.items, device)]
    wanted += [one for device in devices for one in training_cases(device) if given.training or given.write]
    records = []
    for case in wanted:
        if too_large(case):
            size = PREDICTIONS[case.device] * case.items * 4 / 1e9
            print(f"skipped: {case.loss} of {case.items:,} items: its scores alone take {size:.0f} GB", file=sys.stderr)
            continue
        records.append(in_own_process(case))
        if given.json:
            print(json.dumps(records[-1]), flush=True)
        if given.write:
            keep(records[-1:], HERE)
    if not given.json:
        print(tables(records))


if __name__ == "__main__":
    main()
