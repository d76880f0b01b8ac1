"""What can be set about a model, its training, its evaluation and its promotion: one frozen model per concern."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.errors import InputError

METRICS = ("recall", "precision", "hitrate", "map", "mrr", "ndcg")


class ModelConfig(BaseModel):
    """Architecture: the body and what goes into it."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Model")

    body: str = Field("sasrec", title="Body", description="Sequence encoder: a file of modeling/bodies (sasrec, gpt2).")
    dim: int = Field(64, ge=4, le=4096, title="Width", description="Size of item vectors and hidden states.")
    num_layers: int = Field(2, ge=1, le=64, title="Layers", description="Blocks of the body.")
    num_heads: int = Field(2, ge=1, le=64, title="Heads", description="Attention heads; must divide the width.")
    dropout: float = Field(0.2, ge=0, lt=1, title="Dropout", description="Share of activations zeroed in training.")
    positions: Literal["none", "end", "rotary", "forward"] = Field(
        "end",
        title="Positions",
        description="How order is told: none, learned and counted from the end, rotary, learned and counted forward.",
    )
    features: Literal["sum", "concat", "none"] = Field(
        "sum", title="Side features", description="How side features join the item vector at the input."
    )
    output_bias: bool = Field(
        False,
        title="Output bias",
        description="A learned score per item that starts at the log of its recent popularity. Helps where items age.",
    )

    @model_validator(mode="after")
    def _divisible(self) -> ModelConfig:
        if self.dim % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide dim {self.dim}")
        if self.positions == "rotary" and self.dim // self.num_heads % 2:
            raise ValueError(f"rotary positions need an even head size, got {self.dim // self.num_heads}")
        return self


class TrainingConfig(BaseModel):
    """How the model is fit."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Training")

    objective: str = Field("causal", title="Objective", description="A file of modeling/objectives.")
    loss: str = Field("full_softmax", title="Loss", description="A file of modeling/losses.")
    epochs: int = Field(10, ge=1, le=1000, title="Epochs", description="Passes over the training sessions.")
    order: Literal["time", "random"] = Field(
        "time", title="Order", description="time: oldest sessions first, so the last steps see the newest; or random."
    )
    half_life_days: float | None = Field(
        None,
        gt=0,
        title="Half-life",
        description="From the second epoch on a session is kept with probability 2^(-age/half-life). Empty keeps all.",
    )
    tokens_per_step: int = Field(1024, ge=16, title="Tokens per step", description="Events in one optimizer step.")
    learning_rate: float = Field(1e-3, gt=0, title="Learning rate", description="Peak of AdamW's learning rate.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", title="Schedule", description="Learning rate over the run; linear and cosine end at zero."
    )
    weight_decay: float = Field(0.0, ge=0, title="Weight decay", description="AdamW's, on matrices only.")
    evaluations: int = Field(
        10,
        ge=1,
        title="Evaluations",
        description="Validations (and checkpoints) spread over the run; the best one wins.",
    )
    patience: int = Field(
        3, ge=1, title="Patience", description="Validations without a better NDCG@20 after which training stops."
    )
    validation_sessions: int = Field(
        2000, ge=1, title="Validation sessions", description="Most sessions held out of the last training day."
    )
    seed: int = Field(17, ge=0, title="Seed", description="Same seed, same bits (on one machine's CPU).")
    threads: int | None = Field(None, ge=1, title="Threads", description="CPU threads; empty takes all.")


class EvaluationConfig(BaseModel):
    """How models are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Evaluation")

    cutoffs: tuple[int, ...] = Field((5, 10, 20), min_length=1, title="Cut-offs", description="Every k of metric@k.")
    filter_seen: bool = Field(
        False, title="Filter seen items", description="Never recommend what the session already holds."
    )
    baselines: tuple[str, ...] = Field(
        ("popularity", "last_day_popularity", "item_knn", "markov"),
        title="Baselines",
        description="Files of modeling/baselines, measured on the same sessions.",
    )


class PromotionConfig(BaseModel):
    """When a new model takes over."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Promotion")

    metric: str = Field("ndcg@20", title="Metric", description="Compared between the new model and the one in service.")
    min_gain: float = Field(
        0.0, title="Least gain", description="Relative gain that is asked for: 0.01 is one per cent. 0: any gain."
    )

    def check(self, evaluation: EvaluationConfig) -> None:
        """Raise InputError when the metric is not one that the evaluation computes."""
        known = [f"{name}@{k}" for k in evaluation.cutoffs for name in METRICS]
        if self.metric not in known:
            raise InputError(f"promotion.metric {self.metric!r} is not computed. Known: {', '.join(known)}.")
