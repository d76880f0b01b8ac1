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
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from modeling.config import ModelConfig
from modeling.evaluation.pointer import pointer_of, put_in_service
from modeling.model import SequenceModel
from modeling.service.bulk import Histories, write_lists
from modeling.service.recommender import Recommender
from modeling.sessions import Sessions as Encoded
from schemas.artifacts import Artifacts
from schemas.columns import FIRST_ID
from schemas.features import EncoderUsed, FeatureColumn, FeatureSchema

DATASET = "load"
EVENTS, K = 8, 10
Sessions = list[list[dict[str, Any]]]
ACTIONS = ["view", "cart", "purchase"]
MODEL = ModelConfig.model_validate({"body": {"name": "sasrec", "dim": 64, "num_layers": 2}})


def schema_of(num_items: int) -> FeatureSchema:
    """Items, what was done, and the hour."""
    category, hour = EncoderUsed(name="category"), EncoderUsed(name="hour", options={"time_zone": "UTC"})
    made_of = {
        "item_id": ("item_id", num_items, category),
        "action": ("event_type", len(ACTIONS), category),
        "hour": ("timestamp", 24, hour),
    }
    columns = tuple(
        FeatureColumn(
            name=name,
            kind="categorical",
            source=source,
            dtype="int32",
            cardinality=FIRST_ID + number,
            vocabulary=f"vocabularies/{name}.parquet" if encoder is category else None,
            transform=(encoder.name,),
            encoders=(encoder,),
        )
        for name, (source, number, encoder) in made_of.items()
    )
    return FeatureSchema(dataset=DATASET, max_length=50, split="day", columns=columns)


def write_model(artifacts: Artifacts, num_items: int, seed: int) -> str:
    """A model of random weights as an artifact; its name."""
    torch.manual_seed(seed)
    model = SequenceModel(MODEL, schema_of(num_items))
    items = pl.DataFrame({"id": pl.int_range(FIRST_ID, FIRST_ID + num_items, dtype=pl.Int32, eager=True)})
    items = items.with_columns(pl.format("item-{}", pl.col("id")).alias("value"), pl.lit(1).alias("count"))
    artifact_id = f"{num_items:08x}{seed:08x}"
    with artifacts.write("models", artifact_id, parameters={}) as draft:
        model.save(draft.folder)
        extra = {"action": pl.lit(FIRST_ID, pl.Int32), "hour": pl.lit(FIRST_ID, pl.Int32)}
        items.with_columns(**extra).write_parquet(draft.folder / "items.parquet")
        (draft.folder / "vocabularies").mkdir()
        items.write_parquet(draft.folder / "vocabularies/item_id.parquet")
        ids = pl.Series("id", range(FIRST_ID, FIRST_ID + 3), dtype=pl.Int32)
        pl.DataFrame({"value": ACTIONS, "id": ids}).write_parquet(draft.folder / "vocabularies/action.parquet")
    return f"models/{artifact_id}"


def histories(num_items: int, count: int, seed: int = 0) -> Sessions:
    """Sessions of raw events."""
    draw = random.Random(seed)
    return [
        [
            {
                "item_id": f"item-{draw.randrange(FIRST_ID, FIRST_ID + num_items)}",
                "timestamp": f"2026-03-08T{draw.randrange(24):02d}:{place:02d}:00Z",
                "event_type": draw.choice(ACTIONS),
            }
            for place in range(EVENTS)
        ]
        for _ in range(count)
    ]


RECTOOLS = """
import sys, time
import numpy as np, torch
from rectools.models.rank import Distance, TorchRanker
torch.set_num_threads(1)
queries, items = (torch.from_numpy(np.load(f"{sys.argv[1]}/{name}.npy")) for name in ("queries", "items"))
ranker = TorchRanker(distance=Distance.DOT, device="cpu", subjects_factors=queries, objects_factors=items)
began = time.process_time()
ranker.rank(np.arange(len(queries)), k=int(sys.argv[2]))
print(time.process_time() - began)
"""


def bulk(num_items: int, count: int, rectools: str | None, k: int = 20) -> dict[str, Any]:
    """CPU seconds of lists in bulk, from encoded sessions to Parquet, next to those of the bare matrix product.

    `product` multiplies the same vectors and does no more; `body` is what makes the queries; `lists` is all of `write_lists`;
    `rectools` is RecTools' ranker on these vectors, in an environment whose Python is given. One thread each.
    """
    with folder() as root:
        artifacts = Artifacts(root / "root")
        recommender = Recommender(artifacts.root / write_model(artifacts, num_items, 0), "cpu")
        draw = torch.Generator().manual_seed(0)
        ids = torch.randint(FIRST_ID, FIRST_ID + num_items, (count * EVENTS,), generator=draw, dtype=torch.int32)
        events = {"item_id": ids, "action": torch.full_like(ids, FIRST_ID), "hour": torch.full_like(ids, FIRST_ID)}
        starts = torch.arange(count) * EVENTS
        sessions = Encoded(events, starts, torch.full_like(starts, EVENTS), torch.zeros_like(starts))
        scorer = recommender.scorer
        seconds: dict[str, float] = {}
        with torch.no_grad():
            began = time.process_time()
            queries = torch.cat([scorer.queries(sessions.select(part)) for part in torch.arange(count).split(1024)])
            seconds["body"] = time.process_time() - began
            began = time.process_time()
            for part in queries.split(1024):
                torch.mm(part, scorer.items_VE.T)
            seconds["product"] = time.process_time() - began
        batches = iter([Histories(sessions, pl.DataFrame({"user_id": pl.int_range(count, eager=True)}))])
        began = time.process_time()
        write_lists(recommender, batches, root / "out", k, filter_seen=False)
        seconds["lists"] = time.process_time() - began
        if rectools:
            np.save(root / "queries.npy", queries.numpy())
            np.save(root / "items.npy", scorer.items_VE.detach().numpy())
            command = [rectools, "-c", RECTOOLS, str(root), str(k)]
            seconds["rectools"] = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    shares = {
        "product / (lists - body)": seconds["product"] / (seconds["lists"] - seconds["body"]),
        "(product + body) / lists": (seconds["product"] + seconds["body"]) / seconds["lists"],
    }
    if rectools:
        shares["product / rectools"] = seconds["product"] / seconds["rectools"]
    about = {"items": num_items, "histories": count, "k": k}
    return (
        about
        | {f"{name}_cpu_s": round(value, 2) for name, value in seconds.items()}
        | {name: round(value, 3) for name, value in shares.items()}
    )


class Running:
    """The service as a process of its own, on one core."""

    def __init__(self, root: Path, port: int = 0) -> None:
        self.root, self.port = root, port
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flows.cli", "api", "--dataset", DATASET, "--root", str(self.root)]
        command += ["--port", str(self.port), "--poll", "0.5", "--json"]
        core = min(os.sched_getaffinity(0))
        process = subprocess.Popen(["taskset", "-c", str(core), *command], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                self.port = int(json.loads(line)["address"].rpartition(":")[2])
                return process
        raise RuntimeError("the service did not start")

    def end(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait()

    def restart(self) -> None:
        """Start it at the same port."""
        self.process = self._start()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> tuple[int, bytes]:
    """One request on an open connection: status and body."""
    head = f"POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    headers = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(headers.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return status, await reader.readexactly(length)


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


def cpu_seconds(process: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process: int) -> int:
    """What it holds now."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


BAD = [
    (b"{", 422),
    (b"", 422),
    (b'{"itms": []}', 422),
    (b'{"items": [null]}', 422),
    (b'{"events": [{"item_id": "item-5", "timestamp": "yesterday"}]}', 422),
    (b'{"items": [], "k": -1}', 422),
    (b"x" * (2**20 + 1), 413),
]


def soak(seconds: float, num_items: int) -> dict[str, Any]:
    """Clients that ask all the while, as models are changed, one of them damaged, and the service is ended and killed.

    Every request is asked until it is answered. An answer counts as right when its list is that of the model it names.
    """
    account: Counter[str] = Counter()
    with folder() as root:
        artifacts = Artifacts(root)
        names = [write_model(artifacts, num_items, seed) for seed in (0, 1)]
        damaged = write_model(artifacts, num_items, 2)
        weights = root / damaged / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        put_in_service(artifacts, DATASET, names[0], by="promote")
        sessions = histories(num_items, 40)
        right = {}
        for name in names:
            recommender = Recommender(root / name, "cpu", borrow=False)
            lists = [recommender.recommend(pl.DataFrame(events), K, filter_seen=True)[0] for events in sessions]
            right |= {(name, number): items for number, items in enumerate(lists)}
        running = Running(root)
        try:
            soaking = Soak(running, artifacts, names, damaged, account)
            asyncio.run(soaking.run(sessions, right, seconds))
        finally:
            running.end(signal.SIGTERM)
    return {"seconds": seconds, "items": num_items} | dict(sorted(account.items()))


class Soak:
    """Who does what to the service, and the account of it."""

    def __init__(
        self, running: Running, artifacts: Artifacts, names: list[str], damaged: str, account: Counter[str]
    ) -> None:
        self.running, self.artifacts, self.names, self.damaged = running, artifacts, names, damaged
        self.account, self.ended = account, asyncio.Event()

    async def run(self, sessions: Sessions, right: dict[tuple[str, int], list[str]], seconds: float) -> None:
        """Everybody at once, for so many seconds."""
        work = [
            *(self.good(number, sessions, right) for number in range(8)),
            *(self.bad(number) for number in range(2)),
        ]
        tasks = [asyncio.create_task(job) for job in (*work, self.change(), self.kill(seconds / 5))]
        await asyncio.sleep(seconds)
        self.ended.set()
        await asyncio.gather(*tasks)

    async def good(self, number: int, sessions: Sessions, right: dict[tuple[str, int], list[str]]) -> None:
        """Asks, again where there was no answer, until the end."""
        draw, client = random.Random(number), Client(self.running, self.account)
        while not self.ended.is_set():
            case = draw.randrange(len(sessions))
            body = json.dumps({"sessions": [{"events": sessions[case]}, {"events": 7}], "k": K}).encode()
            self.account["requests"] += 1
            status, answer = await client.until_answered(body)
            if status != 200:
                self.account[f"answered {status}"] += 1
                continue
            said = json.loads(answer)
            listed = [entry["item"] for entry in said["sessions"][0]["items"]]
            is_right = listed == right[said["model"], case] and "error" in said["sessions"][1]
            self.account["answered rightly" if is_right else "answered wrongly"] += 1
            self.account[f"by {said['model']}"] += 1

    async def bad(self, number: int) -> None:
        """Asks what is refused, and goes away in the middle."""
        draw = random.Random(number)
        while not self.ended.is_set():
            body, wanted = draw.choice(BAD)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.running.port)
                if draw.random() < 0.3:
                    writer.write(b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n{")
                    await writer.drain()
                    self.account["bad: went away"] += 1
                else:
                    status, _ = await ask(reader, writer, body)
                    right = status == wanted
                    self.account["bad: refused rightly" if right else f"bad: answered {status} for {wanted}"] += 1
                writer.close()
            await asyncio.sleep(0.02)

    async def change(self) -> None:
        """Another model every two seconds, the fourth one damaged."""
        number = 0
        while not self.ended.is_set():
            number += 1
            name = self.damaged if number % 4 == 0 else self.names[number % 2]
            await asyncio.to_thread(put_in_service, self.artifacts, DATASET, name, by="promote")
            self.account["pointers changed"] += 1
            await asyncio.sleep(2.0)

    async def kill(self, every: float) -> None:
        """Ends the service and starts it again, by turns in peace and not."""
        for number in (signal.SIGTERM, signal.SIGKILL) * 100:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), every)
            if self.ended.is_set():
                return
            await asyncio.to_thread(self.running.end, number)
            if json.loads(pointer_of(self.artifacts, DATASET).read_text())["model"] == self.damaged:
                put_in_service(self.artifacts, DATASET, self.names[0], by="promote")
            await asyncio.to_thread(self.running.restart)
            self.account[f"ended by {signal.Signals(number).name}"] += 1


class Client:
    """One connection, opened again where it was cut."""

    def __init__(self, running: Running, account: Counter[str]) -> None:
        self.running, self.account = running, account
        self.connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def until_answered(self, body: bytes) -> tuple[int, bytes]:
        """The answer, however often it has to be asked for."""
        while True:
            try:
                self.connection = self.connection or await asyncio.open_connection("127.0.0.1", self.running.port)
                return await asyncio.wait_for(ask(*self.connection, body), 60)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                refused = isinstance(error, ConnectionRefusedError)
                self.account["asked again: not taken on" if refused else "asked again: cut off"] += 1
                if self.connection:
                    self.connection[1].close()
                self.connection = None
                await asyncio.sleep(0.05)


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


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="overnight-service-") as name:
        yield Path(name)


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
    found: Any
    if given.what == "bulk":
        found = [bulk(number, given.histories, given.rectools) for number in given.items]
    else:
        found = measure(given.items, given.seconds) if given.what == "load" else soak(given.seconds, given.items[0])
    print(json.dumps(found, indent=2))
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
