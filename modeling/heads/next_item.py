"""The next item: every item of the catalogue is scored by h . item + bias.

B rows, L places, D width, E width of item vectors, V items, N predictions, G groups of g predictions, K negatives.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from modeling import losses
from modeling.batches import Batch, Part
from modeling.config import ModelConfig
from modeling.heads import Head
from modeling.items import ItemVectors
from modeling.losses._groups import scores_of_groups
from modeling.losses._negatives import draw
from modeling.losses._sharded import sharded_cross_entropy
from modeling.rows import rows_of
from modeling.shards import Gathered, Shard
from schemas import plugins
from schemas.columns import FIRST_ID
from schemas.features import FeatureSchema

SCORES_AT_ONCE = 1 << 24  # 64 MiB of float32
MOST_TRAINED = (
    0.5  # of a catalogue: where fewer items are trained, taking their rows out costs less than scoring the rest
)


class NextItem(Head):
    """Scores of the catalogue, against the item vectors that are read at the input or a table of its own."""

    def __init__(
        self,
        label: str,
        config: ModelConfig,
        schema: FeatureSchema,
        *,
        table: Annotated[
            Literal["shared", "separate"],
            Field(description="Score against the input's item vectors, or a table of its own."),
        ] = "shared",
        bias: Annotated[
            bool, Field(description="Learn a score per item, from the log of its recent popularity on: items that age.")
        ] = False,
        bias_half_life: Annotated[
            Literal["day", "chosen"] | Annotated[float, Field(gt=0)],
            Field(
                description="What is recent: every so many hours of age halve an event; day: the newest day's count alike; "
                "chosen: the hours that make the newest day of training likeliest by what was before it."
            ),
        ] = "day",
        cosine: Annotated[
            bool, Field(description="Score by the cosine of state and item instead of their product.")
        ] = False,
        temperature: Annotated[
            float, Field(gt=0, description="Divides the scores; cosines need one far below 1.")
        ] = 1.0,
    ) -> None:
        super().__init__(label, config, schema)
        self.cosine, self.temperature, self.bias_half_life = cosine, temperature, bias_half_life
        self.negatives = config.loss.negatives
        loss = plugins.find(losses, config.loss.name)
        self.sampled = losses.is_sampled(loss)
        self.loss_of = partial(loss, **plugins.read_options(losses, config.loss.name, config.loss.options, "loss"))
        self.project = nn.Linear(config.body.dim, config.item_dim, bias=False) if config.inputs.item_dim else None
        self.items_VE = None
        self.sparse = False  # whether the gradient of `items_VE` holds only the rows read
        if table == "separate":
            self.items_VE = nn.Parameter(torch.empty(schema.num_items, config.item_dim))
            nn.init.xavier_normal_(self.items_VE)
        self.bias_V = nn.Parameter(torch.zeros(schema.num_items)) if bias else None
        # Events of each item in training, kept with the weights: an item without one is never recommended.
        self.register_buffer("popularity_V", torch.ones(schema.num_items))
        self.popularity_V: Tensor
        self.register_buffer("uniform_U", torch.arange(schema.num_items), persistent=False)  # drawn uniformly from
        self.uniform_U: Tensor

    @torch.no_grad()
    def add(self, count: int) -> None:
        """Append items that nobody clicked yet: they may be recommended, with the median bias."""
        self.popularity_V = torch.cat([self.popularity_V, self.popularity_V.new_ones(count)])
        if self.bias_V is not None:
            self.bias_V = nn.Parameter(torch.cat([self.bias_V, self.bias_V.median().expand(count)]))

    @torch.no_grad()
    def make_rankable(self, column_N: Tensor) -> None:
        """Let items without a training event be recommended, with the median bias."""
        self.popularity_V[column_N] = 1.0
        if self.bias_V is not None:
            self.bias_V[column_N] = self.bias_V.median()

    def query(self, h_ND: Tensor) -> Tensor:
        """What item vectors are multiplied with, [N, E]."""
        q_NE = self.project(h_ND) if self.project else h_ND
        return (F.normalize(q_NE, dim=-1) if self.cosine else q_NE) / self.temperature

    def catalogue(self, items: ItemVectors) -> Tensor:
        """The vectors scored against, [V, E]: row v belongs to item id v + 3."""
        return self._vectors(items.all()[FIRST_ID:] if self.items_VE is None else self.items_VE)

    def loss(self, h_BLD: Tensor, batch: Batch, items: ItemVectors) -> Tensor:
        """Unknown items are read but never predicted: they weigh nothing, the others their share of 1."""
        weight_N = _weights(batch)
        weight_N = weight_N / batch.total(weight_N, _weights).clamp(min=torch.finfo(weight_N.dtype).tiny)
        target_N = (batch.target_N - FIRST_ID).clamp(min=0)
        q_NE = self.query(batch.states(h_BLD))
        if self.sampled:
            positive_N, negative_NK = self._sample(q_NE, target_N, weight_N, items, batch.part)
            loss_N: Tensor = self.loss_of(positive_N.float(), negative_NK.float(), len(self.uniform_U))
            return (loss_N * weight_N).sum()
        if items.shard:
            return self._sharded(q_NE, target_N, weight_N, items, items.shard)
        items_VE = self.catalogue(items)
        scored: tuple[Tensor, Tensor | None, Tensor] = (items_VE, self.bias_V, target_N)
        if len(self.uniform_U) <= MOST_TRAINED * len(items_VE):
            scored = self._trained(items_VE, target_N)
        loss: Tensor = self.loss_of(q_NE, *scored, weight_N)
        return loss

    def _trained(self, items_VE: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Vectors, biases and targets among the items of training alone: no other is ever recommended, and none a target."""
        row_V = torch.zeros_like(self.popularity_V, dtype=torch.long)
        row_V[self.uniform_U] = torch.arange(len(self.uniform_U), device=row_V.device)
        bias_U = None if self.bias_V is None else self.bias_V[self.uniform_U]
        return items_VE.index_select(0, self.uniform_U), bias_U, row_V[target_N]

    @torch.no_grad()
    def propose(self, h_ND: Tensor, items: ItemVectors) -> Tensor:
        """An item id for each state, drawn from the softmax of its scores: the largest score + Gumbel noise. Shape [N].

        All scores of a few states at a time: memory grows with the catalogue, not with the batch.
        """
        query_NE, items_VE = self.query(h_ND), self.catalogue(items)
        drawn = []
        for query in query_NE.split(max(1, SCORES_AT_ONCE // len(items_VE))):
            score = (query @ items_VE.T).float()
            if self.bias_V is not None:
                score += self.bias_V
            drawn.append((score - torch.empty_like(score).exponential_().log_()).argmax(1))
        return torch.cat(drawn) + FIRST_ID

    def _sharded(self, q_NE: Tensor, target_N: Tensor, weight_N: Tensor, items: ItemVectors, shard: Shard) -> Tensor:
        """Full softmax where each process scores its own items for the states of all."""
        gathered = Gathered(target_N, shard)
        begin = max(FIRST_ID - shard.first, 0)  # the first rows of the table are no items
        first, count = shard.first + begin - FIRST_ID, shard.num_rows - begin
        return sharded_cross_entropy(
            gathered.with_gradients(q_NE),
            self._vectors(items.table_VE[begin:]),
            None if self.bias_V is None else self.bias_V[first : first + count],
            gathered.of(target_N) - first,
            gathered.of(weight_N),
            gathered.own,
            shard.most_rows,
        )

    def _sample(
        self, q_NE: Tensor, target_N: Tensor, weight_N: Tensor, items: ItemVectors, part: Part | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores of the targets, and of the negatives of each prediction's group; a negative that is the target is -inf."""
        before, column_GK, log_expected_GK = self._draw(target_N, weight_N, part)
        shift_GK = None if self.bias_V is None else self.bias_V[column_GK]
        if log_expected_GK is not None:
            shift_GK = -log_expected_GK if shift_GK is None else shift_GK - log_expected_GK
        item_RE = self._of(torch.cat([target_N, column_GK.flatten()]), items)
        positive_N, negative_NK = scores_of_groups(
            q_NE, item_RE, target_N, column_GK, shift_GK, self.negatives.group, before
        )
        if self.bias_V is not None:
            positive_N = positive_N + self.bias_V[target_N]
        return positive_N, negative_NK

    def _draw(self, target_N: Tensor, weight_N: Tensor, part: Part | None) -> tuple[int, Tensor, Tensor | None]:
        """How many predictions of the first group come before these, and the negatives and logQ of their groups, [G, K].

        Those of a part with rows of a batch are the ones that the whole batch has at these predictions.
        """
        if part is None or part.rows is None:
            return 0, *draw(self.negatives, target_N, self.popularity_V, weight_N, self.uniform_U)
        all_N, weight_of_all_N = (part.whole.target_N - FIRST_ID).clamp(min=0), _weights(part.whole)
        column_GK, log_expected_GK = draw(
            self.negatives, all_N, self.popularity_V, weight_of_all_N, self.uniform_U, part.rows.generator
        )
        size = self.negatives.group
        groups = slice(part.first // size, -(-(part.first + len(target_N)) // size))
        return part.first % size, column_GK[groups], None if log_expected_GK is None else log_expected_GK[groups]

    def _of(self, column: Tensor, items: ItemVectors) -> Tensor:
        if self.items_VE is not None:
            return self._vectors(rows_of(self.items_VE, column, sparse=self.sparse))
        return self._vectors(items.of(column + FIRST_ID))

    def _vectors(self, item: Tensor) -> Tensor:
        return F.normalize(item, dim=-1) if self.cosine else item

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        """A model folder of before counts were kept may recommend every item."""
        state_dict.setdefault(f"{prefix}popularity_V", torch.ones_like(self.popularity_V))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _weights(batch: Batch) -> Tensor:
    """Of each prediction; of unknown items 0."""
    return batch.weight_N * (batch.target_N >= FIRST_ID)
