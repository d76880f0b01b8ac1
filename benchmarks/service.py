"""How fast `overnight api` answers on one core, and whether it loses a request while models, processes and clients come and go.

    python benchmarks/service.py load --items 10000 100000 1000000 --out benchmarks/service.json
    python benchmarks/service.py soak --seconds 60 --out benchmarks/service_soak.json
    python benchmarks/service.py bulk --items 100000 --histories 20000 [--rectools PYTHON]
    python benchmarks/service.py page       # both into docs/serving.md

The service is pinned to one core; the clients are not. Models have random weights (sasrec, 64 wide, 2 layers): what an
answer costs does not follow from what they know. Sessions have eight raw events with three columns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch
from service_bulk import bulk
from service_running import DATASET, K, Running, ask, cpu_seconds, folder, histories, memory_mb, write_model
from service_soak import soak

from modeling.evaluation.pointer import put_in_service
from schemas.artifacts import Artifacts


async def load(port: int, bodies: list[bytes], clients: int, seconds: float) -> list[float]:
    """Seconds of each answer while so many clients ask one after the other."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        draw = random.Random(number)
        while time.perf_counter() < end:
            began = time.perf_counter()
            status, _ = await ask(reader, writer, draw.choice(bodies))
            assert status == 200, status
            taken.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return taken


def measure(num_items: list[int], seconds: float) -> list[dict[str, Any]]:
    """p50, p99 and requests a second, by items and clients, of one core."""
    rows = []
    with folder() as root:
        for number in num_items:
            artifacts = Artifacts(root / str(number))
            put_in_service(artifacts, DATASET, write_model(artifacts, number, 0), by="promote")
            running = Running(artifacts.root)
            bodies = [json.dumps({"events": events, "k": K}).encode() for events in histories(number, 200)]
            try:
                asyncio.run(load(running.port, bodies, 4, 2.0))
                for clients in (1, 8, 64):
                    cpu = cpu_seconds(running.process.pid)
                    taken = sorted(asyncio.run(load(running.port, bodies, clients, seconds)))
                    cpu = cpu_seconds(running.process.pid) - cpu
                    rows.append(
                        {
                            "items": number,
                            "clients": clients,
                            "requests": len(taken),
                            "p50_ms": round(1000 * taken[len(taken) // 2], 2),
                            "p99_ms": round(1000 * taken[int(0.99 * len(taken))], 2),
                            "requests_a_second": round(len(taken) / seconds, 1),
                            "requests_a_cpu_second": round(len(taken) / cpu, 1),
                            "memory_mb": memory_mb(running.process.pid),
                        }
                    )
                    print(json.dumps(rows[-1]), flush=True)
            finally:
                running.end(signal.SIGTERM)
            shutil.rmtree(artifacts.root)
    return rows


def write_page(page: Path, load_file: Path, soak_file: Path) -> None:
    """Put what was measured into the page, between its marks."""
    rows = json.loads(load_file.read_text())
    names = ["items", "clients", "p50_ms", "p99_ms", "requests_a_second", "requests_a_cpu_second", "memory_mb"]
    heads = ["items", "clients", "p50, ms", "p99, ms", "requests a second", "... of its own CPU time", "memory, MB"]
    table = ["| " + " | ".join(heads) + " |", "|" + "---:|" * len(heads)]
    table += ["| " + " | ".join(f"{row[name]:,}" for name in names) + " |" for row in rows]
    account = json.loads(soak_file.read_text())
    listed = ["| " + " | ".join(("what", "how often")) + " |", "|---|---:|"]
    listed += [f"| {name} | {number:,} |" for name, number in account.items()]
    text = page.read_text()
    for mark, lines in (("load", table), ("soak", listed)):
        before, _, rest = text.partition(f"<!-- {mark} -->")
        _, _, after = rest.partition(f"<!-- end of {mark} -->")
        text = f"{before}<!-- {mark} -->\n" + "\n".join(lines) + f"\n<!-- end of {mark} -->{after}"
    page.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "soak", "bulk", "page"])
    parser.add_argument("--histories", type=int, default=20_000)
    parser.add_argument("--rectools", help="Python of an environment that has RecTools and torch.")
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.what == "page":
        here = Path(__file__).parent
        write_page(here.parent / "docs/serving.md", here / "service.json", here / "service_soak.json")
        return
    torch.set_num_threads(1)
    figures: Any
    if given.what == "bulk":
        figures = [bulk(number, given.histories, given.rectools) for number in given.items]
    else:
        figures = measure(given.items, given.seconds) if given.what == "load" else soak(given.seconds, given.items[0])
    print(json.dumps(figures, indent=2))
    if given.out:
        given.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
