"""What can be set about a model, its training, its evaluation and its promotion: one frozen model per concern.

A body, an objective, a loss and a head are chosen by name, with options of their own: `{name: gbce, calibration: 0.5}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from schemas.columns import ITEM_ID
from schemas.errors import unknown

METRICS = ("recall", "precision", "hitrate", "map", "mrr", "ndcg")
LABEL_METRICS = {"binary": ("auc", "log_loss", "calibration_error"), "regression": ("rmse", "mae")}  # by kind of head
LOWER_IS_BETTER = ("log_loss", "calibration_error", "rmse", "mae")
NEXT_ITEM = "next_item"


class Concern(BaseModel):
    """One group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Choice(Concern):
    """A file of a package and the options that are its own."""

    name: str
    options: dict[str, Any] = Field({}, title="Options", description="See `overnight models` for what each takes.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        """`gbce`, or `{name: gbce, calibration: 0.5}`: keys that are not ours are options."""
        if isinstance(given, str):
            return {"name": given}
        if not isinstance(given, dict):
            return given
        own = {key: value for key, value in given.items() if key in cls.model_fields}
        options = {key: value for key, value in given.items() if key not in cls.model_fields}
        return {**own, "options": {**own.get("options", {}), **options}} if options else own


class PretrainedConfig(Concern):
    """Item vectors made elsewhere, from text or pictures."""

    model_config = ConfigDict(title="Pretrained item vectors")

    path: str = Field(
        title="File",
        description="Parquet with a column of item ids and one of lists, or .npy whose row i belongs to item id i.",
    )
    key: str = Field(ITEM_ID, title="Key", description="Parquet: the column of raw item ids.")
    column: str = Field("vector", title="Column", description="Parquet: the column of vectors.")
    trained: bool = Field(False, title="Trained", description="Let training change the vectors.")
    normalised: bool = Field(True, title="Normalised", description="Scale every vector to length one first.")
    replaces_id: bool = Field(
        False, title="Replaces the id's", description="Take it in place of the id's own vector, not added to it."
    )


class InputsConfig(Concern):
    """What of an event the model reads, and how it becomes one vector."""

    model_config = ConfigDict(title="Inputs")

    features: tuple[str, ...] | None = Field(
        None,
        title="Features",
        description="Side features that are read. Empty: all but that of time, below; []: none.",
    )
    aggregation: Literal["sum", "concat", "sum_times_item"] = Field(
        "sum",
        title="Aggregation",
        description="How item and side features join: added, side by side and projected, or added and times the item.",
    )
    positions: Literal["none", "end", "rotary", "forward"] = Field(
        "end",
        title="Positions",
        description="How order is read: none, learned and counted from the end, rotary, learned and counted forward.",
    )
    item_dim: int | None = Field(None, ge=1, title="Item width", description="Of item vectors. Empty: the body's.")
    dims: dict[str, PositiveInt] = Field(
        {},
        title="Widths",
        description="Of the vectors of features. Others: the body's where they are added; else 2 * cardinality^(1/4), rounded "
        "up, and 8 for numbers.",
    )
    continuous: Literal["linear", "soft_one_hot"] = Field(
        "linear",
        title="Numbers",
        description="linear: a line through the number; soft_one_hot: a softmax over learned vectors.",
    )
    soft_vectors: int = Field(10, ge=2, title="Soft vectors", description="How many, with soft_one_hot.")
    item_tower: Literal["none", "sum", "concat"] = Field(
        "none",
        title="Item tower",
        description="Make an item's vector of its id and its features, at the input and the output: summed, or through an MLP.",
    )
    id_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        title="Id dropout",
        description="With an item tower or pretrained vectors: share of items read without their id in training, so that new "
        "items can be scored.",
    )
    pretrained: PretrainedConfig | None = Field(None, title="Pretrained", description="Item vectors made elsewhere.")
    time: str | None = Field(
        None,
        title="Time",
        description="The feature that holds seconds since the previous event. Empty: the one that `elapsed` alone encodes.",
    )
    swap_noise: float = Field(
        0.0,
        ge=0,
        lt=1,
        title="Swap noise",
        description="Share of values replaced in training by those of other events.",
    )
    feature_norm: bool = Field(False, title="Feature norm", description="A LayerNorm for each feature's vector.")

    @model_validator(mode="after")
    def _wide_enough(self) -> Self:
        for name, width in self.dims.items():
            if self.feature_norm and width == 1:
                raise ValueError(f"dims.{name}: a LayerNorm over one number leaves nothing of it; give 2 or more")
        return self


class BodyConfig(Choice):
    """The sequence encoder."""

    model_config = ConfigDict(title="Body")

    name: str = Field(
        "sasrec", title="Body", description="A file of modeling/bodies, or a model type of Hugging Face transformers."
    )
    dim: int = Field(64, ge=4, le=8192, title="Width", description="Size of hidden states.")
    num_layers: int = Field(2, ge=1, le=128, title="Layers", description="Blocks of the body.")
    num_heads: int = Field(2, ge=1, le=128, title="Heads", description="Attention heads; must divide the width.")
    dropout: float = Field(0.2, ge=0, lt=1, title="Dropout", description="Share of activations zeroed in training.")
    attention_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        title="Attention dropout",
        description="Share of attention weights zeroed in training; with any, a GPU's attention takes several times as long.",
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide dim {self.dim}")
        return self


class ObjectiveConfig(Choice):
    """What is predicted from what."""

    model_config = ConfigDict(title="Objective")

    name: str = Field("causal", title="Objective", description="A file of modeling/objectives.")


class NegativesConfig(Concern):
    """Which items a sampled loss compares the right one with."""

    model_config = ConfigDict(title="Negatives")

    source: Literal["uniform", "popularity", "in_batch"] = Field(
        "uniform",
        title="Source",
        description="Any item alike, by how often items occur in training, or the other targets of the batch.",
    )
    mixed: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Mixed",
        description="Share of them that is drawn uniformly instead (popularity, in_batch).",
    )
    count: int = Field(256, ge=1, title="Negatives", description="Drawn for each group of predictions.")
    group: int = Field(
        32, ge=1, title="Group", description="Predictions that share their negatives: fewer learn more, more cost less."
    )
    corrected: bool = Field(
        False, title="logQ", description="Take log(expected count) off a negative's score; never off the positive's."
    )

    @model_validator(mode="after")
    def _mixed_with_others(self) -> Self:
        if self.mixed and self.source == "uniform":
            raise ValueError(
                f"mixed {self.mixed} has no effect: source uniform draws all uniformly; set source as well"
            )
        return self


class LossConfig(Choice):
    """What is minimised for the next item."""

    model_config = ConfigDict(title="Loss")

    name: str = Field(
        "full_softmax",
        title="Loss",
        description="A file of modeling/losses. Left out, a run takes sampled_softmax from 50,000 items on.",
    )
    negatives: NegativesConfig = Field(NegativesConfig(), title="Negatives")


class HeadConfig(Choice):
    """One thing that is predicted. Its name in `heads` is that of a label of the dataset, or next_item."""

    model_config = ConfigDict(title="Head")

    name: str = Field("binary", title="Kind", description="A file of modeling/heads: next_item, binary, regression.")
    weight: float = Field(1.0, gt=0, title="Weight", description="Of its loss in the sum.")


class ModelConfig(Concern):
    """Architecture and objective: everything that decides what a model folder means."""

    model_config = ConfigDict(title="Model")

    inputs: InputsConfig = InputsConfig()
    body: BodyConfig = BodyConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    loss: LossConfig = LossConfig()
    heads: dict[str, HeadConfig] = Field(default={NEXT_ITEM: HeadConfig(name=NEXT_ITEM)}, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _name_next_item(cls, given: Any) -> Any:
        """`heads: {next_item: {bias: true}}` needs no name."""
        heads = given.get("heads") if isinstance(given, dict) else None
        if isinstance(heads, dict) and isinstance(heads.get(NEXT_ITEM, 0), dict | None):
            heads = heads | {NEXT_ITEM: {"name": NEXT_ITEM} | (heads[NEXT_ITEM] or {})}
            return given | {"heads": heads}
        return given

    @model_validator(mode="after")
    def _one_next_item(self) -> Self:
        for name, head in self.heads.items():
            if (head.name == NEXT_ITEM) != (name == NEXT_ITEM):
                raise ValueError(f"heads: {name!r} is of kind {head.name!r}; a head of that kind is called next_item")
        return self

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """By kind, as in `schemas.places`, the names of the parts it is put together from."""
        heads = tuple(sorted({head.name for head in self.heads.values()}))
        return {
            "bodies": (self.body.name,),
            "objectives": (self.objective.name,),
            "losses": (self.loss.name,),
            "heads": heads,
        }

    @property
    def item_dim(self) -> int:
        """Width of item vectors."""
        return self.inputs.item_dim or self.body.dim


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
    # `overnight train` chooses these two, and with the rate the warm-up, by the size of the data (modeling/presets/by_size.py).
    tokens_per_step: int = Field(
        1024,
        ge=16,
        title="Tokens per step",
        description="Events in one optimizer step. Left out, a run takes 0.26 events^(2/3), as a power of two.",
    )
    learning_rate: float = Field(
        1e-3,
        gt=0,
        title="Learning rate",
        description="Peak of AdamW's learning rate. Left out, a run takes 0.003 to 512 events a step and 0.002 above, with a "
        "warm-up of 0.1.",
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
    validation_sessions: int = Field(
        2000,
        ge=1,
        title="Validation sessions",
        description="Most sessions held out of the last training day, and at most a tenth of it. Without any, training runs to "
        "its end and the last weights are kept.",
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
    seed: int = Field(17, ge=0, title="Seed", description="Same seed and threads, same bits (on one machine's CPU).")
    threads: int | None = Field(
        None,
        ge=1,
        title="Threads",
        description="CPU threads. Empty: OMP_NUM_THREADS, or all cores. Another number adds in another order, so it gives "
        "other bits, and a model of its own.",
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

    @model_validator(mode="after")
    def _whole_warmup(self) -> Self:
        if self.warmup_steps >= 1 and not float(self.warmup_steps).is_integer():
            raise ValueError(
                f"warmup_steps {self.warmup_steps} is neither a number of steps (1, 2, ...) nor a share of them (0 to 1)"
            )
        return self


class EvaluationConfig(Concern):
    """How models are compared."""

    model_config = ConfigDict(title="Evaluation")

    cutoffs: tuple[PositiveInt, ...] = Field(
        (5, 10, 20), min_length=1, title="Cut-offs", description="Every k of metric@k."
    )
    filter_seen: bool = Field(
        False, title="Filter seen items", description="Never recommend what the session already holds."
    )
    baselines: tuple[str, ...] = Field(
        ("popularity", "last_day_popularity", "item_knn", "markov"),
        title="Baselines",
        description="Files of modeling/evaluation/baselines, measured on the same sessions. Labels have one more, `mean`.",
    )

    @model_validator(mode="after")
    def _no_duplicates(self) -> Self:
        for name, given in (("cutoffs", self.cutoffs), ("baselines", self.baselines)):
            if twice := sorted({str(value) for value in given if given.count(value) > 1}):
                raise ValueError(f"{name}: {', '.join(twice)} is named twice")
        return self


class PromotionConfig(Concern):
    """When a new model takes over."""

    model_config = ConfigDict(title="Promotion")

    metric: str = Field(
        "ndcg@20",
        title="Metric",
        description="Compared between the new model and the one in service: as in ndcg@20, or LABEL/auc, LABEL/rmse...",
    )
    min_gain: float = Field(
        0.0,
        allow_inf_nan=False,
        title="Least gain",
        description="Relative gain that is asked for: 0.01 is one per cent. 0: any gain.",
    )

    def check(self, evaluation: EvaluationConfig, heads: Mapping[str, HeadConfig]) -> None:
        """Raise InputError when the metric is not one that the evaluation computes for these heads."""
        known: list[str] = []
        for label, head in heads.items():
            if head.name == NEXT_ITEM:
                known += [f"{name}@{k}" for k in evaluation.cutoffs for name in METRICS]
            elif head.name in LABEL_METRICS:
                known += [f"{label}/{name}" for name in LABEL_METRICS[head.name]]
            elif self.metric.startswith(f"{label}/"):
                return  # a kind of head that is not ours: its file says what it measures
        if self.metric not in known:
            raise unknown("promotion.metric", self.metric, known)
