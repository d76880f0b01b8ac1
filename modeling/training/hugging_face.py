"""The same training through `transformers.Trainer` (training.trainer: hugging_face), for its callbacks, accelerate and FSDP.

`ScheduleTrainer` is a Trainer with our batches, our optimizer and learning rates, and our ranking as its evaluation; everything
else is the Trainer's, so in a script of one's own it takes any TrainingArguments and callbacks, also under `accelerate launch`.
`train` runs it in the place of `modeling.training.fit.train`: one process, the same log, checkpoints and weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from modeling.batches import Batch
from modeling.model import SequenceModel
from modeling.training import checkpoints
from modeling.training.log import Log
from modeling.training.optimizer import make_optimizer
from modeling.training.plan import Plan
from modeling.training.schedule import Schedule
from modeling.training.validation import Judge
from schemas.errors import InputError


class ScheduleTrainer(Trainer):
    """A Trainer over the steps of a schedule from `start` on. Several processes take turns with its batches."""

    optimizer: Any
    control: TrainerControl

    def __init__(
        self,
        model: SequenceModel,
        schedule: Schedule,
        judge: Judge,
        plan: Plan,
        args: TrainingArguments,
        start: int = 0,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        self.judge, self.plan, self.start = judge, plan, start
        _ = args.device
        args._n_gpu = 1  # never nn.DataParallel: it splits a batch's rows, and gathers gradients on one GPU
        super().__init__(
            model,
            args,
            train_dataset=Subset(schedule, range(start, len(schedule))),
            eval_dataset=[],  # asked for, never read: `evaluate` ranks cases
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        self.loss_sum, self.summed = torch.zeros((), device=args.device), 0

    def get_train_dataloader(self) -> DataLoader[dict[str, Batch]]:
        """One batch a step, already on the device. Its generator keeps a loader from drawing of torch's."""
        loader = DataLoader(
            self.train_dataset, collate_fn=lambda batches: {"batch": batches[0]}, generator=torch.Generator()
        )
        prepared: DataLoader[dict[str, Batch]] = (
            self.accelerator.prepare(loader) if self.args.world_size > 1 else loader
        )
        return prepared

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW as in our loop."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.model if model is None else model, self.plan.config)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rates of the plan."""
        share = lambda step: self.plan.share(self.start + step * self.args.world_size)  # noqa: E731
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share)
        return self.lr_scheduler

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The model's loss, which is also summed for the log."""
        loss = model(inputs["batch"])
        self.loss_sum, self.summed = self.loss_sum + loss.detach(), self.summed + 1
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The validation metrics, ranked by the code that recommends."""
        metrics = {f"eval_{name}": value for name, value in self.judge.validate(self.model).items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the count walks all parameters at each step."""
        return 0

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Not measured for its own sake: it reads all gradients at each step, and takes no sparse ones."""
        return grad_norm


def train(
    model: SequenceModel,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    log: Log,
    folder: Path,
    after_step: Any = None,
) -> None:
    """As `modeling.training.fit.train`.

    Raises:
        InputError: for gradients to be clipped that hold only the rows read.
    """
    plan, state, config = log.plan, log.state, log.plan.config
    if config.max_grad_norm and model.inputs.items.sparse:
        raise InputError(
            "training.max_grad_norm: transformers.Trainer cannot clip the sparse gradients of so many items. Set it to 0, or "
            "training.trainer to own."
        )
    cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=1, seed=config.seed, use_cpu=not cuda,
        bf16=cuda and torch.cuda.is_bf16_supported(), learning_rate=config.learning_rate,
        max_grad_norm=config.max_grad_norm or 0.0, logging_strategy="no", eval_strategy="no", save_strategy="no",
        logging_nan_inf_filter=False, remove_unused_columns=False, disable_tqdm=True, report_to="none",
    )  # fmt: skip
    if state.step < plan.steps and not state.stopped:
        trainer = ScheduleTrainer(model, schedule, log.judge, plan, arguments, start=state.step)
        trainer.optimizer = optimizer
        trainer.add_callback(Conductor(trainer, log, folder, after_step))
        trainer.train()


class Conductor(TrainerCallback):
    """Logs, validates, saves and stops where our loop does."""

    def __init__(self, trainer: ScheduleTrainer, log: Log, folder: Path, after_step: Any) -> None:
        self.trainer, self.log, self.folder, self.after_step = trainer, log, folder, after_step
        self.state = log.state

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Random numbers go on where the checkpoint left them, also where building a Trainer drew some."""
        if self.state.step:
            checkpoints.read_random_state(self.folder / f"{checkpoints.NAME}{self.state.step}")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer, ours, plan = self.trainer, self.state, self.trainer.plan
        ours.step = trainer.start + state.global_step
        if self.after_step:
            self.after_step(ours)
        self.log.tick()
        if ours.step in plan.logs:
            metrics = trainer.evaluate() if ours.step in plan.validations else {}
            self.log.write(
                float(trainer.loss_sum) / trainer.summed,
                {name.removeprefix("eval_"): value for name, value in metrics.items()},
            )
            trainer.loss_sum, trainer.summed = torch.zeros_like(trainer.loss_sum), 0
            control.should_log = True
        if ours.step in plan.saves:
            checkpoints.save(self.folder, trainer.model, trainer.optimizer, ours)
        control.should_training_stop |= ours.stopped
