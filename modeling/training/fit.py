"""Fit a model: steps over a schedule of packed batches, validated by the code that recommends, resumed bit for bit.

    fit = make the model -> train -> the best validated weights; in order of time, or without validation cases, the last ones
    train = for each step: batch, loss, gradients, AdamW; now and then a log line, a validation, a checkpoint

The state of a run is a model, an optimizer, the random generators and a `State`; checkpoints hold all four. Every batch is a
function of the seed and the step, so a run that went on from a checkpoint has the weights of one that was never disturbed,
and stops where that would have stopped.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from modeling.config import NEXT_ITEM, Goal, ModelConfig, NegativesConfig, TrainingConfig
from modeling.heads.next_item import NextItem
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.splits import Split, trained_items
from modeling.training import checkpoints
from modeling.training.checkpoints import State
from modeling.training.device import Steps, stream_of_its_own
from modeling.training.distributed import num_processes
from modeling.training.log import Log, Report, describe_cases
from modeling.training.optimizer import RowAdamW, make_optimizer, use_sparse_gradients
from modeling.training.pieces import divide
from modeling.training.plan import Plan
from modeling.training.recency import choose_half_life, newest_days, recent_counts
from modeling.training.schedule import Schedule, make_schedule
from modeling.training.sharding import cut, put_together
from modeling.training.validation import Judge, judge_of
from modeling.training.warm_start import Start
from schemas.errors import DivergedError, InputError
from schemas.features import FeatureSchema

AfterStep = Callable[[State], object]


def fit(
    schema: FeatureSchema,
    split: Split,
    model_config: ModelConfig,
    config: TrainingConfig,
    folder: Path,
    report: Report,
    items: pl.DataFrame | None = None,
    after_step: AfterStep | None = None,
    start: Start | None = None,
    goal: Goal = Goal(),  # noqa: B008  (frozen)
    of_epochs: int | None = None,
) -> tuple[SequenceModel, dict[str, Any]]:
    """Train from the beginning, or from the newest checkpoint in `folder` -> the model, and facts about the run.

    `items` is the item table of the sessions: what item towers and pretrained vectors are made of. `after_step` is called
    after each step, before what is logged, validated and saved there. `start` is another model whose weights this one begins
    with, on the sessions that it says. `goal` is what validation chooses by, and `of_epochs` the length of the run whose
    learning rates these are, if this one stops earlier. The facts hold `history` (rows of `HistoryRow`), `validation_cases`
    and, as `weights`, what chose the weights.

    Raises:
        InputError: when there is nothing to learn from.
        DivergedError: when the loss or a weight is not finite.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    train_on = split.train.select(start.reads_N) if start else newest_days(split.train, config.recent_days)
    train_on = divide(train_on, config.piece_events)
    sessions = train_on.select(train_on.lengths >= 2)
    if not len(sessions):
        raise InputError(
            "No training session has two events: widen --days, or lower sessions.min_length or min_count. Where last items are "
            "the test (leave_one_out), the last two events of each are held out, so that it takes four."
        )
    device = choose_device(report)
    if NEXT_ITEM in model_config.heads and not trained_items(sessions, schema.num_items).any():
        raise InputError(
            "No training event is of an item of the vocabulary, so there is no item to learn: widen --days, or lower "
            "min_count of item_id in the dataset."
        )
    set_seed(config.seed)
    model = make_model(model_config, schema, sessions, split, items, report)
    if start:
        start.give(model, split.train, items)
    size = _size(model)
    if config.shard_items:
        cut(model)
    model.to(device)
    use_sparse_gradients(model, device)
    schedule = make_schedule(model, sessions.to(device), config)
    judge = _judge(model, split, config, goal, report)
    plan, threads = Plan(schedule.steps_per_epoch, config, of_epochs), torch.get_num_threads()
    report(
        f"Training {model_config.body.name} ({size:,} parameters) on {len(sessions):,} sessions, "
        f"{plan.steps:,} steps of about {config.tokens_per_step:,} events, {config.epochs} epochs"
        + (f", on {threads:,} CPU thread{'s' * (threads > 1)}." if device == "cpu" else ".")
    )
    set_seed(config.seed)  # what training draws does not depend on what building the model drew
    optimizer = make_optimizer(model, config)
    goes_on = start is None or start.give_moments(model, optimizer)
    state = checkpoints.resume(folder, model, optimizer) or State()
    state.start_clock()
    if not goes_on and not state.step:
        report("The optimizer begins anew: its state is not kept with the model that training starts from.")
    if state.step:
        report(f"Going on from step {state.step:,}.")
    log = Log(plan, judge, report, state)
    if config.trainer == "hugging_face":
        from modeling.training import hugging_face

        hugging_face.train(model, optimizer, schedule, log, folder, after_step)
    else:
        train(model, optimizer, schedule, log, folder, after_step)
    if state.chosen_step:
        checkpoints.load_weights(folder, state.chosen_step, model)
    put_together(model)
    state.count_costs()
    require_finite(model, config)
    facts = {"parameters": size, "sessions": len(sessions), "epochs": config.epochs, "device": device}
    tokens = sum(schedule.tokens_per_epoch) * state.step // plan.steps
    return model, facts | _facts(state, plan, judge) | costs(tokens, state.wall_seconds, state.cpu_seconds)


def _judge(model: SequenceModel, split: Split, config: TrainingConfig, goal: Goal, report: Report) -> Judge:
    """The judge of a run, which chooses nothing unless what validates comes after all training."""
    judge = judge_of(model, split.validation.to(model.device), config.order, goal)
    judge = replace(judge, chooses=judge.chooses and split.validates == "chooses")
    watched = split.validates != "nothing"  # else another run has chosen, and had its patience
    if watched and (problem := describe_cases(judge)):
        report(problem)
    if config.order == "time" and watched and "patience" in config.model_fields_set:
        report(
            "training.patience is not used: in order of time training runs to its end, and the last weights are kept."
        )
    return judge


def _size(model: SequenceModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _facts(state: State, plan: Plan, judge: Judge) -> dict[str, Any]:
    """What became of a run, and what chose its weights."""
    return {
        "steps": state.step,
        "planned_steps": plan.steps,
        "validation_cases": judge.count,
        "weights": "best validation" if state.chosen_step else "last step",
        "best_step": state.chosen_step or state.step,
        "goal": judge.goal,
        f"validation_{judge.goal}": state.best if state.chosen_step else state.history[-1].validation.get(judge.goal),
        "collapsed_step": state.collapsed_step,
        "history": [row.model_dump() for row in state.history],
    }


def costs(tokens: int, wall: float, cpu: float) -> dict[str, Any]:
    """Events that a run read, and the seconds it took: of all its processes, also of those that were interrupted."""
    return {
        "tokens": tokens,
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "tokens_per_cpu_second": round(tokens / max(cpu, 1e-9)),
    }


def train(
    model: SequenceModel,
    optimizer: RowAdamW,
    schedule: Schedule,
    log: Log,
    folder: Path,
    after_step: AfterStep | None = None,
) -> None:
    """Do the steps of the plan that are left; the model has the weights of the last one, `log.state` what became of the run.

    The host reads nothing of the device between two log lines.

    Raises:
        DivergedError: when the loss is not finite.
    """
    plan, judge, state = log.plan, log.judge, log.state
    model.train()
    with stream_of_its_own(model):
        steps = Steps(model, optimizer, schedule, plan, state.step, log.report)
        for step in range(state.step, len(schedule)):
            if state.stopped:
                break
            steps.do(step)
            state.step = step + 1
            if after_step:
                after_step(state)
            log.tick()
            if state.step in plan.logs:
                metrics = judge.validate(model) if state.step in plan.validations else {}
                model.train()
                log.write(steps.mean_loss(), metrics)
            if state.step in plan.saves:
                checkpoints.save(folder, model, optimizer, state)


def require_finite(model: SequenceModel, config: TrainingConfig) -> None:
    """Look at the weights once, at the end: the last step may have destroyed what its loss did not show yet.

    Raises:
        DivergedError: when one is not finite.
    """
    broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise DivergedError(
            f"After the last step, weights are not finite ({', '.join(broken[:3])}): the model has diverged. Try a lower "
            f"training.learning_rate (it is {config.learning_rate:g}) or training.max_grad_norm."
        )


def choose_device(report: Report) -> str:
    """`cuda` or `cpu`: one process trains on one device."""
    if not torch.cuda.is_available():
        return "cpu"
    if (count := torch.cuda.device_count()) > 1 and num_processes() == 1:
        report(f"Of {count} GPUs, number {torch.cuda.current_device()} is used: one process trains on one.")
    return "cuda"


def set_seed(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch, on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def make_model(
    config: ModelConfig,
    schema: FeatureSchema,
    sessions: Sessions,
    split: Split,
    items: pl.DataFrame | None,
    report: Report,
) -> SequenceModel:
    """A model that has the statistics of the training sessions that it reads and the item table, before its first step."""
    model = SequenceModel(config, schema)
    model.inputs.items.set_items(items, report)
    model.reach(sessions)
    if config.inputs.item_start == "neighbours":
        from modeling.training.item_start import begin_near_neighbours  # with scipy's solvers

        begin_near_neighbours(model, sessions)
    if NEXT_ITEM in model.heads:
        set_popularity(model.next_item, sessions, split.last_day, split.train)
        if not model.next_item.sampled and config.loss.negatives != NegativesConfig():
            report(f"loss.negatives is not used: {config.loss.name} compares with all items.")
    for head in model.label_heads.values():
        head.start(sessions)
    return model


@torch.no_grad()
def set_popularity(head: NextItem, train: Sessions, last_day: Sessions, history: Sessions | None = None) -> None:
    """Count how often items occur in training, and let an output bias begin at the log of their share of what is recent.

    Every item counts one event more. `history` are all training sessions, where those of `train` are the only ones read.
    """
    num_items = len(head.popularity_V)
    head.popularity_V.copy_(train.item_counts(num_items))
    head.uniform_U = head.popularity_V.nonzero().squeeze(1)  # an item that training does not hold is no negative
    if head.bias_V is None:
        return
    hours = head.bias_half_life
    if hours == "day":
        counts_V = last_day.item_counts(num_items).float()
    else:
        history = train if history is None else history
        hours = choose_half_life(history, num_items) if hours == "chosen" else float(hours)
        counts_V = recent_counts(history, hours, num_items)
    head.bias_V.copy_(((counts_V + 1) / (counts_V + 1).mean()).log())
