"""One command in several processes, as torchrun starts it: the first one prepares, speaks and writes, all of them train."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import InputError

TOGETHER = "train"  # the command that they do together


def num_started() -> int:
    """How many processes torchrun started together (WORLD_SIZE); 1 without it.

    Raises:
        InputError: when that is no number from 1.
    """
    given = os.environ.get("WORLD_SIZE") or "1"
    if not given.isdecimal() or int(given) < 1:
        raise InputError(f"WORLD_SIZE={given!r} is no number of processes from 1, as torchrun sets it: unset it.")
    return int(given)


def require_alone(command: str) -> None:
    """
    Raises:
        InputError: for one of several processes that do anything but train: all of them would do the same.
    """
    if command != TOGETHER and (count := num_started()) > 1:
        raise InputError(
            f"{count} processes were started together (WORLD_SIZE={count}, as torchrun sets it), which only `overnight "
            f"{TOGETHER}` is for. Start `overnight {command}` once; with --devices {count} it trains with so many processes."
        )


@contextlib.contextmanager
def taking_part() -> Iterator[None]:
    """Be one of the processes that torchrun started, silent unless it is the first. A process alone notices nothing."""
    if num_started() == 1:
        yield
        return
    from modeling.training.distributed import is_first, joined

    with contextlib.ExitStack() as until_done:
        until_done.enter_context(joined())
        if not is_first():
            nowhere = until_done.enter_context(Path(os.devnull).open("w"))
            until_done.enter_context(contextlib.redirect_stdout(nowhere))
        yield


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """The first process does this before the rest, which then find it done."""
    if num_started() == 1:
        yield
        return
    from modeling.training.distributed import first_alone

    with first_alone():
        yield
