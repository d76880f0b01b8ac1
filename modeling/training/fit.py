"""Fit a model: the Hugging Face Trainer over a schedule of packed batches, with our ranking as its evaluation."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerControl

from modeling.batches import Batch
from modeling.config import LOWER_IS_BETTER, NEXT_ITEM, ModelConfig, NegativesConfig, TrainingConfig
from modeling.heads.next_item import NextItem
from modeling.model import SequenceModel
from modeling.sessions import Sessions
from modeling.splits import Cases, Split
from modeling.training.checkpoints import SafeCheckpoints, last_complete
from modeling.training.optimizer import RowAdamW, use_sparse_gradients
from modeling.training.schedule import Schedule, make_schedule
from modeling.training.validation import goal_of, validate
from schemas.columns import FIRST_ID
from schemas.errors import InputError
from schemas.features import FeatureSchema

LOGS_PER_EVALUATION = 4  # points of the loss curve
Progress = Callable[[str], object]


def fit(
    schema: FeatureSchema,
    split: Split,
    model_config: ModelConfig,
    config: TrainingConfig,
    checkpoints: Path,
    progress: Progress,
    items: pl.DataFrame | None = None,
) -> tuple[SequenceModel, dict[str, Any]]:
    """Train from the beginning, or from the newest of `checkpoints`; the best validated weights are returned.

    `items` is the item table of the sessions: what item towers and pretrained vectors are made of.

    Raises:
        InputError: when there is nothing to learn from.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    sessions = split.train.select(split.train.lengths >= 2)
    if not len(sessions):
        raise InputError("No training session has two events: widen --days, or lower sessions.min_length or min_count.")
    set_seed(config.seed)
    model = SequenceModel(model_config, schema)
    model.inputs.items.know(items, progress)
    if NEXT_ITEM in model.heads:
        know_popularity(model.next_item, sessions, split.last_day)
        if not model.next_item.sampled and model_config.loss.negatives != NegativesConfig():
            progress(f"loss.negatives is not used: {model_config.loss.name} compares with all items.")
    for head in model.label_heads.values():
        head.start(sessions)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if use_sparse_gradients(model, device) and config.weight_decay:
        progress("weight_decay leaves item vectors alone: with so many items a step changes only those it has read.")
    schedule = make_schedule(model, sessions.to(device), config)
    trainer = Trainer(model, schedule, split.validation, config, checkpoints, progress)
    checkpoint = last_complete(checkpoints)
    tokens = sum(schedule.tokens_per_epoch)
    steps, size = len(schedule), sum(parameter.numel() for parameter in model.parameters())
    progress(
        f"Training {model_config.body.name} ({size:,} parameters) on {len(sessions):,} "
        f"sessions, {steps:,} steps of about {config.tokens_per_step:,} events, {config.epochs} epochs."
        + (f" Going on from step {Path(checkpoint).name.rpartition('-')[2]}." if checkpoint else "")
    )
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.train(resume_from_checkpoint=checkpoint)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done = trainer.state.global_step - (int(Path(checkpoint).name.rpartition("-")[2]) if checkpoint else 0)
    trained = tokens * done // steps
    return model, {
        "parameters": size,
        "sessions": len(sessions),
        "steps": trainer.state.global_step,
        "planned_steps": steps,
        "best_step": trainer.state.best_global_step,
        "goal": trainer.goal,
        f"validation_{trainer.goal}": trainer.state.best_metric,
        "tokens": trained,
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "tokens_per_cpu_second": round(trained / max(cpu, 1e-9)),
        "history": trainer.state.log_history,
    }


@torch.no_grad()
def know_popularity(head: NextItem, train: Sessions, last_day: Sessions) -> None:
    """Tell how often items occur in training, and let an output bias begin at the log of their share of the newest day.

    The newest day counts one event more of every item.
    """
    head.popularity_V.copy_(_counts(train, len(head.popularity_V)))
    if head.bias_V is not None:
        counts_V = _counts(last_day, len(head.bias_V)) + 1
        head.bias_V.copy_((counts_V / counts_V.mean()).log())


def _counts(sessions: Sessions, num_items: int) -> torch.Tensor:
    _, event = sessions.event_index()
    column = sessions.items[event].long() - FIRST_ID
    return torch.bincount(column[column >= 0], minlength=num_items).float()


class Trainer(SafeCheckpoints):
    """The Hugging Face Trainer with our batches, our ranking as its evaluation, and checkpoints without pickle."""

    def __init__(
        self,
        model: SequenceModel,
        schedule: Schedule,
        validation: Cases,
        config: TrainingConfig,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.schedule, self.validation = schedule, validation
        self.goal = goal_of(model)
        self.control: TrainerControl
        log_steps = math.ceil(len(schedule) / config.evaluations / LOGS_PER_EVALUATION)
        interval = log_steps * LOGS_PER_EVALUATION
        # In order of time, a model in its first epoch has not seen the newest sessions, which validation asks about.
        delay = schedule.steps_per_epoch[0] if config.order == "time" else 0
        cuda = torch.cuda.is_available()
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=1,  # the schedule holds all epochs, so that steps alone say where a run stands
            per_device_train_batch_size=1,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.schedule,
            weight_decay=config.weight_decay,
            max_grad_norm=0.0,
            bf16=cuda and torch.cuda.is_bf16_supported(),
            use_cpu=not cuda,
            seed=config.seed,
            logging_steps=log_steps,
            logging_nan_inf_filter=False,
            eval_strategy="steps",
            eval_steps=interval,
            eval_delay=delay,
            save_strategy="steps",
            save_steps=interval,
            save_total_limit=2,
            load_best_model_at_end=True,
            metric_for_best_model=self.goal,
            greater_is_better=self.goal.rpartition("/")[2] not in LOWER_IS_BETTER,
            remove_unused_columns=False,
            dataloader_num_workers=0,
            disable_tqdm=not os.isatty(2),
            report_to="none",
        )
        stop = EarlyStoppingCallback(early_stopping_patience=config.patience)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=schedule,
            eval_dataset=[],  # asked for, never read: `evaluate` ranks cases
            optimizer_cls_and_kwargs=(RowAdamW, {"lr": config.learning_rate, "betas": (0.9, 0.98)}),
            callbacks=[stop, Narrator(progress, interval, self.goal)],
        )
        if self.pop_callback(ProgressCallback):  # present in a terminal
            self.add_callback(Bar)
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """One batch a step, already on the device; a sampler that Trainer can fast-forward when it resumes."""
        return DataLoader(self.schedule, batch_size=1, shuffle=False, collate_fn=lambda batches: {"batch": batches[0]})

    def compute_loss(self, model: Any, inputs: dict[str, Batch], *args: Any, **kwargs: Any) -> torch.Tensor:
        """The model's loss, a scalar."""
        loss: torch.Tensor = model(inputs["batch"])
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the validation cases."""
        cases = self.validation.to(self.model.device)
        metrics = {f"eval_{name}": value for name, value in validate(self.model, cases).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the count walks all parameters at each step."""
        return 0

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> None:
        """Not measured: it reads all gradients at each step, and takes no sparse ones."""


class Bar(ProgressCallback):
    """The progress bar of a terminal, without the dictionaries in between."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """The Narrator speaks instead."""


class Narrator(TrainerCallback):
    """A line now and then for whoever watches: the log, a flow run, a terminal."""

    def __init__(self, progress: Progress, interval: int, goal: str) -> None:
        self.progress, self.interval, self.goal = progress, interval, goal
        self.loss, self.started = float("nan"), time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        self.loss = logs.get("loss", self.loss)
        validated = logs.get(f"eval_{self.goal}")
        if validated is None and (control.should_evaluate or state.global_step % self.interval):
            return
        self.progress(
            f"step {state.global_step:,} of {state.max_steps:,} ({state.global_step / state.max_steps:.0%}), "
            f"loss {self.loss:.3f}, "
            + (f"validation {self.goal} {validated:.4f}, " if validated is not None else "")
            + f"{time.perf_counter() - self.started:.0f} s"
        )
