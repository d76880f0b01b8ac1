"""The steps of a run, done on the device: one after the other, or captured once in a CUDA graph and replayed.

    step = batch of the step's number -> loss -> gradients -> AdamW -> the sum of losses and the number go up

A step of a thousand events is some hundred kernels that a GPU does faster than Python can start them. Where all batches have one
shape, a step depends on nothing but tensors that stay where they are: the number of the step, the order of the epoch, the
learning rates, weights and moments. After a few steps done as usual the whole of it is recorded, and the host starts each
further one at once. Random numbers are the same as without: a graph advances torch's generators as its operations would.

Everything runs on one stream of its own: torch does the gradients of a weight on the stream it was first used on, and a graph
cannot wait for any other.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from modeling.batches import Batch
from modeling.model import SequenceModel
from modeling.training.distributed import Together
from modeling.training.optimizer import RowAdamW, clip_gradients
from modeling.training.plan import Plan
from modeling.training.schedule import Schedule

WARM_UP = 3  # steps done as usual before one is captured: kernels are chosen, moments made
COMPILED_FROM = 2**28  # of `work`: compiling takes 20 s, and saves about .5 ms and 70 ns a place of each step
Report = Callable[[str], object]


class Steps:
    """Does the steps of a run; `mean_loss` is that of those since it was last asked for."""

    def __init__(
        self, model: SequenceModel, optimizer: RowAdamW, schedule: Schedule, plan: Plan, first: int, report: Report
    ) -> None:
        self.model, self.optimizer, self.schedule, self.plan, self.report = model, optimizer, schedule, plan, report
        self.loss_of: Callable[[Batch], Tensor] = model
        self.half = model.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.loss_sum, self.summed = torch.zeros((), device=model.device), 0
        self.on_device = schedule.fixed and not is_sparse(model)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.together = Together(model, plan)
        self.captures = self.on_device and plan.config.capture == "auto" and can_capture(model)
        if self.together.count > 1 and self.captures:
            self.captures = False
            report(f"{self.together.count} processes train together: steps are not captured in a CUDA graph.")
        self.done = 0
        if self.on_device:
            self.step_1 = torch.full((1,), first, device=model.device)
            rates = [plan.rate(step) for step in range(len(schedule))]
            self.rates = torch.tensor(rates, dtype=torch.float32, device=model.device)
            self.rate = torch.zeros((), device=model.device)
            for group in optimizer.param_groups:
                group["lr"], group["capturable"] = self.rate, True
        alone = self.together.count == 1
        if alone and can_capture(model) and plan.config.compile == "auto" and work(schedule, first) >= COMPILED_FROM:
            self.compile()

    def do(self, step: int) -> None:
        """Do a step, the one after that done before."""
        self.schedule.seek(step)
        self.together.begin(step)
        if self.captures and self.done >= WARM_UP and self.graph is None:
            self.capture()
        if self.graph is not None:
            self.graph.replay()
        elif self.on_device:
            self._on_device()
        else:
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.rate(step)
            self._learn(self.schedule[step])
        self.done, self.summed = self.done + 1, self.summed + 1

    def mean_loss(self) -> float:
        """The mean loss of the steps since the last call: the host waits for the device here."""
        mean = float(self.loss_sum) / max(self.summed, 1)
        self.loss_sum.zero_()
        self.summed = 0
        return mean

    def _on_device(self) -> None:
        """A step in which the host says nothing that differs from step to step."""
        self.rate.copy_(self.rates[self.step_1].squeeze(0))
        self._learn(self.schedule.batch(self.step_1))
        self.step_1 += 1

    def _learn(self, batch: Batch) -> None:
        with torch.autocast("cuda", torch.bfloat16) if self.half else contextlib.nullcontext():
            loss = self.loss_of(self.together.part(batch))
        loss.backward()
        loss = self.together.sum(loss)
        if self.plan.config.max_grad_norm:
            clip_gradients(self.model.parameters(), self.plan.config.max_grad_norm, self.together.norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.loss_sum += loss

    def compile(self) -> None:
        """Let torch write kernels for the model; they are made in the next step."""
        self.loss_of = torch.compile(self.model, dynamic=False)

    def capture(self) -> None:
        """Record a step, which is not done by that. Where it cannot be recorded, steps go on as before, and why is said."""
        gc.collect()  # what an earlier step left would be asked for on its stream
        before = torch.cuda.get_rng_state()
        graph = new_graph()
        graph.register_generator_state(self.schedule.generator)
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                self._on_device()
        except RuntimeError as error:
            self.captures = False
            self.optimizer.zero_grad()
            graph.reset()
            restore_generators(self.schedule, before)
            reason = " ".join(str(error.__context__ or error).split())[:200]
            self.report(f"Steps are not captured in a CUDA graph, and go on without: {reason}")
        else:
            self.graph = graph


def is_sparse(model: SequenceModel) -> bool:
    """Whether gradients hold only the rows read: their number is read by the host at each step."""
    return model.inputs.items.sparse


def can_capture(model: SequenceModel) -> bool:
    """Whether there are CUDA graphs, and no part of the model asks the device itself (mixtures of experts do)."""
    experts = any("expert" in name or "router" in name for name, _ in model.body.named_modules())
    return model.device.type == "cuda" and torch.backends.cuda.is_built() and not experts


def work(schedule: Schedule, first: int) -> int:
    """What is left of a run after `first` steps, in places; a step costs as much as 8,192, however small."""
    return (len(schedule) - first) * (schedule.places_per_step + 8192)


def new_graph() -> Any:
    return torch.cuda.CUDAGraph()


@contextlib.contextmanager
def stream_of_its_own(model: SequenceModel) -> Iterator[None]:
    """All that is done on a GPU within is done on one stream, after what was asked before and before what is asked afterwards."""
    if model.device.type != "cuda" or not torch.backends.cuda.is_built():
        yield
        return
    outside, stream = torch.cuda.current_stream(), torch.cuda.Stream()
    stream.wait_stream(outside)
    with torch.cuda.stream(stream):
        yield
    outside.wait_stream(stream)


def restore_generators(schedule: Schedule, state: Tensor) -> None:
    """After a capture that failed, generators believe that it goes on: give them fresh states, of the same numbers."""
    default = torch.cuda.default_generators[torch.cuda.current_device()]
    default.graphsafe_set_state(torch.Generator("cuda").graphsafe_get_state())
    torch.cuda.set_rng_state(state)
    seed = schedule.generator.initial_seed()
    schedule.generator.graphsafe_set_state(torch.Generator("cuda").graphsafe_get_state())
    schedule.generator.manual_seed(seed)
