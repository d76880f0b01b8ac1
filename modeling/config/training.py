"""What can be set about training: how long, in which order, at which rate, by what, on which devices."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from modeling.config.model import Concern


class TrainingConfig(Concern):
    """How the model is fit."""

    model_config = ConfigDict(title="Training")

    epochs: int = Field(10, ge=1, le=1000, title="Epochs", description="Passes over the training sessions.")
    order: Literal["time", "random"] = Field(
        "time",
        title="Order",
        description="random; or time: the last epoch has the oldest sessions first, so that its last steps see the newest, and "
        "its weights are kept (the epochs before it are in random order).",
    )
    half_life_days: float | None = Field(
        None,
        gt=0,
        title="Half-life",
        description="From the second epoch on a session is kept with probability 2^(-age/half-life). Empty keeps all.",
    )
    piece_events: int | None = Field(
        None,
        ge=2,
        title="Events of a piece",
        description="Longer sessions are trained on in pieces of at most so many events; no more than the newest so many of a "
        "session are read then, also in service. Empty: sessions are whole. Left out, a run takes 200 of histories with many "
        "events of each item.",
    )
    # `overnight train` chooses these three, and with the rate the warm-up, by the shape of the data (presets/by_shape.py).
    recent_days: int | None = Field(
        None,
        ge=1,
        title="Recent days",
        description="From scratch, training reads only the sessions of so many days up to the newest; empty reads all. Left "
        "out, a run takes 2 where what people take changes from day to day.",
    )
    tokens_per_step: int = Field(
        1024,
        ge=16,
        title="Tokens per step",
        description="Events in one optimizer step. Left out, a run takes 0.26 events^(2/3), as a power of two; a sixteenth "
        "of that in one pass over recent days where what people take changes from day to day.",
    )
    learning_rate: float = Field(
        1e-3,
        gt=0,
        allow_inf_nan=False,
        title="Learning rate",
        description="Peak of AdamW's learning rate. Left out, a run takes 0.003 with a warm-up of 0.1 to 1,024 events a "
        "step and 0.002 above; of histories 0.003 to 512 and 0.002 above, or 0.001 with a constant schedule.",
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", title="Schedule", description="Learning rate over the run; linear and cosine end at zero."
    )
    warmup_steps: float = Field(
        0,
        ge=0,
        title="Warm-up",
        description="Steps in which the learning rate rises to its peak; below 1, that share of the run. 0: none.",
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        title="Weight decay",
        description="AdamW's, on the matrices of layers: not on tables of vectors, norms, biases or single vectors.",
    )
    max_grad_norm: float | None = Field(
        None,
        ge=0,
        title="Gradient clipping",
        description="Largest norm of all gradients together; larger ones are scaled down to it. Empty or 0: never.",
    )
    evaluations: int = Field(
        10,
        ge=1,
        title="Evaluations",
        description="Validations (and checkpoints) at ends of epochs, evenly spread; in random order between them, too, if "
        "there are more than epochs. In random order the best one wins.",
    )
    patience: int = Field(
        3,
        ge=1,
        title="Patience",
        description="Random order: validations without a better score after which training stops.",
    )
    validation: Literal["days", "sample"] | None = Field(
        None,
        title="Validation",
        description="Sessions by days. days: the newest training days are held out whole, the number of epochs is chosen on "
        "them, and the model is trained again with them. sample: some sessions of the newest day are watched and choose "
        "nothing. Empty: days in random order, else sample.",
    )
    validation_days: int = Field(1, ge=1, title="Validation days", description="Days held out whole, the newest ones.")
    validation_sessions: int = Field(
        2000,
        ge=1,
        title="Validation sessions",
        description="Most sessions that validation asks about; of a sample of the last training day at most a tenth of it.",
    )
    trainer: Literal["own", "hugging_face"] = Field(
        "own",
        title="Trainer",
        description="own: Overnight's loop. hugging_face: transformers.Trainer on the same batches, for its callbacks.",
    )
    capture: Literal["auto", "off"] = Field(
        "auto",
        title="Capture",
        description="auto: on a GPU, a step whose shapes are fixed is captured in a CUDA graph and replayed. off: never.",
    )
    compile: Literal["auto", "off"] = Field(
        "auto",
        title="Compile",
        description="auto: on a GPU, the model of a long run goes through torch.compile. off: never.",
    )
    seed: int = Field(
        17,
        ge=0,
        lt=2**32,  # what NumPy and transformers take
        title="Seed",
        description="Same seed and threads, same bits (on one machine's CPU).",
    )
    threads: int | None = Field(
        None,
        ge=1,
        title="Threads",
        description="CPU threads. Empty: OMP_NUM_THREADS, or one for every 512 events of a step, as far as there are cores. "
        "Another number adds in another order, so it gives other bits, and a model of its own.",
    )

    devices: int = Field(
        1,
        ge=1,
        title="Devices",
        description="Processes that train the model together and share each step, each on a GPU of its own or all on the CPU. "
        "Another number adds in another order, so it gives a model of its own.",
    )

    shard_items: bool = Field(
        False,
        title="Shard items",
        description="Divide the table of item vectors over the devices, for catalogues too large to be trained on one.",
    )

    refit: bool = Field(
        False,
        title="Refit",
        description="A model that is promoted is trained again with the day it was tested on, by the same recipe, and takes "
        "the place of the one that was evaluated. Costs as much as its training.",
    )

    start_from: str | None = Field(
        None,
        pattern=r"^(champion|models/[0-9a-f]{4,16})$",
        title="Start from",
        description="The model whose weights training begins with: champion (the one in service), or such as models/1f2e. The "
        "five settings below then count. Empty, or where there is none: from scratch.",
    )
    window_days: int | None = Field(
        None,
        ge=1,
        title="Window",
        description="Starting from a model: days of sessions that are read last and all, the newest ones and those that came "
        "after that model's. Empty: as many as there are `epochs`, 7 at most.",
    )
    replay: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Replay",
        description="Starting from a model: share of all sessions that is read before the window, in random order. Empty: a "
        "ninth of `epochs`, 1 at most.",
    )
    warm_epochs: int | None = Field(
        None,
        ge=1,
        le=1000,
        title="Warm epochs",
        description="Starting from a model: passes, in the place of `epochs`. Empty: a ninth of those, one at least.",
    )
    warm_rate: float = Field(
        0.5,
        gt=0,
        allow_inf_nan=False,
        title="Warm rate",
        description="Starting from a model: the learning rate, as a share of `learning_rate`.",
    )
    warm_keep: float = Field(
        0.8,
        ge=0,
        le=1,
        title="Kept weights",
        description="Starting from a model: its weights times this, plus those of a model from scratch times what is missing "
        "to 1, are what training begins with. 1 keeps all.",
    )

    @model_validator(mode="after")
    def _whole_warmup(self) -> Self:
        if self.warmup_steps >= 1 and not float(self.warmup_steps).is_integer():
            raise ValueError(
                f"warmup_steps {self.warmup_steps} is neither a number of steps (1, 2, ...) nor a share of them (0 to 1)"
            )
        return self
