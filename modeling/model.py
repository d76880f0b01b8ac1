"""The sequence model: inputs, body, heads and the objective that trains them, and the folder it is saved in.

B rows, L places, D width.
"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from modeling import parts
from modeling.attention import Layout
from modeling.batches import Batch, Places, lay_out, read
from modeling.bodies import Body
from modeling.config import NEXT_ITEM, ModelConfig
from modeling.heads import Head
from modeling.heads._label import LabelHead
from modeling.heads.next_item import NextItem
from modeling.inputs import Inputs
from modeling.objectives import Objective, Task
from modeling.sessions import Sessions
from schemas.errors import InputError, parse
from schemas.features import FeatureSchema

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class SequenceModel(nn.Module):
    """Inputs, a body and one or more heads on its hidden states."""

    def __init__(self, config: ModelConfig, schema: FeatureSchema) -> None:
        super().__init__()
        parts.check(config)
        self.settings, self.schema = config, schema
        self.inputs = Inputs(config, schema)
        self.body: Body = parts.build("body", config.body, config.body, config.inputs.positions == "rotary")
        self.heads = nn.ModuleDict(
            {label: parts.build("head", head, label, config, schema) for label, head in config.heads.items()}
        )
        self.objective: Objective = parts.build("objective", config.objective)
        self.body.keep_to(self.objective.direction)
        self.objective_parts = self.objective.parts(config, schema)

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
        """The heads that foretell labels, by label."""
        return {label: head for label, head in self.heads.items() if isinstance(head, LabelHead)}

    def lay_out(self, sessions: Sessions, *, ask: bool = False) -> Places:
        """Sessions in rows as the body takes them."""
        return lay_out(sessions, packed=self.body.packed, ask=ask)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def training_batch(self, sessions: Sessions, generator: torch.Generator) -> Batch:
        """A batch in which the objective has hidden what it asks about."""
        return fill(sessions, self.objective.task(sessions, self.lay_out, generator))

    def encode(self, batch: Batch) -> Tensor:
        """Hidden states h_BLD of a batch."""
        layout = Layout(
            batch["segments"],
            batch["positions"],
            self.objective.direction,
            self.inputs.seconds(batch),
            batch.get("order"),
        )
        h_BLD: Tensor = self.body(self.inputs(batch), layout)
        return h_BLD

    def states(self, histories: Sessions) -> Tensor:
        """The state h_SD from which what follows each of S histories is predicted, by the objective's rule of inference."""
        histories = histories.most_recent(self.schema.max_length - int(self.objective.asks))
        batch = fill(histories, self.objective.query(histories, self.lay_out))
        ends_BL = (batch["from_end"] == 0) & (batch["segments"] > 0)
        h_SD = self.encode(batch)[ends_BL]
        order_S = (batch["segments"][ends_BL]).argsort()
        return h_SD[order_S]

    def heads_loss(self, h_BLD: Tensor, batch: Batch) -> Tensor:
        """The weighted sum of the heads' losses."""
        losses = []
        for label, head in self.heads.items():
            assert isinstance(head, Head)
            losses.append(self.settings.heads[label].weight * head.loss(h_BLD, batch, self.inputs.items))
        return torch.stack(losses).sum()

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """The loss of a training batch."""
        return {"loss": self.objective.loss(self, batch)}

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        about = {"model": self.settings.model_dump(mode="json"), "schema": self.schema.model_dump(mode="json")}
        (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n")
        safetensors.torch.save_file(self.state_dict(), folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> SequenceModel:
        """Read what `save` wrote; the model is in evaluation mode.

        Raises:
            InputError: when the files are missing or do not belong together.
        """
        try:
            about = json.loads((folder / CONFIG).read_text())
            weights = safetensors.torch.load_file(folder / WEIGHTS)
        except (OSError, json.JSONDecodeError, safetensors.SafetensorError) as error:
            raise InputError(f"{folder} is not a model folder: {error}") from None
        where = str(folder / CONFIG)
        model = cls(parse(ModelConfig, about.get("model"), where), parse(FeatureSchema, about.get("schema"), where))
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}") from None
        return model.eval()


def fill(sessions: Sessions, task: Task) -> Batch:
    """The batch of a task: what is read, and what the events asked about hold.

    `targets` are item ids (0: none). `label.NAME` is float32, NaN where nothing is asked or known, or where the event asked
    about is in sight; `asks_last` tells where it is its session's last.
    """
    places, asked_BL = task.places, task.asked_BL
    event_BL, is_asked_BL = asked_BL.clamp(min=0), asked_BL >= 0
    batch = read(sessions, places, task.event_BL) | task.extra
    batch["targets"] = torch.where(is_asked_BL, sessions.items[event_BL].long(), 0)
    batch["asks_last"] = asked_BL == (sessions.starts + sessions.lengths - 1)[places.session_BL]
    # Without an order of prediction, an event left where it is asked about tells its label: inference sees no such thing.
    unseen_BL = is_asked_BL if "order" in task.extra else is_asked_BL & (task.event_BL != asked_BL)
    labels = {name: values[event_BL] for name, values in sessions.event_labels.items()}
    labels |= {name: values[places.session_BL] for name, values in sessions.labels.items()}
    return batch | {f"label.{name}": torch.where(unseen_BL, value, torch.nan) for name, value in labels.items()}
