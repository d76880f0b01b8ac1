"""What MLflow was given so far: a small file below the root, so that most nights need not ask."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.artifacts import write_atomically

STATE, LOCK = "recorded.json", "lock"


class Recorded(BaseModel):
    """The run of a night. Both are empty where artifacts of the night are gone, so that nothing can be recorded."""

    model_config = ConfigDict(frozen=True)

    run: str = ""
    experiment: str = ""


class Followed(BaseModel):
    """Where the alias was put: the version of a model; no model where nothing is in service."""

    model_config = ConfigDict(frozen=True)

    model: str | None = None
    version: int | None = None
    hold: str = ""


class State(BaseModel):
    """Nights by report (`reports/<id>` -> its id), and aliases by dataset, of one target; and where the root was then."""

    model_config = ConfigDict(frozen=True)

    target: str
    place: str = ""
    nights: dict[str, Recorded] = {}
    champions: dict[str, Followed] = {}


def read_state(folder: Path, target: str) -> State:
    """What was written for this target; empty for another, or where nothing can be read."""
    try:
        state = State.model_validate_json((folder / STATE).read_text())
    except (OSError, ValidationError):
        return State(target=target)
    return state if state.target == target else State(target=target)


def write_state(folder: Path, state: State) -> None:
    """Replace the file in one step."""
    write_atomically(folder / STATE, state.model_dump_json(indent=1) + "\n")


@contextmanager
def alone(folder: Path, seconds: float) -> Iterator[bool]:
    """While the block lasts nobody else records in this folder; gives False when others had not ended after so long."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + seconds
    try:
        while not (held := _take(descriptor)) and time.monotonic() < until:
            time.sleep(0.1)
        yield held
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
