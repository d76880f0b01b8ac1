"""Requests that wait, answered together by the one thread that has the model.

A request that comes while the thread is idle is answered at once and alone. What comes while it works waits, and is taken
together when it is done: nobody waits for a batch to fill.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Asked = TypeVar("Asked")
log = logging.getLogger("overnight.api")


class BusyError(Exception):
    """More requests wait than may."""


@dataclass(frozen=True)
class Job(Generic[Asked]):
    """What one request asks for, and where the answers go."""

    asked: Sequence[Asked]
    answers: Future[Any] = field(default_factory=Future)


class Batcher(Generic[Asked]):
    """`answer` gets what several requests ask for in one list and gives back a list of as many answers, and a word for all."""

    def __init__(self, answer: Callable[[Sequence[Asked]], tuple[list[Any], Any]], *, most: int, waiting: int) -> None:
        self._answer, self._most, self._waiting = answer, most, waiting
        self._queue: queue.Queue[Job[Asked] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._queue.qsize()

    @property
    def alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what waits, then end."""
        self._queue.put(None)
        self._thread.join()

    def submit(self, asked: Sequence[Asked]) -> Future[Any]:
        """The answers to come: (one for each that is asked, the word for all).

        Raises:
            BusyError: when too many requests wait.
        """
        if self._queue.qsize() >= self._waiting:
            raise BusyError
        job = Job(asked)
        self._queue.put(job)
        return job.answers

    def _work(self) -> None:
        ended = False
        while not ended:
            job = self._queue.get()
            jobs: list[Job[Asked]] = []
            while job is not None:
                jobs.append(job)
                if sum(len(some.asked) for some in jobs) >= self._most:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            ended = job is None
            wanted = [some for some in jobs if some.answers.set_running_or_notify_cancel()]
            if wanted:
                self._answer_together(wanted)

    def _answer_together(self, jobs: list[Job[Asked]]) -> None:
        """What fails together is tried one by one: a request fails for its own reasons only."""
        try:
            answers, word = self._answer([asked for job in jobs for asked in job.asked])
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._answer_together([job])
                return
            log.exception("a request could not be answered")
            jobs[0].answers.set_exception(error)
            return
        first = 0
        for job in jobs:
            job.answers.set_result((answers[first : first + len(job.asked)], word))
            first += len(job.asked)
