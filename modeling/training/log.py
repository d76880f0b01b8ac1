"""What a run says while it trains: rows for its history, reports for whoever watches, and warnings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from modeling.training.checkpoints import State
from modeling.training.plan import Plan
from modeling.training.validation import FEW, Judge
from schemas.errors import DivergedError
from schemas.progress import HistoryRow, Progress, TrainingProgress

PHASE = "train"
SECONDS_PER_REPORT = 1.0  # between two reports of the step alone
Report = Callable[[Progress | str], object]


class Log:
    """What a run says: rows for its history, and reports for whoever watches."""

    def __init__(self, plan: Plan, judge: Judge, report: Report, state: State) -> None:
        self.plan, self.judge, self.report, self.state = plan, judge, report, state
        self.loss = state.history[-1].loss if state.history else None
        self.validation = next(
            (row.validation[judge.goal] for row in reversed(state.history) if judge.goal in row.validation), None
        )
        self.started = self.reported = time.perf_counter()

    def tick(self) -> None:
        """Report the step, if the last report was a while ago."""
        if time.perf_counter() - self.reported > SECONDS_PER_REPORT:
            self._report("")

    def write(self, loss: float, metrics: dict[str, float]) -> None:
        """Add a row to the history, let a validation choose the best weights and stop the run, and report.

        Raises:
            DivergedError: when the loss is not finite.
        """
        state, plan, goal = self.state, self.plan, self.judge.goal
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss is {loss} at step {state.step:,} of {plan.steps:,}: the model has diverged. Try a lower "
                f"training.learning_rate (it is {plan.config.learning_rate:g}) or training.max_grad_norm."
            )
        rate = plan.rate(state.step - 1)
        row = HistoryRow(
            step=state.step, epoch=plan.epoch(state.step), loss=loss, learning_rate=rate, validation=metrics
        )
        state.history.append(row)
        self.loss, line = loss, ""
        if metrics or state.step == plan.steps:
            line = f"step {state.step:,} of {plan.steps:,} ({state.step / plan.steps:.0%}), loss {loss:.3f}, "
        if goal in metrics and self.judge.count:
            self.validation = metrics[goal]
            line += f"validation {goal} {metrics[goal]:.4f}, "
            if self.judge.consider(state, metrics[goal], plan.config.patience):
                self.report(describe_collapse(self.judge, state, metrics[goal]))
        seconds = time.perf_counter() - self.started
        self._report(f"{line}{seconds:.0f} s" if line else "", validated=goal in metrics)

    def _report(self, message: str, *, validated: bool = False) -> None:
        self.reported = time.perf_counter()
        state = self.state
        report = TrainingProgress(
            PHASE,
            state.step,
            self.plan.steps,
            message,
            epoch=self.plan.epoch(state.step),
            loss=self.loss,
            metric=self.judge.goal,
            validation=self.validation,
            seconds=self.reported - self.started,
            gains=self.judge.gains if validated else (),
        )
        self.report(report)


def describe_cases(judge: Judge) -> str:
    """What is to be said of validation that has no case, or few; else nothing."""
    if not judge.count:
        return (
            f"Warning: no validation case has a {judge.goal} (the newest training day has fewer than ten sessions, or no item "
            "or label that training knows): training runs to its end unwatched, and the last weights are kept."
        )
    if judge.count < FEW:
        effect = "chance has a hand in which weights are kept" if judge.chooses else "their curve is rough"
        return f"Only {judge.count:,} validation cases (fewer than {FEW}): {effect}."
    return ""


def describe_collapse(judge: Judge, state: State, value: float) -> str:
    """That a validation found little left of what the best one had."""
    kept = "best validated" if judge.chooses else "last"
    return (
        f"Warning: validation {judge.goal} went from {state.best:.4f} (step {state.best_step:,}) to {value:.4f} (step "
        f"{state.step:,}): further training destroys the model. The {kept} weights are kept; take fewer epochs or a lower "
        "learning_rate."
    )
