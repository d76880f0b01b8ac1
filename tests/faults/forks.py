"""A process that has everything loaded and runs nights in forks of itself, so that many are cheap.

A request is a line of JSON: {"do": "night", ...}; the answer another, when the fork has ended. A night is of `flows.night`,
without Prefect: under the lock of the root, with its mistakes in one line. `when` says where something is to happen to it:
at a line of progress, at the end of a stage, or before a file system call (an audit event of Python); `then` what happens.

Run as a script it is that process; in a mount namespace of its own where that is permitted, so that it may mount small disks.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

TINY = (
    "training.epochs=2", "training.tokens_per_step=128", "training.evaluations=2", "training.threads=1",
    "body.dim=16", "body.num_layers=1",
    "promotion.min_gain=-0.99", "promotion.confidence=0.51", "evaluation.baselines=[popularity]",
)  # fmt: skip
LOADED = [
    "torch._dynamo",
    "safetensors.torch",
    "scipy.special",
    "scipy.sparse",
    "pandas",
    "modeling.training.fit",
    "modeling.training.held_out",
    "modeling.training.item_start",
    "modeling.stages.training",
    "modeling.stages.evaluating",
    "modeling.stages.comparing",
    "modeling.stages.refitting",
    "modeling.stages.scatter",
    "modeling.stages.measure",
    "modeling.bodies.sasrec",
    "preprocessing.pipeline",
    "flows.night",
    "flows.night_lock",
    "flows.options",
    "flows.verify",
    "flows.reports.report",
    "flows.reports.day_profile",
    "tests.flows.conftest",
]
UNSTEADY = re.compile(  # what says when it was made, how long it took, in which order rows came, or what was seen on the way
    r"manifest\.json|^(inventories|ledgers|locks|unfinished|prefect)/|^states/\w+/(statistics/|items_by_day)|\.html$|^champions/"
)


def night(
    root: str, source: str, dataset: str = "demo", until: str = "", changes: tuple[str, ...] = (), **given: Any
) -> dict[str, Any]:
    """A night below `root`; its summary, or {"mistake": line}."""
    from flows.night import Stages, run_stages
    from flows.night_lock import alone
    from flows.options import settings_of
    from schemas.machine import in_words

    given["until"] = datetime.fromisoformat(until) if until else None
    when, then = given.pop("when", None), given.pop("then", "kill")
    happens = _once(lambda: _happen(then, root))
    lines: list[str] = []

    def note(line: object) -> None:
        lines.append(str(line))
        if when and when[0] == "line" and re.search(when[1], str(line)):
            happens()

    def of(name: str) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            result = getattr(import_module("flows.stages"), name)(*inputs, note)
            if when == ["end", name]:
                happens()
            return result

        return run

    if when and when[0] not in ("line", "end"):
        sys.addaudithook(lambda event, args: happens() if event == when[0] and re.search(when[1], str(args)) else None)
    try:
        with in_words():
            settings = settings_of(dataset=dataset, source=source, root=Path(root), set_=[*TINY, *changes], **given)
            with alone(settings, "night", note):
                summary = run_stages(settings, Stages(**{field.name: of(field.name) for field in fields(Stages)}))
    except ValueError as error:
        if type(error).__name__ not in ("InputError", "MachineError", "MisfitError", "OutsideError", "DivergedError"):
            raise
        return {"mistake": str(error), "lines": lines}
    return json.loads(json.dumps(summary, default=str)) | {"lines": lines}


def state(root: str) -> dict[str, Any]:
    """What lies below a root: the contents of what a night makes, what is in service, what `verify` finds."""
    from flows.verify import verify
    from modeling.evaluation.pointer import champion_of
    from schemas.artifacts import Artifacts, sha256

    place = Path(root)
    files = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
    champion = champion_of(Artifacts(place), "demo")
    return {
        "files": {name: sha256(path) for name, path in sorted(files.items()) if not UNSTEADY.search(name)},
        "pages": sorted(name for name in files if name.endswith(".html")),
        "in_service": champion and champion.model,
        "left": sorted(path.name for path in (*place.glob("unfinished/*"), *place.glob("*/.*"))),
        "wrong": [str(finding) for finding in verify(Artifacts(place), lambda _: None)],
    }


def shell(command: str) -> str:
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout


def command(*words: str, memory: int = 0) -> dict[str, Any]:
    """`overnight`, in this process, with its exit code and what it says; with at most so many bytes of memory."""
    from tests.flows.conftest import overnight_here

    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    done = overnight_here(*words)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def fill(place: str) -> None:
    """Fill a disk to its last byte."""
    with (Path(place) / "filler").open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass


def _happen(then: str, root: str) -> None:
    if then == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif then == "fill":
        fill(str(Path(root).parent))
    elif then == "no more files":
        used = len(list(Path("/proc/self/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))
    elif then == "no more memory":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + (1 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    else:
        shell(then)


def _once(act: Callable[[], None]) -> Callable[[], None]:
    done: list[bool] = []

    def run() -> None:
        if not done:
            done.append(True)
            act()

    return run


DO: dict[str, Callable[..., Any]] = {
    "night": night, "state": state, "shell": shell, "command": command, "fill": fill,
}  # fmt: skip


def _fork(request: dict[str, Any]) -> int:
    """Begin a request in a fork, which writes its answer to the file that the request names."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        answer, name = Path(request.pop("answer")), request.pop("do")
        words = request.pop("words", ())
        answer.write_text(json.dumps(DO[name](*words, **request)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    for name in LOADED:
        with contextlib.suppress(ModuleNotFoundError):  # pandas comes with NVTabular alone
            import_module(name)
    import torch

    from flows.reports import templates
    from modeling.config import ModelConfig
    from modeling.stages import identity

    identity.code_of_training(ModelConfig())  # keeps what it reads of each file
    identity._code_of(identity.EVALUATION, {"baselines": ["popularity"]}, alone=identity.COMPARISON)

    pages = templates._environment()
    for name in pages.list_templates(extensions=["j2"]):
        pages.get_template(name)  # compiled once, not in each fork
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # forks share what is loaded until they write to it, which a collection would
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "wait":
            _, status = os.waitpid(request["pid"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        else:
            answer = {"pid": _fork(request)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
