"""Processes that do the runs of a grid side by side, and the file of their results. See benchmarks/accuracy_grid.py."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from accuracy_run import Run

HERE = Path(__file__).resolve().parent
Json = dict[str, Any]
RESULT = "RESULT "


class Pool:
    """Processes that do run after run of one queue."""

    def __init__(self, board: Board, workers: int, *, gpu: bool) -> None:
        self.board, self.gpu = board, gpu
        self.runs: queue.PriorityQueue[tuple[bool, int, Run]] = queue.PriorityQueue()
        self.count = 0
        self.done = 0
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]

    def start(self) -> None:
        """Begin with what was put."""
        for thread in self.threads:
            thread.start()

    def put(self, run: Run, *, urgent: bool = False) -> None:
        """One more run, after those that were put before; urgent ones before all that is left."""
        self.count += 1
        self.runs.put((not urgent, self.count, run))

    @property
    def is_idle(self) -> bool:
        """Whether every run that was put is over; a pool without processes has nothing to do."""
        return not self.threads or self.done == self.count

    def _work(self) -> None:
        process: subprocess.Popen[str] | None = None
        while not self.board.over:
            try:
                run = self.runs.get(timeout=0.5)[2]
            except queue.Empty:
                continue
            process = process if process and process.poll() is None else self._start()
            if not self._do(process, run):
                process.kill()
                process.wait()
            self.done += 1

    def _start(self) -> subprocess.Popen[str]:
        environment = {"TORCHINDUCTOR_COMPILE_THREADS": "2", "HF_HUB_OFFLINE": "1"} | os.environ
        environment |= {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
        environment |= {} if self.gpu else {"CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.Popen(
            [sys.executable, str(HERE / "accuracy_run.py")],
            cwd=HERE.parent,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.board.processes.append(process)
        return process

    def _do(self, process: subprocess.Popen[str], run: Run) -> bool:
        """Whether a process has done a run, and can do more."""
        assert process.stdin and process.stdout
        last = ""
        with contextlib.suppress(OSError):
            process.stdin.write(run.model_dump_json() + "\n")
            process.stdin.flush()
            for line in process.stdout:
                if line.startswith(RESULT):
                    self.board.keep(json.loads(line[len(RESULT) :]))
                    return True
                last = line.strip() or last
                self.board.note(run, line)
        if not self.board.over:
            self.board.keep({"data": run.data, "name": run.name, "seed": run.seed, "error": last[:500]})
        return False


class Board:
    """What became of the runs: results in a file, what they say in another beside it."""

    def __init__(self, out: Path) -> None:
        self.out, self.log = out, out.with_suffix(".log")
        self.lock, self.over = threading.Lock(), False
        self.began = time.monotonic()
        self.processes: list[subprocess.Popen[str]] = []
        self.results = read_results(out)

    def keep(self, result: Json) -> None:
        """Append a result."""
        with self.lock, self.out.open("a") as file:
            self.results.append(result)
            file.write(json.dumps(result) + "\n")
        said = result.get("error") or f"{result['validation']} {result['test']} {result['seconds']} s"
        print(f"[{self.seconds:.0f}] {result['data']} {result['name']} {result['seed']}: {said}", flush=True)

    def note(self, run: Run, line: str) -> None:
        """Append what a run says."""
        with self.lock, self.log.open("a") as file:
            file.write(f"[{self.seconds:.0f}] {run.data} {run.name} {run.seed}: {line}")

    def end(self) -> None:
        """End all processes, whatever they do."""
        self.over = True
        for process in self.processes:
            process.kill()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    def has(self, run: Run) -> bool:
        """Whether the run was done."""
        wanted = (run.data, run.name, run.seed)
        done = (result for result in self.results if "error" not in result)
        return any((result["data"], result["name"], result["seed"]) == wanted for result in done)


def read_results(out: Path) -> list[Json]:
    """What a file of results holds."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
