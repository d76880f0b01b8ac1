"""One case of the losses' benchmark, in a process of its own; the last line printed is JSON.

python benchmarks/losses_run.py CASE        the fields of losses.Case as JSON
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from losses import PREDICTIONS, Case, Json
from losses_page import processor
from torch import Tensor

from modeling.attention import Layout
from modeling.batches import Batch
from modeling.config import ModelConfig, TrainingConfig
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.training.optimizer import RowAdamW
from schemas.columns import FIRST_ID, ITEM_ID
from schemas.features import FeatureColumn, FeatureSchema

DIM, NEGATIVES, RUNS, MOST_SECONDS = 64, 256, 7, 20
LENGTH, STEPS = 20, 12  # events of a session, steps of training


def measure(case: Case) -> Json:
    """The figures of one case: in the child."""
    if case.device == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    measured = measure_training(case) if case.table == "training" else measure_loss(case)
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    name = torch.cuda.get_device_name() if case.device == "cuda" else processor()
    about = {"predictions": PREDICTIONS[case.device], "versions": versions, "processor": name}
    return asdict(case) | measured | about


def model_of(case: Case) -> SequenceModel:
    """SASRec with that loss and catalogue; what is not part of the loss is only trained by `--training`."""
    size = case.items + FIRST_ID
    column = FeatureColumn(name=ITEM_ID, kind="categorical", source=ITEM_ID, dtype="int32", cardinality=size)
    schema = FeatureSchema(dataset="benchmark", max_length=LENGTH, split="day", columns=(column,))
    group = case.group or PREDICTIONS[case.device]
    name = "full_softmax" if case.loss == "plain_softmax" else case.loss
    loss = {"name": name, "negatives": {"count": NEGATIVES, "group": group}}
    config = ModelConfig.model_validate({"body": {"dim": DIM}, "loss": loss})
    model = SequenceModel(config, schema).train().to(case.device)
    model.inputs.items.sparse = case.sparse
    return model


def measure_loss(case: Case) -> Json:
    """Forward and backward, then the same with an optimizer's step on the item vectors; memory of the first run."""
    model = model_of(case)
    head, items = model.next_item, model.inputs.items
    if case.loss == "plain_softmax":
        head.loss_of = lambda h_ND, items_VD, bias_V, target_N, weight_N: F.cross_entropy(h_ND @ items_VD.T, target_N)
    size = PREDICTIONS[case.device]
    h_BLD = torch.randn(1, size, DIM, device=case.device, requires_grad=True)
    batch = batch_of(torch.randint(FIRST_ID, FIRST_ID + case.items, (size,), device=case.device))
    optimizer = RowAdamW([items.table_VE], lr=1e-3)

    def learn() -> None:
        items.table_VE.grad = h_BLD.grad = None
        with torch.autocast(case.device, torch.bfloat16, enabled=case.device == "cuda"):
            loss = head.loss(h_BLD, batch, items)
        loss.backward()

    def learn_and_step() -> None:
        learn()
        optimizer.step()

    before = memory(case.device)
    learn()
    peak = memory(case.device, peak=True)
    milliseconds = timed(learn, case.device)
    learn_and_step()
    return {
        "ms": milliseconds,
        "step_ms": timed(learn_and_step, case.device),
        "extra_mb": round((peak - before) / 2**20),
    }


def batch_of(target_N: Tensor) -> Batch:
    """A batch that asks for these items at the places of one row."""
    size, device = len(target_N), target_N.device
    place_N, nothing = torch.arange(size, device=device), torch.zeros(size, dtype=torch.bool, device=device)
    layout = Layout(torch.ones_like(place_N)[None], place_N[None])
    weight_N = torch.full((size,), 1 / size, device=device)
    return Batch(layout, {}, nothing[None], place_N, target_N, weight_N, nothing, {})


def measure_training(case: Case) -> Json:
    """Events a second through whole steps of training, drawing batches and all."""
    from modeling.training.schedule import make_schedule  # loads transformers

    model, count = model_of(case), PREDICTIONS[case.device] * (STEPS + 2) // LENGTH
    rank = (case.items ** torch.rand(count * LENGTH)).long().clamp(max=case.items)  # a power law
    starts = torch.arange(count) * LENGTH
    lengths = torch.full((count,), LENGTH)
    sessions = Sessions({ITEM_ID: (rank - 1 + FIRST_ID).int()}, starts, lengths, end=torch.arange(count))
    config = TrainingConfig(epochs=1, tokens_per_step=PREDICTIONS[case.device], order="random")
    schedule = iter(make_schedule(model, sessions.to(case.device), config))
    optimizer = RowAdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98))

    def step() -> None:
        with torch.autocast(case.device, torch.bfloat16, enabled=case.device == "cuda"):
            loss = model(next(schedule))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    before = memory(case.device)
    step()
    peak = memory(case.device, peak=True)
    milliseconds = timed(step, case.device, STEPS)
    tokens = PREDICTIONS[case.device] * (LENGTH - 1) / LENGTH  # nothing follows the last event of a session
    return {
        "step_ms": milliseconds,
        "tokens_per_second": round(tokens / milliseconds * 1000),
        "extra_mb": round((peak - before) / 2**20),
    }


def timed(run: Callable[[], None], device: str, runs: int = RUNS) -> float:
    """Median milliseconds of several runs: of CPU, on a GPU of wall clock. Three at least, and then no longer than needed."""
    spent: list[float] = []
    while len(spent) < runs and (len(spent) < 3 or sum(spent) < MOST_SECONDS):
        begun = _clock(device)
        run()
        spent.append(_clock(device) - begun)
    return round(median(spent) * 1000, 2)


def _clock(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def memory(device: str, *, peak: bool = False) -> int:
    """Bytes in use, now or at the most so far."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated())
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(measure(Case(**json.loads(sys.argv[1])))))
