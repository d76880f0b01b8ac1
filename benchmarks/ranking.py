"""Measure full-catalogue ranks and top-20 lists against the bare matrix product, in one process and in turn.

    python benchmarks/ranking.py --items 60000 --histories 6000     one size, on the terminal
    python benchmarks/ranking.py --write                            all, into benchmarks/ranking.md and ranking.json
    python benchmarks/ranking.py --device cuda --write              the sizes for a GPU

Random queries of width 128 against random item vectors, float32, by the code that evaluates and recommends: the target and 20
items of each history are hidden, ties are counted, lists hold 20 items. The bare product is torch.mm of the same numbers into
memory that is held, in the fastest of several sizes of tiles, and nothing else. One run of each after the other, several
times: medians, CPU seconds of one thread; on a GPU wall seconds, products on both sides in full float32 (no TF32). There ranks
and lists are tried in several sizes of tiles, by kernels of our own and by torch's operations, and compared. What is made once
for a catalogue is not in these times.
RecTools' TorchRanker, in its own batch size, and ImplicitRanker are measured too where they can be imported.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ranking_clock import in_turn, memory, processor, timed
from ranking_ways import COUNT, in_one, product, rectools, tile_sizes, variants

HERE = Path(__file__).resolve().parent
SIZES = {"cpu": [(6_000, 60_000), (256, 1_000_000)], "cuda": [(65_536, 60_000), (16_384, 1_000_000)]}
SEEN, DIM = 20, 128
LARGE = 500_000  # items of a catalogue for which a few ways are enough
Json = dict[str, Any]


def main() -> None:
    """Every size in a process of its own; the page is made anew of all that was ever written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--items", type=int)
    parser.add_argument("--histories", type=int)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="into ranking.md and ranking.json")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.histories, given.items, given.device, given.runs)))
        return
    sizes = [(given.histories or 6_000, given.items)] if given.items else SIZES[given.device]
    records = []
    for histories, items in sizes:
        asked = ["--one", f"--histories={histories}", f"--items={items}", f"--device={given.device}"]
        environment = os.environ | ({"OMP_NUM_THREADS": "1"} if given.device == "cpu" else {})
        done = subprocess.run(
            [sys.executable, __file__, *asked, f"--runs={given.runs}"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        records.append(json.loads(done.stdout.splitlines()[-1]))
        print(page(records[-1:]), flush=True)
        if given.device == "cuda":
            print(done.stdout.splitlines()[-1], flush=True)
    if given.write:
        keep(records)


def measure(num_histories: int, num_items: int, device: str, runs: int) -> Json:
    """Seconds of each way to go through the catalogue, and the memory that the process held at most."""
    sys.path.insert(0, str(HERE.parent))
    import torch

    from modeling.evaluation.ranking import ranks, top_k
    from modeling.scoring import VectorScorer
    from modeling.sessions import Sessions
    from modeling.splits import Cases
    from schemas.columns import FIRST_ID, ITEM_ID

    if device == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    queries_NE = torch.randn(num_histories, DIM, device=device)

    class Given(VectorScorer):
        def queries(self, histories: Sessions) -> torch.Tensor:
            return queries_NE[histories.end]

    items_VE = torch.randn(num_items, DIM, device=device)
    scorer = Given(items_VE, None, torch.ones(num_items, dtype=torch.bool, device=device))
    number = torch.arange(num_histories)
    seen = torch.randint(FIRST_ID, num_items + FIRST_ID, (num_histories * SEEN,), dtype=torch.int32)
    history = Sessions({ITEM_ID: seen}, number * SEEN, torch.full_like(number, SEEN), number).to(device)
    cases = Cases(history, torch.randint(FIRST_ID, num_items + FIRST_ID, (num_histories,), device=device))
    ways: dict[str, Callable[[], object]] = {
        f"product {rows}x{items}": product(queries_NE, items_VE, rows, items) for rows, items in tile_sizes(device)
    }
    bare = min(ways, key=lambda name: timed(ways[name], device, 2))
    ways = {
        "product": ways[bare],
        "ranks": lambda: ranks(scorer, cases, filter_seen=True),
        "lists": lambda: top_k(scorer, history, COUNT, filter_seen=True),
    }
    ways |= rectools(queries_NE, items_VE, seen.view(num_histories, SEEN) - FIRST_ID, device)
    if device == "cuda":
        more = variants(scorer, ways["ranks"], ways["lists"]) | in_one(queries_NE, items_VE)
        ways |= {name: run for name, run in more.items() if num_items < LARGE or "by torch" in name}
    failed = without_failing(ways) if device == "cuda" else {}
    seconds = in_turn(ways, device, runs)
    about = {"failed": failed} | on_gpu(ways) if device == "cuda" else {}
    return about | {
        "device": device,
        "histories": num_histories,
        "items": num_items,
        "dim": DIM,
        "tile": bare.removeprefix("product "),
        "seconds": seconds,
        "memory_mb": round(memory(device)),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "load": round(os.getloadavg()[0], 1),
    }


def without_failing(ways: dict[str, Callable[[], object]]) -> dict[str, str]:
    """Leave out the ways that fail, but for the first three; why they do, by name."""
    failed = {}
    for name in list(ways)[3:]:
        try:
            ways[name]()
        except Exception as error:  # such as too little shared memory
            failed[name] = repr(error)[:300]
            del ways[name]
    return failed


def on_gpu(ways: dict[str, Callable[[], Any]]) -> Json:
    """Whether both ways rank alike, what takes the time, and the type of products."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    one, two = ways["ranks"](), ways["ranks by torch"]()
    alike = {"ranks": float((one == two).double().mean())}
    one, two = ways["lists"](), ways["lists by torch"]()
    alike |= {"ids": float((one[0] == two[0]).double().mean()), "scores": float((one[1] - two[1]).abs().max())}
    in_ones = {name: run() for name, run in ways.items() if name.startswith("in one")}
    for name, number_N in in_ones.items():
        alike[name] = float((number_N - in_ones["in one, by torch"]).abs().double().mean())
    top = {}
    for name in ("product", "ranks", "lists"):
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            ways[name]()
            torch.cuda.synchronize()
        events = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)[:9]
        top[name] = [(event.key[:50], event.count, round(event.self_device_time_total / 1e3, 2)) for event in events]
    return {"alike": alike, "top_ms": top, "float32": torch.get_float32_matmul_precision()}


def keep(records: list[Json]) -> None:
    """Put new figures into the place of older ones of the same size, and write the page anew."""
    stored = HERE / "ranking.json"
    old = [json.loads(line) for line in stored.read_text().splitlines()] if stored.is_file() else []
    latest = {(record["device"], record["items"], record["histories"]): record for record in [*old, *records]}
    ordered = [latest[key] for key in sorted(latest)]
    stored.write_text("".join(json.dumps(record) + "\n" for record in ordered))
    (HERE / "ranking.md").write_text(page(ordered, whole=True))


def page(records: list[Json], *, whole: bool = False) -> str:
    """The figures as Markdown."""
    lines = []
    if whole:
        about = (__doc__ or "").split("\n\n")
        lines = [
            "# Ranks and lists, measured\n",
            "`python benchmarks/ranking.py --write` renews this page; `ranking.json` holds more detail.\n",
            about[2].strip() + "\n",
            "Share: the bare product's time over this one's; wanted are 85 % for ranks and 70 % for lists.\n",
        ]
    for record in records:
        lines += [
            f"## {record['histories']:,} histories, {record['items']:,} items, width {record['dim']}, {record['device']}\n",
            f"{record['processor']}, torch {record['torch']}, Python {record['python']}, load {record['load']}; at most "
            f"{record['memory_mb']:,} MB. Tiles of the bare product: {record['tile']}.\n",
            "| what | seconds | share of the bare product |\n| --- | --- | --- |",
        ]
        bare = record["seconds"]["product"]
        for name, seconds in record["seconds"].items():
            lines.append(f"| {name} | {seconds:.3g} | {bare / seconds:.0%} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
