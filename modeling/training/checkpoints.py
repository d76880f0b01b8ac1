"""Training state on disk without pickle: tensors in safetensors, everything else in JSON. Resuming is bit-identical.

    <folder>/checkpoint-<step>/{model,optimizer,random}.safetensors, random.json, state.json

A checkpoint is written under another name and renamed once: it is complete or it is not there. The newest one and the one
whose weights are chosen so far are kept.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, PrivateAttr
from torch import Tensor, nn

from modeling.model import SequenceModel
from modeling.training.distributed import first_alone, is_first, num_processes, summed, wait
from modeling.training.sharding import file_of, is_cut, read_moments, with_own_rows, write_rows
from schemas import lock
from schemas.progress import HistoryRow
from schemas.writing import sync

NAME = "checkpoint-"
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
RANDOM_TENSORS, RANDOM = "random.safetensors", "random.json"


class State(BaseModel):
    """Where a run stands, but for its tensors.

    `step` steps are done. `best` is the goal at its best validation, after `best_step`; `waited` validations came since and
    were not better. `chosen_step` is that whose weights are kept (None: the last one), `collapsed_step` that of the first
    validation far below the best before it. `stopped`: the patience is at an end. `cpu_seconds` are those of all processes of
    the run, `wall_seconds` those of the first, also before an interruption.
    """

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    chosen_step: int | None = None
    waited: int = 0
    stopped: bool = False
    collapsed_step: int | None = None
    history: list[HistoryRow] = []
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    _clock: tuple[float, float] = PrivateAttr((0.0, 0.0))

    def start_clock(self) -> None:
        """From now on this process works for the run."""
        self._clock = time.perf_counter(), time.process_time()

    def count_costs(self) -> None:
        """Add what was used since the clock was started, by all processes together."""
        wall, cpu = self._clock
        self.start_clock()
        self.wall_seconds += self._clock[0] - wall
        self.cpu_seconds += summed(self._clock[1] - cpu)


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Write `checkpoint-<step>`, then remove all but it and that of the chosen step. Of several processes the first does."""
    state.count_costs()
    draft = folder / f".{NAME}{state.step}"
    if is_first():
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
    if isinstance(model, SequenceModel) and is_cut(model):
        wait()
        write_rows(draft, model, optimizer)
        wait()
    if is_first():
        _write(draft, model, optimizer, state)
    wait()


def _write(draft: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    folder, name = draft.parent, f"{NAME}{state.step}"
    write_tensors(model.state_dict(), draft / MODEL)
    write_optimizer(optimizer, draft)
    write_random_state(draft)
    (draft / STATE).write_text(state.model_dump_json() + "\n")
    for path in (*draft.iterdir(), draft):
        sync(path)
    lock.require_held()
    shutil.rmtree(folder / name, ignore_errors=True)
    draft.rename(folder / name)
    sync(folder)
    for old in steps_of(folder):
        if old not in (state.step, state.chosen_step):
            shutil.rmtree(folder / f"{NAME}{old}")


def resume(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State | None:
    """Set model, optimizer and random states to the newest whole checkpoint -> its state; None if there is none.

    A checkpoint that cannot be read, or whose chosen weights cannot, is removed, and nothing is taken from it. Of several
    processes the first one does that before the rest read.
    """
    with first_alone():
        return _newest(folder, model, optimizer)


def _newest(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State | None:
    for step in sorted(steps_of(folder), reverse=True):
        checkpoint = folder / f"{NAME}{step}"
        try:
            state = State.model_validate_json((checkpoint / STATE).read_text())
            json.loads((checkpoint / RANDOM).read_text())
            ranks = range(1, num_processes() if is_cut(model) else 1)
            for name in (MODEL, OPTIMIZER, RANDOM_TENSORS, *map(file_of, ranks)):
                safetensors.torch.load_file(checkpoint / name)
            if state.chosen_step:
                safetensors.torch.load_file(folder / f"{NAME}{state.chosen_step}" / MODEL)
        except (OSError, ValueError, safetensors.SafetensorError):
            shutil.rmtree(checkpoint)
            continue
        load_weights(folder, step, model)
        read_optimizer(optimizer, checkpoint)
        read_moments(checkpoint, model, optimizer)
        read_random_state(checkpoint)
        return state
    return None


def load_weights(folder: Path, step: int, model: nn.Module) -> None:
    """Give a model the weights of the checkpoint of a step."""
    checkpoint = folder / f"{NAME}{step}"
    model.load_state_dict(with_own_rows(safetensors.torch.load_file(checkpoint / MODEL), checkpoint, model))


def steps_of(folder: Path) -> list[int]:
    """The steps that have a checkpoint."""
    return [int(path.name.removeprefix(NAME)) for path in folder.glob(f"{NAME}*")]


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Tensors of any device as one safetensors file."""
    safetensors.torch.save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)


def write_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """What the optimizer keeps of each parameter; its settings follow from those of the run."""
    state = optimizer.state_dict()["state"]
    tensors = {f"{index}/{key}": value for index, slot in state.items() for key, value in slot.items()}
    write_tensors(tensors, folder / OPTIMIZER)


def read_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Take what `write_optimizer` wrote."""
    slots: dict[int, dict[str, Any]] = {}
    for name, value in safetensors.torch.load_file(folder / OPTIMIZER).items():
        index, _, key = name.partition("/")
        slots.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def write_random_state(folder: Path) -> None:
    """The states of the random generators of Python, NumPy, torch and the current GPU."""
    version, words, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    safetensors.torch.save_file(tensors, folder / RANDOM_TENSORS)
    (folder / RANDOM).write_text(json.dumps({"python": [version, gauss], "numpy": [kind, *rest]}))


def read_random_state(folder: Path) -> None:
    """Take what `write_random_state` wrote."""
    tensors = safetensors.torch.load_file(folder / RANDOM_TENSORS)
    generators = json.loads((folder / RANDOM).read_text())
    version, gauss = generators["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    kind, *rest = generators["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), *rest))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
