"""The steps of a run, done on the device: one after the other, or captured once in a CUDA graph and replayed.

    step = batch of the step's number -> loss -> gradients -> AdamW -> the sum of losses and the number go up

A step of a thousand events is some hundred kernels that a GPU does faster than Python can start them. Where all batches have
one shape, a step depends on nothing but tensors that stay where they are: the number of the step, the order of the epoch, the
learning rates, weights and moments. After a few steps done as usual the whole of it is recorded, and the host starts each
further one at once. Random numbers are the same as without: a graph advances torch's generators as its operations would.

Everything runs on one stream of its own: torch does the gradients of a weight on the stream it was first used on, and a graph
cannot wait for any other.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from modeling.batches import Batch
from modeling.model import SequenceModel
from modeling.training.distributed import Together
from modeling.training.optimizer import RowAdamW, clip_gradients
from modeling.training.plan import Plan
from modeling.training.schedule import Schedule
from schemas.errors import InputError

WARM_UP = 3  # steps done as usual: kernels are chosen, moments made. The next one must read nothing, the one after is captured
COMPILED_FROM = 2**29  # of `work`: on an H100 compiling takes 20 s and saves 1 ms and 75 ns a place of each step
LIKE = 8.0  # times as large or small a norm of gradients may be with other draws
Report = Callable[[str], object]


class Steps:
    """Does the steps of a run; `mean_loss` is that of those since it was last asked for."""

    def __init__(
        self, model: SequenceModel, optimizer: RowAdamW, schedule: Schedule, plan: Plan, first: int, report: Report
    ) -> None:
        self.model, self.optimizer, self.schedule, self.plan, self.report = model, optimizer, schedule, plan, report
        self.half = model.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.loss_sum, self.summed, self.done = torch.zeros((), device=model.device), 0, 0
        self.on_device = schedule.fixed and not model.inputs.items.sparse  # the host reads which rows a step has read
        self.together = Together(model, plan)
        self.captures = self.on_device and plan.config.capture == "auto" and can_capture(model)
        if self.captures and self.together.count > 1:
            self.captures = False
            report(f"{self.together.count} processes train together: steps are not captured in a CUDA graph.")
        self.recording: Recording | None = None
        self.loss_of_step: Callable[[], Tensor] = self._loss_of_step
        if self.on_device:
            self._take_rates(first)
        self.compiles = self.captures and plan.config.compile == "auto" and work(schedule, first) >= COMPILED_FROM
        if self.compiles:  # kernels are made in the first step
            self.loss_of_step = torch.compile(self._loss_of_step, dynamic=False)

    def do(self, step: int) -> None:
        """Do a step, the one after that done before.

        Raises:
            InputError: when a step that asks the device for nothing cannot be captured all the same.
        """
        self.schedule.seek(step)
        self.together.begin(step)
        if self.recording is not None:
            self.recording.replay()
        elif self.compiles and not self.done:
            # What fails to compile may raise anything; an error of the step itself comes again without.
            self._attempt((Exception,), "The model is not compiled", self._do_not_compile, self._compiled_first)
        elif self.captures and self.done == WARM_UP:
            with reading_forbidden():
                self._attempt((RuntimeError,), "Steps are not captured in a CUDA graph", self._do_not_capture)
        elif self.captures and self.done > WARM_UP:
            gc.collect()  # what an earlier step left would be waited for
            self.recording = Recording(self._on_device, self.schedule.generator)
            self.recording.replay()
        elif self.on_device:
            self._on_device()
        else:
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.rate(step)
            self._learn(self._loss_of(self.schedule[step]))
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
        self._learn(self.loss_of_step())
        self.step_1 += 1

    def _loss_of_step(self) -> Tensor:
        """The loss of the step whose number lies on the device."""
        return self._loss_of(self.schedule.batch(self.step_1))

    def _loss_of(self, batch: Batch) -> Tensor:
        """The loss of a batch, in bfloat16 where the GPU has it."""
        with torch.autocast("cuda", torch.bfloat16) if self.half else contextlib.nullcontext():
            loss: Tensor = self.model(self.together.part(batch))
        return loss

    def _learn(self, loss: Tensor) -> None:
        loss.backward()
        loss = self.together.sum(loss)
        if self.plan.config.max_grad_norm:
            clip_gradients(self.model.parameters(), self.plan.config.max_grad_norm, self.together.norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.loss_sum += loss

    def _take_rates(self, first: int) -> None:
        """Put on the device the number of the step to do and the learning rates, one of which the optimizer reads."""
        device = self.model.device
        self.step_1 = torch.full((1,), first, device=device)
        rates = [self.plan.rate(step) for step in range(len(self.schedule))]
        self.rates, self.rate = torch.tensor(rates, dtype=torch.float32, device=device), torch.zeros((), device=device)
        for group in self.optimizer.param_groups:
            group["lr"], group["capturable"] = self.rate, True

    def _compiled_first(self) -> None:
        """The first step, compiled, once its gradients are seen to be those of the step as it is, but for what is drawn.

        Raises:
            ArithmeticError: where they are not.
        """
        state, norms = torch.cuda.get_rng_state(), []
        for loss_of_step in (self._loss_of_step, self.loss_of_step):
            loss_of_step().backward()
            norms.append(gradient_norms(self.model))
            self.optimizer.zero_grad()
            self._draw_again(state)
        if apart := unlike(*norms):
            raise ArithmeticError(f"gradients of {', '.join(apart[:3])} differ from those of the step as it is")
        self._on_device()

    def _draw_again(self, state: Tensor) -> None:
        """Let the step that begins draw the numbers of the one before it."""
        torch.cuda.set_rng_state(state)
        self.schedule.generator.manual_seed(self.schedule.generator.initial_seed())

    def _attempt(
        self,
        errors: tuple[type[Exception], ...],
        what: str,
        give_up: Callable[[], None],
        do: Callable[[], None] | None = None,
    ) -> None:
        """Do a step that may fail before it changes anything. Then `what` is said with the reason, and it is done without."""
        state = torch.cuda.get_rng_state()
        try:
            (do or self._on_device)()
        except errors as error:
            give_up()
            reason = " ".join(str(error).split())[:200]
            self.report(f"{what} ({type(error).__name__}: {reason}); training goes on without.")
            self.optimizer.zero_grad()
            self._draw_again(state)
            self._on_device()

    def _do_not_compile(self) -> None:
        self.compiles, self.loss_of_step = False, self._loss_of_step

    def _do_not_capture(self) -> None:
        torch.cuda.set_sync_debug_mode("default")
        self.captures = False


class Recording:
    """Work recorded in a CUDA graph, without being done."""

    def __init__(self, work: Callable[[], None], generator: torch.Generator) -> None:
        """`generator` is what the work draws from, but for torch's own.

        Raises:
            InputError: when it cannot be recorded. A process that has failed at that is of no use to CUDA any more.
        """
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(generator)
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            reason = " ".join(str(error.__context__ or error).split())[:200]
            raise InputError(
                f"A training step could not be captured in a CUDA graph ({reason}). Set training.capture to off and start "
                "again: the run goes on from its last checkpoint."
            ) from error

    def replay(self) -> None:
        """Do the work."""
        self.graph.replay()


def gradient_norms(model: SequenceModel) -> dict[str, float]:
    """The norm of each parameter's gradient, 0 where there is none."""
    named = dict(model.named_parameters())
    zero = torch.zeros((), device=model.device)
    norms = [zero if p.grad is None else torch.linalg.vector_norm(p.grad.float()) for p in named.values()]
    return dict(zip(named, torch.stack(norms).tolist(), strict=True))


def unlike(plain: dict[str, float], compiled: dict[str, float]) -> list[str]:
    """The parameters whose gradients are of another size, if they are more than what other draws explain.

    Dropout and sampled negatives are drawn in another order where they are compiled, and what only some draws ask of a model
    (a vector of forgotten ids) may have a gradient in one of the two alone.
    """
    total_plain, total = (math.hypot(*norms.values()) for norms in (plain, compiled))
    apart = [name for name, norm in plain.items() if norm and not norm / LIKE <= compiled[name] <= norm * LIKE]
    return apart if len(apart) > len(plain) / 10 or not total_plain / LIKE <= total <= total_plain * LIKE else []


@contextlib.contextmanager
def reading_forbidden() -> Iterator[None]:
    """Within, all that makes the host wait for the device raises a RuntimeError."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def can_capture(model: SequenceModel) -> bool:
    """Whether there are CUDA graphs, and no part of the model asks the device itself (mixtures of experts do)."""
    experts = any("expert" in name or "router" in name for name, _ in model.body.named_modules())
    return model.device.type == "cuda" and torch.backends.cuda.is_built() and not experts


def work(schedule: Schedule, first: int) -> int:
    """What compiling saves in a run after `first` steps, in places: of each step as much as 13,000 of them, however small."""
    return (len(schedule) - first) * (schedule.places_per_step + 13_000)


@contextlib.contextmanager
def stream_of_its_own(model: SequenceModel) -> Iterator[None]:
    """What is done on a GPU within is done on one stream, after what was asked before, before what is asked afterwards."""
    if model.device.type != "cuda" or not torch.backends.cuda.is_built():
        yield
        return
    outside, stream = torch.cuda.current_stream(), torch.cuda.Stream()
    stream.wait_stream(outside)
    with torch.cuda.stream(stream):
        yield
    outside.wait_stream(stream)
