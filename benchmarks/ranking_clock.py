"""Seconds, memory and the processor of a machine."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

MOST_SECONDS = 240  # of all runs of a way


def in_turn(ways: dict[str, Callable[[], object]], device: str, runs: int) -> dict[str, float]:
    """Medians of several rounds in which each way runs once; no new round after four minutes."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    begun = time.monotonic()
    for run in ways.values():
        timed(run, device, 1)
    for _ in range(runs):
        for name, run in ways.items():
            spent[name].append(timed(run, device, 1))
        if time.monotonic() - begun > MOST_SECONDS:
            break
    return {name: round(median(values), 4) for name, values in spent.items()}


def timed(run: Callable[[], object], device: str, times: int) -> float:
    """The least seconds of some runs."""
    least = float("inf")
    for _ in range(times):
        begun = _clock(device)
        run()
        least = min(least, _clock(device) - begun)
    return least


def _clock(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def memory(device: str) -> float:
    """Megabytes at the most so far: of the process, on a GPU of the device."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def processor() -> str:
    """The CPU's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
