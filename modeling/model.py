"""The sequence model: inputs, body, heads and the objective that trains them, and the folder it is saved in.

B rows, L places, D width.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from modeling import parts
from modeling.attention import Layout
from modeling.batches import Batch, Shape, lay_out
from modeling.bodies import Body
from modeling.config import NEXT_ITEM, ModelConfig
from modeling.draws import of_rows
from modeling.heads import Head
from modeling.heads._label import LabelHead
from modeling.heads.next_item import NextItem
from modeling.inputs import Inputs
from modeling.objectives import Objective
from modeling.sessions import Sessions
from schemas import plugins
from schemas.errors import InputError, parse, reason
from schemas.features import FeatureSchema

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class About(BaseModel):
    """What config.json holds, as it stands there."""

    model_config = ConfigDict(frozen=True)

    model: dict[str, Any]
    features: dict[str, Any] = Field(alias="schema")
    longest: PositiveInt | None = Field(None, description="Places that training read; older folders do not say.")
    longest_with_past: PositiveInt | None = Field(None, description="The same with past events; empty: none are read.")
    own_parts: dict[str, Any] | None = Field(None, description="Parts that are not built in; older folders do not say.")


class SequenceModel(nn.Module):
    """Inputs, a body and one or more heads on its hidden states."""

    def __init__(self, config: ModelConfig, schema: FeatureSchema, *, trained: bool = False) -> None:
        """`trained`: the model is made to take the weights of one that was trained with these settings."""
        super().__init__()
        parts.check(config, trained=trained)
        self.settings, self.schema = config, schema
        self.own_parts = plugins.own_parts(config.parts)
        self.objective: Objective = parts.build("objective", config.objective)
        direction = self.objective.direction
        self.inputs = Inputs(config, schema, hides=self.objective.asks and direction != "permuted")
        self.body: Body = parts.build("body", config.body, config.body, config.inputs.positions == "rotary")
        self.body.keep_to(direction)
        self.heads = nn.ModuleDict(
            {label: parts.build("head", head, label, config, schema) for label, head in config.heads.items()}
        )
        for head in self.heads.values():
            assert isinstance(head, Head)
            head.keep_to(direction)
        self.objective_parts = self.objective.parts(config, schema)
        held_out = 2 if schema.split == "leave_one_out" else 0
        least = 1 + int(self.objective.asks)
        self.longest = max(schema.max_length - held_out - self.objective.drops, least)  # places; `reach` knows better
        self.longest_with_past = self.longest + config.inputs.past_events

    def reach(self, train: Sessions) -> None:
        """Take from the training sessions what training reads: how many places, which ids. Inference reads no more."""
        self.longest = int(train.lengths.max()) - self.objective.drops
        self.longest_with_past = int(train.places.max()) - self.objective.drops
        self.inputs.reach(train.drop_last(self.objective.drops), train)

    @property
    def next_item(self) -> NextItem:
        """The head that scores the catalogue.

        Raises:
            InputError: when the model has none.
        """
        if NEXT_ITEM not in self.heads:
            raise InputError(
                f"This model predicts {', '.join(self.heads)}, not the next item: it has no head next_item, so it cannot "
                "rank or recommend items."
            )
        head = self.heads[NEXT_ITEM]
        assert isinstance(head, NextItem)
        return head

    @property
    def label_heads(self) -> dict[str, LabelHead]:
        """The heads that predict labels, by label."""
        return {label: head for label, head in self.heads.items() if isinstance(head, LabelHead)}

    def lay_out(self, sessions: Sessions, *, ask: bool = False, shape: Shape | None = None) -> Layout:
        """Sessions in places as the body takes them, in `shape` where the host knows it; a GPU is asked for their lengths."""
        if shape is None and sessions.lengths.device.type != "cpu":
            shape = Shape.of(sessions.places + int(ask), self.flat)
        direction = self.objective.direction
        return lay_out(sessions, packed=self.body.packed, ask=ask, direction=direction, shape=shape)

    @property
    def flat(self) -> bool:
        """Whether a GPU is given all sessions in one row; otherwise one a row."""
        return self.body.packed and self.body.flat

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def training_batch(self, sessions: Sessions, generator: torch.Generator, shape: Shape | None = None) -> Batch:
        """A batch in which the objective has hidden what it asks about, in `shape` where the host knows it."""
        if self.inputs.asked is not None:
            sessions = replace(sessions, time=self.inputs.time)
        return self.objective.batch(sessions, partial(self.lay_out, shape=shape), generator)

    def encode(self, batch: Batch, *, noise: bool = True) -> Tensor:
        """Hidden states h_BLD of a batch, which is read as it is without `noise` (see Inputs)."""
        layout, seconds_BL = batch.layout, self.inputs.seconds(batch)
        if seconds_BL is not None:
            asked_BL = self.inputs.asked_seconds(batch, seconds_BL)
            layout = replace(layout, seconds_BL=seconds_BL, asked_BL=asked_BL)
        with of_rows(batch.part.rows) if batch.part else nullcontext():
            x_BLD = self.inputs(batch, noise=noise)
        h_BLD: Tensor = self.body(x_BLD, layout)
        return h_BLD

    def states(self, histories: Sessions) -> Tensor:
        """The state h_SD from which what follows each of S histories is predicted, by the objective's rule of inference.

        Of each, the most recent events are read that fill as many places as training did, its own and then past ones.
        """
        asks, past_events = int(self.objective.asks), self.settings.inputs.past_events
        if histories.past is not None:
            past = histories.past.at_most(past_events)
            histories = replace(histories, past=past if past_events else None)
        histories = self.inputs.readable(self.inputs.timed(histories))
        histories = histories.most_recent(self.longest - asks, self.longest_with_past - asks)
        batch = self.objective.query(histories, self.lay_out)
        return batch.states(self.encode(batch))

    def propose(self, h_ND: Tensor) -> Tensor:
        """An item id for each state, drawn from the softmax of its next-item scores, [N]."""
        return self.next_item.propose(h_ND, self.inputs.items)

    def heads_loss(self, h_BLD: Tensor, batch: Batch) -> Tensor:
        """The weighted sum of the heads' losses."""
        losses = []
        for label, head in self.heads.items():
            assert isinstance(head, Head)
            losses.append(self.settings.heads[label].weight * head.loss(h_BLD, batch, self.inputs.items))
        return torch.stack(losses).sum()

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a training batch."""
        return self.objective.loss(self, batch)

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors: no code, but which parts that are not built in it takes to load them."""
        about = {
            "model": self.settings.model_dump(mode="json"),
            "schema": self.schema.model_dump(mode="json"),
            "longest": self.longest,
            "longest_with_past": self.longest_with_past if self.settings.inputs.past_events else None,
            "own_parts": {part: own.model_dump() for part, own in self.own_parts.items()},
        }
        (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n")
        safetensors.torch.save_file(self.state_dict(), folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> SequenceModel:
        """Read what `save` wrote; the model is in evaluation mode.

        Raises:
            InputError: when the files are missing or do not belong together, or a part is missing that is not built in.
        """
        try:
            read = json.loads((folder / CONFIG).read_text())
            weights = safetensors.torch.load_file(folder / WEIGHTS)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise InputError(f"{folder} is not a model folder: {reason(error)}") from None
        where = str(folder / CONFIG)
        about = parse(About, read, where)
        config = parse(ModelConfig, about.model, where)
        if about.own_parts is not None:
            parts.require(about.own_parts, config, where)
        model = cls(config, parse(FeatureSchema, about.features, where), trained=True)
        model.longest = about.longest or model.longest
        model.longest_with_past = about.longest_with_past or model.longest
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}") from None
        return model.eval()
