"""How many requests of POST /track `overnight api` takes a second, each on the disk before it is answered.

    python benchmarks/track.py --seconds 5

Clients send one request after the other, of 1 or of 100 events; all share the machine with the service, which has one process.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import httpx
import uvicorn

from modeling.service.api.app import Service, make_app
from modeling.service.api.server import bound
from modeling.service.tracking.parts import EVENTS
from modeling.service.tracking.store import Store
from modeling.service.tracking.table import read_kind
from schemas.errors import InputError


def nothing() -> None:
    """No model is asked for here."""
    raise InputError("there is no model")


def measure(folder: Path, clients: int, events: int, seconds: float) -> dict[str, object]:
    """Requests a second and their times; that all are on the disk is checked."""
    service = Service(nothing, store=Store(folder))  # type: ignore[arg-type]
    listening = bound("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make_app(service), log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    address, end = f"http://127.0.0.1:{listening.getsockname()[1]}/track", time.monotonic() + seconds
    body = json.dumps({"events": [{"event": "click", "item": f"lamp-{n}", "user_id": n} for n in range(events)]})
    times: list[float] = []

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while time.monotonic() < end:
                began = time.perf_counter()
                client.post(address, content=body).raise_for_status()
                times.append(time.perf_counter() - began)

    cpu = time.process_time()
    asking = [threading.Thread(target=ask) for _ in range(clients)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    cpu = time.process_time() - cpu
    server.should_exit = True
    thread.join()
    listening.close()
    assert read_kind(folder, EVENTS).height == len(times) * events
    times.sort()
    return {
        "clients": clients,
        "events": events,
        "requests_a_second": round(len(times) / seconds, 1),
        "events_a_second": round(len(times) * events / seconds),
        "p50_ms": round(1000 * times[len(times) // 2], 2),
        "p99_ms": round(1000 * times[int(len(times) * 0.99)], 2),
        "cpu_ms_a_request_with_its_client": round(1000 * cpu / len(times), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, help="On the disk that is to be measured; else a temporary one.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        began = time.perf_counter()
        with (Path(folder) / "probe").open("wb") as probe:
            for _ in range(50):
                probe.write(b"x" * 200)
                probe.flush()
                os.fdatasync(probe.fileno())
        print(json.dumps({"one_sync_ms": round(1000 * (time.perf_counter() - began) / 50, 3)}))
        for number, (clients, events) in enumerate(((1, 1), (8, 1), (32, 1), (8, 100))):
            print(json.dumps(measure(Path(folder) / str(number), clients, events, given.seconds)))


if __name__ == "__main__":
    main()
