"""What can be set about a model: what it reads, its body, objective, loss and heads.

A body, an objective, a loss and a head are chosen by name, with options of their own: `{name: gbce, calibration: 0.5}`.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from schemas.columns import ITEM_ID

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
    item_start: Literal["random", "neighbours"] = Field(
        "random",
        title="Item start",
        description="How vectors of item ids begin: at random; or near those of the items they occur with in training. Left "
        "out, a run takes neighbours where there are few events an item, and fewer than 5,000,000 in all.",
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
        le=1,
        title="Id dropout",
        description="With an item tower or pretrained vectors: share of items read without their id in training, so that new "
        "items can be scored. 1: ids are never read, features or vectors alone are.",
    )
    pretrained: PretrainedConfig | None = Field(None, title="Pretrained", description="Item vectors made elsewhere.")
    time: str | None = Field(
        None,
        title="Time",
        description="The feature that holds seconds since the previous event. Empty: the one that `elapsed` alone encodes.",
    )
    past_events: int = Field(
        0,
        ge=0,
        le=10_000,
        title="Past events",
        description="Most events of a user's past sessions that are read before the current one. 0: each session alone.",
    )
    query_time: bool = Field(
        False,
        title="Query time",
        description="Read how many seconds after the last event it is asked what comes next; in training, how long it took.",
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
        description="Share of attention weights zeroed in training; with any, a GPU's attention takes several times as long. "
        "Left out, a run takes the dropout above where sessions are whole histories, else 0.",
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
        description="A file of modeling/losses. Left out, a run takes sampled_softmax from 50,000 items on, "
        "with 2,048 negatives for 256 predictions.",
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
