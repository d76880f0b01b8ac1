"""Clients that ask all the while, as models are changed and the service is ended: whether a request is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
from collections import Counter
from typing import Any

import polars as pl
from service_running import DATASET, K, Running, Sessions, ask, folder, histories, write_model

from modeling.evaluation.pointer import pointer_of, put_in_service
from modeling.service.recommender import Recommender
from schemas.artifacts import Artifacts

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
        self.starting = asyncio.Lock()  # held while the service starts, which it does with no damaged model

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
            async with self.starting:
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
            async with self.starting:
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
