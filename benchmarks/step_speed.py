"""How fast a training step is on a GPU: uncaptured, captured in a CUDA graph, and compiled as well. One JSON line each.

    python benchmarks/step_speed.py OUT                            bodies and objectives at sizes that make sense, in 150 s
    python benchmarks/step_speed.py OUT --bodies sasrec,bert4rec:masked [--tokens 2048,16384,65536] [--loss sampled_softmax]
                                        [--modes plain,captured,compiled,broken] [--dropout 0.0] [--top sasrec:65536]

Sessions are made up: 19,214 items by Zipf's law, about three events each, thirty at most. Every body (behind a colon its
objective) and number of tokens has processes of its own, one for `plain` and `captured`, one for `compiled`, so that what fails
spoils nothing else; `broken` has a step that cannot be captured, which has to be found out before: training goes on with the
same losses. Processes compile and do their first steps side by side; timed is one alone (`alone` says whether it was: after
90 s a process waits no longer). Lines also go to OUT/step_speed.jsonl.
On a machine without a GPU sizes are tiny and nothing is captured: it shows that the script runs.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from modeling.config import ModelConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.training import device as on_device
from modeling.training.device import Steps, stream_of_its_own
from modeling.training.fit import set_popularity, set_seed
from modeling.training.optimizer import make_optimizer
from modeling.training.plan import Plan
from modeling.training.schedule import make_schedule
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.features import FeatureColumn, FeatureSchema

CUDA = torch.cuda.is_available()
COMPARED, TIMED = (20, 40) if CUDA else (4, 4)  # steps
NUM_ITEMS, NUM_SESSIONS, WIDTH = (19_214, 1_000_000, 128) if CUDA else (500, 3_000, 16)
SIZES = "2048,16384,65536" if CUDA else "256,512"
ALL = [  # body, objective, tokens a step, ways to do it
    ("sasrec", "causal", "2048,65536", "plain,captured,compiled"),
    ("hstu", "causal", "2048,65536", "plain,captured,compiled"),
    ("bert4rec", "masked", "2048,65536", "plain,captured,compiled"),
    ("ligr", "causal", "65536", "captured,compiled"),
    ("gpt2", "causal", "65536", "captured,compiled"),
    ("llama", "causal", "65536", "captured,compiled"),
    ("modernbert", "masked", "65536", "captured,compiled"),
    ("sasrec", "replaced_token", "65536", "captured,compiled"),
    ("hstu", "masked", "16384", "captured,compiled"),
    ("gru4rec", "causal", "2048,65536", "plain"),
    ("xlnet", "permuted", "16384", "plain"),
]
TOP = "sasrec:65536,hstu:65536,bert4rec:65536"
SIDE_BY_SIDE, PATIENCE = 12 if CUDA else 2, 90  # processes; seconds that one waits to be alone
LOSSES = {"sampled_softmax": {"name": "sampled_softmax", "negatives": {"count": 256, "group": 32}}}
Json = dict[str, Any]


def made_up_sessions() -> Sessions:
    """Sessions of 2 to 30 events, 3 on average."""
    generator = torch.Generator().manual_seed(1)
    lengths = (torch.empty(NUM_SESSIONS).exponential_(0.7, generator=generator).long() + 2).clamp(max=30)
    rank = (NUM_ITEMS ** torch.rand(int(lengths.sum()), generator=generator)).long().clamp(max=NUM_ITEMS) - 1
    starts = lengths.cumsum(0) - lengths
    return Sessions({ITEM_ID: (rank + FIRST_ID).int()}, starts, lengths, torch.arange(NUM_SESSIONS))


def made_up_schema() -> FeatureSchema:
    """Items and nothing else."""
    item = {"kind": "categorical", "source": ITEM_ID, "dtype": "int32", "cardinality": NUM_ITEMS + FIRST_ID}
    return FeatureSchema(
        dataset="made_up",
        max_length=30,
        split="day",
        columns=(FeatureColumn(name=ITEM_ID, **item),),
    )


def steps_of(arguments: argparse.Namespace, sessions: Sessions, mode: str) -> Steps:
    """A new model at the beginning of a run."""
    set_seed(0)
    loss = LOSSES.get(arguments.loss, arguments.loss)
    body = {"name": arguments.body, "dim": WIDTH, "num_layers": 2, "num_heads": 2, "dropout": arguments.dropout}
    groups = {"body": body, "loss": loss, "objective": arguments.objective}
    model = SequenceModel(ModelConfig.model_validate(groups), made_up_schema())
    model.reach(sessions)
    set_popularity(model.next_item, sessions, sessions)
    model.to("cuda" if CUDA else "cpu").train()
    config = TrainingConfig(
        epochs=4,
        tokens_per_step=arguments.size,
        order="random",
        capture="off" if mode == "plain" else "auto",
        compile="auto" if mode == "compiled" else "off",
    )
    on_device.COMPILED_FROM = 0
    schedule = make_schedule(model, sessions.to(model.device), config)
    plan = Plan(schedule.steps_per_epoch, config)
    set_seed(1)
    return Steps(model, make_optimizer(model, config), schedule, plan, 0, lambda line: say(arguments, line=line))


def say(arguments: argparse.Namespace, **about: Any) -> None:
    """Print a line, and keep it."""
    line = json.dumps({"body": arguments.body, "objective": arguments.objective, "tokens": arguments.size} | about)
    print(line, flush=True)
    with (arguments.out / "step_speed.jsonl").open("a") as file:
        file.write(line + "\n")


@contextlib.contextmanager
def held(arguments: argparse.Namespace, alone: bool) -> Iterator[bool]:
    """Within, no other process times its steps; with `alone`, none does any. Whether that is so."""
    with (arguments.out / "step_speed.lock").open("w") as file:
        began, mine = time.monotonic(), False
        while not mine and time.monotonic() - began < PATIENCE:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                mine = True
            time.sleep(0 if mine else 0.05)
        yield mine


def first_losses(steps: Steps) -> tuple[list[float], list[float]]:
    """The losses of the first steps, one by one, and the seconds that each took."""
    losses, seconds = [], []
    for step in range(COMPARED):
        began = time.perf_counter()
        steps.do(step)
        losses.append(steps.mean_loss())
        seconds.append(time.perf_counter() - began)
    return losses, seconds


def timed(steps: Steps) -> Json:
    """Milliseconds a step, by CUDA's events (median) and by the wall, and what that makes a second."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(TIMED + 1)] if CUDA else []
    wait()
    began = time.perf_counter()
    for place in range(TIMED):
        if CUDA:
            marks[place].record()
        steps.do(COMPARED + place)
    if CUDA:
        marks[-1].record()
    wait()
    wall = (time.perf_counter() - began) / TIMED
    apart = [one.elapsed_time(two) for one, two in itertools.pairwise(marks)]
    schedule = steps.schedule
    asked = sum(schedule.tokens_per_epoch) / len(schedule)
    events = schedule.sessions.num_events * schedule.epochs / len(schedule)
    return {
        "ms": round(statistics.median(apart), 3) if apart else None,
        "wall_ms": round(wall * 1e3, 3),
        "tokens_per_s": round(asked / wall),
        "events_per_s": round(events / wall),
        "gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if CUDA else None,
    }


def wait() -> None:
    """For the GPU."""
    if CUDA:
        torch.cuda.synchronize()


def profiled(steps: Steps, top: bool, count: int = 5) -> Json:
    """Kernels a step, the share of time in which the GPU does one, and host syncs a step."""
    if not CUDA:
        return {}
    from torch.profiler import ProfilerActivity, profile

    first = COMPARED + TIMED
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        steps.do(first)
    torch.cuda.set_sync_debug_mode("default")
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        wait()
        began = time.perf_counter()
        for step in range(first + 1, first + 1 + count):
            steps.do(step)
        wait()
        wall = time.perf_counter() - began
    events = [event for event in profiler.key_averages() if event.self_device_time_total > 0]
    busy = sum(event.self_device_time_total for event in events) / 1e6
    found: Json = {
        "syncs": sum("synchroni" in str(warning.message) for warning in caught),
        "kernels": sum(event.count for event in events) // count,
        "busy_ms": round(busy / count * 1e3, 3),
        "busy_share": round(busy / wall, 3),
    }
    if top:
        most = sorted(events, key=lambda event: -event.self_device_time_total)[:12]
        found["top"] = [
            (event.key[:60], event.count // count, round(event.self_device_time_total / count / 1e3, 3))
            for event in most
        ]
    return found


def measure(arguments: argparse.Namespace, sessions: Sessions, mode: str, plain: list[float]) -> list[float]:
    """Measure one way to do steps, and say it."""
    with contextlib.ExitStack() as stack:
        with held(arguments, alone=False):
            if CUDA:
                torch.cuda.reset_peak_memory_stats()
            steps = steps_of(arguments, sessions, mode)
            if mode == "broken":
                steps.loss_of_step = unrecordable(steps)
            stack.enter_context(stream_of_its_own(steps.model))
            losses, seconds = first_losses(steps)
            wait()
        apart = max((abs(one - two) for one, two in zip(losses, plain, strict=False)), default=None)
        about = {
            "mode": mode,
            "captured": steps.recording is not None,
            "compiled": steps.compiles,
            "first_s": round(seconds[0], 2),
            "capture_s": round(max(seconds[on_device.WARM_UP : on_device.WARM_UP + 3]), 2),
            "losses": [round(losses[0], 4), round(losses[-1], 4)],
            "apart": apart,
        }
        if mode != "broken":
            with held(arguments, alone=True) as alone:
                top = f"{arguments.body}:{arguments.size}" in arguments.top.split(",")
                about |= {"alone": alone} | timed(steps) | profiled(steps, top)
    say(arguments, **about)
    return losses


def unrecordable(steps: Steps) -> Any:
    """The loss of a step, which asks the device for a value."""
    plain = steps.loss_of_step

    def loss_of_step() -> Any:
        loss = plain()
        return loss + 0.0 * loss.item()

    return loss_of_step


def run(arguments: argparse.Namespace) -> None:
    """What a process of its own does."""
    sessions = made_up_sessions()
    plain: list[float] = []
    for mode in arguments.modes.split(","):
        try:
            losses = measure(arguments, sessions, mode, plain)
            plain = plain or losses
        except Exception as error:
            say(arguments, mode=mode, error=repr(error)[:600], where=traceback.format_exc()[-1500:])


def main() -> None:
    """Start a process for each configuration, or be one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bodies", help="BODY or BODY:OBJECTIVE, several with commas; without, a choice of all")
    parser.add_argument("--tokens", default=SIZES)
    parser.add_argument("--loss", default="sampled_softmax")
    parser.add_argument("--modes", default="plain,captured,compiled,broken")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--top", default=TOP, help="Bodies and tokens of which the longest kernels are shown.")
    parser.add_argument("--limit", type=int, default=120, help="Seconds for a process.")
    parser.add_argument("--within", type=int, default=150, help="Seconds for all.")
    parser.add_argument("--body", help=argparse.SUPPRESS)
    parser.add_argument("--objective", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.body:
        run(arguments)
        return
    chosen = ALL
    if arguments.bodies:
        pairs = [body.partition(":")[::2] for body in arguments.bodies.split(",")]
        chosen = [(body, objective or "causal", arguments.tokens, arguments.modes) for body, objective in pairs]
    elif not CUDA:
        chosen = [(body, objective, "256", modes) for body, objective, _, modes in ALL]
    side_by_side(arguments, [command for configuration in chosen for command in commands(arguments, *configuration)])


def commands(arguments: argparse.Namespace, body: str, objective: str, sizes: str, modes: str) -> list[list[str]]:
    """The command lines of the processes of a body: those that compile have most to do."""
    asked = modes.split(",")
    together = ",".join(mode for mode in asked if mode in ("plain", "captured"))
    lines = []
    for place, size in enumerate(sizes.split(",")):
        broken = ["plain,broken"] if "broken" in asked and not place else []
        for group in ("compiled" if "compiled" in asked else "", together, *broken):
            own = ["--body", body, "--objective", objective, "--size", size, "--modes", group]
            own += ["--loss", arguments.loss, "--top", arguments.top, "--dropout", str(arguments.dropout)]
            lines += [[sys.executable, __file__, str(arguments.out), *own]] if group else []
    return lines


def side_by_side(arguments: argparse.Namespace, lines: list[list[str]]) -> None:
    """Run some processes at a time, those that compile first, each for `limit` seconds at most, all `within` so many."""
    waiting = sorted(lines, key=lambda line: "compiled" not in line)
    running: list[tuple[subprocess.Popen[bytes], list[str], float]] = []
    environment = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "2", "OMP_NUM_THREADS": "1"}
    end = time.monotonic() + arguments.within
    while waiting or running:
        while waiting and len(running) < SIDE_BY_SIDE and time.monotonic() < end:
            line = waiting.pop(0)
            running.append((subprocess.Popen(line, env=environment), line, time.monotonic()))
        for entry in list(running):
            process, line, began = entry
            late = time.monotonic() > min(end, began + arguments.limit)
            if late and process.poll() is None:
                process.kill()
                process.wait()
            if process.poll() is not None:
                running.remove(entry)
                if process.returncode:
                    print(json.dumps({"ended": process.returncode, "late": late, "command": line[3:11]}), flush=True)
        if time.monotonic() > end and waiting:
            print(json.dumps({"left_out": [line[3:11] for line in waiting]}), flush=True)
            waiting = []
        time.sleep(0.1)


if __name__ == "__main__":
    main()
