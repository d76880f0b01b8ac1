"""A service on one core, the models it serves and the sessions it is asked about."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import torch

from modeling.config import ModelConfig
from modeling.model import SequenceModel
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


def cpu_seconds(process: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process: int) -> int:
    """What it holds now."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="overnight-service-") as name:
        yield Path(name)
